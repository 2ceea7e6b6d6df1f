"""WAV files whose headers do not tell what is there: wrapped, missing or wrong sizes."""

from __future__ import annotations

import struct
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


def _is_sound(data: bytes, nb_bytes: int, order: str) -> bool:
    """Whether bytes are floats such as samples have."""
    samples = np.frombuffer(data[: len(data) // nb_bytes * nb_bytes], f"{order}f{nb_bytes}")
    with np.errstate(invalid="ignore"):
        return bool((np.abs(samples) < _LOUDEST).all())


def _float_size(description: bytes, order: str) -> int:
    """Bytes of a sample that is a float; 0 if it is none."""
    tag, _, _, _, _, bits = struct.unpack(order + "HHIIHH", description[8:24])
    if tag == 0xFFFE and len(description) >= 34:
        tag = struct.unpack(order + "H", description[32:34])[0]
    return bits // 8 if tag == 3 and bits in (32, 64) else 0


def _end_of_samples(
    scanner: Scanner, begin: int, size: int, order: str, floats: int
) -> tuple[int, str]:
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
    # Some programs leave out the byte that makes the size even.
    places = [_foreign(scanner, start, order) for start in sorted({end, end + size % 2})]
    place = places[-1]
    if scanner.size in places:
        return end, ""
    if any(scanner.at(begun, 16).startswith(_TAGS) for begun in places):
        return end, ""
    rest = scanner.at(place, 1 << 16)
    nb_bytes = scanner.size - place
    if not any(rest) and len(rest) == nb_bytes:
        return end, f"the last {nb_bytes} bytes are zeros that its header does not count"
    if floats and not _is_sound(rest[(end - place) % floats :], floats, order):
        return end, f"{nb_bytes} bytes after the samples are not sound and are left out"
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
        scanner = Scanner(file, 1 << 12)
        order = ">" if scanner.at(0, 4) == b"RIFX" else "<"
        begin, size, description = _data_chunk(scanner, order)
        if scanner.at(8, 4) != b"WAVE" or not begin or len(description) < 24:
            return Contents()
        floats = _float_size(description, order)
        end, note = _end_of_samples(scanner, begin, size, order, floats)
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
