"""The persistent scans in NumPy, thread by thread: who owns what, reads and sends it.

The emulator runs the kernels themselves, but at sizes that are small. This model has the same
owners, layouts and orders of summation at any size; it is written from the description in
``scan.cuh`` and its kernels, and vectorised over threads.

A step is modelled for one group. Arrays of threads have the axes (part, thread, ...).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from umx_np.cuda.scan_plan import GATES, Plan

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
    """Where the floats of each store go: part and offset into its buffer, any shape."""

    part: Array
    offset: Array
    width: int = 4

    def counts(self, parts: int, floats: int) -> Array:
        """How often each float of each part's buffer is written in a step."""
        where = (self.part * floats + self.offset).reshape(-1, 1) + np.arange(self.width)
        return np.bincount(where.reshape(-1), minlength=parts * floats).reshape(parts, floats)


def _threads(plan: Plan, count: int) -> tuple[Array, Array]:
    return np.arange(plan.parts)[:, None], np.arange(count)[None, :]


def _fma(a: Array, b: Array, c: Array) -> Array:
    return (a.astype(np.float64) * b + c).astype(np.float32)


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
    logistic = np.float32(1) / (np.float32(1) + np.exp(-a))
    return np.where(np.arange(4) == 2, np.tanh(a), logistic).astype(np.float32)


class LanesForward:
    """``Forward`` of scan_forward.cu."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        part, thread = _threads(plan, plan.threads(backward=False))
        self.lane = thread % plan.forward_lanes
        self.unit = part * plan.units + thread // plan.forward_lanes
        self.gate = np.broadcast_to(self.lane // 4 % 4, self.unit.shape)
        self.sample = np.broadcast_to(self.lane % plan.samples, self.unit.shape)
        self.writes = (self.lane < 16) & (self.lane % 4 < plan.samples)
        steps = np.arange(plan.depth(backward=False))
        self.depth = steps * plan.forward_lanes + self.lane[..., None]

    def weights(self) -> Weights:
        shape = (*self.unit.shape, len(self.depth[0, 0]), GATES)
        return Weights(
            np.broadcast_to(np.arange(GATES), shape),
            np.broadcast_to(self.unit[..., None, None], shape),
            np.broadcast_to(self.depth[..., None], shape),
        )

    def owners(self) -> Array:
        """(unit, sample) of each thread whose state counts."""
        chosen = (self.gate == 0) & self.writes
        return np.stack([self.unit[chosen], self.sample[chosen]], axis=-1)

    def sends(self) -> Sends:
        lanes, parts = self.plan.forward_lanes, self.plan.parts
        to = np.arange(parts)
        own = (to % lanes) == self.lane[..., None]
        samples = self.plan.samples
        offset = np.broadcast_to(self.unit[..., None] * samples, (*self.unit.shape, parts))
        own = np.broadcast_to(own, offset.shape)
        return Sends(np.broadcast_to(to, offset.shape)[own], offset[own], samples)

    def products(self, W_hh: Array, h: Array) -> Array:
        """Sums over the depth, (padded, samples, gates), from h (padded, samples)."""
        plan, samples = self.plan, self.plan.samples
        depth = plan.depth(backward=False)
        buffer = np.zeros((depth * plan.forward_lanes, samples), np.float32)
        buffer[: len(h)] = h
        held = self.weights().values(W_hh)
        sums = np.zeros((*self.unit.shape, GATES, samples), np.float32)
        for i in range(depth):
            vector = buffer[self.depth[..., i]]
            sums = _fma(held[..., i, :, None], vector[..., None, :], sums)
        sums = sums.reshape(*self.unit.shape, GATES * samples)
        for distance in (8, 4, 2, 1, 16)[: 5 if plan.forward_lanes == 32 else 4]:
            if sums.shape[2] > 1:
                sums = _halve(sums, plan.forward_lanes, distance)
            else:
                sums = sums + sums[:, np.arange(sums.shape[1]) ^ distance]
        made = np.full((plan.padded, samples, GATES), np.nan, np.float32)
        made[self.unit, self.sample, self.gate] = sums[..., 0]
        return made


class LanesBackward:
    """``Backward`` of scan_backward.cu."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.part, thread = _threads(plan, plan.threads(backward=True))
        self.lane = thread % plan.backward_lanes
        self.column = thread // plan.backward_lanes * 4
        steps = np.arange(plan.depth(backward=True))
        self.depth = steps * plan.backward_lanes + self.lane[..., None]

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
        for i in range(plan.depth(backward=True)):
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


def scan(plan: Plan, gates: Array, W_hh: Array, d_out: Array) -> tuple[Array, Array | None]:
    """One direction of one tile, forward and backward in time order.

    Parameters
    ----------
    gates : (T, samples, 4H), pre-activations
    W_hh : (4H, H)
    d_out : (T, samples, H)

    Returns
    -------
    h : (T, samples, H)
    d_gates : (T, samples, 4H), or None where the plan has no backward pass
    """
    nb_frames, nb_samples, hidden = d_out.shape
    padding = ((0, 0), (0, 0), (0, plan.padded - hidden))

    def padded(x: Array) -> Array:
        """(T, padded, samples)."""
        return np.pad(x, padding).swapaxes(1, 2)

    inputs = np.stack([padded(gate) for gate in np.split(gates, 4, axis=-1)], axis=-1)
    forward = LanesForward(plan)
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

    real = h[:, :hidden].swapaxes(1, 2)
    if True not in plan.passes:
        return real, None

    d_h, backward = padded(d_out), LanesBackward(plan)
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
    return real, np.moveaxis(d_gates[:, :hidden], (1, 2, 3), (3, 1, 2)).reshape(gates.shape)
