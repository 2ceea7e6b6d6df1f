"""Both passes of a network on every engine that trains, against the specification."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from helpers.asserts import assert_close
from helpers.cuda_training import backend_on
from helpers.emulated import CARDS, card
from helpers.signals import magnitudes
from tolerances import TOL

from umx_np.backends.training import CounterMasks
from umx_np.config import ModelConfig
from umx_np.nn import TrainableNetwork
from umx_np.testing import random_state

CONFIGS = {
    "three layers": ModelConfig(nb_bins=33, hidden_size=16, max_bin=21),
    "odd, unidirectional": ModelConfig(nb_bins=40, hidden_size=7, nb_layers=2, unidirectional=True),
    "two layers, unidirectional": ModelConfig(
        nb_bins=20, hidden_size=12, nb_layers=2, unidirectional=True
    ),
    "mono, wide": ModelConfig(nb_bins=613, nb_channels=1, hidden_size=34, nb_layers=1),
    "one layer, unidirectional, mono": ModelConfig(
        nb_bins=9, nb_channels=1, hidden_size=8, nb_layers=1, unidirectional=True
    ),
    "one unit": ModelConfig(nb_bins=33, hidden_size=2, nb_layers=2),
}
# nb_frames, nb_samples: usual ones, a batch of a vector and of more, a single frame, a single
# sample, and more rows than the sums of a CUDA device have in a piece.
SHAPES = [(7, 3), (5, 16), (3, 33), (1, 5), (9, 1), (33, 2)]


@pytest.fixture(params=["numba-float32", "numba-float64", *CARDS])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Name and dtype of what trains."""
    name, _, dtype = request.param.partition("-")
    if name == "numba":
        pytest.importorskip("numba", reason="needs the extra 'train'")
        return name, dtype
    backend_on(card(request.param), monkeypatch)
    return "cuda", "float32"


def network_of(config: ModelConfig, name: str, dtype: str) -> TrainableNetwork:
    state = random_state(config, seed=5)
    threads = {"threads": 2} if name == "numba" else {}
    return TrainableNetwork(config, state, backend=name, dtype=np.dtype(dtype), **threads)


def passes(network: TrainableNetwork, shape: tuple[int, int], masks: Any, training: bool) -> Any:
    """Results, gradients and buffers after a forward and a backward pass."""
    network._draw_masks = lambda *place: masks  # type: ignore[method-assign]
    mags = magnitudes(network.config, nb_frames=shape[0], nb_samples=shape[1])
    x = np.ascontiguousarray(mags.transpose(3, 0, 1, 2), network.dtype)
    x.flags.writeable = False
    d_y = np.random.default_rng(0).standard_normal(x.shape).astype(network.dtype)
    d_y.flags.writeable = False
    y, cache = network.forward(x, training=training)
    gradients = network.backward(d_y, cache, input_gradient=True)
    found = {"y": y, **gradients, **network.buffers}
    return {key: value.get() if hasattr(value, "get") else value for key, value in found.items()}


def masks_for(network: TrainableNetwork, shape: tuple[int, int]) -> tuple[Any, Any]:
    """Dropout masks as the engine takes them, and as arrays."""
    config, engine = network.config, network._engine
    nb_masks, size = config.nb_layers - 1, config.hidden_size
    if not engine.draws_masks:
        rng = np.random.default_rng(1)
        masks = [rng.integers(0, 2, (size, *shape)) / 0.5 for _ in range(nb_masks)]
        return [mask.astype(network.dtype) for mask in masks], masks
    counters, arrays = CounterMasks(key=3, rate=0.4), []
    for layer in range(nb_masks):
        ones = engine.device.xp.ones((shape[0] * shape[1], size), np.float32)
        engine._lstm.drop(ones, counters, layer, ones)
        arrays.append(ones.get().T.reshape(size, *shape))
    return counters, arrays


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(("name", "shape"), list(itertools.product(CONFIGS, SHAPES)), ids=str)
def test_both_passes(engine, name, shape, training):
    config, dtype = CONFIGS[name], engine[1]
    network = network_of(config, *engine)
    masks, arrays = masks_for(network, shape) if training else ([], [])
    expected = passes(network_of(config, "reference", "float64"), shape, arrays, training)
    actual = passes(network, shape, masks, training)
    assert list(actual) == list(expected)
    for key, value in expected.items():
        if value.dtype.kind == "i":
            assert actual[key] == value
        elif key == "input_mean" and training:
            # Exactly 0, as the batch norm takes any mean away: only rounding is left, on a CUDA
            # device not even that.
            scale = np.linalg.norm(expected["fc1.weight"]) * (engine[0] != "cuda")
            assert np.linalg.norm(actual[key]) <= TOL["gradients"][dtype].rtol * 100 * scale
        else:
            operation = "network" if key == "y" else "gradients"
            assert_close(actual[key], value, TOL[operation][dtype], dtype=dtype)
