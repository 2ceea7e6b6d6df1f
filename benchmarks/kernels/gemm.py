"""Matrix products of the networks: our kernel on every level, NumPy's BLAS and torch.

The frames of 30 s go through each layer in blocks, divided among the threads, as in a separation.
The ceiling is the best rate that any of the three reaches on large square matrices in single
precision; bfloat16 products may exceed it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2]))  # to run this as a file, too

from benchmarks.harness import results, upstream
from benchmarks.harness.agreement import require
from benchmarks.harness.threads import limited
from benchmarks.kernels import ladder

# Sums of up to 2974 products in single precision.
_AT_LEAST_DB = 100.0


def options() -> argparse.Namespace:
    """Command line."""
    parser = ladder.parser(__doc__)
    parser.add_argument("--model", choices=("umxhq", "umxl"), default="umxhq")
    parser.add_argument("--frames", type=results.positive, default=1292, help="(default: 1292)")
    parser.add_argument(
        "--square", type=int, nargs="+", default=[1024, 2048], help="sizes for the ceiling"
    )
    return parser.parse_args()


def shapes(model: str) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each layer."""
    from umx_np.testing.random_models import random_bundle

    config = random_bundle(model, targets=["vocals"]).targets["vocals"].config
    hidden, channels = config.hidden_size, config.nb_channels
    return {
        "fc1": (config.nb_input_bins * channels, hidden),
        "W_ih, one direction": (hidden, 4 * config.lstm_hidden_size),
        "fc2": (2 * hidden, hidden),
        "fc3": (hidden, config.nb_bins * channels),
    }


def kernel_runner(
    level: str, bf16: bool, threads: int, a: np.ndarray, weight: np.ndarray, out: np.ndarray
) -> Callable[[], object]:
    """Our product on some threads, with the weights packed beforehand."""
    from umx_np._kernels import cpu
    from umx_np.devices import get_backend
    from umx_np.engines.bottleneck import BLOCK_FRAMES

    kernels, ops = cpu.Kernels(level), get_backend("cpu", threads)
    packed = kernels.pack_linear(weight, bf16=bf16)
    starts = range(0, len(a), BLOCK_FRAMES)

    def block(start: int) -> None:
        rows = slice(start, start + BLOCK_FRAMES)
        kernels.gemm(a[rows], packed, out[rows])

    return lambda: ops.map(block, starts)


def products(
    names: list[str], threads: int, m: int, k: int, n: int
) -> tuple[dict[str, Callable[[], object]], list[dict]]:
    """Check all variants of one product, and return them as functions to time."""
    import torch

    from umx_np._kernels import cpu

    rng = np.random.default_rng(0)
    a = rng.standard_normal((m, k), dtype=np.float32)
    weight = rng.standard_normal((n, k), dtype=np.float32)
    rows = np.unique(np.linspace(0, m - 1, 64).astype(int))
    expected = a[rows].astype(np.float64) @ weight.T.astype(np.float64)
    expected_fast = ladder.rounded(a[rows]) @ ladder.rounded(weight).T
    out = np.zeros((m, n), np.float32)
    tensors = torch.from_numpy(a), torch.from_numpy(weight)
    target = torch.empty(m, n)
    runs: dict[str, Callable[[], object]] = {
        name: kernel_runner(name, False, threads, a, weight, out) for name in names
    }
    fast = {
        f"{name}, bfloat16": kernel_runner(name, True, threads, a, weight, out)
        for name in names
        if cpu.Kernels(name).has_bf16_gemm
    }
    runs |= fast
    runs["numpy"] = lambda: np.matmul(a, weight.T, out=out)
    runs["torch"] = lambda: torch.mm(tensors[0], tensors[1].T, out=target)
    found = []
    for name, run in runs.items():
        out[...] = np.nan
        run()
        actual = (target.numpy() if name == "torch" else out)[rows]
        what = f"{name}, {m} x {k} x {n}, {threads} threads, against float64"
        oracle = expected_fast if name in fast else expected
        found.append(require(what, oracle, actual, at_least_db=_AT_LEAST_DB))
    return runs, found


def main() -> None:
    """Measure the ceiling, then climb."""
    args = options()
    upstream.load()
    report = results.Report(
        "kernel_gemm",
        args.threads,
        {
            "model": args.model,
            "nb_frames": args.frames,
            "square": args.square,
            "repeats": args.repeats,
        },
    )
    names = ladder.levels(args.levels)
    for threads in ladder.thread_counts(args.threads):
        with limited(threads):
            ceiling = 0.0
            for size in args.square:
                runs, found = products(names[-1:], threads, size, size, size)
                runs = {name: run for name, run in runs.items() if "bfloat16" not in name}
                report.agreements += found
                seconds = ladder.best_of(runs, max(2, args.repeats // 3))
                ceiling = max(ceiling, 2 * size**3 / seconds / 1e9)
            report.details[f"ceiling_gflops_{threads}_threads"] = ceiling
            for layer, (k, n) in shapes(args.model).items():
                runs, found = products(names, threads, args.frames, k, n)
                report.agreements += found
                for variant, seconds in ladder.fastest(runs, args.repeats).items():
                    report.add_rung(
                        f"{layer} {k} → {n}",
                        variant,
                        threads,
                        1e3 * seconds,
                        rate=2 * args.frames * k * n / seconds / 1e9,
                        unit="GFLOP/s",
                        ceiling=ceiling,
                        chosen=variant == report.environment["umx_np"]["level"],
                    )
    report.finish(args.json)


if __name__ == "__main__":
    raise SystemExit(results.run(main))
