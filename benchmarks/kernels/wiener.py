"""The fused Wiener filter and its gradient on one window of 300 frames, on every level.

GB/s counts the least that must move: mixture and magnitudes in and estimates out once, 112 bytes a
bin for four sources in stereo; for the gradient of the magnitudes those of the estimates come in,
and it goes out, 144 bytes. The ceiling is the rate of a plain copy.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[2]))  # to run this as a file, too

from benchmarks.compare.wiener import window
from benchmarks.harness import results
from benchmarks.harness.agreement import require
from benchmarks.kernels import ladder

# The kernel computes in double precision and stores single precision.
_AT_LEAST_DB = 120.0
_COPY_BYTES = 96 << 20


def options() -> argparse.Namespace:
    """Command line."""
    parser = ladder.parser(__doc__)
    parser.add_argument("--frames", type=results.positive, default=300, help="(default: 300)")
    parser.add_argument("--niter", type=int, nargs="+", default=[0, 1], help="(default: 0 1)")
    parser.add_argument(
        "--checked-bins", type=results.positive, default=256, help="compared with the oracle"
    )
    return parser.parse_args()


def main() -> None:
    """Measure the ceilings, then climb."""
    args = options()
    from umx_np._kernels import cpu
    from umx_np.backends.contracts import FilterInput, WienerOptions, scale_of
    from umx_np.backends.cpu import _WIENER_BINS
    from umx_np.backends.reference import ReferenceFilter
    from umx_np.devices import get_backend

    mix, mags, description = window(args.frames)
    nb_bins = mix.shape[2]
    y = np.empty((len(mags), *mix.shape), np.complex64)
    moved = mix.nbytes + mags.nbytes + y.nbytes
    report = results.Report(
        "kernel_wiener",
        args.threads,
        {
            "nb_frames": args.frames,
            "niter": args.niter,
            "bytes_per_bin": moved / (args.frames * nb_bins),
            "repeats": args.repeats,
            "audio": description,
        },
    )
    plain, max_abs = WienerOptions(), scale_of(float(np.abs(mix).max()))
    common = {"max_abs": max_abs, **asdict(plain)}
    checked = slice(0, args.checked_bins)
    # The oracle returns the precision that it is given.
    oracle_mix = mix[..., checked].astype(np.complex128)
    expected = {
        niter: ReferenceFilter(plain).window(
            FilterInput(oracle_mix, mags[..., checked], max_abs), niter
        )
        for niter in args.niter
    }
    d_y, d_mags, expected_gradient = gradient_case(mix, mags, checked)
    names = ladder.levels(args.levels)
    for threads in ladder.thread_counts(args.threads):
        ops = get_backend("cpu", threads)
        ceiling = ladder.copy_bandwidth(_COPY_BYTES, threads, args.repeats)
        report.details[f"copy_gb_per_s_{threads}_threads"] = ceiling
        for niter in args.niter:
            runs: dict[str, Callable[[], object]] = {}
            for level in names:
                kernels = cpu.Kernels(level)

                def some_bins(
                    start: int, kernels: cpu.Kernels = kernels, niter: int = niter
                ) -> None:
                    stop = min(start + _WIENER_BINS, nb_bins)
                    kernels.wiener(
                        mix, mags, y, bin_start=start, bin_stop=stop, iterations=niter, **common
                    )

                runs[level] = lambda ops=ops, one=some_bins: ops.map(
                    one, range(0, nb_bins, _WIENER_BINS)
                )
                y[...] = np.nan
                runs[level]()
                what = f"{level}, niter={niter}, {threads} threads, against NumPy in float64"
                found = require(what, expected[niter], y[..., checked], at_least_db=_AT_LEAST_DB)
                report.agreements.append(found)
                require(what, y, y, at_least_db=_AT_LEAST_DB)  # no NaN in the other bins
            for level, seconds in ladder.fastest(runs, args.repeats).items():
                report.add_rung(
                    f"window of {args.frames} frames, niter={niter}",
                    level,
                    threads,
                    1e3 * seconds,
                    rate=moved / seconds / 1e9,
                    unit="GB/s",
                    ceiling=ceiling,
                    chosen=level == report.environment["umx_np"]["level"],
                )
        runs = {}
        for level in names:
            kernels = cpu.Kernels(level)

            def gradient_of_bins(start: int, kernels: cpu.Kernels = kernels) -> None:
                window = {"bin_start": start, "bin_stop": min(start + _WIENER_BINS, nb_bins)}
                kernels.wiener_gradient(
                    mix, mags, d_y, d_mags, max_abs=max_abs, eps=plain.eps, **window
                )

            runs[level] = lambda ops=ops, one=gradient_of_bins: ops.map(
                one, range(0, nb_bins, _WIENER_BINS)
            )
            d_mags[...] = np.nan
            runs[level]()
            what = f"gradient, {level}, {threads} threads, against NumPy in float64"
            actual = d_mags[..., checked]
            report.agreements.append(
                require(what, expected_gradient, actual, at_least_db=_AT_LEAST_DB)
            )
            require(what, d_mags, d_mags, at_least_db=_AT_LEAST_DB)
        for level, seconds in ladder.fastest(runs, args.repeats).items():
            report.add_rung(
                f"gradient of a window of {args.frames} frames, niter=1",
                level,
                threads,
                1e3 * seconds,
                rate=(moved + d_mags.nbytes) / seconds / 1e9,
                unit="GB/s",
                ceiling=ceiling,
                chosen=level == report.environment["umx_np"]["level"],
            )
    report.finish(args.json)


def gradient_case(
    mix: np.ndarray, mags: np.ndarray, checked: slice
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradient of the estimates, room for that of the magnitudes, and what belongs there."""
    from umx_np.backends.contracts import scale_of
    from umx_np.dsp.gradients import wiener_backward

    rng = np.random.default_rng(0)
    parts = rng.standard_normal((2, len(mags), *mix.shape), np.float32)
    d_y = (parts[0] + 1j * parts[1]).astype(np.complex64)
    # The oracle wants frames first and computes in the precision that it is given. What divides the
    # mixture is its peak: with these bins alone it would be another one.
    factor = np.abs(mix[..., checked]).max() / scale_of(float(np.abs(mix).max()))
    expected, _ = wiener_backward(
        d_y[..., checked].transpose(2, 3, 1, 0).astype(np.complex128),
        mags[..., checked].transpose(1, 3, 2, 0).astype(np.float64),
        mix[..., checked].transpose(1, 2, 0).astype(np.complex128),
        scale_factor=max(float(factor), 1e-300),
    )
    return d_y, np.empty_like(mags), expected.transpose(3, 0, 2, 1)


if __name__ == "__main__":
    raise SystemExit(results.run(main))
