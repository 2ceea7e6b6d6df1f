"""Whole programs, measured from outside."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .agreement import BenchmarkError

_LAUNCHER = Path(__file__).with_name("launcher.py")


@dataclass(frozen=True)
class Measured:
    """Cost of one run of a program.

    Attributes
    ----------
    seconds : float
        Wall-clock time from start to exit.
    peak_bytes : int
        Largest resident set.
    """

    seconds: float
    peak_bytes: int


def measure(command: Sequence[str | Path], environment: Mapping[str, str]) -> Measured:
    """Run a program to its end in a process of its own.

    Parameters
    ----------
    command : sequence of str or Path
        Absolute path of the program and its arguments.
    environment : mapping of str to str
        Its environment variables.

    Returns
    -------
    Measured

    Raises
    ------
    BenchmarkError
        If the program fails; the message ends with what it printed last.
    """
    with tempfile.TemporaryDirectory() as folder:
        result, log = Path(folder, "result"), Path(folder, "log")
        launch = [sys.executable, "-I", "-S", str(_LAUNCHER), str(result), *map(str, command)]
        with open(log, "wb") as output:
            subprocess.run(launch, env=dict(environment), stdout=output, stderr=output, check=False)
        printed = log.read_text(encoding="utf-8", errors="replace").strip()
        if not result.exists():
            raise BenchmarkError(f"{command[0]} could not be started: {printed[-2000:]}")
        status, seconds, peak = result.read_text(encoding="ascii").split()
    if int(status):
        shown = " ".join(Path(str(part)).name for part in command)
        raise BenchmarkError(f"{shown}: exit status {status}\n{printed[-2000:]}")
    return Measured(float(seconds), int(peak))
