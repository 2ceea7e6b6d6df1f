"""Gradients of every parameter and of the input against torch's autograd of openunmix."""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from helpers.asserts import assert_close, assert_finite
from helpers.signals import magnitudes
from helpers.upstream import Upstream
from tolerances import TOL

from umx_np.config import ModelConfig
from umx_np.nn import TrainableNetwork
from umx_np.testing import random_state
from umx_np.weights.bundle import StateDict, TargetWeights

pytestmark = pytest.mark.parity

ENGINES = [("reference", "float64"), ("numba", "float64"), ("numba", "float32")]


def trainable(openunmix: Upstream, weights: TargetWeights, *, dropout: float = 0.0) -> Any:
    """Upstream's network in float64, ready to be trained."""
    network = openunmix.network(weights, "float64")
    network.lstm.dropout = dropout
    for parameter in network.parameters():
        parameter.requires_grad = True
    return network


def oracle(
    openunmix: Upstream, network: Any, x: np.ndarray, d_y: np.ndarray, training: bool
) -> dict[str, np.ndarray]:
    """Result, gradients and buffers of upstream's network, frames first."""
    torch = openunmix.torch
    network.train(training)
    frames_last = (1, 2, 3, 0)
    tensor = torch.tensor(x.transpose(frames_last).copy(), requires_grad=True)
    y = network(tensor)
    (y * torch.from_numpy(d_y.transpose(frames_last).copy())).sum().backward()
    found = {name: p.grad.numpy() for name, p in network.named_parameters()}
    found["y"] = y.detach().numpy().transpose(3, 0, 1, 2)
    found["input"] = tensor.grad.numpy().transpose(3, 0, 1, 2)
    return found | {name: buffer.numpy() for name, buffer in network.named_buffers()}


def inputs(config: ModelConfig, nb_frames: int, nb_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Magnitudes and a gradient of the result [shape=(T, B, C, bins)], the same in any dtype."""
    x = magnitudes(config, nb_frames=nb_frames, nb_samples=nb_samples)
    x = x.transpose(3, 0, 1, 2).astype(np.float32).astype(np.float64)
    d_y = np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    return x, d_y.astype(np.float64)


def ours(
    config: ModelConfig,
    state: StateDict,
    x: np.ndarray,
    d_y: np.ndarray,
    *,
    engine: tuple[str, str],
    training: bool,
    dropout: float = 0.0,
) -> dict[str, np.ndarray]:
    backend, dtype = engine
    if backend == "numba":
        pytest.importorskip("numba", reason="needs the extra 'train'")
    network = TrainableNetwork(config, state, backend=backend, dtype=dtype, dropout=dropout)
    y, cache = network.forward(x, training=training, rng=np.random.default_rng(8))
    gradients = network.backward(d_y, cache, input_gradient=True)
    return {"y": y, **gradients, **network.buffers}


def compare(
    actual: dict[str, np.ndarray], expected: dict[str, np.ndarray], dtype: str, training: bool
) -> None:
    assert set(actual) == set(expected)
    for name, value in expected.items():
        if value.dtype.kind == "i":
            assert actual[name] == value, name
            continue
        tolerance = TOL["network" if name == "y" else "gradients"][dtype]
        if name == "input_mean" and training:
            # Batch norm takes every mean away: both are rounding errors of 0, and small against
            # the terms that cancel.
            cancelling = np.abs(expected["fc1.weight"]).mean() * len(expected["bn1.weight"])
            tolerance = tolerance._replace(atol=tolerance.rtol * float(cancelling))
        assert_close(actual[name], value, tolerance, dtype=dtype)


@lru_cache(maxsize=1)
def _expected(openunmix, config, shape, training):
    state = random_state(config, seed=5)
    x, d_y = inputs(config, *shape)
    network = trainable(openunmix, TargetWeights(config, state))
    return state, x, d_y, oracle(openunmix, network, x, d_y, training)


CASES = [
    (layers, unidirectional, shape, training)
    for layers, unidirectional, shape, training in itertools.product(
        (1, 2, 3), (False, True), ((1, 1), (1, 16), (255, 1), (255, 16)), (True, False)
    )
    # One value cannot be normalised; torch refuses, too.
    if not (training and shape == (1, 1))
]


@pytest.mark.parametrize(("layers", "unidirectional", "shape", "training"), CASES)
@pytest.mark.parametrize("engine", ENGINES, ids="-".join)
def test_gradients(openunmix, layers, unidirectional, shape, training, engine):
    config = ModelConfig(
        nb_bins=33, hidden_size=12, nb_layers=layers, unidirectional=unidirectional, max_bin=21
    )
    state, x, d_y, expected = _expected(openunmix, config, shape, training)
    compare(
        ours(config, state, x, d_y, engine=engine, training=training),
        expected,
        engine[1],
        training,
    )


@pytest.mark.parametrize("engine", ENGINES, ids="-".join)
@pytest.mark.parametrize("unidirectional", [False, True])
def test_dropout(openunmix, engine, unidirectional):
    """With the masks that we draw put between upstream's layers by hand."""
    config = ModelConfig(nb_bins=33, hidden_size=12, unidirectional=unidirectional)
    state = random_state(config, seed=5)
    x, d_y = inputs(config, 9, 4)
    torch = openunmix.torch
    network = trainable(openunmix, TargetWeights(config, state))
    drawn = TrainableNetwork(config, state, backend="reference", dtype=np.float64)._draw_masks(
        9, 4, np.random.default_rng(8)
    )
    masks = [torch.from_numpy(mask.transpose(1, 2, 0).copy()) for mask in drawn]
    lstm = network.lstm

    def layer_by_layer(value: Any) -> tuple[Any]:
        for layer in range(config.nb_layers):
            one = torch.nn.LSTM(
                value.shape[-1], lstm.hidden_size, bidirectional=not unidirectional
            ).double()
            for name, _ in list(one.named_parameters()):
                setattr(one, name, getattr(lstm, name.replace("_l0", f"_l{layer}")))
            value, _ = one(value if layer == 0 else value * masks[layer - 1])
        return (value,)

    lstm.forward = layer_by_layer
    expected = oracle(openunmix, network, x, d_y, True)
    actual = ours(config, state, x, d_y, engine=engine, training=True, dropout=0.4)
    compare(actual, expected, engine[1], True)


@pytest.mark.parametrize("layers", [1, 3])
def test_dropout_statistics(openunmix, layers):
    """We leave out as many features as torch does, and only between layers."""
    config = ModelConfig(nb_bins=33, hidden_size=16, nb_layers=layers)
    network = TrainableNetwork(config, random_state(config, seed=5), backend="reference")
    masks = network._draw_masks(200, 100, np.random.default_rng(8))
    lstm = openunmix.model.OpenUnmix(33, 2, 16, layers).lstm
    assert lstm.dropout == (network.dropout if layers > 1 else 0)
    # Torch drops from what each layer hands on, but for the last one.
    assert len(masks) == (lstm.num_layers - 1 if lstm.dropout else 0)
    torch = openunmix.torch
    dropped = torch.nn.functional.dropout(torch.ones(16, 200, 100), network.dropout).numpy()
    for mask in masks:
        assert_finite(mask, shape=dropped.shape, dtype=np.float32)
        np.testing.assert_allclose(np.unique(mask), np.unique(dropped), rtol=1e-6)
        assert np.mean(mask > 0) == pytest.approx(np.mean(dropped > 0), abs=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("training", [True, False])
def test_full_size(openunmix, training):
    """The published architecture at the size it is trained with, in float32."""
    config = ModelConfig(nb_bins=2049, hidden_size=512, max_bin=1487)
    state = random_state(config, seed=5)
    x, d_y = inputs(config, 64, 16)
    # Of four million masks a few lie so close to 0 that rounding decides whether the ReLU lets them
    # through. One of them is 5e-4 of a gradient: they get none.
    network = trainable(openunmix, TargetWeights(config, state))
    passed = oracle(openunmix, network, x, d_y, training)["y"] > 0
    found = ours(config, state, x, d_y, engine=("numba", "float32"), training=training)["y"] > 0
    assert np.count_nonzero(found != passed) <= 10
    d_y[found != passed] = 0.0

    network = trainable(openunmix, TargetWeights(config, state))
    expected = oracle(openunmix, network, x, d_y, training)
    actual = ours(config, state, x, d_y, engine=("numba", "float32"), training=training)
    compare(actual, expected, "float32", training)
