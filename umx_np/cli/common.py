"""What the subcommands share: options, messages and progress bars."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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


class _Handler(logging.Handler):
    """Print log records above a progress bar that may be there."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def say(text: str) -> None:
    """Print a line to stderr, above a progress bar that may be there."""
    if sys.stderr is None:  # closed, or a program without a console
        return
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)


@contextmanager
def logging_to_stderr(*, verbose: bool, quiet: bool) -> Iterator[None]:
    """Print what the package logs: warnings, with `verbose` everything, with `quiet` errors."""
    logger = logging.getLogger("umx_np")
    handler = _Handler()
    handler.setFormatter(logging.Formatter(f"{PROGRAM}: %(message)s"))
    level, propagate = logger.level, logger.propagate
    logger.setLevel(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


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
