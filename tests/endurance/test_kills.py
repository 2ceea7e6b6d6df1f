"""Commands that are killed, or asked to end, at random moments leave nothing wrong behind.

The long form takes half an hour for each kind of signal; UMX_NP_LONG_SCALE=0.1 takes a tenth::

    UMX_NP_TEST_LONG=1 python -m pytest tests/endurance/test_kills.py -m long
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from .commands import Scenario, disturb
from .records import record, scaled
from .scenarios import NAMES, scenario

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs signals, fork and /proc")

SIGNALS = ("SIGKILL", "SIGINT", "SIGTERM")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_at_some_moments(tmp_path: Path, name: str) -> None:
    numbers = [getattr(signal, number) for number in SIGNALS]
    with scenario(name, tmp_path / "material") as command:
        report = disturb(command, tmp_path / "runs", 4, numbers=numbers, seed=1)
    assert report.signals == 4


@pytest.mark.long
@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("name", NAMES)
def test_at_many_moments(tmp_path: Path, name: str, number: str) -> None:
    count = scaled(200)
    seed = int(os.environ.get("UMX_NP_LONG_SEED", "2"))
    with scenario(name, tmp_path / "material") as command:
        numbers = [getattr(signal, number)]
        report = disturb(command, tmp_path / "runs", count, numbers=numbers, seed=seed)
    record(
        f"{number} of {name}",
        f"{report.signals} signals, {report.with_leftovers} of them left something that the next "
        f"run cleared away ({report.ended} runs had ended before): no file damaged or lost, each "
        "next run the same to the bit",
        seconds=report.seconds,
    )


class TestTheChecksThemselves:
    """What a careless program does wrong is found."""

    @pytest.mark.parametrize(
        ("fault", "complaint"),
        [
            ("half", "result.bin .*neither what it was nor what it becomes"),
            ("left", "is left behind"),
            ("lost", "result.bin is gone"),
        ],
    )
    def test_faults_are_found(self, tmp_path: Path, fault: str, complaint: str) -> None:
        def older(starter: object, folder: Path) -> None:
            (folder / "result.bin").write_bytes(b"old" * 20)

        careless = Scenario(main="endurance.careless", argv=[fault], older=older)
        with pytest.raises(AssertionError, match=complaint):
            disturb(careless, tmp_path, 30, seed=3)

    def test_a_careful_program_passes(self, tmp_path: Path) -> None:
        careful = Scenario(main="endurance.careless", argv=["none"], older=lambda *_: None)
        assert disturb(careful, tmp_path, 4, seed=3).signals == 4
