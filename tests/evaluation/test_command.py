"""``python -m umx_np.evaluate``: Open-Unmix's options, and where each of them goes."""

from __future__ import annotations

import functools
import inspect
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import umx_np.evaluate as command
from umx_np.commands.evaluate import COMMAND, evaluate_arguments
from umx_np.errors import ConfigError
from umx_np.evaluation import evaluate, scores
from umx_np.evaluation.bss import scores_and_doubts

# Those of `python -m openunmix.evaluate` and their defaults. The model is chosen for its licence,
# and filtering the whole track is what Open-Unmix does in spite of its default.
UPSTREAM = {
    "targets": None,
    "model": None,
    "outdir": None,
    "evaldir": None,
    "root": None,
    "subset": "test",
    "cores": 1,
    "no_cuda": False,
    "is_wav": False,
    "niter": 1,
    "wiener_win_len": None,
    "residual": None,
    "aggregate": None,
}
GIVEN = {
    "--targets": ["vocals", "drums"],
    "--model": "umxl",
    "--outdir": "o",
    "--evaldir": "e",
    "--root": "r",
    "--subset": "train",
    "--cores": 3,
    "--is-wav": True,
    "--niter": 2,
    "--wiener-win-len": 300,
    "--residual": "rest",
    "--aggregate": {"x": ["vocals"]},
    "--dataset": "folder",
    "--download": True,
    "--estimates": "s",
    "--overwrite": True,
    "--softmask": True,
    "--offline": True,
    "--device": "reference",
    "--threads": 5,
    "--precision": "fast",
    "--bits": "float",
    "--method": "museval",
}


def words(flag: str, value: Any) -> list[str]:
    if value is True:
        return [flag]
    if isinstance(value, list):
        return [flag, *value]
    return [flag, json.dumps(value) if isinstance(value, dict) else str(value)]


@pytest.fixture(autouse=True)
def short_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    few = functools.partial(scores_and_doubts, nb_taps=32)
    monkeypatch.setattr(scores, "scores_and_doubts", few)


@pytest.fixture
def basic(songs: Path, model: Path) -> list[str]:
    return ["--dataset", "folder", "--root", str(songs), "--model", str(model)]


def test_options_of_open_unmix():
    parsed = vars(COMMAND.parser().parse_args([]))
    assert {name: parsed[name] for name in UPSTREAM} == UPSTREAM


@pytest.mark.parametrize("flag", GIVEN)
def test_every_option_reaches_its_argument(flag):
    default = evaluate_arguments(COMMAND.parser().parse_args([]))
    given = evaluate_arguments(COMMAND.parser().parse_args(words(flag, GIVEN[flag])))
    name = flag.removeprefix("--").replace("-", "_")
    assert given[name] == GIVEN[flag]
    assert {**given, name: default[name]} == default


def test_arguments_are_those_of_the_function():
    """With the same defaults, and none is forgotten."""
    parameters = inspect.signature(evaluate).parameters
    arguments = evaluate_arguments(COMMAND.parser().parse_args([]))
    assert set(arguments) == set(parameters)
    for name, parameter in parameters.items():
        if name != "progress":
            assert arguments[name] == parameter.default, name
    flags = {flag for action in COMMAND.parser()._actions for flag in action.option_strings}
    others = {"--no-cuda", "--plot", "--pandas", "--quiet", "--verbose", "--help"}
    others |= {"-n", "-o", "-j", "-q", "-v", "-h", "--no-offline", "--no-softmask", "--reproduce"}
    assert flags - others == set(GIVEN)


def test_devices_and_bars():
    assert evaluate_arguments(COMMAND.parser().parse_args(["--no-cuda"]))["device"] == "cpu"
    with pytest.raises(ConfigError, match="--no-cuda contradicts --device cuda:0; leave one out"):
        evaluate_arguments(COMMAND.parser().parse_args(["--no-cuda", "--device", "cuda:0"]))
    both = COMMAND.parser().parse_args(["--no-cuda", "--device", "reference"])
    assert evaluate_arguments(both)["device"] == "reference"
    assert evaluate_arguments(COMMAND.parser().parse_args(["--quiet"]))["progress"] is False
    assert evaluate_arguments(COMMAND.parser().parse_args([]))["progress"] is True


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--cores", "0"], "0 must be at least 1"),
        (["--niter", "-1"], "must not be negative"),
        (["--niter", "one"], "'one' is not a whole number"),
        (["--aggregate", "{"], "no valid JSON"),
        (["--aggregate", "[]"], "must be a JSON object"),
        (["--dataset", "x"], "invalid choice"),
        (["--tar", "vocals"], "unrecognized arguments"),
    ],
)
def test_mistakes_in_options(argv, message, capsys):
    with pytest.raises(SystemExit) as exit:
        COMMAND.parser().parse_args(argv)
    assert exit.value.code == 2
    assert message in capsys.readouterr().err


def test_command(basic, tmp_path, capsys, pandas):
    pytest.importorskip("matplotlib")
    evaldir, plot = tmp_path / "scores", tmp_path / "boxes.png"
    pickled = tmp_path / "tiny.pandas"
    argv = [*basic, "--evaldir", str(evaldir), "--plot", str(plot), "--pandas", str(pickled)]
    assert command.main(argv) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "tiny: niter 1, wiener_win_len whole track"
    assert lines[3].split()[0] == "vocals"
    assert "[3/3]" in err
    summary = json.loads((evaldir / "test_summary.json").read_text())
    assert f"{summary['median']['vocals']['SDR']:.3f}" in lines[3]
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert pickled.stat().st_size > 1000

    assert command.main([*argv[:8], "--quiet"]) == 0
    again, err = capsys.readouterr()
    assert again == out
    assert err == ""


def test_existing_stems(songs, stems_folder, capsys):
    argv = ["--dataset", "folder", "--root", str(songs), "--estimates", str(stems_folder)]
    assert command.main(argv) == 0
    assert capsys.readouterr().out.startswith(f"{stems_folder.name}: existing estimates\n")


def test_failures_show_in_the_exit_status(songs, stems_folder, tmp_path, capsys):
    for name in ("one", "two"):
        (tmp_path / name).symlink_to(stems_folder / name, target_is_directory=True)
    argv = ["--dataset", "folder", "--root", str(songs), "--quiet"]
    assert command.main([*argv, "--estimates", str(tmp_path)]) == 3
    out, err = capsys.readouterr()
    assert "error: three: track='three' has no estimates" in err
    assert "1 of 3 tracks could not be evaluated" in err
    assert "vocals" in out
    assert command.main([*argv, "--estimates", str(tmp_path / "none")]) == 1
    out, err = capsys.readouterr()
    assert err.startswith("umx-np: error: --estimates ")
    assert out == ""


@pytest.mark.parametrize(("option", "package"), [("--plot", "matplotlib"), ("--pandas", "pandas")])
def test_missing_packages_are_named_at_once(option, package, basic, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("umx_np.evaluation.runner.evaluate", lambda **arguments: pytest.fail("ran"))
    assert command.main([*basic, option, "file"]) == 1
    assert "umx-np[" in capsys.readouterr().err


def test_a_plot_is_a_png(basic, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr("umx_np.evaluation.runner.evaluate", lambda **arguments: pytest.fail("ran"))
    assert command.main([*basic, "--plot", "boxes.pdf"]) == 1
    assert "--plot boxes.pdf: the name must end in .png" in capsys.readouterr().err


def test_interruption(basic, monkeypatch, capsys):
    def interrupted(**arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("umx_np.evaluation.runner.evaluate", interrupted)
    assert command.main(basic) == 130
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="lists processes as POSIX does")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_command(songs, stems_folder, tmp_path, number):
    """Neither after an interruption nor when the one in charge is killed."""
    code = (
        "import signal, sys\nfrom umx_np.evaluate import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\nsys.exit(main())"
    )
    argv = ["--dataset", "folder", "--root", str(songs), "--estimates", str(stems_folder)]
    argv += ["--evaldir", str(tmp_path), "--cores", "2", "--threads", "2"]
    run = subprocess.Popen([sys.executable, "-c", code, *argv], start_new_session=True)
    deadline = time.monotonic() + 60.0
    while not list(tmp_path.glob("test/*.json")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(run.pid, number)
    assert run.wait(60) == (130 if number == signal.SIGINT else -number)
    while time.monotonic() < deadline:
        try:
            os.killpg(run.pid, 0)
        except ProcessLookupError:
            break
        time.sleep(0.02)
    else:
        os.killpg(run.pid, signal.SIGKILL)
        pytest.fail("processes were left behind")


def test_as_a_program():
    """Help needs nothing heavy, and without data the program says what it needs."""
    code = (
        "import sys\nfrom umx_np.evaluate import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit:\n"
        "    assert not {'scipy', 'museval', 'musdb', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    environment = {**os.environ, "HOME": "/nonexistent", "USERPROFILE": "/nonexistent"}
    environment.pop("MUSDB_PATH", None)
    run = subprocess.run(
        [sys.executable, "-m", "umx_np.evaluate"],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert run.returncode == 1
    assert "give the folder of MUSDB18 with --root" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.skipif(os.name == "nt", reason="there are no such signals")
def test_a_process_that_is_ended_removes_what_it_had_not_finished(tmp_path):
    """Ended as the others are when the command is interrupted, in the middle of a file."""
    code = """
import sys, time
from pathlib import Path
from umx_np.evaluation import work
from umx_np._support.atomic import atomic_write

folder = Path(sys.argv[1])

class Job:
    def estimates(self, threads): return None

def attempt(job, estimates, task, wait):
    with atomic_write(folder / "stem.wav") as file:
        file.write(b"RIFF")
        file.flush()
        (folder / "begun").touch()
        time.sleep(60.0)

work._attempt = attempt
work._begin(Job(), 1)
work._work(None, False)
"""
    run = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    deadline = time.monotonic() + 60.0
    while not (tmp_path / "begun").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert len(list(tmp_path.iterdir())) == 2
    run.terminate()
    assert run.wait(60) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["begun"]
