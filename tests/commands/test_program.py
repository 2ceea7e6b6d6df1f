"""One program: what its commands have in common, and the modules that are the same code."""

from __future__ import annotations

import argparse
import os
import re
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from umx_np.commands import COMMANDS, build_parser, main
from umx_np.commands.evaluate import COMMAND as EVALUATE
from umx_np.commands.frame import status_of
from umx_np.data.augmentations import AUGMENTATIONS
from umx_np.data.loader import MODES
from umx_np.data.options import AUGMENTATIONS as NAMES
from umx_np.evaluation.scores import METHODS
from umx_np.evaluation.tracks import DATASETS

MODULES = {"train": "umx_np.train", "evaluate": "umx_np.evaluate", "data": "umx_np.data.__main__"}


@pytest.mark.parametrize("command", MODULES)
def test_a_module_is_the_command(command, capsys):
    shown = []
    for call, words in (
        (main, [command, "--help"]),
        (import_module(MODULES[command]).main, ["--help"]),
    ):
        with pytest.raises(SystemExit) as end:
            call(words)
        assert end.value.code == 0
        shown.append(capsys.readouterr().out)
    assert shown[0] == shown[1]
    assert shown[0].startswith(f"usage: umx-np {command} ")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_speaks_the_same_dialect(command):
    parser = COMMANDS[command].parser()
    flags = {flag: action for action in parser._actions for flag in action.option_strings}
    for short, long in (("-q", "--quiet"), ("-v", "--verbose")):
        assert flags[short] is flags[long]
    for flag, action in flags.items():
        assert action.help is not argparse.SUPPRESS, flag
        assert flag.startswith("--") == (len(flag) > 2)
    # Who can be told where to compute can be told in all three ways.
    where = {"--device", "--no-cuda", "--threads"} & set(flags)
    assert len(where) in (0, 3)


def test_choices_are_those_of_the_functions():
    """The parsers name them themselves, so that they need no imports."""
    options = {action.dest: action for action in EVALUATE.parser()._actions}
    assert tuple(options["method"].choices) == METHODS
    assert tuple(options["dataset"].choices) == DATASETS
    options = {action.dest: action for action in COMMANDS["data"].parser()._actions}
    assert tuple(options["workers_mode"].choices) == MODES
    assert sorted(AUGMENTATIONS) == list(NAMES)


def test_exit_statuses_are_documented():
    assert [status_of(2, 0), status_of(0, 0), status_of(0, 2), status_of(1, 1)] == [0, 0, 1, 3]
    statuses = re.findall(r"^  (\d+) ", build_parser("").epilog, re.MULTILINE)
    assert statuses == ["0", "1", "2", "3", "130", "141"]
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text()
    assert re.findall(r"^\| (\d+) \|", guide, re.MULTILINE) == statuses


def test_some_models_that_cannot_be_had(run, monkeypatch, tmp_path):
    from umx_np.errors import DownloadError

    def download(name, targets=None, **options):
        if name == "umx":
            raise DownloadError("model='umx' is not here")
        return {"vocals": tmp_path / "vocals.pth"}

    monkeypatch.setattr("umx_np.pretrained.download", download)
    result = run("download", "umx", "umxhq", "--quiet")
    assert (result.status, result.out) == (3, f"{tmp_path / 'vocals.pth'}\n")
    assert result.err == "umx-np: error: model='umx' is not here\n"
    assert run("download", "umx").status == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "--lr", "-1"], "--lr -1.0 must be"),
        (["train", "--nfft", "0"], "--nfft 0 must be at least 1"),
        (["train", "--momentum", "0.5"], "--momentum 0.5 is for --optimizer sgd"),
        (["evaluate", "--estimates", "nowhere"], "--estimates 'nowhere' is no folder"),
        (["evaluate", "--dataset", "folder"], "--root None"),
        (["data", "--dataset", "sourcefolder"], "--target-dir ..."),
        (["data", "--target-file", "x"], "--target-file 'x' is no option of --dataset musdb"),
        (
            ["data", "--dataset", "trackfolder_var", "--target-file", "x"],
            "--root None: --dataset trackfolder_var needs a folder",
        ),
    ],
)
def test_messages_name_options(run, words, message):
    result = run(*words)
    assert result.status in (1, 2)
    assert message in result.err
    assert re.search(r"^umx-np( data)?: error: ", result.err, re.MULTILINE)


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
@pytest.mark.parametrize("command", MODULES)
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_signals_end_every_command_alike(tmp_path, command, name, status):
    """Before a training runs, it is ended like the others."""
    begun = tmp_path / "begun"
    code = f"""
import signal, sys, time
from pathlib import Path
import umx_np.commands.{command} as command
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

def slow(args):
    Path({str(begun)!r}).touch()
    time.sleep(60.0)

object.__setattr__(command.COMMAND, "run", slow)
from umx_np.__main__ import run
sys.exit(run({command!r}, []))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60.0
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(getattr(signal, name))
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(60) == status
    assert "Traceback" not in err
