"""Filters that move with the song."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("scipy")

from scipy import signal

from recipes.umxm.studio import movement
from recipes.umxm.studio.plan import SAMPLE_RATE, make_plan


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((2, 20_001)).astype(np.float32)


@pytest.mark.parametrize("q", [0.7, 6.0])
def test_a_filter_that_stands_still_is_a_plain_one(noise: np.ndarray, q: float) -> None:
    w = 2.0 * np.pi * 900.0 / SAMPLE_RATE
    alpha = np.sin(w) / (2.0 * q)
    b = np.array([(1 - np.cos(w)) / 2, 1 - np.cos(w), (1 - np.cos(w)) / 2])
    a = np.array([1 + alpha, -2 * np.cos(w), 1 - alpha])
    expected = signal.lfilter(b, a, noise, axis=-1)
    found = movement.swept(noise, np.array([900.0]), q)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found.dtype == np.float32


@pytest.mark.parametrize("kind", ["low", "band"])
def test_the_sound_follows_the_filter(noise: np.ndarray, kind: str) -> None:
    count = -(-noise.shape[-1] // 128)
    cutoff = np.where(np.arange(count) < count // 2, 300.0, 6000.0)
    swept = movement.swept(noise, cutoff, 2.0, kind)
    bright = [
        np.abs(np.diff(half[0])).mean() / np.abs(half[0]).mean()
        for half in np.array_split(swept, 2, axis=-1)
    ]
    assert bright[1] > 3.0 * bright[0]


def test_movements_stay_between_their_ends_and_depend_on_the_generator_only() -> None:
    plan = make_plan(4, 6.0)
    curves = [movement.curve(plan, np.random.default_rng(k), 200.0, 2000.0) for k in range(30)]
    for path in curves:
        assert 200.0 - 1e-6 <= path.min() <= path.max() <= 2000.0 + 1e-6
        assert path.max() > 1.2 * path.min()
        assert len(path) == -(-plan.nb_timesteps // 128)
    again = movement.curve(plan, np.random.default_rng(7), 200.0, 2000.0)
    np.testing.assert_array_equal(again, curves[7])


def test_a_moved_layer_keeps_its_bottom_and_is_finite() -> None:
    plan = make_plan(2, 3.0)
    time = np.arange(plan.nb_timesteps) / SAMPLE_RATE
    layer = np.tile(0.1 * np.sin(2 * np.pi * 55.0 * time), (2, 1)).astype(np.float32)
    for seed in range(8):
        moved = movement.moved(layer, plan, np.random.default_rng(seed))
        assert moved.shape == layer.shape
        assert np.isfinite(moved).all()
        assert np.sqrt(np.mean(moved**2)) > 0.5 * np.sqrt(np.mean(layer**2))
    np.testing.assert_array_equal(
        layer[0, :10], (0.1 * np.sin(2 * np.pi * 55.0 * time[:10])).astype(np.float32)
    )
