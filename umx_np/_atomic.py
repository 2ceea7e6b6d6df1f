"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only when it is complete and on disk.

    Parameters
    ----------
    path : path-like
        Final name. A symbolic link is followed, so that the file it names is replaced.

    Yields
    ------
    BinaryIO
        A binary file in the same folder. It is flushed, synchronised and renamed when the block
        ends, and removed when the block raises.
    """
    final = Path(os.path.realpath(path))
    temporary = final.with_name(f".umx-np-{os.getpid()}-{secrets.token_hex(6)}.tmp")
    # 0o666 lets the umask decide, as for any file; tempfile would make it private to the user.
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    descriptor = os.open(temporary, flags, 0o666)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, final)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(final.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable where the platform allows folders to be synchronised."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
