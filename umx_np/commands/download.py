"""``umx-np download``: fetch models for later use."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from .._support.console import say, show
from .common import add_command

if TYPE_CHECKING:
    from .common import Commands


def add_parser(commands: Commands) -> None:
    """Add the subcommand to the parser of ``umx-np``."""
    parser = add_command(
        commands,
        "download",
        run,
        help="download pretrained models",
        description="Download pretrained models, verify them and say what their licence is.",
    )
    parser.add_argument("name", nargs="+", metavar="NAME", help="see `umx-np models`")
    parser.add_argument(
        "--targets", nargs="+", metavar="STEM", help="stems to fetch (default: all)"
    )
    parser.add_argument(
        "--offline", action="store_true", help="only check that the models are there"
    )


def run(args: argparse.Namespace) -> int:
    """Download one model after the other."""
    from ..pretrained import download, get_model_info

    infos = [get_model_info(name) for name in args.name]  # a mistyped name costs no download
    for info in infos:
        if not args.quiet:
            origin = "comes with umx_np; " if info.is_bundled else ""
            terms = info.license or "not stated here"
            say(f"{info.name}: {origin}licence {terms}; see {info.page}")
        paths = download(info.name, args.targets, offline=args.offline, progress=not args.quiet)
        for path in paths.values():
            show(str(path))
    return 0
