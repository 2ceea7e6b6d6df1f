"""Folders that hold the sources of a track, to be mixed: any number of files."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import AudioError, ConfigError
from .augmentations import Augmentation
from .base import Sample
from .files import Clip
from .folders import FileKeywords, listed, mix
from .sources import check_inside, check_text, find_sources
from .trackfolder import Track, TrackFolderDataset

if TYPE_CHECKING:
    from typing_extensions import Unpack

logger = logging.getLogger(__name__)


class _UnreadableError(AudioError):
    """A file that was fine when the dataset was made."""

    def __init__(self, clip: Clip, error: AudioError) -> None:
        super().__init__(str(error))
        self.clip = clip


class VariableSourcesTrackFolderDataset(TrackFolderDataset):
    """A folder for each track, with the target and any number of other sources.

    The mixture is the sum of all of them. Files that are called like a mixture themselves, such as
    ``mixture.wav`` or ``mix.wav``, are not mixed in, which is logged. ::

        train/1/vocals.wav -----+
        train/1/drums.wav ------+
        train/1/bass.wav -------+--> input
        train/1/accordion.wav --+

        train/1/vocals.wav --------> output

    A file that cannot be read is passed over with its track: when the dataset is made, the track is
    left out; later, the item before it is taken in its place (the one after it for the first).

    Parameters
    ----------
    root : str or path-like
        Folder with the folders ``train`` and ``valid``.
    split : str
        Which of them.
    target_file : str
        Name of the file of the target. It may end differently from the others.
    ext : str
        How the names of the interferers end, in upper or lower case.
    seq_duration : float or None
        Length of the excerpts in seconds; tracks whose shortest file is not longer are left out.
        None takes whole tracks.
    random_chunks : bool
        Excerpts from a random position in place of the beginning.
    random_interferer_mix : bool
        Take all interferers from one random track, at a position of its own.
    sample_rate : float or None
        See `FileDataset`.
    source_augmentations : callable or None
        Applied to each source.
    silence_missing_targets : bool
        Let the target be silent where it is missing; otherwise such tracks are left out.
    **files
        `cache` and `progress`, see `FileDataset`.

    Raises
    ------
    ConfigError
        If there are no tracks, or one in which nothing is left to be mixed with the target, or the
        target is there twice.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        split: str = "train",
        target_file: str = "vocals.wav",
        ext: str = ".wav",
        seq_duration: float | None = None,
        random_chunks: bool = False,
        random_interferer_mix: bool = False,
        sample_rate: float | None = None,
        source_augmentations: Augmentation | None = None,
        silence_missing_targets: bool = False,
        **files: Unpack[FileKeywords],
    ) -> None:
        super().__init__(
            root, split, seq_duration, random_chunks, source_augmentations, sample_rate, **files
        )
        check_inside("target_file", target_file)
        check_text("ext", ext)
        self.target_file = target_file
        self.ext = ext
        self.random_interferer_mix = random_interferer_mix
        self.silence_missing_targets = silence_missing_targets
        self.target = Path(target_file).stem
        self.tracks = self._measured(self._readable(self._find_tracks()))
        if not self.tracks:
            raise self.no_tracks(
                f"each track is a folder that holds target_file={target_file!r} and files with "
                f"ext={ext!r}"
            )
        self.settle({clip for track in self.tracks for clip in track.clips})

    def _find_tracks(self) -> list[Track]:
        tracks: list[Track] = []
        empty: list[str] = []
        missing: list[str] = []
        doubtful: list[str] = []
        unused: dict[str, list[str]] = {}
        for folder in self.subfolders():
            found = find_sources(folder, self.target_file, self.ext)
            target = None if found.target is None else Clip(found.target)
            interferers = tuple(map(Clip, found.interferers))
            for reason, paths in (
                (f"ext={self.ext!r} passes over them", found.others),
                ("by their names they are mixtures already", found.mixtures),
                ("they are links to other sources", found.doubles),
            ):
                unused.setdefault(reason, []).extend(f"{folder.name}/{path.name}" for path in paths)
            if found.is_in_doubt:
                doubtful.append(folder.name)
            elif target and (interferers or target.path.name.lower().endswith(self.ext.lower())):
                tracks.append(Track(folder, target, interferers))
            elif interferers and self.silence_missing_targets:
                tracks.append(Track(folder, None, interferers))
            else:
                (missing if interferers else empty).append(folder.name)
        for reason, names in unused.items():
            self.report_unused(names, reason)
        self.report_left_out(missing, f"no {self.target_file!r}")
        self.report_left_out(empty, f"no sources with ext={self.ext!r}")
        self.report_left_out(doubtful, "a source may be the sum of others")
        self._check_mixed(tracks)
        return tracks

    def _check_mixed(self, tracks: list[Track]) -> None:
        """Say where the mixture is the target, and refuse if it is so everywhere."""
        alone = [track.folder.name for track in tracks if not track.interferers]
        if tracks and len(alone) == len(tracks):
            raise ConfigError(
                f"no track in {str(self.folder)!r} has anything to mix with {self.target_file!r}, "
                f"{alone[0]!r} for one: there is nothing to learn; ext={self.ext!r} says how the "
                "names of the other sources end"
            )
        if alone:
            text = "%s: %d tracks have no source but the target, which then is the mixture: %s"
            logger.warning(text, self.folder, len(alone), listed(alone))

    def _readable(self, tracks: list[Track]) -> list[Track]:
        """Tracks all of whose files can be read."""
        errors = self.look_at(clip for track in tracks for clip in track.clips)
        for clip in sorted(errors):
            self.skip(str(clip), str(errors[clip]))
        return [track for track in tracks if errors.keys().isdisjoint(track.clips)]

    def sample(self, index: int, rng: np.random.Generator) -> Sample:
        """Mix the sources of a track; see `UnmixDataset.sample`."""
        neighbours = [*range(index - 1, -1, -1), *range(index + 1, len(self))]
        for candidate in (index, *neighbours):
            try:
                return self._make(self.tracks[candidate], rng)
            except _UnreadableError as error:
                self.skip(str(error.clip), str(error))
        raise AudioError(f"none of the {len(self)} tracks in {str(self.folder)!r} can be read")

    def load(self, clip: Clip, first: int, count: int, rng: np.random.Generator) -> np.ndarray:
        """Read an excerpt and augment it; an error knows the file."""
        try:
            return super().load(clip, first, count, rng)
        except AudioError as error:
            raise _UnreadableError(clip, error) from error

    def _make(self, track: Track, rng: np.random.Generator) -> Sample:
        first, count = self.place(track.nb_timesteps, rng)
        other, other_first, other_count = track, first, count
        if self.random_interferer_mix:
            other = self.tracks[rng.integers(len(self.tracks))]
            other_first, other_count = self.place(other.nb_timesteps, rng)
        sources = [self.load(clip, other_first, other_count, rng) for clip in other.interferers]
        if track.target is None:
            y = np.zeros((self.nb_channels or 1, count), np.float32)
        else:
            y = self.load(track.target, first, count, rng)
        x = mix([y, *sources])
        return x, y[:, : x.shape[1]]
