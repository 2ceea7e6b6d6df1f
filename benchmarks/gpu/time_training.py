"""The section ``steps``: a step of training from waveforms to changed weights, beside PyTorch.

A step is that of the trainer: STFT of mixture and target, both passes with dropout, mean squared
error, Adam with weight decay. The waveforms are on the card already. Both programs read the loss of
every step.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.harness import upstream
from benchmarks.harness.timing import Timing
from umx_np.config import ModelConfig
from umx_np.nn import TrainableNetwork
from umx_np.nn.network import DROPOUT
from umx_np.optim import Adam
from umx_np.testing import random_state
from umx_np.training import TrainConfig
from umx_np.training.steps import make_steps
from umx_np.weights.bundle import TargetWeights

from . import material, training_scans
from .card import working_status
from .check_training import backend_name, has_math, training_backend
from .context import Context
from .peers import arithmetic, mixed_precision, openunmix_on_card, to_card
from .record import Case, Recorder, Skip
from .timing import Timed, cupy_events, host_clock, take_turns
from .training_scans import OnCard, Variant

_BATCH, _SECONDS = 16, 6.0
_LEARNING_RATE, _WEIGHT_DECAY = 1e-3, 1e-5
# Kinds of matrix products, and their names in `Device.gemm`.
_KINDS = {"float32": "float32", "TF32": "tf32", "bf16": "bf16"}
# Relative difference of the losses of the first steps.
_LOSSES_WITHIN = {"float32": 1e-4, "TF32": 1e-2, "bf16": 5e-2}
_COMPARED_STEPS = 4

Step = Callable[[Any, Any], float]


def cases(context: Context) -> list[Case]:
    """Beside PyTorch, by itself, and the scans one by one."""
    found = [
        Case(f"beside torch, {kind}", partial(_beside, context, kind), 90.0) for kind in _KINDS
    ]
    found += [Case(f"alone, {kind}", partial(_alone, context, kind)) for kind in _KINDS]
    hidden, nb_samples = context.size((256, _BATCH), (8, 3))
    for variant in training_scans.variants(context, hidden, nb_samples):
        run = partial(_scan, context, variant, nb_samples)
        found.append(Case(f"scan, {variant.name}", run, 30.0))
    return found


# -- a step ----------------------------------------------------------------------------------------


def _config(context: Context) -> tuple[TrainConfig, ModelConfig]:
    """Settings of Open-Unmix's defaults."""
    if context.options.small:
        sizes: dict[str, Any] = {"n_fft": 64, "n_hop": 16, "hidden_size": 16}
        model = ModelConfig(nb_bins=33, hidden_size=16, max_bin=25)
    else:
        sizes = {"n_fft": 4096, "n_hop": 1024, "hidden_size": 512}
        model = ModelConfig(nb_bins=2049, hidden_size=512, max_bin=1487)
    config = TrainConfig(
        target="noise",
        output="nowhere",  # nothing is written
        lr=_LEARNING_RATE,
        weight_decay=_WEIGHT_DECAY,
        **sizes,
    )
    return config, model


def _batch(context: Context) -> tuple[np.ndarray, np.ndarray]:
    """Mixture and target [shape=(nb_samples, 2, nb_timesteps)], float32."""
    nb_samples, nb_timesteps = context.size((_BATCH, round(_SECONDS * material.RATE)), (3, 400))
    rng = context.rng("batch")
    target = 0.1 * rng.standard_normal((nb_samples, 2, nb_timesteps), np.float32)
    return target + 0.1 * rng.standard_normal(target.shape, np.float32), target


def our_step(context: Context, kind: str, dropout: float = DROPOUT) -> Step:
    """The trainer's step on the card."""
    config, model = _config(context)
    network = TrainableNetwork(
        model,
        random_state(model, 1),
        backend=backend_name(context),
        dropout=dropout,
        amp=kind == "bf16",
        tf32=kind == "TF32",
    )
    optimizer = Adam(
        network.parameters, config.lr, weight_decay=config.weight_decay, backend=network.backend
    )
    steps = make_steps(config, network, optimizer, material.RATE)
    rng = np.random.default_rng(0)
    return lambda x, y: steps.train(x, y, rng)


def their_step(context: Context, kind: str, dropout: float = DROPOUT) -> Step:
    """That of Open-Unmix's script, with the optimiser as one kernel, PyTorch's fastest."""
    up = openunmix_on_card(context, "model", "transforms")
    torch = up.torch
    config, model = _config(context)
    network = to_card(upstream.network(up, TargetWeights(model, random_state(model, 1))))
    for parameter in network.parameters():
        parameter.requires_grad = True
    network.lstm.dropout = dropout
    network.train()
    stft, _ = up.transforms.make_filterbanks(
        n_fft=config.n_fft, n_hop=config.n_hop, center=False, sample_rate=float(material.RATE)
    )
    encoder = to_card(torch.nn.Sequential(stft, up.model.ComplexNorm(mono=False)))
    optimizer = torch.optim.Adam(
        network.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
    )
    is_mixed = kind == "bf16"

    def step(mixture: Any, target: Any) -> float:
        x, wanted = encoder(mixture), encoder(target)
        optimizer.zero_grad()
        with mixed_precision(torch, enabled=is_mixed):
            estimate = network(x)
        loss = torch.nn.functional.mse_loss(estimate.float(), wanted)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def _check_kind(context: Context, kind: str) -> None:
    training_backend(context)
    if not has_math(context, _KINDS[kind]):
        raise Skip(f"{context.device!r} has no products of {kind}")


def _alone(context: Context, kind: str, recorder: Recorder) -> None:
    _check_kind(context, kind)
    x, y = (context.xp.asarray(part) for part in _batch(context))
    step = our_step(context, kind)
    context.release()
    timed = Timed(kind, lambda: step(x, y), host_clock(context.device.synchronize))
    timing = take_turns(
        [timed], repeats=context.size(31, 2), seconds=5.0, warmup=context.size(3, 1)
    )[kind]
    recorder.timings({f"alone, {kind}": timing})
    recorder.row(_figure(context, kind), "ms", timing)
    recorder.row(f"memory of training, {kind}", "MB", _pool_megabytes(context))
    recorder.detail(f"status_after_{kind}", working_status(context))


def _beside(context: Context, kind: str, recorder: Recorder) -> None:
    torch = openunmix_on_card(context, "model", "transforms").torch
    _check_kind(context, kind)
    batch = _batch(context)
    ours = [context.xp.asarray(part) for part in batch]
    theirs = [to_card(torch.from_numpy(part)) for part in batch]
    with arithmetic(torch, "TF32" if kind == "bf16" else kind):
        # Without dropout, whose random numbers differ.
        steps = {"umx_np": our_step(context, kind, 0.0), "torch": their_step(context, kind, 0.0)}
        losses = {
            name: [steps[name](*part) for _ in range(_COMPARED_STEPS)]
            for name, part in (("umx_np", ours), ("torch", theirs))
        }
        recorder.detail(f"losses, {kind}", losses)
        recorder.check(
            f"losses of {_COMPARED_STEPS} steps, {kind}, beside torch",
            np.array(losses["torch"]),
            np.array(losses["umx_np"]),
            bound=_LOSSES_WITHIN[kind],
        )
        del steps
        gc.collect()
        context.release()
        torch.cuda.reset_peak_memory_stats()
        mine, other = our_step(context, kind), their_step(context, kind)
        cases = [
            Timed("umx_np", lambda: mine(*ours), host_clock(context.device.synchronize)),
            Timed("torch", lambda: other(*theirs), host_clock(torch.cuda.synchronize)),
        ]
        times = take_turns(
            cases, repeats=context.size(31, 2), seconds=15.0, warmup=context.size(3, 1)
        )
    peer = f"openunmix (torch, {kind}, Adam fused=True)"
    recorder.timings(times, f"step, {kind}: ")
    recorder.row(
        _figure(context, kind),
        "ms",
        times["umx_np"],
        peer=peer,
        theirs=times["torch"],
        headline=kind != "bf16",
    )
    recorder.row(
        f"memory of training, {kind}",
        "MB",
        _pool_megabytes(context),
        peer=peer,
        theirs=torch.cuda.max_memory_reserved() / 1e6,
    )


def _figure(context: Context, kind: str) -> str:
    nb_samples, hidden = context.size((_BATCH, 512), (3, 16))
    return f"training step, batch {nb_samples} x {_SECONDS:g} s, hidden {hidden}, {kind}"


def _pool_megabytes(context: Context) -> float:
    """Bytes that CuPy has taken of the device since memory was last given back."""
    return context.xp.get_default_memory_pool().total_bytes() / 1e6


# -- scans -----------------------------------------------------------------------------------------


def _scan(context: Context, variant: Variant, nb_samples: int, recorder: Recorder) -> None:
    from umx_np.cuda.scan import Scan

    nb_frames, hidden = context.size(255, 6), variant.plan.hidden
    given = training_scans.problem(context.rng("time"), nb_frames, nb_samples, hidden)
    scan = Scan(context.device, hidden, [False, True], variant.plan)
    on_card = OnCard(context, given)
    saved = on_card.forward(scan)
    assert saved is not None
    activations = saved.gates.copy()
    events = cupy_events(context.xp)

    # Both passes write over what they read.
    def forward(run: Callable[[], Any]) -> float:
        on_card.refresh()
        return events(run)

    def backward(run: Callable[[], Any]) -> float:
        saved.gates[...] = activations
        return events(run)

    cases = [
        Timed("forward", lambda: on_card.forward(scan), forward),
        Timed("backward", lambda: on_card.backward(scan, saved), backward),
    ]
    for name, timing in take_turns(cases, repeats=context.size(15, 2), seconds=6.0).items():
        recorder.timings({f"{variant.name}, {name}": timing})
        _rung(recorder, variant, name, timing, (nb_frames, nb_samples, hidden))


def _rung(
    recorder: Recorder, variant: Variant, name: str, timing: Timing, sizes: tuple[int, int, int]
) -> None:
    nb_frames, nb_samples, hidden = sizes
    per_frame = timing.median / nb_frames
    work = 1e-12 * 2.0 * 2 * nb_samples * 4 * hidden * hidden
    recorder.rung(
        f"training scan, {name}, 2 x {hidden} units, {nb_samples} samples",
        variant.name,
        1e6 * per_frame,
        time_unit="us a frame",
        rate=work / per_frame if per_frame else 0.0,
        unit="TFLOP/s",
        chosen=variant.chosen,
        brief=variant.chosen,
    )
