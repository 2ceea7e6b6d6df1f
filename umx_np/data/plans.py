"""Plans of items: what they are put together from, without samples.

A dataset draws where its excerpts lie and what is done to them, and then reads and adds them up.
Some can stop after the first half: what they have drawn is a plan, for somebody who has the samples
at hand already, such as a CUDA device.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from .files import AudioFiles, Clip


@dataclass(frozen=True)
class PlannedSource:
    """An excerpt of a clip, and what is done to it before it is mixed.

    Attributes
    ----------
    clip : Clip
        Where from.
    first : int
        First sample.
    channels : ndarray [shape=(nb_channels, channels of the clip)], float32
        Every augmentation there is multiplies and rearranges channels. This is what they come to:
        the source has the channels ``channels @ samples``.
    """

    clip: Clip
    first: int
    channels: np.ndarray


@dataclass(frozen=True)
class PlannedItem:
    """A mixture of excerpts of one length, and the target in it.

    Attributes
    ----------
    sources : tuple of PlannedSource
        In the order in which they are added up.
    target : tuple of int
        Which of them make up the target, in the order in which they are added up.
    level : float or None
        Level to bring the mixture to, and the target with it; see
        `umx_np.data.trackfolder.FixedSourcesTrackFolderDataset`.
    """

    sources: tuple[PlannedSource, ...]
    target: tuple[int, ...]
    level: float | None = None


@runtime_checkable
class PlanningDataset(Protocol):
    """A dataset that can say what its items are made of."""

    files: AudioFiles

    @property
    def clips(self) -> Collection[Clip]:
        """All clips that items are made from."""

    @property
    def why_no_plans(self) -> str:
        """Why `plan` cannot be used with the settings of this dataset; empty if it can."""

    @property
    def nb_timesteps(self) -> int | None:
        """Samples of every item."""

    def plan(self, index: int, rng: np.random.Generator) -> PlannedItem:
        """Draw what `umx_np.data.UnmixDataset.sample` would draw, and read nothing."""
