"""The section ``scans``: every recurrent kernel of inference, against the reference in float64.

Each kernel is a case of its own: one whose blocks wait for each other in vain ends with its process
and leaves the others alone.
"""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from umx_np.layers.lstm import lstm_scan

from . import scans
from .context import Context
from .record import Case, Recorder
from .scans import Variant

if TYPE_CHECKING:
    from umx_np.cuda.scan import Scan

# The error does not grow with the number of frames: what is forgotten takes its error along.
_BOUND = 2e-6
# Most frames of a case are computed in well below a second; a kernel that takes so long hangs.
_SECONDS = 25.0


def cases(context: Context) -> list[Case]:
    """Sizes of umxhq, umxl and umxm, and one that fits nothing; then a whole song."""
    found = []
    sizes = context.size(
        [(256, 8, 210), (512, 8, 110), (128, 8, 210), (100, 3, 150)], [(16, 4, 9), (10, 3, 7)]
    )
    for hidden, nb_sequences, nb_frames in sizes:
        for variant in scans.variants(context, hidden, nb_sequences):
            run = partial(_check, context, variant, nb_sequences, nb_frames)
            found.append(Case(f"{hidden} units: {variant.name}", run, _SECONDS))
    # The size of most songs.
    hidden, nb_sequences, _ = sizes[0]
    for variant in scans.variants(context, hidden, nb_sequences):
        run = partial(_long, context, variant, nb_sequences)
        found.append(Case(f"a song, {hidden} units: {variant.name}", run, _SECONDS))
    return found


@lru_cache(maxsize=2)
def _expected(
    context: Context, nb_sequences: int, nb_frames: int, hidden: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Gates, weights, and in float64 outputs and both final states."""
    rng = context.rng(f"scan {nb_sequences} {nb_frames} {hidden}")
    gates, weights = scans.inputs(rng, nb_sequences, nb_frames, hidden)
    h, c = np.zeros((2, nb_sequences, hidden))
    out = [
        lstm_scan(g.astype(np.float64), w.astype(np.float64), h[k], c[k], reverse=reverse)
        for k, (g, w, reverse) in enumerate(
            zip(gates, weights, scans.directions(nb_sequences), strict=True)
        )
    ]
    return gates, weights, np.stack(out), h, c


def _run(
    context: Context, scan: Scan, given: tuple[np.ndarray, np.ndarray], chunks: list[int]
) -> tuple[np.ndarray, Any]:
    """Outputs of a scan in chunks of frames; rows of outputs lie apart."""
    xp, (gates, weights) = context.xp, map(context.xp.asarray, given)
    nb_sequences, nb_frames, width = gates.shape
    hidden, reverse = width // 4, scans.directions(nb_sequences)
    out = np.full((nb_sequences, nb_frames, hidden), np.nan, np.float32)
    state = scan.initial_state()
    start = 0
    for count in chunks:
        # Backward sequences begin with the last frames.
        spans = [
            slice(nb_frames - start - count, nb_frames - start)
            if r
            else slice(start, start + count)
            for r in reverse
        ]
        some = xp.stack([gates[k, span] for k, span in enumerate(spans)])[:, :, None]
        made = context.nan((count, 1, nb_sequences * hidden + 1))[..., :-1]
        scan.forward(some, weights, made, keep=False, state=state)
        found = xp.asnumpy(xp.ascontiguousarray(made)).reshape(count, nb_sequences, hidden)
        for k, span in enumerate(spans):
            out[k, span] = found[:, k]
        start += count
    return out, state


def _check(
    context: Context, variant: Variant, nb_sequences: int, nb_frames: int, recorder: Recorder
) -> None:
    from umx_np.cuda.scan import Scan

    hidden = variant.plan.hidden
    gates, weights, out, h, c = _expected(context, nb_sequences, nb_frames, hidden)
    context.poison()
    scan = Scan(context.device, hidden, scans.directions(nb_sequences), variant.plan)
    name = f"{hidden} units, {variant.name}"
    recorder.detail(name, {"describe": str(variant.plan), "chosen": variant.chosen})
    third = nb_frames // 3
    for what, chunks in (
        ("at once", [nb_frames]),
        ("in chunks", [third, 1, nb_frames - third - 1]),
    ):
        found, state = _run(context, scan, (gates, weights), chunks)
        recorder.check(f"{name}, {what}", out, found, bound=_BOUND)
        for letter, expected, one in zip("hc", (h, c), context.xp.asnumpy(state), strict=True):
            recorder.check(f"{name}, {what}, {letter}", expected, one[:, 0], bound=_BOUND)


def _long(context: Context, variant: Variant, nb_sequences: int, recorder: Recorder) -> None:
    """As many frames as a song has."""
    from umx_np.cuda.scan import Scan

    nb_frames, hidden = context.size(7752, 40), variant.plan.hidden
    gates, weights, expected = _song(context, nb_sequences, nb_frames, hidden)
    scan = Scan(context.device, hidden, scans.directions(nb_sequences), variant.plan)
    found, _ = _run(context, scan, (gates, weights), [nb_frames])
    again, _ = _run(context, scan, (gates, weights), [nb_frames])
    name = f"{nb_frames} frames, {variant.name}"
    recorder.check(f"{name}, again", found, again, bound=0.0)
    recorder.check(name, expected, found[1], bound=_BOUND)


@lru_cache(maxsize=1)
def _song(
    context: Context, nb_sequences: int, nb_frames: int, hidden: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gates, weights, and what the second sequence, a backward one, gives in float64.

    All of them would take too long.
    """
    gates, weights = scans.inputs(context.rng("song"), nb_sequences, nb_frames, hidden)
    h, c = np.zeros((2, hidden))
    wide = gates[1].astype(np.float64), weights[1].astype(np.float64)
    return gates, weights, lstm_scan(*wide, h, c, reverse=True)
