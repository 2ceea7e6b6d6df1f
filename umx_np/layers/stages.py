"""The network composed of the layers, in three stages around the LSTM, where a track can be cut.

Training and evaluation differ in the statistics that the batch norms take: a stage gets a function
that normalises, ``norm(z, name)``. `p` are the weights under PyTorch's names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .activation import relu_forward, tanh_forward
from .batchnorm import batchnorm_forward
from .concatenation import concatenate_forward
from .linear import linear_forward
from .scaling import input_scaling_forward, output_scaling_forward

Arrays = Mapping[str, np.ndarray]
Norm = Callable[[np.ndarray, str], np.ndarray]


def running_norm(state: Arrays) -> Norm:
    """Return batch normalisation with the running statistics (evaluation mode)."""

    def norm(z: np.ndarray, name: str) -> np.ndarray:
        weights = (state[f"{name}.{part}"] for part in ("weight", "bias"))
        statistics = (state[f"{name}.{part}"] for part in ("running_mean", "running_var"))
        return batchnorm_forward(z, *weights, *statistics, training=False)[0]

    return norm


def encode(mags: np.ndarray, p: Arrays, norm: Norm) -> tuple[np.ndarray, np.ndarray]:
    """Scale the input; fc1, bn1 and tanh.

    Parameters
    ----------
    mags : ndarray [shape=(..., nb_channels, nb_input_bins)]
        Magnitudes of the bins that the network reads.

    Returns
    -------
    scaled : ndarray [shape=(..., nb_channels * nb_input_bins)]
        Input of fc1; channel-major features.
    encoded : ndarray [shape=(..., hidden_size)]
    """
    scaled = input_scaling_forward(mags, p["input_mean"], p["input_scale"])
    scaled = scaled.reshape(*mags.shape[:-2], -1)
    return scaled, tanh_forward(norm(linear_forward(scaled, p["fc1.weight"]), "bn1"))


def combine(parts: Sequence[np.ndarray], p: Arrays, norm: Norm) -> tuple[np.ndarray, np.ndarray]:
    """Join the skip connection and the LSTM's outputs; fc2, bn2 and ReLU.

    Returns
    -------
    joined : ndarray [shape=(..., nb_features)]
        Input of fc2.
    combined : ndarray [shape=(..., hidden_size)]
    """
    joined = concatenate_forward(parts)
    return joined, relu_forward(norm(linear_forward(joined, p["fc2.weight"]), "bn2"))


def decode(
    combined: np.ndarray, shape: tuple[int, ...], p: Arrays, norm: Norm
) -> tuple[np.ndarray, np.ndarray]:
    """fc3, bn3, output scaling and ReLU.

    Parameters
    ----------
    combined : ndarray [shape=(..., hidden_size)]
        From `combine`.
    shape : tuple of int
        ``(..., nb_channels, nb_bins)``.

    Returns
    -------
    normalised : ndarray [shape=shape]
        Output of bn3.
    mask : ndarray [shape=shape]
    """
    normalised = norm(linear_forward(combined, p["fc3.weight"]), "bn3").reshape(shape)
    scaled = output_scaling_forward(normalised, p["output_scale"], p["output_mean"])
    return normalised, relu_forward(scaled)
