"""The persistent scans of training in NumPy, thread by thread: who owns what, reads and sends it.

The emulator runs the kernels themselves, but at sizes that are small. This model has the same
owners, layouts and orders of summation at any size; it is written from the description in
``batch_scan*.cuh`` and vectorised over threads.

A step is modelled for one group. Arrays of threads have the axes (part, thread, ...).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from umx_np.cuda.batch_plan import GATES, STRETCH, WARP, Plan

Array = np.ndarray


@dataclass(frozen=True)
class Weights:
    """Which weight a thread holds: gate, unit and column, each (parts, threads, depth, held)."""

    gate: Array
    unit: Array
    column: Array

    def there(self, hidden: int) -> Array:
        """Whether it is no padding."""
        return (self.unit < hidden) & (self.column < hidden)

    def counts(self, hidden: int) -> Array:
        """How many threads hold each element of W_hh (4H, H)."""
        there = self.there(hidden)
        row = (self.gate * hidden + self.unit)[there]
        return np.bincount(row * hidden + self.column[there], minlength=4 * hidden**2)

    def values(self, W_hh: Array) -> Array:
        """The weights themselves, zero for padding."""
        hidden = W_hh.shape[1]
        there = self.there(hidden)
        row = np.where(there, self.gate * hidden + self.unit, 0)
        return np.where(there, W_hh[row, np.where(there, self.column, 0)], np.float32(0))


@dataclass(frozen=True)
class Sends:
    """Where the four floats of each store go: part and offset into its buffer, any shape."""

    part: Array
    offset: Array

    def counts(self, parts: int, floats: int) -> Array:
        """How often each float of each part's buffer is written in a step."""
        where = (self.part * floats + self.offset).reshape(-1, 1) + np.arange(4)
        return np.bincount(where.reshape(-1), minlength=parts * floats).reshape(parts, floats)


def _threads(plan: Plan, count: int) -> tuple[Array, Array]:
    return np.arange(plan.parts)[:, None], np.arange(count)[None, :]


def _fma(a: Array, b: Array, c: Array) -> Array:
    return (a.astype(np.float64) * b + c).astype(np.float32)


def round_tf32(x: Array) -> Array:
    """Nearest float32 with a mantissa of 10 bits, ties away from zero."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def mma(a: Array, b: Array) -> Array:
    """m16n8k8 of a warp from its registers: (..., 32, 4) and (..., 32, 2) to (..., 32, 4).

    The layout is that of the PTX manual, "Matrix Fragments for mma.m16n8k8", type .tf32.
    """
    lane = np.arange(WARP)
    group, place = lane // 4, lane % 4
    A = np.zeros((*a.shape[:-2], 16, 8), np.float32)
    B = np.zeros((*b.shape[:-2], 8, 8), np.float32)
    for register in range(4):
        A[..., group + 8 * (register % 2), place + 4 * (register // 2)] = a[..., register]
    for register in range(2):
        B[..., place + 4 * register, group] = b[..., register]
    C = (A.astype(np.float64) @ B).astype(np.float32)
    registers = [C[..., group + 8 * (r // 2), 2 * place + r % 2] for r in range(4)]
    return np.stack(registers, axis=-1)


def _halve(sums: Array, lanes: int, distance: int) -> Array:
    """Sums (parts, threads, n) of lanes at `distance` added up, half kept by each of the two."""
    lane = np.arange(sums.shape[1])
    half = sums.shape[2] // 2
    upper = ((lane % lanes) & distance != 0)[None, :, None]
    kept = np.where(upper, sums[..., half:], sums[..., :half])
    given = np.where(upper, sums[..., :half], sums[..., half:])
    return kept + given[:, lane ^ distance]


def activate(a: Array) -> Array:
    """Activations of gates (..., 4)."""
    half = np.float32(0.5)
    logistic = half * np.tanh(half * a) + half
    return np.where(np.arange(4) == 2, np.tanh(a), logistic).astype(np.float32)


class LanesForward:
    """``Forward`` of batch_scan_lanes.cuh."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        part, thread = _threads(plan, plan.forward_threads)
        self.lane = thread % plan.forward_lanes
        self.unit = part * plan.units + thread // plan.forward_lanes
        self.gate = np.broadcast_to(self.lane // 4 % 4, self.unit.shape)
        self.sample = np.broadcast_to(self.lane % 4, self.unit.shape)
        self.depth = np.arange(plan.forward_depth) * plan.forward_lanes + self.lane[..., None]

    def weights(self) -> Weights:
        shape = (*self.unit.shape, self.plan.forward_depth, GATES)
        return Weights(
            np.broadcast_to(np.arange(GATES), shape),
            np.broadcast_to(self.unit[..., None, None], shape),
            np.broadcast_to(self.depth[..., None], shape),
        )

    def owners(self) -> Array:
        """(unit, sample) of each thread whose state counts."""
        chosen = (self.gate == 0) & (self.lane < 16)
        return np.stack([self.unit[chosen], self.sample[chosen]], axis=-1)

    def sends(self) -> Sends:
        lanes, parts = self.plan.forward_lanes, self.plan.parts
        to = np.arange(parts)
        own = (to % lanes) == self.lane[..., None]
        offset = np.broadcast_to(self.unit[..., None] * 4, (*self.unit.shape, parts))
        own = np.broadcast_to(own, offset.shape)
        return Sends(np.broadcast_to(to, offset.shape)[own], offset[own])

    def products(self, W_hh: Array, h: Array) -> Array:
        """Sums over the depth, (padded, samples, gates), from h (padded, samples)."""
        plan = self.plan
        buffer = np.zeros((plan.forward_depth * plan.forward_lanes, 4), np.float32)
        buffer[: len(h)] = h
        held = self.weights().values(W_hh)
        sums = np.zeros((*self.unit.shape, GATES, 4), np.float32)
        for i in range(plan.forward_depth):
            vector = buffer[self.depth[..., i]]
            sums = _fma(held[..., i, :, None], vector[..., None, :], sums)
        sums = sums.reshape(*self.unit.shape, 16)
        for distance in (8, 4, 2, 1):
            sums = _halve(sums, plan.forward_lanes, distance)
        if plan.forward_lanes == 32:
            sums = sums + sums[:, np.arange(sums.shape[1]) ^ 16]
        made = np.full((plan.padded, 4, GATES), np.nan, np.float32)
        made[self.unit, self.sample, self.gate] = sums[..., 0]
        return made


class LanesBackward:
    """``Backward`` of batch_scan_lanes.cuh."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.part, thread = _threads(plan, plan.backward_threads)
        self.lane = thread % plan.backward_lanes
        self.column = thread // plan.backward_lanes * 4
        self.depth = np.arange(plan.backward_depth) * plan.backward_lanes + self.lane[..., None]

    def weights(self) -> Weights:
        row = self.depth[..., None] + np.zeros(4, int)
        unit = self.part[..., None, None] * self.plan.units + row // GATES
        column = self.column[..., None, None] + np.arange(4)
        gate, unit, column = np.broadcast_arrays(row % GATES, unit, column)
        return Weights(gate, unit, column)

    def items(self) -> Array:
        """(unit of the part, sample) of every place of a part's buffer."""
        item = np.arange(self.plan.units * 4)
        return np.stack([item // 4, item % 4], axis=-1)

    def sends(self) -> Sends:
        same = self.plan.backward_lanes // 4
        column = self.column + self.lane // same + 0 * self.part
        chosen = (self.lane % same == 0) & (column < self.plan.padded)
        source = self.part * self.plan.units * 4 + 0 * column
        offset = source + column % self.plan.units * 4
        return Sends(column[chosen] // self.plan.units, offset[chosen])

    def products(self, W_hh: Array, d_gates: Array) -> Array:
        """What every part sends: (parts, padded, samples), from d_gates (padded, 4, samples)."""
        plan = self.plan
        lanes = plan.backward_lanes
        operand = d_gates.reshape(plan.parts, plan.units * GATES, 4)
        held = self.weights().values(W_hh)
        sums = np.zeros((*held.shape[:2], 4, 4), np.float32)
        for i in range(plan.backward_depth):
            vector = operand[self.part, self.depth[..., i]]
            sums = _fma(held[..., i, :, None], vector[..., None, :], sums)
        sums = sums.reshape(*sums.shape[:2], 16)
        for distance in (lanes // 2, lanes // 4):
            sums = _halve(sums, lanes, distance)
        distance = lanes // 8
        while distance > 0:
            sums = sums + sums[:, np.arange(sums.shape[1]) ^ distance]
            distance //= 2
        made = np.full((plan.parts, plan.padded, 4), np.nan, np.float32)
        column = np.broadcast_to(self.column + self.lane // (lanes // 4), sums.shape[:2])
        for part in range(plan.parts):
            chosen = column[part] < plan.padded
            made[part, column[part][chosen]] = sums[part][chosen]
        return made


class TensorForward:
    """``Forward`` of batch_scan_tensor.cuh."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        part, thread = _threads(plan, plan.forward_threads)
        self.row, self.place = thread % WARP // 4, thread % 4
        self.first_unit = part * plan.units + thread // WARP * 4
        self.unit = self.first_unit + self.row // 2
        self.sample = np.broadcast_to(2 * self.place + self.row % 2, self.unit.shape)
        depth = plan.forward_depth * STRETCH
        self.stride = depth if depth % 32 == STRETCH else depth + STRETCH

    def weights(self) -> Weights:
        """Held: four steps of the depth of the upper row, then of the lower row."""
        i = np.arange(self.plan.forward_depth)[:, None]
        four = np.tile(np.arange(4), 2)
        gate = self.row[..., None, None] % 2 + np.repeat([0, 2], 4) + 0 * i
        column = 4 * self.place[..., None, None] + i * STRETCH + four
        gate, unit, column = np.broadcast_arrays(gate, self.unit[..., None, None], column)
        return Weights(gate, unit, column)

    def owners(self) -> Array:
        return np.stack([self.unit.reshape(-1), self.sample.reshape(-1)], axis=-1)

    def sends(self) -> Sends:
        to = np.arange(self.plan.parts)
        own = (to % 4) == (self.row // 2)[..., None]
        offset = (self.sample * self.stride + self.first_unit)[..., None] + 0 * to
        own = np.broadcast_to(own, offset.shape)
        return Sends(np.broadcast_to(to, offset.shape)[own], offset[own])

    def addresses(self) -> Array:
        """Floats where the lanes of a warp begin to read a vector."""
        return (self.row * self.stride + 4 * self.place)[0, :WARP]

    def products(self, W_hh: Array, h: Array) -> Array:
        plan = self.plan
        parts, threads = self.unit.shape
        buffer = np.zeros((8, self.stride), np.float32)
        buffer[:, : len(h)] = round_tf32(h.T)
        held = round_tf32(self.weights().values(W_hh))
        sums = [np.zeros((parts, threads // WARP, WARP, 4), np.float32) for _ in range(4)]
        for i in range(plan.forward_depth):
            at = (self.row * self.stride + 4 * self.place)[0] + i * STRETCH
            vector = buffer.reshape(-1)[at[:, None] + np.arange(4)]
            vector = np.broadcast_to(vector, (parts, threads, 4)).reshape(parts, -1, WARP, 4)
            upper, lower = np.split(held[:, :, i].reshape(parts, -1, WARP, 8), 2, axis=-1)
            for half in range(2):
                x, y = 2 * half, 2 * half + 1
                a = np.stack([upper[..., x], lower[..., x], upper[..., y], lower[..., y]], axis=-1)
                chain = (2 * i + half) % 4
                sums[chain] = sums[chain] + mma(a, vector[..., x : y + 1])
        total = ((sums[0] + sums[1]) + (sums[2] + sums[3])).reshape(parts, threads, 4)
        second = np.broadcast_to(self.row % 2 == 1, total.shape[:2])
        x, y, z, w = np.moveaxis(total, -1, 0)
        neighbour = np.arange(threads) ^ 4
        first_gate, later_gate = np.where(second, y, x), np.where(second, w, z)
        others_first = np.where(second, x, y)[:, neighbour]
        others_later = np.where(second, z, w)[:, neighbour]
        made = np.full((plan.padded, 8, GATES), np.nan, np.float32)
        made[self.unit, self.sample] = np.stack(
            [
                np.where(second, others_first, first_gate),
                np.where(second, first_gate, others_first),
                np.where(second, others_later, later_gate),
                np.where(second, later_gate, others_later),
            ],
            axis=-1,
        )
        return made


class TensorBackward:
    """``Backward`` of batch_scan_tensor.cuh."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.part, thread = _threads(plan, plan.backward_threads)
        self.row, self.place = thread % WARP // 4, thread % 4
        self.column = thread // WARP * 32 + 4 * self.row
        rows = GATES * plan.units
        self.stride = rows if rows % 32 == STRETCH else rows + STRETCH

    def weights(self) -> Weights:
        """Held: the four gates of four columns."""
        i = np.arange(self.plan.backward_depth)[:, None]
        gate = np.tile(np.arange(4), 4)
        unit = self.part[..., None, None] * self.plan.units + self.place[..., None, None] + 4 * i
        column = self.column[..., None, None] + np.repeat(np.arange(4), 4)
        gate, unit, column = np.broadcast_arrays(gate, unit, column)
        return Weights(gate, unit, column)

    def items(self) -> Array:
        item = np.arange(self.plan.units * 8)
        return np.stack([item % self.plan.units, item // self.plan.units], axis=-1)

    def sends(self) -> Sends:
        units = self.plan.units
        column = self.column[..., None] + 0 * self.part[..., None] + np.zeros(2, int)
        sample = 2 * self.place[..., None] + np.arange(2) + 0 * column
        offset = self.part[..., None] * units * 8 + sample * units + column % units
        chosen = column < self.plan.padded
        return Sends(column[chosen] // units, offset[chosen])

    def addresses(self) -> Array:
        """Floats where the lanes of a warp begin to read a vector."""
        return (self.row * self.stride + 4 * self.place)[0, :WARP]

    def products(self, W_hh: Array, d_gates: Array) -> Array:
        plan = self.plan
        parts, threads = plan.parts, plan.backward_threads
        operand = np.zeros((parts, 8, self.stride), np.float32)
        operand[..., : GATES * plan.units] = round_tf32(
            d_gates.reshape(parts, plan.units * GATES, 8).swapaxes(1, 2)
        )
        held = round_tf32(self.weights().values(W_hh)).reshape(parts, threads, -1, 4, 4)
        shape = (parts, threads // WARP, WARP, 4)
        sums = np.zeros((2, 2, *shape), np.float32)
        for i in range(plan.backward_depth):
            at = (self.row * self.stride + 4 * self.place)[0] + i * STRETCH
            vector = operand.reshape(parts, -1)[:, at[:, None] + np.arange(4)].reshape(shape)
            for rows in range(2):
                upper, lower = (held[:, :, i, 2 * rows + k].reshape(shape) for k in range(2))
                for half in range(2):
                    x, y = 2 * half, 2 * half + 1
                    a = np.stack(
                        [upper[..., x], lower[..., x], upper[..., y], lower[..., y]], axis=-1
                    )
                    sums[rows, half] = sums[rows, half] + mma(a, vector[..., x : y + 1])
        first, second = (sums[:, 0] + sums[:, 1]).reshape(2, parts, threads, 4)
        made = np.full((parts, plan.padded, 8), np.nan, np.float32)
        four = [first[..., 0:2], first[..., 2:4], second[..., 0:2], second[..., 2:4]]
        for c, pair in enumerate(four):
            for k in range(2):
                for part in range(parts):
                    column = self.column[0] + c
                    chosen = column < plan.padded
                    sample = 2 * self.place[0] + k
                    made[part, column[chosen], sample[chosen]] = pair[part, chosen, k]
        return made


def forward_model(plan: Plan) -> LanesForward | TensorForward:
    return TensorForward(plan) if plan.tensor else LanesForward(plan)


def backward_model(plan: Plan) -> LanesBackward | TensorBackward:
    return TensorBackward(plan) if plan.tensor else LanesBackward(plan)


def scan(plan: Plan, gates: Array, W_hh: Array, d_out: Array) -> tuple[Array, Array]:
    """One direction of one tile, forward and backward in time order.

    Parameters
    ----------
    gates : (T, samples, 4H), pre-activations
    W_hh : (4H, H)
    d_out : (T, samples, H)

    Returns
    -------
    h : (T, samples, H)
    d_gates : (T, samples, 4H)
    """
    nb_frames, nb_samples, hidden = d_out.shape
    padding = ((0, 0), (0, 0), (0, plan.padded - hidden))

    def padded(x: Array) -> Array:
        """(T, padded, samples)."""
        return np.pad(x, padding).swapaxes(1, 2)

    inputs = np.stack([padded(gate) for gate in np.split(gates, 4, axis=-1)], axis=-1)
    forward, backward = forward_model(plan), backward_model(plan)
    h = np.zeros((nb_frames, plan.padded, nb_samples), np.float32)
    c, kept = np.zeros_like(h), np.zeros((*h.shape, GATES), np.float32)
    for t in range(nb_frames):
        a = inputs[t]
        if t > 0:
            a = a + forward.products(W_hh, h[t - 1])
        kept[t] = activate(a)
        i, f, g, o = np.moveaxis(kept[t], -1, 0)
        c[t] = i * g if t == 0 else _fma(f, c[t - 1], i * g)
        h[t] = o * np.tanh(c[t])

    d_h = padded(d_out)
    d_gates = np.zeros_like(kept)
    d_c_next = np.zeros_like(c[0])
    received = np.zeros((plan.parts, *c[0].shape), np.float32)
    for t in range(nb_frames - 1, -1, -1):
        total = d_h[t]
        for part in range(plan.parts):
            total = total + received[part]
        i, f, g, o = np.moveaxis(kept[t], -1, 0)
        tanh_c = np.tanh(c[t])
        d_c = d_c_next + total * o * (1 - tanh_c * tanh_c)
        c_before = c[t - 1] if t > 0 else np.zeros_like(c[0])
        d_gates[t] = np.stack(
            [
                d_c * g * i * (1 - i),
                d_c * c_before * f * (1 - f),
                d_c * i * (1 - g * g),
                total * tanh_c * o * (1 - o),
            ],
            axis=-1,
        )
        d_c_next = d_c * f
        received = backward.products(W_hh, d_gates[t].swapaxes(1, 2))
    real = h[:, :hidden].swapaxes(1, 2)
    return real, np.moveaxis(d_gates[:, :hidden], (1, 2, 3), (3, 1, 2)).reshape(gates.shape)
