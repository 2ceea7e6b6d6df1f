"""Read a sound file, or an excerpt of it, block by block and at the rate that is wanted."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import NoReturn

import numpy as np

from ..config import MAX_RATE, MIN_RATE, check_int, check_rate
from ..errors import AudioError, ConfigError
from .decoding import LibrarySource
from .downmix import check_downmix, layout_name, mixed, stereo_gains, usual_mask
from .ffmpeg import FfmpegSource
from .given import GivenSound, SoundInput
from .library import READ_ERRORS, plain
from .resampling import StreamResampler, nb_resampled

logger = logging.getLogger(__name__)

# Seconds of sound that may be missing before ffmpeg is asked.
_FEW = 0.1


class AudioReader:
    """A sound file as a sequence of blocks; never more than a few of them are in memory.

    Formats that libsndfile knows (wav, flac, ogg, mp3, aiff, w64, rf64, au, caf, ...) are read
    directly. Others (m4a, mp4, aac, webm, video with sound), and those of which libsndfile finds
    less than there is, are decoded by ffmpeg if it is installed. Nothing is written to disk.

    Parameters
    ----------
    path : str, path-like or binary file object
        The file; ``~`` is the home folder. An object is read from where it is to its end, which is
        kept in a temporary file until `close`; it is not closed, and put back if it can seek.
    start : float
        Beginning of the excerpt in seconds, rounded to the nearest sample.
    duration : float or None
        Length of the excerpt in seconds; None or a negative value reads to the end. An excerpt that
        reaches beyond the end stops there.
    rate : float or None
        Rate in Hz to deliver, from 1000 to 768000; None keeps the rate of the file.
    track : int or None
        Which stream of sound of a video, say, counted from 1; None is the first, and the log says
        so if there are others that ffmpeg sees.
    downmix : {'standard', 'first'} or None
        What to deliver of more than two channels: their stereo by Recommendation ITU-R BS.775 (see
        `umx_np.audio.downmix`), the first two, or all. Where the positions of the channels are not
        known, ``'standard'`` is the first two as well.

    Attributes
    ----------
    path : Path
        The file; of an object its attribute ``name``, or else its type.
    source_rate : int
        Rate of the file in Hz.
    rate : float
        Rate of the blocks in Hz.
    nb_channels : int
        Channels of the blocks, in the order of WAV files (front left and right, centre, low
        frequencies, back or side left and right for 5.1), also of Vorbis and Opus files, which have
        another.
    nb_source_channels : int
        Channels of the file.
    downmixed : str
        What was made of more than two channels, in words; empty if they are delivered.
    nb_source_timesteps : int
        Exact length of the excerpt in samples at `source_rate`.
    nb_timesteps : int
        Exact number of samples that `blocks` delivers in all:
        ``ceil(nb_source_timesteps * rate / source_rate)``.
    format : str
        Name of the container as libsndfile calls it (``"WAV"``), or ``"ffmpeg"``.

    Raises
    ------
    AudioError
        If there is no such file or track, it cannot be decoded, holds no samples, has a rate that
        sound cannot have, or `start` is negative or beyond its end. `blocks` raises it for files
        that change while they are read, and for samples that are NaN or infinite, with the position
        of the first.

    Notes
    -----
    Samples of a downmix are not scaled to stay within full scale.

    The lengths that lossy files claim are often estimates. All but plain samples and FLAC are
    decoded once when opened, to count, and excerpts of them are reached by decoding from the
    beginning: seeking is not exact to the sample, or loses the decoder's state.

    What the bytes of a file hold is read, whatever its header says: joined mp3, ogg and flac files
    to the end of the last one (with its rate and channels converted to those of the first), and wav
    files with sizes that are missing, wrong, or wrapped at 4 GB. What is guessed or left out is
    said in the log, one line a place.
    """

    def __init__(
        self,
        path: SoundInput | GivenSound,
        *,
        start: float = 0.0,
        duration: float | None = None,
        rate: float | None = None,
        track: int | None = None,
        downmix: str | None = None,
    ) -> None:
        check_downmix(downmix)
        if rate is not None:
            check_rate("rate", rate)
        self._track = None if track is None else check_int("track", track, 1)
        self._owns_sound = not isinstance(path, GivenSound)
        self._sound = path if isinstance(path, GivenSound) else GivenSound(path)
        self.path = Path(self._sound.label)
        self._closed = False
        try:
            duration = self._check_excerpt(start, duration)
            self._check_file()
            self._use(self._open_source(None if duration is None else start + duration))
            try:
                self._measure(start, duration)
            except BaseException:
                self._source.close()
                raise
        except BaseException:
            self._close_sound()
            raise
        self._mix(downmix)
        self.rate: float = self.source_rate if rate is None else rate
        self.nb_timesteps: int = nb_resampled(self.nb_source_timesteps, self.source_rate, self.rate)

    def _check_excerpt(self, start: float, duration: float | None) -> float | None:
        """Return the duration, None for the whole; raise `AudioError` if there is nothing."""
        if not math.isfinite(start) or start < 0:
            raise AudioError(
                f"start={start} must be 0 or a positive number of seconds ({self._sound.shown})"
            )
        if duration is not None and (duration < 0 or duration == math.inf):
            return None
        if duration is not None and not duration > 0:
            raise AudioError(
                f"duration={duration} selects nothing; give seconds, or a negative value for the "
                f"whole of {self._sound.shown}"
            )
        return duration

    def _check_file(self) -> None:
        path, shown = self._sound.path, self._sound.shown
        if os.path.exists(path) and not os.path.isfile(path):
            raise AudioError(f"{shown} is not a regular file; give a sound file")
        try:
            with path.open("rb") as file:
                is_empty = not file.read(1)
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            # libsndfile would call all of these a "system error".
            reason = getattr(error, "strerror", None) or error
            raise AudioError(f"{shown} cannot be opened: {reason}; give a sound file") from error
        if is_empty:  # libsndfile would say that it does not exist
            raise AudioError(f"{shown} is empty; copy or download it again")

    def _open_source(self, end: float | None) -> LibrarySource | FfmpegSource:
        """Find out what the file is; let ffmpeg decode it if libsndfile cannot."""
        if self._track not in (None, 1):
            return FfmpegSource(
                self._sound, reason="it reads the first track only", track=self._track
            )
        try:
            return LibrarySource(self._sound, end=end)
        except AudioError:
            raise
        except READ_ERRORS as error:
            notes = getattr(error, "notes", ())
            return FfmpegSource(self._sound, reason=plain(error), notes=notes, track=self._track)

    def _mix(self, downmix: str | None) -> None:
        """Settle which channels are delivered."""
        self._gains: np.ndarray | None = None
        self.nb_source_channels: int = self._source.nb_channels
        self.nb_channels: int = self.nb_source_channels
        self.downmixed = ""
        if downmix is None or self.nb_source_channels <= 2:
            return
        self.nb_channels = 2
        count = self.nb_source_channels
        self.downmixed = f"the first two of {count} channels are taken"
        if downmix == "first":
            self.downmixed += "; downmix='standard' mixes all it can"
            return
        mask = self._source.mask
        if mask is None:
            mask = usual_mask(count)
        self._gains = stereo_gains(mask, count)
        if self._gains is None:
            self.downmixed += ", as it is not known where each belongs"
            return
        said = "" if self._source.mask is not None else ", the usual order of so many"
        self.downmixed = (
            f"{count} channels ({layout_name(mask)}{said}) are mixed to stereo; downmix='first' "
            "takes the first two"
        )

    def _measure(self, start: float, duration: float | None) -> None:
        """Set the first sample and the exact length of the excerpt."""
        nb_channels = self._source.nb_channels
        if nb_channels < 1 or not MIN_RATE <= self.source_rate <= MAX_RATE:
            raise AudioError(
                f"{self._sound.shown} has nb_channels={nb_channels} and "
                f"rate={self.source_rate} Hz; sound has at least one channel, and a rate from "
                f"{MIN_RATE} to {MAX_RATE} Hz"
            )
        self._first = round(start * self.source_rate)
        wanted = math.inf if duration is None else max(round(duration * self.source_rate), 1)
        nb_frames = self._source.nb_frames
        if nb_frames is None:
            nb_frames = self._count(self._first + wanted)
        for note in self._source.notes:
            logger.warning("%s: %s", self.path, note)
        if nb_frames == 0:
            raise AudioError(f"{self._sound.shown} holds no samples")
        if self._first >= nb_frames:
            raise AudioError(
                f"start={start} is beyond the end of {self._sound.shown}, which lasts "
                f"{nb_frames / self.source_rate:.3f} s"
            )
        self.nb_source_timesteps: int = int(min(nb_frames - self._first, wanted))

    def _count(self, enough: float) -> int:
        """Decode to count samples; where libsndfile misses some, see whether ffmpeg does not."""
        source = self._source
        nb_frames = source.count(enough)
        if isinstance(source, FfmpegSource) or nb_frames >= enough:
            return nb_frames
        if source.nb_missing <= _FEW * self.source_rate and nb_frames > 0:
            return nb_frames
        try:
            reason = "; ".join(source.notes[-3:])
            other = FfmpegSource(self._sound, reason=reason, track=self._track)
            nb_other = other.count(enough)
        except AudioError as error:
            logger.info("%s", error)
            return nb_frames
        if nb_other / other.rate <= nb_frames / self.source_rate + _FEW:
            other.close()
            return nb_frames
        logger.info("%s: libsndfile reads less of it than ffmpeg", self.path)
        source.close()
        self._use(other)
        return nb_other

    def _use(self, source: LibrarySource | FfmpegSource) -> None:
        self._source = source
        self.format: str = source.format
        self.source_rate: int = source.rate

    def _source_blocks(self) -> Generator[np.ndarray, None, None]:
        """Yield the excerpt as (n, nb_channels) float32 at the rate of the file."""
        if self._closed:
            raise AudioError(f"{self._sound.shown} was closed; open it again to read")
        position = self._first
        end = position + self.nb_source_timesteps
        with closing(self._source.blocks(position, end)) as blocks:
            for block in blocks:
                block = block[: end - position]
                self._check_finite(block, position)
                if self._gains is not None:
                    yield mixed(block, self._gains)
                else:
                    yield block[:, : self.nb_channels]
                position += len(block)
                if position == end:
                    return
        raise AudioError(
            f"{self._sound.shown} is cut short: it ends after "
            f"{position / self.source_rate:.3f} s of {end / self.source_rate:.3f} s; copy or "
            "download it again"
        )

    def _check_finite(self, block: np.ndarray, position: int) -> None:
        finite = np.isfinite(block)
        if not finite.all():
            time, channel = np.unravel_index(np.argmin(finite), finite.shape)
            raise AudioError(
                f"{self._sound.shown} holds {block[time, channel]} in channel={channel} at "
                f"sample {position + time} ({(position + time) / self.source_rate:.3f} s): repair "
                "the file, every stem would be damaged by it"
            )

    def _resampled_blocks(self) -> Generator[np.ndarray, None, None]:
        """Yield the excerpt as (n, nb_channels) float32 at `rate`."""
        if self.rate == self.source_rate:
            yield from self._source_blocks()
            return
        resampler = StreamResampler(self.source_rate, self.rate, self.nb_channels)
        with closing(self._source_blocks()) as blocks:
            for block in blocks:
                yield resampler.push(block)
        yield resampler.finish()

    def blocks(self, size: int) -> Generator[np.ndarray, None, None]:
        """Yield the excerpt from its beginning; so does each call.

        Parameters
        ----------
        size : int
            Samples a block.

        Yields
        ------
        ndarray [shape=(nb_channels, size)], float32
            C-contiguous, new for each block; only the last may be shorter. The samples are the same
            in each call and for each `size`.

        Raises
        ------
        AudioError
            If the file turns out to be damaged, or holds NaN or infinity.
        """
        size = min(check_int("size", size, 1), self.nb_timesteps)
        out = np.empty((self.nb_channels, size), np.float32)
        filled = 0
        with closing(self._resampled_blocks()) as blocks:
            for block in blocks:
                taken = 0
                while taken < len(block):
                    n = min(size - filled, len(block) - taken)
                    out[:, filled : filled + n] = block[taken : taken + n].T
                    filled += n
                    taken += n
                    if filled == size:
                        yield out
                        out = np.empty_like(out)
                        filled = 0
        if filled:
            yield out[:, :filled].copy()

    def close(self) -> None:
        """Close the file and end ffmpeg; `blocks` cannot be used any more."""
        self._closed = True
        self._source.close()
        self._close_sound()

    def _close_sound(self) -> None:
        if self._owns_sound:
            self._sound.close()

    def __reduce__(self) -> NoReturn:
        raise ConfigError(
            f"{self._sound.shown}: a reader holds open files; make one where it is used instead of "
            "copying or pickling it"
        )

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
