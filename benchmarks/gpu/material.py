"""Inputs of the checks: random, of the size and spectrum of real ones, other ones in every run."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from umx_np.config import ModelConfig
from umx_np.testing import random_bundle, random_bundle_of
from umx_np.testing.random_models import typical_magnitude
from umx_np.weights.bundle import ModelBundle

from .context import Context

RATE = 44100


def song(
    rng: np.random.Generator, nb_timesteps: int, nb_channels: int = 2, *, side: float = 1.0
) -> np.ndarray:
    """Coloured noise that swells.

    Parameters
    ----------
    rng : Generator
        Random numbers.
    nb_timesteps, nb_channels : int
        Size.
    side : float
        Level of the difference of the channels; 0 makes them the same.

    Returns
    -------
    ndarray [shape=(nb_channels, nb_timesteps)], float32
        RMS 0.1.
    """
    white = rng.standard_normal((nb_channels, nb_timesteps))
    mid = white.mean(axis=0)
    white = mid + side * (white - mid)
    colour = typical_magnitude(nb_timesteps // 2 + 1)
    sound = np.fft.irfft(np.fft.rfft(white) * colour, nb_timesteps)
    sound *= 0.6 + 0.4 * np.sin(np.linspace(0.0, 30.0, nb_timesteps))
    return (0.1 * sound / np.sqrt(np.mean(sound**2))).astype(np.float32)


def magnitudes(rng: np.random.Generator, nb_frames: int, config: ModelConfig) -> np.ndarray:
    """Spectrogram [shape=(nb_frames, nb_channels, nb_bins)], float32, with some silence."""
    level = typical_magnitude(config.nb_bins)
    mags = level * rng.rayleigh(0.8, (nb_frames, config.nb_channels, config.nb_bins))
    mags[nb_frames // 2] = 0.0
    return mags.astype(np.float32)


def spectra(
    rng: np.random.Generator,
    nb_targets: int,
    nb_channels: int,
    nb_frames: int,
    nb_bins: int,
    *,
    mag_channels: int | None = None,
    side: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Mixture and magnitudes of targets as a Wiener filter gets them, some of them 0.

    Returns
    -------
    mix : ndarray [shape=(nb_channels, nb_frames, nb_bins)], complex64
    mags : ndarray [shape=(nb_targets, nb_frames, mag_channels, nb_bins)], float32
    """
    shape = (nb_channels, nb_frames, nb_bins)
    mix = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    mid = mix.mean(axis=0)
    mix = 20.0 * (mid + side * (mix - mid))
    mix[:, nb_frames // 3] = 0.0
    seen = np.abs(mix).transpose(1, 0, 2)
    if mag_channels == 1:
        seen = seen.mean(axis=1, keepdims=True)
    mags = rng.uniform(0.0, 2.0 / nb_targets, (nb_targets, *seen.shape)) * seen
    mags[-1, nb_frames // 2] = 0.0
    return mix.astype(np.complex64), mags.astype(np.float32)


def bundle(context: Context, name: str = "umxhq", targets: int | None = None) -> ModelBundle:
    """Random weights in the architecture of a published model, or a small one like it.

    Parameters
    ----------
    context : Context
        Says whether it may be large.
    name : str
        ``'umxhq'``, ``'umxl'`` or ``'umxse'``.
    targets : int or None
        How many targets; None means all.
    """
    names = ("speech", "noise") if name == "umxse" else ("vocals", "drums", "bass", "other")
    return _bundle(name, names[:targets], context.options.seed, context.options.small)


# Random numbers for a hundred million weights take seconds.
@lru_cache(maxsize=2)
def _bundle(name: str, targets: tuple[str, ...], seed: int, small: bool) -> ModelBundle:
    if not small:
        return random_bundle(name, seed, targets)
    nb_channels = 1 if name == "umxse" else 2
    config = ModelConfig(nb_bins=33, nb_channels=nb_channels, hidden_size=16, max_bin=25)
    return random_bundle_of(config, targets, seed=seed)
