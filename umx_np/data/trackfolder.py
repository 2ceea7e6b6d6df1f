"""Folders that hold the sources of a track, to be mixed: files of the same names in each."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..audio.resampling import resample_to
from ..config import check_int
from ..errors import ConfigError
from .augmentations import Augmentation
from .base import Sample, UnmixDataset
from .files import Clip
from .folders import FileDataset, FileKeywords, Load, Source, mix
from .plans import PlannedItem
from .sources import check_inside, check_names, same_file

if TYPE_CHECKING:
    from typing import Unpack

# Mean square under which a mixture counts as silence: -60 dB.
FAINT = 1e-6


@dataclass(frozen=True)
class Track:
    """A folder, what is used of it, and the length of its shortest file."""

    folder: Path
    target: Clip | None
    interferers: tuple[Clip, ...]
    nb_timesteps: int = 0

    @property
    def clips(self) -> tuple[Clip, ...]:
        return self.interferers if self.target is None else (self.target, *self.interferers)


class TrackFolderDataset(FileDataset):
    """The base of both kinds of track folders."""

    tracks: list[Track]

    def __len__(self) -> int:
        return len(self.tracks)

    def describe(self, index: int) -> str:
        """Folder of the track."""
        return str(self.tracks[index].folder)

    def groups(self) -> list[tuple[Clip, ...]]:
        """Target and interferers of each track that has a target."""
        return [track.clips for track in self.tracks if track.target is not None]

    def _measured(self, tracks: list[Track]) -> list[Track]:
        """Tracks that are long enough, with their lengths."""
        kept = set(self.long_enough({track.folder.name: track.clips for track in tracks}))
        return [
            replace(track, nb_timesteps=self.length(track.clips))
            for track in tracks
            if track.folder.name in kept
        ]


class FixedSourcesTrackFolderDataset(TrackFolderDataset):
    """A folder for each track, with files of the same names in all of them.

    The mixture is the sum of the target and the interferers. ::

        train/1/vocals.wav ----------------+
        train/1/drums.wav  (interferer1) --+--> input
        train/1/bass.wav   (interferer2) --+

        train/1/vocals.wav -------------------> output

    An epoch has `samples_per_track` items for each track; `random_track_mix` takes each interferer
    from a random track.

    Parameters
    ----------
    root : str or path-like
        Folder with the folders ``train`` and ``valid``.
    split : str
        Which of them.
    target_file : str
        Name of the file of the target.
    interferer_files : sequence of str
        Names of the files to mix with it, each once. Tracks that lack one of them are left out, and
        those in which two are links to one file.
    seq_duration : float or None
        Length of the excerpts in seconds; tracks whose shortest file is not longer are left out.
        None takes whole tracks.
    random_chunks : bool
        Excerpts from a random position in place of the beginning. The sources of a track share it.
    random_track_mix : bool
        Take each interferer from a random track, and with `random_chunks` from a position of its
        own.
    source_augmentations : callable or None
        Applied to each source.
    sample_rate : float or None
        See `FileDataset`.
    seed : int
        Accepted as upstream's; random numbers come from the generator handed to `sample`.
    samples_per_track : int
        Items of each track. Not in upstream, where it is 1.
    coherent_share : float
        Probability with which an item keeps its own track's interferers in spite of
        `random_track_mix`, so that some mixtures are in time and in tune. Not in upstream, where
        it is 0.
    mix_level : pair of float or None
        Scale each mixture, and the target with it, to a level drawn between these, in dB of its
        root mean square relative to full scale. The squared error counts an excerpt that is 20 dB
        louder a hundred times as much: so all of them count. Not in upstream.
    speed : pair of float or None
        Play each track at a speed drawn log-uniformly between these, as a tape: 1.1 is 10 % faster
        and 1.65 semitones higher. A track too short for a speed is used whole, at the greatest one
        that it is long enough for. Needs `seq_duration`. Not in upstream.
    **files
        `cache` and `progress`, see `FileDataset`.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        target_file: str = "vocals.wav",
        interferer_files: Sequence[str] = ("bass.wav", "drums.wav"),
        seq_duration: float | None = None,
        random_chunks: bool = False,
        random_track_mix: bool = False,
        source_augmentations: Augmentation | None = None,
        sample_rate: float | None = None,
        seed: int = 42,
        *,
        samples_per_track: int = 1,
        coherent_share: float = 0.0,
        mix_level: Sequence[float] | None = None,
        speed: Sequence[float] | None = None,
        **files: Unpack[FileKeywords],
    ) -> None:
        super().__init__(
            root, split, seq_duration, random_chunks, source_augmentations, sample_rate, **files
        )
        if not 0.0 <= coherent_share <= 1.0:
            raise ConfigError(f"coherent_share={coherent_share!r} must lie between 0 and 1")
        if mix_level is not None and not (
            len(mix_level) == 2 and -math.inf < mix_level[0] <= mix_level[1] < math.inf
        ):
            raise ConfigError(f"mix_level={mix_level!r} must be two levels in dB, the lower first")
        if speed is not None and not (len(speed) == 2 and 0.0 < speed[0] <= speed[1] < math.inf):
            raise ConfigError(f"speed={speed!r} must be two positive factors, the lower first")
        if speed is not None and self.seq_duration is None:
            raise ConfigError(f"speed={speed!r} needs excerpts: set seq_duration")
        self.target_file = target_file
        self.interferer_files = check_names("interferer_files", interferer_files)
        self._check_names()
        self.random_track_mix = random_track_mix
        self.samples_per_track = check_int("samples_per_track", samples_per_track, 1)
        self.coherent_share = float(coherent_share)
        self.mix_level = None if mix_level is None else (float(mix_level[0]), float(mix_level[1]))
        self.speed = None if speed is None else (float(speed[0]), float(speed[1]))
        self.target = Path(target_file).stem
        self.tracks = self._measured(self._find_tracks())
        if not self.tracks:
            names = ", ".join([target_file, *self.interferer_files])
            raise self.no_tracks(f"each track is a folder that holds {names}")
        self.settle(self.clips)

    def _check_names(self) -> None:
        check_inside("target_file", self.target_file)
        if not self.interferer_files:
            raise ConfigError(
                "interferer_files is empty: the mixture would be the target; name what is mixed "
                "with it"
            )
        names = [os.path.normpath(name) for name in (self.target_file, *self.interferer_files)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(
                f"target_file={self.target_file!r} and interferer_files={self.interferer_files} "
                f"name {', '.join(twice)} twice; each source is mixed in once"
            )

    def _find_tracks(self) -> list[Track]:
        tracks, incomplete, linked = [], [], []
        for folder in self.subfolders():
            target, *interferers = (
                Clip(folder / name) for name in (self.target_file, *self.interferer_files)
            )
            paths = [clip.path for clip in (target, *interferers)]
            if not all(path.exists() for path in paths):
                incomplete.append(folder.name)
            elif any(same_file(*pair) for pair in combinations(paths, 2)):
                linked.append(folder.name)
            else:
                tracks.append(Track(folder, target, tuple(interferers)))
        self.report_left_out(incomplete, "files are missing")
        self.report_left_out(linked, "two of the files are the same one")
        self.require(clip for track in tracks for clip in track.clips)
        return tracks

    def __len__(self) -> int:
        return len(self.tracks) * self.samples_per_track

    def describe(self, index: int) -> str:
        """Folder of the track."""
        return super().describe(index // self.samples_per_track)

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Mix the target with interferers; see `UnmixDataset.sample`."""
        x, sources, factor = self._mixed(index, rng)
        return x, sources[0] * factor if factor is not None else sources[0]

    def mixture(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, list[np.ndarray]]:
        """Make an item whose sources are all wanted.

        Parameters
        ----------
        index : int
            Number of the item, from 0.
        rng : Generator
            The only source of random numbers.

        Returns
        -------
        ndarray [shape=(nb_channels, nb_timesteps)], float32
            What `sample` returns as the mixture for the same random numbers.
        list of ndarray [shape=(nb_channels, nb_timesteps)], float32
            What it is the sum of: the target, then the interferers.
        """
        x, sources, factor = self._mixed(index, rng)
        return x, [source * factor for source in sources] if factor is not None else sources

    def _mixed(
        self, index: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, list[np.ndarray], np.floating | None]:
        """Mixture at its level, sources before it, and the factor that takes them there."""
        sources = self._sources(index, rng, self.load)
        x = mix(sources)
        sources = [source[:, : x.shape[1]] for source in sources]
        if self.mix_level is not None:
            level = rng.uniform(*self.mix_level)
            power = float(np.mean(np.square(x, dtype=np.float32)))
            # A faint mixture stays as it is: raising it would raise noise.
            if power > FAINT:
                factor = x.dtype.type(10.0 ** (level / 20.0) / math.sqrt(power))
                return x * factor, sources, factor
        return x, sources, None

    def plan(self, index: int, rng: np.random.Generator) -> PlannedItem:
        """Draw what `sample` would draw; see `umx_np.data.plans.PlanningDataset`."""
        sources = self._sources(index, rng, self.planned)
        level = None if self.mix_level is None else rng.uniform(*self.mix_level)
        return PlannedItem(tuple(sources), (0,), level)

    @property
    def clips(self) -> set[Clip]:
        """All clips that items are made from."""
        return {clip for track in self.tracks for clip in track.clips}

    def _sources(self, index: int, rng: np.random.Generator, load: Load[Source]) -> list[Source]:
        """Draw an item and load its sources, the target first."""
        track = self.tracks[index // self.samples_per_track]
        first, count = self.place(track.nb_timesteps, rng)
        sources = [load(track.clips[0], first, count, rng)]
        mixes = self.random_track_mix
        # No number is drawn where nothing is decided: then the items are those of a share of 0.
        if mixes and self.coherent_share > 0.0:
            mixes = rng.random() >= self.coherent_share
        for position in range(len(self.interferer_files)):
            if mixes:
                track = self.tracks[rng.integers(len(self.tracks))]
                first, count = self.place(track.nb_timesteps, rng)
            sources.append(load(track.interferers[position], first, count, rng))
        return sources

    def excerpt_length(self, rng: np.random.Generator) -> int | None:
        """Samples that become `nb_timesteps` at a random speed, where `speed` is set."""
        if self.speed is None:
            return super().excerpt_length(rng)
        assert self.nb_timesteps is not None, "the constructor sees to it"
        factor = math.exp(rng.uniform(*np.log(self.speed)))
        return max(1, round(factor * self.nb_timesteps))

    def load(self, clip: Clip, first: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """Read an excerpt, play it at the speed that makes it `nb_timesteps` long, augment it."""
        if self.speed is None:
            return super().load(clip, first, count, rng)
        assert self.nb_timesteps is not None, "the constructor sees to it"
        audio = resample_to(self.files.read(clip, first, count), self.nb_timesteps)
        return self.source_augmentations(audio, rng)

    @property
    def why_no_plans(self) -> str:
        """Why items cannot be planned; see `umx_np.data.plans.PlanningDataset`."""
        return super().why_no_plans or ("its tracks change their speed" if self.speed else "")

    def for_statistics(self) -> UnmixDataset:
        """Copy of whole tracks, each once."""
        plain = super().for_statistics()
        assert isinstance(plain, FixedSourcesTrackFolderDataset)
        plain.samples_per_track = 1
        plain.mix_level = None
        plain.speed = None
        return plain
