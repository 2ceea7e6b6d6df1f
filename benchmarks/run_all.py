"""Run all benchmarks with the published settings, then make the tables and the plot.

    python -m benchmarks.run_all

A benchmark that fails does not stop the others; the exit status is then 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path.append(str(Path(__file__).resolve().parents[1]))  # to run this as a file, too

from benchmarks import report
from benchmarks.harness.load import wait_until_idle
from benchmarks.harness.results import positive
from benchmarks.harness.threads import ROOT, child_environment

_CLIP = "--seconds 2 --repeats 1"
_FRAMES = "--frames 100 --repeats 1"


class Run(NamedTuple):
    """One result: its name, the module, what is measured, and published and trial settings."""

    name: str
    module: str
    what: str
    published: str
    trial: str


RUNS = [
    Run(
        "separate_umxhq_niter1", "compare.separate", "--model umxhq --niter 1", "--repeats 7", _CLIP
    ),
    Run(
        "separate_umxhq_niter0", "compare.separate", "--model umxhq --niter 0", "--repeats 7", _CLIP
    ),
    Run("separate_umxl_niter1", "compare.separate", "--model umxl --niter 1", "--repeats 5", _CLIP),
    Run(
        "separate_umxse_niter1", "compare.separate", "--model umxse --niter 1", "--repeats 9", _CLIP
    ),
    Run(
        "separate_umxhq_niter1_fast",
        "compare.separate",
        "--model umxhq --niter 1 --precision fast",
        "--repeats 7",
        _CLIP,
    ),
    Run(
        "separate_umxl_niter1_fast",
        "compare.separate",
        "--model umxl --niter 1 --precision fast",
        "--repeats 5",
        _CLIP,
    ),
    Run(
        "separate_umxhq_niter1_int8",
        "compare.separate",
        "--model umxhq --niter 1 --precision int8",
        "--repeats 7",
        _CLIP,
    ),
    Run(
        "separate_umxl_niter1_int8",
        "compare.separate",
        "--model umxl --niter 1 --precision int8",
        "--repeats 5",
        _CLIP,
    ),
    Run("network_umxhq", "compare.network", "--model umxhq", "--repeats 21", _CLIP),
    Run("network_umxl", "compare.network", "--model umxl", "--repeats 9", _CLIP),
    Run(
        "network_umxhq_fast",
        "compare.network",
        "--model umxhq --precision fast",
        "--repeats 21",
        _CLIP,
    ),
    Run(
        "network_umxhq_int8",
        "compare.network",
        "--model umxhq --precision int8",
        "--repeats 21",
        _CLIP,
    ),
    Run("train_step", "compare.train_step", "", "--repeats 9", "--batch-size 1 --repeats 1"),
    Run("wiener", "compare.wiener", "", "--repeats 15", "--frames 20 --repeats 1"),
    Run(
        "memory",
        "compare.memory",
        "--model umxhq",
        "--hour --max-memory 100",
        "--lengths 0.05 0.1 --peer-lengths 0.05 --max-memory 1",
    ),
    Run(
        "coldstart",
        "compare.coldstart",
        "--model umxhq",
        "--repeats 7 --import-repeats 21",
        f"{_CLIP} --import-repeats 1 --no-install",
    ),
    Run("kernel_gemm", "kernels.gemm", "", "--repeats 9", f"{_FRAMES} --square 256"),
    Run("kernel_lstm", "kernels.lstm", "", "--repeats 9", _FRAMES),
    Run("kernel_wiener", "kernels.wiener", "", "--repeats 15", "--frames 20 --repeats 1"),
    Run("kernel_stft", "kernels.stft", "", "--repeats 15", _CLIP),
]


def options(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=positive, default=2, help="(default: 2)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these results only")
    parser.add_argument("--outdir", type=Path, help="(default: benchmarks/results)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="see whether everything works, in a temporary folder; the numbers mean nothing",
    )
    parser.add_argument(
        "--idle-wait",
        type=float,
        default=120.0,
        metavar="SECONDS",
        help="wait at most so long, before each, for others to leave the machine (default: 120)",
    )
    parser.add_argument("--list", action="store_true", help="list the names and end")
    args = parser.parse_args(arguments)
    unknown = set(args.only or ()) - {run.name for run in RUNS}
    if unknown:
        parser.error(f"no result is named {', '.join(sorted(unknown))}; see --list")
    return args


def run_all(args: argparse.Namespace, outdir: Path) -> list[str]:
    """Run them one after the other; return the names of those that failed."""
    failed = []
    for name, module, what, published, trial in RUNS:
        if args.only and name not in args.only:
            continue
        chosen = f"{what} {trial if args.quick else published}".strip()
        command = [sys.executable, "-m", f"benchmarks.{module}", *chosen.split()]
        command += ["--threads", str(args.threads), "--json", str(outdir / f"{name}.json")]
        if not args.quick and not wait_until_idle(args.idle_wait):
            print("warning: others are using the machine", flush=True)
        print(f"\n== {name}: benchmarks.{module} {chosen}", flush=True)
        start = time.monotonic()
        environment = child_environment(args.threads)
        done = subprocess.run(command, env=environment, cwd=ROOT, check=False)
        print(f"-- {name}: {time.monotonic() - start:.0f} s", flush=True)
        if done.returncode:
            failed.append(name)
    return failed


def main(arguments: list[str] | None = None) -> int:
    """Run, report, and tell what failed."""
    args = options(arguments)
    if args.list:
        print("\n".join(run.name for run in RUNS))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        outdir = (args.outdir or (Path(temporary) if args.quick else report.RESULTS)).resolve()
        failed = run_all(args, outdir)
        if outdir == report.RESULTS:
            report.write()
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
