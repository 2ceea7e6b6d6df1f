"""Change of sample rate through libsoxr at its very high quality setting.

Lengths are rounded up: ``ceil(nb_timesteps * rate_out / rate_in)`` samples cover the whole input,
so that going back to the first rate yields at least as many samples as there were. libsoxr itself
rounds to nearest; the missing last sample is obtained by letting it run on into silence.
"""

from __future__ import annotations

import math
from fractions import Fraction
from importlib import import_module

import numpy as np

from .._kernels.calls import uninterrupted
from ..config import check_array, check_rate
from ..errors import ShapeError

# Its extension is C++ that calls Python while it is imported, and aborts the process where a signal
# raises an exception then.
soxr = uninterrupted(import_module, "soxr")

_QUALITY = "VHQ"


def nb_resampled(nb_timesteps: int, rate_in: float, rate_out: float) -> int:
    """Length of a signal after a change of rate, rounded up.

    Parameters
    ----------
    nb_timesteps : int
        Length at `rate_in`, in samples.
    rate_in, rate_out : float
        Rates in Hz. Only their ratio matters, which is taken exactly.

    Returns
    -------
    int
        ``ceil(nb_timesteps * rate_out / rate_in)``.

    Examples
    --------
    >>> nb_resampled(48000, 48000, 44100)
    44100
    >>> nb_resampled(1, 96000, 44100)
    1
    """
    return math.ceil(nb_timesteps * Fraction(float(rate_out)) / Fraction(float(rate_in)))


def _silence_after(rate_in: float, rate_out: float) -> int:
    """Zeros to append so that libsoxr yields at least the rounded-up number of samples."""
    return math.ceil(rate_in / rate_out) + 1


class StreamResampler:
    """Change the rate of a signal that arrives in blocks.

    The samples are those of resampling the whole signal at once, up to float32 rounding, whatever
    the sizes of the blocks.

    Parameters
    ----------
    rate_in, rate_out : float
        Rates in Hz.
    nb_channels : int
        Channels of every block.
    """

    def __init__(self, rate_in: float, rate_out: float, nb_channels: int) -> None:
        self._rates = (check_rate("rate_in", rate_in), check_rate("rate_out", rate_out))
        self._nb_channels = nb_channels
        self._nb_in = 0
        self._nb_out = 0
        self._stream = soxr.ResampleStream(
            rate_in, rate_out, nb_channels, dtype="float32", quality=_QUALITY
        )

    def push(self, frames: np.ndarray) -> np.ndarray:
        """Take the next samples and return those that are ready.

        Parameters
        ----------
        frames : ndarray [shape=(nb_timesteps, nb_channels)], float32
            The next samples at `rate_in`.

        Returns
        -------
        ndarray [shape=(nb_ready, nb_channels)], float32
            Samples at `rate_out`; there may be none yet.
        """
        self._nb_in += len(frames)
        ready = self._stream.resample_chunk(np.ascontiguousarray(frames))
        self._nb_out += len(ready)
        return ready

    def finish(self) -> np.ndarray:
        """Return the samples still held back; nothing can be pushed afterwards.

        Returns
        -------
        ndarray [shape=(nb_ready, nb_channels)], float32
            The end of the signal: all blocks together hold `nb_resampled` samples.
        """
        silence = np.zeros((_silence_after(*self._rates), self._nb_channels), np.float32)
        ready = self._stream.resample_chunk(silence, last=True)
        return ready[: nb_resampled(self._nb_in, *self._rates) - self._nb_out]


def resample_to(audio: np.ndarray, nb_timesteps: int) -> np.ndarray:
    """Play a signal faster or slower, so that it has a given length.

    Parameters
    ----------
    audio : ndarray [shape=(nb_channels, nb_in)], float32
        Signals along the last axis; not modified.
    nb_timesteps : int
        Wanted length, at least 1.

    Returns
    -------
    ndarray [shape=(nb_channels, nb_timesteps)], float32
        `audio` itself where it has this length. Should libsoxr yield a sample fewer, the last one
        is 0.

    Raises
    ------
    ShapeError
        If one of the lengths is 0.
    """
    nb_in = audio.shape[-1]
    if nb_in < 1 or nb_timesteps < 1:
        raise ShapeError(f"nb_timesteps={nb_timesteps} of shape={audio.shape} must be at least 1")
    if nb_in == nb_timesteps:
        return audio
    # libsoxr's own count may differ by one, as it rounds the ratio.
    played = soxr.resample(np.ascontiguousarray(audio.T), nb_in, nb_timesteps, quality="HQ")
    out = np.zeros((len(audio), nb_timesteps), audio.dtype)
    out[:, : len(played)] = played[:nb_timesteps].T
    return out


def resample(audio: np.ndarray, rate_in: float, rate_out: float) -> np.ndarray:
    """Change the sample rate of a whole array.

    Parameters
    ----------
    audio : ndarray [shape=(..., nb_timesteps)], float32 or float64
        Signals along the last axis; not modified.
    rate_in, rate_out : float
        Rates in Hz.

    Returns
    -------
    ndarray [shape=(..., nb_resampled)], same dtype
        ``ceil(nb_timesteps * rate_out / rate_in)`` samples each. A new array, also when the rates
        are equal.

    Raises
    ------
    ShapeError
        If `audio` is empty or neither float32 nor float64.
    ConfigError
        If a rate is not one that sound can have.

    Notes
    -----
    Open-Unmix resamples with a short windowed sinc (``torchaudio.transforms.Resample``); libsoxr's
    filter is longer, so that resampled signals agree only approximately near the band edge.
    """
    check_rate("rate_in", rate_in)
    check_rate("rate_out", rate_out)
    audio = check_array("audio", audio)
    if audio.dtype not in (np.float32, np.float64):
        raise ShapeError(f"dtype={audio.dtype} cannot be resampled: convert to float32 or float64")
    if audio.ndim == 0 or audio.size == 0:
        raise ShapeError(f"shape={audio.shape} holds no samples to resample")
    if rate_in == rate_out:
        return audio.copy()
    nb_timesteps = audio.shape[-1]
    # Signals go in as the columns of a transposed array: libsoxr then takes them one by one
    # without copying.
    rows = np.zeros(
        (audio.size // nb_timesteps, nb_timesteps + _silence_after(rate_in, rate_out)), audio.dtype
    )
    rows[:, :nb_timesteps] = audio.reshape(-1, nb_timesteps)
    nb_out = nb_resampled(nb_timesteps, rate_in, rate_out)
    out = np.empty((len(rows), nb_out), audio.dtype)
    for row, result in zip(rows, out, strict=True):
        result[:] = soxr.resample(row, rate_in, rate_out, quality=_QUALITY)[:nb_out]
    return out.reshape((*audio.shape[:-1], nb_out))
