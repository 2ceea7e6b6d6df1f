"""The true stems: tracks of MUSDB18, or of folders with a file for each stem."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.files import AudioFiles, Clip
from ..data.musdb18 import PREVIEW_TRACKS, check_preview, named_root, open_database
from ..errors import AudioError, ConfigError
from .scores import ACCOMPANIMENT
from .stems import stem_files

logger = logging.getLogger(__name__)

DATASETS = ("musdb", "folder")
MIXTURE = "mixture"
# Samples by which the streams of one file may differ: a few frames of the encoder.
_STREAM_SLACK = 8192


@dataclass(frozen=True)
class Track:
    """Where the sound of a track is.

    Attributes
    ----------
    name, subset : str
        By which its results are filed.
    mixture : Clip or None
        Its mixture; None if that is the sum of the sources.
    sources : dict of str to Clip
        The stems.
    fault : str
        Why it cannot be scored, a message; empty if nothing is known against it.
    """

    name: str
    subset: str
    mixture: Clip | None
    sources: dict[str, Clip]
    fault: str = ""

    @property
    def targets(self) -> dict[str, tuple[str, ...]]:
        """What can be scored, and the sources that it is the sum of."""
        targets: dict[str, tuple[str, ...]] = {name: (name,) for name in self.sources}
        rest = tuple(name for name in self.sources if name != "vocals")
        if "vocals" in self.sources and rest:
            targets.setdefault(ACCOMPANIMENT, rest)
        return targets

    def changed(self) -> float:
        """When the newest of the files was written, in seconds of the clock of files."""
        clips = [*self.sources.values(), *([] if self.mixture is None else [self.mixture])]
        return max(clip.path.stat().st_mtime for clip in clips)


class TrackAudio:
    """Reads the sound of a track.

    Parameters
    ----------
    track : Track
        The track.

    Raises
    ------
    AudioError
        If a file cannot be read, or the files differ in rate, channels or length.
    """

    def __init__(self, track: Track) -> None:
        self._track = track
        self._files = AudioFiles()
        clips = [*track.sources.values()]
        if track.mixture is not None:
            clips.insert(0, track.mixture)
        first = self._files.info(clips[0])
        self.rate, self.nb_channels = first.rate, first.nb_channels
        self.nb_timesteps = first.nb_timesteps
        for clip in clips[1:]:
            info = self._files.info(clip)
            # The streams of one file end together; what is missing at the end of one is silence.
            slack = _STREAM_SLACK if clip.stream >= 0 else 0
            same_length = abs(info.nb_timesteps - first.nb_timesteps) <= slack
            if not same_length or (info.rate, info.nb_channels) != (first.rate, first.nb_channels):
                raise AudioError(
                    f"path={str(clip)!r} has rate={info.rate}, nb_channels={info.nb_channels}, "
                    f"nb_timesteps={info.nb_timesteps}; {str(clips[0])!r} has {first.rate}, "
                    f"{first.nb_channels}, {first.nb_timesteps}; all files of a track must agree"
                )

    def mixture(self) -> np.ndarray:
        """Return the mixture [shape=(nb_channels, nb_timesteps)], float32."""
        if self._track.mixture is not None:
            return self._read(self._track.mixture)
        return self._sum(tuple(self._track.sources)).astype(np.float32)

    def target(self, name: str) -> np.ndarray:
        """Return a true stem, or the sum of some [shape=(nb_channels, nb_timesteps)]."""
        parts = self._track.targets[name]
        return self._read(self._track.sources[name]) if parts == (name,) else self._sum(parts)

    def _sum(self, names: Sequence[str]) -> np.ndarray:
        total = np.zeros((self.nb_channels, self.nb_timesteps))
        for name in names:
            total += self._read(self._track.sources[name])
        return total

    def _read(self, clip: Clip) -> np.ndarray:
        count = min(self._files.info(clip).nb_timesteps, self.nb_timesteps)
        samples = self._files.read(clip, 0, count)
        missing = self.nb_timesteps - count
        return np.pad(samples, ((0, 0), (0, missing))) if missing else samples


def find_tracks(
    root: str | os.PathLike[str] | None = None,
    *,
    dataset: str = "musdb",
    subset: str = "test",
    is_wav: bool = False,
    download: bool = False,
) -> list[Track]:
    """Find the tracks of a data set.

    Parameters
    ----------
    root : str, path-like or None
        Its folder. For MUSDB18, None means ``MUSDB_PATH``, if that is set, or the seven second
        excerpts in ``~/MUSDB18/MUSDB18-7``.
    dataset : {'musdb', 'folder'}
        MUSDB18, or a folder ``<root>/<subset>`` (or `root` itself) with a folder for each track.
    subset : str
        ``"train"`` or ``"test"`` of MUSDB18, or the name of a folder.
    is_wav : bool
        MUSDB18 as folders of wav files (MUSDB18-HQ), not ``.stem.mp4`` files.
    download : bool
        Download the seven second excerpts if they are not there.

    Returns
    -------
    list of Track
        In the order of their names.

    Raises
    ------
    ConfigError
        If there are none, or arguments contradict each other.
    DownloadError
        If the excerpts cannot be downloaded.
    """
    if dataset not in DATASETS:
        raise ConfigError(f"dataset={dataset!r} must be one of {', '.join(DATASETS)}")
    if not subset or Path(subset).name != subset or subset in (".", ".."):
        raise ConfigError(f"subset={subset!r} must be the name of a folder")
    if dataset == "musdb":
        return _musdb_tracks(root, subset, is_wav, download)
    if root is None:
        raise ConfigError("root=None: dataset='folder' needs the folder of the tracks")
    if download:
        raise ConfigError("download=True is for dataset='musdb' only; leave it out")
    if is_wav:
        raise ConfigError("is_wav=True is for dataset='musdb' only; leave it out")
    return _folder_tracks(Path(os.path.expanduser(root)), subset)


def _musdb_tracks(
    root: str | os.PathLike[str] | None, subset: str, is_wav: bool, download: bool
) -> list[Track]:
    if subset not in PREVIEW_TRACKS:
        raise ConfigError(f"subset={subset!r}: MUSDB18 has {' and '.join(PREVIEW_TRACKS)}")
    if root is not None and download:
        raise ConfigError(
            f"download=True fetches the seven second excerpts and contradicts root={str(root)!r}; "
            "leave one of them out"
        )
    root = named_root(root)
    is_preview = root is None
    if root is None:
        root = Path(os.path.expanduser("~/MUSDB18/MUSDB18-7"))
        if is_wav:
            raise ConfigError("is_wav=True needs root: the excerpts are .stem.mp4 files")
        if not root.is_dir() and not download:
            raise ConfigError(
                f"root=None, and {root} is not there; give the folder of MUSDB18 with root=..., or "
                "fetch its seven second excerpts with download=True"
            )
        logger.info("seven second excerpts in %s: their scores are not those of MUSDB18", root)
    db = open_database(
        None if is_preview and download else root,
        is_preview and download,
        is_wav,
        subset,
        None,
        None,
    )
    if not db.tracks:
        looked_for = "folders of wav files" if is_wav else ".stem.mp4 files"
        raise ConfigError(
            f"root={str(root)!r}, subset={subset!r}: no tracks; is_wav={is_wav} looks for "
            f"{looked_for} in {Path(root) / subset}"
        )
    if is_preview:
        check_preview(root, subset)
    return [
        Track(
            track.name,
            subset,
            track.mixture,
            track.sources,
            f"the track {track.name!r} in root={str(root)!r} has no {', '.join(track.missing)}"
            if track.missing
            else "",
        )
        for track in db.tracks
    ]


def _folder_tracks(root: Path, subset: str) -> list[Track]:
    if not root.is_dir():
        raise ConfigError(f"root={str(root)!r} is no folder")
    folder = root / subset if (root / subset).is_dir() else root
    tracks: list[Track] = []
    others: list[Track] = []
    for place in sorted(folder.iterdir()):
        if place.name.startswith(".") or not place.is_dir():
            continue
        track = _folder_track(place, subset)
        (tracks if track.sources or track.mixture or track.fault else others).append(track)
    if others and tracks:
        text = "%s: %d folders hold no sound files of stems and are passed over, %s for one"
        logger.warning(text, folder, len(others), others[0].name)
    if not tracks:
        raise ConfigError(
            f"root={str(root)!r}, subset={subset!r}: no folders with stems in {folder}; each track "
            "is a folder with files like vocals.wav and drums.wav"
        )
    return tracks


def _folder_track(place: Path, subset: str) -> Track:
    """What a folder holds; what forbids to score it is said in the track, for others go on."""
    try:
        stems = stem_files(place)
    except ConfigError as error:
        return Track(place.name, subset, None, {}, str(error))
    except OSError as error:
        reason = f"path={str(place)!r} cannot be read: {error.strerror or error}"
        return Track(place.name, subset, None, {}, reason)
    mixture = stems.pop(MIXTURE, None)
    fault = ""
    if len(stems) < 2:
        fault = (
            f"the track at path={str(place)!r} has {', '.join(stems) or 'no stems'}; scores need "
            "two or more, as files like vocals.wav"
        )
    elif mixture is None:
        fault = _doubtful_sum(place, stems)
    return Track(
        place.name,
        subset,
        None if mixture is None else Clip(mixture),
        {name: Clip(path) for name, path in stems.items()},
        fault if stems or mixture else "",
    )


def _doubtful_sum(place: Path, stems: Mapping[str, Path]) -> str:
    """Why the sum of these files is hardly the mixture of a track; empty if it may well be."""
    if ACCOMPANIMENT in stems and set(stems) - {"vocals", ACCOMPANIMENT}:
        doubt = f"{stems[ACCOMPANIMENT].name} beside stems that it may be the sum of"
    elif len(suffixes := sorted({path.suffix.lower() for path in stems.values()})) > 1:
        # Most likely a copy of the song among its stems.
        doubt = f"files of several formats, {' '.join(suffixes)}"
    else:
        return ""
    return (
        f"the track at path={str(place)!r} has {doubt}, and no file of its mixture, which would be "
        f"their sum; add {MIXTURE}.wav, or leave only files that add up to it"
    )
