"""The harness of the benchmarks: order of repeats, comparison of outputs, results."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import run_all
from benchmarks.harness import agreement, audio, load, process, results, timing

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    "date": "2020-01-02T03:04:05+00:00",
    "threads": 2,
    "machine": {"cpu": "A processor", "cores": 2, "os": "Linux 1"},
    "versions": {"python": "3.12.0", "numpy": "2.0.0"},
    "umx_np": {"level": "x86-64-v3"},
    "source": {"commit": "0123456789abcdef", "dirty": False},
}


class Clock:
    """Time that passes only when a case runs."""

    def __init__(self):
        self.now = 0.0
        self.order = []

    def __call__(self):
        return self.now

    def case(self, name, durations):
        durations = iter(durations)

        def run():
            self.order.append(name)
            self.now += next(durations)

        return timing.Case(name, run)


def new_report(threads=2):
    """A report that does not look at this machine."""
    environment = json.loads(json.dumps(ENVIRONMENT))
    return results.Report("sample", threads, {"seconds": 30}, environment=environment)


class TestInterleave:
    @pytest.mark.slow
    def test_takes_turns_and_leaves_out_the_warm_up(self):
        clock = Clock()
        cases = [clock.case("a", [9, 1, 3, 2]), clock.case("b", [9, 10, 30, 50])]
        times = timing.interleave(cases, 3, clock=clock, sleep=lambda _: None)
        assert clock.order == ["a", "b"] * 4
        assert times["a"].seconds == (1, 3, 2)
        assert (times["b"].low, times["b"].median, times["b"].high) == (10, 30, 50)

    def test_the_pause_and_the_preparation_are_not_timed(self):
        clock = Clock()

        def wait(seconds):
            clock.now += seconds

        def prepare():
            clock.now += 100.0
            return (7.0,)

        case = timing.Case("a", wait, prepare)
        times = timing.interleave([case], 2, pause=5.0, clock=clock, sleep=wait)
        assert times["a"].seconds == (7.0, 7.0)

    def test_the_median_of_an_even_number_lies_between(self):
        assert timing.Timing((4.0, 1.0, 3.0, 2.0)).median == 2.5

    def test_refuses_what_makes_no_sense(self):
        case = timing.Case("a", lambda: None)
        with pytest.raises(ValueError, match="repeats=0"):
            timing.interleave([case], 0)
        with pytest.raises(ValueError, match="same name"):
            timing.interleave([case, case], 1)


class TestAgreement:
    def test_level_of_the_error(self):
        x = np.array([3.0, 4.0j])
        assert agreement.snr_db(x, x * 1.001) == pytest.approx(60.0)

    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    @pytest.mark.parametrize("side", ["expected", "actual"])
    def test_nan_and_infinity_never_pass(self, bad, side):
        arrays = {"expected": np.ones(4), "actual": np.ones(4)}
        arrays[side][2] = bad
        with pytest.raises(agreement.OutputsDiffer):
            agreement.require("x", **arrays, at_least_db=-1000.0)

    def test_a_difference_fails_and_says_how_large(self):
        with pytest.raises(agreement.OutputsDiffer, match=r"stem: .* 20\.0 dB .* 60 dB"):
            agreement.require("stem", np.ones(9), 1.1 * np.ones(9), at_least_db=60.0)

    def test_another_shape_fails(self):
        with pytest.raises(agreement.OutputsDiffer, match="shapes"):
            agreement.require("x", np.ones((2, 3)), np.ones((3, 2)), at_least_db=0.0)

    def test_sound_where_silence_was_expected_fails(self):
        with pytest.raises(agreement.OutputsDiffer):
            agreement.require("x", np.zeros(3), np.ones(3), at_least_db=0.0)

    def test_equal_outputs_pass(self):
        for same in (np.zeros(3), np.ones(3)):
            found = agreement.require("x", same, same.copy(), at_least_db=100.0)
            assert found["snr_db"] == 300.0


class TestReport:
    def test_the_last_line_is_the_ratio_against_the_best_peer(self, capsys, tmp_path):
        report = new_report()
        ours, theirs = timing.Timing((1.0, 2.0, 3.0)), timing.Timing((12.0,))
        report.add_row("song", "s", ours, peer="openunmix (torch)", theirs=theirs, headline=True)
        report.add_row("song", "s", ours, peer="onnxruntime 1", theirs=8.0, headline=True)
        report.add_row("aside", "s", ours, peer="torch", theirs=2.0)
        report.finish(tmp_path / "deep" / "result.json")
        lines = capsys.readouterr().out.splitlines()
        assert lines[-3:] == ["ratio openunmix 6.00", "ratio onnxruntime 4.00", "ratio 4.00"]
        document = json.loads((tmp_path / "deep" / "result.json").read_text())
        assert document["ratio"] == 4.0
        assert document["rows"][0]["ours"] == {"median": 2.0, "low": 1.0, "high": 3.0}
        assert [path.name for path in (tmp_path / "deep").iterdir()] == ["result.json"]

    def test_the_share_is_that_of_what_the_machine_uses(self, capsys):
        report = new_report()
        for variant, rate, chosen in (("slow", 1.0, False), ("best", 8.0, True)):
            report.add_rung(
                "scan", variant, 1, 5.0, rate=rate, unit="GB/s", ceiling=10.0, chosen=chosen
            )
        report.finish(None)
        assert capsys.readouterr().out.splitlines()[-1] == "share 0.80"

    def test_milliseconds(self):
        report = new_report()
        report.add_row("filter", "ms", timing.Timing((0.01,)), peer="torch", theirs=0.5)
        assert report.rows[0]["ours"]["median"] == 10.0

    def test_a_file_is_whole_or_not_there(self, tmp_path):
        path = tmp_path / "result.json"
        results.write_json(path, {"a": 1})
        with pytest.raises(ValueError, match="JSON compliant"):
            results.write_json(path, {"a": float("nan")})
        assert json.loads(path.read_text()) == {"a": 1}
        assert list(tmp_path.iterdir()) == [path]

    def test_an_untrustworthy_benchmark_exits_with_1(self, capsys):
        def differs():
            agreement.require("stems", np.ones(3), np.zeros(3), at_least_db=60.0)

        assert results.run(differs) == 1
        assert "stems" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("value", "text"),
        [(0.01234, "0.0123"), (0.1234, "0.123"), (1.234, "1.23"), (12.34, "12.3"), (1234, "1234")],
    )
    def test_numbers_have_three_digits(self, value, text):
        assert results.number(value) == text


def test_share_of_others():
    before = load.Snapshot(everybody=10.0, own=2.0, capacity=100.0)
    after = load.Snapshot(everybody=18.0, own=6.0, capacity=120.0)
    assert load.others_share(before, after) == 0.2
    assert load.others_share(before, before) is None
    assert load.others_share(None, after) is None


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="needs POSIX")
class TestMeasure:
    def test_memory_is_that_of_the_child_alone(self):
        ours = np.ones(100 << 17)  # 100 MB, which Linux would add to the peak of a child
        small, large = (
            process.measure([sys.executable, "-I", "-S", "-c", code], os.environ)
            for code in ("pass", "x = bytearray(50_000_000)")
        )
        assert small.peak_bytes < ours.nbytes / 2
        assert 40e6 < large.peak_bytes - small.peak_bytes < 60e6

    def test_a_program_that_fails_is_an_error(self):
        code = "import sys; print('went wrong'); sys.exit(3)"
        with pytest.raises(agreement.BenchmarkError, match=r"exit status 3\n.*went wrong"):
            process.measure([sys.executable, "-c", code], os.environ)


def test_noise_is_the_same_every_time_and_not_mono():
    one, other = audio.noise(8000), audio.noise(8000)
    np.testing.assert_array_equal(one, other)
    left, right = one
    assert abs(np.corrcoef(left, right)[0, 1]) < 0.2
    assert np.sqrt(np.mean(one.astype(np.float64) ** 2)) == pytest.approx(0.1, rel=1e-3)


def test_every_run_has_a_script_and_a_name_of_its_own():
    assert len({run.name for run in run_all.RUNS}) == len(run_all.RUNS)
    for run in run_all.RUNS:
        assert (ROOT / "benchmarks" / f"{run.module.replace('.', '/')}.py").is_file()


def test_unknown_names_are_refused(capsys):
    with pytest.raises(SystemExit):
        run_all.options(["--only", "speed_of_light"])
    assert "speed_of_light" in capsys.readouterr().err
