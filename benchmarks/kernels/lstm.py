"""The recurrent scan: time a step and the rate at which it reads its weights, on every level.

Each thread runs a scan of its own, as the two directions of a layer do. The ceiling is the rate at
which NumPy reads arrays of the same size, on as many threads. ``bfloat16`` is what
``precision="fast"`` uses: half the bytes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2]))  # to run this as a file, too

from benchmarks.harness import results
from benchmarks.harness.agreement import require
from benchmarks.kernels import ladder

# Errors of single precision and of the polynomials in the gates go round in the recurrence.
_AT_LEAST_DB = 90.0
_CHECKED_FRAMES = 100


def options() -> argparse.Namespace:
    """Command line."""
    parser = ladder.parser(__doc__)
    parser.add_argument("--frames", type=results.positive, default=1292, help="(default: 1292)")
    parser.add_argument(
        "--hidden", type=results.positive, nargs="+", default=[128, 256, 512], help="units"
    )
    return parser.parse_args()


class Scan:
    """One direction of one layer with random weights."""

    def __init__(self, level: str, bf16: bool, hidden: int, nb_frames: int, seed: int) -> None:
        from umx_np._kernels import cpu

        rng = np.random.default_rng(seed)
        bound = 2 / np.sqrt(hidden)
        self.kernels = cpu.Kernels(level)
        self.weight = rng.uniform(-bound, bound, (4 * hidden, hidden)).astype(np.float32)
        self.gates = rng.standard_normal((nb_frames, 4 * hidden), dtype=np.float32)
        self.packed_weight = self.kernels.pack_recurrent(self.weight, bf16=bf16)
        self.exact_weight = ladder.rounded(self.weight) if bf16 else self.weight.astype(np.float64)
        self.packed_gates = np.ascontiguousarray(self.kernels.pack_gates(self.gates.T, hidden).T)
        padded = self.kernels.padded_size(hidden)
        self.state = np.zeros((2, padded), np.float32)
        self.out = np.empty((nb_frames, hidden), np.float32)
        self.reverse = seed % 2 == 1

    def run(self) -> None:
        """Compute all frames with the compiled kernel."""
        self.state[...] = 0.0
        self.kernels.lstm_scan(
            self.packed_gates, self.packed_weight, *self.state, self.out, reverse=self.reverse
        )

    def expected(self, nb_frames: int) -> np.ndarray:
        """Return the frames that come first in time, from the loop in NumPy, in float64."""
        from umx_np.layers.lstm import lstm_scan

        part = slice(-nb_frames, None) if self.reverse else slice(nb_frames)
        hidden = self.weight.shape[1]
        h, c = np.zeros((2, hidden))
        gates = self.gates[part].astype(np.float64)
        return lstm_scan(gates, self.exact_weight, h, c, reverse=self.reverse)


def main() -> None:
    """Measure the ceilings, then climb."""
    args = options()
    from umx_np.devices import get_backend

    report = results.Report(
        "kernel_lstm",
        args.threads,
        {"nb_frames": args.frames, "hidden": args.hidden, "repeats": args.repeats},
    )
    names = ladder.levels(args.levels)
    checked = min(_CHECKED_FRAMES, args.frames)
    variants = {level: (level, False) for level in names}
    variants |= {f"{level}, bfloat16": (level, True) for level in names}
    for threads in ladder.thread_counts(args.threads):
        ops = get_backend("cpu", threads)
        for hidden in args.hidden:
            runs: dict[str, Callable[[], object]] = {}
            ceilings = {
                bf16: ladder.read_bandwidth(
                    4 * hidden * hidden * (2 if bf16 else 4), threads, args.repeats
                )
                for bf16 in (False, True)
            }
            for name, (level, bf16) in variants.items():
                scans = [Scan(level, bf16, hidden, args.frames, seed) for seed in range(threads)]
                runs[name] = lambda ops=ops, scans=scans: ops.map(Scan.run, scans)
                runs[name]()
                for scan in scans:
                    actual = scan.out[-checked:] if scan.reverse else scan.out[:checked]
                    what = f"{name}, {hidden} units, {threads} threads, against NumPy in float64"
                    expected = scan.expected(checked)
                    found = require(what, expected, actual, at_least_db=_AT_LEAST_DB)
                    report.agreements.append(found)
                    # The oracle is too slow for all frames; a NaN is found anywhere.
                    require(what, scan.out, scan.out, at_least_db=_AT_LEAST_DB)
            for name, seconds in ladder.fastest(runs, args.repeats).items():
                bf16 = variants[name][1]
                step = seconds / args.frames
                nb_bytes = 4 * hidden * hidden * (2 if bf16 else 4)
                report.add_rung(
                    f"step of {hidden} units" + (f", {threads} scans" if threads > 1 else ""),
                    name,
                    threads,
                    1e6 * step,
                    time_unit="us",
                    rate=threads * nb_bytes / step / 1e9,
                    unit="GB/s",
                    ceiling=ceilings[bf16],
                    chosen=name == report.environment["umx_np"]["level"],
                )
    report.finish(args.json)


if __name__ == "__main__":
    raise SystemExit(results.run(main))
