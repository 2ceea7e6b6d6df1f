"""Batch normalisation of features, over everything but the last axis.

Notation: n rows, x̂ the normalised input, s = 1/√(var + eps).

Training mode normalises with the mean and the *biased* variance of the batch, so every row depends
on every other one. Evaluation mode normalises with the running statistics, which are constants.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..errors import ShapeError

BATCHNORM_EPS = 1e-5
MOMENTUM = 0.1


class BatchStatistics(NamedTuple):
    """Mean and biased variance [shape=(nb_features,)] of a batch of `rows` rows."""

    mean: np.ndarray
    variance: np.ndarray
    rows: int


class BatchNormCache(NamedTuple):
    """Values that `batchnorm_backward` needs."""

    x_hat: np.ndarray
    inverse_std: np.ndarray
    weight: np.ndarray
    training: bool


def batch_statistics(x: np.ndarray) -> BatchStatistics:
    """Mean and biased variance of each feature of ``x`` [shape=(..., nb_features)]."""
    rows = x.reshape(-1, x.shape[-1])
    check_count(len(rows))
    return BatchStatistics(rows.mean(axis=0), rows.var(axis=0), len(rows))


def check_count(count: int) -> None:
    """Raise `ShapeError` for a batch of one value, whose variance says nothing."""
    if count < 2:
        raise ShapeError(
            f"nb_frames * nb_samples = {count}: batch normalisation in training mode needs more "
            "than one value of each feature"
        )


def batchnorm_forward(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    variance: np.ndarray,
    *,
    training: bool,
) -> tuple[np.ndarray, BatchNormCache]:
    """Normalise, scale and shift.

    Parameters
    ----------
    x : ndarray [shape=(..., nb_features)]
        Input.
    weight, bias : ndarray [shape=(nb_features,)]
        Scale and shift.
    mean, variance : ndarray [shape=(nb_features,)]
        From `batch_statistics` of the same `x` in training, the running statistics otherwise.
    training : bool
        Whether `mean` and `variance` depend on `x`; only the backward pass differs.

    Returns
    -------
    y : ndarray [shape as `x`]
    cache : BatchNormCache
    """
    std = np.sqrt(variance + x.dtype.type(BATCHNORM_EPS))
    x_hat = (x - mean) / std
    return x_hat * weight + bias, BatchNormCache(x_hat, 1.0 / std, weight, training)


def batchnorm_backward(
    d_y: np.ndarray, cache: BatchNormCache
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of `batchnorm_forward`.

    Returns
    -------
    d_x : ndarray [shape=(..., nb_features)]
    d_weight, d_bias : ndarray [shape=(nb_features,)]

    Notes
    -----
    With g = d_y · weight, in training

        d_x = s (g − mean(g) − x̂ mean(g x̂)),

    because the mean and the variance of the batch move with each of its rows. In evaluation mode
    they do not, and d_x = s g.
    """
    axes = tuple(range(d_y.ndim - 1))
    d_weight = (d_y * cache.x_hat).sum(axis=axes)
    d_bias = d_y.sum(axis=axes)
    g = d_y * cache.weight
    if cache.training:
        g = g - g.mean(axis=axes) - cache.x_hat * (g * cache.x_hat).mean(axis=axes)
    return g * cache.inverse_std, d_weight, d_bias


def update_running_statistics(
    running_mean: np.ndarray, running_variance: np.ndarray, batch: BatchStatistics
) -> None:
    """Move the running statistics a tenth of the way to those of a batch, in place.

    The running variance follows the *unbiased* variance, as PyTorch's does.
    """
    unbiased = batch.variance * (batch.rows / (batch.rows - 1))
    running_mean += MOMENTUM * (batch.mean - running_mean)
    running_variance += MOMENTUM * (unbiased - running_variance)
