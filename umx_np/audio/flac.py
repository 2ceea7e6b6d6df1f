"""FLAC files that hold several streams, or do not tell their length."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from .pieces import MOST_PARTS, Contents, Part, Scanner

_MARK = b"fLaC"
# Files up to this size, and as much of the beginning and the end of others, are searched for marks.
_SEARCHED = 1 << 18
# Of the rest, this many places are looked at: bytes that hold a frame, whatever its size.
_PLACES = 16
_PROBE = 1 << 16

# Samples a byte: a frame of 65535 equal ones has a dozen bytes.
_MOST_PER_BYTE = 1 << 13

_HEADER = re.compile(rb"\xff[\xf8\xf9][\x10-\xfe][\x00-\xae]", re.DOTALL)


def _sums() -> bytes:
    """Sum of each byte: the remainder of a division by x^8 + x^2 + x + 1."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value << 1) ^ (0x107 if value & 0x80 else 0)
        table.append(value)
    return bytes(table)


_SUMS = _sums()


def _frame_position(data: bytes, begin: int, block_size: int) -> int | None:
    """First sample of the frame that begins at `begin`; None if there is no frame."""
    head = data[begin : begin + 16]
    # The number has as many bytes as its first byte has leading ones.
    nb_ones = 8 - (head[4] ^ 0xFF).bit_length() if len(head) == 16 else 1
    if nb_ones in (1, 8):
        return None
    end = 4 + max(nb_ones, 1)
    number = head[4] & (0x7F >> nb_ones)
    for byte in head[5:end]:
        number = number << 6 | (byte & 0x3F)
    end += {6: 1, 7: 2}.get(head[2] >> 4, 0) + {12: 1, 13: 2, 14: 2}.get(head[2] & 15, 0)
    remainder = 0
    for byte in head[:end]:
        remainder = _SUMS[remainder ^ byte]
    if remainder != head[end]:
        return None
    return number if head[1] & 1 else number * block_size


def _positions(data: bytes, block_size: int) -> list[int]:
    """Return the first samples of the frames in some bytes of a file."""
    found = (_frame_position(data, match.start(), block_size) for match in _HEADER.finditer(data))
    return [position for position in found if position is not None]


def _stream_info(scanner: Scanner, begin: int) -> bytes:
    """Description of the stream that begins at `begin`; nothing if there is none."""
    head = scanner.at(begin, 42)
    # The first block of a stream is its description, of 34 bytes.
    if len(head) < 42 or head[:4] != _MARK or head[4] & 0x7F or head[5:8] != b"\0\0\x22":
        return b""
    rate = int.from_bytes(head[18:21], "big") >> 4
    return head if rate and int.from_bytes(head[8:10], "big") >= 16 else b""


def _length(info: bytes) -> int:
    return int.from_bytes(info[21:26], "big") & (2**36 - 1)


def _is_complete(scanner: Scanner, info: bytes) -> bool:
    """Whether the last frame that the description promises is there."""
    length, block_size = _length(info), int.from_bytes(info[10:12], "big")
    tail = scanner.peek(max(scanner.size - _SEARCHED, 0), _SEARCHED)
    return any(length - block_size <= i < length for i in _positions(tail, block_size))


def frames_of_stream(path: Path, part: Part) -> Iterator[tuple[int, Part]]:
    """Yield what may be the frames of a stream: its first sample, and a part that begins with it.

    Parameters
    ----------
    path : Path
        The file.
    part : Part
        The stream.

    Yields
    ------
    sample : int
        Not more than frames of the file up to there can hold.
    part : Part
        The rest of the stream, from the frame on, with the stream's description.
    """
    with path.open("rb") as file:
        scanner = Scanner(file)
        begin = _next_stream(scanner, part.begin)
        info = _stream_info(scanner, begin)
        if not info:
            return
        head = info[:4] + b"\x80" + info[5:]  # the description is its only block
        block_size = int.from_bytes(info[10:12], "big")
        place = begin + len(info)
        while place < part.end:
            data = scanner.peek(place, _SEARCHED + 16)
            for match in _HEADER.finditer(data, 0, _SEARCHED + 3):
                start = place + match.start()
                sample = _frame_position(data, match.start(), block_size)
                if sample is not None and sample <= (start - begin) * _MOST_PER_BYTE:
                    yield sample, Part((head, (start, part.end)), 0, 0, start, part.end)
            place += _SEARCHED


def _next_stream(scanner: Scanner, position: int) -> int:
    begin = scanner.find(_MARK, position)
    while begin < scanner.size and not _stream_info(scanner, begin):
        begin = scanner.find(_MARK, begin + 1)
    return begin


def _is_one(scanner: Scanner, begin: int, info: bytes) -> bool:
    """Whether the stream that begins at `begin` is all there is, as far as samples of it tell.

    To search a whole file would take as long as to decode a tenth of it.
    """
    size, block_size = scanner.size, int.from_bytes(info[10:12], "big")
    if size <= 4 * _SEARCHED or not _length(info):
        return False
    head, tail = scanner.at(begin + 4, _SEARCHED), scanner.at(size - _SEARCHED, _SEARCHED)
    if _MARK in head or _MARK in tail:
        return False
    places = range(begin + _SEARCHED, size - _SEARCHED, (size - 2 * _SEARCHED) // _PLACES)
    firsts = [_positions(scanner.peek(place, _PROBE), block_size)[:1] for place in places]
    ordered = [position for found in firsts for position in found]
    last = _positions(tail, block_size)[-1:]
    if ordered != sorted(ordered) or not last or (ordered and ordered[-1] > last[0]):
        return False
    return _length(info) - block_size <= last[0] < _length(info)


def flac_contents(path: Path, *, wanted: int) -> Contents:
    """Find the streams of a FLAC file.

    Parameters
    ----------
    path : Path
        The file.
    wanted : int
        Samples that are wanted: if the first stream has them, others are not looked for. 0 are all.

    Returns
    -------
    Contents
        One part for each stream.
    """
    with path.open("rb") as file:
        scanner = Scanner(file)
        begin = _next_stream(scanner, 0)
        info = _stream_info(scanner, begin)
        length = _length(info)
        counted = bool(info) and length > 0 and _is_complete(scanner, info)
        whole = Contents((Part((), length, 0, 0, scanner.size),), counted=counted)
        if not info or 0 < wanted <= length or _is_one(scanner, begin, info):
            return whole
        parts: list[Part] = []
        while begin < scanner.size and len(parts) < MOST_PARTS:
            length = _length(_stream_info(scanner, begin))
            end = _next_stream(scanner, begin + 4)
            parts.append(Part(((begin, end),), length, 0, begin, end))
            begin = end
        rest = scanner.size - begin
    if len(parts) > 1:
        notes = [f"{rest} bytes from {begin} on are left out"] if rest > 0 else []
        return Contents(parts, notes, counted=False)
    return whole
