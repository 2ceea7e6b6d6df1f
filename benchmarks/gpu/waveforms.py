"""The section ``waveforms``: networks trained together behind the Wiener filter.

Stems and gradients against the processor in double precision, then the time of a step on a squared
error, with running statistics, and of its parts. The waveforms are on the card already.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from umx_np.config import ModelConfig
from umx_np.optim import Adam, clip_grad_norm
from umx_np.testing import random_bundle_of
from umx_np.training import WaveformSeparator

from . import material
from .check_training import backend_name, has_math, training_backend
from .context import Context
from .record import Case, Recorder, Skip
from .timing import Timed, host_clock, take_turns

_TARGETS = ("vocals", "drums", "bass", "other")
_BATCH, _SECONDS = 8, 3.0
# Settings of the networks, and what their products are named in `Device.gemm`.
_KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "float32": ({}, "float32"),
    "TF32": ({"tf32": True}, "tf32"),
    "bf16": ({"amp": True}, "bf16"),
}
_STEMS, _GRADIENTS = 1e-4, 1e-3


def cases(context: Context) -> list[Case]:
    """List the cases; what is right comes first."""
    return [
        Case("stems and gradients", partial(_check, context), 90.0),
        *(Case(f"a step, {kind}", partial(_step, context, kind), 40.0) for kind in _KINDS),
    ]


def _separator(context: Context, **settings: Any) -> WaveformSeparator:
    sizes = context.size(
        {"nb_bins": 2049, "hidden_size": 384, "max_bin": 1487}, {"nb_bins": 33, "hidden_size": 8}
    )
    bundle = random_bundle_of(ModelConfig(**sizes), _TARGETS, seed=context.options.seed)
    return WaveformSeparator.from_bundle(bundle, niter=1, **settings)


def _stems(context: Context, nb_samples: int, nb_timesteps: int) -> np.ndarray:
    """Sounds of the targets [shape=(nb_samples, nb_stems, 2, nb_timesteps)], float32."""
    rng = context.rng("waveforms")
    songs = [[material.song(rng, nb_timesteps) for _ in _TARGETS] for _ in range(nb_samples)]
    return 0.25 * np.array(songs, np.float32)


def _check(context: Context, recorder: Recorder) -> None:
    training_backend(context)
    truth = _stems(context, 2, context.size(material.RATE, 500))
    found = []
    for settings in (
        {"backend": "reference", "dtype": np.float64},
        {"backend": backend_name(context)},
    ):
        separator = _separator(context, **settings)
        context.poison()
        with separator.computing():
            wanted = separator.asarray(truth)
            stems, cache = separator.forward(wanted.sum(axis=1), training=False)
            gradients = separator.backward(stems - wanted, cache)
            arrays = {
                f"{target}: {name}": context.xp.asnumpy(gradient)
                for target, parts in gradients.items()
                for name, gradient in parts.items()
                if name != "input_mean"  # nothing but rounding is left of some of its gradients
            }
            found.append((context.xp.asnumpy(stems), arrays))
    (exact, exact_gradients), (actual, gradients) = found
    recorder.check("stems", exact, actual, bound=_STEMS)
    recorder.check(
        "all gradients",
        np.concatenate([array.ravel() for array in exact_gradients.values()]),
        np.concatenate([gradients[name].ravel() for name in exact_gradients]),
        bound=_GRADIENTS,
    )


def _step(context: Context, kind: str, recorder: Recorder) -> None:
    settings, math = _KINDS[kind]
    training_backend(context)
    if not has_math(context, math):
        raise Skip(f"{context.device!r} has no products of {kind}")
    context.release()
    name = backend_name(context)
    separator = _separator(context, backend=name, **settings)
    optimizers = {
        target: Adam(network.parameters, 1e-5, backend=name)
        for target, network in separator.networks.items()
    }
    nb_samples, nb_timesteps = context.size((_BATCH, round(_SECONDS * material.RATE)), (2, 400))
    truth = separator.asarray(_stems(context, nb_samples, nb_timesteps))
    mixture = truth.sum(axis=1)

    def forward() -> Any:
        with separator.computing():
            return separator.forward(mixture, training=False)

    def both() -> Any:
        stems, cache = forward()
        with separator.computing():
            return separator.backward(stems - truth, cache)

    def step() -> None:
        for target, gradients in both().items():
            clip_grad_norm(gradients, 1.0)
            optimizers[target].step(gradients)

    timed = {"forward": forward, "forward and backward": both, "step": step}
    clock = host_clock(context.device.synchronize)
    times = take_turns(
        [Timed(part, run, clock) for part, run in timed.items()],
        repeats=context.size(15, 2),
        seconds=12.0,
        warmup=context.size(2, 1),
    )
    recorder.timings(times, f"{kind}: ")
    what = f"step on waveforms of {len(_TARGETS)} networks, {nb_samples} x {_SECONDS:g} s, {kind}"
    recorder.row(what, "ms", times["step"])
