"""A wider network that computes what the narrow one did."""

from __future__ import annotations

import numpy as np
import pytest

from recipes.umxm.studio.plan import STEMS
from recipes.umxm.training import grow as recipe
from recipes.umxm.training.grow import grow
from umx_np.config import ModelConfig
from umx_np.errors import ConfigError
from umx_np.network.openunmix import OpenUnmix
from umx_np.nn import TrainableNetwork
from umx_np.testing import random_bundle_of
from umx_np.weights import load_folder, save_folder


def bundle(**changes):
    values = {"nb_bins": 33, "hidden_size": 8, "nb_layers": 2, "max_bin": 20, **changes}
    return random_bundle_of(ModelConfig(**values), list(STEMS))


@pytest.mark.parametrize("changes", [{}, {"unidirectional": True}, {"nb_channels": 1}])
def test_the_function_stays(changes):
    weights = bundle(**changes).targets["vocals"]
    wide = grow(weights, 12, 0)
    assert wide.config.hidden_size == 12
    shape = (1, weights.config.nb_channels, weights.config.nb_bins, 30)
    x = np.abs(np.random.default_rng(1).standard_normal(shape)).astype(np.float32)
    before, after = (OpenUnmix.from_weights(w)(x) for w in (weights, wide))
    assert np.ptp(before) > 0.1
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


def test_new_units_learn_at_once():
    wide = grow(bundle().targets["drums"], 12, 0)
    network = TrainableNetwork(wide.config, wide.state, backend="reference", dropout=0.0)
    x = np.abs(np.random.default_rng(2).standard_normal((9, 2, 2, 33))).astype(np.float32)
    y, cache = network.forward(x)
    gradients = network.backward(np.ones_like(y), cache)
    for name in ("fc3.weight", "fc2.weight", "lstm.weight_ih_l1", "lstm.weight_hh_l0"):
        # From the last new unit to the first old one.
        assert wide.state[name][0, -1] == 0.0
        assert gradients[name][0, -1] != 0.0


def test_other_seeds_make_other_units():
    weights = bundle().targets["bass"]
    first, same, other = (grow(weights, 12, seed).state["fc1.weight"] for seed in (0, 0, 1))
    assert np.array_equal(first, same)
    assert np.array_equal(first[:8], other[:8])
    assert not np.array_equal(first[8:], other[8:])


@pytest.mark.parametrize("hidden_size", [8, 4])
def test_a_network_does_not_shrink(hidden_size):
    with pytest.raises(ConfigError, match=f"hidden_size={hidden_size} must be more than 8"):
        grow(bundle().targets["other"], hidden_size, 0)


def test_command(tmp_path, capsys):
    save_folder(bundle(), tmp_path / "narrow", "safetensors")
    recipe.main([str(tmp_path / "narrow"), "--out", str(tmp_path / "wide"), "--hidden-size", "12"])
    wide = load_folder(tmp_path / "wide")
    assert {w.config.hidden_size for w in wide.targets.values()} == {12}
    fresh = [w.state["fc1.weight"][8:] for w in wide.targets.values()]
    assert not np.array_equal(fresh[0], fresh[1])
    with pytest.raises(SystemExit):
        recipe.main([str(tmp_path / "wide"), "--out", str(tmp_path / "no"), "--hidden-size", "10"])
    assert "hidden_size=10 must be more than 12" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
