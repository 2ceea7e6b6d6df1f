"""``umx-np download``: fetch models for later use."""

from __future__ import annotations

import argparse
import logging

from .._support.console import say, show
from .._support.option_types import add_switch
from ..errors import UmxError
from .frame import Command, status_of
from .separating import add_targets

logger = logging.getLogger(__name__)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser."""
    parser.add_argument("name", nargs="*", metavar="NAME", help="see `umx-np models`")
    add_targets(parser, "stems to fetch (default: all)")
    add_switch(parser, "--offline", help="only check that the models are there")


def run(args: argparse.Namespace) -> int:
    """Download one model after the other; one that fails does not stop the others."""
    from ..pretrained import download, get_model_info, model_names

    # Those behind the stems, which an option that takes several has taken with them.
    args.name += [word for word in args.targets or () if word in model_names()]
    args.targets = [word for word in args.targets or () if word not in model_names()] or None
    if not args.name:
        args.parser.error("which model? its name goes first: umxhq --targets vocals,drums")
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
