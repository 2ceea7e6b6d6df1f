"""Every command that the user's guide shows runs; a small model is in place of the others."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import signals
from helpers.documents import lines_of, section_of

import umx_np
from umx_np.audio import read, write
from umx_np.commands import main
from umx_np.weights import load_folder, save_folder

SECTION = section_of("docs/guide.md", "On the command line")
# A server does not end by itself; tests/serve starts it.
LINES = [line for line in lines_of("sh", SECTION) if not line.startswith("umx-np serve")]
PIPES = [line for line in LINES if "|" in shlex.split(line)]
RATE = 44100
STEMS = ("vocals", "drums", "bass", "other")


@pytest.fixture(scope="module")
def desk(tmp_path_factory, bundle):
    """A folder with all that the commands name; songs of a quarter of a second."""
    folder = tmp_path_factory.mktemp("desk")
    audio = signals.music(RATE // 4, seed=3)[0].astype(np.float32)
    for name in ("song.wav", "song.mp3", "examples/song.ogg", "album/a.mp3", "album/b.flac"):
        write(folder / name, audio, RATE)
    for name in ("music/rock/01 One.mp3", "music/rock/live/01 One.wav", "music/02.ogg"):
        write(folder / name, audio, RATE)
    write(folder / "song.wav", np.tile(audio, 9), RATE)  # of which an excerpt is taken at 2 s
    write(folder / "concert.wav", np.repeat(audio, 3, axis=0), RATE)  # of six channels
    for name in STEMS:
        for song in "ab":
            write(folder / "true-stems" / song / f"{name}.wav", audio, RATE)
    save_folder(bundle, folder / "umxhq-folder", format="pth")
    shutil.copy(folder / "umxhq-folder" / "vocals.pth", folder)
    if shutil.which("ffmpeg"):
        words = ["ffmpeg", "-loglevel", "error", "-i", folder / "song.mp3", "-c:a", "aac"]
        subprocess.run([*words, folder / "video.mp4"], check=True, stdin=subprocess.DEVNULL)
        tracks = [*words, "-map", "0:a", "-map", "0:a", folder / "film.mkv"]
        subprocess.run(tracks, check=True, stdin=subprocess.DEVNULL)
    return folder


@pytest.fixture
def here(desk, tmp_path, monkeypatch, bundle):
    """Work in a copy of that folder, where every name of a model is that of the small one."""
    shutil.copytree(desk, tmp_path / "desk")
    monkeypatch.chdir(tmp_path / "desk")

    def load_model(name, targets=None, **options):
        return load_folder(desk / "umxhq-folder", targets)

    def download(name, targets=None, **options):
        return {target: desk / f"{target}.pth" for target in targets or STEMS}

    monkeypatch.setattr("umx_np.pretrained.load_model", load_model)
    monkeypatch.setattr("umx_np.pretrained.download", download)
    return Path.cwd()


def test_there_are_commands_for_everything():
    shown = "\n".join(LINES)
    options = ("--recursive", "{dir}", "{relpath}", "--two-stems", "--only", "--json", "--dry-run")
    options += ("--bitrate", "--no-tags", "--clip-mode rescale", "--track", "--downmix")
    for word in (*options, " -o ", "--skip-existing", "--targets vocals,drums", "UMX_NP_MODEL"):
        assert word in shown
    assert len(PIPES) == 3
    assert len(LINES) > 25


@pytest.mark.parametrize("line", [line for line in LINES if line not in PIPES])
def test_a_command(here, line, capsys, monkeypatch):
    words = shlex.split(line)
    if words[0] == "export":
        name, _, value = words[1].partition("=")
        monkeypatch.setenv(name, value)
        words = ["umx-np", "separate", "song.mp3"]
    if "--plot" in words:
        pytest.importorskip("matplotlib")
    if "--track" in words and shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    if line.endswith(".onnx"):
        pytest.importorskip("onnx")
    if "completion" in words:
        pytest.importorskip("shtab")
    assert words[0] == "umx-np"
    assert main(words[1:]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert out
    if words[1] == "separate" and "--json" not in words and "--reference" not in words:
        paths = out.splitlines()
        assert all(Path(path).is_file() != ("--dry-run" in words) for path in paths)
        if "--recursive" in words:
            assert len(paths) == 3 * len(STEMS)


@pytest.mark.skipif(os.name == "nt", reason="needs a shell of POSIX")
@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
@pytest.mark.parametrize("line", PIPES)
def test_a_pipe(here, line, tmp_path):
    """In a shell, where a small model is the default."""
    program = tmp_path / "bin" / "umx-np"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m umx_np "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(Path(umx_np.__file__).parents[1]),
        "UMX_NP_MODEL": str(here / "umxhq-folder"),
    }
    done = subprocess.run(
        ["sh", "-ec", line], env=environment, capture_output=True, check=False, cwd=here
    )
    assert done.returncode == 0, done.stderr
    assert b"rror" not in done.stderr
    if line.endswith("vocals.mp3"):
        assert read("vocals.mp3")[0].shape[1] >= RATE // 4
    elif "stems" in line:
        assert done.stdout.decode().splitlines() == [f"stems/stdin/{s}.wav" for s in STEMS]
    else:
        assert done.stdout.startswith(b"fLaC")


def test_the_file_of_defaults(here, monkeypatch, capsys):
    (here / "my.toml").write_text("\n".join(lines_of("toml", SECTION)))
    monkeypatch.setenv("UMX_NP_CONFIG", "my.toml")
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(here))
    assert main(["separate", "song.mp3"]) == 0, capsys.readouterr().err
    assert capsys.readouterr().out.splitlines() == [
        str(here / "stems" / "song" / f"{name}.flac") for name in ("vocals", "drums")
    ]
    assert main(["info", "--json"]) == 0
    defaults = json.loads(capsys.readouterr().out)["defaults"]
    assert defaults["error"] is None
    assert defaults["values"]["evaluate"] == {"threads": 4}


def test_the_keys_of_the_line_of_json(here, capsys):
    options = ["--reference", "true-stems/a", "--json", "--quiet"]
    assert main(["separate", "album/a.mp3", *options]) == 0
    document = json.loads(capsys.readouterr().out)
    rows = re.findall(r"^\| (`.*?`) \|", SECTION.partition("### For programs")[2], re.MULTILINE)
    assert [key for row in rows for key in re.findall(r"`(\w+)`", row)][: len(document)] == list(
        document
    )
