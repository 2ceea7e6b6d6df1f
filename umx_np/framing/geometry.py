"""Where the frames of a short-time Fourier transform lie."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..config import LARGEST, check_int
from ..errors import ConfigError, ShapeError

# torch.istft refuses to divide by less than this sum of squared windows.
_MIN_ENVELOPE = 1e-11


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
