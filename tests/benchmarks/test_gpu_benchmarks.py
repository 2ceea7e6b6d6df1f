"""The benchmark for a card: sections that hang or die, the budget, partial results, the table."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
from helpers.gpu_runs import CARD, Runs, outcome_of

from benchmarks.gpu import record, run, supervise
from benchmarks.gpu.plan import SECTIONS
from benchmarks.gpu.record import Case, Recorder

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = {"device": 0, "seed": 1, "torch": False}


class TestRelativeError:
    def test_is_the_norm_of_the_difference(self):
        x = np.array([3.0, 4.0j])
        assert record.relative_error(x, x * 1.01) == pytest.approx(0.01)

    @pytest.mark.parametrize("side", [0, 1])
    @pytest.mark.parametrize("bad", [np.nan, np.inf])
    def test_what_is_not_finite_is_infinitely_wrong(self, side, bad):
        arrays = [np.ones(4, np.float32), np.ones(4, np.float32)]
        arrays[side][1] = bad
        assert record.relative_error(*arrays) == math.inf

    def test_another_shape_and_sound_for_silence_are_wrong_too(self):
        assert record.relative_error(np.ones((2, 3)), np.ones((3, 2))) == math.inf
        assert record.relative_error(np.zeros(3), np.ones(3)) == math.inf
        assert record.relative_error(np.zeros(3), np.zeros(3)) == 0.0


class TestRecorder:
    def test_a_case_fails_by_its_checks_and_says_which(self, tmp_path):
        path = tmp_path / "record.json"
        recorder = Recorder(path)

        def look(recorder):
            recorder.check("good", np.ones(3), np.ones(3), bound=1e-6)
            recorder.check("bad", np.ones(3), 2 * np.ones(3), bound=1e-6)
            recorder.check("nan", np.ones(3), np.full(3, np.nan), bound=1e-6)

        assert recorder.run(Case("ops", look)) == record.FAILED
        document = json.loads(path.read_text())
        assert [check["passed"] for check in document["checks"]] == [True, False, False]
        assert document["checks"][2]["value"] is None
        (case,) = document["cases"]
        assert case["reason"].startswith("bad: relative error 1, at most 1e-06; nan: ")
        assert document["running"] is None

    def test_an_exception_is_an_error_and_skipping_is_not(self):
        recorder = Recorder()

        def broken(recorder):
            raise ValueError(f"no such thing in {ROOT}/deep")

        def left_out(recorder):
            raise record.Skip("no clusters")

        assert recorder.run(Case("a", broken)) == record.ERROR
        assert recorder.run(Case("b", left_out)) == record.SKIPPED
        failed, skipped = (case["reason"] for case in recorder.cases)
        assert failed.splitlines()[0] == "ValueError: no such thing in ./deep"
        assert "in broken" in failed  # where it happened
        assert skipped == "no clusters"

    def test_the_file_knows_what_runs(self, tmp_path):
        path = tmp_path / "record.json"
        seen = []
        recorder = Recorder(path)
        recorder.run(Case("now", lambda _: seen.append(json.loads(path.read_text())["running"])))
        assert seen == ["now"]

    def test_numbers_that_json_does_not_have(self):
        assert record.finite({"a": [math.nan, np.float32(2), (math.inf, 1)]}) == {
            "a": [None, 2.0, [None, 1]]
        }


STUBS = {
    "good": """
        def cases(context):
            def first(recorder):
                recorder.check("one", np.ones(2), np.ones(2), bound=1e-6)
                recorder.detail("seed", context.options.seed)
                recorder.environment["card"] = {"name": "stub", "cuda": "0"}
            def second(recorder):
                recorder.row("song", "s", 1.0, peer="torch", theirs=3.0, headline=True)
            return [Case("first", first), Case("second", second)]
    """,
    "hangs": """
        def cases(context):
            def hang(recorder):
                recorder.check("before", np.ones(2), np.ones(2), bound=1e-6)
                time.sleep(100)
            def fine(recorder):
                recorder.check("after", np.ones(2), np.ones(2), bound=1e-6)
            return [Case("hang", hang, 1.0), Case("fine", fine)]
    """,
    "dies": """
        def cases(context):
            def die(recorder):
                os.kill(os.getpid(), 9)
            def fine(recorder):
                recorder.check("after", np.ones(2), np.ones(2), bound=1e-6)
            return [Case("fine", fine), Case("die", die), Case("fine too", fine)]
    """,
    "sleeps": """
        def cases(context):
            def sleep(recorder):
                time.sleep(100)
            return [Case("a", lambda recorder: None), Case("b", sleep), Case("c", sleep)]
    """,
    "broken": """
        def cases(context):
            context.is_broken = lambda: True
            def fail(recorder):
                raise RuntimeError("an illegal memory access was encountered")
            def fine(recorder):
                recorder.check("after", np.ones(2), np.ones(2), bound=1e-6)
            return [Case("fail", fail), Case("fine", fine)]
    """,
    "impossible": """
        def cases(context):
            raise RuntimeError("no such card")
    """,
}


@pytest.fixture
def environment(tmp_path):
    """Environment of processes that can import the stubs above."""
    head = "import os, time\nimport numpy as np\nfrom benchmarks.gpu.record import Case\n"
    for name, text in STUBS.items():
        (tmp_path / f"stub_{name}.py").write_text(head + textwrap.dedent(text))
    environment = run.child_environment(str(tmp_path / "cache"))
    environment["PYTHONPATH"] += os.pathsep + str(tmp_path)
    return environment


def supervised(name, environment, limit=60.0):
    """Run the cases of a stub; return the outcome and the status of each case."""
    outcome = supervise.run_section(f"stub_{name}", OPTIONS, limit, environment)
    return outcome, {case["name"]: case["status"] for case in outcome.found["cases"]}


class TestSupervision:
    def test_all_is_well(self, environment):
        outcome, statuses = supervised("good", environment)
        assert (outcome.status, outcome.reason) == ("passed", "")
        assert statuses == {"first": "passed", "second": "passed"}
        assert outcome.found["details"] == {"seed": 1}
        assert outcome.found["rows"][0]["ratio"] == 3.0
        assert outcome.found["environment"]["card"]["name"] == "stub"

    def test_a_case_that_hangs_costs_its_own_time_only(self, environment):
        outcome, statuses = supervised("hangs", environment)
        assert outcome.status == "timeout"
        assert statuses == {"hang": "timeout", "fine": "passed"}
        # What was found before is kept, and the log shows where it hung.
        assert [check["what"] for check in outcome.found["checks"]] == ["before", "after"]
        assert "stub_hangs.py" in outcome.found["cases"][0]["reason"]
        assert outcome.seconds < 90

    def test_a_case_that_ends_its_process(self, environment):
        outcome, statuses = supervised("dies", environment)
        assert outcome.status == "died"
        assert statuses == {"fine": "passed", "die": "died", "fine too": "passed"}

    @pytest.mark.slow
    def test_a_section_that_takes_too_long_is_killed(self, environment):
        outcome, statuses = supervised("sleeps", environment, limit=20.0)
        assert outcome.status == "timeout"
        assert statuses == {"a": "passed", "b": "timeout", "c": "not run"}
        assert outcome.seconds < 90

    def test_a_card_that_no_longer_answers_gets_a_fresh_process(self, environment):
        outcome, statuses = supervised("broken", environment)
        assert outcome.status == "error"
        assert statuses == {"fail": "error", "fine": "passed"}
        assert "illegal memory access" in outcome.reason

    def test_a_section_without_cases(self, environment):
        outcome, statuses = supervised("impossible", environment)
        assert (outcome.status, statuses) == ("error", {})
        assert outcome.reason.startswith("RuntimeError: no such card")


class TestRun:
    def test_what_no_longer_fits_is_listed_as_not_run(self, tmp_path):
        outcomes = {
            "environment": (1.0, outcome_of(**CARD)),
            "long": (75.0, outcome_of()),
            "short": (60.0, outcome_of()),
        }
        runs = Runs(tmp_path, outcomes, [("minutes", 1.5)])
        assert runs.go() == 0
        assert runs.statuses == {"environment": "passed", "long": "passed", "short": "not run"}
        # Never longer than the budget, whatever a section may have at most.
        assert runs.limits == {"environment": 60.0, "long": 60.0}

    def test_a_failure_does_not_stop_the_rest_and_is_the_exit_status(self, tmp_path):
        outcomes = {
            "environment": (1.0, outcome_of(**CARD)),
            "bad": (1.0, outcome_of("failed")),
            "good": (1.0, outcome_of()),
        }
        runs = Runs(tmp_path, outcomes)
        assert runs.go() == 1
        assert runs.statuses["good"] == "passed"

    def test_without_a_card_there_is_nothing_to_do(self, tmp_path):
        outcomes = {"environment": (1.0, outcome_of("error")), "good": (1.0, outcome_of())}
        runs = Runs(tmp_path, outcomes)
        assert runs.go() == 1
        assert runs.statuses == {"environment": "error"}

    def test_results_are_there_after_every_section(self, tmp_path):
        row = {"figure": "song", "headline": True, "ratio": 2.5}
        outcomes = {
            "environment": (1.0, outcome_of(**CARD)),
            "first": (1.0, outcome_of(rows=[row], details={"a": 1})),
            "second": (1.0, KeyboardInterrupt()),
        }
        runs = Runs(tmp_path, outcomes)
        with pytest.raises(KeyboardInterrupt):
            runs.go()
        assert runs.document["ratio"] == 2.5
        assert runs.document["details"] == {"first": {"a": 1}}
        assert [path.name for path in runs.path.parent.iterdir()] == ["gpu.json"]

    def test_only_and_extra_sections(self, tmp_path):
        outcomes = {
            name: (1.0, outcome_of(**CARD)) for name in ("environment", "a", "b", "sanitize")
        }
        runs = Runs(tmp_path, outcomes, extra=("sanitize",))
        runs.go()
        assert set(runs.statuses) == {"environment", "a", "b"}
        runs = Runs(tmp_path, outcomes, [("sanitize", True)], extra=("sanitize",))
        runs.go()
        assert set(runs.statuses) == set(outcomes)
        runs = Runs(tmp_path, outcomes, [("only", ["b"])], extra=("sanitize",))
        runs.go()
        assert set(runs.statuses) == {"environment", "b"}

    def test_the_seed_is_kept(self, tmp_path):
        outcomes = {"environment": (1.0, outcome_of(**CARD))}
        seeds = {Runs(tmp_path, outcomes).run.document["settings"]["seed"] for _ in range(2)}
        assert len(seeds) == 2
        runs = Runs(tmp_path, outcomes, [("seed", 7)])
        assert runs.run.document["settings"]["seed"] == 7


class TestCommandLine:
    def test_the_list_names_every_section(self, capsys):
        assert run.main(["--list"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[0] for line in lines] == [section.name for section in SECTIONS]

    @pytest.mark.parametrize(
        "arguments", [["--only", "nothing"], ["--minutes", "0"], ["--device", "-1"]]
    )
    def test_what_makes_no_sense_is_refused(self, arguments, capsys):
        with pytest.raises(SystemExit):
            run.options(arguments)
        assert arguments[0] in capsys.readouterr().err or "no section" in arguments

    def test_without_a_card_it_says_so_and_ends(self, tmp_path, capsys, monkeypatch):
        # Also where there is one.
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
        path = tmp_path / "gpu.json"
        assert run.main(["--out", str(path), "--skip-torch"]) == 1
        printed = capsys.readouterr().out
        assert "no card" in printed
        assert printed.splitlines()[-1] == "0 checks, 0 failed; sections that failed: environment"
        document = json.loads(path.read_text())
        assert document["environment"]["versions"]["numpy"] == np.__version__
        assert str(Path.home()) not in path.read_text()

    def test_a_run_that_is_ended_keeps_what_it_has(self, tmp_path, monkeypatch, capsys):
        def ended(*arguments):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

        monkeypatch.setattr(run.Run, "go", ended)
        before = signal.getsignal(signal.SIGTERM)
        assert run.main(["--out", str(tmp_path / "gpu.json")]) == run.INTERRUPTED
        assert "interrupted" in capsys.readouterr().err
        assert signal.getsignal(signal.SIGTERM) is before

    @pytest.mark.parametrize(("missing", "fails"), [(0, 0), (1, 0), (1, 1)])
    def test_the_kernels_of_the_processor_are_built_if_they_are_missing(
        self, missing, fails, monkeypatch
    ):
        calls = []

        def process(command, **options):
            calls.append(command[1:])
            code = missing if "-c" in command else fails
            return subprocess.CompletedProcess(command, code, "no ", "compiler")

        monkeypatch.setattr(run.subprocess, "run", process)
        assert run.build() == ("no compiler" if fails else None)
        assert calls[1:] == [["setup.py", "build_ext", "--inplace"]] * missing

    def test_sections_can_be_imported_and_have_cases(self):
        names = [section.name for section in SECTIONS]
        assert len(set(names)) == len(names)
        for section in SECTIONS:
            file = ROOT / (section.module.replace(".", "/") + ".py")
            assert "def cases(" in file.read_text(encoding="utf-8")
