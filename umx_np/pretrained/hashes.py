"""Hashes of downloaded files: what is compared, and remembering that it was.

A small stamp beside a file says which file was hashed. It spares the next program the work, but
only where nobody else can have put it there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from .._support.atomic import atomic_write
from .._support.inputs import open_input, parse_json
from ..errors import DownloadError
from .models import PublishedFile

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_MAX_STAMP_BYTES = 1 << 16
# Of fewer bits of a hash, another file with the same ones can be found.
_SAFE_BITS = 128


def _identity(status: os.stat_result) -> dict[str, int]:
    """Numbers that change with the content of a file, or when another one takes its place."""
    return {
        "device": status.st_dev,
        "inode": status.st_ino,
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        # Unlike the time of change, it cannot be set.
        "ctime_ns": status.st_ctime_ns,
    }


def _is_ours(status: os.stat_result) -> bool:
    """Whether nobody but this user and the administrator can have written a file.

    On Windows that cannot be told, so that files are hashed whenever they are loaded.
    """
    owners = {0, os.getuid()} if hasattr(os, "getuid") else set()
    return status.st_uid in owners and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def is_stamped(path: Path, file: PublishedFile, stamp: Path) -> bool:
    """Whether this user, or the administrator, has verified the file and nobody touched it since.

    Anyone who can write into the folder could leave a stamp there, or put another file below it.
    """
    try:
        with open_input(stamp, DownloadError) as (opened, _):
            if not _is_ours(os.fstat(opened.fileno())):
                return False
            known = parse_json(opened.read(_MAX_STAMP_BYTES), str(stamp), DownloadError)
        status = path.stat()
    except OSError:  # of which DownloadError is one
        return False
    return (
        _is_ours(status)
        and known.get("path") == str(path)
        and known.get("identity") == _identity(status)
        and known.get("hashes") == file.hashes
    )


def _write_stamp(path: Path, file: PublishedFile, status: os.stat_result, stamp: Path) -> None:
    known = {"path": str(path), "identity": _identity(status), "hashes": file.hashes}
    # Without a stamp (a read-only cache) the file is hashed each time.
    with suppress(OSError):
        stamp.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(stamp) as opened:
            opened.write(json.dumps(known).encode())
            # Whatever the umask: a stamp that others can write counts for nothing.
            if hasattr(os, "fchmod"):
                os.fchmod(opened.fileno(), 0o644)


def digests(file: BinaryIO, algorithms: Iterable[str]) -> dict[str, str]:
    """Hash what is left of a file, with several algorithms at once."""
    # MD5 is one of several here and protects against damage, not against attack.
    hashers = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}
    while chunk := file.read(_CHUNK_BYTES):
        for hasher in hashers.values():
            hasher.update(chunk)
    return {name: hasher.hexdigest() for name, hasher in hashers.items()}


def check_hashes(path: Path, file: PublishedFile, stamp: Path | None = None) -> str | None:
    """Compare a file with all that is known about it; return what is wrong, if anything.

    When nothing is wrong and `stamp` is given, that is remembered there.

    Raises
    ------
    DownloadError
        If it cannot be read.
    """
    with open_input(path, DownloadError) as (opened, size):
        if file.size is not None and size != file.size:
            return f"size={size} instead of {file.size} bytes"
        # As it was before: what is written meanwhile makes the stamp void.
        status = os.fstat(opened.fileno())
        found = digests(opened, file.hashes)
    for name, expected in file.hashes.items():
        if not found[name].startswith(expected):
            return f"{name}={found[name]} instead of {expected}"
    if stamp is not None:
        _write_stamp(path, file, status, stamp)
        if file.nb_verified_bits < _SAFE_BITS:
            logger.warning(
                "%s: only the first %d bits of its SHA-256 are published, which tells a damaged "
                "file but not one that was forged; all of it is %s",
                path,
                file.nb_verified_bits,
                found["sha256"],
            )
    return None
