"""Operations of separation on arrays of a card: what the kernels need, and their launches.

Arrays are CuPy arrays of the current device, contiguous unless said otherwise; everything is
started on the current stream and nothing is waited for. Shapes are those of
`umx_np.backends.contracts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..backends.contracts import SCALE_FACTOR, check_filter_channels
from .launching import MOST_ROWS, THREADS, Grid, Kernels, spread

if TYPE_CHECKING:
    from ..backends.contracts import WienerOptions
    from .device import Device

Array = Any

# Frames of a piece of the filter's sums: PIECE and ROWS of wiener.cu.
PIECE_FRAMES = 64
FILTER_ROWS = 8
_MAXIMA_BYTES = 4 * 32  # of a block that looks for a maximum: one for each warp

MEMORY_REMEDY = (
    "use shorter filter windows (wiener_win_len), fewer targets, or device='cpu', and end what "
    "else uses the card"
)


@contextmanager
def computing(device: Device, what: str = "this operation") -> Iterator[None]:
    """Make the card and its default stream current, whatever the caller's thread uses.

    What is shared, such as weights, is then always used in the stream that it was made in.

    Raises
    ------
    DeviceError
        If the card has too little memory for `what`.
    """
    with device.computing(what, MEMORY_REMEDY), device.xp.cuda.Stream.null:
        yield


class Spectra:
    """Kernels around the FFT; see sources/spectra.cu.

    Parameters
    ----------
    device : Device
        The card.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self.launch = Kernels(device, "spectra.cu").launch

    def frame(
        self, x: Array, window: Array, *, n_hop: int, nb_frames: int, first: int = 0, pad: int = 0
    ) -> Array:
        """Windowed frames of a signal that is reflected at both ends.

        Parameters
        ----------
        x : Array [shape=(nb_channels, nb_timesteps)]
            The signal; rows may lie apart.
        window : Array [shape=(n_fft,)]
        n_hop, nb_frames : int
            Distance and number of frames.
        first : int
            Number of the first frame.
        pad : int
            Samples that are reflected at each end.

        Returns
        -------
        Array [shape=(nb_channels, nb_frames, n_fft)]
        """
        (nb_channels, nb_timesteps), n_fft = x.shape, len(window)
        out = self.device.xp.empty((nb_channels, nb_frames, n_fft), np.float32)
        sizes = nb_channels, nb_frames, n_fft, n_hop, pad
        places = map(np.int64, (first, x.strides[0] // 4, nb_timesteps))
        self.launch(
            "frame", spread(n_fft, nb_channels * nb_frames), x, window, out, *sizes, *places
        )
        return out

    def magnitude(self, spectrum: Array, *, nb_bins: int, mono: bool) -> Array:
        """Magnitudes of the first bins [shape=(nb_frames, nb_channels or 1, nb_bins)]."""
        nb_channels, nb_frames, full = spectrum.shape
        shape = (nb_frames, 1 if mono else nb_channels, nb_bins)
        out = self.device.xp.empty(shape, np.float32)
        sizes = nb_channels, nb_frames, full, nb_bins, mono
        self.launch("magnitude", spread(nb_bins, nb_frames), spectrum, out, *sizes)
        return out

    def frame_peaks(self, spectrum: Array, out: Array) -> None:
        """Put the largest magnitude of every frame into ``out`` [shape=(nb_frames,)]."""
        grid = Grid((spectrum.shape[1],), shared=_MAXIMA_BYTES)
        self.launch("frame_peaks", grid, spectrum, out, *spectrum.shape)

    def window_scales(self, peaks: Array, window: int) -> Array:
        """Divisors of the filter windows, float64, from the peaks of their frames."""
        nb_windows = -(-len(peaks) // window)
        out = self.device.xp.empty(nb_windows, np.float64)
        grid, sizes = Grid((nb_windows,), shared=_MAXIMA_BYTES), (len(peaks), window)
        self.launch(
            "window_scales", grid, peaks, out, *map(np.int64, sizes), np.float64(SCALE_FACTOR)
        )
        return out


class Envelope(NamedTuple):
    """Factors of overlap-add, on the device.

    Attributes
    ----------
    window : Array [shape=(n_fft,)], float32
        With the scale that the inverse FFT leaves out.
    steady : Array [shape=(n_hop,)], float32
        One over the sum of the squared windows, far from both ends.
    squares : Array [shape=(n_fft,)], float64
        Squared window.
    """

    window: Array
    steady: Array
    squares: Array


class OverlapAdder:
    """Consecutive frames to samples; the twin of `umx_np.framing.blocks.OverlapAdder` on the card.

    Parameters
    ----------
    spectra : Spectra
    envelope : Envelope
    n_hop, pad : int
        Distance of the frames, and samples of padding on each side.
    nb_frames, nb_timesteps : int
        Of the whole signal.
    """

    def __init__(
        self,
        spectra: Spectra,
        envelope: Envelope,
        *,
        n_hop: int,
        pad: int,
        nb_frames: int,
        nb_timesteps: int,
    ) -> None:
        self._spectra, self._envelope = spectra, envelope
        self._n_hop, self._pad = n_hop, pad
        self._nb_frames, self._nb_timesteps = nb_frames, nb_timesteps
        self._carry: Array = None  # what earlier frames add to the next ones

    def add(self, first: int, frames: Array) -> tuple[int, Array]:
        """Take the next frames and return the samples that no later frame reaches.

        Parameters
        ----------
        first : int
            Number of the first frame.
        frames : Array [shape=(nb_signals, nb_frames, n_fft)]
            Inverse FFT of the spectra, without the window.

        Returns
        -------
        start : int
            Position in the signal of the first sample returned.
        samples : Array [shape=(nb_signals, n)]
            Possibly empty.
        """
        xp = self._spectra.device.xp
        nb_signals, count, n_fft = frames.shape
        n_hop, pad = self._n_hop, self._pad
        is_last = first + count == self._nb_frames
        start = first * n_hop  # in samples of the padded signal, as are lo and hi
        done = (count - 1) * n_hop + n_fft if is_last else count * n_hop
        lo = max(start, pad)
        hi = pad + self._nb_timesteps  # what no frame reaches is 0
        if not is_last:
            hi = max(lo, min(start + done, hi))
        out = xp.empty((nb_signals, hi - lo), np.float32)
        carry = None if is_last else xp.empty((nb_signals, n_fft - n_hop), np.float32)
        width = max(hi - start, done if is_last else done + n_fft - n_hop)
        self._spectra.launch(
            "overlap_add",
            spread(width, nb_signals),
            frames,
            *self._envelope,
            self._carry,
            carry,
            out,
            *(nb_signals, count, n_fft, n_hop),
            *map(np.int64, (first, self._nb_frames, done, lo - start, hi - lo)),
        )
        self._carry = carry
        return lo - pad, out


def bins_of(nb_bins: int, rows: int) -> Grid:
    """Blocks of 32 bins and rows of frames; a number of shared memory for each thread."""
    return Grid((-(-nb_bins // 32), rows), (32, FILTER_ROWS), shared=8 * 32 * FILTER_ROWS)


def bins_and_frames(nb_bins: int, nb_frames: int) -> Grid:
    """`bins_of` for a kernel that takes the frames in strides."""
    return bins_of(nb_bins, min(-(-nb_frames // FILTER_ROWS), MOST_ROWS))


def frame_sizes(nb_frames: int, nb_bins: int, window: int) -> tuple[Any, ...]:
    """Arguments of kernels that walk through the frames of windows."""
    return np.int64(nb_frames), nb_bins, np.int64(window)


class Statistics(NamedTuple):
    """Statistics of the filter over the frames of some windows, float64.

    Attributes
    ----------
    sums : Array [shape=(nb_windows, iterations, nb_sources, 4, nb_bins)]
        As in `umx_np.backends.contracts.WienerFilter.accumulate`, for each window.
    covariances : Array, same shape
        R, from them.
    """

    sums: Array
    covariances: Array


class WienerFilter:
    """Wiener filter for mixtures of a kind; see sources/wiener.cu.

    Parameters
    ----------
    device : Device
        The card.
    options : WienerOptions
        How to filter.
    nb_targets : int
        Targets with magnitudes.
    nb_channels, mag_channels : int
        Channels of the mixture, 1 or 2, and of the magnitudes, the same or 1.

    Raises
    ------
    ShapeError
        If there are more than two channels.
    """

    def __init__(
        self,
        device: Device,
        options: WienerOptions,
        *,
        nb_targets: int,
        nb_channels: int,
        mag_channels: int,
    ) -> None:
        check_filter_channels(nb_channels)
        self.device = device
        self.nb_sources = nb_targets + options.residual
        self._eps = np.float64(options.eps)
        self._launch = Kernels(
            device,
            "wiener.cu",
            NB_TARGETS=nb_targets,
            NB_CHANNELS=nb_channels,
            MAG_CHANNELS=mag_channels,
            SOFTMASK=int(options.softmask),
            RESIDUAL=int(options.residual),
            PIECE=PIECE_FRAMES,
            ROWS=FILTER_ROWS,
        ).launch

    def statistics(self, nb_windows: int, iterations: int, nb_bins: int) -> Statistics:
        """Statistics of nothing."""
        xp, shape = self.device.xp, (nb_windows, iterations, self.nb_sources, 4, nb_bins)
        return Statistics(xp.zeros(shape, np.float64), xp.zeros(shape, np.float64))

    def accumulate(
        self,
        mix: Array,
        mags: Array,
        scales: Array,
        statistics: Statistics,
        *,
        level: int,
        window: int,
    ) -> None:
        """Add the sums of y y^H after `level` iterations to ``statistics.sums[:, level]``.

        Parameters
        ----------
        mix : Array [shape=(nb_channels, nb_frames, nb_bins)], complex64
            STFT of the mixture.
        mags : Array [shape=(nb_targets, nb_frames, mag_channels, nb_bins)], float32
            Magnitudes of the targets.
        scales : Array [shape=(nb_windows,)], float64
            Divisor of mixture and estimates in each window.
        statistics : Statistics
            Of the earlier levels; that of this one is updated.
        level : int
            Iterations before.
        window : int
            Frames of a window; the last one may be shorter.
        """
        _, nb_frames, nb_bins = mix.shape
        nb_windows, iterations = statistics.sums.shape[:2]
        nb_pieces = -(-min(window, nb_frames) // PIECE_FRAMES)
        shape = (nb_windows, nb_pieces, self.nb_sources, 4, nb_bins)
        pieces = self.device.xp.empty(shape, np.float64)
        self._launch(
            "wiener_sums",
            bins_of(nb_bins, nb_windows * nb_pieces),
            mix,
            mags,
            statistics.covariances,
            scales,
            pieces,
            *frame_sizes(nb_frames, nb_bins, window),
            nb_pieces,
            iterations,
            level,
            self._eps,
        )
        self._normalise(statistics, level, pieces)

    def normalise(self, statistics: Statistics) -> None:
        """Make all covariances from the sums."""
        for level in range(statistics.sums.shape[1]):
            self._normalise(statistics, level, None)

    def _normalise(self, statistics: Statistics, level: int, pieces: Array) -> None:
        nb_windows, iterations, nb_sources, _, nb_bins = statistics.sums.shape
        nb_pieces = 0 if pieces is None else pieces.shape[1]
        grid = Grid((-(-nb_bins // THREADS), nb_windows * nb_sources))
        sizes = nb_bins, nb_pieces, iterations
        self._launch("wiener_covariances", grid, pieces, *statistics, *sizes, level, self._eps)

    def apply(
        self,
        mix: Array,
        mags: Array,
        scales: Array,
        statistics: Statistics | None,
        *,
        window: int,
        nb_written: int | None = None,
    ) -> Array:
        """Estimates after all iterations of the statistics; the first ones without.

        Parameters
        ----------
        mix, mags, scales, window
            As for `accumulate`.
        statistics : Statistics or None
            Of all levels.
        nb_written : int or None
            Sources to write; None means all.

        Returns
        -------
        Array [shape=(nb_written, nb_channels, nb_frames, nb_bins)], complex64
        """
        nb_channels, nb_frames, nb_bins = mix.shape
        iterations = 0 if statistics is None else statistics.sums.shape[1]
        nb_written = self.nb_sources if nb_written is None else nb_written
        y = self.device.xp.empty((nb_written, nb_channels, nb_frames, nb_bins), np.complex64)
        self._launch(
            "wiener_apply",
            bins_and_frames(nb_bins, nb_frames),
            mix,
            mags,
            None if statistics is None else statistics.covariances,
            scales,
            y,
            *frame_sizes(nb_frames, nb_bins, window),
            iterations,
            nb_written,
            self._eps,
        )
        return y

    def windows(
        self,
        mix: Array,
        mags: Array,
        scales: Array,
        *,
        window: int,
        iterations: int,
        nb_written: int | None = None,
    ) -> Array:
        """Filter some windows, each by itself; arguments as for `accumulate` and `apply`."""
        statistics = None
        if iterations:
            statistics = self.statistics(len(scales), iterations, mix.shape[2])
            for level in range(iterations):
                self.accumulate(mix, mags, scales, statistics, level=level, window=window)
        return self.apply(mix, mags, scales, statistics, window=window, nb_written=nb_written)
