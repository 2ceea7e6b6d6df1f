"""The resident recurrent kernels in NumPy: same owners, same order of sums, explicit buffers.

Written from the comments of ``sources/scan_tile.cuh`` and not from `Tiling.pack`, so that the two
check each other.
"""

from __future__ import annotations

import numpy as np

from umx_np.cuda.tiling import WARP, Tiling

LANES = np.arange(WARP)


def owners(tiling: Tiling) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of every weight of every thread, as the kernel counts them.

    Returns
    -------
    ndarray [shape=(blocks, warps, slots, 32, vector)], int
        Rows, counted ``gate * units + unit``, and columns; filling included.
    """
    shape = (tiling.blocks, tiling.warps, tiling.slots, WARP, tiling.vector)
    block, warp, slot, lane, k = np.indices(shape, sparse=True)
    group, row_of_warp = slot // tiling.rows, slot % tiling.rows
    unit_of_warp, gate = row_of_warp // 4, row_of_warp % 4
    unit = (block * tiling.warps + warp) * tiling.units_per_warp + unit_of_warp
    column = (group * WARP + lane) * tiling.vector + k
    return np.broadcast_to(gate * tiling.units + unit, shape), np.broadcast_to(column, shape)


def product(tiling: Tiling, packed: np.ndarray, h: np.ndarray) -> np.ndarray:
    """Sums of the rows, as each lane has them after the shuffles.

    Parameters
    ----------
    tiling : Tiling
    packed : ndarray [shape=(blocks, warps, slots, 32, vector)]
    h : ndarray [shape=(blocks, h_length)]
        What each block has in the half that is read.

    Returns
    -------
    ndarray [shape=(blocks, warps, 32)]
        Lane l has row ``l // (32 / rows)`` of its warp.
    """
    rows = tiling.rows
    sums = np.zeros((tiling.blocks, tiling.warps, rows, WARP), packed.dtype)
    for group in range(tiling.groups):
        for row in range(rows):
            for k in range(tiling.vector):
                column = (group * WARP + LANES) * tiling.vector + k
                weight = packed[:, :, group * rows + row, :, k]
                # One rounding, as in a fused product and sum.
                wide = weight.astype(np.float64) * h[:, None, column] + sums[:, :, row]
                sums[:, :, row] = wide.astype(packed.dtype)
    distance = WARP // 2
    while rows > 1:
        rows //= 2
        upper = (LANES & distance) > 0
        keep = np.where(upper, sums[:, :, rows:], sums[:, :, :rows])
        give = np.where(upper, sums[:, :, :rows], sums[:, :, rows:])
        sums = keep + give[..., LANES ^ distance]
        distance //= 2
    total = sums[:, :, 0]
    while distance >= 1:
        total = total + total[..., LANES ^ distance]
        distance //= 2
    return total


def scan(
    tiling: Tiling,
    packed: np.ndarray,
    gates: np.ndarray,
    h: np.ndarray,
    c: np.ndarray,
    *,
    reverse: bool,
) -> np.ndarray:
    """One chunk of one sequence.

    Parameters
    ----------
    tiling : Tiling
    packed : ndarray [shape=(blocks, warps, slots, 32, vector)]
    gates : ndarray [shape=(nb_frames, 4 * hidden)]
    h, c : ndarray [shape=(hidden,)]
        Updated in place.
    reverse : bool

    Returns
    -------
    ndarray [shape=(nb_frames, hidden)]
    """
    hidden, dtype = tiling.hidden, packed.dtype
    lanes_per_row, lanes_per_unit = WARP // tiling.rows, WARP // tiling.units_per_warp
    first_unit = np.arange(tiling.blocks * tiling.warps) * tiling.units_per_warp
    unit = first_unit.reshape(tiling.blocks, tiling.warps, 1) + LANES // lanes_per_unit
    gate = LANES // lanes_per_row % 4
    real = unit < hidden
    at = np.where(real, gate * hidden + unit, 0)
    leader = LANES // lanes_per_unit * lanes_per_unit

    halves = np.full((2, tiling.blocks, tiling.h_length), np.nan, dtype)
    halves[0] = halves[1] = 0
    halves[0, :, :hidden] = h
    cell = np.where(real, c[np.where(real, unit, 0)], 0).astype(dtype)
    out = np.full((len(gates), hidden), np.nan, dtype)
    speaks = real & (lanes_per_unit * (LANES // lanes_per_unit) == LANES)
    for frame in range(len(gates)):
        t = len(gates) - 1 - frame if reverse else frame
        total = np.where(real, gates[t, at], 0) + product(tiling, packed, halves[frame % 2])
        with np.errstate(over="ignore"):
            logistic = 1 / (1 + np.exp(-total))
        active = np.where(gate == 2, np.tanh(total), logistic).astype(dtype)
        i, f, g, o = (active[..., leader + k * lanes_per_row] for k in range(4))
        cell = f * cell + i * g
        new = (o * np.tanh(cell)).astype(dtype)
        # Whoever owns a unit writes it to every block, into the half that nobody reads.
        halves[1 - frame % 2][:, unit.ravel()] = new.ravel()
        out[t, unit[speaks]] = new[speaks]
    if len(gates):
        h[unit[speaks]], c[unit[speaks]] = new[speaks], cell[speaks]
    return out
