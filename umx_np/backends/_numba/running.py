"""What both passes are run on: threads, matrix products, and memory that is used again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import threadpoolctl

from .._pool import parallel_map
from .compiling import aligned_empty

# Rows or columns that a matrix product takes together.
_BLOCK = 48


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
    def own_threads(self) -> Iterator[None]:
        """Keep BLAS to the thread that calls it.

        Its own threads would go on spinning for 20 ms after every product, and take a core away
        from the kernel that comes next: the recurrent kernels took twice as long.
        """
        with self._pools.limit(limits=1):
            yield

    def product(self, a: np.ndarray, b: np.ndarray, *, keep: bool = False) -> np.ndarray:
        """Matrix product, cut into a part for each thread.

        Parameters
        ----------
        a, b : ndarray [shape=(m, k), (k, n)]
            Either may be transposed; BLAS reads them as they are.
        keep : bool
            Whether the result is for somebody who does not give it back; otherwise it is from
            `take`.
        """
        m, n = len(a), b.shape[1]
        out = np.empty((m, n), self.dtype) if keep else self.take(m, n)

        def some_rows(start: int, stop: int) -> None:
            np.matmul(a[start:stop], b, out=out[start:stop])

        def some_columns(start: int, stop: int) -> None:
            np.matmul(a, b[:, start:stop], out=out[:, start:stop])

        if n > m:
            self.spans(n, _share(n, self.threads), some_columns)
        else:
            self.spans(m, _share(m, self.threads), some_rows)
        return out

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


def _share(total: int, threads: int) -> int:
    """Rows or columns of a part: as equal as blocks of a matrix product allow."""
    return -(-total // (threads * _BLOCK)) * _BLOCK
