"""Short-time Fourier transform with a periodic Hann window, as ``torch.stft`` computes it.

`StftGeometry` owns all frame arithmetic. `Transform` maps segments of signal to spectra and back
and knows both filterbanks of Open-Unmix. `stft` and `istft` are the public functions on whole
arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..backends import get_backend
from ..backends.base import Backend
from ..config import LARGEST, check_array, check_int
from ..errors import ConfigError, ShapeError

# torch.istft refuses to divide by less than this sum of squared windows.
_MIN_ENVELOPE = 1e-11
# Samples of a signal that addresses in memory can have.
_LONGEST = 1 << 48
# Frames that one thread transforms at a time: two channels of 4096 samples are 2 MB.
_FRAMES_PER_TASK = 64


@dataclass(frozen=True)
class StftGeometry:
    """Where the frames of a short-time Fourier transform lie.

    Frame ``t`` covers the samples ``[t * n_hop, t * n_hop + n_fft)`` of the padded signal. With
    `center` the signal is padded with ``n_fft // 2`` reflected samples on both sides, so frame
    ``t`` is centred on sample ``t * n_hop`` of the signal itself.

    Attributes
    ----------
    n_fft, n_hop : int
        Frame length and distance in samples.
    center : bool
        Whether the signal is padded.
    """

    n_fft: int = 4096
    n_hop: int = 1024
    center: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "n_fft", check_int("n_fft", self.n_fft, 2, LARGEST["n_fft"]))
        object.__setattr__(self, "n_hop", check_int("n_hop", self.n_hop, 1, LARGEST["n_fft"]))

    @property
    def nb_bins(self) -> int:
        """Bins of the one-sided spectrum."""
        return self.n_fft // 2 + 1

    @property
    def pad(self) -> int:
        """Samples of padding on each side."""
        return self.n_fft // 2 if self.center else 0

    def inverse_weights(self) -> np.ndarray:
        """Share of each bin of a one-sided spectrum in a frame, float64 [shape=(nb_bins,)]."""
        # It stands for both halves: every bin counts twice but the first and, for an even size, the
        # last.
        weights = np.full(self.nb_bins, 2.0 / self.n_fft)
        weights[0] = 1.0 / self.n_fft
        if self.n_fft % 2 == 0:
            weights[-1] = 1.0 / self.n_fft
        return weights

    def nb_extended(self, nb_timesteps: int) -> int:
        """Samples of the signal after it is extended with zeros to the length reflection needs."""
        return max(nb_timesteps, self.pad + 1) if self.center else nb_timesteps

    def nb_frames(self, nb_timesteps: int) -> int:
        """Frames of a signal of `nb_timesteps` samples.

        Raises
        ------
        ShapeError
            If the signal holds no sample, or, not centred, less than one frame.
        """
        if nb_timesteps < 1:
            raise ShapeError(f"nb_timesteps={nb_timesteps}: the signal is empty")
        padded = self.nb_extended(nb_timesteps) + 2 * self.pad
        if padded < self.n_fft:
            raise ShapeError(
                f"nb_timesteps={nb_timesteps} is less than one frame of n_fft={self.n_fft}; "
                "pad the signal or use center=True"
            )
        return 1 + (padded - self.n_fft) // self.n_hop

    def nb_samples_of(self, nb_frames: int) -> int:
        """Samples of the padded signal that `nb_frames` frames cover."""
        return (nb_frames - 1) * self.n_hop + self.n_fft

    def nb_timesteps(self, nb_frames: int) -> int:
        """Samples that the inverse of `nb_frames` frames has when no length is asked for."""
        return self.nb_samples_of(nb_frames) - 2 * self.pad

    @cached_property
    def window(self) -> np.ndarray:
        """Periodic Hann window, float64 [shape=(n_fft,)]."""
        n = np.arange(self.n_fft)
        window = 0.5 - 0.5 * np.cos(2 * np.pi * n / self.n_fft)
        window.flags.writeable = False
        return window

    def check_invertible(self) -> None:
        """Raise `ConfigError` unless the frames overlap enough to be inverted."""
        # Far from the ends the envelope repeats every hop.
        padded = np.zeros(-(-self.n_fft // self.n_hop) * self.n_hop)
        padded[: self.n_fft] = self.window**2
        if padded.reshape(-1, self.n_hop).sum(axis=0).min() < _MIN_ENVELOPE:
            raise ConfigError(
                f"n_hop={self.n_hop} leaves samples that no frame of n_fft={self.n_fft} covers; "
                "the inverse needs a smaller n_hop"
            )

    def envelope(self, start: int, stop: int, nb_frames: int) -> np.ndarray:
        """Sum of the squared windows at samples [start, stop) of the padded signal, float64.

        Only the `nb_frames` frames of the whole signal count, so the ends differ from the middle.
        """
        total = np.zeros(stop - start)
        squared = self.window**2
        first = max(0, -(-(start - self.n_fft + 1) // self.n_hop))
        last = min(nb_frames - 1, (stop - 1) // self.n_hop)
        for t in range(first, last + 1):
            lo, hi = max(start, t * self.n_hop), min(stop, t * self.n_hop + self.n_fft)
            total[lo - start : hi - start] += squared[lo - t * self.n_hop : hi - t * self.n_hop]
        return total

    def inverse_envelope(self, start: int, stop: int, nb_frames: int) -> np.ndarray:
        """One over `envelope`, and 0 where no frame reaches."""
        total = self.envelope(start, stop, nb_frames)
        covered = total > _MIN_ENVELOPE
        return np.where(covered, 1.0 / np.where(covered, total, 1.0), 0.0)

    def pad_signal(self, x: np.ndarray) -> np.ndarray:
        """Padded copy of ``x`` [shape=(nb_channels, nb_timesteps)], C-contiguous."""
        extra = self.nb_extended(x.shape[-1]) - x.shape[-1]
        if extra:
            x = np.pad(x, ((0, 0), (0, extra)))
        if self.pad:
            x = np.pad(x, ((0, 0), (self.pad, self.pad)), mode="reflect")
        return np.ascontiguousarray(x)


def fourier_matrices(geometry: StftGeometry) -> tuple[np.ndarray, np.ndarray]:
    """Matrices of the transform without its window, float64.

    Real and imaginary part of a bin stand side by side.

    Returns
    -------
    analysis : ndarray [shape=(2 * nb_bins, n_fft)]
        From a frame to its spectrum.
    synthesis : ndarray [shape=(n_fft, 2 * nb_bins)]
        From a spectrum to its frame.
    """
    n_fft, nb_bins = geometry.n_fft, geometry.nb_bins
    # The angle is reduced modulo a full turn as an integer, where it is exact.
    turns = np.outer(np.arange(nb_bins), np.arange(n_fft)) % n_fft
    angle = turns * (2 * np.pi / n_fft)
    waves = np.stack([np.cos(angle), -np.sin(angle)], axis=1)
    synthesis = (waves * geometry.inverse_weights()[:, None, None]).reshape(2 * nb_bins, n_fft).T
    return waves.reshape(2 * nb_bins, n_fft), synthesis


class Transform:
    """Forward and inverse transform of segments, with one of Open-Unmix's filterbanks.

    Parameters
    ----------
    geometry : StftGeometry
        Where the frames lie.
    filterbank : {'torch', 'asteroid'}
        ``'torch'`` uses the FFT, ``'asteroid'`` multiplies with the matrix of the same transform.
    ops : Backend
        Where to compute.
    dtype : dtype
        float32 or float64.
    """

    def __init__(
        self,
        geometry: StftGeometry,
        filterbank: str,
        ops: Backend,
        dtype: np.dtype | type = np.float32,
    ) -> None:
        self.geometry = geometry
        self.dtype = np.dtype(dtype)
        self.complex_dtype = np.result_type(self.dtype, np.complex64)
        self.ops = ops
        self.window = geometry.window.astype(self.dtype)
        # Without a norm NumPy passes the factor 1 as an integer, and a float32 spectrum is computed
        # in float64 and cast back: five times slower. With norm="forward" it stays float32; the
        # window undoes the division (exactly, where n_fft is a power of two).
        self._window_times_n_fft = (geometry.window * geometry.n_fft).astype(self.dtype)
        self._matrices: tuple | None = None
        if filterbank == "asteroid":
            self._matrices = tuple(
                ops.pack_linear(np.ascontiguousarray(matrix, dtype=self.dtype))
                for matrix in fourier_matrices(geometry)
            )
        elif filterbank != "torch":
            raise ConfigError(f"filterbank={filterbank!r} must be 'torch' or 'asteroid'")

    def forward(
        self, segment: np.ndarray, nb_frames: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Spectra of the first `nb_frames` frames of a padded segment.

        Parameters
        ----------
        segment : ndarray [shape=(nb_channels, >= nb_samples_of(nb_frames))]
            Samples of the padded signal, from the start of the first frame.
        nb_frames : int
            Number of frames.
        out : complex ndarray or None
            Where to put the result.

        Returns
        -------
        complex ndarray [shape=(nb_channels, nb_frames, nb_bins)]
        """
        window = self._window_times_n_fft if self._matrices is None else self.window
        frames = self.ops.frame(segment, window, n_hop=self.geometry.n_hop, nb_frames=nb_frames)
        if self._matrices is None:
            return np.fft.rfft(frames, norm="forward", out=out)
        spectrum = self.ops.linear(frames, self._matrices[0]).view(self.complex_dtype)
        if out is None:
            return spectrum
        out[...] = spectrum
        return out

    def inverse(self, spectrum: np.ndarray, out: np.ndarray) -> None:
        """Add the windowed inverse of the frames to ``out``.

        Parameters
        ----------
        spectrum : complex ndarray [shape=(nb_channels, nb_frames, nb_bins)]
            Spectra.
        out : ndarray [shape=(nb_channels, nb_samples_of(nb_frames))]
            Samples from the start of the first frame, added to. The caller divides by the envelope.
        """
        if self._matrices is None:
            # Of a transposed view irfft would return a transposed array.
            frames = np.fft.irfft(np.ascontiguousarray(spectrum), n=self.geometry.n_fft)
        else:
            parts = np.ascontiguousarray(spectrum).view(self.dtype)
            frames = self.ops.linear(parts, self._matrices[1])
        self.ops.overlap_add(frames, self.window, n_hop=self.geometry.n_hop, out=out)


def _real_dtype(x: np.ndarray, name: str) -> np.dtype:
    """Dtype to compute in, or `ShapeError` for arrays that hold no numbers."""
    if x.dtype.kind not in "iufc":
        raise ShapeError(f"{name} has dtype={x.dtype}; pass an array of numbers")
    dtype = np.result_type(x.real.dtype, np.float32)
    if dtype not in (np.float32, np.float64):
        raise ShapeError(f"{name} has dtype={x.dtype}; convert it to float32 or float64")
    return dtype


def stft(
    x: np.ndarray,
    n_fft: int = 4096,
    n_hop: int = 1024,
    center: bool = True,
    *,
    filterbank: str = "torch",
    device: str | Backend = "cpu",
) -> np.ndarray:
    """Short-time Fourier transform with a periodic Hann window.

    Parameters
    ----------
    x : np.ndarray [shape=(..., nb_timesteps)], real
        Signals. float64 is transformed in float64, other real dtypes in float32 (integers wider
        than 16 bits in float64).
    n_fft, n_hop : int
        Frame length and distance in samples.
    center : bool
        Pad with ``n_fft // 2`` reflected samples on both sides. A signal too short for that is
        first extended with zeros.
    filterbank : {'torch', 'asteroid'}
        FFT, or the same transform as a matrix product.
    device : str or Backend
        Where to compute.

    Returns
    -------
    np.ndarray [shape=(..., nb_bins, nb_frames)], complex
        One-sided, unnormalised spectra, as from ``torch.stft(..., return_complex=True)``.

    Raises
    ------
    ShapeError
        If the signal is empty, or shorter than one frame and not centred.

    Examples
    --------
    >>> import numpy as np
    >>> stft(np.zeros((2, 44100), np.float32)).shape
    (2, 2049, 44)
    """
    x = check_array("x", x)
    if x.ndim == 0 or x.dtype.kind == "c":
        raise ShapeError(f"x must be a real signal, not shape={x.shape}, dtype={x.dtype}")
    ops = get_backend(device)
    geometry = StftGeometry(n_fft, n_hop, center)
    dtype = _real_dtype(x, "x")
    nb_frames = geometry.nb_frames(x.shape[-1])
    transform = Transform(geometry, filterbank, ops, dtype)
    signals = x.reshape(-1, x.shape[-1]).astype(dtype, copy=False)
    padded = geometry.pad_signal(signals)
    out = np.empty((len(signals), nb_frames, geometry.nb_bins), transform.complex_dtype)

    def some_frames(start: int) -> None:
        stop = min(start + _FRAMES_PER_TASK, nb_frames)
        segment = padded[:, start * geometry.n_hop :]
        transform.forward(segment, stop - start, out=out[:, start:stop])

    ops.map(some_frames, range(0, nb_frames, _FRAMES_PER_TASK))
    return out.swapaxes(-1, -2).reshape(*x.shape[:-1], geometry.nb_bins, nb_frames)


def istft(
    X: np.ndarray,
    n_hop: int = 1024,
    center: bool = True,
    length: int | None = None,
    *,
    n_fft: int | None = None,
    filterbank: str = "torch",
    device: str | Backend = "cpu",
) -> np.ndarray:
    """Inverse of `stft`: overlap-add divided by the sum of the squared windows.

    Parameters
    ----------
    X : np.ndarray [shape=(..., nb_bins, nb_frames)], complex
        One-sided spectra.
    n_hop : int
        Distance of the frames in samples.
    center : bool
        Whether the signal was padded.
    length : int or None
        Samples to return; the signal is cut or extended with zeros. None returns what the frames
        cover.
    n_fft : int or None
        Frame length; None means ``2 * (nb_bins - 1)``. Odd sizes must be given.
    filterbank, device
        As for `stft`.

    Returns
    -------
    np.ndarray [shape=(..., length)]
        float32 for complex64, float64 for complex128.

    Raises
    ------
    ConfigError
        If `n_hop` leaves samples that no frame covers.
    ShapeError
        If the array is no spectrum of `n_fft`.

    Notes
    -----
    Like ``torch.istft``, except that without centring the first samples, where the Hann window is
    zero and nothing is known, are 0 instead of an error.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal(5000)
    >>> bool(np.allclose(istft(stft(x), length=5000), x))
    True
    """
    X = check_array("X", X)
    if X.ndim < 2 or X.dtype.kind != "c":
        raise ShapeError(
            f"X must be complex with shape (..., nb_bins, nb_frames), not shape={X.shape}, "
            f"dtype={X.dtype}"
        )
    nb_bins, nb_frames = X.shape[-2:]
    geometry = StftGeometry(2 * (nb_bins - 1) if n_fft is None else n_fft, n_hop, center)
    if geometry.nb_bins != nb_bins or nb_frames == 0:
        raise ShapeError(
            f"X with nb_bins={nb_bins}, nb_frames={nb_frames} is no spectrum of "
            f"n_fft={geometry.n_fft}"
        )
    geometry.check_invertible()
    if length is not None:
        length = check_int("length", length, 0, _LONGEST)
    ops = get_backend(device)
    transform = Transform(geometry, filterbank, ops, _real_dtype(X, "X"))
    spectra = X.reshape(-1, nb_bins, nb_frames).swapaxes(-1, -2)
    padded = np.zeros((len(spectra), geometry.nb_samples_of(nb_frames)), transform.dtype)

    def one_signal(i: int) -> None:
        # In the order of the frames, so that the sums do not depend on the number of threads.
        for start in range(0, nb_frames, _FRAMES_PER_TASK):
            stop = min(start + _FRAMES_PER_TASK, nb_frames)
            lo = start * geometry.n_hop
            block = spectra[i : i + 1, start:stop].astype(transform.complex_dtype, copy=False)
            transform.inverse(
                block, padded[i : i + 1, lo : lo + geometry.nb_samples_of(stop - start)]
            )

    ops.map(one_signal, range(len(spectra)))
    padded *= geometry.inverse_envelope(0, padded.shape[1], nb_frames).astype(transform.dtype)
    start = geometry.pad
    stop = padded.shape[1] if length is not None else padded.shape[1] - geometry.pad
    signal = padded[:, start:stop]
    if length is not None:
        signal = signal[:, :length]
        if signal.shape[1] < length:
            signal = np.pad(signal, ((0, 0), (0, length - signal.shape[1])))
    return signal.reshape(*X.shape[:-2], signal.shape[1])
