"""Times on a card: events of each framework on its own stream, cases in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.harness.timing import Timing

Run = Callable[[], Any]
Clock = Callable[[Run], float]


def cupy_events(xp: Any) -> Clock:
    """Seconds between two events on CuPy's current stream, around what is run."""

    def clock(run: Run) -> float:
        first, last = xp.cuda.Event(), xp.cuda.Event()
        first.record()
        run()
        last.record()
        last.synchronize()
        return xp.cuda.get_elapsed_time(first, last) / 1e3

    return clock


def torch_events(torch: Any) -> Clock:
    """Seconds between two events on PyTorch's current stream, around what is run."""

    def clock(run: Run) -> float:
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        run()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3

    return clock


def host_clock(synchronize: Callable[[], Any]) -> Clock:
    """Seconds of wall-clock time, with nothing left to do on the card before and after."""

    def clock(run: Run) -> float:
        synchronize()
        start = time.perf_counter()
        run()
        synchronize()
        return time.perf_counter() - start

    return clock


@dataclass(frozen=True)
class Timed:
    """One thing to time.

    Attributes
    ----------
    name : str
        Under which its `Timing` is returned.
    run : callable
        What is timed.
    clock : callable
        Runs it and returns seconds.
    """

    name: str
    run: Run
    clock: Clock


def take_turns(
    cases: Sequence[Timed],
    *,
    repeats: int = 15,
    least: int = 3,
    seconds: float = 20.0,
    warmup: int = 2,
    now: Callable[[], float] = time.monotonic,
) -> dict[str, Timing]:
    """Time some cases in turn, A B A B ..., as often as fits.

    Parameters
    ----------
    cases : sequence of Timed
        With different names.
    repeats : int
        Timed rounds at most.
    least : int
        Timed rounds at least.
    seconds : float
        No further round is begun after this time; the warm-up does not count.
    warmup : int
        Rounds before them that are not timed.
    now : callable
        Replaced in tests.

    Returns
    -------
    dict of str to Timing
    """
    found: dict[str, list[float]] = {case.name: [] for case in cases}
    for _ in range(warmup):
        for case in cases:
            case.run()
    end = now() + seconds
    for number in range(repeats):
        if number >= least and now() > end:
            break
        for case in cases:
            found[case.name].append(case.clock(case.run))
    return {name: Timing(tuple(values)) for name, values in found.items()}
