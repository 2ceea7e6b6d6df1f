"""The recurrent part of an LSTM over a batch, forward and backward.

Layout: everything is feature-major, ``(features, T, B)`` as flat arrays, so that the B samples of
one frame and one feature lie side by side and fill the lanes of a vector. `LANES` of them are
computed together by one task: a task is one direction of one layer for `LANES` samples, and tasks
share nothing, so that no step waits for another core.

The products with W_hh read it once per step in the order it is packed in, while the tile of sums
stays in registers and the state of all units in the first-level cache; the same weights serve all
lanes. Gates begin as the input projection with both biases, become activations in the forward pass
and gradients in the backward pass, all in the same memory.

a) pack_forward   W_hh [shape=(4H, H)] -> (tiles, H, rows): `rows` = 4 gates x `rows` / 4 units
b) pack_backward  W_hh^T              -> (tiles, 4H, rows): `rows` units
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numba
import numpy as np

from .compiling import build_number, compiled, once, vector_registers
from .lanes import load, prefetch, sigmoid, store, tanh
from .tiles import tile_product


class TileShape(NamedTuple):
    """Rows of weights and samples that one tile of sums covers."""

    rows: int
    lanes: int


def tile_shape(nb_samples: int, nb_directions: int, threads: int, dtype: np.dtype) -> TileShape:
    """Choose the tile for a batch.

    A tile with one vector in each row takes half of the registers of a processor. Shorter vectors
    waste less on samples that are not there, and make more tasks where threads would be idle.
    """
    registers, nb_bytes = vector_registers()
    lanes = max(nb_bytes // np.dtype(dtype).itemsize, 4)
    while lanes > 4 and (
        nb_samples <= lanes // 2
        or (nb_directions * -(-nb_samples // lanes) < threads and nb_samples > lanes // 2)
    ):
        lanes //= 2
    return TileShape(registers // 2, lanes)


def padded_samples(nb_samples: int, lanes: int) -> int:
    """Samples rounded up to whole vectors."""
    return -(-nb_samples // lanes) * lanes


def pack_forward(W_hh: np.ndarray, rows: int) -> np.ndarray:
    """Reorder W_hh [shape=(4H, H)] to (tiles, H, 4 gates, rows / 4 units), zero padded, flat."""
    hidden, units = W_hh.shape[1], rows // 4
    tiles = -(-hidden // units)
    gates = np.zeros((4, tiles * units, hidden), W_hh.dtype)
    gates[:, :hidden] = W_hh.reshape(4, hidden, hidden)
    packed = gates.reshape(4, tiles, units, hidden).transpose(1, 3, 0, 2)
    return np.ascontiguousarray(packed).reshape(-1)


def pack_backward(W_hh: np.ndarray, rows: int) -> np.ndarray:
    """Reorder the transpose of W_hh [shape=(4H, H)] to (tiles, 4H, rows), zero padded, flat."""
    hidden = W_hh.shape[1]
    tiles = -(-hidden // rows)
    columns = np.zeros((len(W_hh), tiles * rows), W_hh.dtype)
    columns[:, :hidden] = W_hh
    packed = columns.reshape(len(W_hh), tiles, rows).transpose(1, 0, 2)
    return np.ascontiguousarray(packed).reshape(-1)


# Computes      F1 to F4 of docs/lstm_backward.md for `lanes` samples: gates += bias + W_hh h,
#               activations,
#               c = f c + i g, h = o tanh(c)
# Arguments     gates (4H, T, B) INOUT  in: input projection; out: activations
#               bias  (4H,)  IN  sum of both biases
#               w     pack_forward(W_hh)  IN
#               out   (H, T, B)  OUT  h of every frame
#               cells (H, T, B)  OUT  c of every frame, for the backward pass
#               shape    T, B (a multiple of the lanes), H
#               sample   first sample of the task
#               reverse  walk the frames from last to first
#               state    (2 padded H + H + rows, lanes)  scratch: two h in turn, c, the tile
# Aliasing      none of the arrays overlap; tasks write different samples of the same arrays
# Accumulates   `=`
# Parallel over nothing: one task belongs to one thread
# Precision     that of the arrays; activations in float32 accurate to 2e-7
# Oracle        umx_np.layers.lstm.lstm_forward
# Benchmark     benchmarks/compare/train_step.py
def _make_forward(rows: int, lanes: int, build: int) -> Callable:
    units = rows // 4

    def lstm_forward(gates, bias, w, out, cells, shape, sample, reverse, state):
        nb_frames, nb_samples, hidden = shape
        row = nb_frames * nb_samples  # distance of two features
        tiles = (hidden + units - 1) // units
        size = tiles * units * lanes
        h, h_next = state[:size], state[size : 2 * size]
        c = state[2 * size : 2 * size + hidden * lanes]
        sums = state[2 * size + hidden * lanes :]
        h[:] = 0
        c[:] = 0
        if build < 0:  # names the version of this folder; see compiling.build_number
            return
        for step in range(nb_frames):
            t = nb_frames - 1 - step if reverse else step
            here = t * nb_samples + sample
            for tile in range(tiles):
                first = tile * units
                nb_units = min(units, hidden - first)
                for gate in range(4):
                    for u in range(nb_units):
                        index = (gate * hidden + first + u) * row + here
                        x = load(gates, index, lanes) + bias[gate * hidden + first + u]
                        store(sums, (gate * units + u) * lanes, x)
                        # Each of these vectors is in a page of its own, which no processor
                        # foresees; the product hides the wait for those of the next tile.
                        prefetch(gates, index + units * row)
                panel = (w, tile * hidden * rows)
                tile_product((sums, 0, lanes), panel, (h, 0), hidden, 0, rows, lanes, 0)  # F1
                for u in range(nb_units):
                    i = sigmoid(load(sums, u * lanes, lanes))  # F2
                    f = sigmoid(load(sums, (units + u) * lanes, lanes))
                    g = tanh(load(sums, (2 * units + u) * lanes, lanes))
                    o = sigmoid(load(sums, (3 * units + u) * lanes, lanes))
                    unit = first + u
                    new_c = f * load(c, unit * lanes, lanes) + i * g  # F3
                    new_h = o * tanh(new_c)  # F4
                    store(c, unit * lanes, new_c)
                    store(h_next, unit * lanes, new_h)
                    store(cells, unit * row + here, new_c)
                    store(out, unit * row + here, new_h)
                    store(gates, unit * row + here, i)
                    store(gates, (hidden + unit) * row + here, f)
                    store(gates, (2 * hidden + unit) * row + here, g)
                    store(gates, (3 * hidden + unit) * row + here, o)
            h, h_next = h_next, h

    return lstm_forward


# Computes      B1 to B7 of docs/lstm_backward.md for `lanes` samples: the gradients of the gates
#               before their activation, from the last frame of the forward pass to its first
# Arguments     gates (4H, T, B) INOUT  in: activations; out: gradients d_a
#               w     pack_backward(W_hh)  IN
#               d_out (H, T, B)  IN  gradient of h from the layers above
#               cells (H, T, B)  IN  c of every frame
#               shape, sample, reverse  as in the forward pass
#               state (padded H + H + 4H, lanes)  scratch, aligned: d_h, d_c, the gates of one frame
# Aliasing      none of the arrays overlap
# Accumulates   `=`; gradients of parameters are products over the whole sequence (B8 to B10)
# Parallel over nothing: one task belongs to one thread
# Precision     that of the arrays
# Oracle        umx_np.layers.lstm.lstm_backward
# Benchmark     benchmarks/compare/train_step.py
def _make_backward(rows: int, lanes: int, build: int) -> Callable:
    def lstm_backward(gates, w, d_out, cells, shape, sample, reverse, state):
        nb_frames, nb_samples, hidden = shape
        row = nb_frames * nb_samples
        tiles = (hidden + rows - 1) // rows
        size = tiles * rows * lanes
        d_h_next = state[:size]
        d_c_next = state[size : size + hidden * lanes]
        d_a = state[size + hidden * lanes :]
        d_h_next[:] = 0
        d_c_next[:] = 0
        if build < 0:
            return
        for step in range(nb_frames):
            t = step if reverse else nb_frames - 1 - step
            here = t * nb_samples + sample
            last = step == nb_frames - 1
            before = here + nb_samples if reverse else here - nb_samples
            for unit in range(hidden):
                at = unit * row + here
                i = load(gates, at, lanes)
                f = load(gates, hidden * row + at, lanes)
                g = load(gates, 2 * hidden * row + at, lanes)
                o = load(gates, 3 * hidden * row + at, lanes)
                tanh_c = tanh(load(cells, at, lanes))
                d_h = load(d_out, at, lanes) + load(d_h_next, unit * lanes, lanes)  # B1
                d_o = d_h * tanh_c  # B2
                d_c = load(d_c_next, unit * lanes, lanes) + d_h * o * (1.0 - tanh_c * tanh_c)  # B3
                d_i = d_c * g * i * (1.0 - i)  # B4 and B6
                d_g = d_c * i * (1.0 - g * g)
                d_o = d_o * o * (1.0 - o)
                if last:  # the cell before the first frame is 0
                    d_f = d_c * 0.0
                else:
                    c_before = load(cells, unit * row + before, lanes)
                    d_f = d_c * c_before * f * (1.0 - f)
                store(d_c_next, unit * lanes, d_c * f)  # B5
                store(gates, at, d_i)
                store(gates, hidden * row + at, d_f)
                store(gates, 2 * hidden * row + at, d_g)
                store(gates, 3 * hidden * row + at, d_o)
                store(d_a, unit * lanes, d_i)
                store(d_a, (hidden + unit) * lanes, d_f)
                store(d_a, (2 * hidden + unit) * lanes, d_g)
                store(d_a, (3 * hidden + unit) * lanes, d_o)
            if not last:
                for tile in range(tiles):  # B7
                    sums = (d_h_next, tile * rows * lanes, lanes)
                    panel = (w, tile * 4 * hidden * rows)
                    tile_product(sums, panel, (d_a, 0), 4 * hidden, 1, rows, lanes, 0)

    return lstm_backward


class LstmKernels:
    """Both kernels for one tile and dtype, and the scratch they need."""

    def __init__(self, shape: TileShape, dtype: np.dtype) -> None:
        self.shape = shape
        real = numba.from_dtype(np.dtype(dtype))
        flat = numba.types.Array(real, 1, "C")
        size = numba.types.int64
        rest = (numba.types.UniTuple(size, 3), size, numba.types.boolean, flat)
        build = build_number()
        self.forward: Any = compiled(
            _make_forward(*shape, build), [(flat,) * 5 + rest], fastmath=False
        )
        self.backward: Any = compiled(
            _make_backward(*shape, build), [(flat,) * 4 + rest], fastmath=False
        )

    def forward_scratch(self, hidden: int) -> int:
        """Elements of the argument `state` of the forward kernel."""
        padded = -(-hidden // (self.shape.rows // 4)) * (self.shape.rows // 4)
        return (2 * padded + hidden + self.shape.rows) * self.shape.lanes

    def backward_scratch(self, hidden: int) -> int:
        """Elements of the argument `state` of the backward kernel."""
        padded = -(-hidden // self.shape.rows) * self.shape.rows
        return (padded + 5 * hidden) * self.shape.lanes


@once
def lstm_kernels(shape: TileShape, dtype: np.dtype) -> LstmKernels:
    """Compile the kernels for a tile, once."""
    return LstmKernels(shape, dtype)
