"""The normalisations of a network as factors and summands around its matrix products.

The weights of the products keep their exact values.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..config import ModelConfig
from ..layers.batchnorm import BATCHNORM_EPS
from ..weights.bundle import StateDict


class Folded(NamedTuple):
    """Normalisations of one network, float32.

    Attributes
    ----------
    shift, gain : ndarray [shape=(nb_channels * nb_input_bins,)]
        The input is ``(mags + shift) * gain``.
    scale, bias : dict of str to ndarray
        By batch norm: what follows its product is ``product * scale + bias``. Those of ``bn3``
        include the scaling of the output.
    """

    shift: np.ndarray
    gain: np.ndarray
    scale: dict[str, np.ndarray]
    bias: dict[str, np.ndarray]


def fold(config: ModelConfig, state: StateDict) -> Folded:
    """Return the normalisations of a network in evaluation mode."""
    channels = config.nb_channels
    scale, bias = {}, {}
    for name in ("bn1", "bn2", "bn3"):
        variance = state[f"{name}.running_var"].astype(np.float64) + BATCHNORM_EPS
        scale[name] = state[f"{name}.weight"] / np.sqrt(variance)
        bias[name] = state[f"{name}.bias"] - state[f"{name}.running_mean"] * scale[name]
    output_scale = np.tile(state["output_scale"].astype(np.float64), channels)
    scale["bn3"] = scale["bn3"] * output_scale
    bias["bn3"] = bias["bn3"] * output_scale + np.tile(state["output_mean"], channels)
    return Folded(
        np.tile(state["input_mean"].astype(np.float32), channels),
        np.tile(state["input_scale"].astype(np.float32), channels),
        {name: value.astype(np.float32) for name, value in scale.items()},
        {name: value.astype(np.float32) for name, value in bias.items()},
    )


def gate_bias(state: StateDict, suffix: str) -> np.ndarray:
    """Sum of both biases of one direction of a layer, float32 [shape=(4 * hidden,)]."""
    both = state["lstm.bias_ih" + suffix].astype(np.float64) + state["lstm.bias_hh" + suffix]
    return both.astype(np.float32)
