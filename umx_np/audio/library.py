"""libsndfile, by way of soundfile, as a decoder that reads on and never seeks back."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from .._kernels.calls import close_lost, uninterrupted
from ._quiet import quiet_library
from .pieces import Part, PieceFile

# What soundfile raises for files it cannot read: its own errors, TypeError and ValueError for
# headerless formats, OSError from the system.
READ_ERRORS = (sf.SoundFileError, RuntimeError, TypeError, ValueError, OSError)

# Encodings of which each sample stands for itself (or, in FLAC, each block): their headers tell
# the exact length, and any sample can be found. Others keep a state from sample to sample, which
# is wrong after a jump; they are decoded from the beginning.
_STATELESS = re.compile(r"PCM_\w+|FLOAT|DOUBLE|ULAW|ALAW")


def library_name(path: Path) -> str | bytes:
    """Name of a file for soundfile, which cannot encode names that are not Unicode."""
    name = os.fspath(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        return os.fsencode(name)
    return name


class HeldFile(sf.SoundFile):
    """`soundfile.SoundFile` that is closed in the end, wherever an interrupt comes.

    Parameters
    ----------
    path : Path, PieceFile or BytesIO
        The file.
    mode : {'r', 'w'}
        Whether it is read or written.
    **options
        As for `soundfile.SoundFile`.
    """

    def __init__(
        self, path: Path | PieceFile | io.BytesIO, mode: str = "r", **options: Any
    ) -> None:
        name = library_name(path) if isinstance(path, Path) else path
        uninterrupted(self._begin, name, mode, options)

    def _begin(
        self, name: str | bytes | PieceFile | io.BytesIO, mode: str, options: dict[str, Any]
    ) -> None:
        with quiet_library():
            super().__init__(name, mode, **options)

    def close(self) -> None:
        if not self.closed:
            uninterrupted(self._end)

    def _end(self) -> None:
        with quiet_library():
            super().close()

    __del__ = close_lost


class SoundFile(HeldFile):
    """A file, or a part of one, to be read from its beginning."""

    def __init__(self, path: Path, part: Part | None = None) -> None:
        self.position = 0
        self.damages: list[tuple[int, str]] = []  # only of FLAC files
        self._failure: Exception | None = None
        self._pieces: PieceFile | None = None
        if part is not None and part.pieces:
            self._pieces = PieceFile(path, part.pieces)
        try:
            super().__init__(path if self._pieces is None else self._pieces)
        except BaseException:
            if self._pieces is not None:
                self._pieces.close()
            raise
        if self.format == "W64" and self.subtype == "PCM_32" and "IEEE float" in self.extra_info:
            # As written by ffmpeg. libsndfile takes these floats for integers.
            self.close()
            raise ValueError("floats in an extensible W64 file are not supported")
        if self.format == "SVX" and self.channels > 1:
            # One channel after the other, which libsndfile takes for samples in turn.
            self.close()
            raise ValueError("8SVX files of several channels are not supported")

    def seekable(self) -> bool:
        """Say no, whatever the file is.

        soundfile seeks to where it is already after each read of a seekable file. Decoders lose
        their state thereby, or do not know how to.
        """
        return False

    def next_frames(self, nb_frames: int) -> np.ndarray:
        """Read (nb_frames, nb_channels) float32, or what is left."""
        if self._failure is not None:
            raise self._failure
        # NaN where libsndfile wrote nothing: soundfile does not tell how far it came before damage.
        out = np.full((nb_frames, self.channels), np.nan, np.float32)
        try:
            # What a handler raises within the callbacks for pieces would be lost in libsndfile.
            if self._pieces is not None or self.format == "MP3":
                frames = uninterrupted(self._read_quietly, out)
            else:
                frames = self.read(out=out)
        except READ_ERRORS as error:
            nothing = np.isnan(out).any(axis=1)
            nb_read = int(np.argmax(nothing)) if nothing.any() else len(out)
            if not nb_read:
                raise
            self._failure = error
            frames = out[:nb_read]
        if self._pieces is not None and self._pieces.error is not None:
            raise self._pieces.error
        return frames

    def _read_quietly(self, out: np.ndarray) -> np.ndarray:
        with quiet_library():
            frames: np.ndarray = self.read(out=out)
        return frames

    def seek(self, frames: int, whence: int = os.SEEK_SET) -> int:
        return int(uninterrupted(super().seek, frames, whence))

    def _end(self) -> None:
        super()._end()
        if self._pieces is not None:
            self._pieces.close()

    @property
    def is_stateless(self) -> bool:
        """Whether `frames` can be trusted and any of them be found."""
        if self.format in ("MP3", "OGG") or not 0 <= self.frames < 2**62:
            return False
        return _STATELESS.fullmatch(self.subtype) is not None


class RefusedError(RuntimeError):
    """libsndfile does not read a file, of which something is known nevertheless.

    Attributes
    ----------
    notes : list of str
        What is odd about it, for the log.
    """

    def __init__(self, reason: str, notes: list[str]) -> None:
        super().__init__(reason)
        self.notes = notes


def plain(error: BaseException) -> str:
    """Message of an error of soundfile without the path, which our message names already."""
    return str(error).rsplit(": ", 1)[-1].rstrip(".") or type(error).__name__
