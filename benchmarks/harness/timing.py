"""Interleaved repeats and what is told of them: the median and the range."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Timing:
    """Durations of the repeats of one case, in the order they were taken.

    Attributes
    ----------
    seconds : tuple of float
        Wall-clock time of each repeat.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Half of the repeats were faster."""
        return statistics.median(self.seconds)

    @property
    def low(self) -> float:
        """The fastest repeat."""
        return min(self.seconds)

    @property
    def high(self) -> float:
        """The slowest repeat."""
        return max(self.seconds)

    def as_dict(self) -> dict[str, Any]:
        """Numbers for a JSON file."""
        return {
            "median": self.median,
            "low": self.low,
            "high": self.high,
            "seconds": list(self.seconds),
        }


@dataclass(frozen=True)
class Case:
    """One thing to time.

    Attributes
    ----------
    name : str
        Under which its `Timing` is returned.
    run : callable
        What is timed.
    prepare : callable or None
        Called before each repeat, outside of the time; returns the arguments of `run` as a tuple.
        For code that changes its arguments.
    """

    name: str
    run: Callable[..., Any]
    prepare: Callable[[], tuple] | None = None


def interleave(
    cases: Sequence[Case],
    repeats: int,
    *,
    warmup: int = 1,
    pause: float = 0.05,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Timing]:
    """Time some cases in turn: A B C A B C ...

    Whatever changes slowly (clock rate, temperature, other users of the machine) then meets all
    cases alike.

    Parameters
    ----------
    cases : sequence of Case
        With different names.
    repeats : int
        Timed rounds.
    warmup : int
        Rounds before them that are not timed.
    pause : float
        Seconds before each run, so that idle threads of the previous one, which spin for a while
        waiting for more work, are asleep.
    clock, sleep : callable
        Replaced in tests.

    Returns
    -------
    dict of str to Timing

    Raises
    ------
    ValueError
        If there is nothing to repeat, or two cases have the same name.
    """
    if repeats < 1:
        raise ValueError(f"repeats={repeats} must be at least 1")
    seconds: dict[str, list[float]] = {case.name: [] for case in cases}
    if len(seconds) < len(cases):
        raise ValueError("two cases have the same name")
    for number in range(-warmup, repeats):
        for case in cases:
            arguments = case.prepare() if case.prepare else ()
            gc.collect()
            sleep(pause)
            start = clock()
            result = case.run(*arguments)
            elapsed = clock() - start
            del result, arguments  # freed outside of the time, and before the next case allocates
            if number >= 0:
                seconds[case.name].append(elapsed)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}
