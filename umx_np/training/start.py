"""Where a run begins: random weights, a model to fine-tune, or a checkpoint to continue."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, cast

import numpy as np

from .._support.inputs import read_json, shortened_error
from .._support.progress import Progress
from ..config import ModelConfig, bandwidth_to_max_bin, max_bin_to_bandwidth
from ..data import UnmixDataset, get_statistics
from ..errors import ConfigError, TrainingError, UmxError
from ..network.openunmix import initial_state
from ..weights import ModelBundle, TargetWeights, infer_config
from .checkpoint import find_checkpoint, is_torch_checkpoint, read_checkpoint, read_torch_weights
from .config import ARCHITECTURE, NETWORK, Config, JointConfig, RunConfig, TrainConfig
from .records import RunRecord
from .schedule import Cosine, continued_rate

logger = logging.getLogger(__name__)

# With another value of these, the excerpts of an epoch are others.
_COURSE = ("seed", "batch_size", "seq_dur")
# These may change on the way; the run is then no longer what it would have been.
_ADJUSTABLE = (
    "epochs",
    "lr_schedule",
    "weight_decay",
    "momentum",
    "clip_grad_norm",
    "lr_decay_patience",
    "lr_decay_gamma",
    "patience",
    "warmup",
    "niter",
    "dropout",
    "frozen_norms",
)
# Of these the checkpoint tells what they were, but not whether this machine can do it.
_PRECISION = ("amp", "tf32")
_OF_THE_MACHINE = ("device", *_PRECISION, "resident")
# Options outside of `TrainConfig` that do not change what an epoch is made of.
_NEUTRAL = ("quiet", "cache", "loader", "audio_backend", "debug", "no_cuda", "nfft", "nhop")


@dataclass
class Start:
    """Everything a trainer sets out from.

    Attributes
    ----------
    config : RunConfig
        With the architecture that was found, where it was not given.
    bundle : ModelBundle
        Weights of the networks, and the STFT.
    record : RunRecord
        Fresh, or that of the run to continue.
    saved : dict or None
        Contents of our own checkpoint.
    num_bad_epochs : int
        Epochs since the best one, if there is no `saved` to tell.
    cosine : Cosine
        How the learning rate falls, where it falls along a cosine.
    """

    config: RunConfig
    bundle: ModelBundle
    record: RunRecord
    saved: dict[str, Any] | None = None
    num_bad_epochs: int = 0
    cosine: Cosine = field(kw_only=True)


def find_start(
    config: TrainConfig,
    dataset: UnmixDataset,
    *,
    given: Collection[str] = (),
    arguments: Mapping[str, Any] | None = None,
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
        Settings that are meant even where they have their default value, or that of the run to
        continue. Of the others, those of the architecture are taken from the model or the
        checkpoint, and the learning rate from the schedule.
    arguments : mapping of str to object or None
        Options of the data, to be compared with those before.
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
        return _from_checkpoint(config, dataset, given, arguments or {})
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
    bundle = _bundle(config, TargetWeights(model_config, state), dataset.sample_rate)
    return Start(config, bundle, RunRecord(), cosine=Cosine(config.lr))


def find_joint_start(
    config: JointConfig,
    dataset: UnmixDataset,
    targets: Sequence[str],
    *,
    given: Collection[str] = (),
    arguments: Mapping[str, Any] | None = None,
) -> Start:
    """Prepare the beginning of a run that trains all networks together, or its continuation.

    Parameters
    ----------
    config : JointConfig
        Says which.
    dataset : UnmixDataset
        Training data.
    targets : sequence of str
        Stems of its items, in their order.
    given, arguments
        As for `find_start`.

    Returns
    -------
    Start

    Raises
    ------
    TrainingError
        If there is no checkpoint, or it does not fit.
    ConfigError
        If a setting or the data contradicts the model or the checkpoint.
    """
    if config.checkpoint is not None:
        start = _from_checkpoint(config, dataset, given, arguments or {})
        if list(start.bundle.targets) != list(targets):
            raise ConfigError(
                f"checkpoint={config.checkpoint!r} has the targets "
                f"{', '.join(start.bundle.targets)}, the data {', '.join(targets)}"
            )
        return start
    from ..pretrained.loading import load_model

    assert config.model is not None, "the configuration sees to it"
    bundle = load_model(config.model, targets)
    _check_rate(f"model={config.model!r}", bundle.sample_rate, dataset)
    logger.info("training %s of %s together", ", ".join(targets), config.model)
    return Start(config, bundle, RunRecord(), cosine=Cosine(config.lr))


def _bundle(config: TrainConfig, weights: TargetWeights, rate: float) -> ModelBundle:
    """Model of one target."""
    return ModelBundle(
        name=config.target,
        targets={config.target: weights},
        sample_rate=rate,
        n_fft=config.n_fft,
        n_hop=config.n_hop,
        nb_channels=config.nb_channels,
    )


def _check_rate(source: str, rate: float, dataset: UnmixDataset) -> None:
    if rate != dataset.sample_rate:
        raise ConfigError(
            f"{source} works at {rate:g} Hz, the data is at {dataset.sample_rate:g} Hz; convert "
            "the files"
        )


def _from_model(config: TrainConfig, dataset: UnmixDataset, given: Collection[str]) -> Start:
    from ..pretrained.loading import load_model

    assert config.model is not None
    bundle = load_model(config.model, [config.target])
    weights = bundle.targets[config.target]
    logger.info("fine-tuning %s of %s", config.target, config.model)
    if bundle.input_level is not None:
        logger.warning(
            "the new model has no input_level, as it is trained on excerpts at their own level; if "
            "that is about %g dB, as with mix_level=..., add the input_level of %s to "
            "separator.json",
            bundle.input_level,
            config.model,
        )
    _check_rate(f"model={config.model!r}", bundle.sample_rate, dataset)
    found = _architecture(config, weights.config, bundle.n_fft, bundle.n_hop, dataset.sample_rate)
    config = _adopt(config, found, given, f"model={config.model!r}")
    own = _bundle(config, weights, dataset.sample_rate)
    return Start(config, own, RunRecord(), cosine=Cosine(config.lr))


@dataclass
class _Saved:
    """A checkpoint of ours, taken to pieces: what it says of the run until then."""

    tree: dict[str, Any]
    known: RunConfig
    targets: dict[str, TargetWeights]
    record: RunRecord
    cosine: Cosine
    reached: float
    sample_rate: float
    nb_items: object
    options: dict[str, Any]
    """Of the data."""
    settings: dict[str, Any]
    """The other fields of a `ModelBundle` of several targets."""

    @classmethod
    def read(cls, path: Path, config: RunConfig) -> _Saved:
        """Read a checkpoint; `config` says what this machine computes on."""
        tree = read_checkpoint(path)
        here = {name: getattr(config, name) for name in config.own(_OF_THE_MACHINE)}
        try:
            known = config.from_arguments(
                {**tree["config"], **here, "checkpoint": str(path.parent), "model": None}
            )
            states = tree["networks"] if "networks" in tree else {config.target: tree["network"]}
            return cls(
                tree,
                known,
                {name: TargetWeights(infer_config(state), state) for name, state in states.items()},
                RunRecord(**tree["record"]),
                Cosine(**tree.get("cosine", {"lr": known.lr})),
                float(tree["optimizer"]["lr"]),
                float(tree["sample_rate"]),
                tree["nb_items"],
                dict(tree.get("arguments", {})),
                dict(tree.get("separator", {})),
            )
        except UmxError:
            raise
        except KeyError as error:
            raise TrainingError(
                f"path={str(path)!r} lacks {error}; it cannot be continued"
            ) from error
        except (TypeError, ValueError, AttributeError, OverflowError) as error:
            raise TrainingError(
                f"path={str(path)!r} cannot be continued: {shortened_error(error)}"
            ) from error

    def bundle(self, config: RunConfig) -> ModelBundle:
        """Model of the run, with the STFT that `config` has of a single target."""
        if not self.settings:
            single = cast(TrainConfig, config)
            return _bundle(single, self.targets[config.target], self.sample_rate)
        try:
            return ModelBundle(config.target, self.targets, self.sample_rate, **self.settings)
        except TypeError as error:
            raise TrainingError(f"the checkpoint cannot be continued: {error}") from error

    def restart_if_changed(
        self, config: RunConfig, dataset: UnmixDataset, options: Mapping[str, Any]
    ) -> None:
        """Begin the epoch again if its excerpts are no longer those that it was made of."""
        changed = [name for name in _COURSE if getattr(self.known, name) != getattr(config, name)]
        changed += _changed_options(self.options, options)
        if self.nb_items != len(dataset):
            changed.append("the number of training items")
        if not changed:
            return
        logger.warning("%s changed: the excerpts to come are others", ", ".join(changed))
        if self.record.batch:
            logger.warning("epoch %d begins again", self.record.epoch)
            self.record.restart_epoch()


def _from_checkpoint(
    config: Config, dataset: UnmixDataset, given: Collection[str], options: Mapping[str, Any]
) -> Start:
    assert config.checkpoint is not None
    path, _ = find_checkpoint(config.checkpoint, config.target)
    if isinstance(config, TrainConfig) and is_torch_checkpoint(path):
        return _from_torch_checkpoint(config, path, dataset.sample_rate, given)
    saved = _Saved.read(path, config)
    known, record = saved.known, saved.record
    source = f"checkpoint={config.checkpoint!r}"
    if saved.sample_rate != dataset.sample_rate:
        raise ConfigError(
            f"{source} was trained at {saved.sample_rate:g} Hz, the data is at "
            f"{dataset.sample_rate:g} Hz"
        )
    config = _adopt(config, _fields(known, config.own(ARCHITECTURE)), given, source)
    # The state of another optimiser, and the best value of another loss, mean nothing.
    for name in ("optimizer", "loss"):
        before, now = getattr(known, name), getattr(config, name)
        if before != now:
            raise ConfigError(
                f"{source} was trained with {name}={before!r}, not {now!r}; begin a new run from "
                "its weights with model=..."
            )
    _tell_of_changes(config, known, saved.tree["config"])
    saved.restart_if_changed(config, dataset, options)
    logger.info(
        "continuing with epoch %d%s of %s",
        record.epoch,
        f" after {record.batch} batches" if record.batch else "",
        path,
    )
    nb_batches = -(-len(dataset) // config.batch_size)
    position = (record.epochs_trained, record.batch, nb_batches)
    rate, cosine = continued_rate(config, known, saved.cosine, saved.reached, position, given=given)
    saved.tree["optimizer"]["lr"] = np.array(rate)
    return Start(config, saved.bundle(config), record, saved.tree, cosine=cosine)


def _tell_of_changes(config: RunConfig, known: RunConfig, arguments: Mapping[str, Any]) -> None:
    """Name the settings that make the rest of the run another one than it would have been."""
    before = {name: getattr(known, name) for name in config.own(_ADJUSTABLE)}
    before |= {name: arguments.get(name, False) for name in _PRECISION}
    for name, value in before.items():
        if value != getattr(config, name):
            logger.warning(
                "%s changes from %s to %s for the rest of the run",
                name,
                value,
                getattr(config, name),
            )


def _changed_options(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Names of the options of the data that are no longer what they were."""
    if not before or not now:
        # A run from Python need not say what its data is.
        return []
    plain = json.loads(json.dumps(dict(now), default=str))
    ours = {*TrainConfig.__dataclass_fields__, *JointConfig.__dataclass_fields__, *_NEUTRAL}
    return sorted(name for name in {*before, *plain} - ours if before.get(name) != plain.get(name))


def _from_torch_checkpoint(
    config: TrainConfig, path: Path, rate: float, given: Collection[str]
) -> Start:
    """Weights and history of Open-Unmix's own trainer."""
    state = read_torch_weights(path)
    model_config = infer_config(state)
    results_path = path.with_suffix(".json")
    results = read_json(results_path, TrainingError)
    try:
        record = RunRecord.from_results(results)
        num_bad_epochs = int(results["num_bad_epochs"])
        n_fft, n_hop = int(results["args"]["nfft"]), int(results["args"]["nhop"])
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"path={str(results_path)!r} lacks {error}; use model=... to begin a new run from the "
            "weights"
        ) from error
    found = _architecture(config, model_config, n_fft, n_hop, rate)
    config = _adopt(config, found, given, f"checkpoint={config.checkpoint!r}")
    cosine = Cosine(config.lr, float(record.epochs_trained))
    bundle = _bundle(config, TargetWeights(model_config, state), rate)
    return Start(config, bundle, record, None, num_bad_epochs, cosine=cosine)


def _architecture(
    config: TrainConfig, network: ModelConfig, n_fft: int, n_hop: int, rate: float
) -> dict[str, Any]:
    """`ARCHITECTURE` of a network and its STFT."""
    width, bandwidth = network.nb_input_bins, config.bandwidth
    if bandwidth_to_max_bin(rate, n_fft, bandwidth) != width:
        bandwidth = max_bin_to_bandwidth(rate, n_fft, width)
    stft = {"n_fft": n_fft, "n_hop": n_hop, "bandwidth": bandwidth}
    return {**stft, **_fields(network, NETWORK)}


def _fields(source: Any, names: Iterable[str]) -> dict[str, Any]:
    return {name: getattr(source, name) for name in names}


def _adopt(config: Config, found: dict[str, Any], given: Collection[str], source: str) -> Config:
    """Take over an architecture; what was set to something else contradicts it.

    A setting that has its default value counts as not set, unless it is `given`.
    """
    defaults = {f.name: f.default for f in fields(config)}
    for name, value in found.items():
        now = getattr(config, name)
        if now != value and (name in given or now != defaults[name]):
            raise ConfigError(f"{source} has {name}={value}, not {now}")
    adopted = config.with_(**found)
    if adopted != config:
        logger.info("from %s: %s", source, ", ".join(f"{k}={v}" for k, v in found.items()))
    return adopted
