"""Rules of the optimisers in NumPy, and the numbers that a compiled step of them needs."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .tensors import parts


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
        As for `umx_np.optim.Adam`.
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
    for p, g, m, v in parts(parameter, gradient, first, second):
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
    """One step of stochastic gradient descent on one tensor; see `umx_np.optim.SGD`.

    `velocity` is changed in place and None without momentum. At the first step it becomes the
    gradient, without dampening.
    """
    for p, g, *rest in parts(*(a for a in (parameter, gradient, velocity) if a is not None)):
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


class AdamScalars(NamedTuple):
    """Arguments of the kernels of Adam, in their order."""

    keep: float
    """Share of a parameter that decoupled weight decay leaves."""
    decay: float
    """Share of the parameter that other weight decay adds to the gradient."""
    rest1: float
    """Share of the gradient in its running mean."""
    beta2: float
    """Share of the old mean of squares in the new one."""
    rest2: float
    """Share of the squared gradient in its running mean."""
    rate: float
    """Learning rate over the bias of the mean."""
    root: float
    """Square root of the bias of the mean of squares."""
    eps: float


def adam_scalars(
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    step: int,
) -> AdamScalars:
    """Return what a step of Adam computes with; arguments as for `adam_update`."""
    return AdamScalars(
        keep=1.0 - lr * weight_decay if decoupled else 1.0,
        decay=0.0 if decoupled else weight_decay,
        rest1=1.0 - beta1,
        beta2=beta2,
        rest2=1.0 - beta2,
        rate=lr / (1.0 - beta1**step),
        root=math.sqrt(1.0 - beta2**step),
        eps=eps,
    )


class SgdScalars(NamedTuple):
    """Arguments of the kernels of stochastic gradient descent, in their order."""

    lr: float
    momentum: float
    keep: float
    """Share of the old velocity in the new one."""
    take: float
    """Share of the gradient in it."""
    decay: float
    """Share of the parameter that weight decay adds to the gradient."""


def sgd_scalars(
    *, lr: float, momentum: float, weight_decay: float, dampening: float, first_step: bool
) -> SgdScalars:
    """Return what a step computes with; arguments as for `sgd_update`."""
    # At the first step the velocity is the gradient, and without momentum it always is.
    fresh = first_step or momentum == 0.0
    return SgdScalars(
        lr=lr,
        momentum=momentum,
        keep=0.0 if fresh else momentum,
        take=1.0 if fresh else 1.0 - dampening,
        decay=weight_decay,
    )
