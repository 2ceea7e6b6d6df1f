"""Threads for kernels that release the GIL."""

from __future__ import annotations

import _thread
import os
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .config import check_int

Item = TypeVar("Item")
Result = TypeVar("Result")

_executors: dict[int, ThreadPoolExecutor] = {}
# What Python's two kinds of locks say when they are released and nobody holds them.
_NOT_LOCKED = ("release unlocked lock", "cannot release un-acquired lock")
_lock = threading.Lock()


def _forget_executors() -> None:
    # After a fork the child has the objects but not the threads; waiting for them would hang.
    global _lock
    _executors.clear()
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_executors)


def available_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def resolve_threads(threads: int | None) -> int:
    """Return the number of threads: the argument, or all cores this process may use."""
    return available_cores() if threads is None else check_int("threads", threads, 1)


def started_executor(threads: int, name: str) -> ThreadPoolExecutor:
    """Executor whose threads all run already.

    The handler of a signal may raise between any two steps of the main thread. An executor that
    starts its threads there can be left with one that runs but that it does not know yet: nobody
    ends it, and the program waits for it forever when it is left. In other threads no handlers
    run. So another one starts the threads, and the main thread itself makes two calls only, neither
    of which can be left halfway.
    """
    if sys.is_finalizing():
        raise RuntimeError("no threads can be started, because the program is being left")
    executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
    # Nobody is idle before all are there, so that each task gets a thread of its own.
    all_there = threading.Barrier(threads)
    tried = threading.Lock()
    tried.acquire()
    errors: list[BaseException] = []

    def start() -> None:
        try:
            for _ in range(threads):
                executor.submit(all_there.wait)
        except BaseException as error:
            errors.append(error)
            all_there.abort()
        finally:
            tried.release()

    # Threads are daemons where their parent is, which a thread that Python has not started is said
    # to be; so there is one in between.
    parent = threading.Thread(target=start, name=f"{name}_start", daemon=False)

    def begin() -> None:
        try:
            parent.start()
        except BaseException as error:
            errors.append(error)
            tried.release()

    _thread.start_new_thread(begin, ())
    tried.acquire()
    if errors:
        executor.shutdown(wait=False, cancel_futures=True)
        raise errors[0]
    return executor


def parallel_map(
    threads: int, function: Callable[[Item], Result], items: Iterable[Item]
) -> list[Result]:
    """``[function(item) for item in items]`` on some threads; the first error is raised.

    The executors are shared by all callers, so the number of threads at work does not grow with the
    number of separators. Functions must not call `parallel_map` themselves.
    """
    items = list(items)
    if threads == 1 or len(items) < 2:
        return [function(item) for item in items]
    with _lock:
        if threads not in _executors:
            _executors[threads] = started_executor(threads, "umx_np")
        executor = _executors[threads]
    futures = [executor.submit(function, item) for item in items]
    try:
        return [future.result() for future in futures]
    except RuntimeError as error:
        # A condition that is interrupted between two steps of its own waiting fails to leave its
        # lock, which hides what the handler of the signal raised.
        hidden = error.__context__
        if hidden is not None and str(error) in _NOT_LOCKED:
            raise hidden from None
        raise
    finally:
        # After an error nothing of this call may still write to arrays the caller gives up.
        for future in futures:
            future.cancel()
        for future in futures:
            if not future.cancelled():
                future.exception()
