"""A sound file as it is given: by its name, or as an object that is read from."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import IO, Any

from .._support.atomic import TemporaryFile
from ..errors import AudioError, ConfigError, shortened

# Bytes that are taken from an object at a time.
_CHUNK = 1 << 20
# Where what was written to a temporary file turns out to be too much for the disk.
_FULL = "there is no room for it in the folder for temporary files"

# What functions take for a sound file.
SoundInput = str | os.PathLike[str] | IO[bytes]


class GivenSound:
    """A sound file that can be opened again and again, by a decoder of whatever kind.

    What an object gives is kept in a temporary file until `close`: a song is read several times, by
    ffmpeg too, and an object may be a pipe.

    Parameters
    ----------
    file : str, path-like or binary file object
        The name of a file, or an object with a method ``read``, which is read from where it is to
        its end. It is not closed; one that can seek is put back to where it was.
    label : str or None
        What messages call a file; None is its name.

    Attributes
    ----------
    path : Path
        Where the bytes are.
    label : str
        The name of the file; of an object its attribute ``name``, or else its type.
    shown : str
        The argument as messages name it.
    is_object : bool
        Whether it is an object.

    Raises
    ------
    AudioError
        If an object cannot be read, gives text or has nothing left.
    ConfigError
        If it is neither a name nor an object.
    """

    def __init__(self, file: SoundInput, label: str | None = None) -> None:
        self._temporary: TemporaryFile | None = None
        self.is_object = not isinstance(file, (str, os.PathLike))
        if isinstance(file, (str, os.PathLike)):
            self.path = Path(os.path.expanduser(file))
            self.label = label or str(self.path)
            self.shown = f"path={self.label!r}"
            return
        if not callable(getattr(file, "read", None)):
            raise ConfigError(
                f"path={shortened(file)} must be the name of a sound file, or a file object that "
                "was opened in binary mode"
            )
        name = getattr(file, "name", None)
        named = isinstance(name, str) and name
        self.label = str(name) if named else f"<{type(file).__name__}>"
        self.shown = f"file={self.label!r}" if named else f"file={self.label}"
        try:
            self._temporary = TemporaryFile(Path(tempfile.gettempdir()))
        except OSError as error:
            raise AudioError(f"{self.shown} cannot be kept while it is read: {error}") from error
        self.path = self._temporary.path
        try:
            self._keep(file)
        except BaseException:
            self.close()
            raise

    def _keep(self, file: IO[bytes]) -> None:
        assert self._temporary is not None
        begin = _position(file)
        nb_bytes = 0
        while data := self._read(file):
            nb_bytes += len(data)
            left = memoryview(data)
            try:
                while left:
                    left = left[os.write(self._temporary.descriptor, left) :]
            except OSError as error:
                raise AudioError(f"{self.shown}: {_FULL} ({error})") from error
        if begin is not None:
            file.seek(begin)
        if nb_bytes == 0:
            where = "is empty" if not begin else f"is at its end (byte {begin}); rewind it: seek(0)"
            raise AudioError(f"{self.shown} {where}")

    def _read(self, file: IO[bytes]) -> bytes:
        try:
            data: Any = file.read(_CHUNK)
        except (OSError, ValueError) as error:  # ValueError: it is closed
            raise AudioError(f"{self.shown} cannot be read: {error}") from error
        if isinstance(data, str):
            raise AudioError(f"{self.shown} gives text; open it in binary mode ('rb')")
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise AudioError(f"{self.shown} gives {shortened(data)}, and not bytes")
        return bytes(data)

    def close(self) -> None:
        """Remove what was kept."""
        if self._temporary is not None:
            self._temporary.discard()

    def __enter__(self) -> GivenSound:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _position(file: IO[bytes]) -> int | None:
    """Where an object is; None if it cannot go back there."""
    try:
        return file.tell() if file.seekable() else None
    except (AttributeError, OSError, ValueError):
        return None
