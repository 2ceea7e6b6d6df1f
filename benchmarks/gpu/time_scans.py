"""The section ``recurrence``: microseconds a frame of every recurrent kernel, beside cuDNN."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from benchmarks.harness.timing import Timing

from . import scans
from .card import working_status
from .context import Context
from .peers import arithmetic, to_card, torch_on_card
from .record import Case, Recorder
from .scans import Variant
from .timing import Timed, cupy_events, take_turns, torch_events

# Frames of a song of three minutes, and the sequences of a model of four targets.
_NB_FRAMES, _NB_SEQUENCES, _NB_TARGETS = 7752, 8, 4
# Units of one direction of umxhq, umxl and umxm.
_SIZES = (256, 512, 128)


def cases(context: Context) -> list[Case]:
    """A layer beside cuDNN first, then every kernel by itself."""
    sizes = context.size(_SIZES, (16,))
    found = [
        Case(f"layer of {hidden} units, {kind}", partial(_layer, context, hidden, kind))
        for hidden in sizes
        for kind in ("float32", "TF32")
    ]
    for hidden in sizes:
        for variant in scans.variants(context, hidden, _NB_SEQUENCES):
            run = partial(_scan, context, variant)
            found.append(Case(f"{hidden} units: {variant.name}", run, 40.0))
    return found


def _nb_frames(context: Context) -> int:
    return context.size(_NB_FRAMES, 20)


def _scan(context: Context, variant: Variant, recorder: Recorder) -> None:
    from umx_np.cuda.scan import Scan

    hidden, nb_frames = variant.plan.hidden, _nb_frames(context)
    gates, weights = scans.inputs(context.rng("time"), _NB_SEQUENCES, nb_frames, hidden)
    scan = Scan(context.device, hidden, scans.directions(_NB_SEQUENCES), variant.plan)
    on_card, weight_hh = context.xp.asarray(gates[:, :, None]), context.xp.asarray(weights)
    out, state = context.nan((nb_frames, 1, _NB_SEQUENCES * hidden)), scan.initial_state()
    timed = Timed(
        variant.name,
        lambda: scan.forward(on_card, weight_hh, out, keep=False, state=state),
        cupy_events(context.xp),
    )
    timing = take_turns([timed], repeats=context.size(9, 2), seconds=4.0)[variant.name]
    recorder.timings({f"{hidden} units, {variant.name}": timing})
    _rung(recorder, hidden, variant.name, timing, nb_frames, chosen=variant.chosen)
    if variant.chosen:
        recorder.detail(
            f"{hidden} units",
            {
                "describe": str(variant.plan),
                "status_after": working_status(context),
            },
        )


def _rung(
    recorder: Recorder,
    hidden: int,
    variant: str,
    timing: Timing,
    nb_frames: int,
    *,
    chosen: bool = False,
) -> None:
    """Microseconds a frame of all sequences, and the rate of the recurrent products in it."""
    per_frame = timing.median / nb_frames
    work = 1e-12 * scans.operations(_NB_SEQUENCES, hidden)
    recorder.rung(
        f"scan, {_NB_SEQUENCES} x {hidden} units",
        variant,
        1e6 * per_frame,
        time_unit="us a frame",
        rate=work / per_frame if per_frame else 0.0,
        unit="TFLOP/s",
        chosen=chosen,
        brief=chosen or hidden == _SIZES[0],
    )


def _layer(context: Context, hidden: int, kind: str, recorder: Recorder) -> None:
    """A layer of all targets with its input product: what one call of cuDNN computes.

    cuDNN gets one target after the other, as Open-Unmix does, because its weights are not shared.
    """
    from umx_np.cuda.scan import Scan

    device, xp, nb_frames = context.device, context.xp, _nb_frames(context)
    rng, width = context.rng("layer"), 2 * hidden
    _, weight_hh = scans.inputs(rng, _NB_SEQUENCES, 1, hidden)
    _, weight_ih = scans.inputs(rng, 2 * _NB_SEQUENCES, 1, hidden)
    # (targets, 2 directions of 4 gates, inputs): a product for each target.
    weight_ih = weight_ih.reshape(_NB_TARGETS, 8 * hidden, width) / 2.0
    x = rng.standard_normal((_NB_TARGETS, nb_frames, width), np.float32)
    scan = Scan(device, hidden, scans.directions(_NB_SEQUENCES))
    on_card, weight, recurrent = map(xp.asarray, (x, weight_ih, weight_hh))
    gates = context.nan((_NB_TARGETS, 2, nb_frames, 4 * hidden))
    by_direction = weight.reshape(_NB_TARGETS, 2, 4 * hidden, width)
    out = context.nan((nb_frames, 1, _NB_SEQUENCES * hidden))
    math = {"float32": "float32", "TF32": "tf32"}[kind]

    def run_ours() -> None:
        for direction in range(2):
            device.gemm(
                on_card, by_direction[:, direction], gates[:, direction], trans_b=True, math=math
            )
        given = gates.reshape(_NB_SEQUENCES, nb_frames, 1, -1)
        scan.forward(given, recurrent, out, keep=False)

    torch = torch_on_card(context)
    layers = [_cudnn_layer(torch, weight_ih[k], weight_hh[2 * k : 2 * k + 2]) for k in range(4)]
    inputs = [to_card(torch.from_numpy(part[:, None])) for part in x]
    results: list[Any] = []

    def run_theirs() -> None:
        results[:] = [layer(part)[0] for layer, part in zip(layers, inputs, strict=True)]

    with torch.inference_mode(), arithmetic(torch, kind):
        run_ours()
        run_theirs()
        # (targets, nb_frames, 2 directions, hidden)
        theirs = np.stack([y[:, 0].cpu().numpy() for y in results]).reshape(4, nb_frames, 2, hidden)
        ours = xp.asnumpy(out).reshape(nb_frames, 4, 2, hidden).transpose(1, 0, 2, 3)
        bound = {"float32": 1e-5, "TF32": 5e-3}[kind]
        recorder.check(f"layer of {hidden} units, {kind}, beside cuDNN", theirs, ours, bound=bound)
        cases = [
            Timed("umx_np", run_ours, cupy_events(xp)),
            Timed("cuDNN", run_theirs, torch_events(torch)),
        ]
        times = take_turns(cases, repeats=context.size(9, 2), seconds=12.0)
    recorder.timings(times, f"layer of {hidden} units, {kind}: ")
    recorder.row(
        f"layer, {_NB_TARGETS} targets, 2 x {hidden} units, {nb_frames} frames, {kind}",
        "ms",
        times["umx_np"],
        peer=f"cuDNN (torch, {kind})",
        theirs=times["cuDNN"],
    )
    for variant, timing in times.items():
        what = f"{variant} with the input product, {kind}"
        _rung(recorder, hidden, what, timing, nb_frames)


def _cudnn_layer(torch: Any, weight_ih: np.ndarray, weight_hh: np.ndarray) -> Any:
    """A bidirectional LSTM layer of torch without biases, on the card."""
    hidden = weight_hh.shape[2]
    layer = torch.nn.LSTM(2 * hidden, hidden, bias=False, bidirectional=True)
    halves = weight_ih.reshape(2, 4 * hidden, 2 * hidden)
    state = {}
    for direction, suffix in enumerate(("", "_reverse")):
        state[f"weight_ih_l0{suffix}"] = torch.from_numpy(halves[direction].copy())
        state[f"weight_hh_l0{suffix}"] = torch.from_numpy(weight_hh[direction].copy())
    layer.load_state_dict(state)
    return to_card(layer).eval()
