"""Run a section in processes that may hang or die, and bring home what they found.

A kernel whose blocks wait for each other can hang for ever, and an illegal access ends all work of
a process. A case that does this costs no more than its own time: the cases that are left go on in
a fresh process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.harness.threads import ROOT

from .child import BROKEN
from .record import BAD, DIED, ERROR, NOT_RUN, PASSED, SKIPPED, TIMEOUT, without_paths

# Seconds that a killed process is waited for: the driver has to stop what runs on the card.
_GRACE = 10.0
_SHOWN_LOG = 1500
_LISTS = ("cases", "checks", "notes", "rows", "ladder")
_MAPPINGS = ("environment", "timings", "details")


@dataclass
class Outcome:
    """How a section went.

    Attributes
    ----------
    status : str
        The worst of its cases.
    reason : str
        Why, unless it passed.
    seconds : float
        Wall-clock time of all its processes.
    log : str
        The end of what the last of them printed.
    found : dict
        Lists and mappings as in `record.Recorder.as_dict`, of all processes together.
    """

    status: str = PASSED
    reason: str = ""
    seconds: float = 0.0
    log: str = ""
    found: dict[str, Any] = field(
        default_factory=lambda: {
            **{name: [] for name in _LISTS},
            **{name: {} for name in _MAPPINGS},
        }
    )


def run_section(
    module: str,
    options: Mapping[str, Any],
    limit: float,
    environment: Mapping[str, str],
) -> Outcome:
    """Run all cases of a section.

    Parameters
    ----------
    module : str
        Module with a function ``cases(context)``.
    options : mapping
        Fields of `context.Options`.
    limit : float
        Seconds for the whole section.
    environment : mapping of str to str
        Environment variables of the processes.

    Returns
    -------
    Outcome
    """
    outcome = Outcome()
    begin = time.monotonic()
    planned: list[str] = []
    while True:
        left = limit - (time.monotonic() - begin)
        done = [case["name"] for case in outcome.found["cases"]]
        if left <= 0:
            break
        record, code, log = _run_process(module, {**options, "skip": done}, left, environment)
        planned, outcome.log = record.get("planned") or planned, _tail(log)
        for name in _LISTS:
            outcome.found[name] += record.get(name, [])
        for name in _MAPPINGS:
            outcome.found[name].update(record.get(name, {}))
        lost = record.get("running")
        if lost is not None:
            outcome.found["cases"].append(_lost_case(lost, code, log))
        elif code not in (0, BROKEN):
            # It died before the first case or after the last one.
            outcome.status = _how(code)
            outcome.reason = f"{last_line(log)}\n{_tail(log)}"
            break
        if code == 0 or not (set(planned) - {case["name"] for case in outcome.found["cases"]}):
            break
    seen = {case["name"] for case in outcome.found["cases"]}
    for name in planned:
        if name not in seen:
            outcome.found["cases"].append(
                {"name": name, "status": NOT_RUN, "reason": "no time left", "seconds": 0.0}
            )
    outcome.seconds = round(time.monotonic() - begin, 1)
    _judge(outcome)
    return outcome


def _judge(outcome: Outcome) -> None:
    """Set status and reason from the cases, unless the section itself went wrong."""
    if outcome.status != PASSED:
        return
    cases = outcome.found["cases"]
    bad = [case for case in cases if case["status"] in BAD]
    if bad:
        outcome.status = bad[0]["status"]
        outcome.reason = "; ".join(f"{case['name']}: {first_line(case['reason'])}" for case in bad)
    elif cases and all(case["status"] in (SKIPPED, NOT_RUN) for case in cases):
        outcome.status = cases[0]["status"]
        outcome.reason = cases[0]["reason"]
    elif any(case["status"] == NOT_RUN for case in cases):
        outcome.reason = "not all of it: " + ", ".join(
            case["name"] for case in cases if case["status"] == NOT_RUN
        )


def first_line(text: str) -> str:
    """The first line that is not empty: what is said in short, of a message of several lines."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")


def last_line(text: str) -> str:
    """The last line that is not empty: the message, of a traceback."""
    return first_line("\n".join(reversed(text.splitlines())))


def _run_process(
    module: str, options: Mapping[str, Any], limit: float, environment: Mapping[str, str]
) -> tuple[dict[str, Any], int | None, str]:
    """One process; return its record, its exit status (None if it was killed), what it printed."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        record, log = Path(folder, "record.json"), Path(folder, "log")
        command = [sys.executable, "-m", "benchmarks.gpu.child", module, str(record)]
        command.append(json.dumps(dict(options)))
        with open(log, "wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                # A group of its own, so that whatever it has started ends with it.
                start_new_session=True,
            )
            code: int | None = None
            try:
                code = process.wait(limit)
            except subprocess.TimeoutExpired:
                _kill(process)
            except BaseException:
                _kill(process)
                raise
        printed = log.read_text(encoding="utf-8", errors="replace")
        found = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
        return found, code, printed


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and its children, and wait for it, but not for ever."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (AttributeError, OSError):  # no groups on Windows; or it is gone
        process.kill()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        print(f"warning: process {process.pid} does not end, its kernel may still run", flush=True)


def _how(code: int | None) -> str:
    if code is None:
        return TIMEOUT
    return ERROR if code > 0 else DIED


def _lost_case(name: str, code: int | None, log: str) -> dict[str, Any]:
    """A case that its process did not survive."""
    # The watchdog of the child says so before it ends the process.
    hung = code is None or "Timeout (" in log
    status = TIMEOUT if hung else DIED
    why = "it did not end in time" if hung else f"its process ended with exit status {code}"
    return {"name": name, "status": status, "reason": f"{why}\n{_tail(log)}", "seconds": 0.0}


def _tail(log: str) -> str:
    return without_paths(log.strip()[-_SHOWN_LOG:])
