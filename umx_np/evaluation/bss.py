"""BSS Eval version 4: how well estimates of sources match the true ones.

An estimate is taken apart, frame by frame, into the true source, what filtering the true source by
512 taps can explain (spatial distortion), what filtering the other sources can explain
(interference), and the rest (artifacts). The filters are the same for the whole track.

The values are museval's. What is different is the way there: correlations are summed over short
blocks instead of transforming whole tracks, all filters come from one solution of the normal
equations, and energies are summed over the spectra of frames, which saves the inverse transforms.
Where the references do not determine the filters, museval's values are noise; see `filters`.

    n_fft             transform of a frame and its filters' tails
    R = nb_sources * nb_channels   signals, the channels of a source side by side
    L = nb_taps
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..config import check_array, check_int
from ..errors import ShapeError
from .filters import BATCH, distortion_filters, quick_length

logger = logging.getLogger(__name__)

NB_TAPS = 512
METRICS = ("SDR", "SIR", "ISR", "SAR")


class BssScores(NamedTuple):
    """Ratios in dB, one for each source and frame, each [shape=(nb_sources, nb_frames)].

    NaN where a source or an estimate is silent in the frame, infinite where an error is zero.

    Attributes
    ----------
    SDR : ndarray
        Source to distortion: everything that is wrong.
    SIR : ndarray
        Source to interference: what is left of other sources.
    ISR : ndarray
        Image to spatial distortion: wrong levels, panning, equalisation.
    SAR : ndarray
        Source to artifacts: what no filtered source explains.
    """

    SDR: np.ndarray
    SIR: np.ndarray
    ISR: np.ndarray
    SAR: np.ndarray


def nb_frames_of(nb_timesteps: int, window: int, hop: int) -> int:
    """Number of frames: whole windows only, but one for a track that is shorter.

    Parameters
    ----------
    nb_timesteps : int
        Length of the track in samples.
    window, hop : int
        Length and distance of frames in samples.

    Examples
    --------
    >>> nb_frames_of(100, 10, 10), nb_frames_of(109, 10, 10), nb_frames_of(7, 10, 10)
    (10, 10, 1)
    """
    return 1 + (nb_timesteps - window) // hop if window < nb_timesteps else 1


def bss_eval(
    references: Sequence[np.ndarray],
    estimates: Sequence[np.ndarray],
    *,
    window: int = 44100,
    hop: int = 44100,
    nb_taps: int = NB_TAPS,
) -> BssScores:
    """Score estimates of sources with BSS Eval version 4.

    Parameters
    ----------
    references : sequence of ndarray [shape=(nb_channels, nb_timesteps)]
        The true sources, all of one shape.
    estimates : sequence of ndarray [shape=(nb_channels, any)]
        An estimate of each. Longer ones are cut, shorter ones are continued with silence.
    window, hop : int
        Length and distance of frames in samples.
    nb_taps : int
        Length of the distortion filters.

    Returns
    -------
    BssScores

    Raises
    ------
    ShapeError
        If the shapes do not fit each other, or samples are not finite.

    Notes
    -----
    As `museval.evaluate` with ``mode="v4"``, with one exception: where that raises an error for a
    source or an estimate that is silent throughout, here the scores of that source are NaN, and the
    others are scored as if the silent signal were not there. A signal is silent if its channels sum
    to zero at each sample.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> voice, guitar = rng.standard_normal((2, 1, 4000))
    >>> scores = bss_eval(
    ...     [voice, guitar],
    ...     [voice + 0.1 * guitar, guitar + 0.01 * rng.standard_normal((1, 4000))],
    ...     window=1000,
    ...     hop=1000,
    ...     nb_taps=8,
    ... )
    >>> np.median(scores.SDR, axis=1).round()
    array([20., 40.])
    >>> scores.SIR.max(axis=1) > 50  # what is wrong with the first is the other source
    array([False,  True])
    """
    scores, doubtful = scores_and_doubts(references, estimates, window, hop, nb_taps)
    if doubtful:
        logger.warning("%s", doubt([f"source {j}" for j in doubtful]))
    return scores


def scores_and_doubts(
    references: Sequence[np.ndarray],
    estimates: Sequence[np.ndarray],
    window: int,
    hop: int,
    nb_taps: int = NB_TAPS,
) -> tuple[BssScores, list[int]]:
    """Do what `bss_eval` does, without a word.

    Parameters
    ----------
    references, estimates, window, hop, nb_taps
        As for `bss_eval`.

    Returns
    -------
    scores : BssScores
    doubtful : list of int
        Sources that have scores which the references do not determine as they are, but rounded to
        16 bits: those are taken. The SDR is never among them.
    """
    window, hop = check_int("window", window, 1), check_int("hop", hop, 1)
    nb_taps = check_int("nb_taps", nb_taps, 1)
    references = [check_array("references", reference) for reference in references]
    estimates = fitted_estimates(
        references, [check_array("estimates", estimate) for estimate in estimates]
    )
    nb_timesteps = references[0].shape[1]
    nb_frames = nb_frames_of(nb_timesteps, window, hop)
    window = min(window, nb_timesteps)

    values = np.full((len(METRICS), len(references), nb_frames), np.nan)
    doubts = np.zeros((len(METRICS), len(references)), bool)
    heard = [j for j, reference in enumerate(references) if not is_silent(reference)]
    scored = [j for j in heard if not is_silent(estimates[j])]
    if scored:
        rest = (
            [estimates[j] for j in scored],
            [heard.index(j) for j in scored],
            [slice(t * hop, t * hop + window) for t in range(nb_frames)],
            nb_taps,
        )
        true = [references[j] for j in heard]
        values[:, scored], doubts[:, scored] = _score(true, *rest)
        rounded = [_rounded(signal) for signal in true]
        if doubts.any() and any(map(np.any, map(np.subtract, rounded, true))):
            better = np.full_like(values, np.nan)
            better[:, scored], _ = _score(rounded, *rest)
            values[doubts] = better[doubts]
        else:
            doubts[:] = False
    return BssScores(*values), np.flatnonzero(doubts.any(axis=0)).tolist()


def doubt(names: Sequence[str]) -> str:
    """Say what is in doubt of the sources that `scores_and_doubts` names."""
    return (
        f"{', '.join(names)}: some of SIR, ISR and SAR are those for references rounded to 16 "
        "bits; as they are, the references have too little energy at some frequencies to determine "
        "them, which is usual with lossy files"
    )


def _rounded(signal: np.ndarray) -> np.ndarray:
    """Round to 16 bits, unless nothing would be left."""
    rounded = np.round(signal.astype(np.float64) * 32768.0) / 32768.0
    return signal if is_silent(rounded) else rounded


def silent_sources(
    references: Sequence[np.ndarray], estimates: Sequence[np.ndarray]
) -> list[tuple[int, str]]:
    """Say which sources have no scores, because they or their estimates are silent throughout.

    Parameters
    ----------
    references, estimates : sequence of ndarray
        As for `bss_eval`.

    Returns
    -------
    list of (int, {'reference', 'estimate'})
    """
    nb_timesteps = references[0].shape[1]
    found = []
    for j, (reference, estimate) in enumerate(zip(references, estimates, strict=True)):
        for kind, signal in (("reference", reference), ("estimate", estimate)):
            if is_silent(signal[:, :nb_timesteps]):
                found.append((j, kind))
    return found


def fitted_estimates(
    references: Sequence[np.ndarray], estimates: Sequence[np.ndarray]
) -> list[np.ndarray]:
    """Check the shapes and bring estimates to the length of the references.

    Parameters
    ----------
    references, estimates : sequence of ndarray
        As for `bss_eval`.

    Returns
    -------
    list of ndarray [shape=(nb_channels, nb_timesteps)]
        The estimates; views where nothing is missing.

    Raises
    ------
    ShapeError
        If the shapes do not fit each other, or samples are not finite.
    """
    if not references or len(references) != len(estimates):
        raise ShapeError(
            f"there are {len(references)} references and {len(estimates)} estimates; pass one "
            "estimate for each of one or more references"
        )
    shape = references[0].shape
    fitted = []
    for j, (reference, estimate) in enumerate(zip(references, estimates, strict=True)):
        if reference.shape != shape or len(shape) != 2 or 0 in shape:
            raise ShapeError(
                f"references[{j}] has shape={reference.shape}; all must have the same "
                f"(nb_channels, nb_timesteps), that of the first is {shape}"
            )
        if estimate.ndim != 2 or len(estimate) != shape[0]:
            raise ShapeError(
                f"estimates[{j}] has shape={estimate.shape}; the references have "
                f"nb_channels={shape[0]}"
            )
        for name, signal in (("references", reference), ("estimates", estimate)):
            if not np.isfinite(signal).all():
                raise ShapeError(f"{name}[{j}] holds NaN or infinity; scores would be NaN")
        missing = shape[1] - estimate.shape[1]
        fitted.append(
            np.pad(estimate, ((0, 0), (0, missing))) if missing > 0 else estimate[:, : shape[1]]
        )
    return fitted


def is_silent(signal: np.ndarray) -> bool:
    """Whether the channels sum to zero at each sample, which is what museval asks."""
    return not np.any(np.sum(signal, axis=0))


def _score(
    references: list[np.ndarray],
    estimates: list[np.ndarray],
    sources: list[int],
    frames: list[slice],
    nb_taps: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Score estimates, none of the signals being silent throughout.

    `sources` has the number of the reference that belongs to each estimate. Returns
    [shape=(4, nb_estimates, nb_frames)], and which of the metrics of which estimates the references
    do not determine [shape=(4, nb_estimates)].
    """
    nb_estimates, nb_channels = len(estimates), len(references[0])
    channels = [slice(j * nb_channels, (j + 1) * nb_channels) for j in sources]
    window = frames[0].stop - frames[0].start
    n_fft = quick_length(window + nb_taps - 1)
    own_spectra, common_spectra, doubts = _filter_spectra(
        references, estimates, channels, nb_taps, n_fft
    )
    energy = _energy_of_spectra(n_fft)

    def ratios(times: list[int]) -> list[np.ndarray]:
        """Return the metrics of some frames, each [shape=(nb_times, nb_estimates)]."""
        s, y = (
            np.array([[signal[:, frames[t]] for signal in signals] for t in times], np.float64)
            for signals in (references, estimates)
        )
        S, Y = _spectra(s, n_fft), _spectra(y, n_fft)
        # Of each estimate: the true source, what filters explain of it, what those of all explain.
        s, true_part = s[:, sources], np.concatenate([S[:, :, k] for k in channels], axis=2)
        own_part = np.concatenate(
            [S[:, :, k] @ own_spectra[:, i] for i, k in enumerate(channels)], axis=2
        )
        all_parts = S @ common_spectra
        source = np.sum(s**2, axis=(2, 3))
        distortion = np.sum((y - s) ** 2, axis=(2, 3))
        errors = own_part - true_part, all_parts - own_part, Y - all_parts
        spatial, interference, artifacts, own_energy, all_energy = (
            energy(x.reshape(*x.shape[:2], nb_estimates, nb_channels))
            for x in (*errors, own_part, all_parts)
        )
        return [
            _decibels(source, distortion),
            _decibels(own_energy, interference),
            _decibels(source, spatial),
            _decibels(all_energy, artifacts),
        ]

    values = np.full((len(METRICS), nb_estimates, len(frames)), np.nan)
    times = [
        t
        for t, frame in enumerate(frames)
        if not any(is_silent(signal[:, frame]) for signal in (*references, *estimates))
    ]
    size = max(BATCH // (len(common_spectra) * len(references) * nb_channels), 1)
    for first in range(0, len(times), size):
        batch = times[first : first + size]
        for k, metric in enumerate(ratios(batch)):
            values[k][:, batch] = metric.T
    return values, doubts


def _filter_spectra(
    references: list[np.ndarray],
    estimates: list[np.ndarray],
    channels: list[slice],
    nb_taps: int,
    n_fft: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the spectra of the distortion filters, and what is in doubt as `_score` does.

    They are [shape=(nb_bins, nb_estimates, nb_channels, nb_channels)] for an estimate's own source,
    and [shape=(nb_bins, R, nb_estimates * nb_channels)] for all sources.
    """
    own, common, own_in_doubt, common_in_doubt = distortion_filters(
        references, estimates, channels, nb_taps
    )
    doubts = np.zeros((len(METRICS), len(estimates)), bool)
    doubts[1] = own_in_doubt | common_in_doubt  # in the order of METRICS
    doubts[2] = own_in_doubt
    doubts[3] = common_in_doubt
    common_spectra = np.ascontiguousarray(np.moveaxis(np.fft.rfft(common, n_fft, axis=1), 1, 0))
    own_spectra = np.ascontiguousarray(np.moveaxis(np.fft.rfft(own, n_fft, axis=2), 2, 0))
    return own_spectra, common_spectra, doubts


def _decibels(signal: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Ratio of energies in dB; infinite where one of them is zero."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(error > 0.0, signal / error, np.inf)
        return 10.0 * np.log10(ratio)


def _spectra(x: np.ndarray, n_fft: int) -> np.ndarray:
    """Transform frames to [shape=(nb_bins, nb_times, R)], for products of small matrices."""
    spectra = np.fft.rfft(x, n_fft, axis=-1)
    spectra = spectra.reshape(len(x), -1, spectra.shape[-1])
    return np.ascontiguousarray(spectra.transpose(2, 0, 1))


def _energy_of_spectra(n_fft: int) -> Callable[[np.ndarray], np.ndarray]:
    """Make a function that sums squares over time and channels, by Parseval's theorem.

    Its argument has the shape (nb_bins, nb_times, nb_estimates, nb_channels), its result the shape
    (nb_times, nb_estimates).
    """
    weights = np.full(n_fft // 2 + 1, 2.0 / n_fft)
    weights[0] /= 2.0
    if n_fft % 2 == 0:
        weights[-1] /= 2.0

    def energy(spectra: np.ndarray) -> np.ndarray:
        # Real and imaginary parts side by side; the product sums over bins, the rest is small.
        squares = np.square(spectra.reshape(len(spectra), -1).view(np.float64))
        return (weights @ squares).reshape(*spectra.shape[1:3], -1).sum(axis=-1)

    return energy
