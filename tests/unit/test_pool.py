"""Threads: in order, with errors, and without leaving any behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from umx_np.backends._pool import parallel_map, started_executor

# Interrupts the beginning of a pool at many moments, as Ctrl-C or SIGTERM may.
INTERRUPTED = """
import signal
from umx_np.backends import _pool

class Stop(Exception):
    pass

def stop(number, frame):
    raise Stop

signal.signal(signal.SIGALRM, stop)
stopped = 0
for moment in range(300):
    _pool._executors.clear()
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, 20e-6 + 4e-6 * moment)
            _pool.parallel_map(3, abs, range(4))
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except (Stop, RuntimeError):
        # threading.Condition, in which results are waited for, makes a RuntimeError of it if it
        # comes between two of its own steps.
        stopped += 1
print(stopped)
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_results_are_in_order(threads):
    assert parallel_map(threads, lambda x: x * x, range(20)) == [x * x for x in range(20)]
    assert parallel_map(threads, abs, []) == []


@pytest.mark.parametrize("threads", [1, 3])
def test_the_first_error_is_raised_when_nothing_runs_any_more(threads):
    release, done = threading.Event(), []

    def function(item):
        if item == 1:
            release.set()
            raise ValueError("item 1")
        release.wait(1.0 if threads > 1 else 0.0)
        done.append(item)

    with pytest.raises(ValueError, match="item 1"):
        parallel_map(threads, function, range(3))
    assert 0 in done


def test_all_threads_are_there_from_the_beginning():
    with started_executor(4, "test-of-threads") as executor:
        names = {thread.name for thread in threading.enumerate()}
        assert {f"test-of-threads_{k}" for k in range(4)} <= names
        assert executor.submit(threading.get_ident).result() != threading.get_ident()
    names = {thread.name for thread in threading.enumerate()}
    assert not any(name.startswith("test-of-threads") for name in names)


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")
def test_an_interrupt_leaves_no_thread_that_keeps_the_program_from_ending():
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        capture_output=True,
        check=False,
        encoding="utf-8",
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 100
