"""Opening sound files: libsndfile where it knows the format, ffmpeg for the rest."""

from __future__ import annotations

import logging
import math
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import BinaryIO

import soundfile as sf

from ..errors import AudioError

logger = logging.getLogger(__name__)

# What soundfile raises for files it cannot read: its own errors, TypeError and ValueError for
# headerless formats, OSError from the system.
READ_ERRORS = (sf.SoundFileError, RuntimeError, TypeError, ValueError, OSError)

# "data : 400000 (should be 199978)" in libsndfile's log: the header promises more than there is.
_SIZE_NOTE = re.compile(r"^\s*(?:data|SSND|Data Size|riff)\s*:\s*(\d+) \(should be (\d+)\)", re.M)
# Sizes from here on are placeholders of programs that write into a pipe.
_PLACEHOLDER_SIZE = 0x7FFF0000
# Writers disagree about counting a chunk's header or its padding byte.
_SIZE_SLACK = 64


def library_name(path: Path) -> str | bytes:
    """Name of a file for soundfile, which cannot encode names that are not Unicode."""
    name = os.fspath(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


class _EndlessFile:
    """An MP3 file that claims to be far longer than it is.

    libsndfile stops reading an MP3 stream without a Xing header at a length guessed from the size
    of the file and the bit rate of its first frames. For a variable bit rate the guess may be a
    third of the truth. A file that seems very long makes the guess too high, and decoding ends
    where the data end.
    """

    # 8 kbit/s is the lowest and 320 kbit/s the highest bit rate; four times that for safety.
    _FACTOR = 160
    # The decoder looks for a tag in the last bytes and insists on being able to read them.
    _TAIL = 128

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("rb")
        self._size = os.fstat(self._file.fileno()).st_size
        self._claimed = self._size * self._FACTOR + self._TAIL
        self._position = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        base = {0: 0, 1: self._position, 2: self._claimed}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, nb_bytes: int = -1) -> bytes:
        if self._position >= self._claimed - self._TAIL:
            data = bytes(max(min(nb_bytes, self._claimed - self._position), 0))
        else:
            self._file.seek(self._position)
            data = self._file.read(nb_bytes)
        self._position += len(data)
        return data

    def write(self, data: bytes) -> int:  # soundfile asks for it, also for reading
        raise OSError("opened for reading")

    def close(self) -> None:
        self._file.close()


_MP3_LENGTH_MARKS = (b"Xing", b"Info", b"VBRI")


def _mp3_first_frame(path: Path) -> tuple[int, bytes]:
    """Position and beginning of the first frame of an MP3 file."""
    with path.open("rb") as file:
        head = file.read(10)
        start = 0
        if head[:3] == b"ID3":
            # The size of the tag has seven bits a byte.
            start = 10
            for position, byte in enumerate(head[9:5:-1]):
                start += (byte & 0x7F) << (7 * position)
        file.seek(start)
        return start, file.read(4096)


def _has_mp3_length(path: Path) -> bool:
    """Whether the first frame of an MP3 file tells the number of frames."""
    _, first_frame = _mp3_first_frame(path)
    return any(mark in first_frame for mark in _MP3_LENGTH_MARKS)


def mp3_bytes(path: Path) -> int | None:
    """Size that the first frame of an MP3 file says the file has; None if it does not say."""
    _, first_frame = _mp3_first_frame(path)
    return _declared_bytes(first_frame)


def missing_mp3_bytes(path: Path) -> int:
    """How much of an MP3 file is not there, as far as its first frame tells."""
    start, first_frame = _mp3_first_frame(path)
    declared = _declared_bytes(first_frame)
    return 0 if declared is None else max(declared - (path.stat().st_size - start), 0)


def _declared_bytes(first_frame: bytes) -> int | None:
    for mark in (b"Xing", b"Info"):
        begin = first_frame.find(mark)
        if 0 <= begin <= len(first_frame) - 16:
            # Flags, then the number of frames if bit 0 is set, then that of bytes if bit 1 is.
            flags, *numbers = struct.unpack(">3I", first_frame[begin + 4 : begin + 16])
            return numbers[flags & 1] if flags & 2 else None
    return None


class SoundFile(sf.SoundFile):
    """`soundfile.SoundFile` for reading, which reads MP3 files without a length to their end."""

    def __init__(self, path: Path) -> None:
        self._endless: _EndlessFile | None = None
        super().__init__(library_name(path))
        if self.format == "MP3" and not _has_mp3_length(path):
            super().close()
            self._endless = _EndlessFile(path)
            try:
                super().__init__(self._endless)
            except BaseException:
                self._endless.close()
                raise
        if self.format == "W64" and self.subtype == "PCM_32" and "IEEE float" in self.extra_info:
            # As written by ffmpeg. libsndfile takes these floats for integers.
            self.close()
            raise ValueError("floats in an extensible W64 file are not supported")

    def close(self) -> None:
        super().close()
        if self._endless is not None:
            self._endless.close()

    @property
    def has_exact_length(self) -> bool:
        """Whether `frames` can be trusted; lossy formats are decoded to know."""
        return self.format not in ("MP3", "OGG") and 0 <= self.frames < 2**62


def check_complete(path: Path, log: str) -> None:
    """Raise `AudioError` if libsndfile's log says that the file is shorter than its header says."""
    for declared, present in _SIZE_NOTE.findall(log):
        if int(present) + _SIZE_SLACK < int(declared) < _PLACEHOLDER_SIZE:
            raise AudioError(
                f"path={str(path)!r} is cut short: its header promises {declared} bytes and only "
                f"{present} are there; copy or download it again"
            )


def decode_with_ffmpeg(path: Path, folder: Path, *, end: float | None, reason: str) -> Path:
    """Decode the first audio stream of a file to 32-bit floats.

    Parameters
    ----------
    path : Path
        Any file with sound that ffmpeg can read. Of the several streams of a ``.stem.mp4`` file,
        the first is the mixture.
    folder : Path
        Existing folder for the result.
    end : float or None
        Where decoding may stop, in seconds from the beginning.
    reason : str
        Why libsndfile could not read the file; goes into the messages.

    Returns
    -------
    Path
        A WAV file, or RF64 if it is longer than 4 GB.

    Raises
    ------
    AudioError
        If ffmpeg is missing or cannot decode the file.
    """
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise AudioError(
            f"path={str(path)!r} cannot be read by libsndfile ({reason}); if it holds sound in a "
            "format like m4a, mp4, aac, wma or webm, install ffmpeg and put it on the PATH"
        )
    result = folder / "decoded.wav"
    # `file:` keeps ffmpeg from taking a name with a colon for a protocol; the whitelist keeps
    # playlists from opening anything that is not a local file.
    command = [ffmpeg, "-nostdin", "-hide_banner", "-v", "error", "-protocol_whitelist", "file"]
    command += ["-i", f"file:{path.absolute()}", "-map", "0:a:0", "-vn", "-sn", "-dn"]
    if end is not None and math.isfinite(end):
        command += ["-t", f"{end:.6f}"]
    command += ["-c:a", "pcm_f32le", "-f", "wav", "-rf64", "auto", "-y", f"file:{result}"]
    logger.info("decoding %s with ffmpeg", path)
    run = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    complaint = " / ".join(line.strip() for line in run.stderr.splitlines()[-3:])
    if run.returncode or not result.exists():
        raise AudioError(
            f"path={str(path)!r} holds no sound that can be read: libsndfile says {reason!r}, "
            f"ffmpeg says {complaint!r}"
        )
    if complaint:
        logger.warning("%s: ffmpeg complains: %s", path, complaint)
    return result
