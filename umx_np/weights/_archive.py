"""The zip archive inside a torch file: where its entries are, each checked against the file.

Python's `zipfile` reads the whole directory of an archive before anything can be said about it, a
million entries where a file claims so. Archives of torch are of the plainest kind, so that their
directory is read here, within bounds.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import BinaryIO

import numpy as np

from ..errors import WeightsError, shortened

START = b"PK\x03\x04"
_LOCAL_HEADER_BYTES = 30
_RECORD = struct.Struct("<4s6H3L5H2L")  # one entry of the directory
_END = struct.Struct("<4s4H2LH")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR_64 = struct.Struct("<4sLQL")
_MAX_ENTRIES = 20_000
_MAX_DIRECTORY_BYTES = 8 << 20
_MAX_NAME_BYTES = 1000
# In 32 bits: "see the 64 bits elsewhere".
_ELSEWHERE = 0xFFFF_FFFF
_ENCRYPTED, _UTF_8 = 0x1, 0x800


@dataclass(frozen=True)
class _Entry:
    """An entry, as the directory describes it."""

    raw_name: bytes
    flags: int
    method: int
    checksum: int
    stored_size: int
    size: int
    offset: int

    @property
    def name(self) -> str:
        return self.raw_name.decode("utf-8" if self.flags & _UTF_8 else "cp437")


def _refusal(entry: _Entry, problem: str) -> WeightsError:
    return WeightsError(f"entry={shortened(entry.name)} {problem}")


class Archive:
    """Entries of an uncompressed zip archive.

    Parameters
    ----------
    file : BinaryIO
        The archive.
    size : int
        Its bytes.

    Attributes
    ----------
    sizes : dict of str to int
        Bytes of each entry.

    Raises
    ------
    WeightsError
        If the archive is damaged, or not one that torch writes.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self.sizes: dict[str, int] = {}
        self._places: dict[str, tuple[int, int]] = {}  # where the bytes begin, and their CRC-32
        spans = []
        try:
            for entry in _read_directory(file, size):
                name = entry.name
                if name in self.sizes:
                    raise WeightsError(f"the archive holds entry={shortened(name)} twice")
                begin = self._check(entry, size)
                self.sizes[name] = entry.size
                self._places[name] = begin, entry.checksum
                spans.append((entry.offset, begin + entry.size))
        except (struct.error, UnicodeDecodeError) as error:
            raise WeightsError("the archive is truncated or damaged") from error
        spans.sort()
        if any(end > begin for (_, end), (begin, _) in pairwise(spans)):
            raise WeightsError("the entries of the archive overlap; the file is damaged")

    def _check(self, entry: _Entry, size: int) -> int:
        """Return where the bytes of an entry begin."""
        if entry.method or entry.flags & _ENCRYPTED:
            raise _refusal(
                entry,
                "is compressed or encrypted, as torch.save never does; load and save the file "
                "with torch",
            )
        # The directory has no checksum of its own. Comparing it with the header in front of each
        # entry makes sure that no entry goes by the name of another.
        header = b""
        # A 64-bit offset from the file may be more than a seek accepts.
        if entry.offset < size:
            self._file.seek(entry.offset)
            header = self._file.read(_LOCAL_HEADER_BYTES)
        if len(header) < _LOCAL_HEADER_BYTES or not header.startswith(START):
            raise _refusal(entry, "is not where the archive says it is")
        name_length, extra_length = struct.unpack("<HH", header[26:])
        # The lengths first, so that a long name is not read.
        if name_length != len(entry.raw_name) or self._file.read(name_length) != entry.raw_name:
            raise _refusal(entry, "has another name in its header")
        begin = entry.offset + _LOCAL_HEADER_BYTES + name_length + extra_length
        if entry.size != entry.stored_size or begin + entry.size > size:
            raise _refusal(entry, "is truncated")
        return begin

    def read(self, name: str, limit: int) -> bytes:
        """Return the bytes of a small entry."""
        length = self.sizes[name]
        if length > limit:
            raise WeightsError(f"entry={shortened(name)} has {length} bytes (limit: {limit})")
        array = np.empty(length, np.uint8)
        self.read_into(name, array)
        return array.tobytes()

    def read_into(self, name: str, array: np.ndarray) -> None:
        """Fill an array of exactly the entry's size, and verify its checksum."""
        begin, checksum = self._places[name]
        self._file.seek(begin)
        fill(self._file, array)
        if zlib.crc32(array.view(np.uint8).data) != checksum:
            raise WeightsError(
                f"entry={shortened(name)} does not match its CRC-32; the file is damaged, "
                "get it again"
            )


def fill(file: BinaryIO, array: np.ndarray) -> None:
    """Fill an array with the next bytes of a file."""
    target = array.view(np.uint8).data
    done = 0
    while done < len(target):
        count = file.readinto(target[done:])  # type: ignore[attr-defined]
        if not count:
            raise WeightsError("the file is truncated")
        done += count


def _read_directory(file: BinaryIO, size: int) -> Iterator[_Entry]:
    count, length, begin, end = _find_directory(file, size)
    if count > _MAX_ENTRIES:
        raise WeightsError(f"the archive has {count} entries (limit: {_MAX_ENTRIES})")
    if length > _MAX_DIRECTORY_BYTES:
        raise WeightsError(f"the directory of the archive has {length} bytes; the file is damaged")
    if begin + length > end:
        raise WeightsError("the directory of the archive is damaged")
    file.seek(begin)
    directory = file.read(length)
    position = 0
    for _ in range(count):
        entry, position = _read_record(directory, position)
        yield entry
    if position != length:
        raise WeightsError(f"the archive does not hold the {count} entries that it announces")


def _find_directory(file: BinaryIO, size: int) -> tuple[int, int, int, int]:
    """Return the number of entries, the bytes of the directory, its begin, and what is behind."""
    # The last record may be followed by a comment of up to 65535 bytes.
    tail_begin = max(size - _END.size - 0xFFFF - _LOCATOR_64.size, 0)
    file.seek(tail_begin)
    tail = file.read(size - tail_begin)
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _END.size:
        raise WeightsError("the archive is truncated or damaged: its directory is missing")
    _, disk, first_disk, _, count, length, begin, comment = _END.unpack_from(tail, place)
    if disk or first_disk or place + _END.size + comment != len(tail):
        raise WeightsError("the directory of the archive is damaged")
    end = tail_begin + place
    locator = place - _LOCATOR_64.size
    if locator >= 0 and tail.startswith(b"PK\x06\x07", locator):
        _, _, end, _ = _LOCATOR_64.unpack_from(tail, locator)
        if end + _END_64.size > tail_begin + locator:
            raise WeightsError("the directory of the archive is damaged")
        file.seek(end)
        record = _END_64.unpack(file.read(_END_64.size))
        if record[0] != b"PK\x06\x06":
            raise WeightsError("the directory of the archive is damaged")
        count, length, begin = record[7:]
    return count, length, begin, end


def _read_record(directory: bytes, position: int) -> tuple[_Entry, int]:
    """Return an entry and where the next one begins."""
    values = _RECORD.unpack_from(directory, position)
    _, _, _, flags, method, _, _, checksum, stored_size, size = values[:10]
    name_length, extra_length, comment_length, _, _, _, offset = values[10:]
    if values[0] != b"PK\x01\x02" or name_length > _MAX_NAME_BYTES:
        raise WeightsError("the directory of the archive is damaged")
    begin = position + _RECORD.size
    name = directory[begin : begin + name_length]
    begin += name_length
    if _ELSEWHERE in (stored_size, size, offset):
        extra = directory[begin : begin + extra_length]
        size, stored_size, offset = _wide_sizes(extra, [size, stored_size, offset])
    position = begin + extra_length + comment_length
    if position > len(directory):
        raise WeightsError("the directory of the archive is truncated")
    return _Entry(name, flags, method, checksum, stored_size, size, offset), position


def _wide_sizes(extra: bytes, values: list[int]) -> list[int]:
    """Take the numbers that 32 bits do not hold from the field of 64-bit ones."""
    place = 0
    while place + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, place)
        field = extra[place + 4 : place + 4 + length]
        if kind == 1:
            wide = iter(struct.unpack(f"<{length // 8}Q", field[: length // 8 * 8]))
            return [next(wide, value) if value == _ELSEWHERE else value for value in values]
        place += 4 + length
    return values
