"""What the benchmark for a card tells: its table, who takes turns, the card, its compiler."""

from __future__ import annotations

import json

from helpers.gpu_runs import CARD, Runs, Time, outcome_of

from benchmarks import report
from benchmarks.gpu import card, compiling, summary, timing
from benchmarks.gpu.record import Recorder
from benchmarks.harness.timing import Timing


def sample_document():
    """A document with one of everything."""
    recorder = Recorder()
    recorder.row("song, 180 s", "s", Timing((1.0, 2.0, 3.0)), peer="openunmix", theirs=8.0)
    recorder.rung("scan", "cluster", 0.5, time_unit="ms", rate=2.0, unit="us a step")
    found = recorder.as_dict()
    check = {"section": "check", "case": "c", "unit": "relative error", "bound": 1e-4}
    return {
        "environment": {
            "card": {"name": "A card", "driver": "570.1", "cuda": "12.9"},
            "versions": {"cupy": "13.6", "torch": "2.9"},
        },
        "sections": [
            {
                "name": "check",
                "status": "failed",
                "reason": "c: bad",
                "seconds": 3.0,
                "cases": [
                    {"name": "c", "status": "failed", "reason": "bad: relative error 1"},
                    {"name": "d", "status": "skipped", "reason": "no clusters"},
                ],
                "notes": ["a note"],
            },
            {
                "name": "times",
                "status": "not run",
                "reason": "no time left",
                "seconds": 0.0,
                "cases": [],
                "notes": [],
            },
        ],
        "checks": [
            {**check, "what": "good", "value": 1e-6, "passed": True},
            {**check, "what": "bad", "value": None, "passed": False},
        ],
        "rows": found["rows"],
        "ladder": found["ladder"],
    }


class TestSummary:
    def test_the_table_holds_everything_in_short(self):
        text = summary.table(sample_document())
        lines = text.splitlines()
        assert lines[0] == "A card, driver 570.1, CUDA 12.9, cupy 13.6, torch 2.9"
        assert "check, c: failed: bad: relative error 1" in lines
        assert "check, d: skipped: no clusters" in lines
        assert "check: a note" in lines
        assert "times: not run: no time left" in lines
        assert any(line.split()[:4] == ["check", "failed", "3", "s"] for line in lines)
        assert any("4.00" in line and "openunmix" in line for line in lines)
        assert any("cluster" in line and "us a step" in line for line in lines)
        assert lines[-1] == "2 checks, 1 failed; sections that failed: check; left out: times"

    def test_errors_become_the_ratios_of_the_other_benchmarks(self):
        (found,) = summary.agreements(sample_document()["checks"])
        assert found == {"what": "check, good", "snr_db": 120.0, "at_least_db": 80.0}
        (found,) = summary.agreements(
            [{"section": "s", "what": "w", "value": 0.0, "bound": 0.1, "unit": "relative error"}]
        )
        assert found["snr_db"] == 300.0


def test_the_tables_of_the_project_take_the_document(tmp_path):
    outcomes = {"environment": (1.0, outcome_of(**CARD))}
    runs = Runs(tmp_path, outcomes)
    runs.go()
    document = {**runs.document, **{k: sample_document()[k] for k in ("rows", "ladder", "checks")}}
    document["agreements"] = summary.agreements(document["checks"])
    document["environment"] = {
        "card": {"name": "A card", "driver": "570.1", "cuda": "12.9"},
        "date": "2020-01-02T03:04:05+00:00",
        "threads": 2,
        "machine": {"cpu": "A processor", "cores": 2, "os": "Linux 1"},
        "versions": {"python": "3.12.0"},
        "umx_np": {"level": "x86-64-v3"},
        "source": {"commit": "0123456789abcdef", "dirty": False},
    }
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "gpu.json").write_text(json.dumps(document))
    page = report.full_page(report.load(tmp_path / "results"))
    assert "A card, driver 570.1, CUDA 12.9; A processor" in page
    assert "| scan | cluster | - |" in page
    assert "least agreement 120 dB" in page


class TestTakeTurns:
    def test_in_turn_and_no_longer_than_it_should(self):
        now, order = Time(), []

        def timed(name, seconds):
            def clock(run):
                run()
                now.now += seconds
                return seconds

            return timing.Timed(name, lambda: order.append(name), clock)

        cases = [timed("a", 1.0), timed("b", 2.0)]
        found = timing.take_turns(cases, repeats=9, least=2, seconds=7.0, warmup=1, now=now)
        assert order == ["a", "b"] * (1 + 3)
        assert found["b"].seconds == (2.0, 2.0, 2.0)
        found = timing.take_turns(cases, repeats=9, least=2, seconds=0.0, warmup=0, now=now)
        assert len(found["a"].seconds) == 2

    def test_the_host_clock_waits_for_the_card(self):
        order = []
        clock = timing.host_clock(lambda: order.append("wait"))
        assert clock(lambda: order.append("run")) >= 0.0
        assert order == ["wait", "run", "wait"]


class TestCard:
    def test_what_nvidia_smi_does_not_know_is_left_out(self, monkeypatch):
        def smi(arguments):
            fields = arguments[2].partition("=")[2].split(",")
            if "unheard.of" in fields:
                return None
            return ", ".join("[N/A]" if field == "ecc" else f"{field}!" for field in fields)

        monkeypatch.setattr(card, "_smi", smi)
        assert card.query("0:1", ["pstate", "unheard.of", "ecc"]) == {"pstate": "pstate!"}

    def test_version_of_cuda(self):
        assert (card.version_of(12090), card.version_of(13010)) == ("12.9", "13.1")


class TestCompiling:
    def test_every_source_is_compiled_in_its_variants(self):
        for path in compiling.SOURCES.glob("*.cu"):
            assert compiling.variants(path.name)
