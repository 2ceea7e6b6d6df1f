"""Schedules of the learning rate, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Mapping
from numbers import Real
from typing import Any

from ..config import check_int
from ..errors import ConfigError


def check_number(name: str, value: float, low: float, high: float = math.inf) -> float:
    """Return a float in [low, high), or raise `ConfigError` naming it."""
    if not isinstance(value, Real) or not low <= value < high:
        raise ConfigError(f"{name}={value} must be at least {low} and less than {high}")
    return float(value)


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
        self.factor = check_number("factor", factor, 0.0, 1.0)
        self.patience = check_int("patience", patience, 0)
        self.cooldown = check_int("cooldown", cooldown, 0)
        self.threshold = check_number("threshold", threshold, 0.0)
        self.min_lr = check_number("min_lr", min_lr, 0.0)
        self.eps = check_number("eps", eps, 0.0)
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
        self.min_delta = check_number("min_delta", min_delta, 0.0)
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
