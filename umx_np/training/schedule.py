"""The learning rate of a run, and what becomes of it where the run goes on with other settings."""

from __future__ import annotations

import logging
import math
from collections.abc import Collection
from dataclasses import asdict, dataclass

from ..errors import ConfigError
from ..optim import cosine_rate
from .config import RunConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cosine:
    """A learning rate that falls along a cosine, to zero at the end of the run.

    Attributes
    ----------
    lr : float
        Rate where it begins to fall.
    start : float
        Where that is, in epochs that are done.
    """

    lr: float
    start: float = 0.0

    def __post_init__(self) -> None:
        # From a checkpoint they may be anything.
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise TypeError(f"{name} of the learning rate's curve is no number")
            if not math.isfinite(value):
                raise ValueError(f"{name}={value} of the learning rate's curve is not finite")

    def rate(self, epochs_trained: int, batch: int, nb_batches: int, epochs: int) -> float:
        """Learning rate after so many epochs and batches of a run of `epochs`.

        It depends on the position alone, so a run that is resumed has that of one that was not.
        """
        done = epochs_trained * nb_batches + batch - self.start * nb_batches
        whole = (epochs - self.start) * nb_batches
        # An epoch that begins again begins before a curve that began within it.
        return cosine_rate(self.lr, max(done, 0.0) / whole) if whole > 0 else 0.0

    def to_dict(self) -> dict[str, float]:
        """Plain numbers, for a checkpoint."""
        return asdict(self)


def continued_rate(
    config: RunConfig,
    known: RunConfig,
    cosine: Cosine,
    reached: float,
    position: tuple[int, int, int],
    *,
    given: Collection[str],
) -> tuple[float, Cosine]:
    """Find the learning rate that a continued run goes on with.

    Only a rate that was set makes it higher. Otherwise it is the one that the run has come to, and
    a cosine of another length falls from there.

    Parameters
    ----------
    config, known : RunConfig
        Settings now and before.
    cosine : Cosine
        The curve so far, which counts if `known` asks for one.
    reached : float
        The rate that the optimiser had last.
    position : tuple of int
        Epochs that are done, batches of the next one that are done, batches of an epoch.
    given : collection of str
        Settings that are meant even where they are as before.

    Returns
    -------
    float
        Learning rate of the optimiser.
    Cosine
        The curve, if `config` asks for one.

    Raises
    ------
    ConfigError
        If the rate has come to zero, and no other was set.
    """
    if known.lr_schedule == "cosine":
        reached = cosine.rate(*position, known.epochs)
    epochs_trained, batch, nb_batches = position
    is_set = config.lr != known.lr or "lr" in given
    curves = (known.lr_schedule, known.epochs), (config.lr_schedule, config.epochs)
    if epochs_trained >= config.epochs or (
        curves[0] == curves[1]
        and config.lr_schedule == "cosine"
        # Of a cosine, `lr` is where it begins; said again, it is the same curve.
        and (not is_set or config.lr == cosine.lr)
    ):
        return reached, cosine
    rate = config.lr if is_set else reached
    if rate <= 0.0:
        raise ConfigError(
            f"lr_schedule={known.lr_schedule!r}: the learning rate came to zero with epoch "
            f"{known.epochs}; to go on to epochs={config.epochs}, set lr=..."
        )
    if rate != reached:
        logger.warning("lr changes from %g to %g for the rest of the run", reached, rate)
    if config.lr_schedule == "cosine":
        cosine = Cosine(rate, epochs_trained + batch / nb_batches)
        logger.warning(
            "the learning rate falls from %g now to zero at the end of epoch %d",
            rate,
            config.epochs,
        )
    return rate, cosine
