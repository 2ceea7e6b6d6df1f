"""The recurrent part of inference: LSTM sequences side by side, chunk after chunk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DeviceError, ShapeError
from .card import Card
from .device import Device
from .plans import Plan, choose
from .tiling import NB_GATES, pack_by_column

_INT32_MAX = 2**31 - 1


@dataclass(frozen=True)
class ScanState:
    """State that passes from one chunk to the next, and memory that a run needs for itself.

    Attributes
    ----------
    h, c : device array [shape=(nb_sequences, hidden)], float32
        Hidden and cell state, updated in place by `Scan.run`.
    scratch : device array or None
        Where the blocks of a cooperative launch exchange h; means nothing between runs.
    """

    h: Any
    c: Any
    scratch: Any


class Scan:
    """Recurrent weights of some sequences, packed for one card, and the kernel that uses them.

    A sequence is one direction of one layer of one target. All computation is in float32; results
    repeat to the bit, whatever the chunks, and do not depend on the plan either as long as its
    method is not ``'step'``, which sums in another order.

    Safe to use from several threads and streams at once: what changes is in the states.

    Parameters
    ----------
    device : Device
    weights : ndarray or device array [shape=(nb_sequences, 4 * hidden, hidden)], float32
        Recurrent weights, rows in the order of the gates i, f, g, o.
    plan : Plan or None
        From `choose`; None lets it choose.

    Attributes
    ----------
    plan : Plan
    nb_sequences, hidden : int

    Raises
    ------
    ShapeError
        If the weights have another shape or dtype.
    DeviceError
        If the kernel of the plan cannot run on this card.
    """

    def __init__(self, device: Device, weights: Any, plan: Plan | None = None) -> None:
        if isinstance(weights, device.xp.ndarray):
            weights = device.xp.asnumpy(weights)
        if (
            weights.ndim != 3
            or weights.shape[1] != NB_GATES * weights.shape[2]
            or weights.size == 0
            or weights.dtype != np.float32
        ):
            raise ShapeError(
                f"weights must be float32 (nb_sequences, 4 * hidden, hidden), "
                f"not {weights.dtype} {weights.shape}"
            )
        self.device = device
        self.nb_sequences, _, self.hidden = weights.shape
        self.plan = plan or choose(self.hidden, self.nb_sequences, Card.of(device))
        if self.plan.hidden != self.hidden:
            raise ShapeError(f"the plan is for hidden={self.plan.hidden}, not {self.hidden}")
        self._kernel = device.kernel(self.plan.source, self.plan.kernel, defines=self.plan.defines)
        self._per_launch = self._checked_sequences()
        tiling = self.plan.tiling
        packed = tiling.pack(weights) if tiling else pack_by_column(weights)
        with device.active():
            self._weights = device.xp.asarray(packed)

    def __repr__(self) -> str:
        return f"<scan of {self.nb_sequences} sequences, {self.describe()}>"

    def describe(self) -> str:
        """One line: kernel, sizes, where the weights are, precision."""
        kernel = self._kernel
        spilled = f", {kernel.local_bytes} bytes spilled" if kernel.local_bytes else ""
        return f"{self.plan.describe()}, {kernel.registers} registers{spilled}, float32"

    def _checked_sequences(self) -> int:
        """Sequences of a launch, now that the registers of the kernel are known."""
        plan, kernel = self.plan, self._kernel
        limit = self.device.shared_memory_per_block - kernel.static_shared
        if plan.shared_bytes > limit or plan.threads > kernel.max_threads:
            raise DeviceError(
                f"{plan.describe()}: needs {plan.threads} threads with {plan.shared_bytes} bytes "
                f"of shared memory, and {self.device!r} has {kernel.max_threads} and {limit}"
            )
        if plan.method != "cooperative":
            return plan.sequences_per_launch
        # Blocks that are not resident would be waited for in vain.
        resident = kernel.max_active_blocks(plan.threads, plan.shared_bytes)
        if resident < plan.blocks:
            raise DeviceError(
                f"{plan.describe()}: {resident} blocks are resident at a time on {self.device!r}"
            )
        return min(plan.sequences_per_launch, resident // plan.blocks)

    def initial_state(self) -> ScanState:
        """Zero state, and scratch memory of its own."""
        xp, shape = self.device.xp, (self.nb_sequences, self.hidden)
        tiling, scratch = self.plan.tiling, None
        with self.device.active():
            if tiling and self.plan.method == "cooperative":
                scratch = xp.zeros((self.nb_sequences, tiling.scratch_words), np.uint64)
            return ScanState(xp.zeros(shape, np.float32), xp.zeros(shape, np.float32), scratch)

    def run(self, gates: Any, state: ScanState, out: Any, reverse: Sequence[bool]) -> None:
        """Compute the next chunk of every sequence, on the current stream.

        Parameters
        ----------
        gates : device array [shape=(nb_sequences, nb_frames, 4 * hidden)], float32
            Input projection plus both biases, gates in the order i, f, g, o. Only the last axis
            must be contiguous.
        state : ScanState
            From `initial_state`; updated in place. One run at a time.
        out : device array [shape=(nb_sequences, nb_frames, hidden)], float32
            Where h goes. Only the last axis must be contiguous; must not overlap `gates`.
        reverse : sequence of bool
            For each sequence, whether it walks from the last frame of the chunk to the first; its
            chunks must then come last first.

        Raises
        ------
        ShapeError
            If shapes, layouts or dtypes do not fit.
        DeviceError
            If the kernel cannot be launched.
        """
        nb_frames = gates.shape[1] if gates.ndim == 3 else 0
        count, hidden = self.nb_sequences, self.hidden
        gate_strides = _strides("gates", gates, (count, nb_frames, NB_GATES * hidden))
        out_strides = _strides("out", out, (count, nb_frames, hidden))
        for name, array in (("state.h", state.h), ("state.c", state.c)):
            if _strides(name, array, (count, hidden)) != [hidden] and count > 1:
                raise ShapeError(f"{name} must be contiguous")
        if len(reverse) != count:
            raise ShapeError(f"reverse has {len(reverse)} items for {count} sequences")
        if nb_frames == 0:
            return
        plan = self.plan
        extra: tuple[Any, ...] = ()
        if plan.method == "step":
            extra = (np.int32(hidden),)
        elif plan.method == "cooperative":
            if state.scratch is None:
                raise ShapeError("state has no scratch memory: it is not from this scan")
            with self.device.active():
                state.scratch.fill(0)
            extra = (state.scratch,)
        for first in range(0, count, self._per_launch):
            number = min(self._per_launch, count - first)
            backward = sum(1 << k for k in range(number) if reverse[first + k])
            self._kernel(
                (number * plan.blocks,),
                (plan.threads,),
                (
                    gates,
                    np.int64(gate_strides[0]),
                    np.int32(gate_strides[1]),
                    self._weights,
                    state.h,
                    state.c,
                    out,
                    np.int64(out_strides[0]),
                    np.int32(out_strides[1]),
                    np.int32(first),
                    np.int32(nb_frames),
                    np.uint64(backward),
                    *extra,
                ),
                shared=plan.shared_bytes,
                cooperative=plan.method == "cooperative",
            )


def _strides(name: str, array: Any, shape: tuple[int, ...]) -> list[int]:
    """Strides of all axes but the last, in floats."""
    if array.shape != shape or array.dtype != np.float32:
        raise ShapeError(f"{name} must be float32 {shape}, not {array.dtype} {array.shape}")
    if shape[-1] > 1 and array.strides[-1] != 4:
        raise ShapeError(f"{name} must be contiguous along its last axis")
    strides = [stride // 4 for stride in array.strides[:-1]]
    if abs(strides[-1]) > _INT32_MAX:
        raise ShapeError(f"{name} has frames that are {strides[-1]} floats apart")
    return strides
