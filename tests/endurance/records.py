"""Figures of the long runs, kept beside the tests that found them.

As a script it writes them into docs/promises.md.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")
DOCUMENT = Path(__file__).parents[2] / "docs" / "promises.md"
MARKS = ("<!-- results:begin -->\n", "<!-- results:end -->\n")

# What is run by hand; other runs may write their results as well.
RUNS = (
    *(
        f"{number} of {name}"
        for number in ("SIGKILL", "SIGINT", "SIGTERM")
        for name in ("separate", "convert", "download", "train", "evaluate")
    ),
    "soak",
)


def scaled(count: float) -> int:
    """How much of a long run is wanted: UMX_NP_LONG_SCALE times what it says, and at least one."""
    return max(1, round(count * float(os.environ.get("UMX_NP_LONG_SCALE", "1"))))


def read_results() -> dict[str, Any]:
    """What was found, by the name of the run."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))


def commit() -> str:
    """The version of the source, marked if it is changed. Empty outside of a repository."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        done = subprocess.run(
            command, cwd=RESULTS.parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()


def record(name: str, found: str, *, seconds: float) -> None:
    """Keep what a run has found. It is a run that has passed: one that fails keeps nothing."""
    if os.environ.get("UMX_NP_LONG_SCALE", "1") != "1":
        return  # a part of the run is no proof of the whole
    results = read_results()
    results[name] = {
        "found": found,
        "seconds": round(seconds),
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
    }
    text = json.dumps(dict(sorted(results.items())), indent=1) + "\n"
    RESULTS.write_text(text, encoding="utf-8")


def table() -> str:
    """What is known of every run, for the document."""
    results = read_results()
    lines = ["| run | found | took | when, commit, machine |", "|---|---|---|---|"]
    for name in [*RUNS, *sorted(set(results) - {*RUNS})]:
        if name not in results:
            lines.append(f"| {name} | not run yet | | |")
            continue
        run = results[name]
        lines.append(
            f"| {name} | {run['found']} | {run['seconds']:,} s | {run['date']}, {run['commit']}, "
            f"{run['machine']} |"
        )
    return "\n".join(lines) + "\n"


def with_table(text: str) -> str:
    """The document with the table of now."""
    begin, end = MARKS
    head, _, rest = text.partition(begin)
    return head + begin + table() + end + rest.partition(end)[2]


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
