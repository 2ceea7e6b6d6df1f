"""Means of both passes: threads, matrix products, and memory that is used again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import threadpoolctl

from .._kernels.calls import Loan
from .._support.threads import parallel_map
from .compiling import aligned_empty
from .gemm import gemm_kernel, is_faster

# Parts of a matrix product are as equal as whole tiles allow.
_TILE = 16


class Runner:
    """Threads and memory of one engine.

    Parameters
    ----------
    dtype : dtype
        Of the arrays.
    threads : int
        Threads to compute on.
    amp : bool
        Round the operands of products to bfloat16; needs float32 and `gemm.has_pairs`.
    """

    def __init__(self, dtype: np.dtype, threads: int, amp: bool = False) -> None:
        self.dtype = dtype
        self.threads = threads
        self._multiply = gemm_kernel(dtype, amp) if amp or is_faster() else _blas
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
            Either may be transposed; they are read as they are.
        keep : bool
            Whether the result is for somebody who does not give it back; otherwise it is from
            `take`.
        """
        m, n = len(a), b.shape[1]
        out = np.empty((m, n), self.dtype) if keep else self.take(m, n)

        def some_rows(start: int, stop: int) -> None:
            self._multiply(a, b, out, slice(start, stop), slice(0, n))

        def some_columns(start: int, stop: int) -> None:
            self._multiply(a, b, out, slice(0, m), slice(start, stop))

        some, total = (some_columns, n) if n > m else (some_rows, m)
        self.spans(total, -(-total // (self.threads * _TILE)) * _TILE, some)
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

    def lend(self, *shape: int) -> np.ndarray:
        """Array like that of `take` for somebody else, who need not know about giving it back.

        Its memory is used again when the last view of it is gone.
        """
        # After a pass of another batch shape, the shelf is one that nobody takes from.
        return np.asarray(Loan(self.take(*shape), self._free.setdefault(shape, [])))


def _blas(a: np.ndarray, b: np.ndarray, out: np.ndarray, rows: slice, columns: slice) -> None:
    np.matmul(a[rows], b[:, columns], out=out[rows, columns])
