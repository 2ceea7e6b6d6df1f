"""Every layer against differences of its forward pass; no other implementation is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from umx_np.layers import activation, batchnorm, concatenation, dropout, linear, scaling
from umx_np.nn import log_mse_loss, mse_loss
from umx_np.testing import gradcheck

from .checks import check_lstm, check_stack

RNG = np.random.default_rng(1)
X = RNG.standard_normal((4, 3, 2, 5))


def test_linear():
    def function(x: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, Any]:
        def backward(d_y: np.ndarray) -> dict[str, np.ndarray]:
            d_x, d_weight = linear.linear_backward(d_y, x, weight)
            return {"x": d_x, "weight": d_weight}

        return linear.linear_forward(x, weight), backward

    gradcheck(function, {"x": X, "weight": RNG.standard_normal((7, 5))})


@pytest.mark.parametrize("training", [True, False])
def test_batchnorm(training):
    mean, variance = RNG.standard_normal(5), RNG.uniform(0.5, 2.0, 5)

    def function(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, Any]:
        statistics = batchnorm.batch_statistics(x)[:2] if training else (mean, variance)
        y, cache = batchnorm.batchnorm_forward(x, weight, bias, *statistics, training=training)

        def backward(d_y: np.ndarray) -> dict[str, np.ndarray]:
            gradients = batchnorm.batchnorm_backward(d_y, cache)
            return dict(zip(("x", "weight", "bias"), gradients, strict=True))

        return y, backward

    gradcheck(function, {"x": X, "weight": 1 + RNG.random(5), "bias": RNG.random(5)})


@pytest.mark.parametrize("name", ["tanh", "relu"])
def test_activation(name):
    forward = getattr(activation, f"{name}_forward")
    backward = getattr(activation, f"{name}_backward")

    def function(x: np.ndarray) -> tuple[np.ndarray, Any]:
        y = forward(x)
        return y, lambda d_y: {"x": backward(d_y, y)}

    gradcheck(function, {"x": X})


def test_input_scaling():
    def function(x: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, Any]:
        def backward(d_y: np.ndarray) -> dict[str, np.ndarray]:
            gradients = scaling.input_scaling_backward(d_y, x, mean, scale)
            return dict(zip(("x", "mean", "scale"), gradients, strict=True))

        return scaling.input_scaling_forward(x, mean, scale), backward

    gradcheck(function, {"x": X, "mean": RNG.random(5), "scale": RNG.random(5)})


def test_output_scaling():
    def function(x: np.ndarray, scale: np.ndarray, mean: np.ndarray) -> tuple[np.ndarray, Any]:
        def backward(d_y: np.ndarray) -> dict[str, np.ndarray]:
            gradients = scaling.output_scaling_backward(d_y, x, scale)
            return dict(zip(("x", "scale", "mean"), gradients, strict=True))

        return scaling.output_scaling_forward(x, scale, mean), backward

    gradcheck(function, {"x": X, "mean": RNG.random(5), "scale": RNG.random(5)})


def test_mask():
    mix = RNG.random(X.shape)

    def function(mask: np.ndarray) -> tuple[np.ndarray, Any]:
        return scaling.mask_forward(mask, mix), lambda d_y: {
            "mask": scaling.mask_backward(d_y, mix)
        }

    gradcheck(function, {"mask": X})


def test_dropout():
    mask = dropout.dropout_mask(np.random.default_rng(0), 0.4, X.shape, np.dtype(np.float64))

    def function(x: np.ndarray) -> tuple[np.ndarray, Any]:
        return dropout.dropout_forward(x, mask), lambda d_y: {
            "x": dropout.dropout_backward(d_y, mask)
        }

    gradcheck(function, {"x": X})


def test_concatenation():
    def function(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, Any]:
        def backward(d_y: np.ndarray) -> dict[str, np.ndarray]:
            parts = concatenation.concatenate_backward(d_y, [2, 5])
            return dict(zip(("a", "b"), parts, strict=True))

        return concatenation.concatenate_forward([a, b]), backward

    gradcheck(function, {"a": X[..., :2], "b": X})


def test_mse_loss():
    target = RNG.random(X.shape)

    def function(y: np.ndarray) -> tuple[float, Any]:
        loss, gradient = mse_loss(y, target)
        return loss, lambda d_loss: {"y": d_loss * gradient}

    gradcheck(function, {"y": X})


def test_log_mse_loss():
    target, mixture = RNG.random((2, *X.shape))
    mixture[:, 1] = 0.0  # silence has an error, but no gradient

    def function(y: np.ndarray) -> tuple[float, Any]:
        loss, gradient = log_mse_loss(y, target, mixture)
        return loss, lambda d_loss: {"y": d_loss * gradient}

    gradcheck(function, {"y": X})


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("nb_frames", [1, 2, 6])
@pytest.mark.parametrize("nb_samples", [1, 5])
def test_lstm(reverse, nb_frames, nb_samples):
    check_lstm(reverse=reverse, nb_frames=nb_frames, nb_samples=nb_samples, hidden=3)


@pytest.mark.parametrize("nb_layers", [1, 2, 3])
@pytest.mark.parametrize("nb_directions", [1, 2])
@pytest.mark.parametrize("dropout", [False, True])
def test_lstm_stack(nb_layers, nb_directions, dropout):
    check_stack(nb_layers=nb_layers, nb_directions=nb_directions, dropout=dropout)
