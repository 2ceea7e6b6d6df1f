"""Songs whose stems are all wanted, to train the networks of a model together."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from ..errors import ConfigError
from .base import Sample, UnmixDataset
from .trackfolder import FixedSourcesTrackFolderDataset


class StemsDataset(UnmixDataset):
    """Excerpts of songs with all their stems, in place of one target.

    The songs are folders as for `FixedSourcesTrackFolderDataset`, with a file ``<target>.wav`` for
    each stem. An item is the stems of an excerpt, one behind the other as if they were channels;
    their sum is the mixture. They are handed out twice, since an item has two parts.

    Parameters
    ----------
    root : str or path-like
        Folder with the folders ``train`` and ``valid``.
    targets : sequence of str
        Names of the stems, at least two, in the order in which they are wanted.
    seq_duration : float
        Length of the excerpts in seconds, which begin at random positions.
    as_mixed_share : float
        Probability of an excerpt as it was mixed: in time, in tune and in balance. The others are
        made as `varied` says.
    faders : float
        How far each stem of such an excerpt is turned up or down at most, in dB: no two engineers
        mix alike, and what is never quite the same is not learned by heart.
    swap_sides : bool
        Exchange left and right in half of such excerpts.
    level_range : pair of float or None
        Turn each whole excerpt, however it was mixed, up or down by a gain drawn between these, in
        dB. Songs come at many levels, and networks are not indifferent to them.
    varied : dict of str to object or None
        Options of `FixedSourcesTrackFolderDataset` for the excerpts that are not as they were
        mixed, such as ``random_track_mix`` and ``source_augmentations``.
    **options
        Its options for all excerpts, such as ``split``, ``speed``, ``samples_per_track``.

    Attributes
    ----------
    targets : tuple of str

    Raises
    ------
    ConfigError
        If an option is not usable.
    DataError
        If there are no songs.
    """

    target = "joint"

    def __init__(
        self,
        root: str | os.PathLike[str],
        targets: Sequence[str],
        seq_duration: float,
        *,
        as_mixed_share: float = 1.0,
        faders: float = 0.0,
        swap_sides: bool = False,
        level_range: Sequence[float] | None = None,
        varied: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        if len(targets) < 2:
            raise ConfigError(f"targets={list(targets)!r} must be two stems or more")
        if not 0.0 <= as_mixed_share <= 1.0:
            raise ConfigError(f"as_mixed_share={as_mixed_share!r} must lie between 0 and 1")
        if not 0.0 <= faders < math.inf:
            raise ConfigError(f"faders={faders!r} must be a number of dB that is not negative")
        if level_range is not None and not (
            len(level_range) == 2 and -math.inf < level_range[0] <= level_range[1] < math.inf
        ):
            raise ConfigError(f"level_range={level_range!r} must be two gains in dB, lower first")
        self.targets = tuple(targets)
        self.as_mixed_share, self.faders, self.swap_sides = as_mixed_share, faders, swap_sides
        self.level_range = None if level_range is None else (level_range[0], level_range[1])
        mixtures = partial(
            FixedSourcesTrackFolderDataset,
            root,
            target_file=f"{targets[0]}.wav",
            interferer_files=[f"{name}.wav" for name in targets[1:]],
            seq_duration=seq_duration,
            random_chunks=True,
            **options,
        )
        self._as_mixed = mixtures()
        self._varied = mixtures(**varied or {}) if as_mixed_share < 1.0 else self._as_mixed
        self.sample_rate = self._as_mixed.sample_rate
        self.nb_channels = self._as_mixed.nb_channels

    @property
    def skipped(self) -> dict[str, str]:
        """See `UnmixDataset`."""
        return self._as_mixed.skipped | self._varied.skipped

    def __len__(self) -> int:
        return len(self._as_mixed)

    def describe(self, index: int) -> str:
        """Folder of the song."""
        return self._as_mixed.describe(index)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Stems of an excerpt, twice.

        Returns
        -------
        x, y : ndarray [shape=(nb_stems * nb_channels, nb_timesteps)], float32
            All channels of the first stem, then those of the second, and so on; the same array.
        """
        stems = np.stack(self._stems(index, rng))
        if self.level_range is not None:
            stems *= np.float32(10.0 ** (rng.uniform(*self.level_range) / 20.0))
        stacked = stems.reshape(-1, stems.shape[-1])
        return stacked, stacked

    def _stems(self, index: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Stems of an excerpt [each shape=(nb_channels, nb_timesteps)] at their own level."""
        # No number is drawn where nothing is decided.
        if self.as_mixed_share < 1.0 and rng.random() >= self.as_mixed_share:
            return self._varied.mixture(index, rng)[1]
        stems = self._as_mixed.mixture(index, rng)[1]
        if self.faders:
            gains = 10.0 ** (rng.uniform(-self.faders, self.faders, len(stems)) / 20.0)
            stems = [np.float32(gain) * stem for gain, stem in zip(gains, stems, strict=True)]
        if self.swap_sides and rng.random() < 0.5:
            stems = [stem[::-1] for stem in stems]
        return stems
