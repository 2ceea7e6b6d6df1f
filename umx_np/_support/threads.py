"""Threads for kernels that release the GIL, and how many of them."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Any, TypeVar

from .._kernels.calls import Ahead, Stop, is_worker_of, run_all, start_worker, uninterrupted
from ..config import check_int
from .limits import available_cores

__all__ = ["Ahead", "Stop", "available_cores", "parallel_map", "resolve_threads"]

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Pool:
    """Threads that all callers of `parallel_map` share, as many as were ever asked for."""

    def __init__(self) -> None:
        self.queue: SimpleQueue[Any] = SimpleQueue()
        self.nb_threads = 0
        # Never taken by the main thread, where an interrupt may leave a lock that is half taken.
        self._lock = threading.Lock()

    def grow(self, nb_threads: int) -> None:
        with self._lock:
            while self.nb_threads < nb_threads:
                start_worker(self.queue, f"umx_np_{self.nb_threads}")
                self.nb_threads += 1


_pool = _Pool()


def _forget_threads() -> None:
    # After a fork the child has the objects but not the threads; waiting for them would hang.
    global _pool
    _pool = _Pool()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_threads)


def resolve_threads(threads: int | None) -> int:
    """Return the number of threads: the argument, or all cores this process may use."""
    return available_cores() if threads is None else check_int("threads", threads, 1)


def parallel_map(
    threads: int, function: Callable[[Item], Result], items: Iterable[Item]
) -> list[Result]:
    """``[function(item) for item in items]`` on some threads; the first error is raised.

    When it returns or raises, also because of an interrupt, no call is under way and none begins
    any more, so nothing still writes to arrays that the caller gives up.

    The threads are shared by all callers, so their number does not grow with the number of
    separators. A function that calls `parallel_map` itself has the inner calls made one after the
    other.
    """
    items = list(items)
    pool, workers = _pool, min(threads, len(items))
    if workers < 2 or is_worker_of(pool.queue) or sys.is_finalizing():
        return [function(item) for item in items]
    if pool.nb_threads < workers:
        uninterrupted(pool.grow, workers)
    return run_all(pool.queue, workers, function, items)
