"""Linear layer without bias: ``y = x W^T``."""

from __future__ import annotations

import numpy as np


def linear_forward(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Compute ``x W^T``.

    Parameters
    ----------
    x : ndarray [shape=(..., nb_inputs)]
        Input.
    weight : ndarray [shape=(nb_outputs, nb_inputs)]
        Weights, as PyTorch stores them.

    Returns
    -------
    ndarray [shape=(..., nb_outputs)]
    """
    return x @ weight.T


def linear_backward(
    d_y: np.ndarray, x: np.ndarray, weight: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of `linear_forward`.

    Parameters
    ----------
    d_y : ndarray [shape=(..., nb_outputs)]
        Gradient of the output.
    x, weight : ndarray
        What `linear_forward` was given.

    Returns
    -------
    d_x : ndarray [shape=(..., nb_inputs)]
    d_weight : ndarray [shape=(nb_outputs, nb_inputs)]
    """
    rows = d_y.reshape(-1, d_y.shape[-1])
    return d_y @ weight, rows.T @ x.reshape(-1, x.shape[-1])
