"""Datasets: numbered items, each made from the random numbers it is handed."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod

import numpy as np

from ..config import check_int

logger = logging.getLogger(__name__)

Sample = tuple[np.ndarray, np.ndarray]

# First word of the spawn key: what the random numbers are for.
_ORDER, _ITEM = 0, 1


def item_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """Random numbers of one item in one epoch.

    They depend on nothing else, so an item is the same whichever worker makes it, after whichever
    other items, and in a run that was resumed.

    Parameters
    ----------
    seed, epoch, index : int
        Not negative.

    Returns
    -------
    Generator

    Examples
    --------
    >>> float(item_rng(42, 0, 7).random()) == float(item_rng(42, 0, 7).random())
    True
    """
    return _rng(seed, _ITEM, epoch, index)


def epoch_order(seed: int, epoch: int, nb_items: int) -> np.ndarray:
    """Shuffled numbers of the items of one epoch.

    Parameters
    ----------
    seed, epoch : int
        Not negative.
    nb_items : int
        Length of the dataset.

    Returns
    -------
    ndarray [shape=(nb_items,)], int
        Each number below `nb_items` once.
    """
    return _rng(seed, _ORDER, epoch).permutation(nb_items)


def _rng(seed: int, *key: int) -> np.random.Generator:
    key = tuple(check_int("epoch and index", word, 0) for word in key)
    return np.random.default_rng(np.random.SeedSequence(check_int("seed", seed, 0), spawn_key=key))


class UnmixDataset(ABC):
    """Pairs of a mixture and the target in it.

    To add a dataset, derive from this class, set the attributes and write `__len__` and `sample`;
    docs/training-data.md has an example.

    Attributes
    ----------
    sample_rate : float
        Rate of the waveforms in Hz.
    target : str
        Name of what is to be separated; models are saved under it.
    nb_channels : int or None
        Channels of the waveforms, if known.
    """

    sample_rate: float = 44100.0
    target: str = "target"
    nb_channels: int | None = None

    # Made when it is needed, so that derived classes need not call a constructor.
    _skipped: dict[str, str] | None = None

    @property
    def skipped(self) -> dict[str, str]:
        """Files that were passed over, other items being taken in their place, and why."""
        if self._skipped is None:
            self._skipped = {}
        return self._skipped

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Make one item.

        Parameters
        ----------
        index : int
            Number of the item, from 0.
        rng : Generator
            The only source of random numbers; see `item_rng`.

        Returns
        -------
        x, y : ndarray [shape=(nb_channels, nb_timesteps)], float32
            Mixture and target.

        Raises
        ------
        AudioError
            If a file cannot be read.
        """

    def describe(self, index: int) -> str:
        """Name an item in messages, by its track for example; may be empty."""
        return ""

    def for_statistics(self) -> UnmixDataset:
        """Whole tracks as they are, once each: what the statistics of the dataset are taken from.

        Returns
        -------
        UnmixDataset
            By default the dataset itself. Datasets with augmentations return a copy without them.
        """
        return self

    def skip(self, name: str, reason: str | None = None) -> None:
        """Record that a file was passed over, and log it the first time.

        Parameters
        ----------
        name : str
            The file.
        reason : str or None
            Message that names the file and says what is wrong with it; None takes `name` for one.
        """
        if name not in self.skipped:
            self.skipped[name] = reason or name
            logger.warning("passed over (%d so far): %s", len(self.skipped), self.skipped[name])
