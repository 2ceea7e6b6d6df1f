"""docs/evaluation.md: its examples run, and its tables list every option."""

from __future__ import annotations

import functools
import re
import runpy

import pytest
from helpers.documents import ROOT, blocks_of, commands_in, text_of

from umx_np.commands.evaluate import COMMAND
from umx_np.evaluate import main
from umx_np.evaluation import scores
from umx_np.evaluation.bss import scores_and_doubts

DOCUMENT = "docs/evaluation.md"
TEXT = text_of(DOCUMENT)


@pytest.mark.slow
def test_examples(tmp_path, monkeypatch, capsys):
    """The table in the text is that of the first evaluation."""
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples/make_example.py"))["main"]([])
    with monkeypatch.context() as patch:
        few = functools.partial(scores_and_doubts, nb_taps=32)
        patch.setattr(scores, "scores_and_doubts", few)
        for number, block in enumerate(blocks_of("python", DOCUMENT)):
            exec(compile(block, f"evaluation.md, block {number}", "exec"), {})
    assert "vocals" in capsys.readouterr().out
    _, (command, *arguments) = commands_in(DOCUMENT, "umx-np")[0]
    assert command == "evaluate"
    assert main(arguments) == 0
    shown = blocks_of("", DOCUMENT)[0].removesuffix("...\n").splitlines()
    printed = capsys.readouterr().out.splitlines()
    assert len(shown) == 7
    assert len(printed) > len(shown)
    for expected, line in zip(shown, printed[:7], strict=True):
        for a, b in zip(expected.split(), line.split(), strict=True):
            # Other processors round otherwise.
            assert a == b or float(a) == pytest.approx(float(b), abs=0.01)


def test_all_options_are_listed():
    section = TEXT.split("\n## Options\n")[1].split("\n## ")[0]
    listed = {
        flag
        for names in re.findall(r"^\| (`--[^|]*)\|", section, flags=re.MULTILINE)
        for flag in re.findall(r"--[a-z-]+", names)
    }
    flags = {flag for action in COMMAND.parser()._actions for flag in action.option_strings}
    short = {flag for flag in flags if not flag.startswith("--")}
    # Switches that are off: these undo what a file of defaults says.
    undone = {f"--no-{flag[2:]}" for flag in ("--softmask", "--offline")}
    assert undone <= flags
    assert listed == flags - short - undone - {"--help"}
