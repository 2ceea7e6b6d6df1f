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
    least: float = 15.0
    extra: bool = False


# What is known to be right comes before how fast it is, and what most people do, which is to
# separate, before training. The limits add up to more than a run has: on a card that is as fast as
# it should be, no section needs its own.
SECTIONS = [
    Section("environment", "benchmarks.gpu.card", "card, driver and versions", 90),
    Section("build", "benchmarks.gpu.compiling", "compile all kernels", 120),
    Section("scans", "benchmarks.gpu.check_scans", "recurrent kernels against float64", 120),
    Section("operations", "benchmarks.gpu.check_operations", "the other kernels", 60),
    Section("separation", "benchmarks.gpu.check_separation", "whole tracks", 90),
    Section("training", "benchmarks.gpu.check_training", "gradients and updates", 120),
    Section("precision", "benchmarks.gpu.check_precision", "what TF32 costs", 60),
    Section("ceilings", "benchmarks.gpu.ceilings", "what the card reaches at best", 40),
    Section("song", "benchmarks.gpu.time_separation", "a song beside openunmix", 120),
    Section("recurrence", "benchmarks.gpu.time_scans", "recurrent kernels beside cuDNN", 100),
    Section("steps", "benchmarks.gpu.time_training", "training beside torch", 100),
    Section("waveforms", "benchmarks.gpu.waveforms", "training behind the filter", 120),
    Section("stages", "benchmarks.gpu.time_stages", "where the time of a song goes", 60),
    Section("data", "benchmarks.gpu.time_data", "batches mixed on the card", 40),
    Section("tests", "benchmarks.gpu.run_tests", "the project's own tests on the card", 120),
    Section(
        "sanitize",
        "benchmarks.gpu.sanitize",
        "small kernels under compute-sanitizer",
        240,
        extra=True,
    ),
]
