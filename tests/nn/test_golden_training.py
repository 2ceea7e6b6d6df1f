"""Ten steps of training and one set of gradients, as PyTorch computed them once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.asserts import assert_close, relative_l2
from tolerances import TOL

from umx_np import optim
from umx_np.nn import TrainableNetwork, mse_loss

from .golden import CONFIG, GRADIENT_BATCH, OPTIONS, STEPS, batch, weights

FILE = Path(__file__).parents[1] / "golden" / "golden_training.npz"


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    with np.load(FILE) as stored:
        return dict(stored)


@pytest.fixture(params=["reference-float64", "numba-float64", "numba-float32"])
def network(request) -> TrainableNetwork:
    backend, dtype = request.param.split("-")
    if backend == "numba":
        pytest.importorskip("numba", reason="needs the extra 'train'")
    return TrainableNetwork(CONFIG, weights().state, backend=backend, dtype=dtype, dropout=0.0)


def test_gradients(network, golden):
    x, target = batch(GRADIENT_BATCH)
    y, cache = network.forward(x)
    _, d_y = mse_loss(y, target.astype(network.dtype))
    gradients = network.backward(d_y, cache)
    tolerance = TOL["gradients"][network.dtype.name]
    assert len(gradients) == sum(name.startswith("gradient/") for name in golden)
    for name, gradient in gradients.items():
        if name == "input_mean":  # 0 but for rounding
            assert np.abs(gradient).max() < tolerance.rtol * np.abs(gradients["fc1.weight"]).max()
        else:
            assert_close(gradient, golden[f"gradient/{name}"], tolerance, dtype=network.dtype)


@pytest.mark.parametrize("kind", OPTIONS)
def test_ten_steps(network, golden, kind):
    optimizer = getattr(optim, kind)(network.parameters, backend=network.backend, **OPTIONS[kind])
    losses = []
    for step in range(STEPS):
        x, target = batch(step)
        y, cache = network.forward(x)
        loss, d_y = mse_loss(y, target.astype(network.dtype))
        optimizer.step(network.backward(d_y, cache))
        losses.append(loss)
    precision = network.dtype.name
    rtol = TOL["ten_losses"][precision].rtol
    np.testing.assert_allclose(losses, golden[f"{kind}/losses"], rtol=rtol)
    assert losses[-1] < losses[0]
    for name, value in network.buffers.items():
        bound = TOL["ten_statistics"][precision].rtol
        assert relative_l2(value, golden[f"{kind}/{name}"]) <= bound, name
