"""The distortion filters of BSS Eval: what filtering the true sources can explain of estimates.

    R = nb_sources * nb_channels   signals, the channels of a source side by side
    L = nb_taps

Sources that have hardly any energy at some frequencies, as lossy files above 16 kHz, do not
determine their filters there: the normal equations are singular, and their solution is noise. That
is reported; the remedy, rounding the sources to 16 bits, is up to who has them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Transform by which correlations are computed; a sum over blocks of this size less the taps.
CORRELATION_FFT = 8192
# Complex numbers of a batch of blocks or frames: 32 MiB.
BATCH = 1 << 21

# Condition number from which on scores are noise; what determines them to five decimals has less
# than 1e10.
_ILL_CONDITIONED = 1e12


class Filters(NamedTuple):
    """Filters that `distortion_filters` finds.

    Attributes
    ----------
    own : ndarray [shape=(nb_estimates, nb_channels, nb_taps, nb_channels)]
        From the channels of a source to those of its estimate.
    common : ndarray [shape=(R, nb_taps, nb_estimates * nb_channels)]
        From the channels of all sources to those of all estimates.
    own_in_doubt : ndarray [shape=(nb_estimates,)], bool
        Whether a source does not determine its filters.
    common_in_doubt : bool
        Whether the sources do not determine theirs.
    """

    own: np.ndarray
    common: np.ndarray
    own_in_doubt: np.ndarray
    common_in_doubt: bool


def distortion_filters(
    references: list[np.ndarray], estimates: list[np.ndarray], channels: list[slice], nb_taps: int
) -> Filters:
    """Filters that bring the sources closest to the estimates.

    Parameters
    ----------
    references, estimates : list of ndarray
        As for `bss_eval`, none of them silent throughout.
    channels : list of slice
        Of each estimate, where its source is among the channels of all sources.
    nb_taps : int
        Length of the filters.

    Returns
    -------
    Filters
    """
    nb_channels = len(references[0])
    correlations = _correlations(references, [*references, *estimates], nb_taps)
    nb_signals = len(references) * nb_channels
    among, across = correlations[..., :nb_signals], correlations[..., nb_signals:]
    signals = [channel for reference in references for channel in reference]

    common = np.zeros((nb_signals, nb_taps, across.shape[2]))
    rows = _distinct(signals, among[0])
    common[rows], in_doubt = _solve(among[:, rows][:, :, rows], across[:, rows])
    if len(references) == 1:
        return Filters(common[None], common, np.array([in_doubt]), in_doubt)
    own = np.zeros((len(estimates), nb_channels, nb_taps, nb_channels))
    own_in_doubt = np.zeros(len(estimates), bool)
    for i, k in enumerate(channels):
        columns = slice(i * nb_channels, (i + 1) * nb_channels)
        rows = _distinct(signals[k], among[0, k, k])
        inner, outer = among[:, k, k], across[:, k, columns]
        own[i, rows], own_in_doubt[i] = _solve(inner[:, rows][:, :, rows], outer[:, rows])
    return Filters(own, common, own_in_doubt, in_doubt)


def _distinct(signals: list[np.ndarray], products: np.ndarray) -> list[int]:
    """Numbers of the signals that are neither silent nor an earlier one at some level.

    The others can explain nothing more, and would make the normal equations singular. They are
    common: the channels of a mono stem in stereo. `products` are the inner products of the
    signals, which tell most apart without looking at the samples.
    """
    found: list[int] = []
    for p, signal in enumerate(signals):
        if np.any(signal) and not any(
            products[p, q] ** 2 >= (1.0 - 1e-9) * products[p, p] * products[q, q]
            and _is_scaled(signals[q], signal, products[p, q] / products[q, q])
            for q in found
        ):
            found.append(p)
    return found


def _is_scaled(signal: np.ndarray, other: np.ndarray, factor: float) -> bool:
    """Whether a signal times a factor is the other, but for the rounding of 32-bit floats."""
    difference = factor * signal.astype(np.float64) - other
    return bool(np.all(np.abs(difference) <= 2.0**-23 * np.abs(other)))


def _correlations(
    signals: Sequence[np.ndarray], others: Sequence[np.ndarray], nb_lags: int
) -> np.ndarray:
    """Correlate all channels of `signals` with all channels of `others`.

    Returns
    -------
    ndarray [shape=(nb_lags, R, channels of all others)]
        ``sum(x[n] * y[n + lag] for n)``, lags from 0.
    """
    n_fft = max(CORRELATION_FFT, quick_length(4 * nb_lags))
    block = n_fft - nb_lags + 1
    nb_timesteps = signals[0].shape[1]
    nb_blocks = -(-nb_timesteps // block)
    rows, columns = sum(map(len, signals)), sum(map(len, others))
    cross = np.zeros((n_fft // 2 + 1, rows, columns), np.complex128)
    size = max(BATCH // (len(cross) * (rows + columns)), 1)
    for first in range(0, nb_blocks, size):
        starts = [k * block for k in range(first, min(first + size, nb_blocks))]
        x = _block_spectra(signals, starts, block, n_fft)
        # Longer by the lags, so that a block meets what follows it and nothing wraps around.
        y = _block_spectra(others, starts, n_fft, n_fft)
        cross += np.matmul(x.transpose(0, 2, 1).conj(), y)
    return np.fft.irfft(cross, n_fft, axis=0)[:nb_lags]


def _block_spectra(
    signals: Sequence[np.ndarray], starts: Sequence[int], length: int, n_fft: int
) -> np.ndarray:
    """Transform pieces of all channels to [shape=(nb_bins, nb_blocks, channels)]."""
    pieces = np.zeros((sum(map(len, signals)), len(starts), length))
    row = 0
    for signal in signals:
        for k, start in enumerate(starts):
            piece = signal[:, start : start + length]
            pieces[row : row + len(signal), k, : piece.shape[1]] = piece
        row += len(signal)
    return np.ascontiguousarray(np.fft.rfft(pieces, n_fft, axis=-1).transpose(2, 1, 0))


def _solve(among: np.ndarray, across: np.ndarray) -> tuple[np.ndarray, bool]:
    """Solve the normal equations of least squares.

    Parameters
    ----------
    among : ndarray [shape=(nb_taps, rows, rows)]
        Correlations of the signals to filter.
    across : ndarray [shape=(nb_taps, rows, columns)]
        Their correlations with the signals to be matched.

    Returns
    -------
    filters : ndarray [shape=(rows, nb_taps, columns)]
    in_doubt : bool
        Whether the signals do not determine them.
    """
    nb_taps, rows, columns = across.shape
    # Lags from 1 - nb_taps: exchanging the signals changes the sign of the lag.
    lags = np.concatenate([among[:0:-1].transpose(0, 2, 1), among])
    taps = np.arange(nb_taps)
    # matrix[p, a, q, b] = sum(p[n - a] * q[n - b] for n): the correlation at the lag a - b.
    matrix = lags[taps[:, None] - taps[None, :] + nb_taps - 1]
    matrix = matrix.transpose(2, 0, 3, 1).reshape(rows * nb_taps, rows * nb_taps)
    target = across.transpose(1, 0, 2).reshape(rows * nb_taps, columns)
    # One column more: how much an arbitrary one grows tells the size of the inverse.
    probe = np.random.default_rng(0).choice([-1.0, 1.0], (len(target), 1))
    # museval's; with samples of the usual level it does nothing.
    ridge = np.finfo(np.float64).eps
    while True:
        matrix[np.diag_indices_from(matrix)] += ridge
        try:
            solution = np.linalg.solve(matrix, np.hstack([target, probe]))
            break
        except np.linalg.LinAlgError:
            # Some signals are filtered copies of others. As little as the rounding of the matrix
            # has done already chooses one of the many solutions, all of which explain the same.
            ridge = max(10.0 * ridge, np.finfo(np.float64).eps * matrix.diagonal().max())
    size_of_inverse = np.sqrt(np.mean(np.square(solution[:, -1])))
    condition = np.abs(matrix).sum(axis=0).max() * size_of_inverse
    return solution[:, :-1].reshape(rows, nb_taps, columns), bool(condition > _ILL_CONDITIONED)


def quick_length(length: int) -> int:
    """Smallest number of at least `length` without prime factors above 5.

    Examples
    --------
    >>> quick_length(44611)
    45000
    """
    best = 1 << math.ceil(math.log2(length))
    five = 1
    while five < best:
        three = five
        while three < best:
            # Powers of two that take it just to the length.
            two = max(math.ceil(math.log2(length / three)), 0)
            if three << two >= length:
                best = min(best, three << two)
            three *= 3
        five *= 5
    return best
