"""Write stems to sound files block by block; a file appears only when it is complete."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np

from ..config import check_array, check_int, check_rate
from ..errors import AudioError, ConfigError, ShapeError
from .bitrates import encoder_options
from .encoded import EncodedSink, check_encoding
from .ffmpeg import find_ffmpeg
from .given import GivenSound
from .library import HeldFile
from .resampling import StreamResampler
from .sink import FILE_BLOCK, Sink, check_format
from .tags import SongTags, has_tags, put_tags

logger = logging.getLogger(__name__)


class StemWriter:
    """A sound file that is written block by block and appears when it is complete.

    Until `commit`, which the end of a ``with`` block calls, everything is in a temporary file in
    the same folder; a file of the final name stays as it is. An exception in the ``with`` block
    removes the temporary file.

    Parameters
    ----------
    path : str or path-like
        The file; its extension sets the format: .wav .flac .aiff .w64 .rf64 .au .caf .ogg (Vorbis)
        .opus .mp3, and with ffmpeg .m4a. Missing folders are made. WAV files beyond 4 GB become
        RF64.
    nb_channels : int
        Channels of the blocks and of the file; more than two are in the order of WAV files.
    rate : float
        Rate of the blocks in Hz.
    file_rate : int or None
        Rate of the file in Hz; the blocks are resampled to it. None is `rate`.
    nb_timesteps : int or None
        Exact length of the file in samples: longer signals are cut, shorter ones end in silence.
        None takes what is written.
    bits : {'16', '24', 'float'}
        Integers of 16 or 24 bits, or 32-bit floats. The lossy formats take no notice.
    clip_mode : {'clamp', 'rescale', 'none'}
        What to do with samples beyond full scale: limit them, scale the whole stem by one gain such
        that its peak is at full scale (with `commit_together`, one gain for all stems), or leave
        them alone, which only floats and the lossy formats can.
    quality : float or None
        Of the lossy formats, from 0 (small) to 1 (best); None is libsndfile's default. Of m4a files
        1 is ALAC, which loses nothing but what `bits` round.
    bitrate : int or None
        Instead of `quality`, in kbit/s: constant in MP3 files, which know 14 of them; the mean that
        the encoder aims at in m4a, Vorbis and Opus files, whose music needs more here and less
        there.

    Raises
    ------
    AudioError
        If the format, the rate or the place cannot be written.
    ConfigError
        If an argument is not usable.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        nb_channels: int,
        rate: float,
        file_rate: float | None = None,
        nb_timesteps: int | None = None,
        bits: str = "16",
        clip_mode: str = "clamp",
        quality: float | None = None,
        bitrate: int | None = None,
    ) -> None:
        self.path = Path(os.path.expanduser(path))
        self.nb_channels = check_int("nb_channels", nb_channels, 1)
        self.rate = check_rate("rate", rate)
        file_rate = check_rate("file_rate", rate if file_rate is None else file_rate)
        if file_rate != int(file_rate):
            raise ConfigError(f"file_rate={file_rate} must be a whole number of Hz")
        self.file_rate = int(file_rate)
        self._left = None if nb_timesteps is None else check_int("nb_timesteps", nb_timesteps, 0)
        self._bits, self._clip_mode = bits, clip_mode
        self._pair = check_format(self.path, bits, clip_mode)
        self._encoding, self._options = None, {}
        how = (self.file_rate, self.nb_channels)
        if self.path.suffix.lower() == ".m4a":
            self._encoding = check_encoding(self.path, *how, bits, clip_mode, quality, bitrate)
        else:
            self._options = encoder_options(self._pair, *how, quality, bitrate)
        if os.path.isdir(self.path):
            raise AudioError(f"path={str(path)!r} is a folder; give the name of a file")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AudioError(f"path={str(path)!r}: its folder cannot be made: {error}") from error
        self._resampler: StreamResampler | None = None
        if self.file_rate != self.rate:
            self._resampler = StreamResampler(self.rate, self.file_rate, self.nb_channels)
        self._nb_frames = 0
        self._nb_clipped = 0
        self._peak = 0.0
        self._state = "open"  # then "ended", "finished", and "committed" or "discarded"
        # The gain of a rescaled stem is known at its end: until then it is kept in floats.
        staged = clip_mode == "rescale"
        self._sink = self._new_sink(("W64", "FLOAT"), {}) if staged else self._new_sink()

    def _new_sink(
        self, pair: tuple[str, str] | None = None, options: dict[str, Any] | None = None
    ) -> Sink | EncodedSink:
        expected = max(self._left or 0, self._nb_frames)
        if self._encoding is not None and pair is None:
            return EncodedSink(
                self.path, self._encoding, self.file_rate, self.nb_channels, expected
            )
        return Sink(
            self.path,
            pair or self._pair,
            self.file_rate,
            self.nb_channels,
            expected,
            self._options if options is None else options,
        )

    def write(self, block: np.ndarray) -> None:
        """Append samples.

        Parameters
        ----------
        block : ndarray [shape=(nb_channels, nb_timesteps)], float32
            The next samples at `rate`; not modified.

        Raises
        ------
        ShapeError
            If the block does not have `nb_channels` channels or is not float.
        AudioError
            If the disk is full, or the samples hold NaN or infinity.
        """
        if self._state != "open":
            raise AudioError(f"path={str(self.path)!r} is {self._state}; nothing can be added")
        block = check_array("block", block)
        if block.ndim != 2 or len(block) != self.nb_channels or block.dtype.kind != "f":
            raise ShapeError(
                f"shape={block.shape} dtype={block.dtype} must be ({self.nb_channels}, "
                f"nb_timesteps) of float32 for path={str(self.path)!r}"
            )
        frames = np.ascontiguousarray(block.T, dtype=np.float32)
        if not np.isfinite(frames).all():
            # Before resampling, which would make NaN of everything that follows.
            raise AudioError(
                f"the samples for path={str(self.path)!r} hold NaN or infinity near "
                f"{self._nb_frames / self.file_rate:.3f} s: nothing was written"
            )
        if self._resampler is not None:
            frames = self._resampler.push(frames)
        self._store(frames)

    def _store(self, frames: np.ndarray) -> None:
        """Cut (n, nb_channels) samples at the file's rate to its length, limit and store them."""
        if self._left is not None:
            frames = frames[: self._left]
            self._left -= len(frames)
        if not len(frames):
            return
        self._nb_frames += len(frames)
        peak = float(max(frames.max(), -frames.min()))
        self._peak = max(self._peak, peak)
        if peak > 1 and self._clip_mode == "clamp":
            self._nb_clipped += int(np.count_nonzero(np.abs(frames) > 1))
            frames = np.clip(frames, -1, 1)
        self._sink.write(frames)

    def _end(self) -> float:
        """Store what is held back; what follows may depend on other stems.

        Returns
        -------
        float
            The largest gain, at most 1, that keeps a stem with ``clip_mode='rescale'`` within full
            scale; 1 for others.

        Raises
        ------
        AudioError
            If the disk is full.
        """
        if self._state == "open":
            if self._resampler is not None:
                self._store(self._resampler.finish())
                self._resampler = None
            silence = np.zeros((FILE_BLOCK, self.nb_channels), np.float32)
            while self._left:
                self._store(silence)
            self._sink.close()
            self._state = "ended"
        if self._clip_mode != "rescale" or self._peak <= 1:
            return 1.0
        full_scale = 1 - 2.0 ** (1 - int(self._bits)) if self._bits != "float" else 1.0
        return full_scale / self._peak

    def finish(self, gain: float | None = None) -> None:
        """Close the file, still under its temporary name.

        Parameters
        ----------
        gain : float or None
            What to scale a stem with ``clip_mode='rescale'`` by; None is its own gain.

        Raises
        ------
        AudioError
            If the disk is full.
        """
        if self._is_finished:
            return
        own = self._end()
        self._state = "finished"
        if self._clip_mode == "rescale":
            if gain is None and own < 1:
                logger.warning("%s: %s", self.path, _scaled(own))
            self._rescale(np.float32(own if gain is None else gain))
        elif self._nb_clipped:
            logger.warning(
                "%s: %d samples (%.2g %%) were beyond full scale and limited; clip_mode='rescale' "
                "or bits='float' with clip_mode='none' keep them",
                self.path,
                self._nb_clipped,
                100 * self._nb_clipped / (self._nb_frames * self.nb_channels),
            )

    def _rescale(self, gain: np.float32) -> None:
        """Second pass: from the floats kept so far to the file, by one gain."""
        staged = self._sink
        try:
            self._sink = self._new_sink()
            with HeldFile(staged.path) as file:
                for frames in file.blocks(FILE_BLOCK, dtype="float32", always_2d=True):
                    self._sink.write(np.clip(frames * gain, -1, 1))
            self._sink.close()
        finally:
            staged.discard()

    def _tag(self, song: SongTags, name: str) -> str:
        """Put the tags of a song into the finished file, as those of a stem.

        Returns
        -------
        str
            Why that was not possible; the file is as it was then. Empty otherwise.
        """
        if isinstance(self._sink, EncodedSink):
            return "m4a files get none yet"
        made = put_tags(song, name, self._sink.path, self._sink.format)
        if isinstance(made, str):
            return made
        self._sink.replace(made)
        return ""

    @property
    def _is_finished(self) -> bool:
        """Whether the file is closed, under whatever name."""
        return self._state not in ("open", "ended")

    @property
    def temporary_path(self) -> Path:
        """Where the file is until it is committed."""
        return self._sink.path

    def commit(self) -> None:
        """Give the finished file its name, replacing a file that has it.

        Raises
        ------
        AudioError
            If the file cannot be renamed, or was discarded.
        """
        if self._state == "committed":
            return
        if self._state == "discarded":
            raise AudioError(f"path={str(self.path)!r} was discarded; write it again")
        self.finish()
        try:
            self._sink.rename()
        except OSError as error:
            self.discard()
            raise AudioError(f"path={str(self.path)!r} cannot be replaced: {error}") from error
        self._state = "committed"

    def discard(self) -> None:
        """Remove the temporary file; nothing appears at `path`. Undoes no `commit`."""
        if self._state != "committed":
            self._state = "discarded"
            self._resampler = None
            self._sink.discard()

    def __reduce__(self) -> NoReturn:
        raise ConfigError(
            f"path={str(self.path)!r}: a writer holds an open file; make one where it is used "
            "instead of copying or pickling it"
        )

    def __enter__(self) -> StemWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.discard()
        elif self._state != "discarded":
            with commit_together([self]):
                pass


class CompleteWriter(Protocol):
    """What `commit_together` asks of a writer; some of it several times."""

    path: Path

    @property
    def _is_finished(self) -> bool: ...
    def _end(self) -> float: ...
    def finish(self, gain: float | None = None) -> None: ...
    def commit(self) -> None: ...
    def discard(self) -> None: ...


def _scaled(gain: float) -> str:
    return f"scaled by {20 * math.log10(gain):.2f} dB to stay within full scale"


def finish_together(writers: Collection[CompleteWriter], label: str | None = None) -> float:
    """Finish files that belong together, still under their temporary names.

    Parameters
    ----------
    writers : collection of StemWriter
        Those with ``clip_mode='rescale'`` get one gain, with which the loudest of them is at full
        scale: the balance of the stems stays, and their sum is the scaled mixture.
    label : str or None
        What the log calls them; None is their names.

    Returns
    -------
    float
        The gain, at most 1. If it is less, the log says so.
    """
    gain = min((writer._end() for writer in writers), default=1.0)
    if gain < 1 and not all(writer._is_finished for writer in writers):
        names = label or ", ".join(str(writer.path) for writer in writers)
        what = "all stems are " if len(writers) > 1 else ""
        logger.warning("%s: %s%s", names, what, _scaled(gain))
    for writer in writers:
        writer.finish(gain)
    return gain


def copy_tags(sound: GivenSound, writers: Mapping[str, StemWriter], track: int | None) -> None:
    """Put tags and cover of a song into its finished stems, and say in one line what is not there.

    Parameters
    ----------
    sound : GivenSound
        The song.
    writers : mapping of str to StemWriter
        By the names of the stems.
    track : int or None
        Stream of sound of the song, from 1.
    """
    label = sound.label
    song = SongTags.of(sound.path, track)
    if song is None:
        if find_ffmpeg() is None and has_tags(sound.path):
            logger.warning("%s: its tags are not in its stems, as this needs ffmpeg", label)
        return
    if not song.tags and not song.covers:
        return
    reasons = [reason for name, stem in writers.items() if (reason := stem._tag(song, name))]
    if reasons:
        logger.warning("%s: tags are not in %d of its stems: %s", label, len(reasons), reasons[0])
        return
    name, stem = next(iter(writers.items()))
    kept = SongTags.of(stem.temporary_path)
    if kept is not None and (lost := kept.missing(replace(song, tags=song.for_stem(name)))):
        logger.warning("%s: %s files cannot hold its %s", label, stem.path.suffix, lost)


@contextmanager
def commit_together(writers: Collection[CompleteWriter]) -> Iterator[None]:
    """Give files that belong together their names once all of them are complete.

    Parameters
    ----------
    writers : collection of StemWriter
        Looked at when the ``with`` block ends, so they may be opened inside it. As with
        `finish_together`, those that are to be rescaled get one gain.

    Notes
    -----
    An exception in the block, or while finishing one of the files, removes all temporary files.
    """
    try:
        yield
        finish_together(writers)
        for writer in writers:
            writer.commit()
    except BaseException:
        for writer in writers:
            writer.discard()
        raise
