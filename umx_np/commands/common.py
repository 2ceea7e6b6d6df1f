"""What the subcommands share: their common options, sizes and tables."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # The type of `ArgumentParser.add_subparsers()`, which has no public name.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

PROGRAM = "umx-np"


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    help: str,
    description: str | None = None,
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    """Add a subcommand with the options every one has."""
    parser = commands.add_parser(
        name,
        help=help,
        description=description or help,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    level = parser.add_mutually_exclusive_group()
    level.add_argument("-v", "--verbose", action="store_true", help="say what is being done")
    level.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    parser.set_defaults(run=run, parser=parser)
    return parser


_VALUE = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\w+"""
_ARGUMENT = re.compile(rf"(?<![\w.\[])([a-z_]+)=({_VALUE})?")


def option_words(parser: argparse.ArgumentParser) -> Callable[[str], str]:
    """Make the function that puts the options of a command into a message.

    Messages of the package name the arguments of its functions, as ``max_memory=1``; who has typed
    ``--max-memory 1`` is to read that.

    Parameters
    ----------
    parser : ArgumentParser
        Of the command.

    Returns
    -------
    callable
        Takes and returns a message.
    """
    actions = {action.dest: action for action in parser._actions if action.option_strings}

    def translated(match: re.Match[str]) -> str:
        action, value = actions.get(match[1]), match[2] or ""
        if action is None:
            return match[0]
        option = max(action.option_strings, key=len)
        if action.nargs == 0:  # a switch: what is on is said by its name alone
            return option if value == "True" else match[0]
        text = value[1:-1] if value[:1] in ("'", '"') else None
        if action.choices is not None and text not in action.choices:
            # Such an option cannot be wrong, so this is something else of the same name, like the
            # rate of a file.
            return match[0]
        return f"{option} {text if action.choices is not None else value}"

    return lambda message: _ARGUMENT.sub(translated, message)


def format_size(nb_bytes: float) -> str:
    """Write a number of bytes for people."""
    units = ["B", "kB", "MB", "GB"]
    while nb_bytes >= 999.5 and len(units) > 1:
        nb_bytes /= 1000
        del units[0]
    return f"{nb_bytes:.3g} {units[0]}"


def table(rows: list[list[str]]) -> str:
    """Lay out rows of cells in columns; the first row is the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)
