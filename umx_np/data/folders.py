"""The base of the datasets that read excerpts of files."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypedDict, TypeVar

import numpy as np

from .._support.progress import Progress
from ..errors import AudioError, ConfigError
from .augmentations import AUGMENTATIONS, FILTERS, Augmentation, Compose
from .base import UnmixDataset
from .files import AudioFiles, CachedFiles, Clip
from .plans import PlannedSource

logger = logging.getLogger(__name__)

Source = TypeVar("Source")
# What makes a source of an excerpt: its clip, first sample, number of samples, random numbers.
Load: TypeAlias = Callable[[Clip, int, int, np.random.Generator], Source]

# Names in a message; there may be thousands.
_MAX_NAMES = 5


class FileKeywords(TypedDict, total=False):
    """The keywords that all datasets of files pass on to `FileDataset`."""

    cache: str | os.PathLike[str] | None
    progress: bool | Progress | None


class FileDataset(UnmixDataset):
    """Excerpts of sound files under ``<root>/<split>``.

    Derived classes find their files, have them looked at by `look_at` and `settle`, and make
    their items with `load` and `mix`.

    Parameters
    ----------
    root : str or path-like
        Folder of the dataset.
    split : str
        Folder in it, ``"train"`` or ``"valid"``.
    seq_duration : float or None
        Length of an item in seconds; None, 0 or less takes whole tracks.
    random_chunks : bool
        Draw the position of an excerpt; otherwise it is the beginning.
    source_augmentations : callable or None
        Applied to each source; see `umx_np.data.augmentations`.
    sample_rate : float or None
        Rate that all files must have, in Hz; None takes the rate of the files.
    cache : str, path-like or None
        Folder in which decoded files are kept, see `umx_np.data.files.CachedFiles`.
    progress : bool, callable or None
        Bar while the files are looked at or decoded.

    Attributes
    ----------
    files : AudioFiles
        Where samples come from.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str,
        seq_duration: float | None,
        random_chunks: bool,
        source_augmentations: Augmentation | None,
        sample_rate: float | None,
        *,
        cache: str | os.PathLike[str] | None = None,
        progress: bool | Progress | None = None,
    ) -> None:
        self.root = Path(os.path.expanduser(root))
        self.split = split
        self.seq_duration = seq_duration if seq_duration is not None and seq_duration > 0 else None
        self.random_chunks = random_chunks
        self.source_augmentations: Augmentation = source_augmentations or Compose()
        self.files: AudioFiles = AudioFiles() if cache is None else CachedFiles(cache)
        self._given_rate = sample_rate
        self._progress = progress

    @property
    def folder(self) -> Path:
        """Folder of the split."""
        return self.root / self.split

    @property
    def nb_timesteps(self) -> int | None:
        """Samples of an excerpt; None for whole tracks."""
        return None if self.seq_duration is None else round(self.seq_duration * self.sample_rate)

    def __getstate__(self) -> dict[str, object]:
        # Other processes have nobody to show progress to, and callables may not be picklable.
        return {**self.__dict__, "_progress": None}

    # Looking for tracks, in the constructors of derived classes ---------------------------------

    def subfolders(self) -> list[Path]:
        """Folders of tracks in the order of their names, which all machines agree on."""
        if not self.folder.is_dir():
            raise ConfigError(f"root={str(self.root)!r} has no folder {self.split!r}")
        return sorted(
            path
            for path in self.folder.iterdir()
            if path.is_dir() and not path.name.startswith(".")
        )

    def look_at(self, clips: Iterable[Clip]) -> dict[Clip, AudioError]:
        """Find the length of each file, decoding it if there is a cache.

        Parameters
        ----------
        clips : iterable of Clip
            The files.

        Returns
        -------
        dict
            Those that cannot be read, and why.
        """
        return self.files.scan(clips, self._progress)

    def require(self, clips: Iterable[Clip]) -> None:
        """Look at files and raise `AudioError` if one cannot be read."""
        errors = self.look_at(clips)
        if errors:
            first = errors[min(errors)]
            more = f" ({len(errors)} files cannot be read)" if len(errors) > 1 else ""
            raise AudioError(f"{first}{more}") from first

    def length(self, clips: Iterable[Clip]) -> int:
        """Length of a track in samples: that of the shortest of its files."""
        return min(self.files.info(clip).nb_timesteps for clip in clips)

    def settle(self, clips: Collection[Clip]) -> None:
        """Set `sample_rate` and `nb_channels` from the files, which must agree on them.

        Parameters
        ----------
        clips : collection of Clip
            All files that items are made from.

        Raises
        ------
        ConfigError
            If there are none, or files differ in rate or channels.
        """
        if not clips:
            raise ConfigError(f"root={str(self.root)!r}, split={self.split!r}: no sound files")
        by_rate: dict[int, Clip] = {}
        by_channels: dict[int, Clip] = {}
        for clip in sorted(clips):
            info = self.files.info(clip)
            by_rate.setdefault(info.rate, clip)
            by_channels.setdefault(info.nb_channels, clip)
        if len(by_rate) > 1 or self._given_rate not in (None, *by_rate):
            found = ", ".join(f"rate={rate} ({clip})" for rate, clip in by_rate.items())
            wanted = "" if self._given_rate is None else f" in place of rate={self._given_rate:g}"
            raise ConfigError(f"files have {found}{wanted}; convert them to one rate")
        self.sample_rate = float(next(iter(by_rate)))
        augmentations = self.source_augmentations
        if isinstance(augmentations, Compose) and augmentations.forces_stereo:
            by_channels = {2: next(iter(by_channels.values()))}
        if len(by_channels) > 1:
            found = ", ".join(f"nb_channels={n} ({clip})" for n, clip in by_channels.items())
            raise ConfigError(f"files have {found}; add force_stereo to source_augmentations")
        self.nb_channels = next(iter(by_channels))
        slow = [clip for clip in clips if not self.files.info(clip).quick]
        if slow and self.seq_duration is not None:
            text = "excerpts of %d files like %s take long to decode; a cache makes this quick"
            logger.warning(text, len(slow), slow[0])

    def shortest(self, rate: int) -> int:
        """Samples that a track of some rate must exceed: it must be longer than an excerpt."""
        return -1 if self.seq_duration is None else round(self.seq_duration * rate)

    def long_enough(self, tracks: Mapping[str, Sequence[Clip]]) -> list[str]:
        """Names of the tracks that items can be made from, each with its files.

        Those that are too short are logged, and those whose files differ in length.
        """
        kept: list[str] = []
        short: list[str] = []
        for name, clips in tracks.items():
            least = self.shortest(self.files.info(clips[0]).rate)
            (kept if self.length(clips) > least else short).append(name)
        self.report_left_out(short, f"not longer than seq_duration={self.seq_duration}")
        uneven = [
            name
            for name in kept
            if len({self.files.info(clip).nb_timesteps for clip in tracks[name]}) > 1
        ]
        self._log(
            "the files of %d tracks differ in length, only what all of them have is used: %s",
            uneven,
        )
        return kept

    def report_left_out(self, names: Sequence[str], reason: str) -> None:
        """Log tracks that are not used."""
        self._log("left out %d tracks, %s: %s", names, reason)

    def report_unused(self, names: Sequence[str], reason: str) -> None:
        """Log files that are not used."""
        self._log("%d files are not used, %s: %s", names, reason)

    def report(self, text: str, clips: Sequence[Clip]) -> None:
        """Log something about some of the files, with their number and the ends of their paths."""
        self._log(text, ["/".join(clip.path.parts[-2:]) for clip in clips])

    def _log(self, text: str, names: Sequence[str], *values: str) -> None:
        if names:
            logger.warning(f"%s: {text}", self.folder, len(names), *values, listed(names))

    def groups(self) -> list[tuple[Clip, ...]]:
        """Clips that belong together, the target first; empty where none do."""
        return []

    def no_tracks(self, hint: str) -> ConfigError:
        """Make the error for a dataset without items."""
        longer = f" longer than seq_duration={self.seq_duration:g} s" if self.seq_duration else ""
        return ConfigError(f"no tracks{longer} in {str(self.folder)!r}: {hint}")

    # Making items -------------------------------------------------------------------------------

    def excerpt_length(self, rng: np.random.Generator) -> int | None:
        """Samples to read for an excerpt; None for whole tracks."""
        return self.nb_timesteps

    def place(self, nb_available: int, rng: np.random.Generator) -> tuple[int, int]:
        """Choose an excerpt of a track.

        Parameters
        ----------
        nb_available : int
            Length of the track in samples.
        rng : Generator
            Used if `random_chunks` is set.

        Returns
        -------
        first, count : int
            First sample and number of samples.
        """
        wanted = self.excerpt_length(rng)
        if wanted is None:
            return 0, nb_available
        count = min(wanted, nb_available)
        if not self.random_chunks:
            return 0, count
        return int(rng.integers(0, nb_available - count, endpoint=True)), count

    def load(self, clip: Clip, first: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """Read an excerpt and augment it."""
        return self.source_augmentations(self.files.read(clip, first, count), rng)

    def planned(
        self, clip: Clip, first: int, count: int, rng: np.random.Generator
    ) -> PlannedSource:
        """Draw what `load` would draw, and read nothing."""
        # What augmentations do to channels they do to an impulse in each of them.
        impulses = np.eye(self.files.info(clip).nb_channels, dtype=np.float32)
        return PlannedSource(clip, first, self.source_augmentations(impulses, rng))

    @property
    def why_no_plans(self) -> str:
        """Why items cannot be planned; see `umx_np.data.plans.PlanningDataset`."""
        if self.nb_timesteps is None:
            return "its items are whole tracks"
        augmentations = self.source_augmentations
        used = augmentations.transforms if isinstance(augmentations, Compose) else (augmentations,)
        if not set(used) <= set(AUGMENTATIONS.values()):
            return "it has augmentations of its own"
        filters = ", ".join(sorted(transform.__name__ for transform in FILTERS.intersection(used)))
        return f"its sources are filtered ({filters})" if filters else ""

    def for_statistics(self) -> UnmixDataset:
        """Copy of the dataset of whole tracks, without augmentation and mixing of tracks."""
        plain = copy.copy(self)
        plain.random_chunks = False
        plain.seq_duration = None
        plain.source_augmentations = (
            self.source_augmentations.without_random()
            if isinstance(self.source_augmentations, Compose)
            else Compose()
        )
        for name in ("random_track_mix", "random_interferer_mix"):
            if hasattr(plain, name):
                setattr(plain, name, False)
        return plain


def listed(names: Sequence[str]) -> str:
    """Some of the names, and how many more there are."""
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return ", ".join(names[:_MAX_NAMES]) + more


def mix(sources: Sequence[np.ndarray]) -> np.ndarray:
    """Sum of waveforms, as long as the shortest.

    Parameters
    ----------
    sources : sequence of ndarray [shape=(nb_channels, nb_timesteps)]
        At least one.

    Returns
    -------
    ndarray [shape=(nb_channels, nb_timesteps)]
        A new array.
    """
    count = min(source.shape[1] for source in sources)
    if len(sources) == 1:
        return sources[0][:, :count].copy()
    total = sources[0][:, :count] + sources[1][:, :count]
    for source in sources[2:]:
        total += source[:, :count]
    return total


def visible(paths: Iterable[Path]) -> list[Path]:
    """Paths in order, without hidden files such as the ``._name`` companions of macOS."""
    return sorted(path for path in paths if not path.name.startswith("."))
