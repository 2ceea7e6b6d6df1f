"""``umx-np separate`` of many files: failures, folders, patterns, names that meet."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from umx_np.commands import main

from .conftest import STEMS, files


def test_batch_with_a_bad_file(engine, song, run, folder):
    song("a.wav")
    (folder / "b.wav").write_text("no sound")
    song("c.wav")
    result = run("separate", "a.wav", "b.wav", "missing.wav", "c.wav", "--outdir", "out")
    assert result.status == 3
    assert len(engine.loaded) == len(engine.separators) == 1
    assert engine.separated == ["a.wav", "c.wav"]
    assert "error: path='b.wav' holds no sound" in result.err
    assert "error: path='missing.wav' cannot be opened" in result.err
    assert "2 separated, 2 failed of 4 files" in result.err
    assert "Traceback" not in result.err
    assert {name.split("/")[0] for name in files(folder / "out")} == {"a", "c"}


def test_names_that_are_too_long_do_not_stop_the_batch(engine, song, run, folder):
    song("a.wav")
    long = "x" * 251 + ".wav"  # a file may be called so, but no folder with "_umxm" behind
    (folder / long).write_bytes((folder / "a.wav").read_bytes())
    result = run("separate", "y" * 300, long, "a.wav")
    assert result.status == 3
    assert "1 separated, 2 failed of 3 files" in result.err
    assert "Traceback" not in result.err


def test_a_program_without_a_console(engine, song, run, monkeypatch, capsys):
    song()
    monkeypatch.setattr("sys.stderr", None)
    assert main(["separate", "song.wav"]) == 0
    assert main(["separate", "missing.wav"]) == 1
    assert capsys.readouterr().out.splitlines() == [f"song_umxm/{stem}.wav" for stem in STEMS]


def test_unexpected_errors_do_not_stop_the_batch_either(engine, song, run, folder):
    song("a.wav")
    song("b.wav")

    def fail(path):
        if path.name == "a.wav":
            raise MemoryError("too long")

    engine.before = fail
    result = run("separate", "a.wav", "b.wav")
    assert result.status == 3
    assert "MemoryError: too long" in result.err
    assert engine.separated == ["b.wav"]
    assert not (folder / "a_umxm").exists()


def test_fail_fast(engine, song, run):
    song("b.wav")
    result = run("separate", "a.wav", "b.wav", "--fail-fast")
    assert result.status == 1
    assert engine.separated == []
    assert "1 failed, 1 left out of 2 files" in result.err
    result = run("separate", "b.wav", "a.wav", "b.wav", "c.wav", "--fail-fast")
    assert result.status == 3
    assert "1 separated, 1 failed, 1 left out of 3 files" in result.err


def test_all_failed_is_another_status_than_some(engine, song, run, folder):
    song("a.wav")
    for name in ("b.wav", "c.wav"):
        (folder / name).write_text("no sound")
    assert run("separate", "b.wav", "c.wav").status == 1
    assert run("separate", "a.wav", "b.wav").status == 3
    assert run("separate", "a.wav").status == 0
    # What is skipped is there, and so has not failed.
    assert run("separate", "a.wav", "b.wav", "--skip-existing").status == 3


@pytest.mark.parametrize("error", [OSError("gone"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_file_that_failed(engine, song, run, folder, error):
    song()
    (folder / "out").mkdir()
    calls = []

    def fail_late():
        calls.append(True)
        raise error

    engine.after_block = fail_late
    result = run("separate", "song.wav", "--outdir", "out/deep")
    assert calls
    assert result.status == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert files(folder) == ["song.wav"]
    assert [path.name for path in folder.iterdir() if path.is_dir()] == ["out"]
    assert list((folder / "out").iterdir()) == []
    if result.status == 130:
        assert result.err.endswith("umx-np: interrupted\n")


def test_folders_are_sorted_and_not_searched_deeply(engine, song, run):
    for name in ("m/b.flac", "m/A.WAV", "m/.hidden.wav", "m/deep/c.wav"):
        song(name)
    Path("m/cover.jpg").touch()
    assert run("separate", "m", "m/b.flac", "--outdir", "out").status == 0
    assert engine.separated == ["A.WAV", "b.flac"]
    Path("empty").mkdir()
    result = run("separate", "empty")
    assert result.status == 1
    assert "input='empty': the folder holds no sound files" in result.err


def test_patterns_that_the_shell_left(engine, song, run):
    song("a1.wav")
    song("a2.wav")
    assert run("separate", "a*.wav").status == 0
    assert engine.separated == ["a1.wav", "a2.wav"]


@pytest.mark.parametrize("names", [("x/01.wav", "y/01.wav"), ("01.wav", "01.flac")])
def test_inputs_that_would_share_their_outputs(engine, song, run, folder, names):
    for name in names:
        song(name)
    result = run("separate", *names, "--outdir", "out")
    assert result.status == 1
    assert "would both be" in result.err
    assert "--filename" in result.err
    assert engine.separated == []
    template = "{parent}/{name}/{stem}{ext}"
    assert run("separate", *names, "--outdir", "out", "--filename", template).status == 0
    assert len(files(folder / "out")) == 8


def test_what_is_left_out_of_a_folder_is_said(engine, song, run, folder):
    for name in ("a.WAV", "b.wav"):
        song(f"album/{name}")
    for name in ("cover.jpg", "list.m3u", "c.xyz", "README", ".hidden"):
        (folder / "album" / name).write_text("x")
    result = run("separate", "album")
    assert result.status == 0
    assert engine.separated == ["a.WAV", "b.wav"]
    assert "album: 4 files of other types are left out (.jpg .m3u .xyz none)" in result.err
    assert "left out" not in run("separate", "album/a.WAV").err


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_inputs_that_cannot_be_reached_say_why(engine, run, folder):
    os.symlink("nowhere", "broken.wav")
    os.symlink("loop.wav", "loop.wav")
    assert "No such file" in run("separate", "broken.wav").err
    assert "symbolic links" in run("separate", "loop.wav").err
    (folder / "file").write_text("x")
    assert "Not a directory" in run("separate", "file/song.wav").err
    assert engine.loaded == []


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_an_input_is_not_replaced_by_another_name(engine, song, run, folder):
    audio = song("one.wav")
    (folder / "one").mkdir()
    os.link("one.wav", "one/vocals.wav")
    song("two.wav")
    result = run("separate", "two.wav", "one.wav", "--outdir", ".")
    assert result.status == 1
    assert "would be replaced by a stem" in result.err
    np.testing.assert_array_equal(sf.read("one.wav")[0].T, audio)
