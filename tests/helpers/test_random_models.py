"""The made-up models must be the same everywhere and leave no part of a network idle."""

from __future__ import annotations

import numpy as np
import pytest

import umx_np
from helpers import signals
from umx_np.config import ModelConfig
from umx_np.errors import ConfigError
from umx_np.testing import random_bundle, random_bundle_of, random_state
from umx_np.testing.random_models import uniform
from umx_np.weights import TargetWeights, check_state, expected_state

SMALL = ModelConfig(nb_bins=65, hidden_size=16, max_bin=50)


def forward(config: ModelConfig, state: dict, x: np.ndarray) -> np.ndarray:
    network = umx_np.OpenUnmix.from_weights(TargetWeights(config, state), device="reference")
    return network(x)


def test_numbers_never_change():
    """Golden files rest on these; the expected numbers are from NumPy 2.4."""
    numbers = uniform(5, "name", (3,), -1.0, 2.0)
    np.testing.assert_array_equal(numbers, NUMBERS)
    assert numbers.dtype == np.float64


NUMBERS = [1.8966886874651419, -0.33400377927496705, -0.6673808732330584]


def test_seed_and_target_decide():
    first, again, other = (random_state(SMALL, seed) for seed in (1, 1, 2))
    for name in expected_state(SMALL):
        np.testing.assert_array_equal(first[name], again[name])
        assert name.endswith("tracked") or not np.array_equal(first[name], other[name])
    one = random_bundle_of(SMALL, ["bass"], seed=3)
    four = random_bundle_of(SMALL, seed=3)
    for name, value in one.targets["bass"].state.items():
        np.testing.assert_array_equal(four.targets["bass"].state[name], value)
    vocals = four.targets["vocals"].state["fc1.weight"]
    assert not np.array_equal(vocals, four.targets["drums"].state["fc1.weight"])


@pytest.mark.parametrize("name", ["umxm", "umx", "umxhq", "umxl", "umxse"])
def test_named_architectures(name):
    bundle = random_bundle(name, targets=["speech"] if name == "umxse" else ["drums"])
    (weights,) = bundle.targets.values()
    check_state(weights.state, weights.config)
    nb_parameters = sum(
        value.size
        for key, value in weights.state.items()
        if not key.endswith(("running_mean", "running_var", "num_batches_tracked"))
    )
    expected = {"umxm": 5_547_568, "umxl": 28_257_188, "umxse": 1_583_622}
    assert nb_parameters == expected.get(name, 8_893_348)


def test_unknown_names():
    with pytest.raises(ConfigError, match="umxxl"):
        random_bundle("umxxl")
    with pytest.raises(ConfigError, match="piano"):
        random_bundle("umxhq", targets=["piano"])


def test_masks_are_neither_empty_nor_huge():
    x = signals.magnitudes(SMALL, nb_frames=40, seed=1)
    mask = forward(SMALL, random_state(SMALL, 4), x) / x
    assert 0.1 < mask.mean() < 1.0
    assert mask.max() < 6.0
    assert 0.02 < np.mean(mask == 0.0) < 0.6
    assert mask.std(axis=-1).mean() > 0.05  # they move


@pytest.mark.parametrize("unidirectional", [False, True])
def test_no_tensor_is_idle(unidirectional):
    """Any tensor replaced by zeros (variances by ones) changes the output by a percent or so."""
    config = ModelConfig(nb_bins=65, hidden_size=16, max_bin=50, unidirectional=unidirectional)
    state = random_state(config, 5)
    x = signals.magnitudes(config, nb_frames=30, seed=2)
    expected = forward(config, state, x)
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        neutral = np.ones_like(value) if name.endswith("var") else np.zeros_like(value)
        changed = forward(config, {**state, name: neutral}, x)
        difference = np.linalg.norm(changed - expected) / np.linalg.norm(expected)
        assert difference > 3e-3, name
