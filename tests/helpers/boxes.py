"""Boxes of MP4 files, read after ISO/IEC 14496-12 and apart from what the package does."""

from __future__ import annotations

import struct
from typing import Any

_PARENTS = {"moov", "trak", "mdia", "minf", "stbl", "udta", "edts"}


def read_boxes(data: bytes) -> list[tuple[str, Any]]:
    """All boxes in their order: type, and content or the boxes within.

    Examples
    --------
    >>> read_boxes(bytes.fromhex("00000010 6d6f6f76 00000008 75647461"))
    [('moov', [('udta', [])])]
    """
    found: list[tuple[str, Any]] = []
    while data:
        size = int.from_bytes(data[:4], "big")
        kind, head = data[4:8].decode("latin-1"), 8
        if size == 1:
            size, head = int.from_bytes(data[8:16], "big"), 16
        assert head <= size <= len(data), (kind, size, len(data))
        content = data[head:size]
        found.append((kind, read_boxes(content) if kind in _PARENTS else content))
        data = data[size:]
    return found


def inside(boxes: list[tuple[str, Any]], *path: str) -> Any:
    """Content of the only box at the end of a path."""
    for kind in path:
        (boxes,) = (content for name, content in boxes if name == kind)
    return boxes


def tracks(boxes: list[tuple[str, Any]]) -> list[list[tuple[str, Any]]]:
    """The streams, each as its boxes."""
    return [content for kind, content in inside(boxes, "moov") if kind == "trak"]


def chunk_offsets(track: list[tuple[str, Any]]) -> list[int]:
    """Where the chunks of a stream begin in the file."""
    table = dict(inside(track, "mdia", "minf", "stbl"))
    content, letter = (table["stco"], "I") if "stco" in table else (table["co64"], "Q")
    (count,) = struct.unpack(">I", content[4:8])
    return list(struct.unpack(f">{count}{letter}", content[8:]))


def edit_of(boxes: list[tuple[str, Any]], track: list[tuple[str, Any]]) -> tuple[float, int]:
    """Seconds that are played of a stream, and the samples before them that are left out."""
    movie = inside(boxes, "moov", "mvhd")
    (timescale,) = struct.unpack(">I", movie[20:24] if movie[0] else movie[12:16])
    content = inside(track, "edts", "elst")
    (count,) = struct.unpack(">I", content[4:8])
    assert count == 1
    form = ">QqHH" if content[0] else ">IiHH"
    duration, begin, *_ = struct.unpack(form, content[8 : 8 + struct.calcsize(form)])
    return duration / timescale, begin
