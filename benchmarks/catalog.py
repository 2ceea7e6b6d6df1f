"""What a catalogue costs beside the songs: plan, ledger and scheduler, with songs of no work.

    python -m benchmarks.catalog --items 100000

Makes so many empty files, plans them with the work "nothing", runs the plan with workers of Dask
on this machine, interrupts that halfway by SIGKILL, and goes on.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))  # to run this as a file, too

from benchmarks.harness import results
from benchmarks.harness.environment import environment
from umx_np.catalog import Ledger, make_plan, read_plan, run

_FOLDER_FILES = 1000


def options() -> argparse.Namespace:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--items", type=results.positive, default=100_000)
    parser.add_argument("--workers", type=results.positive, default=2)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    return parser.parse_args()


def main() -> None:
    """Measure, and print a line for each figure."""
    args = options()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(args.items):
            place = folder / "songs" / str(number // _FOLDER_FILES)
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}.wav").touch()
        figures = measured(folder, args.items, args.workers)
    for what, value in figures.items():
        print(f"{what}: {value:,.1f}")
    if args.json is not None:
        document = {"benchmark": "catalog", "items": args.items, "workers": args.workers}
        document |= {"environment": environment(), "figures": figures}
        args.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def measured(folder: Path, nb_items: int, workers: int) -> dict[str, float]:
    """Seconds, items a second, and megabytes."""
    place = str(folder / "plan")
    begin = time.monotonic()
    plan = make_plan(str(folder / "songs"), str(folder / "out"), place, work="nothing")
    figures = {"seconds to plan": time.monotonic() - begin}

    # The first half in a process that is killed, with the scheduler in it.
    command = [sys.executable, "-m", "umx_np", "catalog", "run", "-q", place]
    child = subprocess.Popen([*command, "--workers", str(workers)], start_new_session=True)
    done = folder / "plan" / "done"
    while not done.is_dir() or len(os.listdir(done)) < nb_items // 2:
        if child.poll() is not None:
            raise SystemExit(f"the run ended with {child.returncode}")
        time.sleep(0.5)
    peak = _peak(child.pid)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    figures["megabytes of client and scheduler"] = peak

    plan = read_plan(place)
    begin = time.monotonic()
    left = len(Ledger(plan).left(plan.items()))
    figures["seconds to see what is left"] = time.monotonic() - begin
    begin = time.monotonic()
    status = run(plan, workers=workers)
    seconds = time.monotonic() - begin
    if (status.done, status.failed) != (nb_items, 0):
        raise SystemExit(f"{status.done} of {nb_items} are done")
    figures["items a second"] = left / seconds
    figures["megabytes at the end"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return figures


def _peak(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1.024e-3


if __name__ == "__main__":
    main()
