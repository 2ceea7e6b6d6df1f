"""A step of training and an item of validation, on the processor and on a device."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from ..backends.tensors import Tensors
from ..backends.training import Offload
from ..config import ModelConfig
from ..data import Loader
from ..devices import get_backend
from ..framing.geometry import StftGeometry
from ..network.openunmix import OpenUnmix
from ..nn import TrainableNetwork, log_mse_loss, mse_loss, relative_error_db
from ..nn.loss import SMALL_ERROR
from ..optim import SGD, Adam, Optimizer, clip_grad_norm
from ..weights import TargetWeights
from .batches import REMEDY, ResidentBatches, UploadedBatches, device_batches
from .config import RunConfig, TrainConfig
from .spectra import BatchMagnitudes, DeviceMagnitudes, check_channels, mean_squared_error

# Loss of the waveforms of a mixture and a target.
Evaluate = Callable[[Any, Any], float]
# First word of the spawn key of a batch's dropout; the loader uses 0 and 1.
_DROPOUT = 2


def dropout_rng(seed: int, epoch: int, batch: int) -> np.random.Generator:
    """Random numbers of one batch, which depend on nothing else: a continued run draws the same."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_DROPOUT, epoch, batch)))


def make_optimizer(config: RunConfig, parameters: Mapping[str, Any]) -> Optimizer:
    """Make the optimiser that a configuration asks for."""
    common: dict[str, Any] = {
        "lr": config.lr,
        "weight_decay": config.weight_decay,
        "backend": config.training_backend(),
        "threads": config.threads,
    }
    if config.optimizer == "sgd":
        return SGD(parameters, momentum=config.momentum, **common)
    return Adam(parameters, decoupled=config.optimizer == "adamw", **common)


class NotFiniteError(Exception):
    """A number of a step is NaN or infinite.

    Attributes
    ----------
    what : str
        ``'loss'`` or ``'gradient'``.
    value : float
        The number.
    """

    def __init__(self, what: str, value: float) -> None:
        super().__init__(f"the {what} is {value}")
        self.what, self.value = what, value


class Steps(Protocol):
    """Steps of a trainer."""

    def check(self, x: Any, y: Any) -> None:
        """Raise `ShapeError` for a mixture and a target that cannot be computed with."""

    def train(self, x: Any, y: Any, rng: np.random.Generator) -> float:
        """Make one step of the optimiser.

        Parameters
        ----------
        x, y : ndarray [shape=(nb_samples, nb_channels, nb_timesteps)], float32
            Mixtures and targets.
        rng : Generator
            Source of the dropout.

        Returns
        -------
        float
            The loss before the step.

        Raises
        ------
        NotFiniteError
            If the loss or the norm of the gradients is no number; the parameters are as they were.
        """

    def evaluator(self) -> Evaluate:
        """Return what computes the validation loss of items with the parameters of now."""


def make_steps(
    config: TrainConfig, network: TrainableNetwork, optimizer: Optimizer, sample_rate: float
) -> HostSteps | DeviceSteps:
    """Return the steps of the training backend of a network."""
    offload = network.engines.offload
    if offload is None:
        return HostSteps(config, network, optimizer, sample_rate)
    return DeviceSteps(config, network, optimizer, sample_rate, offload)


class _Shared:
    """The base of both kinds of steps.

    Parameters
    ----------
    config : TrainConfig
        Settings.
    network : TrainableNetwork
        What is trained.
    optimizer : Optimizer
        Of its parameters.
    rate : float
        Sample rate of the data in Hz.
    """

    def __init__(
        self, config: TrainConfig, network: TrainableNetwork, optimizer: Optimizer, rate: float
    ) -> None:
        self.config, self.network, self.optimizer = config, network, optimizer
        self._rate = rate
        self._geometry = StftGeometry(config.n_fft, config.n_hop, center=False)

    def check(self, x: Any, y: Any) -> None:
        """See `Steps`."""
        for audio in (x, y):
            check_channels(audio.shape[1], self.config.nb_channels)
            self._geometry.nb_frames(audio.shape[2])  # at least one

    def _frames_of_parts(self, nb_frames: int) -> int:
        """Frames of the parts of a track over which the logarithmic validation loss is taken.

        They are as long as the excerpts that are trained on.
        """
        config = self.config
        if config.seq_duration is None:
            return nb_frames
        return self._geometry.nb_frames(round(config.seq_duration * self._rate))


class HostSteps(_Shared):
    """Steps on the processor; see `Steps`."""

    def __init__(
        self, config: TrainConfig, network: TrainableNetwork, optimizer: Optimizer, rate: float
    ) -> None:
        super().__init__(config, network, optimizer, rate)
        self._ops = get_backend(network.engines.separates_on, config.threads)
        self._magnitudes = BatchMagnitudes(
            config.n_fft,
            config.n_hop,
            config.nb_channels,
            get_backend("cpu", config.threads),
            network.engines,
        )

    def batches(
        self, model: ModelConfig, train: Loader, valid: Loader, *, progress: bool
    ) -> tuple[Loader, Loader]:
        """Return batches of both loaders as `train` and `evaluator` take them: the loaders' own.

        Parameters
        ----------
        model : ModelConfig
            Architecture of the network.
        train, valid : Loader
            Of the training set, and of the validation set.
        progress : bool
            Draw a bar while data is copied.
        """
        return train, valid

    def train(self, x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> float:
        """See `Steps`."""
        config, network = self.config, self.network
        mixture = self._magnitudes(x, "mixture")
        target = self._magnitudes(y, "target")
        # What overflows shows in the loss, which is looked at.
        with np.errstate(over="ignore", invalid="ignore"):
            estimate, cache = network.forward(mixture, training=True, rng=rng)
            computing: dict[str, Any] = {"threads": config.threads, "out": estimate}
            if config.loss == "log-mse":
                loss, d_estimate = log_mse_loss(estimate, target, mixture, **computing)
            else:
                loss, d_estimate = mse_loss(estimate, target, **computing)
            if not math.isfinite(loss):
                raise NotFiniteError("loss", loss)
            gradients = network.backward(d_estimate, cache)
            if config.clip_grad_norm is not None:
                norm = clip_grad_norm(gradients, config.clip_grad_norm)
                if not math.isfinite(norm):
                    raise NotFiniteError("gradient", norm)
            self.optimizer.step(gradients)
        return loss

    def evaluator(self) -> Evaluate:
        """See `Steps`; items are estimated as in separation."""
        network = self.network
        weights = TargetWeights(network.config, network.state_dict())
        model = OpenUnmix.from_weights(weights, device=self._ops)

        def evaluate(mixture: np.ndarray, target: np.ndarray) -> float:
            mixture, target = self._magnitudes(mixture), self._magnitudes(target)
            y = model(mixture, layout="frames")
            if self.config.loss == "mse":
                return mean_squared_error(y, target)
            length = self._frames_of_parts(len(y))
            parts = [slice(start, start + length) for start in range(0, len(y), length)]
            error = [mean_squared_error(y[part], target[part]) for part in parts]
            energy = [mean_squared_error(mixture[part], np.zeros_like(y[part])) for part in parts]
            return float(relative_error_db(np.array(error), np.array(energy)).mean())

        return evaluate


class DeviceSteps(_Shared):
    """Steps on a device with memory of its own; see `Steps`.

    Notes
    -----
    Launching takes about as long as computing, so the host must be ahead of the device. It waits
    once a step, for the loss: by then it has started the backward pass and the update, which the
    device computes while the host prepares the next batch. So that a loss that is no number changes
    nothing, the update looks at it, too.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: TrainableNetwork,
        optimizer: Optimizer,
        rate: float,
        backend: Offload,
    ) -> None:
        super().__init__(config, network, optimizer, rate)
        self.backend = backend
        self._magnitudes = DeviceMagnitudes(config.n_fft, config.n_hop, config.nb_channels, backend)

    def batches(
        self, model: ModelConfig, train: Loader, valid: Loader, *, progress: bool
    ) -> tuple[ResidentBatches | UploadedBatches, UploadedBatches]:
        """See `HostSteps.batches`; here they are on the device."""
        made = device_batches(self.config, model, train, self.backend, progress=progress)
        return made, UploadedBatches(valid, self.backend)

    def train(self, x: Any, y: Any, rng: np.random.Generator) -> float:
        """See `Steps`."""
        with self._computing(f"a batch of {len(x)}"):
            return self._train(x, y, rng)

    def _computing(self, what: str) -> AbstractContextManager[None]:
        """Compute on the device; its lack of memory is explained."""
        return self.backend.computing(what, REMEDY)

    def _train(self, x: Any, y: Any, rng: np.random.Generator) -> float:
        config, backend, network = self.config, self.backend, self.network
        mixture, target = self._magnitudes(x), self._magnitudes(y)
        estimate, cache = network.forward(mixture, training=True, rng=rng)
        if config.loss == "log-mse":
            loss = backend.log_squared_error(
                estimate, target, mixture, small=SMALL_ERROR, out=estimate
            )
        else:
            loss = backend.squared_error(estimate, target, out=estimate)
        gradients: Tensors = network.backward(estimate, cache)
        gradients.factor = loss.go
        norm = None
        if config.clip_grad_norm is not None:
            norm = gradients.clip(config.clip_grad_norm)
        self.optimizer.step(gradients)
        for what, reading in (("loss", loss.reading), ("gradient", norm)):
            if reading is not None and not math.isfinite(reading.value()):
                raise NotFiniteError(what, reading.value())
        return loss.reading.value()

    def evaluator(self) -> Evaluate:
        """See `Steps`; the engine of training computes it, in single precision."""
        return self._evaluate

    def _evaluate(self, mixture: Any, target: Any) -> float:
        with self._computing("a track of validation"):
            mixture, target = self._magnitudes(mixture), self._magnitudes(target)
            y, _ = self.network.forward(mixture, training=False, keep=False)
            if self.config.loss == "mse":
                return self.backend.squared_error(y, target).reading.value()
            length = self._frames_of_parts(len(y))
            found = self.backend.errors_of_parts(y, target, mixture, length)
            return float(relative_error_db(*found).mean())
