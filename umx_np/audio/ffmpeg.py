"""Sound that libsndfile cannot read, decoded by ffmpeg and taken from a pipe.

Nothing is written to disk, and no more is in memory than a block: a file is decoded again each time
it is read.
"""

from __future__ import annotations

import logging
import shutil
import struct
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from .._support.programs import Program
from ..errors import AudioError

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


def _silent() -> str:
    return f"it gave nothing for {SILENCE:g} s"


def _read_header(pipe: Program) -> tuple[int, int] | None:
    """Rate and channels from the WAV header that comes first; None if nothing comes."""
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
            if tag == _EXTENSIBLE and len(chunk) >= 26:
                tag = struct.unpack("<H", chunk[24:26])[0]
            if tag != _FLOATS or nb_channels < 1:
                return None
            found = rate, nb_channels
    return None


class FfmpegSource:
    """The first stream of sound of a file, as ffmpeg decodes it.

    Of the several streams of a ``.stem.mp4`` file, the first is the mixture.

    Parameters
    ----------
    path : Path
        The file.
    reason : str
        Why libsndfile does not read the file; goes into the messages.
    notes : sequence of str
        What is known to be odd about the file.

    Attributes
    ----------
    format : str
        ``"ffmpeg"``.
    rate, nb_channels : int
        Of the decoded sound; all of it has that of its beginning.
    nb_frames : None
        Only decoding tells the length.
    notes : list of str
        What is odd about the file, and what ffmpeg complained about while it counted.

    Raises
    ------
    AudioError
        If ffmpeg is missing or cannot decode the file.
    """

    format = "ffmpeg"
    nb_frames: int | None = None

    def __init__(self, path: Path, *, reason: str, notes: Sequence[str] = ()) -> None:
        self._path = path
        self._reason = reason
        self._pipes: list[Program] = []
        self.notes: list[str] = list(notes)
        ffmpeg = shutil.which("ffmpeg")
        if ffmpeg is None:
            raise AudioError(
                f"path={str(path)!r} cannot be read by libsndfile ({reason}); if it holds sound in "
                "a format like m4a, mp4, aac, wma or webm, install ffmpeg and put it on the PATH"
            )
        # `file:` keeps ffmpeg from taking a name with a colon for a protocol.
        command = [ffmpeg, "-nostdin", "-hide_banner", "-v", "error"]
        command += ["-protocol_whitelist", "file", "-format_whitelist", _FORMATS]
        # FLAC in Matroska, for instance, is not checked unless asked for.
        command += ["-err_detect", "+crccheck"]
        command += ["-i", f"file:{path.absolute()}", "-map", "0:a:0", "-vn", "-sn", "-dn"]
        # WAV is the plainest format whose header tells the rate and the channels.
        self._command = [
            *command,
            "-map_metadata",
            "-1",
            "-c:a",
            "pcm_f32le",
            "-f",
            "wav",
            "pipe:1",
        ]
        logger.info("decoding %s with ffmpeg", path)
        self._ready: Program | None = None
        self._ready, (self.rate, self.nb_channels) = self._start()

    def _start(self) -> tuple[Program, tuple[int, int]]:
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
        said = f"says {pipe.complaint!r}"
        if pipe.given_up:
            said = _silent()
        elif not pipe.complaint:
            said = f"gave none and ended with status {status}"
        return AudioError(
            f"path={str(self._path)!r} holds no sound that can be read: libsndfile says "
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
            if found != (self.rate, self.nb_channels):
                pipe.close()
                raise AudioError(f"path={str(self._path)!r} was replaced while it was read")
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
                    f"path={str(self._path)!r} was given up after {nb_frames / self.rate:.3f} s of "
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
