"""Contents of a file as parts that one decoder each can read, and a part as a file of its own."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

# Bytes of a file from one position to another, bytes in place of the file's, or a number of bytes
# that the file claims to have at its end.
Piece = tuple[int, int] | bytes | int

# What libsndfile believes of an MP3 stream that does not tell its length: a guess from its size and
# the bit rate of the first frames, which for a variable bit rate may be a third of the truth. A
# file that seems very long makes the guess too high, and decoding ends where the data end. 8 kbit/s
# is the lowest and 320 kbit/s the highest bit rate; four times that for safety.
_ENDLESS = 160
# No file that was not made for it has more parts, or places that look like the beginning of one.
MOST_PARTS = 10_000
MOST_TRIES = 100_000
# The decoder looks for a tag in the last bytes and insists on being able to read them.
_TAIL = 128


@dataclass(frozen=True)
class Part:
    """Bytes that one decoder reads from their beginning to their end.

    Attributes
    ----------
    pieces : tuple
        What the part consists of; none is the file as it is.
    least : int
        Samples a channel that are in it, as far as its structure tells: a lower bound, at `rate`.
    rate : int
        Rate of `least` in Hz; 0 is the rate of the decoder.
    begin, end : int
        Position in the file, for messages.
    """

    pieces: tuple[Piece, ...] = ()
    least: int = 0
    rate: int = 0
    begin: int = 0
    end: int = 0


@dataclass(frozen=True)
class Contents:
    """Contents of a file.

    Attributes
    ----------
    parts : sequence of Part
        In the order of the file.
    notes : sequence of str
        What is odd, for the log: what is missing, damaged or was guessed.
    counted : bool
        Whether the numbers of samples in the headers are those that are there.
    """

    parts: Sequence[Part] = (Part(),)
    notes: Sequence[str] = ()
    counted: bool = True


def notes_on(places: list[tuple[int, int]], first: str, others: str) -> list[str]:
    """Say what is the matter with some places of a file, each a begin and an end; three by name."""
    notes = [f"{end - begin} bytes from {begin} on are {first}" for begin, end in places[:3]]
    if len(places) > 3:
        rest = sum(end - begin for begin, end in places[3:])
        notes.append(f"{rest} bytes at {len(places) - 3} more places are {others}")
    return notes


def endless(size: int) -> int:
    """Bytes to be claimed after `size` bytes of MP3 frames that do not tell their number."""
    return size * _ENDLESS + _TAIL


class PieceFile:
    """Pieces of a file, one after the other, to be read by libsndfile.

    An error of the system ends the file and is kept in `error`: exceptions cannot pass through
    libsndfile.
    """

    def __init__(self, path: Path, pieces: Sequence[Piece]) -> None:
        self._file: BinaryIO = path.open("rb")
        self._pieces = pieces
        self._begins = [0]
        for piece in pieces:
            size = piece if isinstance(piece, int) else len(piece)
            if isinstance(piece, tuple):
                size = piece[1] - piece[0]
            self._begins.append(self._begins[-1] + size)
        self._position = 0
        self.error: OSError | ValueError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = (0, self._position, self._begins[-1])[whence]
        self._position = max(base + offset, 0)
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, nb_bytes: int = -1) -> bytes:
        found = []
        for piece, begin, end in zip(self._pieces, self._begins, self._begins[1:], strict=False):
            if not begin <= self._position < end or nb_bytes <= 0:
                continue
            skipped = self._position - begin
            wanted = min(nb_bytes, end - self._position)
            if isinstance(piece, int):
                data = bytes(wanted if end - self._position <= _TAIL else 0)
            elif isinstance(piece, bytes):
                data = piece[skipped : skipped + wanted]
            else:
                data = self._read(piece[0] + skipped, wanted)
            found.append(data)
            self._position += len(data)
            nb_bytes -= len(data)
            if len(data) < wanted:
                break
        return b"".join(found)

    def _read(self, position: int, nb_bytes: int) -> bytes:
        try:
            self._file.seek(position)
            return self._file.read(nb_bytes)
        except (OSError, ValueError) as error:  # ValueError: closed
            self.error = error
            return b""

    def write(self, data: bytes) -> int:  # soundfile asks for it, also for reading
        raise OSError("opened for reading")

    def close(self) -> None:
        self._file.close()


class Scanner:
    """Bytes of a file by their position, read in chunks."""

    def __init__(self, file: BinaryIO, chunk: int = 1 << 20) -> None:
        self._file = file
        self._chunk = chunk
        self.size = os.fstat(file.fileno()).st_size
        self.base = 0
        self.data = b""

    def at(self, position: int, nb_bytes: int) -> bytes:
        """Bytes from `position` on; fewer at the end of the file."""
        if position < self.base or position + nb_bytes > self.base + len(self.data):
            if position >= self.size:
                return b""
            if position < self.base or self.base + len(self.data) < self.size:
                self._file.seek(position)
                self.base = position
                self.data = self._file.read(max(self._chunk, nb_bytes))
        begin = position - self.base
        return self.data[begin : begin + nb_bytes]

    def peek(self, position: int, nb_bytes: int) -> bytes:
        """Bytes from `position` on, of which the neighbours will not be asked for."""
        self._file.seek(position)
        return self._file.read(nb_bytes)

    def find(self, pattern: bytes, position: int) -> int:
        """First place of `pattern` from `position` on; the end of the file if there is none."""
        return self.search(re.compile(re.escape(pattern), re.DOTALL), position)

    def search(self, pattern: re.Pattern[bytes], position: int) -> int:
        """First match of at most 4 bytes from `position` on; the end of the file if none."""
        while position < self.size:
            if not self.base <= position < self.base + len(self.data) - 3:
                self.at(position, min(self._chunk, self.size - position))
            match = pattern.search(self.data, position - self.base)
            if match is not None:
                return self.base + match.start()
            end = self.base + len(self.data)
            if end >= self.size or not self.data:
                break
            position = max(end - 3, position + 1)
        return self.size
