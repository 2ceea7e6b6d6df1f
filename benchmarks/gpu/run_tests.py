"""The section ``tests``: those of the project's tests that need a card."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from functools import partial

from benchmarks.harness.threads import ROOT

from .context import Context
from .record import Case, Recorder, Skip

_SECONDS = 110.0
_SHOWN = 3000


def cases(context: Context) -> list[Case]:
    """All of them in one run of pytest."""
    return [Case("pytest -m gpu", partial(_run, context), _SECONDS + 10.0)]


def _run(context: Context, recorder: Recorder) -> None:
    if importlib.util.find_spec("pytest") is None:
        raise Skip("python -m pip install -e '.[test]'")
    if context.options.device:
        raise Skip("the tests use card 0")
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider"]
    command += ["tests/cuda", "--tb=short"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"more than {_SECONDS:g} s") from error
    printed = done.stdout + done.stderr
    counts = {
        word: int(number)
        for number, word in re.findall(r"(\d+) (passed|failed|skipped|errors?)\b", printed[-500:])
    }
    recorder.detail("counts", counts)
    recorder.detail("failed", re.findall(r"^(?:FAILED|ERROR) (\S+)", printed, re.MULTILINE))
    if done.returncode and not counts:
        raise RuntimeError(printed[-_SHOWN:])
    bad = counts.get("failed", 0) + counts.get("error", 0) + counts.get("errors", 0)
    if bad:
        print(printed[-_SHOWN:])
    recorder.at_most("tests that failed", bad, 0.0, "tests")
