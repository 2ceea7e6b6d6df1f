"""Inputs of the golden files, made from seeds; used to write the files and to check against them.

Everything is built on `umx_np.testing`'s uniform numbers, which no version of NumPy changes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from umx_np.config import ModelConfig
from umx_np.testing import random_bundle_of, random_state
from umx_np.testing.random_models import typical_magnitude, uniform
from umx_np.weights.bundle import ModelBundle, TargetWeights


def networks() -> dict[str, tuple[TargetWeights, np.ndarray]]:
    """Weights and magnitudes [shape=(nb_samples, nb_channels, nb_bins, nb_frames)]."""
    configs = {
        "three layers": (ModelConfig(nb_bins=33, hidden_size=16), 1, 9),
        "batch": (ModelConfig(nb_bins=33, hidden_size=16, nb_layers=2, max_bin=21), 3, 4),
        "one layer, mono": (
            ModelConfig(nb_bins=51, nb_channels=1, hidden_size=8, nb_layers=1),
            1,
            7,
        ),
        "unidirectional": (ModelConfig(nb_bins=33, hidden_size=16, unidirectional=True), 1, 9),
        "one frame": (ModelConfig(nb_bins=33, hidden_size=8, nb_layers=2), 1, 1),
    }
    cases = {}
    for name, (config, nb_samples, nb_frames) in configs.items():
        shape = (nb_samples, config.nb_channels, config.nb_bins, nb_frames)
        level = typical_magnitude(config.nb_bins)[:, None]
        x = level * uniform(71, name, shape, 0.0, 2.0)
        cases[name] = (TargetWeights(config, random_state(config, seed=72)), x)
    return cases


def transforms() -> dict[str, tuple[np.ndarray, int, int, bool]]:
    """Waveform [shape=(nb_samples, nb_channels, nb_timesteps)], n_fft, n_hop and center."""
    geometries = {
        "quarter hop": (64, 16, 300, True),
        "half hop": (128, 64, 401, True),
        "odd": (51, 17, 160, True),
        "uneven hop": (64, 24, 233, True),
        "not centered": (64, 16, 200, False),
    }
    return {
        name: (uniform(73, name, (1, 2, nb_timesteps), -1.0, 1.0), n_fft, n_hop, center)
        for name, (n_fft, n_hop, nb_timesteps, center) in geometries.items()
    }


def masked(spectrogram: np.ndarray) -> np.ndarray:
    """Give an STFT whose frames no longer agree, so that the inverse has something to decide."""
    return spectrogram * uniform(74, "mask", spectrogram.shape, 0.0, 1.0)


def filters() -> dict[str, tuple[np.ndarray, np.ndarray, dict[str, Any]]]:
    """Estimates, complex mixture and options of the Wiener filter."""
    cases: dict[str, tuple[np.ndarray, np.ndarray, dict[str, Any]]] = {}
    for iterations in (0, 1, 2):
        for softmask in (False, True):
            for residual in (False, True):
                options = {"iterations": iterations, "softmask": softmask, "residual": residual}
                cases[f"{iterations} {softmask=} {residual=}"] = (*_mixture(2, 8.0), options)
    cases["one channel"] = (*_mixture(1, 8.0), {"iterations": 1})
    cases["loud"] = (*_mixture(2, 500.0), {"iterations": 1})
    estimates, mix = _mixture(2, 8.0)
    mix[..., 1] = mix[..., 0]
    estimates[..., 1, :] = estimates[..., 0, :]
    cases["dual mono"] = (estimates, mix, {"iterations": 1})
    return cases


def _mixture(nb_channels: int, level: float) -> tuple[np.ndarray, np.ndarray]:
    shape = (7, 5, nb_channels)
    real, imag = uniform(75, "mixture", (2, *shape), -level, level)
    estimates = uniform(76, "estimates", (*shape, 3), 0.0, level)
    return estimates, real + 1j * imag


def separations() -> dict[str, tuple[ModelBundle, np.ndarray, dict[str, Any]]]:
    """Models, mixtures and options of the separator."""
    targets = ("vocals", "drums", "bass")
    stereo = random_bundle_of(ModelConfig(nb_bins=65, hidden_size=16, max_bin=50), targets, seed=77)
    mono = random_bundle_of(
        ModelConfig(nb_bins=33, nb_channels=1, hidden_size=8, nb_layers=2),
        ("speech", "noise"),
        seed=78,
        sample_rate=16000.0,
    )
    causal = random_bundle_of(
        ModelConfig(nb_bins=33, hidden_size=8, nb_layers=1, unidirectional=True), targets, seed=79
    )
    audio = uniform(80, "audio", (1, 2, 400), -0.3, 0.3)
    return {
        "magnitudes": (stereo, audio, {}),
        "one iteration": (stereo, audio, {"niter": 1}),
        "residual": (stereo, audio, {"niter": 0, "residual": True}),
        "softmask, residual": (stereo, audio, {"niter": 2, "softmask": True, "residual": True}),
        "short windows": (stereo, audio, {"niter": 1, "wiener_win_len": 7}),
        "mono network": (mono, audio, {"niter": 1, "wiener_win_len": None}),
        "unidirectional": (causal, audio, {"niter": 1, "residual": True}),
    }
