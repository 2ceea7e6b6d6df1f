"""The files of a run, named as by Open-Unmix's trainer, each written completely or not at all."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from .. import plots
from .._atomic import atomic_write
from ..config import ModelConfig
from ..errors import TrainingError
from ..weights import StateDict, load_torch, save_safetensors, save_torch
from ..weights.folder import SEPARATOR_FILE, separator_document, write_json
from . import curve
from .checkpoint import checkpoint_path, not_written, write_checkpoint
from .config import TrainConfig
from .records import RunRecord, read_json, results_document, source_commit

logger = logging.getLogger(__name__)

# Seconds between two drawings of the losses; drawing takes a good part of one.
_DRAW_INTERVAL = 60.0
_WEIGHTS = (".pth", ".safetensors")


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

    Parameters
    ----------
    config : TrainConfig
        Says where, and which of them.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.folder = config.folder
        self.target = config.target
        self.config = config
        self.checkpoint = checkpoint_path(self.folder, self.target)
        self._commit = source_commit()
        self._draws = plots.is_available() if config.plot is None else config.plot
        self._last_drawing = 0.0

    def _path(self, suffix: str) -> Path:
        return self.folder / (self.target + suffix)

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
            with atomic_write(probe := self.folder / f".{self.target}.probe") as file:
                file.write(b"\0" * 4096)
            probe.unlink()
        except OSError as error:
            raise TrainingError(
                f"output={str(self.folder)!r} cannot be written to: {error.strerror or error}"
            ) from error
        if self._goes_on_here() or self.config.overwrite:
            return
        if self.checkpoint.exists():
            raise TrainingError(
                f"{self.checkpoint} belongs to an earlier run: continue it with --checkpoint "
                f"{self.folder}, or choose another --output, or replace it with --overwrite"
            )
        for suffix in _WEIGHTS:
            if self._path(suffix).exists():
                raise TrainingError(
                    f"{self._path(suffix)} is there already; choose another --output, or replace "
                    "it with --overwrite"
                )

    def _goes_on_here(self) -> bool:
        source = self.config.checkpoint
        if source is None:
            return False
        other = Path(os.path.expanduser(source))
        return other.exists() and self.folder.exists() and other.samefile(self.folder)

    def begin(self, config: TrainConfig, sample_rate: float, model_config: ModelConfig) -> None:
        """Write ``separator.json``, and clear away or bring along what there was.

        Parameters
        ----------
        config : TrainConfig
            With the final STFT.
        sample_rate : float
            Rate of the data in Hz.
        model_config : ModelConfig
            Of the network that is trained.

        Raises
        ------
        TrainingError
            If models of other targets in the folder use another STFT.
        """
        self.config = config
        settings = separator_document(config.n_fft, config.n_hop, sample_rate, config.nb_channels)
        self._check_neighbours(settings)
        settings.update(self._kept_settings())
        if config.checkpoint is None:
            # Old weights stay until there are better ones, but are not to be continued.
            self.checkpoint.unlink(missing_ok=True)
            self._path(".png").unlink(missing_ok=True)
        else:
            if not self._goes_on_here():
                self._bring_best(Path(os.path.expanduser(config.checkpoint)))
            self._complete_best(model_config)
        self._write(self.folder / SEPARATOR_FILE, settings)

    def _write(self, path: Path, document: dict[str, Any]) -> None:
        try:
            write_json(path, document)
        except OSError as error:
            raise not_written(path, error) from error

    def _check_neighbours(self, settings: dict[str, Any]) -> None:
        """Models of one folder are used together, so they must share the STFT."""
        path = self.folder / SEPARATOR_FILE
        others = {p.stem for p in self.folder.glob("*.pth")} - {self.target}
        if not path.exists() or not others:
            return
        known = read_json(path)
        differing = [key for key, value in settings.items() if known.get(key) != value]
        if differing:
            raise TrainingError(
                f"{path} has "
                + ", ".join(f"{key}={known.get(key)}" for key in differing)
                + f" for the other targets there ({', '.join(sorted(others))}), this run has "
                + ", ".join(f"{key}={settings[key]}" for key in differing)
                + "; choose another --output"
            )

    def _kept_settings(self) -> dict[str, Any]:
        """What the folder says about its models that no run decides."""
        path = self.folder / SEPARATOR_FILE
        others = {p.stem for p in self.folder.glob("*.pth")} - {self.target}
        if not path.exists() or not (others or self._goes_on_here()):
            return {}
        known = read_json(path)
        return {key: known[key] for key in ("input_level", "license") if key in known}

    def _bring_best(self, source: Path) -> None:
        """Copy the best weights so far, which a continuation may not surpass."""
        path = self._path(".pth")
        brought = source / path.name
        if not brought.exists():
            return
        try:
            # Those of another run would not be the same weights.
            self._path(".safetensors").unlink(missing_ok=True)
            with atomic_write(path) as file:
                file.write(brought.read_bytes())
        except OSError as error:
            raise not_written(path, error) from error

    def _complete_best(self, model_config: ModelConfig) -> None:
        """Write the second file of the best weights, if it has been asked for since."""
        best, path = self._path(".pth"), self._path(".safetensors")
        if self.config.safetensors and best.exists() and not path.exists():
            try:
                save_safetensors(load_torch(best), path, model_config)
            except OSError as error:
                raise not_written(path, error) from error

    def write_best(self, state: StateDict, model_config: ModelConfig) -> None:
        """Write the weights of the best epoch so far."""
        path = self._path(".pth")
        try:
            save_torch(state, path)
            if self.config.safetensors:
                path = self._path(".safetensors")
                save_safetensors(state, path, model_config)
            else:
                self._path(".safetensors").unlink(missing_ok=True)
        except OSError as error:
            raise not_written(path, error) from error

    def write_results(
        self, record: RunRecord, arguments: dict[str, Any], num_bad_epochs: int
    ) -> None:
        """Write ``<target>.json``."""
        # What JSON does not know, such as paths, is written as text.
        plain = json.loads(json.dumps(arguments, default=str))
        document = results_document(record, plain, num_bad_epochs, self._commit)
        self._write(self._path(".json"), document)

    def write_checkpoint(self, tree: dict[str, Any]) -> None:
        """Write ``<target>.chkpnt``."""
        plain = json.loads(json.dumps(tree["arguments"], default=str))
        write_checkpoint(self.checkpoint, {**tree, "arguments": plain})

    def what_is_left(self) -> str:
        """Say what the run can be continued from."""
        if not self.checkpoint.exists():
            return "There is no checkpoint yet."
        return f"The last checkpoint is {self.checkpoint}."

    def draw(self, record: RunRecord, *, last: bool = False) -> None:
        """Draw the losses, if wanted and not just done; `last` always draws."""
        now = time.monotonic()
        is_due = last or not self._last_drawing or now - self._last_drawing >= _DRAW_INTERVAL
        if not (self._draws and is_due):
            return
        try:
            curve.draw_curve(record, self.target, self._path(".png"), self.config.loss)
        except OSError as error:
            # The picture is a convenience; the weights are on disk.
            logger.warning("%s cannot be written: %s", self._path(".png"), error)
        self._last_drawing = now
