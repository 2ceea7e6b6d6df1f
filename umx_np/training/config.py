"""`TrainConfig`: all that describes a training run but its data."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

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
_POSITIVE = ("epochs", "batch_size", "n_fft", "n_hop", "hidden_size", "nb_layers", "nb_channels")
_NATURAL = ("patience", "lr_decay_patience", "seed", "nb_workers")
_MINUTES = ("m", "min", "minutes")


@dataclass(frozen=True)
class TrainConfig:
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
        Matrix products of TF32, which has 11 bits. For such cards.
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
    unidirectional: bool = False
    n_fft: int = 4096
    n_hop: int = 1024
    hidden_size: int = 512
    bandwidth: float = 16000
    nb_channels: int = 2
    nb_workers: int = 0

    nb_layers: int = 3
    statistics: bool = True
    optimizer: str = "adam"
    momentum: float = 0.0
    lr_schedule: str = "plateau"
    loss: str = "mse"
    clip_grad_norm: float | None = None
    device: str = "auto"
    threads: int | None = None
    amp: bool = False
    tf32: bool = False
    resident: str = "auto"
    checkpoint_every: str = "10min"
    safetensors: bool = False
    plot: bool | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for name in _POSITIVE:
            object.__setattr__(self, name, check_int(name, getattr(self, name), 1))
        for name in _NATURAL:
            object.__setattr__(self, name, check_int(name, getattr(self, name), 0))
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
        if self.optimizer not in OPTIMIZERS:
            raise ConfigError(
                f"optimizer={shortened(self.optimizer)} must be one of {', '.join(OPTIMIZERS)}"
            )
        if self.lr_schedule not in LR_SCHEDULES:
            raise ConfigError(
                f"lr_schedule={shortened(self.lr_schedule)} must be one of "
                f"{', '.join(LR_SCHEDULES)}"
            )
        if self.loss not in LOSSES:
            raise ConfigError(f"loss={shortened(self.loss)} must be one of {', '.join(LOSSES)}")
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

    def _check_device(self) -> None:
        if self.resident not in RESIDENT:
            raise ConfigError(
                f"resident={shortened(self.resident)} must be one of {', '.join(RESIDENT)}"
            )
        check_training(
            self.device,
            self.threads,
            amp=self.amp,
            tf32=self.tf32,
            resident=self.resident == "yes",
        )

    def _check_numbers(self) -> None:
        names = ("lr", "lr_decay_gamma", "bandwidth", "weight_decay", "momentum", "seq_dur")
        for name in (*names, "clip_grad_norm"):
            value = getattr(self, name)
            if name == "clip_grad_norm" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, Real):
                raise ConfigError(f"{name}={shortened(value)} must be a number")
        for name in ("lr", "lr_decay_gamma", "bandwidth"):
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

    def with_(self, **changes: Any) -> TrainConfig:
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
        arguments = {UPSTREAM_NAMES.get(name, name): value for name, value in vars(self).items()}
        arguments["debug"] = not arguments.pop("statistics")
        return arguments

    @classmethod
    def from_arguments(cls, arguments: dict[str, Any]) -> TrainConfig:
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
        if "debug" in arguments:
            values["statistics"] = not arguments["debug"]
        return cls(**values)
