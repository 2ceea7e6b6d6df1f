"""The job of an engine, and the contract of every engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from .._support.progress import Progress
from ..backends.contracts import Backend, Network, WienerOptions
from ..config import SeparatorConfig
from ..framing.geometry import StftGeometry
from ..framing.levels import LevelFollower
from ..framing.transform import Transform
from .bottleneck import StoreFactory
from .sources import Source


@dataclass(frozen=True, eq=False)
class Job:
    """How to separate with one model, whatever the track.

    Attributes
    ----------
    ops : Backend
        Where to compute.
    networks : mapping of str to Network
        Prepared for `ops`, in the order of the stems.
    config : SeparatorConfig
        Geometry and options.
    stem_names : tuple of str
        The targets, then the residual if it is returned.
    """

    ops: Backend
    networks: Mapping[str, Network]
    config: SeparatorConfig
    stem_names: tuple[str, ...]
    # The matrices of the filterbank asteroid take longer to make than a short track.
    _transforms: dict[np.dtype, Transform] = field(default_factory=dict, repr=False)

    @cached_property
    def geometry(self) -> StftGeometry:
        """Where the frames lie."""
        return StftGeometry(self.config.n_fft, self.config.n_hop, center=True)

    @property
    def mono(self) -> bool:
        """Whether the networks see the mean magnitude over the channels."""
        return self.config.nb_channels == 1

    @property
    def needs_whole_track(self) -> bool:
        """Whether the filter has one window, whose statistics come from the whole track."""
        return self.config.niter > 0 and self.config.wiener_win_len is None

    @property
    def filters_residual(self) -> bool:
        """Whether the residual takes part in the filter, returned or not."""
        return self.config.residual_takes_part(len(self.networks))

    @property
    def nb_sources(self) -> int:
        """Sources of the filter."""
        return len(self.networks) + self.filters_residual

    @property
    def wiener_options(self) -> WienerOptions:
        """How to filter."""
        return WienerOptions(self.config.softmask, self.filters_residual)

    def transform(self, dtype: np.dtype | type = np.float32) -> Transform:
        """Return the STFT."""
        key = np.dtype(dtype)
        if key not in self._transforms:
            self._transforms[key] = Transform(self.geometry, self.config.filterbank, self.ops, key)
        return self._transforms[key]

    def level_follower(self) -> LevelFollower | None:
        """Return what brings one mixture to the level of the model; None if it has none."""
        level = self.config.input_level
        if level is None:
            return None
        return LevelFollower(self.geometry, self.config.sample_rate, level)


class SeparationEngine(Protocol):
    """Separates whole tracks as one job says; made by `umx_np.devices.separation_engine`."""

    job: Job

    def separate(
        self, source: Source, progress: Progress | None, new_store: StoreFactory
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Separate a source and yield its stems from start to end.

        Parameters
        ----------
        source : Source
            The mixture at the rate, level and number of channels of the job. It may be read several
            times.
        progress : callable or None
            Gets the fraction that is done, from 0 to 1.
        new_store : callable
            Makes a `FrameStore` of a given width for the whole track, where the engine cannot keep
            the activations itself.

        Yields
        ------
        start : int
            Position of the block in the track, in samples.
        stems : ndarray [shape=(nb_stems, nb_channels, n)]
            In the order of the job's `stem_names`; valid until the next block is asked for.
        """


Tick = Callable[[float], None]
