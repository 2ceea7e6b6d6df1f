"""Figures of the long runs, kept beside the tests that found them."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results.json")


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
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "commit": commit(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}",
    }
    text = json.dumps(dict(sorted(results.items())), indent=1) + "\n"
    RESULTS.write_text(text, encoding="utf-8")
