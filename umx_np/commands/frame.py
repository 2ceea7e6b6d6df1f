"""Frame of all commands: how they are described, common options, sizes, tables, outcomes."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    # The type of `ArgumentParser.add_subparsers()`, which has no public name.
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

PROGRAM = "umx-np"


@dataclass(frozen=True)
class Command:
    """A command of the program.

    Attributes
    ----------
    name, help : str
        Its name, and the line about it in the help of the program.
    run : callable
        Takes the parsed arguments, among them ``parser`` and, as ``words``, what was typed after
        the name, and, as ``named``, what gives a message the words of the command; returns an exit
        status.
    add_options : callable
        Adds its options to a parser; imports what their descriptions need.
    description, epilog, usage : str or None
        Of its own help; None is `help`, none, and what argparse makes of the options.
    allow_abbrev : bool
        Whether options may be shortened; not where one is the beginning of others.
    news, quiet : int
        Least level of the log that is shown without an option and with ``--quiet``.
    quiet_help : str
        What ``--quiet`` does.
    renamed : mapping of str to str
        Arguments of the package whose option has another name.
    """

    name: str
    run: Callable[[argparse.Namespace], int]
    add_options: Callable[[argparse.ArgumentParser], None]
    help: str
    description: str | None = None
    epilog: str | None = None
    usage: str | None = None
    allow_abbrev: bool = True
    news: int = logging.WARNING
    quiet: int = logging.ERROR
    quiet_help: str = "say nothing but errors"
    renamed: Mapping[str, str] = field(default_factory=dict)

    def add_to(self, commands: Commands, *, with_options: bool = True) -> argparse.ArgumentParser:
        """Add the command to the parser of the program; returns the parser of the command."""
        parser = commands.add_parser(
            self.name,
            help=self.help,
            description=self.description or self.help,
            epilog=self.epilog,
            usage=self.usage,
            allow_abbrev=self.allow_abbrev,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if with_options:
            self.add_options(parser)
            level = parser.add_mutually_exclusive_group()
            level.add_argument(
                "-v", "--verbose", action="store_true", help="say what is being done"
            )
            level.add_argument("-q", "--quiet", action="store_true", help=self.quiet_help)
            parser.set_defaults(parser=parser)
        return parser

    def parser(self) -> argparse.ArgumentParser:
        """Make a parser of the command alone."""
        return self.add_to(argparse.ArgumentParser(prog=PROGRAM).add_subparsers())


# What a parser adds to the options of a command.
FRAME = ("command", "parser", "words", "named", "verbose")


def status_of(done: int, failed: int) -> int:
    """Return the exit status of several pieces of work: 0 all done, 1 all failed, 3 some failed."""
    return 0 if not failed else 3 if done else 1


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
