"""Options of ``python -m umx_np.evaluate``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from .._support.option_types import json_object, natural, positive_int
from ..config import DEFAULT_MODEL
from .scores import METHODS
from .tracks import DATASETS

_DESCRIPTION = """\
Separate the tracks of a data set and score the stems with BSS Eval version 4, as museval does. The
options are those of Open-Unmix's evaluation; what it does not have stands under "more"."""

_EPILOG = """\
examples:
  python -m umx_np.evaluate --root MUSDB18 --model umxhq --evaldir scores/umxhq
  python -m umx_np.evaluate --dataset folder --root songs --model my-model --evaldir scores/mine
  python -m umx_np.evaluate --root MUSDB18 --estimates stems --evaldir scores/stems

Given again, an evaluation goes on where it was. A track that cannot be evaluated does not stop the
others; the exit status is then 1. docs/evaluation.md has the details."""


def build_parser() -> argparse.ArgumentParser:
    """Make the parser of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m umx_np.evaluate",
        usage="%(prog)s [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_model(parser.add_argument_group("model"))
    _add_data(parser.add_argument_group("data and results"))
    _add_more(parser.add_argument_group("more", "Not in Open-Unmix."))
    return parser


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments; None takes those of the program.

    Returns
    -------
    Namespace

    Raises
    ------
    SystemExit
        With a message of the parser, if an option is wrong.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.no_cuda and args.device.startswith("cuda"):
        parser.error(f"--no-cuda contradicts --device {args.device}; leave one out")
    return args


def evaluate_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Turn parsed options into the arguments of `evaluate`.

    Parameters
    ----------
    args : Namespace
        From `parse_options`.
    """
    given = dict(vars(args))
    for name in ("plot", "pandas", "quiet", "no_cuda"):
        del given[name]
    if args.no_cuda and args.device == "auto":
        given["device"] = "cpu"
    given["residual"] = args.residual or False
    return {**given, "progress": not args.quiet}


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--targets", nargs="+", metavar="STEM", help="stems to estimate (default: all of the model)"
    )
    group.add_argument(
        "--model",
        metavar="NAME|FOLDER",
        help=f"pretrained model or folder of a trained one (default: {DEFAULT_MODEL}, which comes "
        "along; Open-Unmix's own default is umxl, for non-commercial use only)",
    )
    group.add_argument("--no-cuda", action="store_true", help="do not use a GPU")
    group.add_argument(
        "--niter", type=natural, default=1, help="iterations of the Wiener filter (default: 1)"
    )
    group.add_argument(
        "--wiener-win-len",
        type=natural,
        metavar="FRAMES",
        help="frames filtered together (default: the whole track, as published scores were made; "
        "so does Open-Unmix's evaluation, whatever it is given here); 300 is what separating does",
    )
    group.add_argument(
        "--residual",
        metavar="STEM",
        help="add the mixture minus all targets as a stem of this name, for instance accompaniment",
    )
    group.add_argument(
        "--aggregate",
        type=json_object,
        metavar="JSON",
        help="score sums of stems instead of the stems, for instance "
        '\'{"vocals": ["vocals"], "accompaniment": ["drums", "bass", "other"]}\'',
    )


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
    group.add_argument("--outdir", metavar="FOLDER", help="where to write the stems")
    group.add_argument(
        "--evaldir", metavar="FOLDER", help="where to write the scores, in museval's format"
    )
    group.add_argument(
        "--cores", type=positive_int, default=1, help="tracks at a time (default: 1)"
    )


def _add_more(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--dataset",
        choices=DATASETS,
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
    group.add_argument("--softmask", action="store_true", help="start the filter from ratio masks")
    group.add_argument("--offline", action="store_true", help="never download a model")
    group.add_argument("--device", default="auto", help="auto, cpu, reference, cuda or cuda:INDEX")
    group.add_argument(
        "--threads", type=positive_int, help="threads of all tracks together (default: all cores)"
    )
    group.add_argument(
        "--precision",
        choices=("full", "fast"),
        default="full",
        help="fast computes the networks with numbers of fewer bits (default: full)",
    )
    group.add_argument(
        "--bits",
        choices=("16", "24", "float"),
        default="16",
        help="format of the stems in --outdir (default: 16)",
    )
    group.add_argument(
        "--method",
        choices=METHODS,
        default="builtin",
        help="what computes the scores; they are the same, museval takes longer (default: builtin)",
    )
    group.add_argument("--plot", metavar="FILE", help="draw the scores of the tracks as a PNG")
    group.add_argument(
        "--pandas", metavar="FILE", help="write all scores as Open-Unmix does, a pandas pickle"
    )
    group.add_argument(
        "--quiet", action="store_true", help="show the table, warnings and errors only"
    )
