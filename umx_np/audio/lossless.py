"""WAV and FLAC files whose headers do not tell what is there: wrapped, missing or wrong sizes."""

from __future__ import annotations

import struct
from pathlib import Path

from .pieces import Contents, Part, Scanner

# Sizes from here on are placeholders of programs that write into a pipe.
PLACEHOLDER_SIZE = 0x7FFF0000

# What may follow the samples of a WAV file, also if its end is missing.
_CHUNKS = frozenset(
    "LIST id3  ID3  bext cue  smpl fact PEAK iXML _PMX afsp JUNK junk PAD  pad  FLLR inst acid cart "
    "axml chna umid DISP plst adtl note labl strc minf elm1 regn levl LGWV ResU SNDM CDif".split(" ")
)
_KNOWN = frozenset(name.ljust(4).encode() for name in _CHUNKS if name)
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")
_MOST_CHUNKS = 10000


def _foreign(scanner: Scanner, position: int, order: str) -> int:
    """Position from which on the rest of a WAV file is no chunks; its end if all of it is."""
    for _ in range(_MOST_CHUNKS):
        if position >= scanner.size:
            break
        head = scanner.at(position, 8)
        if len(head) < 8:
            return position if any(head) else scanner.size
        name, size = head[:4], struct.unpack(order + "I", head[4:])[0]
        fits = position + 8 + size <= scanner.size and all(32 <= byte < 127 for byte in name)
        if not fits and name not in _KNOWN:
            return position
        position += 8 + size + size % 2
    return scanner.size


def _data_chunk(scanner: Scanner, order: str) -> tuple[int, int, bytes]:
    """Beginning and declared size of the samples, and the chunk that describes them."""
    position, description = 12, b""
    for _ in range(_MOST_CHUNKS):
        head = scanner.at(position, 8)
        if len(head) < 8:
            break
        name, size = head[:4], struct.unpack(order + "I", head[4:])[0]
        if name == b"data":
            return position + 8, size, description
        if name == b"fmt " and size < 1000:
            description = scanner.at(position, 8 + size + size % 2)
        position += 8 + size + size % 2
    return 0, 0, b""


def _end_of_samples(scanner: Scanner, begin: int, size: int, order: str) -> tuple[int, str]:
    """Where the samples of a WAV file end, and what to say about it."""
    end = begin + size
    if end > scanner.size:
        # Cut short, or from a pipe: libsndfile takes what is there of up to 4 GB.
        piped = size >= PLACEHOLDER_SIZE
        return (scanner.size, "") if piped and scanner.size - begin > 2**32 - 1 else (end, "")
    wrapped = (scanner.size - end) >> 32
    if wrapped:
        end += wrapped << 32
        note = f"its header gives {size} bytes of samples, without the upper digits; {end - begin}"
        return end, note + " are taken"
    place = _foreign(scanner, end + size % 2, order)
    if place == scanner.size:
        return end, ""
    rest = scanner.at(place, 1 << 16)
    nb_bytes = scanner.size - place
    if rest.startswith(_TAGS):
        return end, ""
    if not any(rest) and len(rest) == nb_bytes:
        return end, f"the last {nb_bytes} bytes are zeros that its header does not count"
    note = f"its header gives {size} bytes of samples; {scanner.size - begin} are there and taken"
    return scanner.size, note


def wav_contents(path: Path) -> Contents:
    """Find the samples of a WAV file, whatever its header says of their number.

    Parameters
    ----------
    path : Path
        A file that begins with ``RIFF`` or ``RIFX``.

    Returns
    -------
    Contents
        The file as it is, or with another header where that one's sizes are wrong.
    """
    with path.open("rb") as file:
        scanner = Scanner(file)
        order = ">" if scanner.at(0, 4) == b"RIFX" else "<"
        begin, size, description = _data_chunk(scanner, order)
        if not begin or not description:
            return Contents()
        end, note = _end_of_samples(scanner, begin, size, order)
    notes = [note] if note else []
    if end == begin + size:
        return Contents(notes=notes)
    size = end - begin
    riff_size = 4 + len(description) + 8 + size
    header: bytes
    if riff_size < 2**32:
        sizes = (struct.pack(order + "I", riff_size), b"", struct.pack(order + "I", size))
        header = (b"RIFX" if order == ">" else b"RIFF") + sizes[0] + b"WAVE" + description
        header += b"data" + sizes[2]
    else:
        large = b"ds64" + struct.pack("<IQQQI", 28, riff_size + 36, size, 0, 0)
        header = b"RF64\xff\xff\xff\xffWAVE" + large + description + b"data\xff\xff\xff\xff"
    return Contents((Part((header, (begin, end)), 0, 0, begin, end),), notes)


def _stream_info(scanner: Scanner, begin: int) -> bytes:
    """Description of the FLAC stream that begins at `begin`; nothing if there is none."""
    head = scanner.at(begin, 42)
    # The first block of a stream is its description, of 34 bytes.
    if len(head) < 42 or head[4] & 0x7F or head[5:8] != b"\0\0\x22":
        return b""
    rate = int.from_bytes(head[18:21], "big") >> 4
    return head if rate and 16 <= int.from_bytes(head[8:10], "big") else b""


def flac_contents(path: Path, *, first_only: int = 0) -> Contents:
    """Find the streams of a FLAC file.

    Parameters
    ----------
    path : Path
        The file.
    first_only : int
        Do not look for more streams if the first one has this many samples; 0 always looks.

    Returns
    -------
    Contents
        One part for each stream.
    """
    parts: list[Part] = []
    counted = True
    with path.open("rb") as file:
        scanner = Scanner(file)
        begin = scanner.find(b"fLaC", 0)
        while begin < scanner.size:
            info = _stream_info(scanner, begin)
            end = begin + 4
            if info:
                total = int.from_bytes(info[21:26], "big") & (2**36 - 1)
                if not parts and 0 < first_only <= total:
                    return Contents()
                end = scanner.find(b"fLaC", end)
                while end < scanner.size and not _stream_info(scanner, end):
                    end = scanner.find(b"fLaC", end + 1)
                counted = counted and total > 0
                parts.append(Part(((begin, end),), total, 0, begin, end))
            begin = end if info else scanner.find(b"fLaC", end)
        size = scanner.size
    if len(parts) <= 1:
        return Contents((Part((), 0, 0, 0, size),), counted=counted)
    return Contents(parts, counted=False)
