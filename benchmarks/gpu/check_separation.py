"""The section ``separation``: whole tracks on the card, against the processor."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from umx_np import Separator
from umx_np.errors import DeviceError
from umx_np.testing import random_bundle_of
from umx_np.weights.bundle import ModelBundle

from . import material
from .check_operations import backend_of
from .context import Context
from .record import Case, Recorder

# Of the stems, float32 all the way: -80 dB.
_BOUND = 1e-4
# What is left out of the four targets is rounding of all of them.
_OPTIONS: dict[str, dict[str, Any]] = {
    "niter=1": {},
    "niter=0": {"niter": 0},
    "niter=2, residual": {"niter": 2, "residual": True},
    "soft masks": {"softmask": True},
    "one filter over the whole track": {"wiener_win_len": None},
    "filterbank as a matrix": {"filterbank": "asteroid", "niter": 0},
}


def cases(context: Context) -> list[Case]:
    """One for each kind of separation."""
    found = [
        Case(f"umxhq, {what}", partial(_compare, context, "umxhq", None, options))
        for what, options in _OPTIONS.items()
    ]
    return [
        *found,
        Case("umxhq, one target", partial(_compare, context, "umxhq", 1, {})),
        Case("umxl", partial(_compare, context, "umxl", None, {})),
        Case("umxse, mono", partial(_compare, context, "umxse", None, {})),
        Case("unidirectional, odd sizes", partial(_odd, context)),
        Case("near mono", partial(_compare, context, "umxhq", 2, {}, side=1e-3)),
        Case("again and from two threads", partial(_repeated, context)),
    ]


def other_device() -> tuple[str, str]:
    """Backend to compare with: the compiled kernels, or else the slow reference.

    Returns
    -------
    device, description : str
    """
    try:
        from umx_np.backends.cpu import CpuBackend

        return "cpu", repr(CpuBackend())
    except DeviceError:
        return "reference", "reference in float32, as the kernels for the processor are missing"


def _compare(
    context: Context,
    name: str,
    targets: int | None,
    options: dict[str, Any],
    recorder: Recorder,
    *,
    side: float = 1.0,
) -> None:
    bundle = material.bundle(context, name, targets)
    rng = context.rng(f"separation {name} {options} {side}")
    # Longer than a filter window, and not a whole number of frames.
    nb_timesteps = context.size(8 * material.RATE + 411, 1500)
    audio = material.song(rng, nb_timesteps, bundle.nb_channels, side=side)
    _check(context, recorder, bundle, audio, options)


def _odd(context: Context, recorder: Recorder) -> None:
    from umx_np.config import ModelConfig

    hidden_size = context.size(200, 12)
    config = ModelConfig(
        nb_bins=context.size(500, 31), hidden_size=hidden_size, nb_layers=2, unidirectional=True
    )
    bundle = random_bundle_of(config, ("a", "b", "c"), seed=context.options.seed)
    rng = context.rng("odd")
    audio = material.song(rng, context.size(2 * material.RATE + 13, 700))
    _check(context, recorder, bundle, audio, {"wiener_win_len": 37})


def _check(
    context: Context,
    recorder: Recorder,
    bundle: ModelBundle,
    audio: np.ndarray,
    options: dict[str, Any],
) -> None:
    device, description = other_device()
    if device == "reference":
        # Slow: a second is enough to see a mistake.
        audio = audio[:, : material.RATE]
    recorder.detail("compared with", description)
    ours = Separator.from_bundle(bundle, device=backend_of(context), **options)
    theirs = Separator.from_bundle(bundle, device=device, **options)
    actual, expected = ours(audio[None]), theirs(audio[None])
    for k, stem in enumerate(ours.stem_names):
        recorder.check(f"{bundle.name}, {stem}", expected[:, k], actual[:, k], bound=_BOUND)


def _repeated(context: Context, recorder: Recorder) -> None:
    """A separator keeps nothing between calls, and calls do not disturb each other."""
    bundle = material.bundle(context, "umxhq", 2)
    rng = context.rng("repeated")
    separator = Separator.from_bundle(bundle, device=backend_of(context))
    lengths = context.size((5 * material.RATE, 3 * material.RATE + 7), (1100, 901))
    songs = [material.song(rng, length)[None] for length in lengths]
    first = [separator(song) for song in songs]
    context.poison()
    again = [separator(song) for song in songs]
    # The emulator runs one launch at a time whatever asks for it.
    with ThreadPoolExecutor(2) as pool:
        together = list(pool.map(separator, songs))
    for k, expected in enumerate(first):
        recorder.check(f"song {k}, again", expected, again[k], bound=0.0)
        recorder.check(f"song {k}, from two threads", expected, together[k], bound=0.0)
