"""The command ``umx-np``: one module a subcommand.

This module and the parsers import nothing heavy, so that help and mistakes in the arguments are
answered at once; each command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import logging
import traceback
from collections.abc import Sequence

from .. import __version__
from .._support.console import (
    cleaning_up_when_terminated,
    exit_status,
    logging_to_stderr,
    print_any_name,
    say,
)
from ..errors import UmxError
from . import convert, download, info, models, separate
from .common import PROGRAM, option_words

_COMMANDS = (separate, download, models, convert, info)

_EPILOG = """\
`umx-np COMMAND --help` shows the options of a command. Others are modules of Python:
  python -m umx_np.train       train a model
  python -m umx_np.evaluate    score a model, or stems that are there
  python -m umx_np.data        look at a dataset the way training will see it"""


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of the command and all its subcommands.

    Returns
    -------
    ArgumentParser
        Its result has the function to call as ``run``.
    """
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Separate music into its stems with Open-Unmix models.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments; None takes those of the program.

    Returns
    -------
    int
        Exit status: 0 for success, 1 for errors, 130 after an interruption, 141 when the reader of
        the output went away. Mistakes in the arguments raise `SystemExit` with 2, as argparse
        does.
    """
    return exit_status(PROGRAM, lambda: _run(argv))


def _run(argv: Sequence[str] | None) -> int:
    args = build_parser().parse_args(argv)
    print_any_name()
    words = option_words(args.parser)
    level = logging.DEBUG if args.verbose else logging.ERROR if args.quiet else logging.WARNING
    with logging_to_stderr(level, f"{PROGRAM}: ", words), cleaning_up_when_terminated():
        try:
            return args.run(args)
        except BrokenPipeError:
            raise
        except (UmxError, OSError) as error:
            if args.verbose:
                traceback.print_exc()
            say(f"{PROGRAM}: error: {words(str(error))}")
            return 1
