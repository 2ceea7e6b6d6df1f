"""The section ``training``: scans, gradients, updates and losses, against float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from typing import Any

import numpy as np

from umx_np.backends.training import CounterMasks
from umx_np.config import ModelConfig
from umx_np.dsp.stft import stft
from umx_np.framing.geometry import StftGeometry
from umx_np.nn import TrainableNetwork, mse_loss
from umx_np.optim import SGD, Adam, Optimizer
from umx_np.testing import random_state
from umx_np.training.spectra import DeviceMagnitudes

from . import material, training_scans
from .check_operations import wide
from .context import Context
from .record import Case, Recorder, Skip
from .training_scans import OnCard, Variant

# Relative errors of outputs, and of gradients, which are sums of many.
_OUTPUT = {"float32": 5e-6, "tf32": 2e-3, "bf16": 2e-2}
_GRADIENT = {"float32": 1e-4, "tf32": 1e-2, "bf16": 1e-1}
# Of a single tensor. What adds up to little, as some biases do, keeps the rounding of its terms.
_ONE_GRADIENT = {"float32": 1e-4, "tf32": 1e-1, "bf16": 5e-1}
_MAGNITUDES, _LOSS, _WEIGHTS, _CHANGES = 2e-6, 1e-5, 5e-6, 1e-3
_SECONDS = 25.0
_SETTINGS: dict[str, dict[str, Any]] = {
    "float32": {},
    "tf32": {"tf32": True},
    "bf16": {"amp": True},
}


def cases(context: Context) -> list[Case]:
    """The scans one by one, as they may hang; then what is built of them."""
    found = []
    sizes = context.size([(256, 16, 60), (128, 5, 40), (100, 3, 30)], [(12, 5, 6), (8, 1, 1)])
    for hidden, nb_samples, nb_frames in sizes:
        for variant in training_scans.variants(context, hidden, nb_samples):
            run = partial(_scan, context, variant, nb_samples, nb_frames)
            name = f"scan of {hidden} units, {nb_samples} samples: {variant.name}"
            found.append(Case(name, run, _SECONDS))
    for math in _SETTINGS:
        if has_math(context, math):
            run = partial(_engine, context, math)
            found.append(Case(f"gradients of a network, {math}", run, 90.0))
    return [
        *found,
        Case("updates", partial(_updates, context)),
        Case("magnitudes", partial(_magnitudes, context)),
        Case("ten steps", partial(_ten_steps, context), 90.0),
    ]


def has_math(context: Context, math: str) -> bool:
    """Whether the card rounds operands like this."""
    from umx_np.errors import DeviceError

    try:
        context.device.check_math(math)
    except DeviceError:
        return False
    return True


def backend_name(context: Context) -> str:
    """Name of the card for networks and optimisers."""
    return f"cuda:{context.options.device}"


def training_backend(context: Context) -> Any:
    """The backend of the card.

    Raises
    ------
    Skip
        If a package is missing.
    """
    from umx_np.devices import get_training_backend
    from umx_np.errors import DeviceError

    try:
        return get_training_backend(backend_name(context))
    except DeviceError as error:
        raise Skip(str(error)) from error


# -- scans -----------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _problem(context: Context, nb_frames: int, nb_samples: int, hidden: int) -> Any:
    rng = context.rng(f"training scan {hidden} {nb_samples}")
    given = training_scans.problem(rng, nb_frames, nb_samples, hidden)
    return given, *training_scans.expected(given)


def _scan(
    context: Context, variant: Variant, nb_samples: int, nb_frames: int, recorder: Recorder
) -> None:
    from umx_np.cuda.scan import Scan

    xp, hidden = context.xp, variant.plan.hidden
    given, h, d_gates = _problem(context, nb_frames, nb_samples, hidden)
    context.poison()
    scan = Scan(context.device, hidden, [False, True], variant.plan)
    on_card = OnCard(context, given)
    name = f"{hidden} units, {nb_samples} samples, {variant.name}"
    recorder.detail(name, {"plan": str(variant.plan), "chosen": variant.chosen})
    on_card.forward(scan, keep=False)
    recorder.check(f"{name}, forward only", h, xp.asnumpy(on_card.out), bound=_OUTPUT["float32"])
    on_card.refresh()
    on_card.out.fill(np.nan)
    saved = on_card.forward(scan)
    recorder.check(f"{name}, forward", h, xp.asnumpy(on_card.out), bound=_OUTPUT["float32"])
    found = xp.asnumpy(on_card.backward(scan, saved))
    recorder.check(f"{name}, backward", d_gates, found, bound=_GRADIENT["float32"])


# -- networks --------------------------------------------------------------------------------------


def _config(context: Context) -> ModelConfig:
    if context.options.small:
        return ModelConfig(nb_bins=17, hidden_size=8, max_bin=11)
    return ModelConfig(nb_bins=2049, hidden_size=512, max_bin=1487)


def _batch(
    context: Context, rng: np.random.Generator, config: ModelConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Magnitudes of mixture and target [shape=(T, B, C, bins)], float32."""
    nb_frames, nb_samples = context.size((60, 4), (7, 3))
    mags = material.magnitudes(rng, nb_frames * nb_samples, config)
    x = mags.reshape(nb_frames, nb_samples, *mags.shape[1:])
    return x, (x * rng.uniform(0.0, 1.0, x.shape)).astype(np.float32)


def _engine(context: Context, math: str, recorder: Recorder) -> None:
    training_backend(context)
    context.poison()
    ours = _passes(context, backend_name(context), np.float32, **_SETTINGS[math])
    exact = _exact_passes(context)
    for name, value in exact.items():
        actual = context.xp.asnumpy(ours[name])
        if name == "input_mean":
            # The batch norm takes any mean away: nothing but rounding is left of the gradient.
            scale = float(np.linalg.norm(exact["bn1.bias"]))
            residue = float(np.linalg.norm(actual)) / scale
            recorder.at_most(f"{math}: {name}", residue, _GRADIENT[math], "of bn1.bias")
            continue
        bound = (_OUTPUT if name == "y" else _ONE_GRADIENT)[math]
        recorder.check(f"{math}: {name}", value, actual, bound=bound)
    names = [name for name in exact if name not in ("y", "input", "input_mean")]
    recorder.check(
        f"{math}: all gradients",
        _joined(exact, names),
        _joined({name: context.xp.asnumpy(ours[name]) for name in names}, names),
        bound=_GRADIENT[math],
    )


def _passes(context: Context, backend: str, dtype: Any, **settings: Any) -> dict[str, Any]:
    """Result and gradients of a network with dropout, the same one in every call."""
    config, rng = _config(context), context.rng("engine")
    x, _ = _batch(context, rng, config)
    d_y = rng.standard_normal(x.shape, np.float32)
    state = random_state(config, context.options.seed)
    network = TrainableNetwork(config, state, backend=backend, dtype=dtype, **settings)
    # The reference takes those that the device draws.
    masks: Any = CounterMasks(key=3, rate=0.4)
    if not network._engine.draws_masks:
        masks = _drawn(context, config, masks, x.shape[:2])
    network._draw_masks = lambda *place: masks  # type: ignore[method-assign]
    y, cache = network.forward(x.astype(dtype), rng=rng)
    return {"y": y, **network.backward(d_y.astype(dtype), cache, input_gradient=True)}


def _drawn(
    context: Context, config: ModelConfig, masks: CounterMasks, shape: tuple[int, ...]
) -> list[np.ndarray]:
    """Masks [shape=(hidden_size, T, B)] that the device draws, between the layers."""
    from umx_np.cuda.lstm_stack import LstmStack

    stack, size = LstmStack(context.device, config, "float32"), config.hidden_size
    found = []
    for layer in range(config.nb_layers - 1):
        ones = context.xp.ones((shape[0] * shape[1], size), np.float32)
        stack.drop(ones, masks, layer, ones)
        found.append(context.xp.asnumpy(ones).T.reshape(size, *shape))
    return found


@lru_cache(maxsize=1)
def _exact_passes(context: Context) -> dict[str, Any]:
    return _passes(context, "reference", np.float64)


def _updates(context: Context, recorder: Recorder) -> None:
    training_backend(context)
    config, rng = _config(context), context.rng("updates")
    state = random_state(config, context.options.seed)
    x, _ = _batch(context, rng, config)
    kinds: dict[str, Callable[..., Optimizer]] = {
        "Adam": partial(Adam, lr=1e-3, weight_decay=1e-2),
        "AdamW": partial(Adam, lr=1e-3, weight_decay=1e-2, decoupled=True),
        "SGD": partial(SGD, lr=1e-2, momentum=0.9, nesterov=True),
    }
    for what, kind in kinds.items():
        network = TrainableNetwork(config, state, backend=backend_name(context), dropout=0.0)
        before = network.state_dict()
        exact = {name: wide(before[name]) for name in network.parameters}
        ours = kind(network.parameters, backend=backend_name(context))
        theirs = kind(exact)
        for _ in range(3):
            y, cache = network.forward(x)
            gradients = network.backward(y, cache)
            theirs.step({k: wide(context.xp.asnumpy(gradients[k])) for k in exact})
            ours.step(gradients)
        after = network.state_dict()
        start, end, wanted = (_joined(tensors, exact) for tensors in (before, after, exact))
        # What was changed, which the weights hide.
        recorder.check(f"{what}, three steps", wanted - start, end - start, bound=_CHANGES)
        recorder.check(f"{what}, weights", wanted, end, bound=_WEIGHTS)


def _joined(tensors: Mapping[str, np.ndarray], names: Iterable[str]) -> np.ndarray:
    """Some tensors as one long vector, float64."""
    return np.concatenate([wide(tensors[name]).ravel() for name in names])


def _magnitudes(context: Context, recorder: Recorder) -> None:
    backend, rng = training_backend(context), context.rng("training magnitudes")
    n_fft, n_hop = context.size((4096, 1024), (64, 16))
    nb_timesteps = context.size(material.RATE, 500)
    audio = np.stack([material.song(rng, nb_timesteps) for _ in range(3)])
    nb_frames = StftGeometry(n_fft, n_hop, center=False).nb_frames(nb_timesteps)
    spectra = stft(wide(audio), n_fft, n_hop, center=False, device="reference")
    # (nb_frames, nb_samples, nb_channels, nb_bins)
    exact = np.abs(spectra).transpose(3, 0, 1, 2)[:nb_frames]
    for nb_channels in (2, 1):
        expected = exact if nb_channels == 2 else exact.mean(axis=2, keepdims=True)
        found = context.xp.asnumpy(DeviceMagnitudes(n_fft, n_hop, nb_channels, backend)(audio))
        recorder.check(f"{nb_channels} channels", expected, found, bound=_MAGNITUDES)


def _ten_steps(context: Context, recorder: Recorder) -> None:
    """Losses of a short training, which show mistakes that a single gradient does not."""
    training_backend(context)
    config, rng = _config(context), context.rng("ten steps")
    x, target = _batch(context, rng, config)
    state = random_state(config, context.options.seed)
    losses = []
    for name, dtype in (("reference", np.float64), (backend_name(context), np.float32)):
        network = TrainableNetwork(config, state, backend=name, dtype=dtype, dropout=0.0)
        optimizer = Adam(network.parameters, 1e-3, weight_decay=1e-5, backend=name)
        history = []
        for _ in range(10):
            y, cache = network.forward(x.astype(dtype))
            # The loss of the host, so that engines alone are compared.
            loss, d_y = mse_loss(context.xp.asnumpy(y), target.astype(dtype))
            history.append(loss)
            optimizer.step(network.backward(d_y, cache))
        losses.append(np.array(history))
    recorder.detail("losses", {"float64": losses[0].tolist(), "card": losses[1].tolist()})
    recorder.check("losses of ten steps", losses[0], losses[1], bound=_LOSS)
    recorder.at_most("last loss", losses[1][-1], float(losses[0][0]), "of the first")
