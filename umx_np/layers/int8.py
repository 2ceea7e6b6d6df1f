"""Products of eight bits in plain NumPy: what `precision="int8"` computes, to the bit.

Weights are int8 with a scale for each row. Activations are rounded to int8 with a scale for each
row and block of columns, the state of an LSTM with a fixed one. Sums of products are whole numbers.
"""

from __future__ import annotations

import numpy as np

from .activation import sigmoid

# Columns that share a scale: a sum of so many products stays below 2**24, which float32 holds.
BLOCK = 512
LARGEST = np.float32(127)
# A smaller peak counts as silence: its scale would not be a normal number.
SMALLEST_PEAK = np.float32(2.0**-118)


def quantise(a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Round the rows of a matrix, block by block, to whole numbers of at most 127.

    Parameters
    ----------
    a : ndarray [shape=(m, k)], float32
        Activations.

    Returns
    -------
    q : ndarray [shape=(m, k)], int8
        Their integers.
    scale : ndarray [shape=(m, ceil(k / 512))], float32
        What they are multiplied by; NaN where a row is not finite.
    """
    starts = range(0, a.shape[1], BLOCK)
    q = np.empty(a.shape, np.int8)
    scale = np.empty((len(a), len(starts)), np.float32)
    for b, start in enumerate(starts):
        x = a[:, start : start + BLOCK]
        peak = np.abs(x).max(axis=1)
        finite = np.isfinite(peak)
        some = finite & (peak >= SMALLEST_PEAK)
        inverse = np.divide(LARGEST, peak, out=np.zeros_like(peak), where=some)
        steps = np.rint(np.where(finite[:, None], x, 0) * inverse[:, None])
        q[:, start : start + BLOCK] = steps
        scale[:, b] = np.where(finite, np.where(some, peak, 0) / LARGEST, np.nan)
    return q, scale


def restore(q: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return what `quantise` rounded, float32 [shape=(m, k)]."""
    a = q.astype(np.float32)
    for b in range(scale.shape[1]):
        a[:, b * BLOCK : (b + 1) * BLOCK] *= scale[:, b, None]
    return a


def linear_int8(a: np.ndarray, weight: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Multiply activations by a matrix of int8.

    Parameters
    ----------
    a : ndarray [shape=(m, k)], float32
        Activations, which are rounded here.
    weight : ndarray [shape=(n, k)], int8
        Weights.
    scale : ndarray [shape=(n,)], float32
        What each row of the weights is multiplied by.

    Returns
    -------
    ndarray [shape=(m, n)], float32
        ``a weight^T``, but for what was rounded.
    """
    q, a_scale = quantise(a)
    out = np.zeros((len(a), len(weight)), np.float32)
    for b in range(a_scale.shape[1]):
        block = slice(b * BLOCK, (b + 1) * BLOCK)
        sums = q[:, block].astype(np.int64) @ weight[:, block].astype(np.int64).T
        out += sums.astype(np.float32) * a_scale[:, b, None] * scale
    return out


def lstm_scan_int8(
    gates: np.ndarray,
    weight_hh: np.ndarray,
    scale: np.ndarray,
    h: np.ndarray,
    c: np.ndarray,
    *,
    reverse: bool = False,
) -> np.ndarray:
    """Scan one direction of a layer with recurrent weights of int8.

    Parameters
    ----------
    gates : ndarray [shape=(nb_frames, 4 * hidden)], float32
        Input projections with both biases, gates in PyTorch's order i, f, g, o.
    weight_hh : ndarray [shape=(4 * hidden, hidden)], int8
        Recurrent weights.
    scale : ndarray [shape=(4 * hidden,)], float32
        What each row of them is multiplied by.
    h, c : ndarray [shape=(hidden,)], float32
        Hidden and cell state before the first frame; replaced by those after the last one.
    reverse : bool
        Walk the frames from last to first.

    Returns
    -------
    ndarray [shape=(nb_frames, hidden)], float32
    """
    hidden, weight = len(h), weight_hh.astype(np.int64)
    out = np.empty((len(gates), hidden), np.float32)
    order = range(len(gates))
    for t in reversed(order) if reverse else order:
        q = np.rint(np.clip(h * LARGEST, -LARGEST, LARGEST)).astype(np.int64)
        a = gates[t] + (weight @ q).astype(np.float32) * (scale / LARGEST)
        i, f, g, o = a.reshape(4, hidden)
        c[:] = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h[:] = sigmoid(o) * np.tanh(c)
        out[t] = h
    return out
