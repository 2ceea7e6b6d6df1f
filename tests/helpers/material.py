"""Mixtures and magnitudes in the layout of the backends."""

from __future__ import annotations

import numpy as np


def material(
    channels: int = 2,
    frames: int = 9,
    bins: int = 45,
    targets: int = 3,
    *,
    level: float = 5.0,
    side: float = 1.0,
    mags: int | None = None,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Mixture (C, F, B) complex64 and magnitudes (J, F, M, B) float32 of about its size.

    `side` is how far the second channel is from the first one; with ``mags=1`` the channels of a
    target share their magnitudes.
    """
    rng = np.random.default_rng(seed)
    parts = rng.standard_normal((2, channels, frames, bins))
    mix = level * (parts[0] + 1j * parts[1])
    if channels == 2:
        mix[1] = mix[0] + side * (mix[1] - mix[0])
    shares = rng.uniform(0.0, 1.0, (targets, frames, channels if mags is None else mags, bins))
    if channels == 2 and mags is None:
        shares[:, :, 1] = shares[:, :, 0] + side * (shares[:, :, 1] - shares[:, :, 0])
    magnitude = np.abs(mix).transpose(1, 0, 2)
    if mags == 1:
        magnitude = magnitude.mean(axis=1, keepdims=True)
    return mix.astype(np.complex64), (shares * magnitude).astype(np.float32)


def gradient_of(mix: np.ndarray, targets: int, seed: int = 1) -> np.ndarray:
    """Some gradient of the estimates (J, C, F, B) complex64."""
    parts = np.random.default_rng(seed).standard_normal((2, targets, *mix.shape))
    return (parts[0] + 1j * parts[1]).astype(np.complex64)


def noise(*shape: int, dtype: object = np.float64, seed: int = 0) -> np.ndarray:
    """Normal numbers, complex ones for a complex dtype."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)
