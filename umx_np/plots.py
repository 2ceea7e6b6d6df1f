"""Pictures: spectrograms of a mixture and its stems, and what every picture here needs.

matplotlib is imported when something is drawn, and never its pyplot: figures need no display and
leave the caller's plots alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ._support.atomic import atomic_write
from .audio import AudioReader
from .errors import ConfigError, printable

# Size of a picture of a song: enough for every pixel of the plot, whatever the length of the song.
_MAX_COLUMNS = 1000
_NB_BANDS = 240
# Spectra that a column is the maximum of, at most. Of songs longer than some five minutes this
# leaves out samples, so that a picture of an hour costs hardly more than reading the files.
_FRAMES_A_COLUMN = 4
_FRAME_SECONDS = 0.093
_LOWEST_HZ, _HIGHEST_HZ = 40.0, 20000.0
_SILENCE_DB = -200.0
# Below the loudest spot of the mixture; what is softer is drawn as silence.
_RANGE_DB = 75.0
_READ_BLOCK = 1 << 17
_FRAMES_AT_ONCE = 64
_TICKS_HZ = (50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000)
_LABELS = {100: "100 Hz", 1000: "1 kHz", 10000: "10 kHz"}


@dataclass(frozen=True)
class Spectrogram:
    """Levels over time and frequency, ready to be drawn.

    Attributes
    ----------
    levels : ndarray [shape=(nb_bands, nb_columns)], float32
        In dB; a sine of full scale has 0 dB. Bands are evenly spaced on a logarithmic axis.
    seconds : float
        What the columns cover.
    lowest, highest : float
        What the bands cover, in Hz.
    """

    levels: np.ndarray
    seconds: float
    lowest: float
    highest: float


def is_available() -> bool:
    """Whether matplotlib is installed."""
    return importlib.util.find_spec("matplotlib") is not None


def check_available(option: str) -> None:
    """Raise `ConfigError` if nothing can be drawn.

    Parameters
    ----------
    option : str
        What asked for a picture, for the message.

    Raises
    ------
    ConfigError
        If matplotlib is not installed.
    """
    if not is_available():
        raise ConfigError(
            f"{option} needs matplotlib; install it with: python -m pip install 'umx-np[plot]'"
        )


def new_figure(width: float, height: float) -> Any:
    """Make an empty figure without pyplot.

    Parameters
    ----------
    width, height : float
        In inches.

    Returns
    -------
    matplotlib.figure.Figure
        For `save_figure`.
    """
    # Imported by name, since it need not be installed.
    figure_class = importlib.import_module("matplotlib.figure").Figure
    return figure_class(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, path: str | os.PathLike[str]) -> Path:
    """Write a figure as a PNG file, which appears when it is complete.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        From `new_figure`.
    path : str or path-like
        File to write or replace; its folder is made if needed.

    Returns
    -------
    Path
        The file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Names of songs and models may hold what no font has, and what cannot be drawn at all.
    for text in figure.findobj(lambda artist: hasattr(artist, "set_text")):
        if (shown := printable(written := text.get_text())) != written:
            text.set_text(shown)
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=120)
    return path


def spectrogram(audio: np.ndarray, rate: float) -> Spectrogram:
    """Compute the levels of an array over time and frequency.

    Parameters
    ----------
    audio : ndarray [shape=(nb_channels, nb_timesteps)], float
        Samples of full scale 1; not modified. Channels are averaged.
    rate : float
        In Hz.

    Returns
    -------
    Spectrogram
    """
    audio = np.atleast_2d(audio)
    return _spectrogram([audio], rate, audio.shape[-1])


def spectrogram_of_file(
    path: str | os.PathLike[str],
    *,
    start: float = 0.0,
    duration: float | None = None,
    track: int | None = None,
    downmix: str | None = None,
) -> Spectrogram:
    """Compute the levels of a sound file, reading it block by block.

    Parameters
    ----------
    path, start, duration, track, downmix
        As for `umx_np.audio.AudioReader`.

    Returns
    -------
    Spectrogram

    Raises
    ------
    AudioError
        If the file cannot be read.

    Notes
    -----
    Neither the memory nor the number of spectra grows with the length of the file. A column shows
    the maximum of up to four spectra, evenly spread over its time.
    """
    with AudioReader(path, start=start, duration=duration, track=track, downmix=downmix) as reader:
        return _spectrogram(reader.blocks(_READ_BLOCK), reader.rate, reader.nb_timesteps)


def _spectrogram(blocks: Iterable[np.ndarray], rate: float, nb_timesteps: int) -> Spectrogram:
    n_fft = 2 ** round(math.log2(_FRAME_SECONDS * rate))
    hop = max(n_fft // 8, math.ceil(nb_timesteps / (_MAX_COLUMNS * _FRAMES_A_COLUMN)))
    nb_frames = nb_timesteps // hop + 1
    nb_columns = min(nb_frames, _MAX_COLUMNS)
    highest = min(_HIGHEST_HZ, rate / 2)
    bands = _Bands(n_fft, rate, highest)
    window = np.hanning(n_fft + 1)[:-1].astype(np.float32)
    scale = 2.0 / float(window.sum())
    powers = np.zeros((nb_columns, _NB_BANDS), np.float32)
    first = 0
    for frames in _framed(blocks, n_fft, hop, nb_frames):
        spectra = np.fft.rfft(frames * window, axis=-1)
        power = np.square(scale * np.abs(spectra)).mean(axis=0)  # over the channels
        columns = np.arange(first, first + len(power)) * nb_columns // nb_frames
        np.maximum.at(powers, columns, bands(power).astype(np.float32))
        first += len(power)
    floor = 10.0 ** (_SILENCE_DB / 10.0)
    levels = 10.0 * np.log10(np.maximum(powers.T, floor))
    return Spectrogram(levels.astype(np.float32), nb_timesteps / rate, _LOWEST_HZ, highest)


def _framed(
    blocks: Iterable[np.ndarray], n_fft: int, hop: int, nb_frames: int
) -> Iterator[np.ndarray]:
    """Yield frames [shape=(nb_channels, any, n_fft)]; the k-th of all is centred at k * hop."""
    held: np.ndarray | None = None
    position = -(n_fft // 2)  # of the first sample that is held
    start = position  # of the next frame
    done = 0

    def complete() -> Iterator[np.ndarray]:
        nonlocal held, position, start, done
        assert held is not None
        dropped = min(max(start - position, 0), held.shape[1])
        held, position = held[:, dropped:], position + dropped
        # With a hop beyond the frame, the next one may begin after all that is held.
        while position == start and done < nb_frames:
            count = min((held.shape[1] - n_fft) // hop + 1, _FRAMES_AT_ONCE, nb_frames - done)
            if held.shape[1] < n_fft or count < 1:
                return
            yield np.lib.stride_tricks.sliding_window_view(held, n_fft, axis=1)[
                :, : (count - 1) * hop + 1 : hop
            ]
            done += count
            start += count * hop
            dropped = min(start - position, held.shape[1])
            held, position = held[:, dropped:], position + dropped

    for block in blocks:
        if held is None:
            held = np.zeros((len(block), n_fft // 2), np.float32)
        held = np.concatenate([held, block], axis=1, dtype=np.float32)
        yield from complete()
    if held is not None:
        held = np.pad(held, ((0, 0), (0, n_fft)))
        yield from complete()


class _Bands:
    """From the bins of a spectrum to bands that are evenly spaced on a logarithmic axis."""

    def __init__(self, n_fft: int, rate: float, highest: float) -> None:
        edges = np.geomspace(_LOWEST_HZ, highest, _NB_BANDS + 1) * n_fft / rate
        centres = np.sqrt(edges[:-1] * edges[1:])
        self._below = np.minimum(centres.astype(int), n_fft // 2 - 1)
        self._share = centres - self._below
        # Low bands lie between two bins, high ones hold many.
        self._begin = np.minimum(np.ceil(edges[:-1]).astype(int), n_fft // 2)
        self._end = max(int(np.ceil(edges[-1])), int(self._begin[-1]) + 1)
        self._holds_bins = np.ceil(edges[1:]) > np.ceil(edges[:-1])

    def __call__(self, power: np.ndarray) -> np.ndarray:
        """Return the loudest of each band [shape=(nb_frames, nb_bands)]."""
        between = (1 - self._share) * power[:, self._below] + self._share * power[
            :, self._below + 1
        ]
        loudest = np.maximum.reduceat(power[:, : self._end], self._begin, axis=1)
        return np.where(self._holds_bins, np.maximum(loudest, between), between)


def draw_separation(
    mixture: Spectrogram,
    stems: Mapping[str, Spectrogram],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
) -> Path:
    """Draw a mixture above its stems, with one scale of colours.

    Parameters
    ----------
    mixture : Spectrogram
        Sets the scale: its loudest spot is the brightest colour.
    stems : mapping of str to Spectrogram
        By what is written beside them.
    path : str or path-like
        PNG file to write or replace.
    title : str, optional
        Written above.

    Returns
    -------
    Path
        The file.
    """
    panels = {"mixture": mixture, **stems}
    figure = new_figure(10.0, 0.9 + 1.45 * len(panels))
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    brightest = float(mixture.levels.max())
    image = None
    for axes, (name, panel) in zip(grid, panels.items(), strict=True):
        bottom, top = math.log10(panel.lowest), math.log10(panel.highest)
        image = axes.imshow(
            panel.levels,
            origin="lower",
            aspect="auto",
            extent=(0.0, panel.seconds, bottom, top),
            cmap="magma",
            vmin=brightest - _RANGE_DB,
            vmax=brightest,
            interpolation="bilinear",
        )
        ticks = [hertz for hertz in _TICKS_HZ if panel.lowest <= hertz <= panel.highest]
        axes.set_yticks([math.log10(hertz) for hertz in ticks], [_LABELS.get(t, "") for t in ticks])
        axes.set_ylim(bottom, math.log10(mixture.highest))
        axes.set_ylabel(name, fontweight="bold", parse_math=False)
        axes.tick_params(axis="x", labelbottom=axes is grid[-1])
    grid[-1].set_xlim(0.0, mixture.seconds)
    grid[-1].set_xlabel("time (s)")
    if title is not None:
        figure.suptitle(title, parse_math=False)  # songs may be called "$$"
    figure.colorbar(image, ax=list(grid), label="level (dB re full scale)", aspect=45, pad=0.01)
    return save_figure(figure, path)


def plot_separation(
    mixture: str | os.PathLike[str],
    stems: Mapping[str, str | os.PathLike[str]],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    start: float = 0.0,
    duration: float | None = None,
    track: int | None = None,
    downmix: str | None = None,
) -> Path:
    """Draw spectrograms of a sound file and of its stems, which are read block by block.

    Parameters
    ----------
    mixture : str or path-like
        The file that was separated.
    stems : mapping of str to str or path-like
        Files of the stems, as `umx_np.separate_file` returns them.
    path : str or path-like
        PNG file to write or replace.
    title : str, optional
        Written above; None is the name of the mixture's file.
    start, duration : float
        Excerpt of `mixture` in seconds that the stems belong to.
    track, downmix
        What of it was separated, as for `umx_np.audio.AudioReader`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigError
        If matplotlib is not installed.
    AudioError
        If a file cannot be read.
    """
    check_available(f"path={os.fspath(path)!r}")
    return draw_separation(
        spectrogram_of_file(mixture, start=start, duration=duration, track=track, downmix=downmix),
        {name: spectrogram_of_file(stem) for name, stem in stems.items()},
        path,
        title=Path(mixture).name if title is None else title,
    )
