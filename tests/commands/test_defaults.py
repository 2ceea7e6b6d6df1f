"""Defaults of the user: where they come from, what goes before what, and what is wrong."""

from __future__ import annotations

import json
import os
import sys
from types import SimpleNamespace

import pytest

from umx_np._support.folders import is_first_time, user_config
from umx_np.commands import COMMANDS
from umx_np.commands.defaults import CONFIGURABLE

from .conftest import files


@pytest.fixture
def defaults(folder, monkeypatch):
    """Write a file of defaults for ``umx-np separate``, or another text."""
    monkeypatch.setenv("UMX_NP_CONFIG", str(folder / "my.toml"))

    def defaults(*lines, text=None):
        (folder / "my.toml").write_text(text or "\n".join(["[separate]", *lines]))

    return defaults


def test_the_command_line_goes_before_the_environment_and_that_before_the_file(
    engine, song, run, defaults, monkeypatch
):
    song()
    used = []
    for words in ((), ("--model", "typed")):
        for variable in (None, "environment"):
            for line in (None, 'model = "file"'):
                defaults(*([line] if line else []))
                if variable is None:
                    monkeypatch.delenv("UMX_NP_MODEL", raising=False)
                else:
                    monkeypatch.setenv("UMX_NP_MODEL", variable)
                assert run("separate", "song.wav", *words).status == 0
                used.append(engine.loaded[-1][0])
    assert used == ["umxm", "file", "environment", "environment", *["typed"] * 4]


def test_every_kind_of_option(engine, song, run, defaults, folder):
    defaults(
        'outdir = "out"',
        'ext = ".flac"',
        "niter = 0",
        "max-memory = 3",
        'targets = ["vocals", "drums"]',
        "softmask = true",
        "skip-existing = true",
        "wiener-win-len = 100",
    )
    song()
    assert run("separate", "song.wav").status == 0
    assert engine.loaded[0][1] == ["vocals", "drums"]
    assert engine.max_memory == 3_000_000
    assert (engine.separators[0]["niter"], engine.separators[0]["wiener_win_len"]) == (0, 100)
    assert files(folder / "out") == ["song/drums.flac", "song/vocals.flac"]
    assert run("separate", "song.wav").status == 0
    assert len(engine.separated) == 1
    assert run("separate", "song.wav", "--no-skip-existing", "--no-softmask").status == 0
    assert engine.separators[0]["softmask"] is True
    assert engine.separators[-1]["softmask"] is False
    assert len(engine.separated) == 2
    defaults('aggregate = { voice = ["vocals"] }', 'targets = "vocals,bass"')
    assert run("separate", "song.wav", "-o", "o").status == 0
    assert files(folder / "o") == ["song/voice.wav"]
    assert engine.loaded[-1][1] == ["vocals", "bass"]


@pytest.mark.parametrize(
    ("line", "words", "status"),
    [
        ('two-stems = "vocals"', ["--residual", "rest"], 0),
        ('residual = "rest"', ["--two-stems", "vocals"], 0),
        ('filename = "{dir}/{stem}{ext}"', ["-o", "out"], 0),
        ('outdir = "out"', ["--filename", "{dir}/{stem}{ext}"], 0),
        ('device = "cuda"', ["--no-cuda"], 0),
    ],
)
def test_what_is_typed_overrules_what_contradicts_it(
    engine, song, run, defaults, line, words, status
):
    song()
    defaults(line)
    result = run("separate", "song.wav", *words)
    assert result.status == status, result.err


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            ["colour = 1"],
            "[separate] colour is no option that can have a default; these are aggreg",
        ),
        (["outdri = 'x'"], "[separate] outdri is no option"),
        (["verbose = true"], "[separate] verbose is no option"),
        (["no-skip-existing = true"], "[separate] no-skip-existing is no option"),
        (["skip-existing = 1"], "[separate] skip-existing = 1 must be true or false"),
        (["niter = -1"], "[separate] niter = -1: -1 must not be negative"),
        (["niter = 'one'"], "[separate] niter = 'one': 'one' is not a whole number"),
        (["niter = true"], "[separate] niter = True must be text or a number"),
        (["bits = 8"], "[separate] bits = 8: invalid choice: '8'"),
        (["ext = ['.wav']"], "[separate] ext = ['.wav'] must be text or a number"),
        (["targets = ''"], "[separate] targets = '': '' names nothing"),
        (["ext = "], "is no valid TOML: Invalid value (at"),
        (["[sing]"], "'sing' must be a table of one of the commands separate, evaluate, download"),
    ],
)
def test_what_is_wrong_names_file_and_key(engine, song, run, defaults, folder, lines, message):
    song()
    defaults(*lines)
    result = run("separate", "song.wav")
    assert result.status == 1
    assert message in result.err
    assert str(folder / "my.toml") in result.err
    assert result.err.count("\n") == 1
    assert engine.loaded == []
    report = json.loads(run("info", "--json").out)["defaults"]
    assert message in report["error"]
    assert "not usable: " in run("info").out


def test_values_that_are_found_wrong_later_say_where_they_come_from(
    engine, song, run, defaults, folder, monkeypatch
):
    song()
    defaults('ext = ".xyz"')
    place = f"(in {folder / 'my.toml'})"
    assert f"--ext '.xyz' {place} cannot be written" in run("separate", "song.wav").err
    defaults('model = "nonsense"')
    assert f"--model 'nonsense' {place} is not known" in run("separate", "song.wav").err
    monkeypatch.setenv("UMX_NP_MODEL", "nonsense")
    assert "--model 'nonsense' (of UMX_NP_MODEL) is not" in run("separate", "song.wav").err
    assert "--model 'nonsense' is not" in run("separate", "song.wav", "-n", "nonsense").err


def test_tables_of_other_commands_are_theirs(run, engine, song, defaults):
    song()
    defaults(text="[evaluate]\nniter = 2\n[download]\noffline = true\n[separate]\nniter = 0")
    assert run("separate", "song.wav").status == 0
    assert engine.separators[0]["niter"] == 0
    assert "offline mode forbids" in run("download", "umxl").err
    assert run("download", "--no-offline", "umxm").status == 0


def test_of_evaluations(run, folder, defaults, monkeypatch):
    used = []

    def evaluate(**arguments):
        used.append((arguments["model"], arguments["niter"], arguments["offline"]))
        return SimpleNamespace(scores={}, failed={})

    monkeypatch.setattr("umx_np.evaluation.runner.evaluate", evaluate)
    defaults(text='[evaluate]\nmodel = "file"\nniter = 2\noffline = true\n[separate]\nniter = 0')
    run("evaluate")
    monkeypatch.setenv("UMX_NP_MODEL", "environment")
    run("evaluate", "--niter", "3", "--no-offline")
    run("evaluate", "--estimates", "stems")  # which need no model
    assert used == [("file", 2, True), ("environment", 3, False), (None, 2, True)]
    assert run("train", "--help").status == 0


def test_a_file_that_is_named_has_to_be_there(engine, song, run, folder, monkeypatch):
    song()
    monkeypatch.setenv("UMX_NP_CONFIG", "nowhere.toml")
    result = run("separate", "song.wav")
    assert result.status == 1
    assert "the file of defaults, path='nowhere.toml' cannot be read: it does not exist; UM" in (
        result.err
    )
    # Help and what has no defaults are not kept from who mends it.
    assert run("separate", "--help").status == 0
    assert run("models").status == 0
    assert run("info").status == 0


@pytest.mark.skipif(sys.platform != "linux", reason="where it is differs")
def test_where_it_is(engine, song, run, folder, monkeypatch):
    song()
    monkeypatch.delenv("UMX_NP_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "home"))
    path = folder / "home" / "umx_np" / "config.toml"
    assert user_config() == (path, False)
    assert run("separate", "song.wav").status == 0
    assert f"{path} (none)" in run("info").out
    path.parent.mkdir(parents=True)
    path.write_text('[separate]\noutdir = "out"')
    assert run("separate", "song.wav").status == 0
    assert len(files(folder / "out")) == 4
    assert f"{path} (separate outdir='out')" in run("info").out
    monkeypatch.setenv("UMX_NP_CONFIG", "")
    assert user_config() == (None, True)
    assert "none, since UMX_NP_CONFIG is empty" in run("info").out


def test_the_notice_about_the_default_model_comes_once(engine, song, run, folder, monkeypatch):
    song()
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    monkeypatch.setattr("platformdirs.user_state_dir", lambda name: os.environ["XDG_STATE_HOME"])
    assert "using umxm" not in run("separate", "song.wav", "--quiet").err
    assert "using umxm" not in run("separate", "song.wav", "-n", "umxm").err
    assert "using umxm" in run("separate", "song.wav").err
    assert "using umxm" not in run("separate", "song.wav").err
    assert is_first_time("another")
    assert not is_first_time("another")
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "song.wav"))  # nothing can be written there
    assert "using umxm" in run("separate", "song.wav").err
    assert "using umxm" in run("separate", "song.wav").err


def test_every_configurable_command_is_one():
    assert {*CONFIGURABLE} <= {*COMMANDS}
