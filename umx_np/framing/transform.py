"""Forward and inverse short-time Fourier transform of segments of a signal."""

from __future__ import annotations

import numpy as np

from ..backends.contracts import Backend
from ..errors import ConfigError
from .geometry import StftGeometry, fourier_matrices

# Frames that one thread transforms at a time: two channels of 4096 samples are 2 MB.
_FRAMES_PER_TASK = 64


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

    def forward_all(self, padded: np.ndarray, nb_frames: int) -> np.ndarray:
        """Spectra [shape=(nb_signals, nb_frames, nb_bins)] of whole padded signals."""
        out = np.empty((len(padded), nb_frames, self.geometry.nb_bins), self.complex_dtype)

        def some_frames(start: int) -> None:
            stop = min(start + _FRAMES_PER_TASK, nb_frames)
            segment = padded[:, start * self.geometry.n_hop :]
            self.forward(segment, stop - start, out=out[:, start:stop])

        self.ops.map(some_frames, range(0, nb_frames, _FRAMES_PER_TASK))
        return out

    def inverse_all(self, spectra: np.ndarray, nb_samples: int) -> np.ndarray:
        """Padded signals [shape=(nb_signals, nb_samples)]: the sums that `inverse` makes."""
        geometry = self.geometry
        padded = np.zeros((len(spectra), nb_samples), self.dtype)

        def one_signal(row: int) -> None:
            # In the order of the frames, so that the sums do not depend on the number of threads.
            for start in range(0, spectra.shape[1], _FRAMES_PER_TASK):
                block = spectra[row : row + 1, start : start + _FRAMES_PER_TASK]
                lo = start * geometry.n_hop
                hi = lo + geometry.nb_samples_of(block.shape[1])
                block = block.astype(self.complex_dtype, copy=False)
                self.inverse(block, padded[row : row + 1, lo:hi])

        self.ops.map(one_signal, range(len(spectra)))
        return padded
