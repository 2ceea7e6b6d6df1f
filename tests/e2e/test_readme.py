"""What the README tells people to type works as it stands."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import umx_np

ROOT = Path(__file__).resolve().parents[2]
FIRST_COMMAND = (
    "python -m pip install . && python examples/make_example.py && "
    "umx-np separate example/song.wav --model example/model --outdir example/stems"
)
TEST_COMMAND = 'python -m pip install -e ".[test]" && python -m pytest'


def blocks_of(language: str, path: Path = ROOT / "README.md") -> list[str]:
    """Fenced code blocks of a language."""
    pattern = rf"^```{language}\n(.*?)^```$"
    return re.findall(pattern, path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)


def test_commands_are_single_lines():
    lines = [line for block in blocks_of("sh") for line in block.splitlines()]
    assert FIRST_COMMAND in lines
    assert TEST_COMMAND in lines


@pytest.mark.parametrize("document", ["README.md", "docs/guide.md"])
def test_python_examples(example, monkeypatch, document):
    """All blocks of a document, in their order, in one namespace, beside the example."""
    monkeypatch.chdir(example.folder)
    blocks = blocks_of("python", ROOT / document)
    assert blocks
    namespace: dict[str, object] = {}
    for number, block in enumerate(blocks):
        code = compile(block, f"{document}, block {number}", "exec")
        exec(code, namespace)


@pytest.mark.parametrize("document", ["README.md", "docs/guide.md"])
def test_command_line_examples_parse(document):
    """Every ``umx-np`` line of the documents is understood by the parser of the command."""
    from umx_np.cli import build_parser

    lines = [
        line.split("&&")[-1].strip()
        for block in blocks_of("sh", ROOT / document)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    lines = [line for line in lines if line.startswith("umx-np ")]
    assert lines
    for line in lines:
        arguments = shlex.split(line, comments=True)[1:]
        if "--help" not in arguments:  # help ends the program
            build_parser().parse_args(arguments)


def test_first_command_separates_the_example(example):
    """The stems that it writes resemble the stems that the song was mixed from."""
    command = shlex.split(FIRST_COMMAND.split("&&")[-1])
    assert command[0] == "umx-np"
    subprocess.run([sys.executable, "-m", "umx_np", *command[1:]], cwd=example.folder, check=True)
    written = example.folder / "example" / "stems" / "song"
    assert {path.name for path in written.iterdir()} == {f"{name}.wav" for name in example.stems}
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
