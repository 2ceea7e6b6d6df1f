"""Threads: in order, with errors, and without leaving any behind."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from umx_np._threads import parallel_map, started_executor

# Interrupts the beginning of a pool at many moments, as Ctrl-C or SIGTERM may.
INTERRUPTED = """
import signal
from umx_np import _threads

class Stop(Exception):
    pass

def stop(number, frame):
    raise Stop

signal.signal(signal.SIGALRM, stop)
stopped = 0
for moment in range(300):
    _threads._executors.clear()
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, 20e-6 + 4e-6 * moment)
            _threads.parallel_map(3, abs, range(4))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except Stop:
        stopped += 1
print(stopped)
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_results_are_in_order(threads):
    assert parallel_map(threads, lambda x: x * x, range(20)) == [x * x for x in range(20)]
    assert parallel_map(threads, abs, []) == []


def test_an_error_is_raised_when_nothing_runs_any_more():
    begun, done = threading.Event(), []

    def function(item):
        if item == 0:
            assert begun.wait(10.0)
            raise ValueError("item 0")
        begun.set()
        time.sleep(0.1)
        done.append(item)

    with pytest.raises(ValueError, match="item 0"):
        parallel_map(2, function, range(2))
    assert done == [1]


@pytest.mark.parametrize("kind", [threading.Lock, threading.RLock])
def test_an_interrupt_is_not_hidden_by_what_it_does_to_a_lock(kind, monkeypatch):
    """As `threading.Condition` does when it is interrupted between two steps of its waiting."""

    def result(self, timeout=None):
        try:
            raise KeyboardInterrupt
        finally:
            kind().release()

    monkeypatch.setattr(Future, "result", result)
    with pytest.raises(KeyboardInterrupt):
        parallel_map(2, abs, range(3))


def test_all_threads_are_there_from_the_beginning():
    with started_executor(4, "test-of-threads") as executor:
        threads = {thread.name: thread for thread in threading.enumerate()}
        workers = [threads[f"test-of-threads_{k}"] for k in range(4)]
        # At the end of a program daemons may be computing still when its memory goes.
        assert not any(worker.daemon for worker in workers)
        assert executor.submit(threading.get_ident).result() != threading.get_ident()
    assert not any(worker.is_alive() for worker in workers)


def test_threads_that_cannot_be_started(monkeypatch):
    submit, calls = ThreadPoolExecutor.submit, []

    def failing(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise RuntimeError("can't start new thread")
        return submit(self, *arguments)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", failing)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        started_executor(4, "test-of-failure")
    for thread in threading.enumerate():
        if thread.name.startswith("test-of-failure"):
            thread.join(10.0)
            assert not thread.is_alive()


def test_no_threads_for_a_program_that_is_being_left(monkeypatch):
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    with pytest.raises(RuntimeError, match="being left"):
        started_executor(2, "test")


@pytest.mark.skipif(sys.platform != "linux", reason="which thread a signal finds is its choice")
def test_an_interrupt_leaves_no_thread_that_keeps_the_program_from_ending():
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10
