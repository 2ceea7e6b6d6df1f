"""Reading files that may hold anything: what is no file is refused, and sizes are bounded."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

from .._kernels.calls import uninterrupted
from ..errors import UmxError, WeightsError, shortened
from .atomic import open_by_flags

# The largest documents are the scores of a track: four stems of two hours have about 5 MB.
MAX_JSON_BYTES = 8 << 20
# A few bytes of text become up to 240 bytes of objects, so that the size alone bounds too little.
_MAX_CONTAINERS = 150_000
_MAX_VALUES = 400_000
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@contextmanager
def open_input(
    path: str | os.PathLike[str], error: type[UmxError] = WeightsError
) -> Iterator[tuple[BinaryIO, int]]:
    """Open a file for reading.

    Parameters
    ----------
    path : path-like
        What should be a file. Pipes, devices, sockets and folders are refused, and none of them is
        waited for.
    error : type of UmxError
        What to raise.

    Yields
    ------
    BinaryIO
        The file.
    int
        Its size.

    Raises
    ------
    UmxError
        If it cannot be opened or read, within the block too, or memory does not suffice.
    """
    name = os.fspath(path)
    if "\0" in name:
        raise error(f"path={name!r} cannot be read: it holds a null character")
    # Opening a pipe waits for who writes into it.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    try:
        with uninterrupted(open_by_flags, name, flags, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                kind = _kind(status.st_mode)
                raise error(f"path={name!r} cannot be read: it is {kind}, not a file")
            yield file, status.st_size
    except UmxError:
        raise
    except OSError as problem:
        reason = why_unreadable(name, problem)
        raise error(f"path={name!r} cannot be read: {reason}") from problem
    except MemoryError as problem:
        raise error(f"path={name!r} needs more memory than there is") from problem


def _kind(mode: int) -> str:
    return next((kind for test, kind in _KINDS if test(mode)), "something special")


def why_unreadable(name: str, problem: OSError | None = None) -> str:
    """Say why there is nothing to be read at a path.

    Parameters
    ----------
    name : str
        The path.
    problem : OSError, optional
        What happened; without it the path is looked at.

    Returns
    -------
    str
        Such as ``it does not exist``.
    """
    if "://" in name:
        return "it is an address, not a path; download the file first"
    try:
        status = os.stat(name)
    except FileNotFoundError:
        if os.path.islink(name):
            target = shortened(os.readlink(name), 200)
            return f"it is a link to {target}, which does not exist"
        return "it does not exist"
    except (OSError, ValueError) as other:
        return getattr(other, "strerror", None) or shortened_error(other)
    # ENXIO is what opening a socket gives.
    if problem is None or problem.errno in (errno.ENXIO, errno.EISDIR):
        return f"it is {_kind(status.st_mode)}, not a file"
    return problem.strerror or shortened_error(problem)


def read_json(path: str | os.PathLike[str], error: type[UmxError] = WeightsError) -> dict[str, Any]:
    """Read a JSON object from a file.

    Parameters
    ----------
    path : path-like
        The file.
    error : type of UmxError
        What to raise.

    Returns
    -------
    dict
        The object.

    Raises
    ------
    UmxError
        As for `open_input` and `parse_json`.
    """
    with open_input(path, error) as (file, _):
        # Some files, such as those of /proc, do not know their size.
        data = file.read(MAX_JSON_BYTES + 1)
    return parse_json(data, os.fspath(path), error)


def parse_json(
    text: str | bytes, name: str, error: type[UmxError] = WeightsError
) -> dict[str, Any]:
    """Parse a JSON object that came from a file.

    Parameters
    ----------
    text : str or bytes
        The document.
    name : str
        File name for the message.
    error : type of UmxError
        What to raise.

    Returns
    -------
    dict
        The object.

    Raises
    ------
    UmxError
        If it is no valid JSON, something else than an object, names a key of an object twice, or is
        so large or nested that reading it would take long.
    """
    if len(text) > MAX_JSON_BYTES:
        raise error(f"path={name!r} is longer than the {MAX_JSON_BYTES} bytes that JSON may have")
    # Marks within text are counted too, which does no harm: documents have far fewer.
    opened, separated = _count(text, "[") + _count(text, "{"), _count(text, ",")
    if opened > _MAX_CONTAINERS or separated > _MAX_VALUES:
        raise error(f"path={name!r} holds more values than a JSON file may have")
    try:
        document = json.loads(text, object_pairs_hook=_unique)
    # RecursionError: brackets nested thousands deep. ValueError: also integers of thousands of
    # digits.
    except (ValueError, RecursionError) as problem:
        raise error(f"path={name!r} holds no valid JSON: {shortened_error(problem)}") from problem
    if not isinstance(document, dict):
        raise error(f"path={name!r} holds a {type(document).__name__}, not a JSON object")
    return document


def _count(text: str | bytes, mark: str) -> int:
    return text.count(mark) if isinstance(text, str) else text.count(mark.encode())


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"key={shortened(key)} is there twice")
            seen.add(key)
    return document


def shortened_error(problem: BaseException, limit: int = 200) -> str:
    """Return what an error of another library says, without line breaks and at most so long."""
    return shortened(str(problem), limit + 2)[1:-1]
