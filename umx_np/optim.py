"""Optimisers, the schedule of the learning rate, and when to stop.

The rules are PyTorch's, to the order of the operations, so that a run can be followed with either.
Optimisers change the arrays they are given in place and keep their state in arrays, which
`state_dict` copies: a run that is stopped and resumed goes on exactly as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from typing import Any

import numpy as np

from ._support.threads import parallel_map, resolve_threads
from .backends.tensors import FlatTensors, HostMemory, fetch
from .config import check_int
from .devices import get_training_backend
from .errors import ConfigError, ShapeError

# Arrays of NumPy, or `FlatTensors` of a device.
Tensors = Mapping[str, Any]
Gradients = Tensors

# Elements that are updated at a time: the temporaries of a part stay in the cache.
_PART = 2**15


def _check_number(name: str, value: float, low: float, high: float = math.inf) -> float:
    """Return a float in [low, high), or raise `ConfigError` naming it."""
    if not isinstance(value, Real) or not low <= value < high:
        raise ConfigError(f"{name}={value} must be at least {low} and less than {high}")
    return float(value)


def _parts(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Walk contiguous arrays of the same shape in parts."""
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, _PART):
        yield tuple(array[start : start + _PART] for array in flat)


def adam_update(
    parameter: np.ndarray,
    gradient: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    step: int,
) -> None:
    """One step of Adam on one tensor; the specification of the compiled one.

    Parameters
    ----------
    parameter : ndarray
        Changed in place.
    gradient : ndarray
        Not changed.
    first, second : ndarray
        Running means of the gradient and of its square, changed in place.
    lr, beta1, beta2, eps, weight_decay, decoupled
        As for `Adam`.
    step : int
        Number of this step, from 1.

    Notes
    -----
    m ← β₁ m + (1 − β₁) g, v ← β₂ v + (1 − β₂) g²,
    p ← p − lr / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + eps);
    weight decay λ adds λ p to g, or, decoupled, first takes lr λ p from p.
    """
    rate = lr / (1.0 - beta1**step)
    root = math.sqrt(1.0 - beta2**step)
    for p, g, m, v in _parts(parameter, gradient, first, second):
        if weight_decay and decoupled:
            p *= 1.0 - lr * weight_decay
        elif weight_decay:
            g = g + weight_decay * p
        m += (1.0 - beta1) * (g - m)
        v *= beta2
        v += (1.0 - beta2) * (g * g)
        p -= rate * (m / (np.sqrt(v) / root + eps))


def sgd_update(
    parameter: np.ndarray,
    gradient: np.ndarray,
    velocity: np.ndarray | None,
    *,
    lr: float,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    dampening: float,
    first_step: bool,
) -> None:
    """One step of stochastic gradient descent on one tensor; see `SGD`.

    `velocity` is changed in place and None without momentum. At the first step it becomes the
    gradient, without dampening.
    """
    for p, g, *rest in _parts(*(a for a in (parameter, gradient, velocity) if a is not None)):
        if weight_decay:
            g = g + weight_decay * p
        if rest:
            (u,) = rest
            if first_step:
                u[...] = g
            else:
                u *= momentum
                u += (1.0 - dampening) * g
            g = g + momentum * u if nesterov else u
        p -= lr * g


class Optimizer:
    """What the optimisers share: parameters, learning rate, step counter, state.

    Parameters
    ----------
    parameters : mapping of str to ndarray
        Changed in place by `step`; contiguous and of a floating dtype.
    lr : float
        Learning rate; may be changed at any time as the attribute `lr`.
    backend : {'reference', 'numba', 'cuda', 'cuda:1', ...}
        NumPy, fused compiled kernels on `threads` threads, or one kernel on the graphics card that
        the parameters are on.
    threads : int or None
        Threads to compute on; None means all cores that this process may use.
    """

    # Names of the arrays kept for each parameter.
    slots: tuple[str, ...] = ()

    def __init__(
        self,
        parameters: Tensors,
        lr: float,
        *,
        backend: str = "reference",
        threads: int | None = None,
    ) -> None:
        for name, array in parameters.items():
            if array.dtype.kind != "f" or not array.flags.c_contiguous:
                raise ShapeError(f"parameter {name!r} must be a contiguous array of floats")
        on_device = isinstance(parameters, FlatTensors)
        if on_device != backend.startswith("cuda"):
            where = "a graphics card" if on_device else "the processor"
            raise ConfigError(f"backend={backend!r}: the parameters are on {where}")
        self.parameters = parameters if on_device else dict(parameters)
        self.lr = _check_number("lr", lr, 0.0)
        self.nb_steps = 0
        self.threads = resolve_threads(threads)
        self._compiled = None
        if backend != "reference":
            self._compiled = get_training_backend(backend, threads)
        self._state: dict[str, Tensors] = {
            slot: _zeros_like(self.parameters) for slot in self.slots
        }

    def step(self, grads: Gradients) -> None:
        """Change all parameters.

        Parameters
        ----------
        grads : mapping of str to ndarray
            A gradient for every parameter, not changed; other names are not looked at. For
            parameters on a graphics card, what `umx_np.nn.TrainableNetwork.backward` returns.

        Raises
        ------
        ShapeError
            If a gradient is missing or has another shape than its parameter. Nothing is changed.
        """
        for name, parameter in self.parameters.items():
            if name not in grads or grads[name].shape != parameter.shape:
                shape = grads[name].shape if name in grads else None
                raise ShapeError(
                    f"the gradient of {name!r} has shape={shape} instead of {parameter.shape}"
                )
        if isinstance(self.parameters, FlatTensors):
            self._step_on_device(self.parameters, grads)
            return
        self.nb_steps += 1
        # Each tensor belongs to one thread; the large ones are dealt out first.
        names = sorted(self.parameters, key=lambda name: -self.parameters[name].size)
        errors = np.geterr()  # the caller's; each thread has its own

        def update(name: str) -> None:
            with np.errstate(**errors):
                slots = [self._state[slot][name] for slot in self.slots]
                self._update(self.parameters[name], grads[name], *slots)

        parallel_map(self.threads, update, names)

    def _step_on_device(self, parameters: FlatTensors, grads: Gradients) -> None:
        """Change all parameters at once, as if they were one tensor."""
        if not isinstance(grads, FlatTensors) or grads.flat.shape != parameters.flat.shape:
            raise ShapeError("the gradients must be those that the network returned")
        self.nb_steps += 1
        slots = [tensors.flat for tensors in self._state.values()]  # type: ignore[attr-defined]
        self._update(parameters.flat, grads.flat, *slots, factor=grads.factor)

    def _update(self, parameter: Any, gradient: Any, *slots: Any, **options: Any) -> None:
        raise NotImplementedError

    def _kernel(self, name: str, reference: Callable[..., None]) -> Callable[..., None]:
        return reference if self._compiled is None else getattr(self._compiled, name)

    def state_dict(self) -> dict[str, np.ndarray]:
        """Copies of everything that a later step depends on, but for the parameters.

        Returns
        -------
        dict of str to ndarray
            ``lr`` (float64), ``nb_steps`` (int64) and ``<slot>.<parameter>``.
        """
        state: dict[str, np.ndarray] = {
            "lr": np.array(self.lr, np.float64),
            "nb_steps": np.array(self.nb_steps, np.int64),
        }
        for slot, arrays in self._state.items():
            copies = fetch(arrays, HostMemory())
            state.update({f"{slot}.{name}": array for name, array in copies.items()})
        return state

    def load_state_dict(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state of `state_dict`.

        Raises
        ------
        ShapeError
            If an array is missing or does not fit. The old state stays.
        """
        wanted = self.state_dict()
        for name, array in wanted.items():
            if name not in state or np.shape(state[name]) != array.shape:
                shape = np.shape(state[name]) if name in state else None
                raise ShapeError(f"state {name!r} has shape={shape} instead of {array.shape}")
        self.lr, self.nb_steps = float(state["lr"]), int(state["nb_steps"])
        for slot, arrays in self._state.items():
            values = {name: state[f"{slot}.{name}"] for name in arrays}
            if isinstance(arrays, FlatTensors):
                arrays.assign(values)
                continue
            for name, array in arrays.items():
                array[...] = values[name]


class Adam(Optimizer):
    """Adam, with weight decay as PyTorch's ``Adam`` or, decoupled, as its ``AdamW``.

    Parameters
    ----------
    parameters, lr, backend, threads
        As for `Optimizer`.
    betas : tuple of float
        How long the means of the gradient and of its square remember.
    eps : float
        Added to the root of the mean square.
    weight_decay : float
        Pull towards zero.
    decoupled : bool
        Whether the pull acts on the parameters directly and not through the gradient.

    References
    ----------
    Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015; Loshchilov and Hutter,
    "Decoupled Weight Decay Regularization", ICLR 2019.
    """

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        parameters: Tensors,
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(parameters, lr, **options)
        beta1, beta2 = betas
        self.betas = (
            _check_number("beta1", beta1, 0.0, 1.0),
            _check_number("beta2", beta2, 0.0, 1.0),
        )
        self.eps = _check_number("eps", eps, 0.0)
        self.weight_decay = _check_number("weight_decay", weight_decay, 0.0)
        self.decoupled = bool(decoupled)

    def _update(self, parameter: Any, gradient: Any, *slots: Any, **options: Any) -> None:
        first, second = slots
        self._kernel("adam_update", adam_update)(
            parameter=parameter,
            gradient=gradient,
            first=first,
            second=second,
            lr=self.lr,
            beta1=self.betas[0],
            beta2=self.betas[1],
            eps=self.eps,
            weight_decay=self.weight_decay,
            decoupled=self.decoupled,
            step=self.nb_steps,
            **options,
        )


class SGD(Optimizer):
    """Stochastic gradient descent with momentum.

    Parameters
    ----------
    parameters, lr, backend, threads
        As for `Optimizer`.
    momentum : float
        Share of the last step that is kept.
    nesterov : bool
        Look ahead along the momentum; needs it, and no dampening.
    weight_decay : float
        Added to the gradient, times the parameter.
    dampening : float
        Takes away from the share of the gradient in the momentum.
    """

    def __init__(
        self,
        parameters: Tensors,
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        dampening: float = 0.0,
        **options: Any,
    ) -> None:
        self.momentum = _check_number("momentum", momentum, 0.0)
        self.slots = ("momentum_buffer",) if self.momentum else ()
        super().__init__(parameters, lr, **options)
        self.dampening = float(dampening)
        self.weight_decay = _check_number("weight_decay", weight_decay, 0.0)
        self.nesterov = bool(nesterov)
        if self.nesterov and (not self.momentum or self.dampening):
            raise ConfigError(
                f"nesterov=True needs momentum={self.momentum} above 0 and "
                f"dampening={self.dampening} of 0"
            )

    def _update(self, parameter: Any, gradient: Any, *slots: Any, **options: Any) -> None:
        self._kernel("sgd_update", sgd_update)(
            parameter=parameter,
            gradient=gradient,
            velocity=slots[0] if slots else None,
            lr=self.lr,
            momentum=self.momentum,
            nesterov=self.nesterov,
            weight_decay=self.weight_decay,
            dampening=self.dampening,
            first_step=self.nb_steps == 1,
            **options,
        )


def _zeros_like(tensors: Tensors) -> Tensors:
    if isinstance(tensors, FlatTensors):
        return tensors.like()
    return {name: np.zeros_like(array) for name, array in tensors.items()}


def clip_grad_norm(grads: Gradients, max_norm: float) -> float:
    """Scale all gradients together, in place, so that their norm is at most `max_norm`.

    Parameters
    ----------
    grads : mapping of str to ndarray
        Gradients, as one long vector.
    max_norm : float
        Largest norm.

    Returns
    -------
    float
        The norm before. If it is not finite the gradients are not either, as in PyTorch.

    Examples
    --------
    >>> grads = {"a": np.array([3.0]), "b": np.array([4.0])}
    >>> clip_grad_norm(grads, 1.0)
    5.0
    >>> grads["b"].round(3)
    array([0.8])
    """
    _check_number("max_norm", max_norm, 0.0)
    if isinstance(grads, FlatTensors):
        return grads.memory.clip(grads, max_norm).value()
    total = 0.0
    for gradient in grads.values():
        for (part,) in _parts(np.ascontiguousarray(gradient)):
            total += float(np.einsum("i,i->", part, part))
    norm = math.sqrt(total)
    share = max_norm / (norm + 1e-6)
    if not share >= 1.0:
        for gradient in grads.values():
            gradient *= gradient.dtype.type(share)
    return norm


class ReduceLROnPlateau:
    """Lower the learning rate when the loss has stopped falling, by PyTorch's rules.

    Parameters
    ----------
    optimizer : Optimizer
        Whose `lr` is lowered.
    factor : float
        What it is multiplied with; below 1.
    patience : int
        Bad epochs that are let pass.
    cooldown : int
        Epochs after a reduction whose bad ones do not count.
    threshold : float
        An epoch is good if its loss is less than the best so far by this share of it.
    min_lr : float
        Never lower than this.
    eps : float
        A reduction by no more than this is left out.
    """

    _STATE = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")

    def __init__(
        self,
        optimizer: Any,
        factor: float = 0.1,
        patience: int = 10,
        cooldown: int = 0,
        threshold: float = 1e-4,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        self.optimizer = optimizer
        self.factor = _check_number("factor", factor, 0.0, 1.0)
        self.patience = check_int("patience", patience, 0)
        self.cooldown = check_int("cooldown", cooldown, 0)
        self.threshold = _check_number("threshold", threshold, 0.0)
        self.min_lr = _check_number("min_lr", min_lr, 0.0)
        self.eps = _check_number("eps", eps, 0.0)
        self.best = math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0
        self.last_epoch = 0

    def step(self, metric: float) -> None:
        """Take note of an epoch's loss; NaN is a bad epoch."""
        self.last_epoch += 1
        # Of losses in dB, which may be negative, the better ones have the larger amount.
        change = self.threshold if self.best >= 0.0 else -self.threshold
        if metric < self.best * (1.0 - change):
            self.best = float(metric)
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            lower = max(self.optimizer.lr * self.factor, self.min_lr)
            if self.optimizer.lr - lower > self.eps:
                self.optimizer.lr = lower
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0

    def state_dict(self) -> dict[str, float]:
        """Plain numbers; the learning rate itself is the optimiser's."""
        return {name: getattr(self, name) for name in self._STATE}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from a state of `state_dict`."""
        for name in self._STATE:
            setattr(self, name, type(getattr(self, name))(state[name]))


def cosine_rate(lr: float, progress: float) -> float:
    """Learning rate that falls along half a period of a cosine, from `lr` to zero.

    Parameters
    ----------
    lr : float
        Rate at the beginning.
    progress : float
        Share of the run that is done, from 0 to 1; more counts as 1.

    Returns
    -------
    float

    Notes
    -----
    Loshchilov and Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, without
    restarts and followed step by step.

    Examples
    --------
    >>> cosine_rate(0.001, 0.0), cosine_rate(0.001, 0.5), cosine_rate(0.001, 1.0)
    (0.001, 0.0005, 0.0)
    """
    return 0.5 * lr * (1.0 + math.cos(math.pi * min(progress, 1.0)))


class EarlyStopping:
    """Tell when the loss has not become better for a while.

    Parameters
    ----------
    patience : int
        Bad epochs in a row after which to stop; 0 never stops.
    min_delta : float
        An epoch is good if its loss is lower than the best so far by more than this.

    Notes
    -----
    An epoch whose loss is NaN or infinite is a bad one like any other and never the best. (Upstream
    stops at once, keeps a NaN of the first epoch as the best for ever, and with a patience of 0
    stops at the second epoch.)
    """

    _STATE = ("best", "num_bad_epochs")

    def __init__(self, patience: int = 10, min_delta: float = 0.0) -> None:
        self.patience = check_int("patience", patience, 0)
        self.min_delta = _check_number("min_delta", min_delta, 0.0)
        self.best = math.inf
        self.num_bad_epochs = 0

    def step(self, metric: float) -> bool:
        """Take note of an epoch's loss; return whether to stop."""
        if metric < self.best - self.min_delta:
            self.best = float(metric)
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        return 0 < self.patience <= self.num_bad_epochs

    def state_dict(self) -> dict[str, float]:
        """Plain numbers."""
        return {name: getattr(self, name) for name in self._STATE}

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from a state of `state_dict`."""
        for name in self._STATE:
            setattr(self, name, type(getattr(self, name))(state[name]))
