"""Keep libmpg123, which prints to the standard error of the process, from doing so.

libsndfile gives no way to ask it for silence. Turning the file descriptor 2 away would lose what
other threads and child processes write meanwhile. What C code prints goes through a variable of the
C library that Python's own output does not use: it is pointed at the null device while MP3 data are
read, and back when the last thread is done. With C libraries other than those of GNU and Apple the
variable has another name or cannot be changed, and nothing is done. What the complaints are about
(bytes that are no frames, wrong numbers of frames) is found and told by `umx_np.audio.mp3`.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_lock = threading.Lock()
_nb_users = 0
_kept: int | None = None


def _start_anew() -> None:
    """In a forked child, other threads are gone, and with them whoever held the lock."""
    global _lock, _nb_users
    _lock = threading.Lock()
    if _nb_users:
        _nb_users = 0
        if (found := _variable()) is not None:
            found[0].value = _kept


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


@cache
def _variable() -> tuple[ctypes.c_void_p, int] | None:
    """C's ``stderr`` and a stream to the null device; None where that cannot be had."""
    if sys.platform == "darwin":
        name = "__stderrp"
    elif sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        name = "stderr"
    else:
        return None
    try:
        library = ctypes.CDLL(None)
        library.fopen.restype = ctypes.c_void_p
        library.fopen.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
        variable = ctypes.c_void_p.in_dll(library, name)
        # "e": children do not inherit it.
        null = library.fopen(os.fsencode(os.devnull), b"we" if name == "stderr" else b"w")
    except (OSError, ValueError, AttributeError):
        return None
    return (variable, null) if null else None


@contextmanager
def quiet_library() -> Iterator[None]:
    """Let C code of this process print nothing on the standard error stream.

    To be used where no handler of a signal runs: it would leave the lock taken, or all silent.
    """
    global _nb_users, _kept
    found = _variable()
    if found is None:
        yield
        return
    variable, null = found
    with _lock:
        if _nb_users == 0:
            _kept = variable.value
            variable.value = null
        _nb_users += 1
    try:
        yield
    finally:
        with _lock:
            _nb_users -= 1
            if _nb_users == 0:
                variable.value = _kept
