"""Threads: in order, with errors and interrupts, and without leaving any behind."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from umx_np import Separator
from umx_np._kernels import calls
from umx_np._kernels.calls import Guard, Loan, cancellable, uninterrupted
from umx_np._support import threads as _threads
from umx_np._support.threads import Ahead, Stop, parallel_map
from umx_np.config import ModelConfig
from umx_np.errors import UmxError
from umx_np.testing import random_bundle_of

INTERRUPTED = Path(__file__).parents[1] / "helpers" / "interrupted.py"

SEPARATED_IN_A_THREAD = """
import sys, threading, time
import numpy as np
from umx_np import Separator
from umx_np.config import ModelConfig
from umx_np.testing import random_bundle_of

bundle = random_bundle_of(ModelConfig(nb_bins=65, hidden_size=8), ["vocals"], n_fft=128, n_hop=32)
separator = Separator.from_bundle(bundle, threads=3)
mix = np.ones((1, 2, 4000), np.float32)
if sys.argv[1] == "started":
    separator(mix)

def separate():
    time.sleep(0.2)  # the main thread is waiting for this one at its end by now
    for _ in range(5):
        separator(mix)
    print("separated")

threading.Thread(target=separate).start()
"""

FORKED = """
import os
from umx_np._support.threads import Ahead, parallel_map
from umx_np.errors import UmxError

square = lambda x: x * x
parallel_map(3, square, range(4))
batches = Ahead(2, "test", square, range(9), 3)
next(batches)
if child := os.fork():
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert list(batches) == [1, 4, 9, 16, 25, 36, 49, 64]
else:
    assert parallel_map(3, square, range(4)) == [0, 1, 4, 9]
    try:
        next(batches)
        os._exit(1)
    except UmxError:
        batches.close()
        os._exit(0)
"""

LEFT_OPEN = """
import time
from umx_np._support.threads import Ahead

batches = Ahead(2, "test", lambda x: time.sleep(0.01), range(9999), 3)
next(batches)
"""


def run(*arguments: str, timeout: float = 60.0) -> str:
    environment = {**os.environ, "PYTHONPATH": str(INTERRUPTED.parents[1])}
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", *arguments],
        capture_output=True,
        check=False,
        encoding="utf-8",
        env=environment,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def nb_interrupts(what: str, count: str, timeout: float = 60.0) -> int:
    return int(run(str(INTERRUPTED), what, count, timeout=timeout).splitlines()[-1].split()[0])


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
        parallel_map(2, function, range(9))
    time.sleep(0.15)
    assert len(done) <= 3


def test_the_first_of_several_errors():
    def function(item):
        time.sleep(0.01 * (3 - item))
        raise ValueError(f"item {item}")

    for _ in range(5):
        with pytest.raises(ValueError, match="item 0"):
            parallel_map(3, function, range(3))


def test_a_map_within_a_map():
    def outer(x):
        return parallel_map(3, lambda y: (x * y, threading.get_ident()), range(4))

    for row, found in enumerate(parallel_map(3, outer, range(5))):
        assert [number for number, _ in found] == [row * y for y in range(4)]
        assert len({ident for _, ident in found}) == 1


def test_callers_share_the_threads():
    def caller(number, results):
        results[number] = parallel_map(3, lambda x: x + number, range(50))

    results: dict[int, list[int]] = {}
    callers = [threading.Thread(target=caller, args=(k, results)) for k in range(8)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join()
    assert results == {k: list(range(k, k + 50)) for k in range(8)}
    assert sum(t.name.startswith("umx_np_") for t in threading.enumerate()) == (
        _threads._pool.nb_threads
    )


def test_threads_that_cannot_be_started(monkeypatch):
    def failing(queue, name):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(_threads, "_pool", _threads._Pool())
    monkeypatch.setattr(_threads, "start_worker", failing)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        parallel_map(3, abs, range(4))
    monkeypatch.setattr(_threads, "start_worker", calls.start_worker)
    assert parallel_map(3, abs, range(4)) == [0, 1, 2, 3]


class TestAhead:
    def test_results_are_in_order_and_threads_end(self):
        before = threading.active_count()
        closed = []
        with Ahead(3, "test", lambda x: x + 1, range(9), 4, lambda: closed.append(1)) as results:
            assert list(results) == list(range(1, 10))
            assert next(results, None) is None
        assert closed == [1]
        assert threading.active_count() == before

    def test_no_more_than_asked_for_is_begun(self):
        begun = []
        with Ahead(2, "test", begun.append, range(99), 3) as results:
            next(results)
            time.sleep(0.05)
            assert sorted(begun) == [0, 1, 2]

    def test_an_error_ends_it(self):
        results = Ahead(2, "test", lambda x: 1 // x, [1, 0, 1], 2)
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
        with pytest.raises(StopIteration):
            next(results)

    def test_what_is_left_early_is_told(self):
        stop, ended = Stop(), []

        def function(item):
            if item:
                while not stop.asked:
                    time.sleep(1e-3)
                ended.append(item)

        results = Ahead(2, "test", function, range(99), 2, None, stop)
        next(results)
        del results
        assert set(ended) <= {1, 2}
        assert not any(thread.name.startswith("test_") for thread in threading.enumerate())

    def test_who_waits_when_another_closes(self):
        go_on, found = threading.Event(), []
        results = Ahead(1, "test", lambda _: go_on.wait(10.0), range(9), 4)

        def consume():
            try:
                found.extend(results)
            except UmxError as error:
                found.append(error)

        consumer = threading.Thread(target=consume)
        consumer.start()
        time.sleep(0.05)
        closer = threading.Thread(target=results.close)
        closer.start()
        time.sleep(0.05)
        go_on.set()
        for thread in (consumer, closer):
            thread.join(10.0)
            assert not thread.is_alive()
        assert all(result is True or isinstance(result, UmxError) for result in found)

    def test_left_open_when_the_program_ends(self):
        run("-c", LEFT_OPEN)


class TestGuard:
    def test_makes_the_call_once(self):
        made = []
        guard = Guard(made.append, 1)
        guard()
        guard()
        del guard
        assert made == [1]
        Guard(made.append, 2)
        assert made == [1, 2]

    def test_in_another_thread_than_the_main_one(self):
        found = []
        Guard(lambda: found.append(threading.get_ident()))
        found.append(uninterrupted(threading.get_ident))
        assert threading.get_ident() not in found
        thread = threading.Thread(target=lambda: found.append(uninterrupted(threading.get_ident)))
        thread.start()
        ident = thread.ident
        thread.join()
        assert found[-1] == ident

    def test_errors_come_through(self):
        with pytest.raises(ZeroDivisionError):
            uninterrupted(divmod, 1, 0)
        with pytest.raises(ZeroDivisionError):
            cancellable(lambda: 1 // 0, lambda: None, 10.0)

    def test_what_takes_too_long_is_cancelled(self):
        enough = threading.Event()
        begin = time.monotonic()
        assert cancellable(lambda: enough.wait(10.0), enough.set, 0.1)
        assert time.monotonic() - begin < 5.0

    def test_what_was_not_given_back_when_the_program_ends(self):
        code = "from umx_np._kernels.calls import Guard; kept = [Guard(print, 'given back')]"
        assert run("-c", code) == "given back\n"

    def test_memory_on_loan_returns(self):
        shelf: list[np.ndarray] = []
        memory = np.arange(6.0)
        part = np.asarray(Loan(memory, shelf))[2:]
        assert part.base is not None
        assert not shelf
        np.testing.assert_array_equal(part, memory[2:])
        del part
        assert shelf[0] is memory


@pytest.mark.parametrize("pool", ["started", "not started"])
def test_a_separation_goes_on_when_the_main_thread_has_ended(pool):
    assert run("-c", SEPARATED_IN_A_THREAD, pool) == "separated\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.skipif(sys.version_info >= (3, 12), reason="warns of threads")
def test_the_child_of_a_fork():
    run("-c", FORKED)


# Which thread a signal finds, and timers, are Unix's.
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's timers")
@pytest.mark.parametrize("what", ["map", "separate", "loader"])
def test_interrupts(what):
    assert nb_interrupts(what, "150") >= 150


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's timers")
def test_interrupts_of_files():
    assert nb_interrupts("files", "100", timeout=120.0) >= 100


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's timers")
@pytest.mark.parametrize("what", ["map", "separate", "loader", "files", "evaluate"])
def test_many_interrupts(what):
    """20,000 of each, a hundredth of an evaluation, or UMX_NP_INTERRUPTS of them.

    To run: UMX_NP_TEST_LONG=1 python -m pytest tests/support/test_threads.py -k many_interrupts
    To watch one: python tests/helpers/interrupted.py map 20000
    """
    count = os.environ.get("UMX_NP_INTERRUPTS", "200" if what == "evaluate" else "20000")
    assert nb_interrupts(what, count, timeout=7200.0) >= int(count)


def test_kernels_from_many_threads():
    """The check of a Python without the GIL, with ``PYTHON_GIL=0``.

    The extensions do not say yet that they can do without it, and otherwise Python turns it on.
    """
    config = ModelConfig(nb_bins=65, hidden_size=8)
    bundle = random_bundle_of(config, ["vocals", "drums"], n_fft=128, n_hop=32)
    separators = [Separator.from_bundle(bundle, threads=threads) for threads in (1, 3)]
    mix = np.random.default_rng(0).standard_normal((1, 2, 3000)).astype(np.float32)
    expected = separators[0](mix)
    same: list[bool] = []

    def work(number):
        for _ in range(10):
            same.append(np.array_equal(separators[number % 2](mix), expected))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert same == [True] * 80
