"""Stand-ins for the processes, the card and the clock of the benchmark for a card."""

from __future__ import annotations

import json

from benchmarks.gpu import run
from benchmarks.gpu.plan import Section
from benchmarks.gpu.supervise import Outcome


class Time:
    """A clock that stands still unless it is told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def outcome_of(status="passed", **found):
    """An outcome as a section brings it home."""
    outcome = Outcome(status, "" if status == "passed" else f"it {status}", 2.0)
    outcome.found.update(found)
    return outcome


CARD = {"environment": {"card": {"name": "stub", "cuda": "12.9"}}}


class Runs:
    """Sections whose outcomes are given, with the time that each takes."""

    def __init__(self, tmp_path, outcomes, arguments=(), extra=()):
        self.path = tmp_path / "out" / "gpu.json"
        self.clock = Time()
        self.limits = {}
        self.outcomes = outcomes
        sections = [
            Section(name, name, f"what {name} does", 60.0, 10.0, name in extra) for name in outcomes
        ]
        args = run.options(["--out", str(self.path)])
        for name, value in arguments:
            setattr(args, name, value)
        self.run = run.Run(args, sections, self.one, self.clock)

    def one(self, module, options, limit, environment):
        self.limits[module] = limit
        seconds, outcome = self.outcomes[module]
        self.clock.now += seconds
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def go(self):
        return self.run.go({})

    @property
    def document(self):
        return json.loads(self.path.read_text())

    @property
    def statuses(self):
        return {row["name"]: row["status"] for row in self.document["sections"]}
