"""docs/evaluation.md: its commands parse, its examples run, and its tables list every option."""

from __future__ import annotations

import functools
import re
import runpy
import shlex
from pathlib import Path

import pytest

from umx_np.evaluate import main
from umx_np.evaluation import bss_eval, scores
from umx_np.evaluation.options import build_parser, parse_options

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")


def blocks_of(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)


def test_commands_parse():
    lines = [line for block in blocks_of("sh") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("python -m umx_np.evaluate")]
    assert len(commands) >= 4
    for line in commands:
        parse_options(shlex.split(line)[3:])


@pytest.mark.slow
def test_examples(tmp_path, monkeypatch, capsys):
    """The table in the text is that of the first evaluation."""
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(ROOT / "examples/make_example.py"))["main"]([])
    with monkeypatch.context() as patch:
        patch.setattr(scores, "bss_eval", functools.partial(bss_eval, nb_taps=32))
        for number, block in enumerate(blocks_of("python")):
            exec(compile(block, f"evaluation.md, block {number}", "exec"), {})
    assert "vocals" in capsys.readouterr().out
    command = blocks_of("sh")[0].splitlines()[1]
    assert main(shlex.split(command)[3:]) == 0
    shown = TEXT.split("model: niter 1")[1].split("...")[0].splitlines()
    printed = capsys.readouterr().out.splitlines()
    assert len(shown) == 7
    for expected, line in zip(shown[1:], printed[1:], strict=False):
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
    flags = {flag for action in build_parser()._actions for flag in action.option_strings}
    assert listed == flags - {"-h", "--help"}


def test_links_lead_somewhere():
    headings = re.findall(r"^#+ (.*)$", TEXT, re.MULTILINE)
    slugs = {re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in headings}
    links = re.findall(r"\]\(#([^)]+)\)", TEXT)
    assert links
    assert set(links) <= slugs
