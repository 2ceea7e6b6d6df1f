"""Results of a section, in a file from the first number on: a process that dies loses none."""

from __future__ import annotations

import math
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.results import Report, write_json
from benchmarks.harness.threads import ROOT
from benchmarks.harness.timing import Timing

# Statuses of a case, and of a section. The first three are good ends.
PASSED, SKIPPED, NOT_RUN = "passed", "skipped", "not run"
FAILED, ERROR, TIMEOUT, DIED = "failed", "error", "timeout", "died"
BAD = (FAILED, ERROR, TIMEOUT, DIED)

_LONGEST_MESSAGE = 4000


class Skip(Exception):  # noqa: N818 - it is what happens, not an error
    """A case cannot be run here; the message says why."""


@dataclass(frozen=True)
class Case:
    """A part of a section that can hang or fail without taking the other parts with it.

    Attributes
    ----------
    name : str
        Unique within the section.
    run : callable
        Gets the `Recorder`.
    seconds : float
        Longest that it may take. Whoever is still running then hangs.
    """

    name: str
    run: Callable[[Recorder], None]
    seconds: float = 60.0


def relative_error(expected: np.ndarray, actual: np.ndarray) -> float:
    """Norm of the difference of two arrays over that of the expected one, in float64.

    Returns
    -------
    float
        Infinity if the shapes differ, if anything is not finite, or if silence was expected and
        something else came.
    """
    expected, actual = np.asarray(expected), np.asarray(actual)
    if expected.shape != actual.shape:
        return math.inf
    if not (np.isfinite(expected).all() and np.isfinite(actual).all()):
        return math.inf
    wide = np.complex128 if "c" in expected.dtype.kind + actual.dtype.kind else np.float64
    difference = float(np.linalg.norm((actual.astype(wide) - expected.astype(wide)).ravel()))
    size = float(np.linalg.norm(expected.astype(wide).ravel()))
    if difference == 0.0:
        return 0.0
    return difference / size if size > 0.0 else math.inf


class Recorder:
    """Collects the results of one section and writes them after every one.

    Parameters
    ----------
    path : Path or None
        The JSON file; None keeps everything in memory.

    Attributes
    ----------
    cases : list of dict
        ``name``, ``status``, ``reason`` and ``seconds`` of those that have ended.
    checks : list of dict
        ``case``, ``what``, ``value``, ``bound``, ``unit`` and ``passed``.
    notes : list of str
        From `note`.
    running : str or None
        The case that has begun and not ended.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        # Tables in the form that the other benchmarks have; the environment is told elsewhere.
        self._report = Report("gpu", 0, {}, environment={"machine": {}})
        self.environment: dict[str, Any] = {}
        self.planned: list[str] = []
        self.cases: list[dict[str, Any]] = []
        self.checks: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.running: str | None = None
        self._begun = 0.0

    # -- cases -------------------------------------------------------------------------------

    def plan(self, names: Sequence[str]) -> None:
        """Say beforehand what cases there are."""
        self.planned = list(names)
        self._save()

    def run(self, case: Case) -> str:
        """Run a case to its end; return its status, which is also recorded."""
        self.running, self._begun = case.name, time.perf_counter()
        first = len(self.checks)
        self._save()
        status, reason = PASSED, ""
        try:
            case.run(self)
        except Skip as skip:
            status, reason = SKIPPED, str(skip)
        except Exception as error:
            # The first line is what the table shows.
            status = ERROR
            reason = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        else:
            failed = [check for check in self.checks[first:] if not check["passed"]]
            if failed:
                status, reason = FAILED, "; ".join(describe_check(check) for check in failed)
        self._end(status, reason)
        return status

    def _end(self, status: str, reason: str) -> None:
        self.cases.append(
            {
                "name": self.running,
                "status": status,
                "reason": without_paths(reason),
                "seconds": round(time.perf_counter() - self._begun, 3),
            }
        )
        self.running = None
        self._save()

    # -- what a case finds -------------------------------------------------------------------

    def check(self, what: str, expected: np.ndarray, actual: np.ndarray, *, bound: float) -> float:
        """Compare two arrays by the norm of their difference; return the relative error."""
        value = relative_error(expected, actual)
        self.at_most(what, value, bound, "relative error")
        return value

    def at_most(self, what: str, value: float, bound: float, unit: str) -> None:
        """Record a number that must not exceed a bound; NaN and infinity always do."""
        finite = math.isfinite(value)
        self.checks.append(
            {
                "case": self.running or "",
                "what": what,
                "value": float(value) if finite else None,
                "bound": bound,
                "unit": unit,
                "passed": finite and value <= bound,
            }
        )
        self._save()

    def note(self, text: str) -> None:
        """Record what the reader of the table should know and what is no failure."""
        self.notes.append(without_paths(text))
        self._save()

    def row(self, figure: str, unit: str, ours: Timing | float, **options: Any) -> None:
        """Add a comparison; see `benchmarks.harness.results.Report.add_row`."""
        # Only they belong in the short table of the project.
        options.setdefault("brief", bool(options.get("headline")))
        self._report.add_row(figure, unit, ours, **options)
        self._save()

    def rung(
        self,
        kernel: str,
        variant: str,
        time: float,
        *,
        time_unit: str,
        rate: float,
        unit: str,
        ceiling: float | None = None,
        chosen: bool = False,
        brief: bool = True,
    ) -> None:
        """Add a kernel and how fast it is; see `benchmarks.harness.results.Report.add_rung`.

        The table at the end of a run has only those that are `brief`.
        """
        self._report.add_rung(
            kernel,
            variant,
            0,
            time,
            time_unit=time_unit,
            rate=rate,
            unit=unit,
            ceiling=ceiling,
            chosen=chosen,
        )
        # A card has no number of threads to choose.
        self._report.ladder[-1].update(threads="-", brief=brief)
        self._save()

    def timings(self, timings: Mapping[str, Timing], prefix: str = "") -> None:
        """Keep all repeats."""
        self._report.add_timings(timings, prefix)
        self._save()

    def detail(self, name: str, value: Any) -> None:
        """Keep whatever else is worth it."""
        self._report.details[name] = value
        self._save()

    def as_dict(self) -> dict[str, Any]:
        """All of it, for the file."""
        report = self._report
        return {
            "environment": self.environment,
            "planned": self.planned,
            "cases": self.cases,
            "running": self.running,
            "checks": self.checks,
            "notes": self.notes,
            "rows": report.rows,
            "ladder": report.ladder,
            "timings": report.timings,
            "details": report.details,
        }

    def _save(self) -> None:
        if self._path is not None:
            write_json(self._path, finite(self.as_dict()))


def describe_check(check: Mapping[str, Any]) -> str:
    """Say in one phrase what was measured and what is allowed."""
    value = "not finite, or of another shape" if check["value"] is None else f"{check['value']:.2g}"
    return f"{check['what']}: {check['unit']} {value}, at most {check['bound']:.2g}"


def finite(value: Any) -> Any:
    """Replace numbers that JSON does not have by None, and NumPy's numbers by Python's."""
    if isinstance(value, Mapping):
        return {str(key): finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def without_paths(text: str) -> str:
    """Shorten a message and take the names of folders out of it, which are nobody's business."""
    # Longer ones first: one may be inside of another.
    folders = {str(ROOT): ".", sys.prefix: "<python>", sys.base_prefix: "<python>"}
    folders[tempfile.gettempdir()] = "<temporary>"
    with suppress(RuntimeError):  # nobody's home is known
        folders[str(Path.home())] = "~"
    for folder in sorted(folders, key=len, reverse=True):
        text = text.replace(folder, folders[folder])
    if len(text) > _LONGEST_MESSAGE:
        half = _LONGEST_MESSAGE // 2
        text = f"{text[:half]}\n[...]\n{text[-half:]}"
    return text
