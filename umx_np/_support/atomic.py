"""Writing files so that a reader never sees half of one, and no half of one stays for ever.

What is written is first a file ``.umx-np-<host>-<random>.tmp``. Its owner holds a lock on it for as
long as it lives, which the operating system drops when the owner ends in whatever way. Whoever
makes the next such file in the same folder removes those of the same host that nobody holds. Where
a file system knows no locks, none are removed.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import logging
import math
import os
import platform
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from .._kernels.calls import Guard, uninterrupted

if TYPE_CHECKING:
    from filelock import FileLock

logger = logging.getLogger(__name__)

# Seconds between two looks at a claim that another program has.
_PAUSE = 0.05
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)
_PATTERN = re.compile(r"\.umx-np-([0-9a-f]{8})-[0-9a-f]{16}\.tmp")
# Not a symbolic link that somebody else put there, nor a pipe that nobody writes to; and not
# inherited by the programs that are started.
SAFE_FLAGS = (
    getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
# 0o666 lets the umask decide, as for any file; tempfile would make it private to the user.
_MODE = 0o666
# Windows removes no file that is open, which does as a lock. But it renames none either, so a file
# has no owner for a moment: one that was written to so recently (in seconds) may be in that moment.
_SETTLED = 60.0


class TemporaryFile:
    """A new, empty file that is removed unless it gets its final name.

    Parameters
    ----------
    folder : Path
        Where; the final name must be in the same folder.

    Attributes
    ----------
    path : Path
        The file.
    descriptor : int
        Of the open file, which holds the lock; closed by `rename` and `discard`.

    Raises
    ------
    OSError
        If the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        remove_abandoned(folder)
        while True:
            self.path = folder / _new_name()
            self._descriptors: list[int] = []
            # Also for those that an interruption keeps from whoever would discard them.
            self._guard = Guard(_discard, self.path, self._descriptors)
            if uninterrupted(_create, self.path, self._descriptors):
                break
            self._guard()  # another program took it for abandoned before it was locked
        self.descriptor = self._descriptors[0]

    def rename(self, final: Path) -> None:
        """Give the file its final name, replacing a file that has it; a link is replaced itself.

        A device, a pipe or a socket is not replaced: an administrator could lose ``/dev/null``.
        """
        with suppress(FileNotFoundError):
            mode = os.lstat(final).st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISLNK(mode) or stat.S_ISDIR(mode)):
                raise OSError(errno.EEXIST, "it is there already and no file", str(final))
        if sys.platform == "win32":
            uninterrupted(_close, self._descriptors)
        os.replace(self.path, final)
        self._guard()  # which finds nothing to be removed

    def discard(self) -> None:
        """Remove the file, unless it was renamed."""
        self._guard()


@contextmanager
def atomic_write(path: str | os.PathLike[str], *, follow_links: bool = True) -> Iterator[BinaryIO]:
    """Open a file for writing that takes its name only when it is complete and on disk.

    Parameters
    ----------
    path : path-like
        Final name.
    follow_links : bool
        Replace the file that a symbolic link names, and not the link. False where others may have
        put the link there.

    Yields
    ------
    BinaryIO
        A binary file in the same folder. It is flushed, synchronised and renamed when the block
        ends, and removed when the block raises.
    """
    final = Path(os.path.realpath(path) if follow_links else path)
    temporary = TemporaryFile(final.parent)
    try:
        # The descriptor stays open after the file, so that the file is never without its lock.
        with os.fdopen(temporary.descriptor, "w+b", closefd=False) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(final)
    finally:
        temporary.discard()
    uninterrupted(_sync_folder, final.parent)


@contextmanager
def claimed(path: Path, *, wait: bool, timeout: float = math.inf) -> Iterator[bool]:
    """Hold a claim, so that of several programs only one does something.

    The claim of a program that ends, however it ends, is free. On a file system without locks every
    program has it.

    Parameters
    ----------
    path : Path
        A file that stands for what is claimed; made, and removed again.
    wait : bool
        Wait for another program that has the claim.
    timeout : float
        Seconds to wait at the most.

    Yields
    ------
    bool
        Whether the claim is held; False only without `wait`, or after `timeout`.
    """
    from filelock import FileLock, Timeout

    # It is taken and given back in other threads, where no interrupt leaves it half taken.
    lock = FileLock(path, thread_local=False)

    def take() -> bool:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            logger.debug("%s: no locks on this file system", path)
        return True

    deadline = time.monotonic() + timeout
    give_back = Guard(_give_back, lock, path)
    while not uninterrupted(take):
        if not wait or time.monotonic() > deadline:
            yield False
            return
        time.sleep(_PAUSE)
    try:
        yield True
    finally:
        give_back()


def _give_back(lock: FileLock, path: Path) -> None:
    if not lock.is_locked:
        return
    # Who waits for this very file gets the claim, while another may make a new one; whoever claims
    # something looks at whether it is done already.
    with suppress(OSError):  # Windows does not remove what is open
        path.unlink()
    lock.release()


def check_writable(folder: Path, nb_bytes: int) -> None:
    """Raise `OSError` unless so many bytes can be written to a folder."""
    temporary = TemporaryFile(folder)
    try:
        os.write(temporary.descriptor, bytes(nb_bytes))
        os.fsync(temporary.descriptor)
    finally:
        temporary.discard()


def remove_abandoned(folder: Path) -> None:
    """Remove the temporary files in a folder whose owners are gone.

    Those of other hosts stay, since their owners cannot be asked, and so do those of which nothing
    is known.
    """
    try:
        # Not `scandir`: an interrupt would leave its iterator open.
        found = [name for name in os.listdir(folder) if name.startswith(".umx-np-")]
    except OSError:
        return  # there is nothing to be found, or it will be an error when the file is made
    for name in found:
        match = _PATTERN.fullmatch(name)
        if match and match[1] == _host():
            with suppress(OSError):
                if uninterrupted(_remove_if_abandoned, folder / name):
                    logger.info("removed %s, whose owner is gone", folder / name)


def _remove_if_abandoned(path: Path) -> bool:
    if sys.platform == "win32":
        if time.time() - os.lstat(path).st_mtime < _SETTLED:
            return False
        os.unlink(path)
        return True
    descriptor = os.open(path, os.O_RDWR | SAFE_FLAGS)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode) or not try_lock(descriptor):
            return False
        # Its owner may have renamed it since it was listed. The name comes never again, so what
        # has it still is this file.
        if not os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            return False
        os.unlink(path)
    finally:
        os.close(descriptor)
    return True


@functools.lru_cache(maxsize=1)
def _host() -> str:
    """Digits that tell this machine's files on a shared disk from those of others."""
    identity = platform.node()
    with suppress(OSError):
        identity += Path("/etc/machine-id").read_text("ascii", "replace")
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:8]


def _new_name() -> str:
    return f".umx-np-{_host()}-{secrets.token_hex(8)}.tmp"


def _create(path: Path, descriptors: list[int]) -> bool:
    """Make a file and lock it; False if it was removed before it was locked."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | SAFE_FLAGS
    descriptors.append(os.open(path, flags, _MODE))
    if sys.platform == "win32":
        return True
    try:
        return try_lock(descriptors[0]) and os.path.samestat(
            os.fstat(descriptors[0]), os.lstat(path)
        )
    except FileNotFoundError:
        return False
    except OSError:
        return True  # no locks here, so nobody removes it either


def _discard(path: Path, descriptors: list[int]) -> None:
    if sys.platform == "win32":
        _close(descriptors)
    with suppress(OSError):
        path.unlink(missing_ok=True)
    _close(descriptors)


def _close(descriptors: list[int]) -> None:
    while descriptors:
        os.close(descriptors.pop())


def is_kept(path: Path) -> bool:
    """Whether an earlier run left a file of a known name that can be continued.

    What this user did not write, such as a link that somebody put into a shared folder, is removed:
    it could be something else at any time.
    """
    try:
        status = os.lstat(path)
    except OSError:
        return False
    is_ours = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    if hasattr(os, "geteuid"):
        is_ours = is_ours and status.st_uid == os.geteuid()
    if not is_ours:
        path.unlink()
    return is_ours


def open_kept(path: Path, *, append: bool) -> BinaryIO:
    """Open a file of a known name for writing that a later run may continue.

    Parameters
    ----------
    path : Path
        The file; it is made if needed.
    append : bool
        Continue what is there; otherwise begin again.

    Returns
    -------
    BinaryIO

    Raises
    ------
    OSError
        If it cannot be opened, or is a link.
    """
    flags = os.O_WRONLY | os.O_CREAT | SAFE_FLAGS | (os.O_APPEND if append else 0)
    if not append:
        path.unlink(missing_ok=True)
        flags |= os.O_EXCL
    return uninterrupted(open_by_flags, path, flags, "ab" if append else "wb")


def open_by_flags(path: str | os.PathLike[str], flags: int, mode: str) -> BinaryIO:
    """As `open`; to be called by `uninterrupted`, or the descriptor may be lost."""
    return os.fdopen(os.open(path, flags, _MODE), mode)  # type: ignore[return-value]


def _sync_folder(folder: Path) -> None:
    """Make a rename durable where the platform allows folders to be synchronised."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


if sys.platform == "win32":
    import msvcrt

    def try_lock(descriptor: int) -> bool:
        """Lock an open file for this owner alone; False if another one has it locked."""
        os.lseek(descriptor, 0, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def try_lock(descriptor: int) -> bool:
        """Lock an open file for this owner alone; False if another one has it locked.

        Raises
        ------
        OSError
            If the file system has no locks.
        """
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
