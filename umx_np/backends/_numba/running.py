"""What both passes are run on: threads, matrix products, and memory that is used again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import threadpoolctl

from .._pool import parallel_map
from .compiling import aligned_empty


class Runner:
    """Threads and memory of one engine.

    Parameters
    ----------
    dtype : dtype
        Of the arrays.
    threads : int
        Threads to compute on.
    """

    def __init__(self, dtype: np.dtype, threads: int) -> None:
        self.dtype = dtype
        self.threads = threads
        self._pools = threadpoolctl.ThreadpoolController().select(user_api="blas")
        self._batch: tuple[int, ...] | None = None
        self._free: dict[tuple[int, ...], list[np.ndarray]] = {}

    # -- threads -----------------------------------------------------------------------------------

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> None:
        """Call a function on every item, on all threads."""
        parallel_map(self.threads, function, items)

    def spans(self, total: int, step: int, function: Callable[[int, int], None]) -> None:
        """Call ``function(start, stop)`` for ranges of at most `step`, on all threads."""
        spans = [(start, min(start + step, total)) for start in range(0, total, step)]
        self.map(lambda span: function(*span), spans)

    def rows(self, total: int, function: Callable[[int, int], None]) -> None:
        """Ranges of rows, a few for each thread so that a late one costs little."""
        self.spans(total, max(1, -(-total // (4 * self.threads))), function)

    # -- matrix products ---------------------------------------------------------------------------

    @contextmanager
    def blas(self) -> Iterator[None]:
        """Let BLAS use our number of threads.

        It is called by one thread only and while no kernel runs: its threads and ours never
        compete.
        """
        with self._pools.limit(limits=self.threads):
            yield

    def product(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Matrix product in memory from `take`; BLAS reads transposed operands at no cost."""
        return np.matmul(a, b, out=self.take(len(a), b.shape[1]))

    # -- memory ------------------------------------------------------------------------------------

    def begin(self, *batch: int) -> None:
        """Start a pass: memory of another batch shape is forgotten."""
        if batch != self._batch:
            self._batch = batch
            self._free.clear()

    def take(self, *shape: int) -> np.ndarray:
        """Uninitialised array that begins at a cache line.

        Getting fresh memory from the system costs about as much as writing to it, so what one step
        gives back serves the next.
        """
        free = self._free.get(shape)
        return free.pop() if free else aligned_empty(shape, self.dtype)

    def give(self, *arrays: np.ndarray) -> None:
        """Hand arrays from `take` back, which nobody else holds; those never given are freed."""
        for array in arrays:
            self._free.setdefault(array.shape, []).append(array)
