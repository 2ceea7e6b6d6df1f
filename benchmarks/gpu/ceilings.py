"""The section ``ceilings``: what the card reaches at best, measured in the same run."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from umx_np.errors import DeviceError

from .card import working_status
from .context import Context
from .record import Case, Recorder, Skip
from .timing import Timed, cupy_events, take_turns

_COPIED_BYTES = 1 << 30
_ORDER = 8192
_SECONDS = 4.0


def cases(context: Context) -> list[Case]:
    """Copies on the card and to the host, products in each kind of arithmetic."""
    return [
        Case("copy on the card", partial(_copy, context)),
        Case("copy from and to the host", partial(_host_copy, context)),
        *(
            Case(f"product, {math}", partial(_gemm, context, math))
            for math in ("float32", "tf32", "bf16")
        ),
    ]


def _copy(context: Context, recorder: Recorder) -> None:
    nb_bytes = context.size(min(_COPIED_BYTES, context.device.free_memory() // 4), 1 << 12)
    source = context.xp.zeros(nb_bytes // 4, np.float32)
    target = context.xp.empty_like(source)

    def run() -> None:
        target[...] = source

    _rung(context, recorder, "copy", "device to device", run, 2e-9 * source.nbytes, "GB/s")
    recorder.detail("status_after", working_status(context))


def _host_copy(context: Context, recorder: Recorder) -> None:
    nb_bytes = context.size(min(_COPIED_BYTES // 4, context.device.free_memory() // 4), 1 << 12)
    there = context.xp.zeros(nb_bytes // 4, np.float32)
    here = context.device.pinned(there.shape, np.float32)
    here[...] = 0.0
    stream = context.xp.cuda.get_current_stream()
    work = 1e-9 * there.nbytes
    kernel = "copy, page-locked"
    _rung(context, recorder, kernel, "to the card", lambda: there.set(here, stream), work, "GB/s")

    def back() -> None:
        there.get(stream=stream, out=here, blocking=False)

    _rung(context, recorder, kernel, "to the host", back, work, "GB/s")


def _gemm(context: Context, math: str, recorder: Recorder) -> None:
    device, xp = context.device, context.xp
    order = context.size(_ORDER, 32)
    if 3 * 4 * order**2 > device.free_memory() // 2:
        order //= 4
    rng = context.rng("gemm")
    a, b = (xp.asarray(rng.standard_normal((order, order), np.float32)) for _ in range(2))
    out = context.nan((order, order))

    def run() -> None:
        device.gemm(a, b, out, math=math)

    try:
        run()
    except DeviceError as error:
        raise Skip(str(error)) from error
    _rung(context, recorder, f"product, {order}", math, run, 2e-12 * order**3, "TFLOP/s")
    recorder.detail(f"status_after_{math}", working_status(context))


def _rung(
    context: Context,
    recorder: Recorder,
    kernel: str,
    variant: str,
    run: Any,
    work: float,
    unit: str,
) -> None:
    timed = Timed(variant, run, cupy_events(context.xp))
    timing = take_turns([timed], repeats=context.size(20, 2), seconds=_SECONDS)[variant]
    recorder.timings({f"{kernel}, {variant}": timing})
    rate = work / timing.low if timing.low else 0.0
    recorder.rung(kernel, variant, 1e3 * timing.low, time_unit="ms", rate=rate, unit=unit)
