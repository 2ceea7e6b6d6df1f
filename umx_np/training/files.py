"""The files of a run, named as by Open-Unmix's trainer, each written completely or not at all."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from .. import plots
from .._support.atomic import atomic_write, check_writable, claimed
from ..errors import TrainingError
from ..weights import ModelBundle, load_torch, save_safetensors, save_torch
from ..weights.documents import SEPARATOR_FILE, read_separator
from ..weights.folder import architecture_arguments, separator_document, write_json
from ..weights.replacing import Replacement, finish_replacements
from . import checkpoint, curve
from .checkpoint import checkpoint_path, not_written, write_checkpoint
from .config import RunConfig
from .records import RunRecord, results_document, source_commit

logger = logging.getLogger(__name__)

# Seconds between two drawings of the losses; drawing takes a good part of one.
_DRAW_INTERVAL = 60.0
_WEIGHTS = (".pth", ".safetensors")
_RUN = (*_WEIGHTS, checkpoint.SUFFIX)


class RunFiles:
    """Writes the files of one run.

    ======================  =======================================================
    ``<target>.pth``        weights of the best epoch, for Open-Unmix and umx_np
    ``<target>.safetensors``  the same, on request
    ``<target>.json``       settings and history
    ``<target>.chkpnt``     all that is needed to go on
    ``<target>.png``        curves of the losses
    ``separator.json``      the STFT, shared by all targets in the folder
    ======================  =======================================================

    A run that trains several targets together has checkpoint and curves under a name of its own.

    What an earlier run left in the folder stays a whole model until this one has weights: its first
    best epoch replaces all of that together. Only the checkpoint, which has all it needs in itself,
    is replaced before, as soon as there is one of this run.

    Parameters
    ----------
    config : RunConfig
        Says where, and which of them.
    targets : collection of str or None
        What is trained; None is the target of `config`.
    """

    def __init__(self, config: RunConfig, targets: Collection[str] | None = None) -> None:
        self.folder = config.folder
        self.name = config.target
        self.targets = (self.name,) if targets is None else tuple(targets)
        self._names = tuple(dict.fromkeys((self.name, *self.targets)))
        self.config = config
        self.checkpoint = checkpoint_path(self.folder, self.name)
        self._picture = self.folder / f"{self.name}.png"
        self._commit = source_commit()
        self._draws = plots.is_available() if config.plot is None else config.plot
        self._last_drawing = 0.0
        # Whether what the folder holds is of this run.
        self._has_model = False
        self.has_checkpoint = False

    def _paths(self, *suffixes: str) -> list[Path]:
        """Files of all targets."""
        return [self.folder / (target + suffix) for target in self.targets for suffix in suffixes]

    def check(self) -> None:
        """See that the folder can be written to, and holds nothing that would be lost.

        Raises
        ------
        TrainingError
            If it cannot, or does.
        """
        if self.config.plot:
            plots.check_available("plot=True")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Also what a full disk or missing rights forbid should come up before hours of work.
            check_writable(self.folder, 4096)
        except OSError as error:
            raise TrainingError(
                f"output={str(self.folder)!r} cannot be written to: {error.strerror or error}"
            ) from error
        finish_replacements(self.folder)
        if self._goes_on_here() or self.config.overwrite:
            return
        for path in {self.checkpoint: None, **dict.fromkeys(self._paths(checkpoint.SUFFIX))}:
            if path.exists():
                raise TrainingError(
                    f"{path} belongs to an earlier run: continue it with "
                    f"checkpoint={str(self.folder)!r}, or choose another output=..., or "
                    "replace it with overwrite=True"
                )
        for path in self._paths(*_WEIGHTS):
            if path.exists():
                raise TrainingError(
                    f"{path} is there already; choose another output=..., or replace it with "
                    "overwrite=True"
                )

    @contextmanager
    def claimed(self, names: Sequence[str] | None = None) -> Iterator[None]:
        """Keep other runs of the targets out of the folder.

        Parameters
        ----------
        names : sequence of str or None
            Which targets; None is all of this run, and its own name.

        Raises
        ------
        TrainingError
            If there is one.
        """
        name, *others = self._names if names is None else names
        with claimed(self.folder / f".{name}.claim", wait=False) as ours:
            if not ours:
                raise TrainingError(
                    f"another run trains target={name!r} in {str(self.folder)!r}: wait for it, "
                    "or choose another output=..."
                )
            with self.claimed(others) if others else nullcontext():
                yield

    def _goes_on_here(self) -> bool:
        source = self.config.checkpoint
        if source is None:
            return False
        other = Path(os.path.expanduser(source))
        return other.exists() and self.folder.exists() and other.samefile(self.folder)

    def begin(self, config: RunConfig, bundle: ModelBundle, record: RunRecord) -> None:
        """Bring along the best weights of a run that goes on here from another folder.

        Parameters
        ----------
        config : RunConfig
            As it is after the beginning of the run was found.
        bundle : ModelBundle
            What is trained.
        record : RunRecord
            Where the run is.

        Raises
        ------
        TrainingError
            If models of other targets in the folder use another STFT.
        """
        self.config = config
        self._settings = separator_document(bundle)
        self._settings |= self._kept_settings(self._neighbours())
        goes_on = self._goes_on_here()
        self.has_checkpoint = goes_on
        self._has_model = goes_on and record.best_epoch is not None
        try:
            if config.checkpoint is not None and not goes_on:
                self._bring(Path(os.path.expanduser(config.checkpoint)), bundle)
            elif self._has_model:
                self._complete_best(bundle)
                if not self._is_described():
                    write_json(self.folder / SEPARATOR_FILE, self._settings)
        except OSError as error:
            raise not_written(self.folder, error) from error

    def _neighbours(self) -> list[str]:
        """Other targets of the folder. Models are used together, so they must share the STFT."""
        found = {p.stem for p in self.folder.iterdir() if p.suffix in _RUN}
        others = sorted(found - {*self._names})
        known = read_separator(self.folder, TrainingError) if others else None
        if known is None:
            return others
        differing = [key for key, value in self._settings.items() if known.get(key) != value]
        if differing:
            raise TrainingError(
                f"{self.folder / SEPARATOR_FILE} has "
                + ", ".join(f"{key}={known.get(key)}" for key in differing)
                + f" for the other targets there ({', '.join(others)}), this run has "
                + ", ".join(f"{key}={self._settings[key]}" for key in differing)
                + "; choose another output=..."
            )
        return others

    def _is_described(self) -> bool:
        """Whether ``separator.json`` says what it has to; what else it says is the neighbours'."""
        known = read_separator(self.folder, TrainingError)
        if known is None:
            return False
        same = all(known.get(key) == value for key, value in self._settings.items())
        return same and (bool(self._neighbours()) or known == self._settings)

    def _holds_others(self) -> bool:
        """Whether the folder has weights of an earlier run."""
        return not self._has_model and any(path.exists() for path in self._paths(*_WEIGHTS))

    def _replace(self, new: Replacement) -> None:
        """Let the staged files take the place of all that an earlier run left."""
        if not self._is_described():
            write_json(new.staging / SEPARATOR_FILE, self._settings)
        # The checkpoint, if it is not staged, is of this run already.
        old = [self._picture, *self._paths(*_WEIGHTS, ".json", ".png")]
        new.commit(remove=[path.name for path in old])
        self._has_model = True

    def _kept_settings(self, others: list[str]) -> dict[str, Any]:
        """Settings of the folder's models that no run decides."""
        if not (others or self._goes_on_here()):
            return {}
        known = read_separator(self.folder, TrainingError) or {}
        return {key: known[key] for key in ("input_level", "license") if key in known}

    def _bring(self, source: Path, bundle: ModelBundle) -> None:
        """Copy the best weights so far, which a continuation may not surpass."""
        best = [source / path.name for path in self._paths(".pth")]
        if not all(path.exists() for path in best):
            return
        copied = [source / path.name for path in self._paths(".pth", ".json")]
        new = Replacement(self.folder, *self._names)
        try:
            for path in (*copied, source / self.checkpoint.name):
                if path.exists():
                    with atomic_write(new.staging / path.name) as file:
                        file.write(path.read_bytes())
            if self.config.safetensors:
                self._copy_as_safetensors(source, new.staging, bundle)
            self._replace(new)
        except BaseException:
            new.discard()
            raise
        self.has_checkpoint = True

    def _complete_best(self, bundle: ModelBundle) -> None:
        """Write the second files of the best weights, if they have been asked for since."""
        if self.config.safetensors and all(path.exists() for path in self._paths(".pth")):
            self._copy_as_safetensors(self.folder, self.folder, bundle)

    def _copy_as_safetensors(self, source: Path, folder: Path, bundle: ModelBundle) -> None:
        """Write weights in the other format, where they are not there in it."""
        for target, weights in bundle.targets.items():
            path = folder / f"{target}.safetensors"
            if not path.exists():
                save_safetensors(load_torch(source / f"{target}.pth"), path, weights.config)

    def write_best(self, bundle: ModelBundle, results: dict[str, Any]) -> None:
        """Write the weights of the best epoch so far; the first ones with all that describes them.

        Parameters
        ----------
        bundle : ModelBundle
            The networks as they are.
        results : dict of str to object
            From `results`.
        """
        try:
            if self._has_model:
                self._write_weights(self.folder, bundle)
                if not self.config.safetensors:
                    for path in self._paths(".safetensors"):
                        path.unlink(missing_ok=True)
                return
            self._neighbours()
            new = Replacement(self.folder, *self._names)
            try:
                self._write_weights(new.staging, bundle)
                self._write_descriptions(new.staging, bundle, results)
                self._replace(new)
            except BaseException:
                new.discard()
                raise
        except OSError as error:
            raise not_written(self._paths(".pth")[0], error) from error

    def _write_weights(self, folder: Path, bundle: ModelBundle) -> None:
        for target, weights in bundle.targets.items():
            save_torch(weights.state, folder / f"{target}.pth")
            if self.config.safetensors:
                save_safetensors(weights.state, folder / f"{target}.safetensors", weights.config)

    def _write_descriptions(
        self, folder: Path, bundle: ModelBundle, results: dict[str, Any]
    ) -> None:
        for target in self.targets:
            own = {"target": target, **architecture_arguments(bundle, target)}
            write_json(folder / f"{target}.json", {**results, "args": {**results["args"], **own}})

    def results(
        self, record: RunRecord, arguments: dict[str, Any], num_bad_epochs: int
    ) -> dict[str, Any]:
        """Contents of ``<target>.json``."""
        # What JSON does not know, such as paths, is written as text.
        plain = json.loads(json.dumps(arguments, default=str))
        return results_document(record, plain, num_bad_epochs, self._commit)

    def write_results(self, bundle: ModelBundle, results: dict[str, Any]) -> None:
        """Write ``<target>.json``, unless that beside it is of an earlier run."""
        if self._holds_others():
            return
        try:
            self._write_descriptions(self.folder, bundle, results)
        except OSError as error:
            raise not_written(self._paths(".json")[0], error) from error

    def write_checkpoint(self, tree: dict[str, Any]) -> None:
        """Write ``<target>.chkpnt``."""
        plain = json.loads(json.dumps(tree["arguments"], default=str))
        write_checkpoint(self.checkpoint, {**tree, "arguments": plain})
        self.has_checkpoint = True

    def what_is_left(self) -> str:
        """Say what the run can be continued from."""
        if not self.has_checkpoint:
            return "There is no checkpoint yet."
        return f"The last checkpoint is {self.checkpoint}."

    def draw(self, record: RunRecord, *, last: bool = False) -> None:
        """Draw the losses, if wanted and not just done; `last` always draws."""
        now = time.monotonic()
        is_due = last or not self._last_drawing or now - self._last_drawing >= _DRAW_INTERVAL
        if not (self._draws and is_due) or self._holds_others():
            return
        try:
            curve.draw_curve(record, self.name, self._picture, self.config.loss)
        except OSError as error:
            # The picture is a convenience; the weights are on disk.
            logger.warning("%s cannot be written: %s", self._picture, error)
        self._last_drawing = now
