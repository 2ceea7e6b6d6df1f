"""docs/training-data.md: its examples run, and it names every dataset and option."""

from __future__ import annotations

import argparse

from helpers.documents import blocks_of, commands_in, text_of

from umx_np.commands.data import build_parser
from umx_np.data.options import DATASETS, parse_dataset_options

DOCUMENT = "docs/training-data.md"


def test_examples_run() -> None:
    names: dict[str, object] = {"__name__": "example"}
    for block in blocks_of("python", DOCUMENT):
        exec(compile(block, DOCUMENT, "exec"), names)
    assert "std" in names


def test_the_class_is_as_short_as_promised() -> None:
    (code,) = (block for block in blocks_of("python", DOCUMENT) if "class " in block)
    assert 15 <= len([line for line in code.split("class ")[1].splitlines() if line]) <= 22


def test_every_dataset_has_a_command() -> None:
    commands = commands_in(DOCUMENT, "python -m umx_np.data")
    parsed = [parse_dataset_options(build_parser(), arguments) for _, arguments in commands]
    assert {args.dataset for args in parsed} == set(DATASETS)


def test_every_option_of_a_dataset_is_explained() -> None:
    text = text_of(DOCUMENT)
    parser = build_parser()
    flags = {
        action.option_strings[0]
        for action in parser._actions
        if action.default is argparse.SUPPRESS and action.dest != "help"
    }
    assert len(flags) == 18
    assert {flag for flag in flags if flag not in text} == set()
