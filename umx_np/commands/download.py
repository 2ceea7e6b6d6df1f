"""``umx-np download``: fetch models for later use."""

from __future__ import annotations

import argparse
import logging

from .._support.console import say, show
from ..errors import UmxError
from .frame import Command, status_of

logger = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser."""
    parser.add_argument("name", nargs="+", metavar="NAME", help="see `umx-np models`")
    parser.add_argument(
        "--targets", nargs="+", metavar="STEM", help="stems to fetch (default: all)"
    )
    parser.add_argument(
        "--offline", action="store_true", help="only check that the models are there"
    )


def run(args: argparse.Namespace) -> int:
    """Download one model after the other; one that fails does not stop the others."""
    from ..pretrained import download, get_model_info

    infos = [get_model_info(name) for name in args.name]  # a mistyped name costs no download
    failed = 0
    for info in infos:
        if not args.quiet:
            origin = "comes with umx_np; " if info.is_bundled else ""
            terms = info.license or "not stated here"
            say(f"{info.name}: {origin}licence {terms}; see {info.page}")
        try:
            paths = download(info.name, args.targets, offline=args.offline, progress=not args.quiet)
        except UmxError as error:
            logger.error("error: %s", error, exc_info=args.verbose)
            failed += 1
            continue
        for path in paths.values():
            show(str(path))
    return status_of(len(infos) - failed, failed)


COMMAND = Command(
    "download",
    run,
    add_options,
    help="download pretrained models",
    description="Download pretrained models, verify them and say what their licence is.",
)
