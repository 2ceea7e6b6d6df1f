"""Interrupts of work on several threads, at random moments. Run by `tests/unit/test_threads.py`.

    python tests/helpers/interrupted.py {map,separate,loader} COUNT [SEED]

Each attempt is interrupted by a signal, every fourth by a burst of up to three. What the handler
raised must have come to the caller, no task may be at work, nor threads be left, and the same work
done anew must give the same numbers. Prints from time to time how many interrupts there were and
after how many seconds; ends with 0 after the last.
"""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

import numpy as np

from umx_np import Separator
from umx_np._threads import parallel_map
from umx_np.config import ModelConfig
from umx_np.data import Loader, UnmixDataset
from umx_np.testing import random_bundle_of

THREADS = 3
# Interrupts after which it tells how far it is.
PROGRESS = 1000


class Interrupt(KeyboardInterrupt):
    """Has a number, so that none can be missed."""


raised: list[int] = []
left = 0  # to be raised in the present attempt


def handle(number: int, frame: FrameType | None) -> None:
    """As Python's own handler for Ctrl-C does, but only into the work."""
    global left
    if left < 1 or frame is None:
        return
    if frame.f_code in (handle.__code__, interrupted.__code__, main.__code__):
        return  # the first would take the place of one that is about to be raised
    left -= 1
    raised.append(len(raised))
    raise Interrupt(raised[-1])


def numbers_of(error: BaseException | None) -> list[int]:
    """Numbers of an interrupt and of those in whose handling it was raised."""
    found = []
    while error is not None:
        if isinstance(error, Interrupt):
            found.append(error.args[0])
        error = error.__context__
    return found


def interrupted(work: Callable[[], object], delay: float, burst: int) -> list[int]:
    """Do something that is interrupted, and return the interrupts that came through."""
    global left
    seen: list[int] = []
    left = burst
    signal.setitimer(signal.ITIMER_REAL, delay, 2e-4)
    try:
        work()
    except Interrupt as error:
        left = 0
        seen = numbers_of(error)
    left = 0
    signal.setitimer(signal.ITIMER_REAL, 0)
    return seen


def map_work() -> tuple[Callable[[], object], Callable[[], None]]:
    """Short tasks that tell when they are at work."""
    at_work: set[int] = set()

    def task(item: int) -> int:
        at_work.add(item)
        time.sleep(1e-4 * (item % 3))
        at_work.discard(item)
        return item * item

    def run() -> list[int]:
        return parallel_map(THREADS, task, range(12))

    def check() -> None:
        assert not at_work, at_work
        assert run() == [k * k for k in range(12)]

    return run, check


def separate_work() -> tuple[Callable[[], object], Callable[[], None]]:
    """A separation of a small model."""
    config = ModelConfig(nb_bins=65, hidden_size=8, nb_layers=1)
    bundle = random_bundle_of(config, ["vocals", "drums"], n_fft=128, n_hop=32)
    separator = Separator.from_bundle(bundle, threads=THREADS)
    mix = np.random.default_rng(0).standard_normal((1, 2, 4000)).astype(np.float32)
    expected = separator(mix)

    def check() -> None:
        np.testing.assert_array_equal(separator(mix), expected)

    return lambda: separator(mix), check


class Noise(UnmixDataset):
    """Eleven items of random numbers."""

    def __len__(self) -> int:
        return 11

    def sample(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(1e-4)
        x = rng.standard_normal((2, 30), np.float32)
        return x, x


def loader_work() -> tuple[Callable[[], object], Callable[[], None]]:
    """An epoch, and one that is left early."""
    loader = Loader(Noise(), 2, seed=0, shuffle=True, workers=THREADS)

    def run() -> list[np.ndarray]:
        for _batch in loader.epoch(0):
            break
        return [x for x, _ in loader.epoch(0)]

    expected = run()

    def check() -> None:
        names = [thread.name for thread in threading.enumerate()]
        assert not any(name.startswith("umx-np-loader") for name in names), names
        found = [x for x, _ in loader.epoch(0)]
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_array_equal(one, other)

    return run, check


def main(what: str, count: int, seed: int = 0) -> None:
    """Interrupt something many times."""
    work, check = {"map": map_work, "separate": separate_work, "loader": loader_work}[what]()
    check()
    begin = time.perf_counter()
    for _ in range(5):
        work()
    usual = (time.perf_counter() - begin) / 5
    rng = random.Random(seed)
    signal.signal(signal.SIGALRM, handle)
    nb_threads = threading.active_count()
    told, begin = 0, time.monotonic()
    while len(raised) < count:
        before = len(raised)
        burst = rng.choice([2, 3]) if rng.random() < 0.25 else 1
        seen = interrupted(work, rng.uniform(1e-6, 1.1 * usual), burst)
        assert sorted(set(seen)) == list(range(before, len(raised))), (seen, before, len(raised))
        check()
        assert threading.active_count() <= max(nb_threads, 1 + THREADS), threading.enumerate()
        if len(raised) // PROGRESS > told or len(raised) >= count:
            told = len(raised) // PROGRESS
            seconds = time.monotonic() - begin
            print(f"{len(raised)} interrupts of {what}, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:]))
