"""Many songs of strange names in a tree, some of them broken, with the real engine."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from helpers import signals

from umx_np.audio import write
from umx_np.commands import main

STEMS = ("vocals", "drums", "bass", "other")
NAMES = [
    *("plain", "two words", " spaces around ", "-dash", "--outdir", "~home", "{track}", "{dir}"),
    *("100%", "%s %d", "it's", 'quo"te', "new\nline", "tab\there", "back\\slash", "semi;colon"),
    *(
        "夜に駆ける",
        "Señor",
        "Sen\u0303or again",
        "\u202eright to left",
        "\x07bell",
        "🎵",
        "vocals",
    ),
    *("a&b", "$(HOME)", "`ls`", "*?[a-z]", "#hash", "comma,comma", "dots...", "x" * 180, "ü" * 80),
    *("no_vocals", "umx-np", "Ёлка", "שלום", "CON", "aux.", "song.wav", "song.stem", "json"),
    *("stdin", "=", "@file", "…dots"),
]
FOLDERS = [
    "",
    "a",
    "a/b",
    "a/b/c",
    "-f",
    "{relpath}",
    "with space/ ",
    "Ünïcode/夜",
    "no_vocals.wav",
    "%",
]

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has none of these names")


def make_tree(root, nb_songs, nb_broken):
    """Write songs and return them by whether they are whole; the broken ones are spread evenly."""
    audio = signals.music(2400, seed=7)[0].astype(np.float32)
    sound = write(root.parent / "sound.wav", audio, 44100).read_bytes()
    broken = {
        b"": "is empty",
        b"no sound": "holds no sound",
        sound[:40]: "",
    }
    songs = {}
    for number in range(nb_songs):
        folder = FOLDERS[number % len(FOLDERS)]
        name = f"{NAMES[number % len(NAMES)]}{number // len(NAMES) or ''}"
        path = root / folder / f"{name}.wav"
        if number == 1:  # no text at all
            path = Path(os.fsdecode(os.fsencode(path.with_name("x")) + b"\xf6\xff.wav"))
        path.parent.mkdir(parents=True, exist_ok=True)
        assert not path.exists()
        index = number * nb_broken // nb_songs
        is_broken = number == (2 * index + 1) * nb_songs // (2 * nb_broken)
        data = list(broken)[index % len(broken)] if is_broken else sound
        path.write_bytes(data)
        songs[path] = broken[data] if is_broken else None
    (root / "a" / "cover.jpg").write_bytes(b"\xff\xd8")
    return songs


def check(root, nb_songs, nb_broken, model_folder, capsys):
    songs = make_tree(root / "music", nb_songs, nb_broken)
    words = ["separate", "music", "--recursive", "--outdir", "out", "--model", str(model_folder)]
    options = ["--niter", "0", "--json", "--skip-existing"]
    assert main([*words, *options]) == 3
    said = capsys.readouterr()
    documents = [json.loads(line) for line in said.out.splitlines()]
    assert {document["input"] for document in documents} == {
        str(path.relative_to(root)) for path in songs
    }
    good = nb_songs - nb_broken
    assert f"{good} separated, {nb_broken} failed of {nb_songs} files" in said.err
    assert "1 files of other types are left out (.jpg)" in said.err
    expected = set()
    for document in documents:
        path = root / document["input"]
        if songs[path] is None:
            assert (document["status"], document["error"]) == ("separated", None)
            place = Path("out") / path.relative_to(root / "music").parent / (path.stem or path.name)
            wanted = {name: str(place / f"{name}.wav") for name in STEMS}
            assert document["stems"] == wanted
            expected.update(wanted.values())
            assert sf.info(os.fsencode(document["stems"]["bass"])).frames == 2400
        else:
            assert (document["status"], document["stems"]) == ("failed", {})
            assert document["error"]["type"] == "AudioError"
            assert repr(document["input"]) in document["error"]["message"]
            assert songs[path] in document["error"]["message"]
    found = {os.path.join(place, name) for place, _, names in os.walk("out") for name in names}
    assert {path for path in found if not os.path.basename(path).startswith(".")} == expected
    assert all(os.listdir(place) for place, _, _ in os.walk("out"))
    begin = time.process_time()
    assert main([*words, *options, "--quiet"]) == 3
    seconds = time.process_time() - begin
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [document["status"] for document in again].count("skipped") == good
    assert [d["stems"] for d in again] == [d["stems"] for d in documents]
    return seconds


def test_a_tree(tmp_path, monkeypatch, model_folder, capsys):
    monkeypatch.chdir(tmp_path)
    check(tmp_path, 24, 3, model_folder, capsys)


@pytest.mark.slow
def test_300_songs(tmp_path, monkeypatch, model_folder, capsys):
    """And the same again takes seconds, of the processor."""
    monkeypatch.chdir(tmp_path)
    assert check(tmp_path, 300, 3, model_folder, capsys) < 10.0
