"""Records of a run, and the files that tell others about it."""

from __future__ import annotations

import math
import subprocess
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .._support.programs import run_program
from ..errors import shortened

_GIT_TIMEOUT = 10.0


def _is_count(value: object) -> bool:
    # Compared with numbers of batches, and written down.
    return type(value) is int and 0 <= value < 1 << 53


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _are_numbers(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


@dataclass
class RunRecord:
    """Where a run is, and what came before.

    Attributes
    ----------
    epoch : int
        The epoch that is under way, from 1.
    batch : int
        Batches of it that are done.
    loss_sum : float
        Sum over its samples of the loss.
    nb_seen : int
        Samples in that sum.
    seconds : float
        Time spent on it.
    best_epoch, best_loss
        Epoch with the lowest validation loss, and that loss; None before there is one.
    train_loss_history, valid_loss_history, train_time_history : list of float
        One number for each finished epoch; times in seconds.
    """

    epoch: int = 1
    batch: int = 0
    loss_sum: float = 0.0
    nb_seen: int = 0
    seconds: float = 0.0
    best_epoch: int | None = None
    best_loss: float | None = None
    train_loss_history: list[float] = field(default_factory=list)
    valid_loss_history: list[float] = field(default_factory=list)
    train_time_history: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        # A checkpoint may hold anything.
        checks = {"int": _is_count, "float": _is_number, "list[float]": _are_numbers}
        for description in fields(self):
            value, kinds = getattr(self, description.name), str(description.type).split(" | ")
            if not (checks[kinds[0]](value) or (value is None and "None" in kinds)):
                raise TypeError(f"{description.name}={shortened(value)} is no {kinds[0]}")

    @property
    def epochs_trained(self) -> int:
        """Epochs that are finished."""
        return self.epoch - 1

    @property
    def mean_loss(self) -> float:
        """Loss of a sample in this epoch, on average over the samples.

        (Upstream's average counts every batch alike, also a last one that is short.)
        """
        return self.loss_sum / self.nb_seen if self.nb_seen else math.nan

    def add_batch(self, loss: float, nb_samples: int) -> None:
        """Count a batch."""
        self.batch += 1
        self.loss_sum += loss * nb_samples
        self.nb_seen += nb_samples

    def restart_epoch(self) -> None:
        """Forget the batches of the epoch under way."""
        self.batch, self.loss_sum, self.nb_seen, self.seconds = 0, 0.0, 0, 0.0

    def finish_epoch(self, valid_loss: float) -> bool:
        """Close the epoch; return whether its validation loss is the lowest so far."""
        is_best = valid_loss < (math.inf if self.best_loss is None else self.best_loss)
        if is_best:
            self.best_epoch, self.best_loss = self.epoch, valid_loss
        self.train_loss_history.append(self.mean_loss)
        self.valid_loss_history.append(valid_loss)
        self.train_time_history.append(self.seconds)
        self.epoch += 1
        self.restart_epoch()
        return is_best

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, for a checkpoint."""
        return asdict(self)

    @classmethod
    def from_results(cls, results: dict[str, Any]) -> RunRecord:
        """Take over what Open-Unmix's trainer wrote to ``<target>.json``."""
        return cls(
            epoch=int(results["epochs_trained"]) + 1,
            best_epoch=results.get("best_epoch"),
            best_loss=results.get("best_loss"),
            train_loss_history=list(results["train_loss_history"]),
            valid_loss_history=list(results["valid_loss_history"]),
            train_time_history=list(results["train_time_history"]),
        )


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes
    ----------
    reason : {'epochs', 'patience', 'stopped'}
        All epochs are done, the loss no longer fell, or `stop` of the trainer was called.
    epochs_trained : int
        Finished epochs, those before a continuation included.
    best_epoch, best_loss
        Epoch with the lowest validation loss, and that loss.
    train_losses, valid_losses : tuple of float
        One number for each epoch.
    """

    reason: str
    epochs_trained: int
    best_epoch: int | None
    best_loss: float | None
    train_losses: tuple[float, ...]
    valid_losses: tuple[float, ...]

    @classmethod
    def of(cls, record: RunRecord, reason: str) -> TrainResult:
        """Take what a run has come to from its record."""
        return cls(
            reason,
            record.epochs_trained,
            record.best_epoch,
            record.best_loss,
            tuple(record.train_loss_history),
            tuple(record.valid_loss_history),
        )


@dataclass(frozen=True)
class EpochReport:
    """Report of a finished epoch.

    Attributes
    ----------
    epoch : int
        From 1.
    train_loss, valid_loss : float
        Means over the samples.
    is_best : bool
        Whether the validation loss is the lowest so far.
    lr : float
        Learning rate of the next epoch.
    seconds : float
        Time of the epoch, validation included.
    samples_per_second : float
        Excerpts trained on in a second, without validation.
    wait_share : float
        Part of the training time spent waiting for data, from 0 to 1.
    """

    epoch: int
    train_loss: float
    valid_loss: float
    is_best: bool
    lr: float
    seconds: float
    samples_per_second: float
    wait_share: float


def results_document(
    record: RunRecord, arguments: dict[str, Any], num_bad_epochs: int, commit: str | None
) -> dict[str, Any]:
    """Contents of ``<target>.json``, with the keys of Open-Unmix's trainer."""
    return {
        "args": arguments,
        "best_epoch": record.best_epoch,
        "best_loss": record.best_loss,
        "commit": commit,
        "epochs_trained": record.epochs_trained,
        "num_bad_epochs": num_bad_epochs,
        "train_loss_history": record.train_loss_history,
        "train_time_history": record.train_time_history,
        "valid_loss_history": record.valid_loss_history,
    }


def source_commit() -> str | None:
    """Short name of the commit of this package, None unless it runs from its repository."""
    return commit_of(Path(__file__).resolve().parents[1])


def commit_of(package: Path) -> str | None:
    """Short name of the commit of a package at the top of a repository, or None.

    It is followed by ``with changes`` if files differ from that commit.
    """
    try:
        folder, commit = _git(package, "rev-parse", "--show-toplevel", "--short=7", "HEAD")[:2]
        # Installed below somebody's project, the package would report the project's commit.
        if Path(folder).resolve() != package.parent:
            return None
        changes = _git(package, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return f"{commit} with changes" if changes else commit


def _git(package: Path, *arguments: str) -> list[str]:
    """Lines that git prints."""
    command = ["git", "-C", str(package), *arguments]
    found = run_program(command, _GIT_TIMEOUT)
    found.check_returncode()
    return found.stdout.decode(errors="surrogateescape").splitlines()
