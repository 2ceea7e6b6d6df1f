"""docs/training-data.md: its examples run, its commands parse, and it names every option."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from umx_np.data.__main__ import build_parser
from umx_np.data.options import DATASETS, parse_dataset_options

PAGE = Path(__file__).parents[2] / "docs" / "training-data.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)


def commands() -> list[list[str]]:
    lines = "".join(blocks("sh")).replace("\\\n", " ").splitlines()
    return [shlex.split(line) for line in lines]


def test_examples_run() -> None:
    names: dict[str, object] = {"__name__": "example"}
    for block in blocks("python"):
        exec(compile(block, str(PAGE), "exec"), names)
    assert "std" in names


def test_the_class_is_as_short_as_promised() -> None:
    (code,) = (block for block in blocks("python") if "class " in block)
    assert 15 <= len([line for line in code.split("class ")[1].splitlines() if line]) <= 22


@pytest.mark.parametrize("command", commands(), ids=lambda command: " ".join(command[3:6]))
def test_commands_parse(command: list[str]) -> None:
    assert command[:3] == ["python", "-m", "umx_np.data"]
    args = parse_dataset_options(build_parser(), command[3:])
    assert args.dataset == command[4]


def test_every_dataset_has_a_command() -> None:
    assert {command[4] for command in commands()} == set(DATASETS)


def test_every_option_of_a_dataset_is_explained() -> None:
    text = PAGE.read_text("utf-8")
    parser = build_parser()
    flags = {
        action.option_strings[0]
        for action in parser._actions
        if action.default is argparse.SUPPRESS and action.dest != "help"
    }
    assert len(flags) == 18
    assert {flag for flag in flags if flag not in text} == set()
