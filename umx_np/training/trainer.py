"""`Trainer`: trains the network of one target."""

from __future__ import annotations

from typing import Any

from ..nn import TrainableNetwork
from ..weights import StateDict
from .config import TrainConfig
from .epochs import EpochTrainer
from .start import Start, find_start
from .steps import make_optimizer, make_steps


class Trainer(EpochTrainer):
    """One training run.

    Parameters
    ----------
    config : TrainConfig
        Settings.
    train_dataset, valid_dataset : UnmixDataset
        Excerpts to learn from, and items to judge by, one at a time.
    arguments : mapping of str to object or None
        What else ``<target>.json`` should list under ``args``, such as options of the data.
    progress : bool
        Draw bars if stderr is a terminal.
    on_epoch : callable or None
        Called with an `EpochReport` after each epoch; an exception ends the run, whose checkpoint
        is then already written.
    loader_mode : {'threads', 'processes'}
        Who makes the batches if ``config.nb_workers`` is not 0.
    given : collection of str
        Settings that are meant even where they have their default value, or that of the run to
        continue: an architecture otherwise gives way to that of the model or the checkpoint, and
        ``lr`` to what its schedule has made of it.

    Raises
    ------
    ConfigError
        If a dataset is empty, or a setting is not usable.

    Notes
    -----
    With the same settings, data and number of threads, or on the same CUDA device, a run that is
    killed at any moment and continued from its checkpoint has the losses and weights of one that
    was not, bit for bit.
    """

    config: TrainConfig

    def _find_start(self) -> Start:
        return find_start(
            self.config,
            self.train_dataset,
            given=self._given,
            arguments=self._arguments,
            progress=self.progress,
        )

    def _build(self, start: Start) -> None:
        config = self.config
        (weights,) = start.bundle.targets.values()
        self.model_config = weights.config
        self.network = TrainableNetwork(
            weights.config,
            weights.state,
            backend=config.training_backend(),
            threads=config.threads,
            amp=config.amp,
            tf32=config.tf32,
        )
        self.optimizer = make_optimizer(config, self.network.parameters)
        sample_rate = self.train_dataset.sample_rate
        self._steps = steps = make_steps(config, self.network, self.optimizer, sample_rate)
        batches: tuple[Any, Any] = steps.batches(
            self.model_config, self._train_loader, self._valid_loader, progress=self.progress
        )
        self._train_batches, self._valid_batches = batches

    def _states(self) -> dict[str, StateDict]:
        return {self.config.target: self.network.state_dict()}

    def _saved_networks(self, states: dict[str, StateDict]) -> dict[str, Any]:
        return {"network": states[self.config.target]}
