"""What the README tells people to type works as it stands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from helpers.documents import ROOT, blocks_of

import umx_np

FIRST_COMMAND = (
    'python -m pip install ".[plot]" && '
    "umx-np separate examples/song.ogg --reference examples/song --plot song.png"
)
TEST_COMMAND = 'python -m pip install -e ".[test]" && python -m pytest'


def test_commands_are_single_lines():
    lines = [line for block in blocks_of("sh", "README.md") for line in block.splitlines()]
    assert FIRST_COMMAND in lines
    assert TEST_COMMAND in lines


@pytest.fixture(scope="module")
def beginning(example, tmp_path_factory):
    """Folder with the first seconds of the example: the command below separates all of it."""
    folder = tmp_path_factory.mktemp("beginning")
    for path in example.folder.glob("examples/**/*.ogg"):
        copy = folder / path.relative_to(example.folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        audio, rate = umx_np.audio.read(path, duration=5.0)
        umx_np.audio.write(copy, audio, rate)
    return folder


@pytest.mark.parametrize("document", ["README.md", "docs/guide.md"])
def test_python_examples(beginning, monkeypatch, document):
    """All blocks of a document, in their order, in one namespace, beside the example."""
    monkeypatch.chdir(beginning)
    blocks = blocks_of("python", document)
    assert blocks
    namespace: dict[str, object] = {}
    for number, block in enumerate(blocks):
        code = compile(block, f"{document}, block {number}", "exec")
        exec(code, namespace)


def scores_in(table: str) -> dict[str, tuple[float, float, float]]:
    """Numbers of the table that the command prints: SDR of stem and mixture, and the gain."""
    rows = re.findall(r"^(\w+) +(\S+) +(\S+) +(\S+)$", table, flags=re.MULTILINE)
    return {name: tuple(map(float, numbers)) for name, *numbers in rows}


def test_first_command_separates_the_example(example):
    """The stems are those that the song was mixed from, as well as examples/README.md says."""
    pytest.importorskip("matplotlib")
    command = shlex.split(FIRST_COMMAND.split("&&")[-1])
    assert command[0] == "umx-np"
    program = [sys.executable, "-m", "umx_np", *command[1:]]
    done = subprocess.run(program, cwd=example.folder, check=True, capture_output=True, text=True)
    written = example.folder / "song_umxm"
    assert {path.name for path in written.glob("[!.]*")} == {
        f"{name}.wav" for name in example.stems
    }
    for name in example.stems:
        audio, rate = umx_np.audio.read(written / f"{name}.wav")
        assert rate == example.rate
        assert audio.shape == example.stems[name].shape
        likeness = {
            other: np.corrcoef(audio.ravel(), stem.ravel())[0, 1]
            for other, stem in example.stems.items()
        }
        assert max(likeness, key=likeness.get) == name, likeness
        assert likeness[name] > 0.6, likeness
    assert (example.folder / "song.png").stat().st_size > 100_000
    scores = scores_in(done.stdout)
    noted = scores_in((ROOT / "examples" / "README.md").read_text(encoding="utf-8"))
    assert list(scores) == list(noted) == list(example.stems)
    for name, (stem, mixture, gain) in scores.items():
        # Another processor moves the last digit, another decoder of Vorbis hardly more.
        assert stem == pytest.approx(noted[name][0], abs=0.1)
        assert mixture == pytest.approx(noted[name][1], abs=0.1)
        assert gain > 3.0


def test_the_example_is_small():
    files = [path for path in (ROOT / "examples").rglob("*.ogg") if path.is_file()]
    assert len(files) == 5
    assert sum(path.stat().st_size for path in files) < 1_000_000
