"""Both ends of the network: input and output scaling, and the mask.

All of them act on the last axis (bins) of arrays [shape=(nb_frames, nb_samples, nb_channels,
nb_bins)]; the parameters are shared by frames, samples and channels.
"""

from __future__ import annotations

import numpy as np


def input_scaling_forward(x: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """``(x + mean) * scale``: what is stored is minus the mean and one over the deviation."""
    return (x + mean) * scale


def input_scaling_backward(
    d_y: np.ndarray, x: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of x, mean and scale."""
    axes = tuple(range(d_y.ndim - 1))
    d_x = d_y * scale
    return d_x, d_x.sum(axis=axes), (d_y * (x + mean)).sum(axis=axes)


def output_scaling_forward(x: np.ndarray, scale: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """``x * scale + mean``."""
    return x * scale + mean


def output_scaling_backward(
    d_y: np.ndarray, x: np.ndarray, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of x, scale and mean."""
    axes = tuple(range(d_y.ndim - 1))
    return d_y * scale, (d_y * x).sum(axis=axes), d_y.sum(axis=axes)


def mask_forward(mask: np.ndarray, mix: np.ndarray) -> np.ndarray:
    """Apply a mask to the magnitudes of the mixture."""
    return mask * mix


def mask_backward(d_y: np.ndarray, mix: np.ndarray) -> np.ndarray:
    """Gradient of the mask. The mixture is a constant here: upstream detaches it."""
    return d_y * mix
