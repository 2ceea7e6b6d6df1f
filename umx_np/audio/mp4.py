"""MP4 files: sound encoded by ffmpeg, and boxes that ffmpeg does not write.

A box is a size of four bytes, a type of four, and its content, which may be boxes (ISO/IEC
14496-12). What players need to know is in ``moov``, the sound in ``mdat``; ``stco`` and ``co64``,
deep in ``moov``, say where in the file its chunks begin. GPAC's MP4Box can add boxes too, but is
not in Debian; mutagen writes tags only.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .._support.programs import run_program
from ..errors import AudioError

# Rates in Hz of AAC.
AAC_RATES = (
    8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000,
)  # fmt: skip
# Seconds until an encoder that hangs is given up, and bytes that it surely encodes in one more.
_PATIENCE = 60.0
_SLOWEST = 1e5
# Bytes of all that is not sound: hours of five streams have some 10 MB.
_MAX_MOOV = 1 << 28
_COPY = 1 << 20
_CONTAINERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl")


@dataclass(frozen=True)
class Encoding:
    """How sound is encoded.

    Attributes
    ----------
    codec : {'aac', 'alac'}
        AAC loses, ALAC does not.
    bits : {'16', '24'}
        Of the samples of ALAC.
    bitrate : int
        Of AAC and one stream, in kbit/s.
    """

    codec: str
    bits: str = "16"
    bitrate: int = 256

    @property
    def staged(self) -> tuple[str, str]:
        """Container and encoding of what ffmpeg is given, in libsndfile's names."""
        return "W64", "FLOAT" if self.codec == "aac" else f"PCM_{self.bits}"


def can_encode() -> bool:
    """Whether there is an encoder."""
    return shutil.which("ffmpeg") is not None


def ffmpeg_path(path: Path) -> str:
    """Find the encoder.

    Raises
    ------
    AudioError
        If there is none.
    """
    found = shutil.which("ffmpeg")
    if found is None:
        raise AudioError(
            f"path={str(path)!r}: writing m4a and mp4 files needs ffmpeg 5 or later; install it "
            "and put it on the PATH, or choose another format"
        )
    return found


def encode(
    parts: Sequence[Path],
    names: Sequence[str],
    target: Path,
    encoding: Encoding,
    final: Path,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Encode W64 files as the streams of one MP4 file.

    Parameters
    ----------
    parts : sequence of Path
        Files of one rate and length; the first is what an ordinary player plays.
    names : sequence of str
        Of the streams.
    target : Path
        The file to write; replaced.
    encoding : Encoding
        Of all streams.
    final : Path
        For messages.
    tags : mapping of str to str or None
        Of the file; those that MP4 knows are written.

    Raises
    ------
    AudioError
        If ffmpeg is missing, or fails.

    Notes
    -----
    AAC gives some samples of silence before the first, which the edit list of the file tells
    readers to leave out, and some after the last. Nothing in the file depends on when and where it
    was written.
    """
    command = [ffmpeg_path(final), "-nostdin", "-v", "error", "-y", "-protocol_whitelist", "file"]
    for part in parts:
        command += ["-f", "w64", "-i", f"file:{part.absolute()}"]
    for index, name in enumerate(names):
        command += ["-map", f"{index}:a", f"-metadata:s:a:{index}", f"handler_name={name}"]
        command += [f"-disposition:a:{index}", "0" if index else "default"]
    command += ["-c:a", encoding.codec]
    if encoding.codec == "aac":
        command += ["-b:a", f"{encoding.bitrate}k"]
    else:
        command += ["-sample_fmt", "s16p" if encoding.bits == "16" else "s32p"]
    # In this unit the edit list is exact; the usual one are thousandths of a second.
    command += ["-movie_timescale", str(_rate_of(parts[0]))]
    for key, value in (tags or {}).items():
        command += ["-metadata", f"{key}={value}"]
    command += ["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact"]
    command += ["-f", "ipod", f"file:{target.absolute()}"]
    limit = _PATIENCE + sum(part.stat().st_size for part in parts) / _SLOWEST
    try:
        run = run_program(command, limit)
    except subprocess.TimeoutExpired as error:
        raise AudioError(
            f"path={str(final)!r} cannot be written: ffmpeg was not done after {limit:.0f} s"
        ) from error
    except OSError as error:
        raise AudioError(f"ffmpeg={command[0]!r} cannot be started: {error}") from error
    complaint = " / ".join(run.stderr.decode(errors="replace").splitlines()[-3:])
    if run.returncode:
        raise AudioError(
            f"path={str(final)!r} cannot be written: ffmpeg says {complaint!r} (is the disk full, "
            "or ffmpeg older than 5?)"
        )
    with target.open("rb") as file:
        _top_level(file, final)


def _rate_of(part: Path) -> int:
    import soundfile as sf

    return int(sf.info(str(part)).samplerate)


@dataclass(frozen=True)
class Box:
    """Where a box is.

    Attributes
    ----------
    kind : bytes
        Four letters.
    start, content, end : int
        Positions of its size, of what it holds, and of what follows.
    """

    kind: bytes
    start: int
    content: int
    end: int


def _top_level(file: BinaryIO, name: Path) -> list[Box]:
    """Find the boxes of a file, which must fill it; `name` is for messages."""
    end = file.seek(0, 2)
    found, position = [], 0
    while position < end:
        file.seek(position)
        size, kind = struct.unpack(">I4s", file.read(8).ljust(8, b"\0"))
        content = position + 8
        if size == 1:
            size, content = int.from_bytes(file.read(8), "big"), position + 16
        if size < content - position or position + size > end:
            break
        found.append(Box(kind, position, content, position + size))
        position += size
    kinds = [box.kind for box in found]
    if position != end or kinds.count(b"moov") != 1 or b"mdat" not in kinds:
        raise AudioError(
            f"path={str(name)!r} cannot be written: what ffmpeg has made is no whole MP4 file (is "
            "the disk full?)"
        )
    return found


def _children(data: bytes | bytearray, content: int, end: int) -> Iterator[Box]:
    while content < end:
        size, kind = struct.unpack_from(">I4s", data, content)
        yield Box(kind, content, content + 8, content + max(size, 8))
        content += max(size, 8)


def add_user_data(source: BinaryIO, target: BinaryIO, kind: bytes, content: bytes) -> None:
    """Copy an MP4 file with one more box in ``moov/udta``; ``moov`` comes before the sound.

    Parameters
    ----------
    source : file
        Any MP4 file without fragments, wherever its ``moov`` is.
    target : file
        Where the copy is written, from its beginning.
    kind : bytes
        Type of the box.
    content : bytes
        What it holds.

    Raises
    ------
    AudioError
        If the file is damaged, or too large for the positions in it.
    """
    name = Path(str(getattr(source, "name", "source")))
    boxes = _top_level(source, name)
    (old,) = (box for box in boxes if box.kind == b"moov")
    if old.end - old.start > _MAX_MOOV:
        raise AudioError(f"path={str(name)!r}: its moov box has {old.end - old.start} bytes")
    source.seek(old.start)
    moov = bytearray(source.read(old.end - old.start))
    grown = struct.pack(">I4s", 8 + len(content), kind) + content
    has_user_data = any(box.kind == b"udta" for box in _children(moov, 8, len(moov)))
    nb_new = len(grown) + (0 if has_user_data else 8)
    # `ftyp` stays the first; all else follows `moov` in its order.
    first, *rest = [box for box in boxes if box.kind != b"moov"]
    position = first.end - first.start + len(moov) + nb_new
    moved = []
    for box in rest:
        moved.append((box, position - box.start))
        position += box.end - box.start
    _move_chunks(moov, 0, len(moov), moved, name)
    target.seek(0)
    _copy(source, first, target)
    target.write(_with_user_data(moov, grown))
    for box in rest:
        _copy(source, box, target)
    target.truncate()


def _with_user_data(moov: bytearray, grown: bytes) -> bytes:
    """Append a box to ``udta``, which is made if there is none."""
    for box in _children(moov, 8, len(moov)):
        if box.kind == b"udta":
            struct.pack_into(">I", moov, box.start, box.end - box.start + len(grown))
            result = moov[: box.end] + grown + moov[box.end :]
            break
    else:
        result = moov + struct.pack(">I4s", 8 + len(grown), b"udta") + grown
    struct.pack_into(">I", result, 0, len(result))
    return bytes(result)


def _move_chunks(
    data: bytearray, start: int, end: int, moved: list[tuple[Box, int]], name: Path
) -> None:
    """Correct the positions of chunks by how far the boxes around them have moved."""
    for box in _children(data, start, end):
        if box.kind in _CONTAINERS:
            _move_chunks(data, box.content, box.end, moved, name)
        if box.kind not in (b"stco", b"co64"):
            continue
        letter, size = ("I", 4) if box.kind == b"stco" else ("Q", 8)
        (count,) = struct.unpack_from(">I", data, box.content + 4)
        places = f">{count}{letter}"
        offsets = struct.unpack_from(places, data, box.content + 8)
        corrected = []
        for offset in offsets:
            shifts = [shift for around, shift in moved if around.start <= offset < around.end]
            if not shifts or offset + shifts[0] >= 1 << (8 * size):
                raise AudioError(
                    f"path={str(name)!r}: a chunk at {offset} cannot be moved; write a shorter song"
                )
            corrected.append(offset + shifts[0])
        struct.pack_into(places, data, box.content + 8, *corrected)


def _copy(source: BinaryIO, box: Box, target: BinaryIO) -> None:
    source.seek(box.start)
    left = box.end - box.start
    while left:
        data = source.read(min(left, _COPY))
        if not data:
            raise AudioError("the MP4 file became shorter while it was copied")
        target.write(data)
        left -= len(data)
