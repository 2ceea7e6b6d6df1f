"""`JointTrainer`: trains the networks of a model together, behind the Wiener filter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..data.stems import StemsDataset
from ..errors import ConfigError, ShapeError
from ..optim import Optimizer, clip_grad_norm
from ..weights import StateDict
from .config import JointConfig
from .end_to_end import WaveformSeparator
from .epochs import EpochTrainer
from .start import Start, find_joint_start
from .steps import Evaluate, NotFiniteError, make_optimizer

# Errors this far below the mixture hardly count any more, in dB.
FLOOR = -25.0
# Frames in which the mixture is that far under its excerpt, in dB, do not count: what rings into
# silence is no error to learn from.
SILENT = -60.0
# Seconds of the loss's frames, at least: as museval has it.
FRAME = 1.0
# Mean square that keeps silent excerpts from being divided by zero.
_SILENCE = 1e-12


def waveform_loss(stems: Any, truth: Any, min_frame: int) -> tuple[Any, Any]:
    """Error of stems relative to their mixture, in dB, averaged over stems, excerpts and frames.

    Parameters
    ----------
    stems, truth : ndarray [shape=(nb_samples, nb_stems, nb_channels, nb_timesteps)]
        Estimates and what they should be; of NumPy, or of CuPy.
    min_frame : int
        Samples that a frame has at least. The excerpts are divided into as many equal frames as
        that allows; if they are of a length that cannot be divided so, frames are longer.

    Returns
    -------
    number [shape=()], float64
        The loss: as in the signal to distortion ratio, a soft stem counts as much as a loud one,
        and a soft second as much as a loud one, but for errors near -25 dB. Frames in which the
        mixture is 60 dB softer than its excerpt do not count.
    ndarray
        Its gradient with respect to `stems`.

    Examples
    --------
    >>> truth = np.ones((1, 2, 1, 8))
    >>> loss, gradient = waveform_loss(1.2 * truth, truth, min_frame=8)
    >>> round(float(loss), 2)  # of 20 log10(0.2 / 2), and the floor
    -18.81
    """
    length = stems.shape[3]
    count = next(k for k in range(max(1, length // min_frame), 0, -1) if length % k == 0)
    error = stems - truth
    framed = error.reshape(*error.shape[:3], count, -1)
    power = _mean_squares(truth.sum(axis=1).reshape(len(truth), -1, count, length // count))
    counted = power >= 10.0 ** (SILENT / 10.0) * power.mean(axis=1, keepdims=True)
    weight = (counted / (counted.sum() * stems.shape[1]))[:, None]
    power = power[:, None]
    relative = _mean_squares(framed) + 10.0 ** (FLOOR / 10.0) * power + _SILENCE
    loss = (weight * 10.0 * np.log10(relative / (power + _SILENCE))).sum()
    size = framed.shape[2] * framed.shape[4]
    scale = 20.0 / math.log(10.0) / size * weight / relative
    framed *= scale[:, :, None, :, None].astype(error.dtype)
    return loss, framed.reshape(error.shape)


def _mean_squares(framed: Any) -> Any:
    """Mean square of each frame [shape=(..., nb_channels, nb_frames, nb_timesteps)], float64."""
    return (framed * framed).mean(axis=(-3, -1), dtype=np.float64)


class _Optimizers:
    """An optimiser for each network, all with one learning rate.

    Parameters
    ----------
    optimizers : dict of str to Optimizer
        Of the networks, by their targets.
    lr : float
        Learning rate.
    """

    def __init__(self, optimizers: dict[str, Optimizer], lr: float) -> None:
        self._optimizers, self.lr = optimizers, lr

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of all networks, by target and name."""
        return {
            f"{target}.{name}": array
            for target, optimizer in self._optimizers.items()
            for name, array in optimizer.parameters.items()
        }

    def step(self, gradients: Mapping[str, Mapping[str, Any]]) -> None:
        """Change all parameters."""
        for target, optimizer in self._optimizers.items():
            optimizer.lr = self.lr
            optimizer.step(gradients[target])

    def state_dict(self) -> dict[str, Any]:
        """Copies of everything that a later step depends on, but for the parameters."""
        networks = {target: one.state_dict() for target, one in self._optimizers.items()}
        return {"lr": np.array(self.lr, np.float64), "networks": networks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state of `state_dict`."""
        for target, optimizer in self._optimizers.items():
            optimizer.load_state_dict(state["networks"][target])
        self.lr = float(state["lr"])


class _JointSteps:
    """Steps of all networks, wherever they are; see `umx_np.training.steps.Steps`.

    Parameters
    ----------
    config : JointConfig
        Settings.
    separator : WaveformSeparator
        What is trained.
    optimizers : _Optimizers
        Of its networks.
    """

    def __init__(
        self, config: JointConfig, separator: WaveformSeparator, optimizers: _Optimizers
    ) -> None:
        self.config, self.separator, self.optimizers = config, separator, optimizers
        self._min_frame = round(FRAME * separator.config.sample_rate)

    def check(self, x: Any, y: Any) -> None:
        """See `Steps`."""
        nb_channels, nb_stems = self.separator.config.nb_channels, self.separator.nb_stems
        found, rest = divmod(x.shape[1], nb_stems)
        if rest or nb_channels not in (1, found):
            raise ShapeError(
                f"the excerpts have shape={x.shape}; {nb_stems} networks with "
                f"nb_channels={nb_channels} need {nb_channels} channels of each stem"
            )

    def train(self, x: Any, y: Any, rng: np.random.Generator) -> float:
        """See `Steps`."""
        config, separator = self.config, self.separator
        # What overflows shows in the loss, which is looked at.
        with separator.computing(), np.errstate(over="ignore", invalid="ignore"):
            truth = self._stems(x)
            stems, cache = separator.forward(
                truth.sum(axis=1), training=not config.frozen_norms, rng=rng
            )
            found, d_stems = waveform_loss(stems, truth, self._min_frame)
            # A device computes backwards before its loss is waited for.
            gradients = separator.backward(d_stems, cache)
            loss = float(found)
            if not math.isfinite(loss):
                raise NotFiniteError("loss", loss)
            if config.clip_grad_norm is not None:
                for each in gradients.values():
                    norm = clip_grad_norm(each, config.clip_grad_norm)
                    if not math.isfinite(norm):
                        raise NotFiniteError("gradient", norm)
            self.optimizers.step(gradients)
        return loss

    def evaluator(self) -> Evaluate:
        """See `Steps`; stems are those of separation."""
        return self._evaluate

    def _evaluate(self, x: Any, y: Any) -> float:
        with self.separator.computing():
            truth = self._stems(x)
            stems, _ = self.separator.forward(truth.sum(axis=1), training=False, keep=False)
            return float(waveform_loss(stems, truth, self._min_frame)[0])

    def _stems(self, x: np.ndarray) -> Any:
        """Stems of a batch [shape=(nb_samples, nb_stems, nb_channels, nb_timesteps)]."""
        return self.separator.asarray(x.reshape(len(x), self.separator.nb_stems, -1, x.shape[-1]))


class JointTrainer(EpochTrainer):
    """One run that trains the networks of all targets together.

    Alone, a network learns magnitudes, and never meets the others. What people hear are stems that
    the Wiener filter has made of the magnitudes of all, so here the loss is that of the waveforms
    behind it (`waveform_loss`, `WaveformSeparator`).

    Parameters
    ----------
    config : JointConfig
        Settings.
    train_dataset, valid_dataset : StemsDataset
        Excerpts to learn from, and excerpts of one length to judge by.
    arguments : mapping of str to object or None
        What else each ``<target>.json`` should list under ``args``, such as options of the data.
    progress : bool
        Draw bars if stderr is a terminal.
    on_epoch : callable or None
        As for `Trainer`.
    loader_mode : {'threads', 'processes'}
        Who makes the batches if ``config.nb_workers`` is not 0.
    given : collection of str
        Settings that are meant even where they have the value of the run to continue: ``lr``
        otherwise gives way to what its schedule has made of it.

    Attributes
    ----------
    separator : WaveformSeparator
        What is trained, while and after `fit` runs.

    Raises
    ------
    ConfigError
        If a dataset is empty, the two differ in rate or targets, or a setting is not usable.

    Notes
    -----
    The folder of the run is a model that `umx_np.load_model` reads: the weights of the epoch with
    the lowest validation loss. ``joint.chkpnt`` has all that the run needs to go on, with the
    losses and weights of one that was not interrupted, bit for bit, given the same settings, data
    and number of threads. docs/training.md has an example.
    """

    config: JointConfig
    _validates_batches = True

    def __init__(
        self,
        config: JointConfig,
        train_dataset: StemsDataset,
        valid_dataset: StemsDataset,
        **options: Any,
    ) -> None:
        if train_dataset.targets != valid_dataset.targets:
            raise ConfigError(
                f"the training set has the targets {', '.join(train_dataset.targets)}, the "
                f"validation set {', '.join(valid_dataset.targets)}"
            )
        super().__init__(config, train_dataset, valid_dataset, **options)
        self.targets = train_dataset.targets

    def _find_start(self) -> Start:
        return find_joint_start(
            self.config,
            self.train_dataset,
            self.targets,
            given=self._given,
            arguments=self._arguments,
        )

    def _build(self, start: Start) -> None:
        config = self.config
        self.separator = WaveformSeparator.from_bundle(
            start.bundle,
            niter=config.niter,
            threads=config.threads,
            backend=config.training_backend(),
            dropout=config.dropout,
            amp=config.amp,
            tf32=config.tf32,
        )
        optimizers = {
            name: make_optimizer(config, network.parameters)
            for name, network in self.separator.networks.items()
        }
        self.optimizer = _Optimizers(optimizers, config.lr)
        self._steps = _JointSteps(config, self.separator, self.optimizer)

    def _rate(self) -> float:
        record, warmup = self.record, self.config.warmup
        done = record.epochs_trained * len(self._train_loader) + record.batch
        return min(1.0, (done + 1) / (warmup + 1)) * super()._rate()

    def _states(self) -> dict[str, StateDict]:
        return {name: net.state_dict() for name, net in self.separator.networks.items()}

    def _saved_networks(self, states: dict[str, StateDict]) -> dict[str, Any]:
        model = self._model
        settings = ("n_fft", "n_hop", "nb_channels", "license", "input_level")
        return {"networks": states, "separator": {name: getattr(model, name) for name in settings}}
