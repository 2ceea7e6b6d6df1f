"""Numbers that a compiled step of an optimiser needs, the same for all elements."""

from __future__ import annotations

import math
from typing import NamedTuple


class AdamScalars(NamedTuple):
    """Arguments of the kernels of Adam, in their order."""

    keep: float
    """What decoupled weight decay leaves of a parameter."""
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
    """Return what a step of Adam computes with; arguments as for `umx_np.optim.adam_update`."""
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
    """Return what a step computes with; arguments as for `umx_np.optim.sgd_update`."""
    # At the first step the velocity is the gradient, and without momentum it always is.
    fresh = first_step or momentum == 0.0
    return SgdScalars(
        lr=lr,
        momentum=momentum,
        keep=0.0 if fresh else momentum,
        take=1.0 if fresh else 1.0 - dampening,
        decay=weight_decay,
    )
