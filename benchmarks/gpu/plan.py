"""The sections of the run, in the order of their worth."""

from __future__ import annotations

from typing import NamedTuple


class Section(NamedTuple):
    """One part of the run.

    Attributes
    ----------
    name : str
        For ``--only`` and the results.
    module : str
        Has a function ``cases(context)``.
    what : str
        What it does, in one line.
    limit : float
        Seconds that it gets at most.
    least : float
        Seconds without which it is not begun.
    extra : bool
        Whether it is run only if asked for.
    """

    name: str
    module: str
    what: str
    limit: float
    least: float = 10.0
    extra: bool = False


SECTIONS = [
    Section("environment", "benchmarks.gpu.card", "card, driver and versions", 90),
    Section("build", "benchmarks.gpu.compiling", "compile all kernels", 150),
    Section("ceilings", "benchmarks.gpu.ceilings", "what the card reaches at best", 40),
]
