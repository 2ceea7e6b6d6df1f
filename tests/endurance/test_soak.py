"""Memory, open files, threads and temporary files stay as they are, however long a process works.

The long form takes an hour; UMX_NP_LONG_SCALE=0.1 takes a tenth::

    UMX_NP_TEST_LONG=1 python -m pytest tests/endurance/test_soak.py -m long
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import pytest

import umx_np

from .records import record, scaled

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="measures by /proc")

SCRIPT = Path(__file__).with_name("soak.py")
# Bytes by which the memory in the last quarter may be above that in the first. Within an hour,
# three hundred rounds, a leak of 50 kB a round would show.
MEMORY = 8 << 20
# Rounds until everything has been imported, compiled and started once.
WARM_UP = 0.25


def soak(folder: Path, seconds: float, seed: int = 0) -> dict[str, Any]:
    (folder / "tmp").mkdir()
    environment = os.environ | {
        "PYTHONPATH": str(Path(umx_np.__file__).parents[1]),
        "TMPDIR": str(folder / "tmp"),
        # Threads of BLAS keep memory of their own.
        "OPENBLAS_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), str(seconds), str(seed)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=2 * seconds + 300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def growth(rows: list[dict[str, int]], name: str) -> float:
    """How much more there is in the last quarter of the measurements than in the first."""
    values = [row[name] for row in rows[round(WARM_UP * len(rows)) :]]
    quarter = max(1, len(values) // 4)
    return median(values[-quarter:]) - median(values[:quarter])


def assert_flat(rows: list[dict[str, int]], memory: int = MEMORY) -> None:
    bounds = {"memory": memory, "handles": 0, "threads": 0, "files": 0}
    for name, bound in bounds.items():
        grown = growth(rows, name)
        assert grown <= bound, f"{name} grew by {grown}: {[row[name] for row in rows]}"


def assert_closed(found: dict[str, Any]) -> None:
    """No file was left to the collector, but by an interrupt now and then.

    Python itself has a moment between the opening of a file and the `with` that closes it.
    """
    assert found["dropped"] == []
    dropped = found["dropped by interrupts"]
    assert len(dropped) <= max(1, found["interrupts"] // 100), dropped


@pytest.mark.slow
def test_some_rounds(tmp_path: Path) -> None:
    found = soak(tmp_path, 8.0)
    # In a few rounds the memory of a process has not yet found its level.
    assert_flat(found["rows"], memory=4 * MEMORY)
    assert_closed(found)
    assert found["interrupts"] > 0
    assert found["errors"] > 0


@pytest.mark.long
def test_an_hour(tmp_path: Path) -> None:
    begin = time.monotonic()
    found = soak(tmp_path, scaled(3600), seed=int(os.environ.get("UMX_NP_LONG_SEED", "1")))
    rows = found["rows"]
    assert_flat(rows)
    assert_closed(found)
    grown = {name: growth(rows, name) for name in ("memory", "handles", "threads", "files")}
    record(
        "soak",
        f"{found['calls']:,} calls, {found['errors']:,} of them errors and "
        f"{found['interrupts']:,} interrupted ({len(found['dropped by interrupts'])} of these left "
        f"a file to the collector): from the first quarter to the last, memory "
        f"{grown['memory'] / 1e6:+.1f} MB of {rows[-1]['memory'] / 1e6:.0f}, open files "
        f"{grown['handles']:+.0f}, threads {grown['threads']:+.0f}, temporary files "
        f"{grown['files']:+.0f}",
        seconds=time.monotonic() - begin,
    )


def test_growth_is_found() -> None:
    flat = {"memory": 1 << 30, "handles": 9, "threads": 4, "files": 0}
    assert_flat([flat] * 40)
    assert_flat([{**flat, "memory": number} for number in [1 << 28] * 8 + [1 << 29] * 32])
    for name, step in (("memory", 1 << 20), ("handles", 1), ("threads", 1), ("files", 1)):
        rows = [{**flat, name: flat[name] + step * number} for number in range(40)]
        with pytest.raises(AssertionError, match=f"{name} grew"):
            assert_flat(rows)
