"""Catalogues on Dask: what is killed, cut off or full costs no song and no second result."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import umx_np
from umx_np.catalog import Ledger, Plan, make_plan, read_plan, run

from .test_shards import published, stray_files

pytest.importorskip("distributed", reason="needs the extra cluster")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="finds processes by /proc"),
    pytest.mark.filterwarnings("default"),  # of the loops of a cluster that is closed
]

Songs = Callable[..., Path]
HOSTILE = Path(__file__).with_name("hostile")
LONG = os.environ.get("UMX_NP_TEST_LONG") == "1"


def small_plan(songs: Path, model: Path, folder: Path) -> Plan:
    return make_plan(
        str(songs),
        str(folder / "out"),
        str(folder / "plan"),
        settings={"niter": 0},
        model=str(model),
    )


def test_songs_are_those_of_one_process(make_songs: Songs, model: Path, tmp_path: Path) -> None:
    songs = make_songs(8)
    plan = small_plan(songs, model, tmp_path)
    counts: list[dict[str, int]] = []
    status = run(plan, workers=2, on_batch=counts.append)
    assert (status.done, status.failed, status.running) == (8, 0, 0)
    assert sum(batch["done"] for batch in counts) == 8
    assert stray_files(plan) == set()
    for path, stems in published(plan).items():
        expected = umx_np.separate_file(songs / path, tmp_path / "one", model=model, niter=0)
        for stem, file in stems.items():
            np.testing.assert_array_equal(sf.read(file)[0], sf.read(expected[stem])[0])


def processes_below(pid: int) -> list[int]:
    """Workers and their computing processes, not what multiprocessing keeps for itself."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError, ValueError):
                status = (entry / "stat").read_text().rpartition(")")[2].split()
                command = (entry / "cmdline").read_bytes()
                if b"resource_tracker" not in command:
                    parents[int(entry.name)] = int(status[1])
    found, level = [], [pid]
    while level:
        level = [each for each, parent in parents.items() if parent in level]
        found += level
    return found


@contextmanager
def started(plan: Plan, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    source = str(Path(umx_np.__file__).parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(HOSTILE), source]),
        "OPENBLAS_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "umx_np", "catalog", "run", "--quiet", plan.place, *options]
    with subprocess.Popen(command, env=environment) as process:
        try:
            yield process
        finally:
            for pid in [process.pid, *processes_below(process.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def test_kills_cost_no_song(make_songs: Songs, model: Path, tmp_path: Path) -> None:
    """Workers are killed at random, then the scheduler; three songs are hostile."""
    count, kills = (500, 30) if LONG else (40, 5)
    songs = make_songs(count)
    sound = np.zeros((800, 2))
    for name in ("poison", "unreadable", "full"):
        sf.write(songs / f"{name}.wav", sound, 8000)
    plan = small_plan(songs, model, tmp_path)
    ledger = Ledger(plan)
    chance = random.Random(7)
    with started(plan, "--workers", "3") as process:
        while not ledger.status().done:
            assert process.poll() is None
            time.sleep(0.2)
        for _ in range(kills):
            time.sleep(chance.uniform(0.1, 1.0))
            with suppress(ProcessLookupError, IndexError):
                os.kill(chance.choice(processes_below(process.pid)), signal.SIGKILL)
        if ledger.status().done < count:
            process.kill()  # with the scheduler in it
            process.wait()
    # What the killed attempts have left goes with the next run.
    with started(plan, "--workers", "3") as process:
        assert process.wait(timeout=600) == 3
    status = ledger.status()
    assert set(status.errors) == {"poison.wav", "unreadable.wav", "full.wav"}
    assert (status.done, status.failed, status.running) == (count, 3, 0)
    assert "No space left" in status.errors["full.wav"]
    assert "Permission denied" in status.errors["unreadable.wav"]
    assert "signal 9" in status.errors["poison.wav"]
    stems = published(plan)
    assert len(stems) == count
    for files in stems.values():
        for file in files.values():
            assert sf.info(file).frames > 0
    assert stray_files(plan) == set()

    # What was the matter is mended: the three are done, too.
    assert ledger.retry(["WorkerKilled"]) == 1
    assert ledger.retry() == 2
    assert run(read_plan(plan.place), workers=1).done == count + 3
