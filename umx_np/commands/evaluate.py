"""``umx-np evaluate``: score a model, with the options of Open-Unmix's evaluation."""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import Any

from .._support.console import say, show
from .._support.option_types import positive_int
from ..errors import ConfigError
from . import reproducing
from .frame import FRAME, PROGRAM, Command, status_of
from .separating import (
    add_bits,
    add_computing_options,
    add_filter_options,
    add_model_options,
    settle_separation,
)

_DESCRIPTION = """\
Separate the tracks of a data set and score the stems with BSS Eval version 4, as museval does. The
options of Open-Unmix's evaluation are among those here."""

_EPILOG = """\
examples:
  umx-np evaluate --root MUSDB18 --model umxhq --evaldir scores/umxhq
  umx-np evaluate --dataset folder --root songs --model my-model --evaldir scores/mine
  umx-np evaluate --root MUSDB18 --estimates stems --evaldir scores/stems

Given again, an evaluation goes on where it was. A track that cannot be evaluated does not stop the
others; the exit status is then 3, or 1 if none could be. docs/evaluation.md has the details."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser."""
    add_model_options(parser)
    add_filter_options(
        parser,
        None,
        "the whole track, as published scores were made; so does Open-Unmix's evaluation, "
        "whatever it is given here; 300 is what separating does",
    )
    add_computing_options(parser, "threads of all tracks together")
    _add_data(parser.add_argument_group("data and results"))
    _add_more(parser.add_argument_group("more"))


def evaluate_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Turn parsed options into the arguments of `umx_np.evaluation.evaluate`.

    Parameters
    ----------
    args : Namespace
        From the parser of the command.
    """
    settle_separation(args)
    others = {"plot", "pandas", "quiet", "no_cuda", "reproduce", *FRAME}
    given = {name: value for name, value in vars(args).items() if name not in others}
    return {**given, "progress": not args.quiet}


def _add_data(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--root",
        metavar="FOLDER",
        help="the data set (default: MUSDB_PATH, or the seven second excerpts of MUSDB18)",
    )
    group.add_argument(
        "--subset", default="test", help="train or test, or another folder (default: test)"
    )
    group.add_argument(
        "--is-wav", action="store_true", help="MUSDB18 as wav files, not as .stem.mp4"
    )
    group.add_argument("-o", "--outdir", metavar="FOLDER", help="where to write the stems")
    group.add_argument(
        "--evaldir", metavar="FOLDER", help="where to write the scores, in museval's format"
    )
    group.add_argument(
        "--cores", type=positive_int, default=1, help="tracks at a time (default: 1)"
    )


def _add_more(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--dataset",
        choices=("musdb", "folder"),
        default="musdb",
        help="MUSDB18, or a folder with a folder of stems, as sound files, for each track "
        "(default: musdb)",
    )
    group.add_argument(
        "--download",
        action="store_true",
        help="download the seven second excerpts if they are not there",
    )
    group.add_argument(
        "--estimates",
        metavar="FOLDER",
        help="score the stems in FOLDER/[SUBSET/]TRACK/STEM.wav; separate nothing",
    )
    group.add_argument(
        "--overwrite", action="store_true", help="evaluate again what has scores already"
    )
    reproducing.add_option(group)
    add_bits(group)
    group.add_argument(
        "--method",
        choices=("builtin", "museval"),
        default="builtin",
        help="what computes the scores; they are the same, museval takes longer (default: builtin)",
    )
    group.add_argument("--plot", metavar="FILE", help="draw the scores of the tracks as a PNG")
    group.add_argument(
        "--pandas", metavar="FILE", help="write all scores as Open-Unmix does, a pandas pickle"
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate, and print the table; return 3 if some tracks have no scores, 1 if none has."""
    from ..evaluation.plot import draw_boxes
    from ..evaluation.runner import evaluate
    from ..evaluation.summary import import_pandas, write_pandas
    from ..plots import check_available

    # Not after hours of computing.
    if args.plot is not None:
        check_available("--plot")
        if Path(args.plot).suffix.lower() != ".png":
            raise ConfigError(f"--plot {args.plot}: the name must end in .png")
    if args.pandas is not None:
        import_pandas()
    if args.reproduce is not None:
        reproducing.settle(args)
    result = evaluate(**evaluate_arguments(args))
    if result.scores:
        summary = result.summary()
        show(f"{result.name}: {_described(result.settings)}")
        show(summary.table())
        if args.reproduce is not None:
            reproducing.report(result, args)
        if args.plot is not None:
            draw_boxes(summary, result.name, args.plot)
        if args.pandas is not None:
            write_pandas(result.scores, args.pandas, result.name)
    if result.failed:
        say(
            f"{PROGRAM}: {len(result.failed)} of "
            f"{len(result.failed) + len(result.scores)} tracks could not be evaluated"
        )
    return status_of(len(result.scores), len(result.failed))


def _described(settings: dict) -> str:
    """The settings that matter to who compares numbers."""
    if "niter" not in settings:
        return "existing estimates"
    length = settings["wiener_win_len"]
    return f"niter {settings['niter']}, wiener_win_len {length or 'whole track'}" + (
        ", softmask" if settings["softmask"] else ""
    )


COMMAND = Command(
    "evaluate",
    run,
    add_options,
    help="score a model, or stems that are there",
    description=_DESCRIPTION,
    epilog=_EPILOG,
    usage="%(prog)s [options]",
    allow_abbrev=False,
    news=logging.INFO,
    quiet=logging.WARNING,
    quiet_help="show the table, warnings and errors only",
)
