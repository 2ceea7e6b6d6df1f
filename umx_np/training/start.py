"""Where a run begins: random weights, a model to fine-tune, or a checkpoint to continue."""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..config import ModelConfig, bandwidth_to_max_bin, max_bin_to_bandwidth
from ..data import UnmixDataset, get_statistics
from ..errors import ConfigError, TrainingError
from ..model import initial_state
from ..progress import Progress
from ..weights import StateDict, infer_config
from .checkpoint import (
    find_checkpoint,
    is_torch_checkpoint,
    read_checkpoint,
    read_torch_weights,
)
from .config import ARCHITECTURE, NETWORK, TrainConfig
from .records import RunRecord, read_json

logger = logging.getLogger(__name__)

# With another value of these, the excerpts of an epoch are others.
_COURSE = ("seed", "batch_size", "seq_dur")
# These may change on the way; the run is then no longer what it would have been.
_ADJUSTABLE = (
    *("lr", "lr_schedule", "weight_decay", "momentum", "clip_grad_norm"),
    *("lr_decay_patience", "lr_decay_gamma", "patience"),
)


@dataclass
class Start:
    """Everything a trainer sets out from.

    Attributes
    ----------
    config : TrainConfig
        With the architecture that was found, where it was not given.
    model_config : ModelConfig
        Architecture of the network.
    state : dict of str to ndarray
        Its weights.
    record : RunRecord
        Fresh, or that of the run to continue.
    saved : dict or None
        Contents of our own checkpoint.
    num_bad_epochs : int
        Epochs since the best one, if there is no `saved` to tell.
    """

    config: TrainConfig
    model_config: ModelConfig
    state: StateDict
    record: RunRecord
    saved: dict[str, Any] | None = None
    num_bad_epochs: int = 0


def find_start(
    config: TrainConfig,
    dataset: UnmixDataset,
    *,
    given: Collection[str] = (),
    progress: bool | Progress | None = None,
) -> Start:
    """Prepare the beginning of a run, or its continuation.

    Parameters
    ----------
    config : TrainConfig
        Says which.
    dataset : UnmixDataset
        Training data; its rate sets the width of the network, and random weights get its
        statistics.
    given : collection of str
        Settings among `ARCHITECTURE` that are meant even where they have their default value; the
        others are then taken from the model or the checkpoint.
    progress : bool, callable or None
        Progress of the statistics.

    Returns
    -------
    Start

    Raises
    ------
    TrainingError
        If there is no checkpoint, or it does not fit.
    ConfigError
        If a setting contradicts the model or the checkpoint.
    """
    if config.checkpoint is not None:
        return _from_checkpoint(config, dataset, given)
    if config.model is not None:
        return _from_model(config, dataset, given)
    model_config = config.model_config(dataset.sample_rate)
    state = initial_state(model_config, config.seed)
    if config.statistics:
        mean, std = get_statistics(
            dataset, config.n_fft, config.n_hop, seed=config.seed, progress=progress
        )
        width = model_config.nb_input_bins
        state["input_mean"] = (-mean[:width]).astype(np.float32)
        state["input_scale"] = (1.0 / std[:width]).astype(np.float32)
    return Start(config, model_config, state, RunRecord())


def _from_model(config: TrainConfig, dataset: UnmixDataset, given: Collection[str]) -> Start:
    from ..pretrained import load_model

    assert config.model is not None
    bundle = load_model(config.model, [config.target])
    weights = bundle.targets[config.target]
    logger.info("fine-tuning %s of %s", config.target, config.model)
    if bundle.input_level is not None:
        logger.warning(
            "the new model has no input_level, as it is trained on excerpts at their own level; if "
            "that is about %g dB, as with --mix-level, add the input_level of %s to separator.json",
            bundle.input_level,
            config.model,
        )
    if bundle.sample_rate != dataset.sample_rate:
        raise ConfigError(
            f"model={config.model!r} works at {bundle.sample_rate:g} Hz, the data is at "
            f"{dataset.sample_rate:g} Hz; convert the files"
        )
    found = _architecture(config, weights.config, bundle.n_fft, bundle.n_hop, dataset.sample_rate)
    config = _adopt(config, found, given, f"model={config.model!r}")
    return Start(config, weights.config, dict(weights.state), RunRecord())


def _from_checkpoint(config: TrainConfig, dataset: UnmixDataset, given: Collection[str]) -> Start:
    assert config.checkpoint is not None
    path, _ = find_checkpoint(config.checkpoint, config.target)
    if is_torch_checkpoint(path):
        return _from_torch_checkpoint(config, path, dataset.sample_rate, given)
    saved = read_checkpoint(path)
    try:
        arguments = saved["config"]
        state = saved["network"]
        record = RunRecord(**saved["record"])
        sample_rate, nb_items = saved["sample_rate"], saved["nb_items"]
        model_config = infer_config(state)
        known = TrainConfig.from_arguments(
            {
                **arguments,
                "device": config.device,
                "amp": config.amp,
                "tf32": config.tf32,
                "resident": config.resident,
                "checkpoint": None,
                "model": None,
            }
        )
    except (KeyError, TypeError) as error:
        raise TrainingError(f"path={str(path)!r} lacks {error}; it cannot be continued") from error
    if sample_rate != dataset.sample_rate:
        raise ConfigError(
            f"checkpoint={config.checkpoint!r} was trained at {sample_rate:g} Hz, the data is at "
            f"{dataset.sample_rate:g} Hz"
        )
    source = f"checkpoint={config.checkpoint!r}"
    config = _adopt(config, _fields(known, ARCHITECTURE), given, source)
    # The state of another optimiser, and the best value of another loss, mean nothing.
    for name in ("optimizer", "loss"):
        before, now = getattr(known, name), getattr(config, name)
        if before != now:
            raise ConfigError(
                f"{source} was trained with {name}={before!r}, not {now!r}; begin a new run from "
                "its weights with --model"
            )
    for name in _ADJUSTABLE:
        before, now = getattr(known, name), getattr(config, name)
        if before != now:
            logger.warning("%s changes from %s to %s for the rest of the run", name, before, now)
    changed = [name for name in _COURSE if getattr(known, name) != getattr(config, name)]
    if nb_items != len(dataset):
        changed.append("the number of training items")
    if changed:
        logger.warning("%s changed: the excerpts to come are others", ", ".join(changed))
        if record.batch:
            logger.warning("epoch %d begins again", record.epoch)
            record.restart_epoch()
    logger.info(
        "continuing with epoch %d%s of %s",
        record.epoch,
        f" after {record.batch} batches" if record.batch else "",
        path,
    )
    # Whoever changes the learning rate means it; otherwise that of the schedule goes on.
    if known.lr != config.lr:
        saved["optimizer"]["lr"] = np.array(config.lr)
    return Start(config, model_config, state, record, saved)


def _from_torch_checkpoint(
    config: TrainConfig, path: Path, rate: float, given: Collection[str]
) -> Start:
    """Weights and history of Open-Unmix's own trainer."""
    state = read_torch_weights(path)
    model_config = infer_config(state)
    results_path = path.with_suffix(".json")
    results = read_json(results_path)
    try:
        record = RunRecord.from_results(results)
        num_bad_epochs = int(results["num_bad_epochs"])
        n_fft, n_hop = int(results["args"]["nfft"]), int(results["args"]["nhop"])
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"path={str(results_path)!r} lacks {error}; use --model to begin a new run from the "
            "weights"
        ) from error
    found = _architecture(config, model_config, n_fft, n_hop, rate)
    config = _adopt(config, found, given, f"checkpoint={config.checkpoint!r}")
    return Start(config, model_config, state, record, num_bad_epochs=num_bad_epochs)


def _architecture(
    config: TrainConfig, network: ModelConfig, n_fft: int, n_hop: int, rate: float
) -> dict[str, Any]:
    """`ARCHITECTURE` of a network and its STFT."""
    width, bandwidth = network.nb_input_bins, config.bandwidth
    if bandwidth_to_max_bin(rate, n_fft, bandwidth) != width:
        bandwidth = max_bin_to_bandwidth(rate, n_fft, width)
    stft = {"n_fft": n_fft, "n_hop": n_hop, "bandwidth": bandwidth}
    return {**stft, **_fields(network, NETWORK)}


def _fields(source: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(source, name) for name in names}


def _adopt(
    config: TrainConfig, found: dict[str, Any], given: Collection[str], source: str
) -> TrainConfig:
    """Take over an architecture; what was set to something else contradicts it.

    A setting that has its default value counts as not set, unless it is `given`.
    """
    defaults = {f.name: f.default for f in fields(TrainConfig)}
    for name, value in found.items():
        now = getattr(config, name)
        if now != value and (name in given or now != defaults[name]):
            raise ConfigError(f"{source} has {name}={value}, not {now}")
    adopted = config.with_(**found)
    if adopted != config:
        logger.info("from %s: %s", source, ", ".join(f"{k}={v}" for k, v in found.items()))
    return adopted
