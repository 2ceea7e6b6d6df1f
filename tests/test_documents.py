"""All documents: their links lead somewhere, and the commands that they show are understood."""

from __future__ import annotations

import argparse
import importlib
import runpy
import shlex
import sys
from collections.abc import Callable

import pytest
from helpers.documents import (
    ROOT,
    anchors_of,
    blocks_of,
    commands_in,
    documents,
    links_in,
    text_of,
)

from umx_np import commands as cli
from umx_np.commands import data, train
from umx_np.data import parse_dataset_options

sys.path.append(str(ROOT))

from benchmarks import run_all
from benchmarks.gpu import run as gpu_run

DOCUMENTS = documents()
# Not ours to check.
FOREIGN = {
    *(".", "apt-get", "cat", "curl", "docker", "export", "ffmpeg"),
    *("python -m pip", "python -m pytest", "python -m sphinx", "python -m venv"),
}


def parse_program(words: list[str]) -> object:
    if words[0] == "data" and "--help" not in words:
        return parse_dataset_options(data.COMMAND.parser(), words[1:])
    # With a checkpoint, its folder would be read.
    if words[0] == "train" and "--checkpoint" not in words:
        return train.parse_options(words[1:])
    return cli.build_parser(words[0]).parse_args(words)


PARSERS: dict[str, Callable[[list[str]], object]] = {
    "umx-np": parse_program,
    "python -m benchmarks.gpu.run": gpu_run.options,
    "python -m benchmarks.run_all": run_all.options,
}
# They make their parsers where they run.
MAINS = [
    "python examples/make_example.py",
    "python -m recipes.umxm.training.grow",
    "python -m recipes.umxm.songs.instrumentals",
    "python -m recipes.umxm.training.joint",
    "python -m recipes.umxm.training.package",
    "python -m recipes.umxm.songs.render",
    "python -m recipes.umxm.training.train",
]
PROGRAMS = [*PARSERS, *MAINS]


def run_until_parsed(program: str, arguments: list[str]) -> None:
    """Run a program to where it has parsed its arguments; there it exits."""
    name = program.split()[-1]
    if name.endswith(".py"):
        main = runpy.run_path(str(ROOT / name))["main"]
    else:
        main = importlib.import_module(name).main
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_exit(*given: object) -> None:
        parse_args(*given)  # type: ignore[call-overload]
        sys.exit(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [name, *arguments])
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_exit)
        main()
    pytest.fail(f"{program} has parsed nothing")


def is_understood(program: str, arguments: list[str]) -> bool:
    try:
        if program in PARSERS:
            PARSERS[program](arguments)
        else:
            run_until_parsed(program, arguments)
    except SystemExit as end:
        return end.code in (None, 0)  # as after --help
    return True


@pytest.mark.parametrize("program", PROGRAMS)
def test_commands_are_understood(program):
    commands = [command for name in DOCUMENTS for command in commands_in(name, program)]
    assert commands
    for _, arguments in commands:
        assert is_understood(program, arguments), shlex.join([program, *arguments])
    without_help = [arguments for _, arguments in commands if "--help" not in arguments]
    assert not is_understood(program, [*without_help[0], "--no-such-option"])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_nothing_is_overlooked(document):
    """Every fence belongs to a block that is found, and every command to a known program."""
    fences = [line for line in text_of(document).splitlines() if line.lstrip().startswith("```")]
    assert len(fences) == 2 * len(blocks_of(None, document))
    assert {program for program, _ in commands_in(document)} <= {*PROGRAMS, *FOREIGN}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    for link in links_in(document):
        name, _, anchor = link.partition("#")
        path = ((ROOT / document).parent / name if name else ROOT / document).resolve()
        assert path.exists(), link
        if anchor:
            assert anchor in anchors_of(path.relative_to(ROOT).as_posix()), link


def test_every_document_is_a_page_of_the_site():
    listed = text_of("docs/index.rst").split()
    for document in DOCUMENTS:
        folder, _, name = document.rpartition("/")
        assert folder != "docs" or name.removesuffix(".md") in listed, document


def test_all_documents_are_found():
    assert {"README.md", "CHANGELOG.md", "docs/guide.md", "recipes/umxm/README.md"} <= {*DOCUMENTS}
    assert sum(len(links_in(document)) for document in DOCUMENTS) > 50
