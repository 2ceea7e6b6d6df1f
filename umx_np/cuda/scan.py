"""The recurrence on a card: all frames of LSTM sequences side by side, forward and backward.

What depends on the frame before is here; everything else of a layer is a few large matrix products
around it:

    forward    gates = x W_ih^T                          product before the scan
               h                                         scan
    backward   d_gates                                   scan
               d_W_ih, d_W_hh, d_bias, d_x               products with d_gates after it
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import DeviceError, ShapeError
from .card import Card
from .device import Device, Kernel
from .scan_plan import Plan, choose

FLOAT_BYTES = 4
_STEP_THREADS = 256  # of scan_step.cu


class Saved(NamedTuple):
    """Values of the forward pass that the backward pass needs.

    Attributes
    ----------
    gates : device array [shape=(D, T, B, 4H)], float32
        Activations i, f, g, o. The same memory as the pre-activations were in.
    cells : device array [shape=(D, T, B, H)], float32
        c of every frame.
    """

    gates: Any
    cells: Any


class Scan:
    """Scans of sequences of one size, such as the directions of a layer of one or more targets.

    All computation is in float32; results repeat to the bit, whatever the chunks of frames.

    Parameters
    ----------
    device : Device
    hidden : int
        Hidden units of a sequence, H.
    reverse : sequence of bool
        For each of D sequences, whether it walks through time backward.
    plan : Plan or None
        None chooses for each batch size (see `umx_np.cuda.scan_plan`).
    """

    def __init__(
        self, device: Device, hidden: int, reverse: Sequence[bool], plan: Plan | None = None
    ) -> None:
        if plan is not None and plan.hidden != hidden:
            raise ShapeError(f"plan.hidden={plan.hidden} must be hidden={hidden}")
        self.device = device
        self.hidden = hidden
        self.nb_sequences = len(reverse)
        self._given = plan
        self._plans: dict[tuple[int, bool], Plan] = {}
        self._resident: dict[tuple[Plan, bool], int] = {}
        with device.active():
            self._reverse = device.xp.asarray(np.array(reverse, np.uint8))

    def plan(self, nb_samples: int, *, backward: bool = True) -> Plan:
        """Kernels and pieces for a batch of this size, with or without a backward pass."""
        if self._given is not None:
            return self._given
        key = nb_samples, backward
        if key not in self._plans:
            self._plans[key] = self._choose(nb_samples, backward)
        return self._plans[key]

    def _choose(self, nb_samples: int, backward: bool) -> Plan:
        """The best plan that the card, asked about the compiled kernels, can hold."""
        sizes = self.hidden, max(1, nb_samples), self.nb_sequences, Card.of(self.device)
        plan = choose(*sizes, backward=backward)
        if plan.kind == "step" or all(self._resident_groups(plan, p) for p in plan.passes):
            return plan
        return choose(*sizes, kinds=("step",))

    def _kernel(self, plan: Plan, backward: bool) -> Kernel:
        return self.device.kernel(*plan.kernel(backward=backward), defines=plan.defines)

    def _resident_groups(self, plan: Plan, backward: bool) -> int:
        if (plan, backward) not in self._resident:
            sizes = plan.threads(backward=backward), plan.shared_bytes(backward=backward)
            blocks = self._kernel(plan, backward).max_active_blocks(*sizes)
            self._resident[plan, backward] = blocks // plan.parts
        return self._resident[plan, backward]

    def initial_state(self, nb_samples: int = 1) -> Any:
        """State of zeros [shape=(2, D, B, H)], float32: h and c."""
        with self.device.active():
            shape = (2, self.nb_sequences, nb_samples, self.hidden)
            return self.device.xp.zeros(shape, np.float32)

    def forward(
        self,
        gates: Any,
        weight_hh: Any,
        out: Any,
        keep: bool = True,
        *,
        bias: Any = None,
        state: Any = None,
    ) -> Saved | None:
        """Walk through all frames, or through the next ones.

        Parameters
        ----------
        gates : device array [shape=(D, T, B, 4H)], float32
            Pre-activations i, f, g, o without the recurrent part, contiguous. With `keep`,
            overwritten by the activations.
        weight_hh : device array [shape=(D, 4H, H)], float32
            The matrices of the sequences may be anywhere in one buffer.
        out : device array [shape=(T, B, D * H)], float32
            Where h goes: sequence d to the columns from d * H. Rows may be further apart than they
            are long, all at one distance.
        keep : bool
            Whether a backward pass will follow.
        bias : device array [shape=(D, 4H)], float32, or None
            Added to the pre-activations, contiguous.
        state : device array or None
            From `initial_state`, updated in place: walks on from there. The chunks of a sequence
            that walks backward come last first. None begins with zeros.

        Returns
        -------
        Saved or None
            For `backward`; None without `keep`.

        Raises
        ------
        ShapeError
            If shapes, dtypes or layouts do not fit.
        DeviceError
            If the kernels cannot be launched.
        """
        nb_frames, nb_samples = self._check_gates("gates", gates)
        stride = self._check_rows("out", out, nb_frames, nb_samples)
        weight_stride = self._check_weights(weight_hh)
        if bias is not None:
            _check("bias", bias, (self.nb_sequences, 4 * self.hidden))
        if state is None:
            state = self.initial_state(nb_samples)
        _check("state", state, (2, self.nb_sequences, nb_samples, self.hidden))
        xp = self.device.xp
        cells = xp.empty((*gates.shape[:3], self.hidden), np.float32) if keep else None
        plan = self.plan(nb_samples, backward=keep)
        arrays = (bias, out, cells, *state, self._reverse)
        if nb_frames == 0 or nb_samples == 0:
            pass
        elif plan.kind == "cooperative":
            self._run(plan, (gates, weight_hh, *arrays), out, stride, weight_stride, backward=False)
        else:
            products = xp.empty((self.nb_sequences, nb_samples, 4 * self.hidden), np.float32)
            for step in range(nb_frames):
                self.device.gemm(state[0], weight_hh, products, trans_b=True)
                self._step((gates, products, *arrays), step, out, stride, backward=False)
        return Saved(gates, cells) if keep else None

    def backward(self, d_h: Any, saved: Saved, weight_hh: Any) -> Any:
        """Gradients of the pre-activations from those of the output.

        Parameters
        ----------
        d_h : device array [shape=(T, B, D * H)], float32
            Gradient of `out`, laid out as that may be.
        saved : Saved
            From `forward`, which began with zeros; the gradients are written over its gates.
        weight_hh : device array [shape=(D, 4H, H)], float32
            The weights that `forward` used.

        Returns
        -------
        device array [shape=(D, T, B, 4H)], float32
            The memory of ``saved.gates``.

        Raises
        ------
        ShapeError
            If shapes, dtypes or layouts do not fit.
        DeviceError
            If the kernels cannot be launched.
        """
        gates, cells = saved
        nb_frames, nb_samples = self._check_gates("saved.gates", gates)
        _check("saved.cells", cells, (*gates.shape[:3], self.hidden))
        stride = self._check_rows("d_h", d_h, nb_frames, nb_samples)
        weight_stride = self._check_weights(weight_hh)
        plan = self.plan(nb_samples)
        if nb_frames == 0 or nb_samples == 0:
            return gates
        if plan.kind == "cooperative":
            kept = (gates, weight_hh, cells, d_h, self._reverse)
            self._run(plan, kept, d_h, stride, weight_stride, backward=True)
            return gates
        by_h, by_c = self.initial_state(nb_samples)
        d_gates = self.device.xp.empty((self.nb_sequences, nb_samples, 4 * self.hidden), np.float32)
        for step in range(nb_frames):
            if step > 0:
                self.device.gemm(d_gates, weight_hh, by_h)
            arrays = (gates, cells, d_h, by_h, by_c, d_gates, self._reverse)
            self._step(arrays, step, d_h, stride, backward=True)
        return gates

    def _run(
        self,
        plan: Plan,
        arrays: tuple[Any, ...],
        rows: Any,
        stride: int,
        weight_stride: int,
        *,
        backward: bool,
    ) -> None:
        """Run a persistent kernel, in as many launches as the groups need."""
        xp, (nb_frames, nb_samples) = self.device.xp, rows.shape[:2]
        groups = plan.groups(nb_samples, self.nb_sequences)
        at_once = min(groups, self._resident_groups(plan, backward))
        if at_once == 0:
            raise DeviceError(f"{plan} does not fit {self.device!r}")
        kernel = self._kernel(plan, backward)
        for first in range(0, groups, at_once):
            nb_groups = min(at_once, groups - first)
            exchange = xp.zeros((nb_groups, 2 * plan.exchange(backward=backward)), np.float32)
            counters = xp.zeros(nb_groups, np.uint32)
            sizes = map(np.int32, (first, nb_frames, nb_samples, stride))
            kernel(
                (nb_groups * plan.parts,),
                (plan.threads(backward=backward),),
                (*arrays, exchange, counters, *sizes, np.int64(weight_stride)),
                shared=plan.shared_bytes(backward=backward),
                cooperative=True,
            )

    def _step(
        self, arrays: tuple[Any, ...], step: int, rows: Any, stride: int, *, backward: bool
    ) -> None:
        nb_frames, nb_samples = rows.shape[:2]
        sizes = map(np.int32, (step, nb_frames, nb_samples, self.hidden, stride))
        grid = (-(-self.hidden // _STEP_THREADS), nb_samples, self.nb_sequences)
        kernel = self._kernel(Plan("step", self.hidden), backward)
        kernel(grid, (_STEP_THREADS,), (*arrays, *sizes))

    def _check_gates(self, name: str, gates: Any) -> tuple[int, int]:
        if gates.ndim != 4:
            raise ShapeError(f"{name}.shape={gates.shape} must be (D, T, B, 4H)")
        nb_frames, nb_samples = gates.shape[1:3]
        _check(name, gates, (self.nb_sequences, nb_frames, nb_samples, 4 * self.hidden))
        return nb_frames, nb_samples

    def _check_rows(self, name: str, array: Any, nb_frames: int, nb_samples: int) -> int:
        """Floats from one row to the next, where rows are at one distance."""
        width = self.nb_sequences * self.hidden
        _check(name, array, (nb_frames, nb_samples, width), contiguous=False)
        of_frame, of_sample, of_column = (stride // FLOAT_BYTES for stride in array.strides)
        if array.size == 0:
            return width
        # Strides of axes of length 1 mean nothing.
        row = of_sample if nb_samples > 1 else of_frame if nb_frames > 1 else width
        if (
            (width > 1 and of_column != 1)
            or row < width
            or (nb_frames > 1 and of_frame != nb_samples * row)
        ):
            raise ShapeError(f"{name}.strides={array.strides}: rows must be at one distance")
        return int(row)

    def _check_weights(self, weight_hh: Any) -> int:
        """Floats from the matrix of one sequence to that of the next."""
        shape = (self.nb_sequences, 4 * self.hidden, self.hidden)
        _check("weight_hh", weight_hh, shape, contiguous=False)
        if not weight_hh[0].flags.c_contiguous:
            raise ShapeError(f"weight_hh.strides={weight_hh.strides}: matrices must be contiguous")
        return int(weight_hh.strides[0]) // FLOAT_BYTES if self.nb_sequences > 1 else 0


def _check(name: str, array: Any, shape: tuple[int, ...], *, contiguous: bool = True) -> None:
    if array.shape != shape or array.dtype != np.float32:
        raise ShapeError(
            f"{name} must be float32 of shape {shape}, not {array.dtype} of {array.shape}"
        )
    if contiguous and not array.flags.c_contiguous:
        raise ShapeError(f"{name}.strides={array.strides} must be contiguous")
