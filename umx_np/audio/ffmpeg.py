"""Sound that libsndfile cannot read, decoded by ffmpeg and taken from a pipe.

Nothing is written to disk, and no more is in memory than a block: a file is decoded again each time
it is read.
"""

from __future__ import annotations

import logging
import re
import shutil
import struct
import subprocess
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._support.programs import Program, run_program
from ..errors import AudioError, printable
from .given import GivenSound

logger = logging.getLogger(__name__)

# Formats of files that hold the sound themselves. Playlists (HLS, DASH), lists of files (concat,
# image sequences), descriptions of sessions (SDP) and devices are not among them: their text, under
# the name of a song, would make ffmpeg open other files or addresses, or wait for them.
_FORMATS = (
    "aac,ac3,act,adx,aiff,alp,amr,amrnb,amrwb,ape,apm,aptx,aptx_hd,asf,asf_o,au,avi,boa,brstm,caf,"
    "codec2,dsf,dts,dtshd,dv,eac3,flac,flv,g722,g726,g726le,g729,gsm,hcom,iff,ircam,live_flv,loas,"
    "matroska,webm,mlp,mov,mp4,m4a,3gp,3g2,mj2,mp3,mpc,mpc8,mpeg,mpegts,mxf,nistsphere,nut,ogg,oma,"
    "osq,paf,pvf,qcp,rm,rso,sbc,sds,sox,spdif,svx,swf,tak,truehd,tta,voc,vqf,w64,wav,wsaud,wtv,wv,"
    "wve,xa,xwma"
)
# Seconds that ffmpeg may need for the next block, which is about a second of sound.
SILENCE = 60.0
# Bytes a read: 64 Ki samples of stereo.
_READ = 1 << 19
_FLOATS = 3  # in the header of a WAV file
_EXTENSIBLE = 0xFFFE
# "Stream #0:1[0x2](ger): Audio: ac3, 48000 Hz, 5.1(side), fltp, 448 kb/s (default)"
_STREAM = re.compile(r"^  Stream #0:(\d+)\S*: (Audio|Video): (.*)$")
_TITLE = re.compile(r"^    +title +: (.*)$")
_LANGUAGE = re.compile(r"\((\w+)\): Audio")


def find_ffmpeg() -> str | None:
    """Where ffmpeg is; None if it is not on the PATH."""
    return shutil.which("ffmpeg")


def input_options(path: Path) -> list[str]:
    """Options of ffmpeg for a file that may hold anything."""
    # `file:` keeps ffmpeg from taking a name with a colon for a protocol.
    safe = ["-protocol_whitelist", "file", "-format_whitelist", _FORMATS]
    return [*safe, "-i", f"file:{path.absolute()}"]


@dataclass(frozen=True)
class Streams:
    """What ffmpeg says of a file.

    Attributes
    ----------
    sounds : tuple of str
        Its streams of sound, described in words.
    covers : tuple of int
        Numbers of the streams that are pictures which belong to the sound.
    tags : str
        Tags of the file and of one stream of sound, in the text format of ffmpeg.
    """

    sounds: tuple[str, ...]
    covers: tuple[int, ...]
    tags: str


def look_into(path: Path, track: int = 1) -> Streams | None:
    """Ask ffmpeg what is in a file; None if it cannot be asked or knows nothing of it.

    Parameters
    ----------
    path : Path
        The file.
    track : int
        Stream of sound whose tags are wanted, from 1.
    """
    ffmpeg = find_ffmpeg()
    if ffmpeg is None:
        return None
    command = [ffmpeg, "-nostdin", "-hide_banner", "-v", "info", *input_options(path)]
    # `?`: without such a stream there are no tags, but the others are listed.
    command += ["-map", f"0:a:{track - 1}?", "-c", "copy", "-t", "0", "-f", "ffmetadata", "pipe:1"]
    try:
        done = run_program(command, SILENCE)
    except (OSError, subprocess.TimeoutExpired):
        return None
    sounds: list[str] = []
    covers: list[int] = []
    in_sound = False
    listing = done.stderr.decode(errors="replace").partition("\nOutput #0")[0]
    for line in listing.splitlines():
        if match := _STREAM.match(line):
            kind, text = match[2], printable(match[3])
            if kind == "Video" and text.endswith("(attached pic)"):
                covers.append(int(match[1]))
            language = _LANGUAGE.search(line)
            if kind == "Audio":
                known = language is not None and language[1] != "und"
                sounds.append(f"{language[1]}, {text}" if language and known else text)
            in_sound = kind == "Audio"
        elif sounds and in_sound and (title := _TITLE.match(line)):
            sounds[-1] += f", {printable(title[1])!r}"
    return Streams(tuple(sounds), tuple(covers), done.stdout.decode(errors="surrogateescape"))


def tracks_in_words(sounds: Sequence[str]) -> str:
    """List streams of sound with their numbers, for a message."""
    listed = "; ".join(f"{number}: {text}" for number, text in enumerate(sounds, 1))
    return f"there are {len(sounds)} ({listed})" if len(sounds) > 1 else f"there is one ({listed})"


def _silent() -> str:
    return f"it gave nothing for {SILENCE:g} s"


def _read_header(pipe: Program) -> tuple[int, int, int | None] | None:
    """Rate, channels and their positions from the WAV header; None if nothing comes."""
    if pipe.read(12, SILENCE)[8:12] != b"WAVE":
        return None
    found = None
    while len(head := pipe.read(8, SILENCE)) == 8:
        name, size = head[:4], struct.unpack("<I", head[4:])[0]
        if name == b"data":
            return found
        chunk = pipe.read(size + size % 2, SILENCE)
        if name == b"fmt " and len(chunk) >= 16:
            tag, nb_channels, rate = struct.unpack("<HHI", chunk[:8])
            mask = None
            if tag == _EXTENSIBLE and len(chunk) >= 26:
                mask, tag = struct.unpack("<IH", chunk[20:26])
            if tag != _FLOATS or nb_channels < 1:
                return None
            found = rate, nb_channels, mask
    return None


class FfmpegSource:
    """A stream of sound of a file, as ffmpeg decodes it.

    Of the several streams of a ``.stem.mp4`` file, the first is the mixture.

    Parameters
    ----------
    sound : GivenSound
        The file.
    reason : str
        Why libsndfile does not read the file; goes into the messages.
    notes : sequence of str
        What is known to be odd about the file.
    track : int or None
        Number of the stream among those of sound, from 1; None is the first, and if there are
        others, a note says so.

    Attributes
    ----------
    format : str
        ``"ffmpeg"``.
    rate, nb_channels : int
        Of the decoded sound; all of it has that of its beginning.
    mask : int or None
        Positions of the channels, as in WAVEFORMATEXTENSIBLE.
    nb_frames : None
        Only decoding tells the length.
    notes : list of str
        What is odd about the file, and what ffmpeg complained about while it counted.

    Raises
    ------
    AudioError
        If ffmpeg is missing or cannot decode the file, or there is no such stream.
    """

    format = "ffmpeg"
    nb_frames: int | None = None

    def __init__(
        self,
        sound: GivenSound,
        *,
        reason: str,
        notes: Sequence[str] = (),
        track: int | None = None,
    ) -> None:
        self._shown, self._label, self._path = sound.shown, sound.label, sound.path.absolute()
        self._reason = reason
        self._pipes: list[Program] = []
        self.notes: list[str] = list(notes)
        ffmpeg = find_ffmpeg()
        if ffmpeg is None:
            raise AudioError(
                f"{sound.shown} cannot be read by libsndfile ({reason}); if it holds sound in "
                "a format like m4a, mp4, aac, wma or webm, install ffmpeg and put it on the PATH"
            )
        self._choose(sound.path, track)
        command = [ffmpeg, "-nostdin", "-hide_banner", "-v", "error"]
        # FLAC in Matroska, for instance, is not checked unless asked for.
        command += ["-err_detect", "+crccheck"]
        command += input_options(sound.path)
        command += ["-map", f"0:a:{(track or 1) - 1}", "-vn", "-sn", "-dn"]
        # WAV is the plainest format whose header tells the rate and the channels.
        command += ["-map_metadata", "-1", "-c:a", "pcm_f32le"]
        self._command = [*command, "-f", "wav", "pipe:1"]
        logger.info("decoding %s with ffmpeg", sound.label)
        self._ready: Program | None = None
        self._ready, (self.rate, self.nb_channels, self.mask) = self._start()

    def _choose(self, path: Path, track: int | None) -> None:
        """Say that there are several streams, or that the one which is wanted is not there."""
        found = look_into(path, track or 1)
        sounds = found.sounds if found is not None else ()
        if track is not None and sounds and track > len(sounds):
            raise AudioError(f"{self._shown} has no track={track}; {tracks_in_words(sounds)}")
        if track is None and len(sounds) > 1:
            self.notes.append(
                f"has several tracks, and the first is read; {tracks_in_words(sounds)}"
            )

    def _start(self) -> tuple[Program, tuple[int, int, int | None]]:
        try:
            pipe = Program(self._command)
        except OSError as error:
            raise AudioError(f"ffmpeg={self._command[0]!r} cannot be started: {error}") from error
        try:
            self._pipes = [pipe, *(old for old in self._pipes if not old.closed)]
            found = _read_header(pipe)
            if found is None:
                raise self._error(pipe, pipe.finish(SILENCE))
        except BaseException:
            pipe.close()
            raise
        return pipe, found

    def _error(self, pipe: Program, status: int) -> AudioError:
        complaint = pipe.complaint.replace(f"file:{self._path}", self._label)
        said = f"says {complaint!r}"
        if pipe.given_up:
            said = _silent()
        elif not pipe.complaint:
            said = f"gave none and ended with status {status}"
        return AudioError(
            f"{self._shown} holds no sound that can be read: libsndfile says "
            f"{self._reason!r}, ffmpeg {said}"
        )

    def count(self, enough: float) -> int:
        """Decode to count samples; stop as soon as there are `enough`."""
        nb_frames = 0
        with closing(self._decode(self.notes)) as blocks:
            for block in blocks:
                nb_frames += len(block)
                if nb_frames >= enough:
                    break
        return nb_frames

    def blocks(self, first: int, end: int) -> Generator[np.ndarray, None, None]:
        """Yield (n, nb_channels) float32 from the sample `first` on, up to `end` or a bit more.

        Raises
        ------
        AudioError
            If ffmpeg is silent for too long; the message names the position.
        """
        position = 0
        with closing(self._decode()) as blocks:
            for block in blocks:
                position += len(block)
                if position > first:
                    yield block[max(len(block) - (position - first), 0) :]
                if position >= end:
                    return

    def _decode(self, notes: list[str] | None = None) -> Generator[np.ndarray, None, None]:
        pipe, self._ready = self._ready, None
        if pipe is None:
            pipe, found = self._start()
            if found[:2] != (self.rate, self.nb_channels):
                pipe.close()
                raise AudioError(f"{self._shown} was replaced while it was read")
        frame_size = 4 * self.nb_channels
        nb_bytes = max(_READ // frame_size, 1) * frame_size
        nb_frames = 0
        try:
            while data := pipe.read(nb_bytes, SILENCE):
                whole = len(data) // frame_size * frame_size
                nb_frames += whole // frame_size
                samples = np.frombuffer(data[:whole], "<f4").astype(np.float32)
                yield samples.reshape(-1, self.nb_channels)
            status = pipe.finish(SILENCE)
            if pipe.given_up:
                raise AudioError(
                    f"{self._shown} was given up after {nb_frames / self.rate:.3f} s of "
                    f"sound: ffmpeg was stopped, {_silent()}"
                )
            if notes is not None and (pipe.complaint or status):
                notes.append(f"ffmpeg complains: {pipe.complaint or status}")
        finally:
            pipe.close()

    def close(self) -> None:
        """End what is running."""
        for pipe in self._pipes:
            pipe.close()
