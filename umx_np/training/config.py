"""`TrainConfig` and `JointConfig`: all that describes a training run but its data."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from ..config import ModelConfig, bandwidth_to_max_bin, check_int, is_file_name
from ..devices import check_training, training_backend_name
from ..errors import ConfigError, shortened

OPTIMIZERS = ("adam", "adamw", "sgd")
LR_SCHEDULES = ("plateau", "cosine")
LOSSES = ("mse", "log-mse")
RESIDENT = ("auto", "yes", "no")

NETWORK = ("nb_channels", "hidden_size", "nb_layers", "unidirectional")
# What describes the network and what it is fed.
ARCHITECTURE = ("n_fft", "n_hop", "bandwidth", *NETWORK)
# Fields whose name is not that of Open-Unmix's option.
UPSTREAM_NAMES = {"n_fft": "nfft", "n_hop": "nhop"}
# Fields by what they may be; not every configuration has all of them.
_COUNTS = ("epochs", "batch_size", "n_fft", "n_hop", "hidden_size", "nb_layers", "nb_channels")
_NATURAL = ("patience", "lr_decay_patience", "seed", "nb_workers", "warmup", "niter")
_NUMBERS = ("lr", "lr_decay_gamma", "bandwidth", "weight_decay", "momentum", "seq_dur")
_POSITIVE = ("lr", "lr_decay_gamma", "bandwidth")
_MINUTES = ("m", "min", "minutes")


Config = TypeVar("Config", bound="RunConfig")


@dataclass(frozen=True)
class RunConfig:
    """Settings that all runs have; see `TrainConfig` for what they are."""

    LOSSES: ClassVar[tuple[str, ...]] = LOSSES

    target: str = "vocals"
    output: str = "open-unmix"
    model: str | None = None
    checkpoint: str | None = None
    epochs: int = 1000
    batch_size: int = 16
    lr: float = 1e-3
    patience: int = 140
    lr_decay_patience: int = 80
    lr_decay_gamma: float = 0.3
    weight_decay: float = 1e-5
    seed: int = 42
    seq_dur: float = 6.0
    nb_workers: int = 0

    optimizer: str = "adam"
    momentum: float = 0.0
    lr_schedule: str = "plateau"
    loss: str = "mse"
    clip_grad_norm: float | None = None
    device: str = "auto"
    threads: int | None = None
    amp: bool = False
    tf32: bool = False
    checkpoint_every: str = "10min"
    safetensors: bool = False
    plot: bool | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for names, minimum in ((_COUNTS, 1), (_NATURAL, 0)):
            for name in self.own(names):
                object.__setattr__(self, name, check_int(name, getattr(self, name), minimum))
        if self.threads is not None:
            object.__setattr__(self, "threads", check_int("threads", self.threads, 1))
        for name in ("output", "model", "checkpoint"):
            value = getattr(self, name)
            if value is None and name != "output":
                continue
            if not isinstance(value, (str, os.PathLike)):
                raise ConfigError(f"{name}={shortened(value)} must be a path")
            object.__setattr__(self, name, os.fspath(value))
        if not is_file_name(self.target):
            raise ConfigError(f"target={shortened(self.target)} cannot be the name of a file")
        self._check_numbers()
        for name, choices in (
            ("optimizer", OPTIMIZERS),
            ("lr_schedule", LR_SCHEDULES),
            ("loss", self.LOSSES),
        ):
            self._check_choice(name, choices)
        if self.momentum and self.optimizer != "sgd":
            raise ConfigError(f"momentum={self.momentum} is for optimizer='sgd'")
        if self.model is not None and self.checkpoint is not None:
            raise ConfigError(
                f"model={shortened(self.model)} and checkpoint={shortened(self.checkpoint)} "
                "exclude each other: a checkpoint continues a run, a model begins a new one"
            )
        self._check_device()
        self.checkpoint_interval()
        if self.seq_dur <= 0:
            # Whole tracks differ in length and cannot be stacked.
            object.__setattr__(self, "batch_size", 1)

    @classmethod
    def own(cls, names: tuple[str, ...]) -> list[str]:
        """Those of some names that are fields of this configuration."""
        return [name for name in names if name in cls.__dataclass_fields__]

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise ConfigError(f"{name}={shortened(value)} must be one of {', '.join(choices)}")

    def _check_device(self) -> None:
        check_training(self.device, self.threads, amp=self.amp, tf32=self.tf32)

    def _check_numbers(self) -> None:
        for name in (*self.own(_NUMBERS), "clip_grad_norm"):
            value = getattr(self, name)
            if name == "clip_grad_norm" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Real):
                raise ConfigError(f"{name}={shortened(value)} must be a number")
        for name in self.own(_POSITIVE):
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)!r} must be a positive number")
        if self.lr_decay_gamma >= 1:
            raise ConfigError(f"lr_decay_gamma={self.lr_decay_gamma} must be less than 1")
        for name in ("weight_decay", "momentum"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name}={getattr(self, name)!r} must not be negative")
        if self.clip_grad_norm is not None and not 0 < self.clip_grad_norm < math.inf:
            raise ConfigError(
                f"clip_grad_norm={shortened(self.clip_grad_norm)} must be a positive number"
            )
        if not math.isfinite(self.seq_dur):
            raise ConfigError(f"seq_dur={shortened(self.seq_dur)} must be a number of seconds")

    def with_(self: Config, **changes: Any) -> Config:
        """Return a copy with some fields replaced (and checked again)."""
        return replace(self, **changes)

    @property
    def folder(self) -> Path:
        """The output folder."""
        return Path(os.path.expanduser(self.output))

    @property
    def seq_duration(self) -> float | None:
        """Seconds of an excerpt, None for whole tracks."""
        return self.seq_dur if self.seq_dur > 0 else None

    def training_backend(self) -> str:
        """Name of the backend that computes gradients."""
        return training_backend_name(self.device)

    def checkpoint_interval(self) -> tuple[int, float]:
        """Batches and seconds after which to save within an epoch; 0 where it does not count."""
        text = str(self.checkpoint_every).strip().lower()
        number = text.rstrip("abcdefghijklmnopqrstuvwxyz ")
        unit = text[len(number) :].strip()
        try:
            if unit in _MINUTES and 0 < float(number) < math.inf:
                return 0, 60.0 * float(number)
            if unit in ("", "batches") and int(number) >= 0:
                return int(number), 0.0
        except ValueError:
            pass
        raise ConfigError(
            f"checkpoint_every={shortened(self.checkpoint_every)} must be a number of batches like "
            "'500' or "
            "of minutes like '10min'"
        )

    def to_arguments(self) -> dict[str, Any]:
        """The settings under the names of the options, as ``<target>.json`` holds them."""
        return {UPSTREAM_NAMES.get(name, name): value for name, value in vars(self).items()}

    @classmethod
    def from_arguments(cls: type[Config], arguments: dict[str, Any]) -> Config:
        """Make a configuration of parsed options; what belongs to others is left alone.

        Parameters
        ----------
        arguments : dict of str to object
            Values under the names of the options (``nfft``, ``hidden_size``, ...).
        """
        values: dict[str, Any] = {}
        for name in cls.__dataclass_fields__:
            option = UPSTREAM_NAMES.get(name, name)
            if option in arguments:
                values[name] = arguments[option]
        if "debug" in arguments and cls.own(("statistics",)):
            values["statistics"] = not arguments["debug"]
        return cls(**values)


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Settings of a run; the names and defaults of the upper part are Open-Unmix's.

    Attributes
    ----------
    target : str
        What the network learns to estimate; the files are named after it.
    output : str
        Folder for the results.
    model : str or None
        Fine-tune this published model, or model in a folder, instead of random weights.
    checkpoint : str or None
        Continue the run whose checkpoint is in this folder.
    epochs : int
        Epochs of the whole run, those before a continuation included.
    batch_size : int
        Excerpts in a batch; 1 if `seq_dur` is not positive.
    lr : float
        Learning rate to begin with.
    patience : int
        Stop after so many epochs in a row without a better validation loss; 0 never stops.
    lr_decay_patience : int
        Lower the learning rate after so many such epochs.
    lr_decay_gamma : float
        Factor to lower it by.
    weight_decay : float
        L2 penalty on all parameters; for ``adamw`` decoupled from the gradient.
    seed : int
        Where all random numbers come from: initial weights, data, dropout.
    seq_dur : float
        Seconds of an excerpt; whole tracks if it is 0 or less.
    unidirectional : bool
        A causal network.
    n_fft, n_hop : int
        STFT size and hop in samples.
    hidden_size : int
        Width of the network.
    bandwidth : float
        Highest frequency in Hz that the network reads.
    nb_channels : int
        Channels of the network; 1 trains on the mean magnitude over the channels.
    nb_workers : int
        Threads that make batches ahead of time.
    nb_layers : int
        Number of LSTM layers. Open-Unmix itself loads models of 3 only.
    statistics : bool
        Take the input statistics from the training data, unless the weights come from elsewhere.
    optimizer : {'adam', 'adamw', 'sgd'}
        What turns gradients into steps.
    momentum : float
        For ``sgd``.
    lr_schedule : {'plateau', 'cosine'}
        How the learning rate falls: as Open-Unmix's, after epochs that were not better, or step by
        step along a cosine to zero at the end of `epochs`.
    loss : {'mse', 'log-mse'}
        What is made small: the mean squared error of the magnitudes, as in Open-Unmix, or its
        logarithm for each excerpt, so that soft excerpts count as much as loud ones.
    clip_grad_norm : float or None
        Largest norm that the gradients of all parameters together may have.
    device : {'auto', 'cpu', 'cuda', 'cuda:1', ..., 'reference'}
        Where to compute; ``'auto'`` is a CUDA device that has proved itself, or else the
        processor.
    threads : int or None
        Threads to compute on; None means all cores.
    amp : bool
        Mixed precision: matrix products of bfloat16, which have 8 bits; sums, parameters and all
        else in float32. For processors with AVX512-BF16 and CUDA devices of compute capability
        8.0.
    tf32 : bool
        Matrix products of TF32, which has 11 bits. For such devices.
    resident : {'auto', 'yes', 'no'}
        Whether the training data stays in the memory of the CUDA device, which then makes the
        batches; ``'auto'`` if it fits.
    checkpoint_every : str
        How often to save within an epoch: a number of batches (``"500"``), of minutes
        (``"10min"``), or ``"0"`` to save only after each epoch.
    safetensors : bool
        Write the best weights also as ``<target>.safetensors``.
    plot : bool or None
        Draw ``<target>.png``; None draws it if matplotlib is installed.
    overwrite : bool
        Replace an earlier run of the same target in `output`.

    Raises
    ------
    ConfigError
        If a value is not usable.
    DeviceError
        If nothing here can train on the device.
    """

    unidirectional: bool = False
    n_fft: int = 4096
    n_hop: int = 1024
    hidden_size: int = 512
    bandwidth: float = 16000
    nb_channels: int = 2
    nb_layers: int = 3
    statistics: bool = True
    resident: str = "auto"

    def _check_device(self) -> None:
        self._check_choice("resident", RESIDENT)
        check_training(
            self.device, self.threads, amp=self.amp, tf32=self.tf32, resident=self.resident == "yes"
        )

    def model_config(self, sample_rate: float) -> ModelConfig:
        """Architecture of the network for data of some rate in Hz."""
        return ModelConfig(
            nb_bins=self.n_fft // 2 + 1,
            nb_channels=self.nb_channels,
            hidden_size=self.hidden_size,
            nb_layers=self.nb_layers,
            unidirectional=self.unidirectional,
            max_bin=bandwidth_to_max_bin(sample_rate, self.n_fft, self.bandwidth),
        )

    def to_arguments(self) -> dict[str, Any]:
        """The settings under the names of the options, as ``<target>.json`` holds them."""
        arguments = super().to_arguments()
        arguments["debug"] = not arguments.pop("statistics")
        return arguments


@dataclass(frozen=True)
class JointConfig(RunConfig):
    """Settings of a run that trains all networks of a model together; see `JointTrainer`.

    Those that are not named here are those of `TrainConfig`, some with other defaults. The
    architecture is that of the model to begin with, which is needed.

    Attributes
    ----------
    target : str
        Name of the checkpoint and the picture; the weights are named after the targets.
    model : str or None
        The published model, or model in a folder, to begin with; None where a run is continued.
    loss : {'waveform'}
        `umx_np.training.waveform_loss`.
    warmup : int
        Steps in which the learning rate rises first, where it then falls along a cosine. Adam's
        first steps are as large as its later ones, but know little of the gradients, and what was
        learned before would suffer.
    niter : int
        EM iterations of the filter.
    dropout : float
        Share of the outputs between the LSTM layers that is dropped.
    frozen_norms : bool
        Normalise with the running statistics, which then stay as they are, and drop nothing: train
        what will separate. The statistics of a few excerpts are noise that this is free of.

    Raises
    ------
    ConfigError
        If a value is not usable.
    DeviceError
        If nothing here can train on the device.
    """

    LOSSES: ClassVar[tuple[str, ...]] = ("waveform",)

    target: str = "joint"
    epochs: int = 10
    batch_size: int = 8
    lr: float = 2e-4
    patience: int = 0
    weight_decay: float = 0.0
    seq_dur: float = 3.0
    lr_schedule: str = "cosine"
    loss: str = "waveform"
    clip_grad_norm: float | None = 1.0

    warmup: int = 0
    niter: int = 1
    dropout: float = 0.4
    frozen_norms: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model is None and self.checkpoint is None:
            raise ConfigError("model=None: name the model whose networks are trained together")
        if self.seq_dur <= 0:
            raise ConfigError(f"seq_dur={self.seq_dur!r} must be a positive number of seconds")
        if not 0.0 <= self.dropout < 1.0:
            raise ConfigError(f"dropout={shortened(self.dropout)} must lie between 0 and 1")
        if self.warmup and self.lr_schedule != "cosine":
            raise ConfigError(f"warmup={self.warmup} is for lr_schedule='cosine'")
