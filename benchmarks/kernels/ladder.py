"""Parts of all ladders: levels, ceilings, timing of kernels."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from benchmarks.harness import results
from benchmarks.harness.threads import limited
from benchmarks.harness.timing import Case, interleave


def parser(description: str | None, *, repeats: int = 9) -> argparse.ArgumentParser:
    """Return the options of a ladder: as for any benchmark, and which levels."""
    result = results.parser(description, repeats=repeats)
    result.add_argument(
        "--levels", nargs="+", metavar="LEVEL", help="(default: all this processor runs)"
    )
    return result


def levels(wanted: Sequence[str] | None) -> list[str]:
    """Instruction-set levels to climb, the simplest first."""
    from umx_np._kernels import cpu

    return [name for name, runs in cpu.levels().items() if runs and (not wanted or name in wanted)]


def rounded(x: np.ndarray) -> np.ndarray:
    """Float32 numbers rounded to bfloat16, in float64: what oracles of ``precision="fast"`` get."""
    from umx_np._kernels import cpu

    return (cpu.round_to_bf16(x).astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def thread_counts(threads: int) -> list[int]:
    """One thread, and as many as were asked for."""
    return sorted({1, threads})


def fastest(runs: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each of some functions, timed in turn."""
    cases = [Case(name, run) for name, run in runs.items()]
    return {name: timing.median for name, timing in interleave(cases, repeats, pause=0.02).items()}


def best_of(runs: dict[str, Callable[[], object]], repeats: int) -> float:
    """Least seconds that any of some functions took: for ceilings."""
    cases = [Case(name, run) for name, run in runs.items()]
    return min(timing.low for timing in interleave(cases, repeats, pause=0.02).values())


def read_bandwidth(nb_bytes: int, threads: int, repeats: int) -> float:
    """GB/s at which arrays of some size, one a thread, are read again and again.

    The best of NumPy's largest value, inner product of two halves, and product with a vector. All
    walk along a view that shows the same memory many times, so that the calls cost nothing.

    Parameters
    ----------
    nb_bytes : int
        Size of each array.
    threads : int
        Threads that read at the same time.
    repeats : int
        Timed rounds.
    """
    rows = max(4, (64 << 20) // nb_bytes)
    columns = nb_bytes // 4
    half, height = columns // 2, columns // 256
    show_again = np.lib.stride_tricks.as_strided

    def readers(array: np.ndarray) -> dict[str, Callable[[], object]]:
        whole = show_again(array, (rows, columns), (0, 4))
        halves = [show_again(part, (rows, half), (0, 4)) for part in (array, array[half:])]
        matrices = show_again(array, (rows, height, 256), (0, 1024, 4))
        vector = np.ones(256, np.float32)
        return {
            "largest": lambda: whole.max(axis=1),
            "product of halves": lambda: np.vecdot(*halves),
            "product with a vector": lambda: np.matmul(matrices, vector),
        }

    rng = np.random.default_rng(0)
    each = [readers(rng.random(columns, np.float32)) for _ in range(threads)]
    with ThreadPoolExecutor(threads) as pool, limited(1):

        def together(name: str) -> list:
            return list(pool.map(lambda mine: mine[name](), each))

        runs = {name: lambda name=name: together(name) for name in each[0]}
        seconds = best_of(runs, repeats)
    return threads * rows * nb_bytes / seconds / 1e9


def copy_bandwidth(nb_bytes: int, threads: int, repeats: int) -> float:
    """GB/s, read and written together, at which some threads copy memory.

    Parameters
    ----------
    nb_bytes : int
        Of the source; larger than the caches.
    threads : int
        Each copies a part.
    repeats : int
        Timed rounds.
    """
    source = np.ones(nb_bytes // 4, np.float32)
    target = np.zeros_like(source)
    parts = np.array_split(np.arange(len(source)), threads)
    bounds = [(part[0], part[-1] + 1) for part in parts]

    def copy(span: tuple[int, int]) -> None:
        np.copyto(target[slice(*span)], source[slice(*span)])

    with ThreadPoolExecutor(threads) as pool:
        seconds = best_of({"copy": lambda: list(pool.map(copy, bounds))}, repeats)
    return 2 * nb_bytes / seconds / 1e9
