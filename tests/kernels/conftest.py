"""The kernels of every instruction-set level that this processor runs."""

from __future__ import annotations

import numpy as np
import pytest

from umx_np._kernels import cpu


@pytest.fixture(params=list(cpu.levels()))
def kernels(request: pytest.FixtureRequest) -> cpu.Kernels:
    if not cpu.levels()[request.param]:
        pytest.skip(f"this processor does not run {request.param}")
    return cpu.Kernels(request.param)


def material(channels=2, frames=9, bins=45, targets=3, *, level=5.0, side=1.0, mags=None, seed=0):
    """Mixture (C, F, B) complex64 and magnitudes (J, F, M, B) float32 of about its size."""
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
