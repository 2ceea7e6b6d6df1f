"""`EpochTrainer`: epochs of batches, validation, and the files of a run, for all trainers."""

from __future__ import annotations

import logging
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Generator, Mapping
from contextlib import closing
from dataclasses import replace
from typing import Any, TypeVar, cast

import numpy as np

from .._support.inputs import shortened_error
from ..data import Loader, UnmixDataset
from ..errors import ConfigError, DataError, TrainingError, UmxError
from ..optim import EarlyStopping, ReduceLROnPlateau
from ..weights import ModelBundle, StateDict, TargetWeights
from .config import RunConfig
from .console import BatchBar, Stopwatch, epoch_line
from .files import RunFiles
from .records import EpochReport, RunRecord, TrainResult
from .start import Start
from .steps import NotFiniteError, Steps, dropout_rng

logger = logging.getLogger(__name__)

# As in Open-Unmix: epochs after a lower learning rate in which no bad epoch counts.
_COOLDOWN = 10
_SHOWN_ITEMS = 4

# Pairs of arrays of the place where a trainer computes.
Batches = Generator[tuple[Any, Any], None, None]
Result = TypeVar("Result")


class EpochTrainer(ABC):
    """The epochs of a run; `umx_np.training.Trainer` describes the parameters.

    Derived classes say where the run begins (`_find_start`), build what is trained (`_build`), and
    what of it a checkpoint holds (`_saved_networks`).

    Parameters
    ----------
    config : RunConfig
        Settings.
    train_dataset, valid_dataset, arguments, progress, on_epoch, loader_mode, given
        As for `umx_np.training.Trainer`.

    Attributes
    ----------
    record : RunRecord
        Where the run is.
    optimizer : Optimizer
        Or what does the same for several networks.
    """

    optimizer: Any
    record: RunRecord
    _steps: Steps
    # Whole tracks differ in length and are validated one by one.
    _validates_batches = False

    def __init__(
        self,
        config: RunConfig,
        train_dataset: UnmixDataset,
        valid_dataset: UnmixDataset,
        *,
        arguments: Mapping[str, Any] | None = None,
        progress: bool = False,
        on_epoch: Callable[[EpochReport], None] | None = None,
        loader_mode: str = "threads",
        given: Collection[str] = (),
    ) -> None:
        for name, dataset in (("training", train_dataset), ("validation", valid_dataset)):
            if not len(dataset):
                raise ConfigError(f"the {name} set is empty; check the root and the file names")
        if train_dataset.sample_rate != valid_dataset.sample_rate:
            raise ConfigError(
                f"the training set is at {train_dataset.sample_rate:g} Hz, the validation set at "
                f"{valid_dataset.sample_rate:g} Hz"
            )
        self.config = config
        self.targets: tuple[str, ...] = (config.target,)
        self.train_dataset = train_dataset
        self.valid_dataset = valid_dataset
        self.progress = progress
        self.on_epoch = on_epoch
        self.is_running = False
        self._arguments = dict(arguments or {})
        self._given = frozenset(given)
        self._stop = threading.Event()
        loading: dict[str, Any] = {"seed": config.seed, "workers": config.nb_workers}
        loading["mode"] = loader_mode
        self._train_loader = Loader(train_dataset, config.batch_size, shuffle=True, **loading)
        # Validation always sees the same excerpts.
        size = config.batch_size if self._validates_batches else 1
        self._valid_loader = Loader(valid_dataset, size, shuffle=False, **loading)

    def stop(self) -> None:
        """Ask a running `fit` to end after the current batch, with a checkpoint."""
        self._stop.set()

    def fit(self) -> TrainResult:
        """Train until all epochs are done, the loss no longer falls, or `stop` is called.

        Returns
        -------
        TrainResult

        Raises
        ------
        TrainingError
            If the loss is no longer a number, or a file cannot be written. The last checkpoint is
            still there.
        DataError
            If data cannot be read.
        ConfigError
            If a setting contradicts the model or checkpoint to begin with.
        """
        files = RunFiles(self.config, self.targets)
        files.check()
        with files.claimed():
            # What another run has written in the meantime belongs to it.
            files.check()
            return self._fit(files)

    def _fit(self, files: RunFiles) -> TrainResult:
        """Do what `fit` does, in a folder that is this run's."""
        self._files = files
        self._prepare(self._find_start())
        self._files.begin(self.config, self.bundle(), self.record)
        self.is_running = True
        try:
            reason = self._run()
        finally:
            self.is_running = False
            for loader in (self._train_loader, self._valid_loader):
                loader.close()
        return TrainResult.of(self.record, reason)

    @abstractmethod
    def _find_start(self) -> Start:
        """Find weights and record to begin with."""

    @abstractmethod
    def _build(self, start: Start) -> None:
        """Build networks, `optimizer` and `_steps`."""

    @abstractmethod
    def _states(self) -> dict[str, StateDict]:
        """Copies of the weights of each target."""

    @abstractmethod
    def _saved_networks(self, states: dict[str, StateDict]) -> dict[str, Any]:
        """Part of the checkpoint that holds the networks."""

    def bundle(self) -> ModelBundle:
        """Return the model with its present weights, as `umx_np.load_model` does.

        Returns
        -------
        ModelBundle
        """
        return self._bundle_of(self._states())

    def _bundle_of(self, states: dict[str, StateDict]) -> ModelBundle:
        targets = {
            name: TargetWeights(weights.config, states[name])
            for name, weights in self._model.targets.items()
        }
        return replace(self._model, targets=targets)

    def _prepare(self, start: Start) -> None:
        """Build what is trained, and put it where the run is to go on."""
        config = self.config = start.config
        self.record = start.record
        self._cosine = start.cosine
        self._train_batches: Any = self._train_loader
        self._valid_batches: Any = self._valid_loader
        self._build(start)
        # The weights of the beginning are not kept.
        described = {
            name: TargetWeights(weights.config, {})
            for name, weights in start.bundle.targets.items()
        }
        self._model = replace(start.bundle, targets=described)
        self.scheduler = ReduceLROnPlateau(
            self.optimizer,
            factor=config.lr_decay_gamma,
            patience=config.lr_decay_patience,
            cooldown=_COOLDOWN,
        )
        self.early_stopping = EarlyStopping(config.patience)
        if start.saved is not None:
            self._restore(start.saved)
        elif self.record.epochs_trained and self.record.best_loss is not None:
            self.early_stopping.best = self.record.best_loss
            self.early_stopping.num_bad_epochs = start.num_bad_epochs

    def _restore(self, saved: Mapping[str, Any]) -> None:
        """Take over what a checkpoint holds besides the networks."""
        for part in ("optimizer", "scheduler", "early_stopping"):
            try:
                getattr(self, part).load_state_dict(saved[part])
            except (KeyError, TypeError, ValueError, OverflowError, UmxError) as error:
                raise TrainingError(
                    f"checkpoint={self.config.checkpoint!r}: the state of {part} does not fit: "
                    f"{shortened_error(error)}; begin a new run from its weights with model=..."
                ) from error

    # Epochs

    def _run(self) -> str:
        config, record = self.config, self.record
        size = sum(array.size for array in self.optimizer.parameters.values())
        logger.info(
            "%s: %.3g million parameters, %d batches of %d a training epoch, %d validation items",
            config.target,
            size / 1e6,
            len(self._train_loader),
            config.batch_size,
            len(self.valid_dataset),
        )
        if record.epochs_trained >= config.epochs:
            logger.warning(
                "%d epochs are trained already; for more of them raise epochs=... (those of the "
                "whole run)",
                record.epochs_trained,
            )
        if record.epochs_trained < config.epochs:
            self._check_validation()
        self._last_save = time.monotonic()
        reason = "epochs"
        while record.epochs_trained < config.epochs:
            if 0 < config.patience <= self.early_stopping.num_bad_epochs:
                logger.info("no better epoch in the last %d: stopping", config.patience)
                reason = "patience"
                break
            self._clock = time.perf_counter()
            speed = self._train_epoch()
            if not (self._stop.is_set() or self._files.has_checkpoint):
                # The first weights are written before the first epoch is done with; whatever
                # happens between, there is something to continue from.
                self._save()
            valid_loss = None if self._stop.is_set() else self._validate()
            self._tick()
            if valid_loss is None:
                self._save()
                logger.info(
                    "stopped in epoch %d after %d of %d batches; continue with checkpoint='%s'",
                    record.epoch,
                    record.batch,
                    len(self._train_loader),
                    self._files.folder,
                )
                reason = "stopped"
                break
            self._finish_epoch(valid_loss, *speed)
        if record.epochs_trained:
            self._files.draw(record, last=True)
        skipped = self.train_dataset.skipped | self.valid_dataset.skipped
        if skipped:
            logger.warning("%d files were passed over; the messages above name them", len(skipped))
        return reason

    def _tick(self) -> None:
        """Add the time since the last call to that of the epoch."""
        now = time.perf_counter()
        self.record.seconds += now - self._clock
        self._clock = now

    def _train_epoch(self) -> tuple[float, float]:
        """Train on the batches that are left; return excerpts a second and the share of waiting."""
        record, loader = self.record, self._train_loader
        batches: Batches = self._train_batches.epoch(record.epoch - 1, start_batch=record.batch)
        waiting = Stopwatch()
        seen_before = record.nb_seen
        bar = BatchBar(
            f"epoch {record.epoch}/{self.config.epochs}",
            len(loader),
            record.batch,
            shown=self.progress,
        )

        def speed() -> tuple[float, float]:
            seconds = max(time.perf_counter() - begin, 1e-9)
            return (record.nb_seen - seen_before) / seconds, waiting.seconds / seconds

        begin = time.perf_counter()
        with closing(batches), bar:
            while not self._stop.is_set():
                with waiting:
                    batch = next(batches, None)
                if batch is None:
                    break
                loss = self._train_batch(*batch)
                record.add_batch(loss, len(batch[0]))
                per_second, share = speed()
                bar.update(
                    loss=f"{record.mean_loss:.4g}",
                    excerpts=f"{per_second:.3g}/s",
                    wait=f"{100.0 * share:.1f}%",
                )
                if record.batch < len(loader) and self._is_time_to_save():
                    self._tick()
                    self._save()
            return speed()

    def _train_batch(self, x: Any, y: Any) -> float:
        """One step of the optimiser; return the loss before it."""
        config, record = self.config, self.record
        if config.lr_schedule == "cosine":
            self.optimizer.lr = self._rate()
        rng = dropout_rng(config.seed, record.epoch, record.batch)
        try:
            return self._steps.train(x, y, rng)
        except NotFiniteError as error:
            what = f"the {error.what} of batch {record.batch + 1} is {error.value}"
            raise self._diverged(what) from error

    def _rate(self) -> float:
        """Learning rate of the batch, where it falls along a cosine."""
        record, nb_batches = self.record, len(self._train_loader)
        position = record.epochs_trained, record.batch, nb_batches
        return self._cosine.rate(*position, self.config.epochs)

    def _diverged(self, what: str) -> TrainingError:
        """Describe numbers that are none any more, with the excerpts that led to them."""
        record = self.record
        indices = self._train_loader.indices(record.epoch - 1)
        batch = indices[min(record.batch, len(indices) - 1)]
        names = [self.train_dataset.describe(int(i)) or f"item {i}" for i in batch]
        shown = ", ".join(names[:_SHOWN_ITEMS])
        if len(names) > _SHOWN_ITEMS:
            shown += f" and {len(names) - _SHOWN_ITEMS} more"
        return TrainingError(
            f"epoch {record.epoch}: {what} (excerpts: {shown}). {self._files.what_is_left()} "
            "Lower lr=..., or limit the gradients with clip_grad_norm=..."
        )

    def _check_validation(self) -> None:
        """Raise `DataError` now for an item that would end the first epoch, perhaps hours on."""
        bar = BatchBar("looking at validation", len(self._valid_loader), shown=self.progress)
        with closing(self._validation(self._steps.check)) as items, bar:
            for _ in items:
                bar.update()

    def _validation(
        self, function: Callable[[Any, Any], Result]
    ) -> Generator[tuple[int, Result], None, None]:
        """Results of a function for the batches of validation, with their sizes, until `stop`."""
        done = 0
        with closing(cast(Batches, self._valid_batches.epoch(0))) as batches:
            for x, y in batches:
                if self._stop.is_set():
                    return
                try:
                    yield len(x), function(x, y)
                except UmxError as error:
                    name = self.valid_dataset.describe(done) or f"item {done}"
                    raise DataError(f"validation, {name}: {error}") from error
                done += len(x)

    def _validate(self) -> float | None:
        """Mean loss over the validation items; None if `stop` was called."""
        self._finite_states()
        total, done, nb_items = 0.0, 0, len(self.valid_dataset)
        bar = BatchBar("validation", len(self._valid_loader), shown=self.progress)
        with closing(self._validation(self._steps.evaluator())) as items, bar:
            for size, loss in items:
                total, done = total + size * loss, done + size
                bar.update(loss=f"{total / done:.4g}")
        if done < nb_items:
            return None
        loss = total / nb_items
        if not math.isfinite(loss):
            logger.warning("the validation loss of epoch %d is %s", self.record.epoch, loss)
        return loss

    def _finish_epoch(self, valid_loss: float, per_second: float, wait_share: float) -> None:
        record = self.record
        if self.config.lr_schedule == "plateau":
            self.scheduler.step(valid_loss)
        self.early_stopping.step(valid_loss)
        epoch, seconds, train_loss = record.epoch, record.seconds, record.mean_loss
        is_best = record.finish_epoch(valid_loss)
        if is_best:
            self._files.write_best(self.bundle(), self._results())
        self._save()
        self._files.draw(record)
        of_epoch = epoch, train_loss, valid_loss, is_best, self.optimizer.lr, seconds
        report = EpochReport(*of_epoch, per_second, wait_share)
        logger.info("%s", epoch_line(report, self.config.epochs, record.best_loss))
        if self.on_epoch is not None:
            self.on_epoch(report)

    # Saving

    def _is_time_to_save(self) -> bool:
        batches, seconds = self.config.checkpoint_interval()
        if batches:
            return self.record.batch % batches == 0
        return bool(seconds) and time.monotonic() - self._last_save >= seconds

    def _finite_states(self) -> dict[str, StateDict]:
        """Weights of each target; an error if they are numbers no more."""
        states = self._states()
        for target, state in states.items():
            for name, array in state.items():
                if not np.isfinite(array).all():
                    where = name if len(states) == 1 else f"{name} of {target}"
                    raise self._diverged(f"{where} holds NaN or infinity")
        return states

    def _results(self) -> dict[str, Any]:
        """Contents of ``<target>.json``."""
        return self._files.results(
            self.record,
            {**self._arguments, **self.config.to_arguments()},
            self.early_stopping.num_bad_epochs,
        )

    def _save(self) -> None:
        """Write ``<target>.json`` and then the checkpoint, which is what counts."""
        states = self._finite_states()
        if self.record.epochs_trained:
            self._files.write_results(self._bundle_of(states), self._results())
        self._files.write_checkpoint(
            {
                "config": self.config.to_arguments(),
                "arguments": self._arguments,
                "sample_rate": float(self.train_dataset.sample_rate),
                "nb_items": len(self.train_dataset),
                "record": self.record.to_dict(),
                **self._saved_networks(states),
                "optimizer": self.optimizer.state_dict(),
                "scheduler": self.scheduler.state_dict(),
                "early_stopping": self.early_stopping.state_dict(),
                "cosine": self._cosine.to_dict(),
            }
        )
        self._last_save = time.monotonic()
