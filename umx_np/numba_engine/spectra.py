"""Magnitudes of the STFT of a batch, straight into the layout that the network reads.

The frames of a signal fill the lanes of a vector, so that `lanes` transforms go through the same
operations and nothing is ever shuffled within one. A transform of 4096 samples is one of 2048
complex numbers: the even samples are its real, the odd ones its imaginary part.

a) frames to lanes: squares of `lanes` frames by `lanes` samples are transposed and windowed
b) passes of radix 4 (one of radix 2 at the end, if needed), from one buffer to another and back, in
   Stockham's order, which leaves the bins in theirs
c) the spectrum of the real signal from that of the packed one, and its magnitude
d) lanes to frames: squares are transposed back
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from ..errors import ShapeError
from .compiling import aligned_empty, build_number, compiled, inlined, once, vector_registers
from .lanes import load, sqrt, store, transpose

# Numbers between the real and the imaginary parts of a buffer. Without them the sixteen streams of
# a pass are multiples of 4 kB apart and compete for the same places in the first-level cache: a
# transform of 4096 samples takes 1.3 times as long.
_PADDING = 272


# a) `lanes` frames of x from `at` on, windowed: even samples to `buffer`, odd ones `half` behind
@inlined
def _load_frames(x, at, n_hop, window, buffer, half, square, lanes):
    for k in range(0, len(window), lanes):
        transpose(x, at + k, n_hop, square, 0, lanes, lanes)
        for j in range(0, lanes, 2):
            to = (k + j) // 2 * lanes
            even = load(square, j * lanes, lanes) * window[k + j]
            odd = load(square, (j + 1) * lanes, lanes) * window[k + j + 1]
            store(buffer, to, even)
            store(buffer, half + to, odd)


# b) A pass of radix 4 from one buffer to the other: n numbers in s streams; the next of the turns
@inlined
def _pass_of_four(one, other, half, turns, turn, n, s, lanes):
    quarter = n // 4
    for p in range(quarter):
        w1r, w1i = turns[turn], turns[turn + 1]
        w2r, w2i = turns[turn + 2], turns[turn + 3]
        w3r, w3i = turns[turn + 4], turns[turn + 5]
        turn += 6
        for q in range(0, s, lanes):
            ia = q + s * p
            ib, ic, id_ = ia + s * quarter, ia + 2 * s * quarter, ia + 3 * s * quarter
            ar, ai = load(one, ia, lanes), load(one, half + ia, lanes)
            br, bi = load(one, ib, lanes), load(one, half + ib, lanes)
            cr, ci = load(one, ic, lanes), load(one, half + ic, lanes)
            dr, di = load(one, id_, lanes), load(one, half + id_, lanes)
            sum_r, sum_i, apart_r, apart_i = ar + cr, ai + ci, ar - cr, ai - ci
            both_r, both_i, turned_r, turned_i = br + dr, bi + di, br - dr, bi - di
            to = q + s * 4 * p
            store(other, to, sum_r + both_r)
            store(other, half + to, sum_i + both_i)
            # a - c - i (b - d)
            yr, yi = apart_r + turned_i, apart_i - turned_r
            store(other, to + s, yr * w1r - yi * w1i)
            store(other, half + to + s, yr * w1i + yi * w1r)
            yr, yi = sum_r - both_r, sum_i - both_i
            store(other, to + 2 * s, yr * w2r - yi * w2i)
            store(other, half + to + 2 * s, yr * w2i + yi * w2r)
            yr, yi = apart_r - turned_i, apart_i + turned_r
            store(other, to + 3 * s, yr * w3r - yi * w3i)
            store(other, half + to + 3 * s, yr * w3i + yi * w3r)
    return turn


# c) Magnitudes in place of a spectrum: bin k and bin size - k come from the same two numbers. Those
#    of bin `size` go to `last`.
@inlined
def _to_magnitudes(buffer, half, turns, turn, size, last, lanes):
    re, im = load(buffer, 0, lanes), load(buffer, half, lanes)
    store(buffer, 0, sqrt((re + im) * (re + im)))
    store(last, 0, sqrt((re - im) * (re - im)))
    for k in range(1, size // 2 + 1):
        low, high = k * lanes, (size - k) * lanes
        ar, ai = load(buffer, low, lanes), load(buffer, half + low, lanes)
        br, bi = load(buffer, high, lanes), load(buffer, half + high, lanes)
        wr, wi = turns[turn + 2 * k], turns[turn + 2 * k + 1]
        # Halves of the sum and difference of Z[k] and the conjugate of Z[size - k].
        er, ei, or_, oi = ar + br, ai - bi, ai + bi, br - ar
        tr, ti = or_ * wr - oi * wi, or_ * wi + oi * wr
        xr, xi = er + tr, ei + ti
        yr, yi = er - tr, ei - ti
        store(buffer, low, sqrt(xr * xr + xi * xi) * 0.5)
        store(buffer, high, sqrt(yr * yr + yi * yi) * 0.5)


# Computes      |rfft(window * frame)| for all frames of one signal
# Arguments     x        (any,) IN, the signal from `start` on; frame t begins at start + t * n_hop
#               window   (n_fft,) IN
#               turns    IN, (cos, sin) of the passes from `twiddles`, then those of step c
#               out      (any,) OUT, bin k of frame t at place + t * stride + k
#               sizes    nb_frames, n_hop, start, place, stride
#               buffers  (2 * n_fft + 2 + lanes) * lanes + 4 * _PADDING, scratch, aligned
# Aliasing      none
# Accumulates   `=`
# Parallel over nothing: one signal belongs to one thread
# Precision     that of the arrays
# Oracle        numpy.fft.rfft
# Benchmark     benchmarks/compare/train_step.py
def _make_magnitudes(lanes: int, build: int) -> Callable:
    def magnitudes(x, window, turns, out, sizes, buffers):
        if build < 0:  # names the version of this folder; see compiling.build_number
            return
        nb_frames, n_hop, start, place, stride = sizes
        size = len(window) // 2
        half = size * lanes + _PADDING  # distance of the imaginary parts within a buffer
        square = buffers[4 * half + 2 * lanes :]
        group = 0
        while group < nb_frames:
            # The last group may begin earlier and compute some frames again.
            first = min(group, nb_frames - lanes)
            group += lanes
            one, other = buffers[: 2 * half], buffers[2 * half : 4 * half + 2 * lanes]
            _load_frames(x, start + first * n_hop, n_hop, window, one, half, square, lanes)
            n, s, turn = size, lanes, 0
            while n >= 4:
                turn = _pass_of_four(one, other, half, turns, turn, n, s, lanes)
                n, s = n // 4, 4 * s
                one, other = other, one
            if n == 2:
                for q in range(0, s, lanes):
                    for part in (0, half):
                        a, b = load(one, part + q, lanes), load(one, part + q + s, lanes)
                        store(other, part + q, a + b)
                        store(other, part + q + s, a - b)
                one, other = other, one
            _to_magnitudes(one, half, turns, turn, size, square, lanes)
            for r in range(lanes):
                out[place + (first + r) * stride + size] = square[r]
            for k in range(0, size, lanes):  # d)
                to = place + first * stride + k
                transpose(one, k * lanes, lanes, out, to, stride, lanes)

    return magnitudes


def twiddles(n_fft: int, dtype: np.dtype) -> np.ndarray:
    """Cosines and sines in the order in which the kernel needs them."""
    parts = []
    n = n_fft // 2
    while n >= 4:
        angle = -2.0 * np.pi / n * np.outer(np.arange(n // 4), (1, 2, 3))
        parts.append(np.stack([np.cos(angle), np.sin(angle)], axis=-1).reshape(-1))
        n //= 4
    angle = -2.0 * np.pi / n_fft * np.arange(n_fft // 4 + 1)
    parts.append(np.stack([np.cos(angle), np.sin(angle)], axis=-1).reshape(-1))
    return np.concatenate(parts).astype(dtype)


class MagnitudeKernel:
    """Magnitudes for one STFT size and dtype.

    Parameters
    ----------
    n_fft : int
        A power of two, at least eight vectors long.
    dtype : dtype
        float32 or float64.
    """

    def __init__(self, n_fft: int, dtype: np.dtype) -> None:
        self.n_fft = n_fft
        self.lanes = lanes_of(dtype)
        if not is_supported(n_fft, dtype):
            raise ShapeError(f"n_fft={n_fft} must be a power of two of at least {8 * self.lanes}")
        self.turns = twiddles(n_fft, dtype)
        self._kernel = _compiled_magnitudes(self.lanes, np.dtype(dtype))

    def __call__(
        self,
        x: np.ndarray,
        window: np.ndarray,
        out: np.ndarray,
        *,
        n_hop: int,
        nb_frames: int,
        start: int,
        place: int,
        stride: int,
    ) -> None:
        """Transform one signal; see the kernel for the arguments."""
        size = (2 * self.n_fft + 2 + self.lanes) * self.lanes + 4 * _PADDING
        buffers = aligned_empty((size,), x.dtype)
        self._kernel(x, window, self.turns, out, (nb_frames, n_hop, start, place, stride), buffers)


def lanes_of(dtype: np.dtype) -> int:
    """Frames that are transformed together; a signal must have at least as many.

    Vectors of 64 bytes would fill the second-level cache with both buffers: 1.2 times as slow.
    """
    return max(min(vector_registers()[1], 32) // np.dtype(dtype).itemsize, 4)


def is_supported(n_fft: int, dtype: np.dtype) -> bool:
    """Whether there is a kernel for this size."""
    return n_fft >= 8 * lanes_of(dtype) and n_fft & (n_fft - 1) == 0


@once
def _compiled_magnitudes(lanes: int, dtype: np.dtype) -> Any:
    flat = numba.types.Array(numba.from_dtype(dtype), 1, "C")
    types = (flat,) * 4 + (numba.types.UniTuple(numba.types.int64, 5), flat)
    return compiled(_make_magnitudes(lanes, build_number()), [types], fastmath=False)


@once
def magnitude_kernel(n_fft: int, dtype: np.dtype) -> MagnitudeKernel:
    """Prepare a size, once."""
    return MagnitudeKernel(n_fft, dtype)
