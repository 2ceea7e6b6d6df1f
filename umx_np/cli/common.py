"""What the subcommands share: their common options, sizes and tables."""

from __future__ import annotations

import argparse
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
    parser.set_defaults(run=run)
    return parser


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
