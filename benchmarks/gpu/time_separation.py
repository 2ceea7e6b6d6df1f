"""The section ``song``: arrays of samples to arrays of stems, beside openunmix on the same card."""

from __future__ import annotations

import gc
from functools import partial
from typing import Any

import numpy as np

from benchmarks.harness import upstream
from umx_np import Separator
from umx_np.cuda.backend import CudaBackend

from . import material
from .card import working_status
from .context import Context
from .peers import arithmetic, openunmix_on_card, to_card
from .record import Case, Recorder, Skip, relative_error
from .timing import Timed, host_clock, take_turns

# Lengths in seconds: the first that PyTorch has memory for is compared.
_LENGTHS = (180.0, 60.0, 20.0)
# Of the stems: upstream's filter computes in float32 and loses digits where channels are alike.
_AGREEMENT = {"float32": 1e-3, "TF32": 5e-2}
_PRECISIONS = {"float32": "full", "TF32": "fast"}


def cases(context: Context) -> list[Case]:
    """Ours by itself first, so that there is a figure whatever happens to the peer."""
    found = []
    for name in ("umxhq", "umxl"):
        found.append(Case(f"{name}, alone", partial(_alone, context, name), 90.0))
        for kind in _PRECISIONS:
            case = partial(_beside, context, name, kind)
            found.append(Case(f"{name}, beside openunmix, {kind}", case, 120.0))
    case = partial(_beside, context, "umxhq", "defaults")
    found.append(Case("umxhq, beside openunmix as it is", case, 120.0))
    return found


def _separator(context: Context, name: str, precision: str) -> Separator:
    bundle = material.bundle(context, name)
    return Separator.from_bundle(bundle, niter=1, device=CudaBackend(context.device, precision))


def _song(context: Context, name: str, seconds: float) -> np.ndarray:
    nb_timesteps = context.size(round(seconds * material.RATE), 1500)
    return material.song(context.rng(f"song {name}"), nb_timesteps)[None]


def _alone(context: Context, name: str, recorder: Recorder) -> None:
    pool = context.xp.get_default_memory_pool()
    song = _song(context, name, _LENGTHS[0])
    for kind, precision in _PRECISIONS.items():
        separator = _separator(context, name, precision)
        context.release()
        timed = Timed(kind, partial(separator, song), host_clock(context.device.synchronize))
        timing = take_turns([timed], repeats=context.size(7, 2), seconds=15.0)[kind]
        recorder.timings({f"{name}, {kind}, alone": timing})
        figure = f"{song.shape[-1] / material.RATE:g} s, {name}, {kind}"
        recorder.row(f"separate {figure}", "s", timing)
        recorder.row(f"memory for {figure}", "MB", pool.total_bytes() / 1e6)
        del separator, timed
        gc.collect()
    recorder.detail(f"status_after_{name}", working_status(context))


def _beside(context: Context, name: str, kind: str, recorder: Recorder) -> None:
    up = openunmix_on_card(context, "model")
    torch = up.torch
    ours = _separator(context, name, _PRECISIONS.get(kind, "full"))
    theirs = to_card(upstream.separator(up, material.bundle(context, name), niter=1))

    def run_theirs(song: np.ndarray) -> np.ndarray:
        # As with ours, the samples begin and end in memory of the host.
        return theirs(to_card(torch.from_numpy(song))).cpu().numpy()

    with torch.inference_mode(), arithmetic(torch, kind):
        song, expected = _longest(context, name, torch, run_theirs)
        actual = ours(song)
        bound = _AGREEMENT.get(kind, _AGREEMENT["TF32"])
        for k, stem in enumerate(ours.target_names):
            error = relative_error(expected[:, k], actual[:, k])
            recorder.at_most(f"{name}, {stem}, beside torch", error, bound, "relative error")
        del actual, expected
        context.release()
        torch.cuda.reset_peak_memory_stats()
        cases = [
            Timed("umx_np", partial(ours, song), host_clock(context.device.synchronize)),
            Timed("openunmix", partial(run_theirs, song), host_clock(torch.cuda.synchronize)),
        ]
        # The comparison warmed both up.
        times = take_turns(cases, repeats=context.size(7, 2), seconds=30.0, warmup=1)
    seconds, peer = song.shape[-1] / material.RATE, f"openunmix (torch, {kind})"
    recorder.timings(times, f"{name}, {kind}: ")
    recorder.row(
        f"separate {seconds:g} s, {name}, {'float32' if kind == 'defaults' else kind}",
        "s",
        times["umx_np"],
        peer=peer,
        theirs=times["openunmix"],
        headline=kind != "defaults",
    )
    recorder.row(
        f"memory for {seconds:g} s, {name}",
        "MB",
        context.xp.get_default_memory_pool().total_bytes() / 1e6,
        peer=peer,
        theirs=torch.cuda.max_memory_reserved() / 1e6,
    )


def _longest(context: Context, name: str, torch: Any, run: Any) -> tuple[np.ndarray, np.ndarray]:
    """The longest song that PyTorch has memory for, and its stems."""
    for seconds in _LENGTHS:
        song = _song(context, name, seconds)
        try:
            return song, run(song)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
    raise Skip(f"openunmix has too little memory for {_LENGTHS[-1]:g} s")
