"""Ogg by its pages: the links of a chain, pages that are damaged or missing, order of channels."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from .pieces import MOST_PARTS, Contents, Part, Scanner, notes_on

_BEGIN, _END = 2, 4  # flags of a page: the first and the last one of a stream
_NO_TIME = 2**64 - 1

# Vorbis and Opus have their channels in an order of their own from three on (front left, centre,
# front right, ...). Here is where each channel of a WAV file is among them.
WAV_ORDER = {
    3: (0, 2, 1),
    5: (0, 2, 1, 3, 4),
    6: (0, 2, 1, 5, 3, 4),
    7: (0, 2, 1, 6, 5, 3, 4),
    8: (0, 2, 1, 7, 5, 6, 3, 4),
}
# Where each of theirs is among those of a WAV file.
OGG_ORDER = {n: tuple(sorted(range(n), key=WAV_ORDER[n].__getitem__)) for n in WAV_ORDER}

_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass
class _Stream:
    """One stream of a link."""

    next_number: int = 0
    first_time: int | None = None
    last_time: int = 0
    ended: bool = False
    opus: bool = False
    sound: bool = False


@dataclass
class _Link:
    """Streams that begin together, and what follows until others begin."""

    begin: int
    end: int = 0
    streams: dict[int, _Stream] = field(default_factory=dict)
    began: bool = True  # only first pages were seen so far


def _is_whole(page: bytes) -> bool:
    """Whether the sum of a page is right: zlib's with all bits mirrored."""
    bare = page[:22] + bytes(4) + page[26:]
    mirrored = zlib.crc32(bare.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return mirrored.to_bytes(4, "big").translate(_MIRRORED) == page[22:26]


def _page(scanner: Scanner, position: int) -> bytes:
    """Return the page that begins at `position`; nothing if there is none, or it is damaged."""
    head = scanner.at(position, 27)
    if head[:4] != b"OggS" or len(head) < 27:
        return b""
    sizes = scanner.at(position + 27, head[26])
    size = 27 + len(sizes) + sum(sizes)
    page = scanner.at(position, size)
    return page if len(page) == size and len(sizes) == head[26] and _is_whole(page) else b""


def _links(scanner: Scanner) -> tuple[list[_Link], list[tuple[int, int]], int]:
    """Find all links, the bytes that are no pages, and how many pages are missing."""
    links: list[_Link] = []
    strange: list[tuple[int, int]] = []
    nb_missing = position = nb_tries = 0
    while position < scanner.size:
        page = _page(scanner, position)
        if not page:
            begin = position
            while position < scanner.size and not page:
                nb_tries += 1
                position = scanner.find(b"OggS", position + 1)
                if nb_tries > MOST_PARTS or len(links) > MOST_PARTS:
                    position = scanner.size
                page = _page(scanner, position)
            strange.append((begin, position))
            if not page:
                break
        flags, time, serial, number = struct.unpack("<xxxxxBQII", page[:22])
        if flags & _BEGIN and (not links or not links[-1].began):
            links.append(_Link(position))
        link = links[-1] if links else _Link(position)
        link.began = bool(flags & _BEGIN)
        if flags & _BEGIN:
            head = page[28:36]  # of the only packet, behind one size
            sound = head.startswith((b"\1vorbis", b"OpusHead", b"\x7fFLAC", b"Speex"))
            link.streams[serial] = _Stream(opus=b"OpusHead" in page[:60], sound=sound)
        stream = link.streams.get(serial)
        if stream is not None:
            nb_missing += max(number - stream.next_number, 0)
            stream.next_number = number + 1
            stream.ended = stream.ended or bool(flags & _END)
            if 0 < time < _NO_TIME:
                if stream.first_time is None:
                    stream.first_time = time
                stream.last_time = time
        position += len(page)
        link.end = position
    return links, strange, nb_missing


def _least(link: _Link) -> tuple[int, int]:
    """Samples that a link holds after its first page of sound, and their rate if it is known."""
    if len(link.streams) != 1:
        return 0, 0  # a video, say
    (stream,) = link.streams.values()
    if stream.first_time is None:
        return 0, 0
    # 64 bits of any value are possible, but not more than a byte of the file for 2**12 samples.
    least = min(stream.last_time - stream.first_time, (link.end - link.begin) << 12)
    return max(least, 0), 48000 if stream.opus else 0


def order_of_channels(path: Path, subtype: str, nb_channels: int) -> tuple[int, ...]:
    """Where each channel of a WAV file is among those of an Ogg file; () if the order is the same.

    Channels of an Opus file may also have no meaning.
    """
    if subtype not in ("VORBIS", "OPUS") or not has_positions(path, subtype):
        return ()
    return WAV_ORDER.get(nb_channels, ())


def has_positions(path: Path, subtype: str) -> bool:
    """Whether the channels of an Ogg file, if they are more than two, are those of loudspeakers."""
    if subtype != "OPUS":
        return True
    with path.open("rb") as file:
        page = Scanner(file).at(0, 80)
    head = page.find(b"OpusHead")
    return head >= 0 and page[head + 18 : head + 19] == b"\1"


def ogg_contents(path: Path) -> Contents:
    """Find the parts of an Ogg file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    Contents
        One part for each link of a chain.
    """
    with path.open("rb") as file:
        scanner = Scanner(file)
        links, strange, nb_missing = _links(scanner)
        size = scanner.size
    notes = notes_on(strange, "damaged, and left out", "damaged, too")
    if nb_missing and not strange:
        notes.append(f"{nb_missing} pages are missing in between")
    nb_sounds = sum(stream.sound for stream in links[0].streams.values()) if links else 0
    if nb_sounds > 1:
        notes.append(f"has several tracks, and the first is read; there are {nb_sounds}")
    if links and not strange and not all(s.ended for s in links[-1].streams.values()):
        notes.append("may be cut short: its last page does not say that it is the last")
    if len(links) <= 1:
        least, rate = _least(links[0]) if links else (0, 0)
        return Contents((Part((), least, rate, 0, size),), notes, counted=False)
    parts = [Part(((i.begin, i.end),), *_least(i), i.begin, i.end) for i in links]
    return Contents(parts, notes, counted=False)
