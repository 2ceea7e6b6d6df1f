"""The SDR of files that were just separated: one number a stem, in bounded memory.

It is museval's SDR, for which no filters are needed: of each second the ratio of the energies of
the true stem and of what is wrong with the estimate, and of these the median.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..audio import AudioReader
from ..errors import AudioError, ConfigError
from .bss import is_silent, nb_frames_of
from .scores import HOP, WINDOW, nan_median
from .stems import stem_files


@dataclass(frozen=True)
class StemScore:
    """How well a stem was separated.

    Attributes
    ----------
    sdr : float
        Source to distortion ratio of the estimate in dB; NaN if it or the stem is silent.
    sdr_of_mixture : float
        The same if nothing had been separated: of the mixture as an estimate.
    """

    sdr: float
    sdr_of_mixture: float


def find_references(folder: str | os.PathLike[str], names: Sequence[str]) -> dict[str, Path]:
    """Find the true stems of a song.

    Parameters
    ----------
    folder : str or path-like
        Holds a sound file for each stem, named like it.
    names : sequence of str
        Stems to look for.

    Returns
    -------
    dict of str to Path
        Those that are there, in the order of `names`.

    Raises
    ------
    ConfigError
        If there are none, or several files of a stem.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigError(
            f"reference={str(folder)!r} is no folder; give one with the true stems, as files like "
            f"{next(iter(names), 'vocals')}.wav"
        )
    found = stem_files(folder, names)
    if not found:
        raise ConfigError(
            f"reference={str(folder)!r} holds no stem of {', '.join(names)}, as files like "
            f"{next(iter(names), 'vocals')}.wav"
        )
    return {name: found[name] for name in names if name in found}


def score_files(
    references: Mapping[str, str | os.PathLike[str]],
    estimates: Mapping[str, str | os.PathLike[str]],
    mixture: str | os.PathLike[str],
    *,
    start: float = 0.0,
    duration: float | None = None,
    track: int | None = None,
    downmix: str | None = None,
) -> dict[str, StemScore]:
    """Compare files of stems with the true ones, reading them second by second.

    Parameters
    ----------
    references : mapping of str to str or path-like
        The true stems.
    estimates : mapping of str to str or path-like
        Files of the estimates, one for each reference at least.
    mixture : str or path-like
        What was separated.
    start, duration : float
        Excerpt of the references and the mixture, in seconds, that the estimates belong to.
    track, downmix
        What of the mixture was separated, as for `umx_np.audio.AudioReader`.

    Returns
    -------
    dict of str to StemScore
        In the order of the references.

    Raises
    ------
    AudioError
        If a file cannot be read, or the files differ in length or channels; of a mixture with more
        channels than the stems have, the first ones are taken.

    Notes
    -----
    As in museval, seconds in which a stem or its estimate is silent do not count, nor does a last
    one that is not complete. What is silent throughout has no score; the others have theirs.
    References of another rate than the estimates are resampled.
    """
    names = list(references)
    with ExitStack() as stack:
        opened = [stack.enter_context(AudioReader(estimates[name])) for name in names]
        rate = opened[0].rate
        how: dict[str, Any] = {"start": start, "duration": duration, "rate": rate}
        for path in references.values():
            opened.append(stack.enter_context(AudioReader(path, **how)))
        how |= {"track": track, "downmix": downmix}
        opened.append(stack.enter_context(AudioReader(mixture, **how)))
        for reader in opened[1:]:
            # Of more channels than the stems have, the first ones were separated.
            _check_alike(opened[0], reader, more_channels=reader is opened[-1])
        nb_channels = opened[0].nb_channels
        window = int(WINDOW * rate)
        hop = int(HOP * rate)
        frames = zip(*(reader.blocks(hop) for reader in opened), strict=True)
        nb_frames = nb_frames_of(opened[0].nb_timesteps, window, hop)
        sounds, ratios = [], []
        for frame in frames:
            *signals, mixed = (block.astype(np.float64) for block in frame)
            guesses, truths = signals[: len(names)], signals[len(names) :]
            sounds.append([[not is_silent(x) for x in group] for group in (truths, guesses)])
            pairs = [zip(truths, guesses, strict=True), ((t, mixed[:nb_channels]) for t in truths)]
            ratios.append([[_ratio(*pair) for pair in group] for group in pairs])
    # [shape=(nb_seconds, 2, nb_stems)]; a last second that is not complete tells only of sounds.
    heard, sdr = np.array(sounds), np.array(ratios[:nb_frames])
    is_heard, is_estimated = np.any(heard, axis=0)
    scored = is_heard & is_estimated
    # What is silent throughout has no score, and takes none from the others.
    sdr[~(heard[:nb_frames] | ~np.stack([is_heard, scored])).all(axis=(1, 2))] = np.nan
    sdr[:, 0, ~scored] = np.nan
    return {
        name: StemScore(nan_median(sdr[:, 0, k]), nan_median(sdr[:, 1, k]))
        for k, name in enumerate(names)
    }


def _check_alike(first: AudioReader, other: AudioReader, *, more_channels: bool) -> None:
    if other.rate != first.rate:
        raise AudioError(
            f"path={str(other.path)!r} has rate={other.rate:g}, path={str(first.path)!r} has "
            f"rate={first.rate:g}; they do not belong together"
        )
    nb_channels = other.nb_channels
    if more_channels:
        nb_channels = min(nb_channels, first.nb_channels)
    if (nb_channels, other.nb_timesteps) != (first.nb_channels, first.nb_timesteps):
        raise AudioError(
            f"path={str(other.path)!r} has nb_channels={other.nb_channels}, "
            f"nb_timesteps={other.nb_timesteps} at {first.rate:g} Hz, path={str(first.path)!r} has "
            f"{first.nb_channels}, {first.nb_timesteps}; the stems of a song must agree"
        )


def _ratio(truth: np.ndarray, guess: np.ndarray) -> float:
    energy, error = float(np.sum(truth**2)), float(np.sum((truth - guess) ** 2))
    # Without any error there is no ratio, and museval leaves such numbers out.
    return 10.0 * float(np.log10(energy / error)) if energy and error else np.nan
