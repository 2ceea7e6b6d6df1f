"""Check and time everything that runs on an NVIDIA card, unattended, in ten minutes.

    python -m benchmarks.gpu.run

Each section runs in processes of its own with a time limit, so a kernel that hangs costs its own
time only. Results are written after every section. The last output is the name of the JSON file
and a short table. The exit status is 1 if anything failed.
"""

from __future__ import annotations

import argparse
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))  # to run this as a file, too

from benchmarks.gpu import summary
from benchmarks.gpu.plan import SECTIONS, Section
from benchmarks.gpu.record import BAD, NOT_RUN, finite
from benchmarks.gpu.supervise import Outcome, run_section
from benchmarks.harness.results import SCHEMA, write_json
from benchmarks.harness.threads import ROOT

# Seconds kept back for killing the last section and writing the results.
_RESERVE = 12.0
# Seconds for compiling the package, outside of the budget.
_BUILD_LIMIT = 600.0
INTERRUPTED = 130

Runner = Callable[[str, Mapping[str, Any], float, Mapping[str, str]], Outcome]


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("gpu-benchmark.json"),
        metavar="FILE",
        help="results (default: %(default)s)",
    )
    parser.add_argument(
        "--minutes", type=float, default=9.0, help="time for all of it (default: %(default)g)"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these sections only; see --list")
    parser.add_argument("--device", type=int, default=0, help="index of the card (default: 0)")
    parser.add_argument("--seed", type=int, help="of the random inputs (default: another each run)")
    parser.add_argument("--skip-torch", action="store_true", help="do not compare with PyTorch")
    parser.add_argument(
        "--sanitize", action="store_true", help="also run small kernels under compute-sanitizer"
    )
    parser.add_argument(
        "--build",
        action="store_true",
        help="first compile the kernels for the processor, in place, if they are missing",
    )
    parser.add_argument("--list", action="store_true", help="list the sections and end")
    args = parser.parse_args(arguments)
    unknown = set(args.only or ()) - {section.name for section in SECTIONS}
    if unknown:
        parser.error(f"no section is named {', '.join(sorted(unknown))}; see --list")
    if args.minutes <= 0:
        parser.error(f"--minutes {args.minutes:g} must be more than 0")
    if args.device < 0:
        parser.error(f"--device {args.device} must not be negative")
    return args


def child_environment(cache: str) -> dict[str, str]:
    """Environment of the sections: this source, and a cache of kernels that begins empty.

    Parameters
    ----------
    cache : str
        Folder for compiled kernels, so that compiling is timed, and done once for all sections.
    """
    environment = dict(os.environ)
    paths = [str(ROOT), *environment.get("PYTHONPATH", "").split(os.pathsep)]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(path for path in paths if path))
    environment["CUPY_CACHE_DIR"] = cache
    environment["PYTHONUNBUFFERED"] = "1"
    return environment


class Run:
    """One run: a budget, the sections that fit into it, and one growing document.

    Parameters
    ----------
    args : Namespace
        From `options`.
    sections : sequence of Section
        In the order of their worth.
    runner : callable
        `supervise.run_section`, or a stand-in of the tests.
    clock : callable
        Seconds; replaced in tests.
    """

    def __init__(
        self,
        args: argparse.Namespace,
        sections: Sequence[Section] = SECTIONS,
        runner: Runner = run_section,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._args, self._sections = args, sections
        self._runner, self._clock = runner, clock
        self._end = clock() + 60.0 * args.minutes
        seed = secrets.randbits(32) if args.seed is None else args.seed
        self._options = {"device": args.device, "seed": seed, "torch": not args.skip_torch}
        self.document: dict[str, Any] = {
            "schema": SCHEMA,
            "benchmark": "gpu",
            "settings": {**self._options, "minutes": args.minutes, "only": args.only},
            "environment": {},
            "sections": [],
            "checks": [],
            "agreements": [],
            "rows": [],
            "ladder": [],
            "timings": {},
            "details": {},
            "ratio": None,
            "share": None,
        }

    def go(self, environment: Mapping[str, str]) -> int:
        """Run the sections; return the exit status."""
        self._write()
        for section in self._sections:
            if not self._is_wanted(section):
                continue
            left = self._end - self._clock() - _RESERVE
            if left < section.least:
                self._add(section, Outcome(NOT_RUN, "no time left"))
                continue
            print(f"== {section.name}: {section.what}", flush=True)
            outcome = self._runner(
                section.module, self._options, min(section.limit, left), environment
            )
            self._add(section, outcome)
            print(f"-- {summary.section_line(self.document['sections'][-1])}", flush=True)
            if section.name == "environment" and "card" not in self.document["environment"]:
                # Without a card every other section would say the same.
                break
        return 1 if any(row["status"] in BAD for row in self.document["sections"]) else 0

    def _is_wanted(self, section: Section) -> bool:
        if self._args.only:
            # What the numbers were taken on belongs to every result.
            return section.name in (*self._args.only, "environment")
        return not section.extra or getattr(self._args, section.name, False)

    def _add(self, section: Section, outcome: Outcome) -> None:
        found = outcome.found
        self.document["sections"].append(
            {
                "name": section.name,
                "what": section.what,
                "status": outcome.status,
                "reason": outcome.reason,
                "seconds": outcome.seconds,
                "cases": found["cases"],
                "notes": found["notes"],
                "log": outcome.log,
            }
        )
        self.document["environment"].update(found["environment"])
        self.document["checks"] += [{"section": section.name, **c} for c in found["checks"]]
        for name in ("rows", "ladder"):
            self.document[name] += found[name]
        self.document["timings"].update(found["timings"])
        if found["details"]:
            self.document["details"][section.name] = found["details"]
        self.document["agreements"] = summary.agreements(self.document["checks"])
        ratios = [row["ratio"] for row in self.document["rows"] if row["headline"] and row["ratio"]]
        self.document["ratio"] = min(ratios, default=None)
        shares = [r["share"] for r in self.document["ladder"] if r["chosen"] and r["share"]]
        self.document["share"] = min(shares, default=None)
        self._write()

    def _write(self) -> None:
        write_json(self._args.out, finite(self.document))


def build() -> str | None:
    """Compile the kernels for the processor in place, if they are not there; return why not."""
    missing = subprocess.run(
        [sys.executable, "-c", "import umx_np._kernels.cpu"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if not missing.returncode:
        return None
    print("== build: python setup.py build_ext --inplace", flush=True)
    try:
        done = subprocess.run(
            [sys.executable, "setup.py", "build_ext", "--inplace"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=_BUILD_LIMIT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"it took more than {_BUILD_LIMIT:g} s"
    return (done.stdout + done.stderr)[-1500:] if done.returncode else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all that is asked for; print the table last."""
    args = options(arguments)
    if args.list:
        width = max(len(section.name) for section in SECTIONS)
        for section in SECTIONS:
            extra = f" (only with --{section.name})" if section.extra else ""
            print(f"{section.name:{width}}  {section.what}{extra}")
        return 0
    if args.build and (problem := build()):
        print(f"the kernels for the processor cannot be compiled: {problem}", file=sys.stderr)
    args.out = args.out.resolve()
    with ExitStack() as stack:
        cache = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="umx_np-gpu-", ignore_cleanup_errors=True)
        )
        # Whoever ends this process, as `timeout` does, also wants the section ended that runs.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        stack.callback(signal.signal, signal.SIGTERM, before)
        run = Run(args)
        try:
            status = run.go(child_environment(cache))
        except KeyboardInterrupt:
            print("interrupted; what is finished is kept", file=sys.stderr)
            status = INTERRUPTED
    print(f"\nresults: {args.out}\n")
    print(summary.table(run.document))
    return status


if __name__ == "__main__":
    raise SystemExit(main())
