"""The backend: engines and updates of parameters, on some threads."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...config import ModelConfig
from .._pool import resolve_threads
from .engine import NumbaEngine
from .updates import update_kernels


class NumbaBackend:
    """See `umx_np.backends.training.TrainingBackend`.

    Parameters
    ----------
    threads : int or None
        Threads to compute on; None means all cores that this process may use.
    """

    name = "numba"

    def __init__(self, threads: int | None = None) -> None:
        self.threads = resolve_threads(threads)

    def __repr__(self) -> str:
        return f"numba ({self.threads} threads)"

    def engine(self, config: ModelConfig, dtype: np.dtype) -> NumbaEngine:
        return NumbaEngine(config, np.dtype(dtype), self.threads)

    def adam_update(
        self,
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
        update_kernels(parameter.dtype).adam(
            *_flat(parameter, gradient, first, second),
            1.0 - lr * weight_decay if decoupled else 1.0,
            0.0 if decoupled else weight_decay,
            1.0 - beta1,
            beta2,
            1.0 - beta2,
            lr / (1.0 - beta1**step),
            math.sqrt(1.0 - beta2**step),
            eps,
        )

    def sgd_update(
        self,
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
        fresh = velocity is None or first_step
        # Without momentum there is no velocity to keep; the kernel writes it somewhere.
        kept = np.zeros_like(parameter) if velocity is None else velocity
        update_kernels(parameter.dtype).sgd(
            *_flat(parameter, gradient, kept),
            lr,
            momentum,
            0.0 if fresh else momentum,
            1.0 if fresh else 1.0 - dampening,
            weight_decay,
            nesterov,
        )


def _flat(*arrays: np.ndarray) -> list[Any]:
    dtype = arrays[0].dtype
    return [np.ascontiguousarray(array, dtype=dtype).reshape(-1) for array in arrays]
