"""Options of the commands that separate: the model, the filter, and where to compute."""

from __future__ import annotations

import argparse
from pathlib import Path

from .._support.console import say
from .._support.option_types import Names, add_switch, json_object, natural, positive_int
from ..errors import ConfigError
from .frame import PROGRAM


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what is separated by."""
    group = parser.add_argument_group("model")
    group.add_argument(
        "-n",
        "--model",
        metavar="NAME|FOLDER",
        help="pretrained model or folder of a trained one (default: UMX_NP_MODEL, or umxm, which "
        "is included; umxhq and umxl separate better and are downloaded, see `umx-np models`)",
    )
    add_targets(group, "stems to estimate; only their networks run (default: all)")
    add_switch(group, "--offline", help="never download a model")


def add_targets(group: argparse._ActionsContainer, help: str) -> None:
    """Add the option that names stems."""
    group.add_argument(
        "--targets", nargs="+", action=Names, metavar="STEM", help=f"{help}: vocals,drums"
    )


def add_filter_options(
    parser: argparse.ArgumentParser, win_len: int | None, shown: str
) -> argparse._ArgumentGroup:
    """Add the options of the Wiener filter; `shown` describes the default of its length."""
    group = parser.add_argument_group("separation")
    group.add_argument(
        "--niter", type=natural, default=1, help="iterations of the Wiener filter (default: 1)"
    )
    group.add_argument(
        "--wiener-win-len",
        type=natural,
        default=win_len,
        metavar="FRAMES",
        help=f"frames filtered together (default: {shown}); 0 is the whole track",
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
        help="sums of stems instead of the stems, for instance "
        '\'{"vocals": ["vocals"], "accompaniment": ["drums", "bass", "other"]}\'',
    )
    add_switch(group, "--softmask", help="start the filter from ratio masks")
    return group


def add_computing_options(
    parser: argparse.ArgumentParser, threads: str = "threads", precision: str | None = "full"
) -> argparse._ArgumentGroup:
    """Add the options of where to compute.

    Parameters
    ----------
    parser : ArgumentParser
        Gets them.
    threads : str
        What is counted, for the help.
    precision : str or None
        The default; None is what the model recommends, see `settle_precision`.
    """
    group = parser.add_argument_group("computing")
    group.add_argument("--device", default="auto", help="auto, cpu, reference, cuda or cuda:INDEX")
    group.add_argument("--no-cuda", action="store_true", help="the same as --device cpu")
    group.add_argument("-j", "--threads", type=positive_int, help=f"{threads} (default: all cores)")
    group.add_argument(
        "--precision",
        choices=("full", "fast", "int8"),
        default=precision,
        help="fast computes the networks with lower precision, int8 in eight bits (default: "
        + ("what the model recommends, or full)" if precision is None else f"{precision})"),
    )
    return group


def settle_precision(args: argparse.Namespace, model: str) -> None:
    """Follow the recommendation of a model, if it gains time here and nothing else is asked for.

    Parameters
    ----------
    args : Namespace
        With `precision`, `device` and `quiet`.
    model : str
        Its name or folder.
    """
    if args.precision is not None:
        return
    from ..devices import gains_from
    from ..pretrained.loading import recommended_precision

    recommended = recommended_precision(model)
    args.precision = "full"
    if recommended is not None and gains_from(recommended, args.device):
        args.precision = recommended
        if not args.quiet:
            say(
                f"{PROGRAM}: computing with --precision {recommended}, as {Path(model).name} "
                "recommends; --precision full is more exact"
            )


def add_bits(group: argparse._ArgumentGroup) -> None:
    """Add the option of the format of stems."""
    group.add_argument(
        "--bits",
        choices=("16", "24", "float"),
        default="16",
        help="numbers in the files of the stems (default: 16)",
    )


def settle_separation(args: argparse.Namespace) -> None:
    """Give what the options say the values that functions take.

    Raises
    ------
    ConfigError
        If ``--no-cuda`` and ``--device`` contradict each other.
    """
    settle_device(args)
    args.residual = args.residual or False
    args.wiener_win_len = args.wiener_win_len or None


def settle_device(args: argparse.Namespace) -> None:
    """Give ``--device`` the value that it has with ``--no-cuda``.

    Raises
    ------
    ConfigError
        If the two contradict each other.
    """
    # Not above: the parsers need nothing heavy.
    from ..devices import cuda_index

    if args.no_cuda and cuda_index(args.device) is not None:
        raise ConfigError(f"--no-cuda contradicts --device {args.device}; leave one out")
    if args.no_cuda and args.device == "auto":
        args.device = "cpu"
