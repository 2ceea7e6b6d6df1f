"""The losses beside their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from umx_np.errors import ShapeError
from umx_np.nn import log_mse_loss, relative_error_db


@pytest.fixture
def batch() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    y, target, mixture = rng.random((3, 6, 4, 2, 9)).astype(np.float32)
    return y, target, mixture


def test_log_mse_loss_is_the_mean_over_excerpts(batch):
    y, target, mixture = batch
    expected = []
    for k in range(y.shape[1]):
        error = np.mean((y[:, k].astype(float) - target[:, k]) ** 2)
        energy = np.mean(mixture[:, k].astype(float) ** 2)
        expected.append(10 * np.log10(error / energy + 0.01))
    loss, _ = log_mse_loss(y, target, mixture)
    assert loss == pytest.approx(np.mean(expected), rel=1e-6)


@pytest.mark.parametrize("amplitude", [1e-6, 1e5])
def test_log_mse_loss_does_not_depend_on_the_level(batch, amplitude):
    loss, gradient = log_mse_loss(*batch)
    scaled, scaled_gradient = log_mse_loss(*(array * np.float32(amplitude) for array in batch))
    assert scaled == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(scaled_gradient * amplitude, gradient, rtol=1e-4, atol=1e-9)


def test_log_mse_loss_levels_off(batch):
    _, target, mixture = batch
    loss, gradient = log_mse_loss(target, target, mixture)
    assert loss == pytest.approx(-20.0)
    assert not gradient.any()


def test_log_mse_loss_in_silence(batch):
    y = batch[0]
    silence = np.zeros_like(y)
    loss, gradient = log_mse_loss(y, silence, silence)
    assert loss == pytest.approx(-20.0)
    assert not gradient.any()


@pytest.mark.parametrize("threads", [1, 3])
def test_log_mse_loss_in_place(batch, threads):
    y, target, mixture = batch
    for array in batch:
        array.flags.writeable = False
    loss, gradient = log_mse_loss(y, target, mixture, threads=1)
    memory = y.copy()
    again, out = log_mse_loss(memory, target, mixture, threads=threads, out=memory)
    assert out is memory
    assert again == loss
    np.testing.assert_array_equal(out, gradient)


def test_log_mse_loss_refuses_other_shapes(batch):
    y, target, mixture = batch
    with pytest.raises(ShapeError, match="mixture has"):
        log_mse_loss(y, target, mixture[:, :1])
    with pytest.raises(ShapeError, match="out has"):
        log_mse_loss(y, target, mixture, out=np.empty(3, np.float32))


def test_nan_stays_nan(batch):
    y, target, mixture = batch
    y = y.copy()
    y[0, 0, 0, 0] = np.nan
    assert np.isnan(log_mse_loss(y, target, mixture)[0])


def test_relative_error():
    values = relative_error_db(np.array([0.0, 0.99, 5.0]), np.array([1.0, 1.0, 0.0]))
    np.testing.assert_allclose(values, [-20.0, 0.0, -20.0])
