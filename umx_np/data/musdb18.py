"""MUSDB18, through the musdb package: stems in one file or folders of wav files."""

from __future__ import annotations

import copy
import importlib
import logging
import os
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import check_int
from ..errors import ConfigError, DownloadError
from .augmentations import Augmentation
from .base import Sample, UnmixDataset
from .files import Clip
from .folders import FileDataset, FileKeywords, Load, Source, mix, visible
from .plans import PlannedItem

if TYPE_CHECKING:
    from typing import Unpack

logger = logging.getLogger(__name__)

# Tracks of the seven second excerpts, which musdb downloads.
PREVIEW_TRACKS = {"train": 94, "test": 50}


@dataclass(frozen=True)
class MUSDBTrack:
    """Where the sound of a track is.

    Attributes
    ----------
    name : str
        Name of the track.
    mixture : Clip
        Its mixture.
    sources : dict of str to Clip
        Its sources, which may be missing.
    nb_timesteps : int
        Length of the shortest of them, once it is known.
    """

    name: str
    mixture: Clip
    sources: dict[str, Clip]
    nb_timesteps: int = 0

    @property
    def clips(self) -> tuple[Clip, ...]:
        """All of it."""
        return (self.mixture, *self.sources.values())

    @property
    def missing(self) -> list[str]:
        """Names of the files that are not there."""
        return [clip.path.stem for clip in self.clips if not clip.path.exists()]


@dataclass(frozen=True)
class MUSDBFolder:
    """A folder of MUSDB18, as `open_database` finds it.

    Attributes
    ----------
    root : str
        Folder of the data set.
    setup : dict
        Its description, as in ``mus.yaml`` of musdb.
    tracks : list of MUSDBTrack
        In the order of their names.
    """

    root: str
    setup: dict[str, Any]
    tracks: list[MUSDBTrack]


class MUSDBDataset(FileDataset):
    """Excerpts of MUSDB18 or MUSDB18-HQ, mixed at random; whole tracks to validate with.

    Each item of the training set draws a random track and position for each of the sources. The
    item of a track number only matters without `random_track_mix`. Without `seq_duration`, and for
    other splits, items are whole tracks with the mixture that comes with them.

    Parameters
    ----------
    target : str
        A source, or ``"accompaniment"`` or ``"linear_mixture"``.
    root : str, path-like or None
        Folder of MUSDB18. None means the seven second excerpts, in ``~/MUSDB18/MUSDB18-7``.
    download : bool
        Download the seven second excerpts if they are not there; needed if `root` is None.
    is_wav : bool
        Folders of wav files (MUSDB18-HQ) in place of ``.stem.mp4`` files, which ffmpeg decodes.
    subsets : str or sequence of str
        ``"train"`` or ``"test"``.
    split : str or None
        ``"train"`` or ``"valid"``, the fourteen tracks that musdb keeps apart.
    seq_duration : float or None
        Length of the excerpts in seconds. Tracks must be longer.
    samples_per_track : int
        Items of an epoch for each track.
    source_augmentations : callable or None
        Applied to each source.
    random_track_mix : bool
        Draw a track for each source, in place of all from the same.
    seed : int
        Accepted as upstream's; random numbers come from the generator handed to `sample`.
    setup_file : str or None
        Another description of the dataset for musdb, in place of its ``mus.yaml``.
    **files
        `cache` and `progress`, see `FileDataset`.

    Raises
    ------
    ConfigError
        If the musdb package is missing, there are no tracks, or the target is unknown.
    DownloadError
        If the excerpts cannot be downloaded.
    """

    def __init__(
        self,
        target: str = "vocals",
        root: str | os.PathLike[str] | None = None,
        download: bool = False,
        is_wav: bool = False,
        subsets: str | Sequence[str] = "train",
        split: str | None = "train",
        seq_duration: float | None = 6.0,
        samples_per_track: int = 64,
        source_augmentations: Augmentation | None = None,
        random_track_mix: bool = False,
        seed: int = 42,
        *,
        setup_file: str | None = None,
        **files: Unpack[FileKeywords],
    ) -> None:
        db = open_database(root, download, is_wav, subsets, split, setup_file)
        split, rate = split or "train", float(db.setup["sample_rate"])
        super().__init__(db.root, split, seq_duration, True, source_augmentations, rate, **files)
        self.target = target
        self.is_wav = is_wav
        self.samples_per_track = check_int("samples_per_track", samples_per_track, 1)
        self.random_track_mix = random_track_mix
        self.source_names = list(db.setup["sources"])
        if target not in db.setup["targets"]:
            raise ConfigError(
                f"target={target!r} is none of MUSDB18's: {', '.join(db.setup['targets'])}"
            )
        self._target_sources = list(db.setup["targets"][target])
        tracks = db.tracks
        for track in tracks:
            if track.missing:
                raise ConfigError(
                    f"the track {track.name!r} in root={str(self.root)!r} has no "
                    f"{', '.join(track.missing)}"
                )
        self.require(clip for track in tracks for clip in track.clips)
        kept = set(self.long_enough({track.name: track.clips for track in tracks}))
        self.tracks = [
            replace(track, nb_timesteps=self.length(track.clips))
            for track in tracks
            if track.name in kept
        ]
        if not self.tracks:
            raise self.no_tracks(
                f"is_wav={is_wav} looks for "
                + ("folders of wav files" if is_wav else ".stem.mp4 files")
                + f" in {'train' if split else subsets} of root; split={split!r} goes by the "
                "names of MUSDB18's tracks"
            )
        self.settle({clip for track in self.tracks for clip in track.clips})

    def shortest(self, rate: int) -> int:
        """Samples that a track must exceed; whole tracks may be of any length."""
        return super().shortest(rate) if self._takes_excerpts else -1

    @property
    def _takes_excerpts(self) -> bool:
        return self.split == "train" and self.seq_duration is not None

    def __len__(self) -> int:
        return len(self.tracks) * self.samples_per_track

    def describe(self, index: int) -> str:
        """Name of the track, where the item has one."""
        if self._takes_excerpts and self.random_track_mix:
            return ""
        return self.tracks[index // self.samples_per_track].name

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Mix excerpts of the sources, or read a whole track; see `UnmixDataset.sample`."""
        if not self._takes_excerpts:
            return self._whole(self.tracks[index // self.samples_per_track])
        sources = self._sources(index, rng, self.load)
        return mix(sources), mix([sources[position] for position in self._target_positions])

    def plan(self, index: int, rng: np.random.Generator) -> PlannedItem:
        """Draw what `sample` would draw; see `umx_np.data.plans.PlanningDataset`."""
        return PlannedItem(
            tuple(self._sources(index, rng, self.planned)), tuple(self._target_positions)
        )

    @property
    def clips(self) -> set[Clip]:
        """All clips that excerpts are made from."""
        return {clip for track in self.tracks for clip in track.sources.values()}

    @property
    def why_no_plans(self) -> str:
        """Why items cannot be planned; see `umx_np.data.plans.PlanningDataset`."""
        return super().why_no_plans if self._takes_excerpts else "its items are whole tracks"

    @property
    def _target_positions(self) -> list[int]:
        return [self.source_names.index(name) for name in self._target_sources]

    def _sources(self, index: int, rng: np.random.Generator, load: Load[Source]) -> list[Source]:
        """Draw an item and load its sources."""
        track = self.tracks[index // self.samples_per_track]
        sources = []
        for name in self.source_names:
            if self.random_track_mix:
                track = self.tracks[rng.integers(len(self.tracks))]
            first, count = self.place(track.nb_timesteps, rng)
            sources.append(load(track.sources[name], first, count, rng))
        return sources

    def _whole(self, track: MUSDBTrack) -> Sample:
        count = track.nb_timesteps
        x = self.files.read(track.mixture, 0, count)
        parts = [self.files.read(track.sources[name], 0, count) for name in self._target_sources]
        return x, mix(parts)

    def for_statistics(self) -> UnmixDataset:
        """Copy of whole tracks, each once."""
        plain = copy.copy(super().for_statistics())
        assert isinstance(plain, MUSDBDataset)
        plain.samples_per_track = 1
        return plain


def named_root(root: str | os.PathLike[str] | None) -> str | os.PathLike[str] | None:
    """Folder of MUSDB18 that is named, here or in the variable ``MUSDB_PATH``.

    Parameters
    ----------
    root : str, path-like or None
        Taken if given.

    Returns
    -------
    str, path-like or None
        None if neither names one: the seven second excerpts are meant.
    """
    if root is None and os.environ.get("MUSDB_PATH"):
        root = os.environ["MUSDB_PATH"]
        logger.info("root is MUSDB_PATH=%s", root)
    return root


def check_preview(root: str | os.PathLike[str], subset: str) -> None:
    """Complain if not all of the seven second excerpts are there.

    Parameters
    ----------
    root : str or path-like
        Folder that they were downloaded to.
    subset : {'train', 'test'}
        Which of them to count.

    Raises
    ------
    DownloadError
        If some are missing.
    """
    count = len(list(Path(root, subset).glob("*.stem.mp4")))
    if count < PREVIEW_TRACKS[subset]:
        raise DownloadError(
            f"{os.fspath(root)} has {count} of the {PREVIEW_TRACKS[subset]} excerpts for subset="
            f"{subset!r}: the download was interrupted; remove the folder and download them again"
        )


def open_database(
    root: str | os.PathLike[str] | None,
    download: bool,
    is_wav: bool,
    subsets: str | Sequence[str],
    split: str | None,
    setup_file: str | None,
) -> MUSDBFolder:
    """Find the tracks of MUSDB18 as `musdb.DB` does, which opens no file of them here.

    Parameters
    ----------
    root, download, is_wav, subsets, split, setup_file
        As for `MUSDBDataset`.

    Returns
    -------
    MUSDBFolder

    Raises
    ------
    ConfigError
        If musdb or ffmpeg is missing, or musdb does not like an argument.
    DownloadError
        If the excerpts cannot be downloaded.
    """
    subsets = [subsets] if isinstance(subsets, str) else list(subsets)
    if split is not None and subsets != ["train"]:
        raise ConfigError(f"split={split!r} needs subsets='train', not {subsets}")
    if is_wav and root is None:
        raise ConfigError("is_wav=True needs root: the excerpts to download are .stem.mp4 files")
    musdb = _import_musdb()
    if root is not None and not Path(os.path.expanduser(root)).is_dir() and not download:
        raise ConfigError(f"root={str(root)!r} is no folder")
    try:
        # Without subsets it looks for no tracks: it would end at the first file that is damaged,
        # and let ffprobe follow a playlist that has the name of one.
        db = musdb.DB(
            root=None if root is None else os.fspath(root),
            setup_file=setup_file,
            is_wav=is_wav,
            download=download,
            subsets=[],
        )
        setup = dict(db.setup)
        held_out = setup["validation_tracks"]
        tracks = []
        for subset in subsets:
            for track in _tracks(Path(db.root, subset), setup, is_wav):
                valid = subset == "train" and track.name in held_out
                if split not in ("train", "valid") or valid == (split == "valid"):
                    tracks.append(track)
    except Exception as error:
        if download and isinstance(error, (OSError, RuntimeError, zipfile.BadZipFile)):
            raise DownloadError(
                f"the seven second excerpts of MUSDB18 could not be downloaded ({error}); give the "
                "root of a dataset you have, or get the file MUSDB18-7-STEMS.zip from "
                "https://github.com/sigsep/sigsep-mus-db/releases and unpack it in "
                f"{root or '~/MUSDB18/MUSDB18-7'}"
            ) from error
        # What is wrong with a setup file has no common type.
        raise ConfigError(
            f"musdb cannot open root={str(root)!r}: {type(error).__name__}: {error}"
        ) from error
    return MUSDBFolder(str(db.root), setup, tracks)


def _import_musdb() -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's deprecations
            return importlib.import_module("musdb")
    except ImportError as error:
        raise ConfigError(
            f'reading MUSDB18 needs the package musdb: pip install "umx-np[train]" (or '
            f'"umx-np[eval]" to evaluate) ({error})'
        ) from error
    except RuntimeError as error:
        raise ConfigError(f"the package musdb needs ffmpeg: {error}") from error


def _tracks(folder: Path, setup: dict[str, Any], is_wav: bool) -> list[MUSDBTrack]:
    """Find the tracks of a subset; what else lies there is passed over."""
    found = visible(folder.iterdir()) if folder.is_dir() else []
    if not is_wav:
        stems, suffix = setup["stem_ids"], ".stem.mp4"
        return [
            MUSDBTrack(
                path.name.removesuffix(suffix),
                Clip(path, stems["mixture"]),
                {name: Clip(path, stems[name]) for name in setup["sources"]},
            )
            for path in found
            if path.name.endswith(suffix)
        ]
    tracks: list[MUSDBTrack] = []
    others: list[MUSDBTrack] = []
    for path in found:
        sources = {name: Clip(path / file) for name, file in setup["sources"].items()}
        track = MUSDBTrack(path.name, Clip(path / setup["mixture"]), sources)
        if path.is_dir():
            (tracks if len(track.missing) < len(track.clips) else others).append(track)
    if others:
        text = "%s: %d folders have none of a track's files and are passed over, %s for one"
        logger.warning(text, folder, len(others), others[0].name)
    return tracks
