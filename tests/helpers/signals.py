"""Deterministic test signals [shape=(nb_samples, nb_channels, nb_timesteps)], float64."""

from __future__ import annotations

import numpy as np

from umx_np.config import ModelConfig
from umx_np.testing.random_models import typical_magnitude

RMS_LEVEL = 0.1


def music(
    nb_timesteps: int, *, nb_samples: int = 1, nb_channels: int = 2, seed: int = 0
) -> np.ndarray:
    """Music-like sound with a moving envelope; every channel is independent of the others.

    Noise with the spectrum that `umx_np.testing`'s input statistics are made for: the same shape
    as white noise at low frequencies and falling above.
    """
    rng = np.random.default_rng(seed)
    white = rng.standard_normal((nb_samples, nb_channels, nb_timesteps))
    tilt = typical_magnitude(nb_timesteps // 2 + 1)
    colored = np.fft.irfft(np.fft.rfft(white) * (tilt / np.sqrt(np.mean(tilt**2))), nb_timesteps)
    # Bursts of about a tenth of the signal, so that the LSTM has something to remember.
    time = np.arange(nb_timesteps) / max(nb_timesteps, 1)
    phase = rng.uniform(0.0, 2.0 * np.pi, (nb_samples, 1, 1))
    sound = colored * (0.6 + 0.4 * np.sin(2.0 * np.pi * 5.0 * time + phase))
    return RMS_LEVEL * sound / max(float(np.sqrt(np.mean(sound**2))), 1e-30)


def near_mono(nb_timesteps: int, side_db: float, *, seed: int = 0) -> np.ndarray:
    """Stereo whose side signal lies `side_db` decibels from the mid signal (-40 is nearly mono)."""
    mid, side = np.moveaxis(music(nb_timesteps, seed=seed), 1, 0)
    side = side * 10.0 ** (side_db / 20.0) * np.linalg.norm(mid) / np.linalg.norm(side)
    return np.stack([mid + side, mid - side], axis=1)


def dual_mono(nb_timesteps: int, *, seed: int = 0) -> np.ndarray:
    """Stereo with two identical channels."""
    mono = music(nb_timesteps, nb_channels=1, seed=seed)
    return np.concatenate([mono, mono], axis=1)


def gapped(nb_timesteps: int, *, seed: int = 0) -> np.ndarray:
    """Decorrelated stereo whose second third is digital silence."""
    sound = music(nb_timesteps, seed=seed)
    sound[..., nb_timesteps // 3 : 2 * nb_timesteps // 3] = 0.0
    return sound


def impulse(nb_timesteps: int) -> np.ndarray:
    """One sample of full scale in the middle of the left channel."""
    sound = np.zeros((1, 2, nb_timesteps))
    sound[0, 0, nb_timesteps // 2] = 1.0
    return sound


def magnitudes(
    config: ModelConfig, *, nb_frames: int, nb_samples: int = 1, seed: int = 0
) -> np.ndarray:
    """Spectrogram magnitudes [shape=(nb_samples, nb_channels, nb_bins, nb_frames)] for a network.

    Rayleigh distributed, as those of noise, with the mean that the random weights expect.
    """
    rng = np.random.default_rng(seed)
    shape = (nb_samples, config.nb_channels, config.nb_bins, nb_frames)
    level = typical_magnitude(config.nb_bins)[:, None]
    return level * rng.rayleigh(scale=np.sqrt(2.0 / np.pi), size=shape)


def spectra(
    nb_frames: int, nb_bins: int, nb_channels: int, *, seed: int = 0, level: float = 5.0
) -> np.ndarray:
    """Complex STFT-like noise [shape=(nb_frames, nb_bins, nb_channels)]."""
    rng = np.random.default_rng(seed)
    shape = (nb_frames, nb_bins, nb_channels)
    return level * (rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


def estimates_for(mix_stft: np.ndarray, nb_sources: int, *, seed: int = 0) -> np.ndarray:
    """Magnitudes [shape=(nb_frames, nb_bins, nb_channels, nb_sources)] from random masks."""
    rng = np.random.default_rng(seed)
    masks = rng.uniform(0.0, 2.0 / nb_sources, (*mix_stft.shape, nb_sources))
    return np.abs(mix_stft)[..., None] * masks
