"""Excerpts of sound files: where datasets get their samples from, directly or from a cache."""

from __future__ import annotations

import hashlib
import json
import logging
import mmap
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .. import audio
from .._support.atomic import atomic_write, remove_abandoned
from .._support.inputs import parse_json
from .._support.progress import Progress, reporting
from .._support.threads import Ahead, available_cores
from ..errors import AudioError, ConfigError
from . import streams

logger = logging.getLogger(__name__)

# Full scale of 16-bit samples.
FULL_SCALE = 32768.0


@dataclass(frozen=True, order=True)
class Clip:
    """A sound file, or one stream of a file with several.

    Attributes
    ----------
    path : Path
        The file.
    stream : int
        Number of the stream in a ``.stem.mp4`` file; -1 for files of one stream.
    """

    path: Path
    stream: int = -1

    def __str__(self) -> str:
        return str(self.path) if self.stream < 0 else f"{self.path}, stream {self.stream}"


@dataclass(frozen=True)
class AudioInfo:
    """Description of a clip without its samples.

    Attributes
    ----------
    rate : int
        Sample rate in Hz.
    nb_channels, nb_timesteps : int
        Shape of the waveform.
    quick : bool
        Whether excerpts can be read without a decoder or what is before them.
    """

    rate: int
    nb_channels: int
    nb_timesteps: int
    quick: bool = True


class AudioFiles:
    """Reads excerpts of clips and remembers their lengths."""

    def __init__(self) -> None:
        self._infos: dict[Clip, AudioInfo] = {}

    def info(self, clip: Clip) -> AudioInfo:
        """Length, channels and rate of a clip.

        Raises
        ------
        AudioError
            If the file cannot be read.
        """
        if clip not in self._infos:
            self._infos[clip] = self._find_info(clip)
        return self._infos[clip]

    def scan(
        self, clips: Iterable[Clip], progress: bool | Progress | None = None
    ) -> dict[Clip, AudioError]:
        """Find out about many clips at once.

        Parameters
        ----------
        clips : iterable of Clip
            The clips; doubles count once.
        progress : bool, callable or None
            See `umx_np._support.progress.reporting`.

        Returns
        -------
        dict
            The clips that cannot be read, and why.
        """
        todo = sorted(set(clips) - set(self._infos))
        errors: dict[Clip, AudioError] = {}
        if not todo:
            return errors

        def look(clip: Clip) -> None:
            try:
                self.info(clip)
            except AudioError as error:
                errors[clip] = error

        with (
            reporting(progress, label=self._activity) as report,
            Ahead(min(available_cores(), 8), "umx-np-files", look, todo, ahead=16) as looks,
        ):
            for done, _ in enumerate(looks, start=1):
                if report is not None:
                    report(done / len(todo))
        return errors

    _activity = "looking at the files"

    def read(self, clip: Clip, first: int = 0, nb_timesteps: int | None = None) -> np.ndarray:
        """Samples of an excerpt.

        Parameters
        ----------
        clip : Clip
            Where from.
        first : int
            First sample.
        nb_timesteps : int or None
            Number of samples; None reads to the end.

        Returns
        -------
        ndarray [shape=(nb_channels, nb_timesteps)], float32
            A new array.

        Raises
        ------
        AudioError
            If the file is damaged, too short, or holds NaN or infinity.
        """
        info = self.info(clip)
        if nb_timesteps is None:
            nb_timesteps = info.nb_timesteps - first
        if clip.stream >= 0:
            return _to_float(streams.decode(clip.path, clip.stream, first, nb_timesteps))
        start, duration = first / info.rate, nb_timesteps / info.rate
        samples, _ = audio.read(clip.path, start=start, duration=duration)
        if samples.shape != (info.nb_channels, nb_timesteps):
            raise AudioError(
                f"path={str(clip.path)!r} gave (nb_channels, nb_timesteps)={samples.shape} in "
                f"place of {(info.nb_channels, nb_timesteps)} from sample {first}; was it replaced?"
            )
        return samples

    def read_all(self, clip: Clip) -> np.ndarray:
        """All samples of a clip, in as few bits as they need.

        Parameters
        ----------
        clip : Clip
            Where from.

        Returns
        -------
        ndarray [shape=(nb_channels, nb_timesteps)], int16 or float32
            16-bit integers, of which 32768 is full scale, where that is exact.

        Raises
        ------
        AudioError
            As for `read`.
        """
        samples = self.read(clip)
        try:
            return _to_int(samples)
        except _InexactError:
            return samples

    def _find_info(self, clip: Clip) -> AudioInfo:
        if clip.stream >= 0:
            rate, nb_channels = streams.probe(clip.path, clip.stream)
            nb_timesteps = streams.count(clip.path, clip.stream)
            return AudioInfo(rate, nb_channels, nb_timesteps, quick=False)
        with audio.AudioReader(clip.path) as reader:
            quick = reader.format not in ("MP3", "OGG", "ffmpeg")
            return AudioInfo(
                reader.source_rate, reader.nb_channels, reader.nb_source_timesteps, quick
            )


@dataclass(frozen=True)
class _Entry:
    """A file of the cache, and how to read it."""

    path: str
    dtype: str
    info: AudioInfo


class CachedFiles(AudioFiles):
    """Decodes each clip once into a file of raw samples, and maps excerpts of it into memory.

    Files of the cache are named after the path, size and time of change of the original; one that
    was replaced is decoded again. They appear when they are complete, so several programs may use
    one folder at the same time. Samples that fit 16 bits exactly are kept so, others as 32-bit
    floats: reading from the cache changes nothing.

    Parameters
    ----------
    folder : str or path-like
        Made if it is not there. Nothing in it is ever removed but remains of interrupted writing.

    Raises
    ------
    ConfigError
        If the folder cannot be made.
    """

    # Bytes before the samples: a line of JSON and spaces. A multiple of a page of memory.
    _HEADER = 4096
    # Rises when samples change: those of streams of MP4 files and of some MP3 files did with 2.
    _VERSION = 2

    _activity = "decoding to the cache"

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        super().__init__()
        self.folder = Path(os.path.expanduser(folder))
        self._entries: dict[Clip, _Entry] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"cache={str(folder)!r} cannot be used: {error.strerror or error}; give a folder "
                "that can be written to, with room for the decoded files"
            ) from error
        remove_abandoned(self.folder)

    def read(self, clip: Clip, first: int = 0, nb_timesteps: int | None = None) -> np.ndarray:
        """Samples of an excerpt; see `AudioFiles.read`."""
        info = self.info(clip)
        if nb_timesteps is None:
            nb_timesteps = info.nb_timesteps - first
        if first < 0 or nb_timesteps < 1 or first + nb_timesteps > info.nb_timesteps:
            raise AudioError(
                f"samples {first} to {first + nb_timesteps} are not in path={str(clip)!r}, which "
                f"has {info.nb_timesteps}"
            )
        try:
            return self._map(self._entries[clip], first, nb_timesteps)
        # A file that has become shorter is a buffer too small: a TypeError.
        except (OSError, ValueError, TypeError) as error:
            logger.warning("%s left the cache (%s) and is decoded again", clip, error)
            self._infos[clip] = self._find_info(clip)
            return self._map(self._entries[clip], first, nb_timesteps)

    def read_all(self, clip: Clip) -> np.ndarray:
        """All samples of a clip; see `AudioFiles.read_all`."""
        self.info(clip)
        entry = self._entries[clip]
        if entry.dtype != "<i2":
            return self.read(clip)
        shape = entry.info.nb_channels, entry.info.nb_timesteps
        try:
            return np.fromfile(entry.path, entry.dtype, offset=self._HEADER).reshape(shape)
        except (OSError, ValueError):
            return super().read_all(clip)  # which decodes what has left the cache

    def _map(self, entry: _Entry, first: int, nb_timesteps: int) -> np.ndarray:
        shape = entry.info.nb_channels, entry.info.nb_timesteps
        with (
            open(entry.path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory,
        ):
            samples = np.ndarray(shape, entry.dtype, buffer=memory, offset=self._HEADER)
            try:
                return _to_float(samples[:, first : first + nb_timesteps])
            finally:
                del samples  # or the map could not be closed

    def _find_info(self, clip: Clip) -> AudioInfo:
        try:
            status = clip.path.stat()
        except OSError as error:
            raise AudioError(f"path={str(clip)!r} cannot be opened: {error.strerror}") from error
        key = (os.path.abspath(clip.path), clip.stream, status.st_size, status.st_mtime_ns)
        name = hashlib.sha256(repr((self._VERSION, key)).encode()).hexdigest()[:40]
        path = self.folder / f"{name}.raw"
        entry = self._open(path)
        if entry is None:
            self._decode(clip, path)
            entry = self._open(path)
            if entry is None:
                raise AudioError(f"path={str(path)!r} in the cache does not hold what was written")
        self._entries[clip] = entry
        return entry.info

    def _open(self, path: Path) -> _Entry | None:
        """Look at a file of the cache; None if it is not there or not whole."""
        try:
            with path.open("rb") as file:
                header = parse_json(file.read(self._HEADER), str(path), AudioError)
                info = AudioInfo(**header["info"])
                dtype = np.dtype({"<i2": "<i2", "<f4": "<f4"}[header["dtype"]])
                size = self._HEADER + dtype.itemsize * info.nb_channels * info.nb_timesteps
                whole = os.fstat(file.fileno()).st_size == size
        except FileNotFoundError:
            return None
        except (OSError, AudioError, ValueError, KeyError, TypeError) as error:
            logger.info("path=%r is no file of the cache (%s), it is replaced", str(path), error)
            return None
        return _Entry(str(path), dtype.str, info) if whole else None

    def _decode(self, clip: Clip, path: Path) -> None:
        logger.info("decoding %s", clip)
        if clip.stream >= 0:
            rate, nb_channels = streams.probe(clip.path, clip.stream)
            samples = streams.decode(clip.path, clip.stream)
            info = AudioInfo(rate, nb_channels, samples.shape[1])
            self._write(path, clip, info, "<i2", lambda: iter([samples]))
            return
        with audio.AudioReader(clip.path) as reader:
            info = AudioInfo(reader.source_rate, reader.nb_channels, reader.nb_timesteps)
            try:
                self._write(path, clip, info, "<i2", lambda: map(_to_int, reader.blocks(1 << 18)))
            except _InexactError:
                self._write(path, clip, info, "<f4", lambda: reader.blocks(1 << 18))

    def _write(
        self,
        path: Path,
        clip: Clip,
        info: AudioInfo,
        dtype: str,
        blocks: Callable[[], Iterator[np.ndarray]],
    ) -> None:
        """Write a file of the cache, one channel after the other."""
        header = {"info": asdict(info), "dtype": dtype, "source": str(clip)[-1000:]}
        channel_size = np.dtype(dtype).itemsize * info.nb_timesteps
        try:
            with atomic_write(path, follow_links=False) as file:
                file.write(json.dumps(header).encode().ljust(self._HEADER))
                done = 0
                for block in blocks():
                    for channel, row in enumerate(block):
                        file.seek(self._HEADER + channel * channel_size + done)
                        file.write(row.astype(dtype, copy=False).tobytes())
                    done += block.shape[1] * np.dtype(dtype).itemsize
        except AudioError:
            raise
        except OSError as error:
            # On Windows, a file that another program has mapped cannot be replaced. It is ours.
            if isinstance(error, PermissionError) and self._open(path) is not None:
                return
            size = self._HEADER + info.nb_channels * channel_size
            raise AudioError(
                f"cache={str(self.folder)!r} cannot take the {size} bytes of {clip}: "
                f"{error.strerror or error}; make room, or use another folder"
            ) from error


class _InexactError(Exception):
    pass


def _to_int(samples: np.ndarray) -> np.ndarray:
    """Turn floats into 16-bit integers, or raise `_InexactError` if that changes them."""
    scaled = samples * np.float32(FULL_SCALE)
    integers = np.rint(scaled)
    exact = (integers == scaled) & (integers >= -FULL_SCALE) & (integers < FULL_SCALE)
    if not exact.all():
        raise _InexactError
    return integers.astype("<i2")


def _to_float(samples: np.ndarray) -> np.ndarray:
    """Copy samples, taking 16-bit integers to [-1, 1)."""
    result = samples.astype(np.float32)
    if samples.dtype.kind == "i":
        result *= np.float32(1.0 / FULL_SCALE)
    return result
