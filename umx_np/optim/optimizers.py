"""Optimisers: parameters, learning rate, step counter and state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._support.threads import resolve_threads
from ..backends.tensors import Tensors, as_tensors
from ..devices import get_training_backend
from ..errors import ConfigError, ShapeError
from .schedules import check_number


class Optimizer:
    """Base of the optimisers: parameters, learning rate, step counter, state.

    Parameters
    ----------
    parameters : mapping of str to ndarray
        Changed in place by `step`; contiguous and of a floating dtype.
    lr : float
        Learning rate; may be changed at any time as the attribute `lr`.
    backend : {'reference', 'numba', 'cuda', 'cuda:1', ...}
        NumPy, fused compiled kernels on `threads` threads, or one kernel on the CUDA device that
        the parameters are on.
    threads : int or None
        Threads to compute on; None means all cores that this process may use.
    """

    # Names of the arrays kept for each parameter.
    slots: tuple[str, ...] = ()

    def __init__(
        self,
        parameters: Mapping[str, Any],
        lr: float,
        *,
        backend: str = "reference",
        threads: int | None = None,
    ) -> None:
        for name, array in parameters.items():
            if array.dtype.kind != "f" or not array.flags.c_contiguous:
                raise ShapeError(f"parameter {name!r} must be a contiguous array of floats")
        self._backend = get_training_backend(backend, threads)
        self.parameters = as_tensors(parameters)
        place = self.parameters.memory.name
        if place != self._backend.memory.name:
            raise ConfigError(f"backend={backend!r}: the parameters are on {place}")
        self.lr = check_number("lr", lr, 0.0)
        self.nb_steps = 0
        self.threads = resolve_threads(threads)
        self._state: dict[str, Tensors] = {
            slot: self.parameters.zeros_like() for slot in self.slots
        }

    def step(self, grads: Mapping[str, Any]) -> None:
        """Change all parameters.

        Parameters
        ----------
        grads : mapping of str to ndarray
            A gradient for every parameter, not changed; other names are not looked at. For
            parameters on a CUDA device, what `umx_np.nn.TrainableNetwork.backward` returns.

        Raises
        ------
        ShapeError
            If a gradient is missing or has another shape than its parameter. Nothing is changed.
        """
        grads = self.parameters.checked(grads)
        self.nb_steps += 1
        slots = [*self._state.values()]
        self.parameters.apply_update(self._update, grads, slots, self.threads)

    def _update(self, parameter: Any, gradient: Any, *slots: Any, **options: Any) -> None:
        raise NotImplementedError

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
            copies = arrays.to_host()
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
            arrays.assign({name: state[f"{slot}.{name}"] for name in arrays})


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
        parameters: Mapping[str, Any],
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
            check_number("beta1", beta1, 0.0, 1.0),
            check_number("beta2", beta2, 0.0, 1.0),
        )
        self.eps = check_number("eps", eps, 0.0)
        self.weight_decay = check_number("weight_decay", weight_decay, 0.0)
        self.decoupled = bool(decoupled)

    def _update(self, parameter: Any, gradient: Any, *slots: Any, **options: Any) -> None:
        first, second = slots
        self._backend.adam_update(
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
        parameters: Mapping[str, Any],
        lr: float,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        dampening: float = 0.0,
        **options: Any,
    ) -> None:
        self.momentum = check_number("momentum", momentum, 0.0)
        self.slots = ("momentum_buffer",) if self.momentum else ()
        super().__init__(parameters, lr, **options)
        self.dampening = float(dampening)
        self.weight_decay = check_number("weight_decay", weight_decay, 0.0)
        self.nesterov = bool(nesterov)
        if self.nesterov and (not self.momentum or self.dampening):
            raise ConfigError(
                f"nesterov=True needs momentum={self.momentum} above 0 and "
                f"dampening={self.dampening} of 0"
            )

    def _update(self, parameter: Any, gradient: Any, *slots: Any, **options: Any) -> None:
        self._backend.sgd_update(
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


def clip_grad_norm(grads: Mapping[str, Any], max_norm: float) -> float:
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
    check_number("max_norm", max_norm, 0.0)
    return as_tensors(grads).clip(max_norm).value()
