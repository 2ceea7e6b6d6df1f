"""``umx-np completion``: what lets a shell complete the words of this program."""

from __future__ import annotations

import argparse
import importlib

from .._support.console import show
from ..errors import ConfigError
from .frame import PROGRAM, Command

SHELLS = ("bash", "zsh", "tcsh")
_PLACES = ("SONG", "SRC", "DST", "FILE", "FOLDER", "DIR", "PLAN")

_EPILOG = f"""\
examples:
  {PROGRAM} completion bash > ~/.local/share/bash-completion/completions/{PROGRAM}
  {PROGRAM} completion zsh > ~/.zfunc/_{PROGRAM}      (a folder in fpath)"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser."""
    parser.add_argument("shell", choices=SHELLS, help="the shell")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from . import build_parser

    try:
        shtab = importlib.import_module("shtab")
    except ImportError as error:
        raise ConfigError(
            "completion needs the package shtab; install the extra completion of umx-np"
        ) from error
    parser = build_parser()
    _complete_places(parser, shtab.FILE)
    show(shtab.complete(parser, args.shell))
    return 0


def _complete_places(parser: argparse.ArgumentParser, how: object) -> None:
    """Let names of files and folders be completed where they are expected."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for other in action.choices.values():
                _complete_places(other, how)
        elif any(word in str(action.metavar or action.dest) for word in _PLACES):
            action.complete = how  # type: ignore[attr-defined]


COMMAND = Command(
    "completion",
    run,
    add_options,
    help="print what lets a shell complete options and files",
    epilog=_EPILOG,
)
