"""``umx-np serve``: a page to separate songs and to listen to their stems."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from .._support.option_types import natural, positive_int
from ..errors import ConfigError
from .frame import Command
from .separating import settle_device

_DESCRIPTION = """\
Open a page on this machine: drop a song, watch it being separated, listen to the stems, mix them.
Nothing leaves the machine. The address is printed; it holds a token that is new at every start."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser."""
    parser.add_argument("--port", type=natural, default=8765, help="default: 8765; 0 is any")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; the default is seen from this machine only, 0.0.0.0 by others",
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address only")
    parser.add_argument("--folder", type=Path, help="for songs and results")
    parser.add_argument("--offline", action="store_true", help="never download a model")
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--max-upload",
        type=_megabytes,
        default=2_000_000_000,
        metavar="MB",
        help="size of a song (default: 2000)",
    )
    limits.add_argument(
        "--max-disk",
        type=_megabytes,
        default=20_000_000_000,
        metavar="MB",
        help="all songs and results; the oldest are removed to make room (default: 20000)",
    )
    limits.add_argument(
        "--max-queue",
        type=positive_int,
        default=50,
        metavar="N",
        help="songs that may wait (default: 50)",
    )
    computing = parser.add_argument_group("computing")
    computing.add_argument(
        "--device", default="auto", help="auto, cpu, reference, cuda or cuda:INDEX"
    )
    computing.add_argument("--no-cuda", action="store_true", help="the same as --device cpu")
    computing.add_argument("--threads", type=positive_int, help="threads (default: all cores)")


def _megabytes(text: str) -> int:
    return positive_int(text) * 1_000_000


def run(args: argparse.Namespace) -> int:
    """Serve until it is told to end."""
    settle_device(args)
    missing = [name for name in ("starlette", "uvicorn") if not importlib.util.find_spec(name)]
    if missing:
        raise ConfigError(
            f"serve needs {' and '.join(missing)}; install the extra 'web': "
            "python -m pip install 'umx-np[web]'"
        )
    from .._support.keywords import pick
    from ..serve.runner import Settings
    from ..serve.server import serve

    serve(
        pick(Settings, vars(args)),
        host=args.host,
        port=args.port,
        folder=args.folder,
        browser=not args.no_browser,
    )
    return 0


COMMAND = Command(
    "serve", run, add_options, help="open a page to separate and listen", description=_DESCRIPTION
)
