"""Checks of layers that tests share: `check_<layer>(module)` takes the module with the layer."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np

from umx_np.config import ModelConfig
from umx_np.layers import lstm
from umx_np.nn import TrainableNetwork
from umx_np.testing import gradcheck, random_state

PARTS = lstm.PARTS


def lstm_arguments(
    nb_frames: int = 4, nb_samples: int = 3, nb_inputs: int = 5, hidden: int = 2, *, seed: int = 0
) -> dict[str, np.ndarray]:
    """Input and weights of one direction, large enough for the gates to move."""
    rng = np.random.default_rng(seed)
    return {
        "x": rng.standard_normal((nb_frames, nb_samples, nb_inputs)),
        "weight_ih": rng.standard_normal((4 * hidden, nb_inputs)),
        "weight_hh": rng.standard_normal((4 * hidden, hidden)),
        "bias_ih": rng.standard_normal(4 * hidden),
        "bias_hh": rng.standard_normal(4 * hidden),
    }


def check_lstm(module: ModuleType = lstm, *, reverse: bool = False, **sizes: int) -> None:
    """One direction of one layer."""

    def function(x: np.ndarray, **weights: np.ndarray) -> tuple[np.ndarray, Any]:
        W_ih, W_hh, b_ih, b_hh = (weights[part] for part in PARTS)
        h, cache = module.lstm_forward(x, W_ih, W_hh, b_ih, b_hh, reverse=reverse)

        def backward(d_h: np.ndarray) -> dict[str, np.ndarray]:
            d_x, gradients = module.lstm_backward(d_h, cache, W_ih, W_hh, reverse=reverse)
            return {"x": d_x, **gradients}

        return h, backward

    gradcheck(function, lstm_arguments(**sizes))


def stack_arguments(
    nb_layers: int, nb_directions: int, nb_inputs: int = 6, hidden: int = 3
) -> dict[str, np.ndarray]:
    """Input and weights of several layers under PyTorch's names."""
    arguments: dict[str, np.ndarray] = {}
    for layer in range(nb_layers):
        for direction in range(nb_directions):
            inputs = nb_inputs if layer == 0 else nb_directions * hidden
            weights = lstm_arguments(4, 3, inputs, hidden, seed=10 * layer + direction)
            x = weights.pop("x")
            if not arguments:
                arguments["x"] = x
            suffix = lstm.suffix_of(layer, direction)
            arguments |= {f"lstm.{part}{suffix}": value for part, value in weights.items()}
    return arguments


def check_stack(
    module: ModuleType = lstm, *, nb_layers: int = 2, nb_directions: int = 2, dropout: bool = False
) -> None:
    """Several layers, with fixed dropout masks between them if asked for."""
    arguments = stack_arguments(nb_layers, nb_directions)
    rng = np.random.default_rng(5)
    shape = (4, 3, 3 * nb_directions)
    masks = [2.0 * rng.integers(0, 2, shape) for _ in range(nb_layers - 1)] if dropout else []

    def function(x: np.ndarray, **parameters: np.ndarray) -> tuple[np.ndarray, Any]:
        h, caches = module.lstm_stack_forward(
            x, parameters, nb_layers=nb_layers, nb_directions=nb_directions, masks=masks
        )

        def backward(d_h: np.ndarray) -> dict[str, np.ndarray]:
            d_x, gradients = module.lstm_stack_backward(d_h, caches, parameters, masks=masks)
            return {"x": d_x, **gradients}

        return h, backward

    gradcheck(function, arguments)


def check_network(
    config: ModelConfig,
    *,
    backend: str = "reference",
    training: bool = True,
    nb_frames: int = 5,
    nb_samples: int = 2,
    dropout: float = 0.4,
) -> None:
    """Every parameter of a whole network, and its input."""
    state = random_state(config, seed=3)
    rng = np.random.default_rng(4)
    shape = (nb_frames, nb_samples, config.nb_channels, config.nb_bins)
    mix = rng.uniform(0.5, 3.0, shape)
    network = TrainableNetwork(config, state, backend=backend, dtype=np.float64, dropout=dropout)
    arguments = {name: value.copy() for name, value in network.parameters.items()}

    def function(input: np.ndarray, **parameters: np.ndarray) -> tuple[np.ndarray, Any]:
        for name, value in parameters.items():
            network.parameters[name][...] = value
        # The same generator draws the same dropout masks in every call.
        y, cache = network.forward(input, training=training, rng=np.random.default_rng(6))
        # The mixture that the mask is applied to counts as a constant.
        y = y / input * mix
        return y, lambda d_y: network.backward(d_y, cache, input_gradient=True)

    gradcheck(function, {**arguments, "input": mix}, directions=1)
