"""The section ``sanitize``: the checks with small sizes, under NVIDIA's compute-sanitizer."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from .context import Context
from .record import Case, Recorder, Skip

_TOOLS = ("memcheck", "racecheck")
_CHECKED = ("check_scans", "check_training", "check_operations", "waveforms")
_SECONDS = 75.0
_SHOWN = 3000


def cases(context: Context) -> list[Case]:
    """Each tool on each section of checks."""
    return [
        Case(f"{tool}, {name}", partial(_run, context, tool, name), _SECONDS + 20.0)
        for tool in _TOOLS
        for name in _CHECKED
    ]


def _run(context: Context, tool: str, name: str, recorder: Recorder) -> None:
    program = shutil.which("compute-sanitizer")
    if program is None:
        raise Skip("compute-sanitizer is not on the PATH; it comes with the CUDA toolkit")
    # Arrays of their own, not parts of a pool: what is written beside them is then seen.
    options = asdict(replace(context.options, small=True, torch=False, pool=False, patience=10.0))
    with tempfile.TemporaryDirectory() as folder:
        command = [program, "--tool", tool, "--print-limit", "20", "--error-exitcode", "99"]
        command += [sys.executable, "-m", "benchmarks.gpu.child", f"benchmarks.gpu.{name}"]
        command += [str(Path(folder, "record.json")), json.dumps({**options, "skip": []})]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{tool} took more than {_SECONDS:g} s") from error
    printed = done.stdout + done.stderr
    summary = re.findall(r"^=+ (.*SUMMARY.*)$", printed, re.MULTILINE)
    recorder.detail(f"{tool}, {name}", summary or printed[-_SHOWN:])
    found = re.search(r"SUMMARY: (\d+) (?:errors?|hazards?)", "\n".join(summary))
    if found is None:
        raise RuntimeError(f"{tool} printed no summary:\n{printed[-_SHOWN:]}")
    if done.returncode or int(found[1]):
        print(printed[-_SHOWN:])
    recorder.at_most(f"{tool}, {name}", float(found[1]), 0.0, "errors")
