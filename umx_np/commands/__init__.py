"""The program ``umx-np``: one module a command, one frame for them all.

This module and the parsers import nothing heavy, so that help and mistakes in the arguments are
answered at once; each command imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import logging
import sys
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
from .._support.option_types import option_words
from ..errors import UmxError
from . import (
    catalog,
    completion,
    convert,
    data,
    download,
    evaluate,
    info,
    models,
    separate,
    serve,
    train,
)
from .defaults import apply_defaults
from .frame import PROGRAM

_MODULES = (
    *(separate, serve, download, models, convert, info),
    *(train, evaluate, data, catalog, completion),
)
COMMANDS = {module.COMMAND.name: module.COMMAND for module in _MODULES}

_EPILOG = f"""\
`{PROGRAM} COMMAND --help` shows the options of a command.

exit status:
  0    all is done
  1    nothing could be done, for a reason that is said
  2    a mistake in the arguments
  3    some of the files, models or tracks failed, the others are done
  130  interrupted (Ctrl-C); 143 and 129 after SIGTERM and SIGHUP
  141  the reader of the output went away"""


def build_parser(only: str | None = None) -> argparse.ArgumentParser:
    """Make the parser of the program and all its commands.

    Parameters
    ----------
    only : str or None
        Command that will be used: the others get no options, whose descriptions need imports.

    Returns
    -------
    ArgumentParser
        Its result has the function to call as ``run`` and the parser of the command as ``parser``.
    """
    return _parsers(only)[0]


def _parsers(
    only: str | None,
) -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """Make the parser of the program, and those of its commands."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Separate music into its stems with Open-Unmix models.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True
    )
    return parser, {
        name: command.add_to(commands, with_options=only in (None, name))
        for name, command in COMMANDS.items()
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments; None takes those of the program.

    Returns
    -------
    int
        Exit status: 0 if all is done, 1 if nothing could be, 3 if some of it failed, 130 after an
        interruption, 141 when the reader of the output went away, 128 plus its number after a
        signal. Mistakes in the arguments raise `SystemExit` with 2, as argparse does, and the
        signals that end a program one with their status.
    """
    return exit_status(PROGRAM, lambda: _run(sys.argv[1:] if argv is None else list(argv)))


def _run(words: list[str]) -> int:
    # Before the command stand at most --help and --version, which take no value.
    name = next((word for word in words if not word.startswith("-")), "")
    parser, parsers = _parsers(name)
    origins: dict[str, str] = {}
    if name in parsers:
        own = words[words.index(name) + 1 :]
        origins = apply_defaults(parsers[name], COMMANDS[name], own)
    args = parser.parse_args(words)
    command = COMMANDS[args.command]
    args.words = words[words.index(name) + 1 :]
    print_any_name()
    args.named = named = option_words(args.parser, command.renamed, origins)
    level = logging.DEBUG if args.verbose else command.quiet if args.quiet else command.news
    with logging_to_stderr(level, f"{PROGRAM}: ", named), cleaning_up_when_terminated():
        try:
            return command.run(args)
        except BrokenPipeError:
            raise
        except (UmxError, OSError) as error:
            if args.verbose:
                traceback.print_exc()
            say(f"{PROGRAM}: error: {named(str(error))}")
            return 1
