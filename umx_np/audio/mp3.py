"""MPEG audio (MP3) by its frames: how many there are, where, and what is between them.

Programs that join, cut and record MP3 files leave numbers in them that are wrong, and decoders stop
at them, or where the rate or the channels change, or at bytes that are no frames. The chain of the
frames themselves does not lie: each begins with four bytes that tell its length.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from .pieces import MOST_PARTS, MOST_TRIES, Contents, Part, Piece, Scanner, endless, notes_on

_KBITS = {
    (1, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
# Marks of a first frame that holds no sound but numbers; VBRI is always at the same place.
_MARKS = (b"Xing", b"Info")
_VBRI = 36
# A frame's first three bytes: eleven ones, and a bit rate that is neither "free" nor wrong.
_HEADER = re.compile(rb"\xff[\xe2-\xff][\x10-\xef]", re.DOTALL)
_TAGS = (b"TAG", b"ID3", b"APETAGEX")
# The most bytes of a frame, and those of the next one's header.
_LONGEST = 2048


@dataclass(frozen=True)
class _Frame:
    """A frame, as the four bytes at its beginning describe it."""

    size: int
    nb_timesteps: int
    rate: int
    nb_channels: int
    mark: int  # where a first frame has its mark

    @property
    def format(self) -> tuple[int, int, int]:
        return self.rate, self.nb_channels, self.nb_timesteps


@cache
def _frame(first: int, second: int, mono: bool) -> _Frame | None:
    """Read the second and third byte of a header; None if they are not those of a frame."""
    version = {0: 25, 2: 2, 3: 1}.get(first >> 3 & 3, 0)
    layer = 4 - (first >> 1 & 3)
    rate_index, kbits_index = second >> 2 & 3, second >> 4
    # A "free" bit rate (0) does not tell the size of the frame.
    if first < 0xE0 or not version or layer == 4 or rate_index == 3 or kbits_index in (0, 15):
        return None
    rate = (44100, 48000, 32000)[rate_index] // {1: 1, 2: 2, 25: 4}[version]
    table = (1, layer) if version == 1 else (2, min(layer, 2))
    bits = 1000 * _KBITS[table][kbits_index - 1]
    padding = second >> 1 & 1
    nb_timesteps = {1: 384, 2: 1152, 3: 1152 if version == 1 else 576}[layer]
    if layer == 1:
        size = 4 * (12 * bits // rate + padding)
    else:
        size = nb_timesteps // 8 * bits // rate + padding
    side = (17 if mono else 32) if version == 1 else (9 if mono else 17)
    return _Frame(size, nb_timesteps, rate, 1 if mono else 2, 4 + side)


def _frame_of(header: bytes) -> _Frame | None:
    if len(header) < 4 or header[0] != 0xFF:
        return None
    return _frame(header[1], header[2], header[3] >= 0xC0)


@dataclass
class _Run:
    """Frames of one format that follow each other."""

    begin: int
    frame: _Frame
    end: int = 0
    nb_frames: int = 0
    info: bytes = b""  # the whole first frame, if it holds numbers
    declared: dict[str, int] = field(default_factory=dict)

    @property
    def nb_sounding(self) -> int:
        return self.nb_frames - bool(self.info)


def _numbers(info: bytes, frame: _Frame) -> dict[str, int]:
    """Numbers of frames and bytes that a first frame declares, as far as it does."""
    if info[_VBRI : _VBRI + 4] == b"VBRI":
        nb_bytes, nb_frames = struct.unpack(">2I", info[_VBRI + 10 : _VBRI + 18])
        return {"frames": nb_frames, "bytes": nb_bytes}
    begin = frame.mark + 4
    flags, *values = struct.unpack(">3I", info[begin : begin + 12])
    names = [name for bit, name in ((1, "frames"), (2, "bytes")) if flags & bit]
    return dict(zip(names, values, strict=False))


def _with_numbers(run: _Run) -> bytes:
    """Return the first frame with the numbers of frames and bytes that are there."""
    begin = run.frame.mark + 4
    flags = struct.unpack(">I", run.info[begin : begin + 4])[0]
    rest = run.info[begin + 4 + 4 * (flags & 1) + 2 * (flags & 2) :]
    numbers = struct.pack(">3I", flags | 3, run.nb_sounding, min(run.end - run.begin, 2**32 - 1))
    return (run.info[:begin] + numbers + rest)[: len(run.info)]


def _skip_tags(scanner: Scanner, position: int) -> int:
    """Position after the tags that begin at `position`."""
    while True:
        head = scanner.at(position, 32)
        if head[:3] == b"ID3" and len(head) >= 10:
            # The size has seven bits a byte.
            size = sum((byte & 0x7F) << (7 * i) for i, byte in enumerate(head[9:5:-1]))
            position += 10 + size + (10 if head[5] & 0x10 else 0)
        elif head[:8] == b"APETAGEX" and len(head) == 32:
            size, _, flags = struct.unpack("<3I", head[12:24])
            # The size counts the footer; a tag that begins with its header has one more.
            position += size + 32 if flags & 0x20000000 else 32
        elif head[:3] == b"TAG":
            position += 128
        else:
            return min(position, scanner.size)


def end_of_tags(path: Path) -> int:
    """Position after the tags that a file, of whatever format, begins with."""
    with path.open("rb") as file:
        return _skip_tags(Scanner(file, 1 << 10), 0)


def _starts(scanner: Scanner, position: int) -> _Frame | None:
    """Read the frame that begins at `position`, if another one or the end follows it."""
    frame = _frame_of(scanner.at(position, 4))
    if frame is None:
        return None
    head = scanner.at(position + frame.size, 8)
    follower = _frame_of(head)
    if follower is not None and follower.format == frame.format:
        return frame
    ends = position + frame.size == scanner.size or any(map(head.startswith, _TAGS))
    return frame if ends else None


def _next_start(scanner: Scanner, position: int) -> tuple[int, _Frame | None]:
    for _ in range(MOST_TRIES):
        position = scanner.search(_HEADER, position)
        if position >= scanner.size:
            break
        frame = _starts(scanner, position)
        if frame is not None:
            return position, frame
        position += 1
    return scanner.size, None


def _holds_numbers(data: bytes, begin: int, frame: _Frame) -> bool:
    """Whether a frame holds numbers in place of sound, of which a part is then zero."""
    for marks, mark in ((_MARKS, frame.mark), ((b"VBRI",), _VBRI)):
        if data[begin + mark : begin + mark + 4] in marks and frame.size >= mark + 18:
            return not any(data[begin + 4 : begin + mark])
    return False


def _follow(scanner: Scanner, run: _Run) -> None:
    """Find the end of a run."""
    position, format = run.begin, run.frame.format
    size = scanner.size
    base, data = scanner.base, scanner.data
    while position + 4 <= size:
        i = position - base
        if i < 0 or i + _LONGEST > len(data):
            scanner.at(position, _LONGEST)
            base, data = scanner.base, scanner.data
            i = position - base
        if data[i] != 0xFF:
            break
        frame = _frame(data[i + 1], data[i + 2], data[i + 3] >= 0xC0)
        if frame is None or frame.format != format or position + frame.size > size:
            break
        if _holds_numbers(data, i, frame):
            if run.nb_frames:
                break  # the beginning of another file
            run.info = data[i : i + frame.size]
            run.declared = _numbers(run.info, frame)
        run.nb_frames += 1
        position += frame.size
    run.end = position


def _runs(scanner: Scanner) -> tuple[list[_Run], list[tuple[int, int]]]:
    """Find all runs of frames, and the bytes between them that are neither frames nor tags."""
    runs: list[_Run] = []
    strange: list[tuple[int, int]] = []
    position = 0
    while True:
        position = _skip_tags(scanner, position)
        begin, frame = position, _starts(scanner, position)
        if frame is None:
            begin, frame = _next_start(scanner, position)
        if begin > position and any(scanner.at(position, begin - position)):
            strange.append((position, begin))
        if frame is None:
            return runs, strange
        if len(runs) == MOST_PARTS:
            return runs, [*strange, (begin, scanner.size)]
        run = _Run(begin, frame)
        _follow(scanner, run)
        runs.append(run)
        position = run.end


def first_frame_bytes(path: Path) -> int | None:
    """Size that the first frame of an MP3 file says the file has; None if it does not say."""
    with path.open("rb") as file:
        scanner = Scanner(file)
        begin = _skip_tags(scanner, 0)
        frame, info = _frame_of(scanner.at(begin, 4)), scanner.at(begin, _LONGEST)
    if frame is None or not _holds_numbers(info, 0, frame):
        return None
    return _numbers(info, frame).get("bytes")


def _part(run: _Run, *, alone: bool) -> Part:
    least = max(run.nb_sounding - 3, 0) * run.frame.nb_timesteps
    place = {"least": least, "rate": run.frame.rate, "begin": run.begin, "end": run.end}
    frames = (run.begin, run.end)
    pieces: tuple[Piece, ...] = (frames, endless(run.end - run.begin))
    if run.info:
        declared = run.declared.get("frames")
        if alone and declared is not None and declared >= run.nb_sounding:
            return Part((), **place)
        pieces = (frames,)
        if declared is None or not run.nb_sounding <= declared <= run.nb_frames:
            sound = (run.begin + len(run.info), run.end)
            pieces = (_with_numbers(run), sound)
            if b"VBRI" in run.info:
                pieces = (sound, endless(run.end - run.begin))
    return Part(pieces, **place)


def mp3_contents(path: Path) -> Contents:
    """Find the parts of an MP3 file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Contents
        One part for each run of frames that a decoder can follow: a new one begins where another
        file was joined, where the rate or the number of channels changes, and after bytes that are
        no frames. No parts if there are no frames, or their sizes are not known.
    """
    with path.open("rb") as file:
        scanner = Scanner(file)
        runs, strange = _runs(scanner)
        size = scanner.size
    if not runs:
        whole = Part(((0, size), endless(size)), begin=0, end=size)
        return Contents((whole,), counted=False)
    notes = []
    first = runs[0]
    if first.info and len(runs) == 1 and (declared := first.declared.get("bytes")):
        missing = declared - (size - first.begin)
        if missing > 0:
            # Not an error: programs that cut MP3 files may leave the old number.
            notes.append(
                f"may be cut short: the last {missing} bytes that its header promises are not there"
            )
    notes += notes_on(strange, "no MP3 frames and are left out", "no MP3 frames either")
    alone = len(runs) == 1 and not strange
    sounding = [run for run in runs if run.nb_sounding]
    return Contents([_part(run, alone=alone) for run in sounding], notes, counted=False)
