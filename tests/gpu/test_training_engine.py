"""The engine of graphics cards against the reference."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from helpers.asserts import assert_close, relative_l2
from helpers.signals import magnitudes
from tolerances import TOL

from umx_np.backends._cuda.device import Device
from umx_np.backends._cuda.training import CudaTrainingBackend
from umx_np.backends.training import CounterMasks
from umx_np.config import ModelConfig
from umx_np.errors import ConfigError
from umx_np.nn import TrainableNetwork
from umx_np.testing import random_state

from .training_helpers import backend_on

CONFIGS = {
    "three layers": ModelConfig(nb_bins=17, hidden_size=8, max_bin=11),
    "two, unidirectional": ModelConfig(
        nb_bins=20, hidden_size=12, nb_layers=2, unidirectional=True
    ),
    "one, mono": ModelConfig(nb_bins=45, nb_channels=1, hidden_size=16, nb_layers=1),
    "one, unidirectional, mono": ModelConfig(
        nb_bins=9, nb_channels=1, hidden_size=8, nb_layers=1, unidirectional=True
    ),
}
# nb_frames, nb_samples: less than a piece of rows, more than one, a single frame, a single sample
SHAPES = [(7, 3), (33, 2), (1, 3), (9, 1)]


@pytest.fixture
def backend(any_device: Device, monkeypatch: pytest.MonkeyPatch) -> CudaTrainingBackend:
    return backend_on(any_device, monkeypatch)


class FixedMasks:
    """A generator of dropout masks that both engines are given."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine


def passes(
    config: ModelConfig,
    shape: tuple[int, int],
    name: str,
    dtype: Any,
    masks: list[np.ndarray],
    **settings: Any,
) -> dict[str, np.ndarray]:
    """Results, gradients and buffers after a forward and a backward pass."""
    training = settings.pop("training")
    network = TrainableNetwork(
        config, random_state(config, seed=5), backend=name, dtype=dtype, **settings
    )
    network._draw_masks = lambda *place: masks  # type: ignore[method-assign]
    mags = magnitudes(config, nb_frames=shape[0], nb_samples=shape[1])
    x = mags.transpose(3, 0, 1, 2)
    d_y = np.random.default_rng(0).standard_normal(x.shape)
    y, cache = network.forward(x, training=training, rng=np.random.default_rng(1))
    gradients = network.backward(d_y, cache, input_gradient=True)
    found = {"y": y, **gradients, **network.buffers}
    return {key: v.get() if hasattr(v, "get") else v for key, v in found.items()}


def drawn(config: ModelConfig, shape: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    layers = range(config.nb_layers - 1)
    return [(rng.random((config.hidden_size, *shape)) > 0.4) / 0.6 for _ in layers]


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize(
    ("name", "shape"),
    [*itertools.product(CONFIGS, SHAPES[:1]), ("three layers", SHAPES[1])]
    + list(itertools.product(list(CONFIGS)[:2], SHAPES[2:])),
    ids=str,
)
def test_against_reference(
    backend: CudaTrainingBackend, name: str, shape: tuple[int, int], training: bool
) -> None:
    config = CONFIGS[name]
    masks = drawn(config, shape) if training else []
    expected = passes(config, shape, "reference", np.float64, masks, training=training)
    actual = passes(config, shape, "cuda", np.float32, masks, training=training)
    assert list(actual) == list(expected)
    for key, value in expected.items():
        if value.dtype.kind == "i":
            assert actual[key] == value
        elif key == "input_mean" and training:
            # The batch norm takes any mean away: the reference has rounding errors.
            assert not actual[key].any()
        else:
            operation = "network" if key == "y" else "gradients"
            assert_close(actual[key], value, TOL[operation]["float32"], dtype="float32")
