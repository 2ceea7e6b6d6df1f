"""The recurrent scans of training on a card: all frames of one BiLSTM layer, forward and backward.

What depends on the frame before is here; everything else of the layer is a few large matrix
products around it:

    forward    gates = x W_ih^T                          product before the scan
               h                                         scan
    backward   d_gates                                   scan
               d_W_ih, d_W_hh, d_bias, d_x               products with d_gates after it
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..errors import DeviceError, ShapeError
from .batch_plan import Plan, choose
from .card import Card
from .device import Device, Kernel

FLOAT_BYTES = 4


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


class BatchScan:
    """Scans of one layer, or of layers of one size.

    Not to be used from two streams at a time: launches share scratch memory.

    Parameters
    ----------
    device : Device
    hidden : int
        Hidden units of a direction, H.
    directions : int
        1, or 2: direction 1 walks through time backward.
    plan : Plan or None
        None chooses for each batch size (see `umx_np.cuda.batch_plan`).
    """

    def __init__(
        self,
        device: Device,
        hidden: int,
        directions: int,
        plan: Plan | None = None,
    ) -> None:
        if plan is not None and plan.hidden != hidden:
            raise ShapeError(f"plan.hidden={plan.hidden} must be hidden={hidden}")
        self.device = device
        self.hidden = hidden
        self.directions = directions
        self._given = plan
        self._plans: dict[int, Plan] = {}
        self._resident: dict[tuple[Plan, bool], int] = {}
        self._scratch: dict[tuple[Any, ...], Any] = {}

    def plan(self, nb_samples: int) -> Plan:
        """Kernels and pieces for a batch of this size."""
        if self._given is not None:
            return self._given
        if nb_samples not in self._plans:
            self._plans[nb_samples] = self._choose(nb_samples)
        return self._plans[nb_samples]

    def _choose(self, nb_samples: int) -> Plan:
        """The best plan that the card, asked about the compiled kernels, can hold."""
        card = Card.of(self.device)
        plan = choose(self.hidden, nb_samples, self.directions, card)
        if plan.kind == "step" or min(
            self._resident_groups(plan, backward=False),
            self._resident_groups(plan, backward=True),
        ):
            return plan
        return choose(self.hidden, nb_samples, self.directions, card, kinds=("step",))

    def _kernel(self, plan: Plan, *, backward: bool) -> Kernel:
        direction = "backward" if backward else "forward"
        return self.device.kernel(
            f"batch_scan_{plan.kind}.cu",
            f"batch_scan_{direction}_{plan.kind}",
            defines=plan.defines,
        )

    def _resident_groups(self, plan: Plan, *, backward: bool) -> int:
        if (plan, backward) not in self._resident:
            kernel = self._kernel(plan, backward=backward)
            threads = plan.backward_threads if backward else plan.forward_threads
            shared = plan.backward_bytes if backward else plan.forward_bytes
            self._resident[plan, backward] = kernel.max_active_blocks(threads, shared) // plan.parts
        return self._resident[plan, backward]

    def forward(
        self,
        gates: Any,
        weight_hh: Any,
        out: Any,
        keep: bool = True,
        *,
        bias: Any = None,
    ) -> Saved | None:
        """Walk through all frames from a state of zeros.

        Parameters
        ----------
        gates : device array [shape=(D, T, B, 4H)], float32
            Pre-activations i, f, g, o without the recurrent part, contiguous. With `keep`,
            overwritten by the activations.
        weight_hh : device array [shape=(D, 4H, H)], float32
            The matrices of the directions may be anywhere in one buffer.
        out : device array [shape=(T, B, D * H)], float32
            Where h goes: direction d to the columns from d * H. Rows may be further apart than
            they are long, all at one distance.
        keep : bool
            Whether a backward pass will follow.
        bias : device array [shape=(D, 4H)], float32, or None
            Added to the pre-activations, contiguous.

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
            _check("bias", bias, (self.directions, 4 * self.hidden))
        xp = self.device.xp
        cells = xp.empty((*gates.shape[:3], self.hidden), np.float32) if keep else None
        plan = self.plan(nb_samples)
        head = (gates, weight_hh, bias, out, cells)
        sizes = (np.int32(nb_frames), np.int32(nb_samples))
        tail = (np.int32(stride), np.int64(weight_stride))
        self._run(plan, head, sizes, tail, backward=False)
        return Saved(gates, cells) if keep else None

    def backward(self, d_h: Any, saved: Saved, weight_hh: Any) -> Any:
        """Gradients of the pre-activations from those of the output.

        Parameters
        ----------
        d_h : device array [shape=(T, B, D * H)], float32
            Gradient of `out`, laid out as that may be.
        saved : Saved
            From `forward`; the gradients are written over its gates.
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
        nb_frames, nb_samples = self._check_gates("saved.gates", saved.gates)
        _check("saved.cells", saved.cells, (*saved.gates.shape[:3], self.hidden))
        stride = self._check_rows("d_h", d_h, nb_frames, nb_samples)
        weight_stride = self._check_weights(weight_hh)
        plan = self.plan(nb_samples)
        head = (saved.gates, weight_hh, saved.cells, d_h)
        sizes = (np.int32(nb_frames), np.int32(nb_samples))
        tail = (np.int32(stride), np.int64(weight_stride))
        self._run(plan, head, sizes, tail, backward=True)
        return saved.gates

    def _run(
        self,
        plan: Plan,
        head: tuple[Any, ...],
        sizes: tuple[Any, ...],
        tail: tuple[Any, ...],
        *,
        backward: bool,
    ) -> None:
        kernel = self._kernel(plan, backward=backward)
        nb_frames, nb_samples = map(int, sizes)
        if nb_frames == 0 or nb_samples == 0:
            return
        threads = plan.backward_threads if backward else plan.forward_threads
        shared = plan.backward_bytes if backward else plan.forward_bytes
        groups = plan.groups(nb_samples, self.directions)
        if plan.kind == "cooperative":
            at_once = min(groups, self._resident_groups(plan, backward=backward))
            if at_once == 0:
                raise DeviceError(f"{plan} does not fit {self.device!r}")
            exchange, counters = self._exchange(plan, at_once, backward=backward)
            for first in range(0, groups, at_once):
                nb_groups = min(at_once, groups - first)
                counters.fill(0)
                kernel(
                    (nb_groups * plan.parts,),
                    (threads,),
                    (*head, exchange, counters, np.int32(first), *sizes, *tail),
                    shared=shared,
                    cooperative=True,
                )
        else:
            state = self._zeros("state", (self.directions, nb_samples, self.hidden))
            grid = (-(-self.hidden // plan.units), -(-nb_samples // plan.samples), self.directions)
            hidden = np.int32(self.hidden)
            for step in range(nb_frames):
                arguments = (*head, state, np.int32(step), *sizes, hidden, *tail)
                kernel(grid, (threads,), arguments, shared=shared)

    def _exchange(self, plan: Plan, groups: int, *, backward: bool) -> tuple[Any, Any]:
        # Two buffers for each group. Forward, what a plan never writes pads the depth of its
        # product and must be zero: so each plan has its own.
        floats = plan.parts * plan.backward_exchange if backward else plan.forward_exchange
        exchange = self._zeros((plan, backward), (groups, 2 * floats))
        return exchange, self._zeros("counters", (groups,), np.uint32)

    def _zeros(self, purpose: Any, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        """Scratch memory, zero when it is made, kept for the next call of the same sizes."""
        key = purpose, shape
        if key not in self._scratch:
            self._scratch[key] = self.device.xp.zeros(shape, dtype)
        return self._scratch[key]

    def _check_gates(self, name: str, gates: Any) -> tuple[int, int]:
        if gates.ndim != 4:
            raise ShapeError(f"{name}.shape={gates.shape} must be (D, T, B, 4H)")
        nb_frames, nb_samples = gates.shape[1:3]
        _check(name, gates, (self.directions, nb_frames, nb_samples, 4 * self.hidden))
        return nb_frames, nb_samples

    def _check_rows(self, name: str, array: Any, nb_frames: int, nb_samples: int) -> int:
        """Floats from one row to the next, where rows are at one distance."""
        width = self.directions * self.hidden
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
        """Floats from the matrix of one direction to that of the next."""
        shape = (self.directions, 4 * self.hidden, self.hidden)
        _check("weight_hh", weight_hh, shape, contiguous=False)
        if not weight_hh[0].flags.c_contiguous:
            raise ShapeError(f"weight_hh.strides={weight_hh.strides}: matrices must be contiguous")
        return int(weight_hh.strides[0]) // FLOAT_BYTES if self.directions > 1 else 0


def _check(name: str, array: Any, shape: tuple[int, ...], *, contiguous: bool = True) -> None:
    if array.shape != shape or array.dtype != np.float32:
        raise ShapeError(
            f"{name} must be float32 of shape {shape}, not {array.dtype} of {array.shape}"
        )
    if contiguous and not array.flags.c_contiguous:
        raise ShapeError(f"{name}.strides={array.strides} must be contiguous")
