"""Files of plain samples whose headers do not tell what is there.

Sizes are missing where a recorder crashed, are those of an earlier moment, or have lost their upper
digits at 4 GB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from .pieces import Contents, Part, Scanner

# Sizes from here on are placeholders of programs that write into a pipe.
PLACEHOLDER_SIZE = 0x7FFF0000

# What may follow the samples of a WAV file, also if its end is missing.
_NAMES = (
    b"LISTid3 ID3 bextcue smplfactPEAKiXML_PMXafspJUNKjunkPAD pad FLLRinstacidcartaxmlchnaumidDISP"
    b"plstadtlnotelablstrcminfelm1regnlevlLGWVResUSNDMCDif"
)
_KNOWN = frozenset(_NAMES[i : i + 4] for i in range(0, len(_NAMES), 4))
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")
_MOST_CHUNKS = 10000
# Floats beyond this are not samples.
_LOUDEST = 1e4


# Name and size of a chunk.
_LITTLE, _BIG, _WIDE = struct.Struct("<4sI"), struct.Struct(">4sI"), struct.Struct(">4sq")


def _is_name(data: bytes) -> bool:
    """Whether bytes can be the name of a chunk."""
    return len(data) == 4 and all(32 <= byte < 127 for byte in data)


def _chunks(
    scanner: Scanner, position: int, head: struct.Struct
) -> Iterator[tuple[int, bytes, int]]:
    """Yield position, name and size of the chunks from `position` on."""
    for _ in range(_MOST_CHUNKS):
        found = scanner.at(position, head.size)
        if len(found) < head.size:
            return
        name, size = head.unpack(found)
        yield position, name, size
        position += head.size + max(size, 0)
        # The sizes of all but the wide ones are made even, which some programs forget.
        if size % 2 and head is not _WIDE and not _is_name(scanner.at(position, 4)):
            position += 1


def _foreign(scanner: Scanner, position: int, head: struct.Struct) -> int:
    """Position from which on the rest of a file is no chunks; its end if all of it is."""
    end = position
    for begin, name, size in _chunks(scanner, position, head):
        end = begin + head.size + size
        fits = size >= 0 and end <= scanner.size and _is_name(name)
        if not fits and name not in _KNOWN:
            return begin
        end += size % 2 if head is not _WIDE else 0
    return end if any(scanner.at(end, head.size)) else scanner.size


def _begin_of_tags(scanner: Scanner) -> int:
    """Where the tags at the end of a file begin, of which one may have no beginning of its own."""
    end = scanner.size
    if scanner.at(max(end - 128, 0), 3) == b"TAG":
        end -= 128
    foot = scanner.at(max(end - 32, 0), 32)
    if foot[:8] == b"APETAGEX":
        end -= struct.unpack("<I", foot[12:16])[0]  # with the footer, without a header
    return end


def _is_sound(data: bytes, nb_bytes: int, order: str) -> bool:
    """Whether bytes are floats such as samples have."""
    samples = np.frombuffer(data[: len(data) // nb_bytes * nb_bytes], f"{order}f{nb_bytes}")
    with np.errstate(invalid="ignore"):
        return bool((np.abs(samples) < _LOUDEST).all())


def _float_size(description: bytes, order: str) -> int:
    """Bytes of a sample that is a float; 0 if it is none."""
    if len(description) < 24:
        return 0
    tag, _, _, _, _, bits = struct.unpack(order + "HHIIHH", description[8:24])
    if tag == 0xFFFE and len(description) >= 34:
        tag = struct.unpack(order + "H", description[32:34])[0]
    return bits // 8 if tag == 3 and bits in (32, 64) else 0


def _end_of_samples(
    scanner: Scanner, begin: int, size: int, head: struct.Struct, floats: int = 0
) -> tuple[int, str]:
    """Where the samples end, and what to say about it."""
    end = begin + size
    if end > scanner.size:
        # Cut short, or from a pipe: libsndfile takes what is there of up to 4 GB.
        piped = size >= PLACEHOLDER_SIZE
        return (scanner.size, "") if piped and scanner.size - begin > 2**32 - 1 else (end, "")
    wrapped = (scanner.size - end) >> 32 if head is not _WIDE else 0
    if wrapped:
        end += wrapped << 32
        note = f"its header gives {size} bytes of samples, without the upper digits; {end - begin}"
        return end, note + " are taken"
    # Some programs leave out the byte that makes the size even.
    places = [_foreign(scanner, start, head) for start in sorted({end, end + size % 2})]
    place = places[-1]
    if scanner.size in places:
        return end, ""
    if any(scanner.at(begun, 16).startswith(_TAGS) for begun in places):
        return end, ""
    if _begin_of_tags(scanner) in places:
        return end, ""
    rest = scanner.at(place, 1 << 16)
    nb_bytes = scanner.size - place
    if not any(rest) and len(rest) == nb_bytes:
        return end, f"the last {nb_bytes} bytes are zeros that its header does not count"
    if floats and not _is_sound(rest[(end - place) % floats :], floats, head.format[0]):
        return end, f"{nb_bytes} bytes after the samples are not sound and are left out"
    note = f"its header gives {size} bytes of samples; {scanner.size - begin} are there and taken"
    return scanner.size, note


def _resized(
    scanner: Scanner, begin: int, size: int, head: struct.Struct, field: tuple[int, str]
) -> Contents:
    """The file with the size of its samples that is there in `field`, a position and a format."""
    end, note = _end_of_samples(scanner, begin, size, head)
    if end == begin + size:
        return Contents(notes=[note] if note else [])
    place, format = field
    most = 2 ** (8 * struct.calcsize(format) - (format[1] == "q")) - 1
    value = struct.pack(format, min(end - begin, most))
    pieces = ((0, place), value, (place + len(value), end))
    return Contents((Part(pieces, 0, 0, begin, end),), [note])


def sized_contents(path: Path, *, refused: bool = False) -> Contents:
    """Find the samples of a file, whatever its header says of their number.

    Parameters
    ----------
    path : Path
        Any file.
    refused : bool
        Whether libsndfile does not read it. Of a WAV file, it gets the samples and what describes
        them, without other chunks that may be wrong.

    Returns
    -------
    Contents
        The file as it is, or with another size where that one is wrong in a WAV, RF64, AIFF, AU or
        CAF file.
    """
    with path.open("rb") as file:
        scanner = Scanner(file, 1 << 12)
        magic, kind = scanner.at(0, 4), scanner.at(8, 4)
        if magic in (b"RIFF", b"RIFX") and kind == b"WAVE":
            return _wav(scanner, "<" if magic == b"RIFF" else ">", refused)
        if magic == b"RF64" and kind == b"WAVE" and scanner.at(12, 4) == b"ds64":
            size = struct.unpack("<Q", scanner.at(28, 8).ljust(8, b"\0"))[0]
            for position, name, short in _chunks(scanner, 12, _LITTLE):
                if name == b"data" and short == 2**32 - 1:
                    return _resized(scanner, position + 8, size, _LITTLE, (28, "<Q"))
        elif magic == b"FORM" and kind in (b"AIFF", b"AIFC"):
            for position, name, size in _chunks(scanner, 12, _BIG):
                if name == b"SSND":
                    return _resized(scanner, position + 8, size, _BIG, (position + 4, ">I"))
        elif magic == b"caff":
            for position, name, size in _chunks(scanner, 8, _WIDE):
                if name == b"data" and size >= 0:
                    return _resized(scanner, position + 12, size, _WIDE, (position + 4, ">q"))
        elif magic in (b".snd", b"dns."):
            order = ">" if magic == b".snd" else "<"
            begin, size = struct.unpack(order + "2I", scanner.at(4, 8).ljust(8, b"\0"))
            if size != 2**32 - 1:
                head = _BIG if magic == b".snd" else _LITTLE
                return _resized(scanner, begin, size, head, (8, order + "I"))
    return Contents()


def _wav(scanner: Scanner, order: str, refused: bool) -> Contents:
    begin = size = 0
    description = b""
    head = _LITTLE if order == "<" else _BIG
    for position, name, nb_bytes in _chunks(scanner, 12, head):
        if name == b"data":
            begin, size = position + 8, nb_bytes
            break
        if name == b"fmt " and nb_bytes < 1000:
            description = scanner.at(position, 8 + nb_bytes + nb_bytes % 2)
    if not begin or not description:
        return Contents()
    end, note = _end_of_samples(scanner, begin, size, head, _float_size(description, order))
    notes = [note] if note else []
    if end < scanner.size:
        more = sum(nb for _, name, nb in _chunks(scanner, end + size % 2, head) if name == b"data")
        if more:
            notes.append(f"{more} bytes of samples in further chunks are left out")
    if end == begin + size and not refused:
        return Contents(notes=notes)
    size = end - begin
    riff_size = 4 + len(description) + 8 + size
    if riff_size < 2**32:
        header = (b"RIFF" if order == "<" else b"RIFX") + struct.pack(order + "I", riff_size)
        header += b"WAVE" + description + b"data" + struct.pack(order + "I", size)
    else:
        large = b"ds64" + struct.pack("<IQQQI", 28, riff_size + 36, size, 0, 0)
        header = b"RF64\xff\xff\xff\xffWAVE" + large + description + b"data\xff\xff\xff\xff"
    return Contents((Part((header, (begin, end)), 0, 0, begin, end),), notes)
