"""What became of each song, and how ``umx-np separate`` tells it to people and to programs."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from .._support.console import say, show
from ..errors import AudioError
from .frame import table

if TYPE_CHECKING:
    from ..evaluation.sdr import StemScore
    from .planning import Task

FORMAT_VERSION = 1


@dataclass
class Outcome:
    """What became of a song.

    Attributes
    ----------
    status : str
        ``separated``, ``skipped``, ``failed``, or ``planned`` if nothing was to be done.
    seconds : float
        That it took.
    warnings : list of str
        What was said about it.
    error : tuple of str or None
        Kind of the error and its message.
    scores : mapping of str to StemScore, or None
        How well the stems agree with the true ones.
    """

    status: str
    seconds: float = 0.0
    warnings: Sequence[str] = field(default_factory=list)
    error: tuple[str, str] | None = None
    scores: Mapping[str, StemScore] | None = None

    def as_json(self, task: Task) -> str:
        """Describe the song and what became of it in one line of ASCII.

        The model and its options have the form that records have; see docs/guide.md.
        """
        plan = task.plan
        are_there = self.status != "failed"
        has_record = are_there and os.path.exists(plan.record)
        document: dict[str, Any] = {
            "format": "umx_np separation",
            "format_version": FORMAT_VERSION,
            "umx_np": __version__,
            "input": task.song.name,
            "status": self.status,
            "stems": {n: str(p) for n, p in plan.paths.items()} if are_there else {},
            "record": str(plan.record) if has_record else None,
            "picture": str(plan.picture) if are_there and plan.picture else None,
            "seconds": round(self.seconds, 3),
            "model": plan.model,
            "options": plan.options,
            "warnings": list(self.warnings),
            "error": self.error and {"type": self.error[0], "message": self.error[1]},
        }
        if self.scores is not None:
            document["scores"] = {
                name: {"sdr": _number(score.sdr), "sdr_of_mixture": _number(score.sdr_of_mixture)}
                for name, score in self.scores.items()
            }
        return json.dumps(document, sort_keys=False, allow_nan=False)


def show_outcome(outcome: Outcome, task: Task, *, as_json: bool) -> None:
    """Print what became of a song to standard output, at once: JSON, or the paths of its stems."""
    if as_json:
        show(outcome.as_json(task))
    elif outcome.status != "failed":
        for path in dict.fromkeys(task.plan.paths.values()):
            show(str(path))
        if outcome.scores:
            show(_score_table(task.song.path, outcome.scores))
    if sys.stdout is not None:
        sys.stdout.flush()


def say_outcome(outcome: Outcome, task: Task, place: str, *, to_stdout: bool) -> None:
    """Print a line for people about a song that was separated; `place` is its number among all."""
    if outcome.status != "separated":
        return
    places = sorted({str(target.parent) for target in task.plan.paths.values()})
    if to_stdout:
        places = [f"standard output ({', '.join(task.plan.paths)})"]
    if task.plan.picture is not None:
        places.append(str(task.plan.picture))
    say(f"[{place}] {task.song.name} -> {', '.join(places)} ({outcome.seconds:.1f} s)")


def pass_on(path: Path) -> None:
    """Copy a file to standard output.

    Raises
    ------
    BrokenPipeError
        If nobody reads it to the end.
    AudioError
        If it cannot be written for another reason.
    """
    try:
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer, 1 << 20)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = error.strerror or error
        raise AudioError(f"standard output cannot be written: {reason}") from error


def summary(statuses: Sequence[str], count: int) -> str:
    """Say how many songs ended how, of how many."""
    kinds = ("separated", "skipped", "planned", "failed")
    counted = [(statuses.count(status), status) for status in kinds]
    counted.append((count - len(statuses), "left out"))
    text = ", ".join(f"{number} {what}" for number, what in counted if number)
    return f"{text} of {count} files"


def _score_table(path: Path, scores: Mapping[str, StemScore]) -> str:
    rows = [[f"SDR of {os.path.basename(path)} in dB", "stem", "mixture", "gain"]]
    for name, score in scores.items():
        numbers = (score.sdr, score.sdr_of_mixture, score.sdr - score.sdr_of_mixture)
        rows.append([name, *(f"{number:.2f}" for number in numbers)])
    return table(rows)


def _number(value: float) -> float | None:
    """As JSON has it, which knows neither NaN nor infinity."""
    return round(value, 4) if abs(value) < float("inf") else None
