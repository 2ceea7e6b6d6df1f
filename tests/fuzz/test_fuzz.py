"""The short form of fuzzing: random changes of good files, the same ones in every run."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("resource", reason="measures memory as POSIX does")

from helpers import fuzz_targets as targets

_SHORT = 400


@pytest.mark.parametrize("kind", targets.TARGETS)
def test_seeds_are_read(kind: str, tmp_path: Path) -> None:
    target = targets.TARGETS[kind]
    messages = [targets.check(target, seed, tmp_path) for seed in target.seeds(tmp_path)]
    # Not all of them are complete networks.
    assert None in messages


def _run(kind: str, count: int, seed: int, folder: Path) -> None:
    target = targets.TARGETS[kind]
    seeds = target.seeds(folder)
    rng = np.random.default_rng(seed)
    accepted = 0
    for index in range(count):
        data = targets.mutant(target, seeds, rng)
        try:
            accepted += targets.check(target, data, folder) is None
        except targets.RuleError as error:
            found = folder / f"broken-{index}{target.suffix}"
            found.write_bytes(data)
            raise AssertionError(f"{error} (kept in {found})") from error
    assert accepted < count


@pytest.mark.parametrize("kind", targets.TARGETS)
def test_damaged_files_get_an_answer(kind: str, tmp_path: Path) -> None:
    _run(kind, _SHORT, 0, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("kind", targets.TARGETS)
def test_many_damaged_files_get_an_answer(kind: str, tmp_path: Path) -> None:
    """Run with ``UMX_NP_TEST_LONG=1``; ``UMX_NP_FUZZ_FILES`` says how many files of each kind."""
    count = int(os.environ.get("UMX_NP_FUZZ_FILES", "20000"))
    _run(kind, count, int(os.environ.get("UMX_NP_FUZZ_SEED", "1")), tmp_path)
