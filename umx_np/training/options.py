"""The command line of ``python -m umx_np.train``.

The names and defaults in the first groups are those of Open-Unmix's ``scripts/train.py``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._support.inputs import read_json
from ..data import add_dataset_options, parse_dataset_options
from ..data.aligned import is_pattern
from ..errors import TrainingError
from .checkpoint import find_checkpoint, is_torch_checkpoint, read_checkpoint
from .config import (
    LOSSES,
    LR_SCHEDULES,
    OPTIMIZERS,
    RESIDENT,
    UPSTREAM_NAMES,
    TrainConfig,
)

_DESCRIPTION = """\
Train one target's network. The options and defaults are those of Open-Unmix's trainer; what it does
not have stands under "more". The files of the run go to --output."""

_EPILOG = """\
examples:
  python -m umx_np.train --dataset trackfolder_var --root data --target-file vocals.wav
  python -m umx_np.train --root musdb18hq --is-wav --target drums --output my-model --nb-workers 2
  python -m umx_np.train --checkpoint my-model --target drums

A run is continued with the settings it began with, unless other ones are given. Ctrl-C saves and
stops; press it twice to stop at once. docs/training.md has the details."""

# Of a run that is continued, these are asked for anew.
_NOT_CONTINUED = ("model", "checkpoint", "output", "overwrite", "quiet", "debug", "no_cuda")
_DEFAULTS = TrainConfig()


def build_parser() -> argparse.ArgumentParser:
    """Make the parser, with the options of all datasets."""
    parser = argparse.ArgumentParser(
        prog="python -m umx_np.train",
        usage="%(prog)s [options]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # `--target` is also the beginning of options of some datasets.
        allow_abbrev=False,
    )
    add_dataset_options(parser)
    _add_run(parser)
    _add_training(parser)
    _add_network(parser)
    _add_more(parser)
    return parser


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line; what is not given comes from the checkpoint, if there is one.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments; None takes those of the program.

    Returns
    -------
    Namespace

    Raises
    ------
    TrainingError
        If the checkpoint cannot be read.
    SystemExit
        With a message of the parser, if an option is wrong.
    """
    parser = build_parser()
    # None in place of the default tells whether the option was given.
    unset = argparse.Namespace(target=None, dataset=None, device=None)
    given, _ = parser.parse_known_args(argv, unset)
    if given.checkpoint is not None:
        general = set(vars(parser.parse_known_args([])[0]))
        stored = _stored_arguments(given)
        if given.dataset not in (None, stored.get("dataset")):
            stored = {key: value for key, value in stored.items() if key in general}
        stored["output"] = given.checkpoint
        parser.set_defaults(**stored)
    args = parse_dataset_options(parser, argv)
    if given.target not in (None, args.target):
        parser.error(
            f"--target {given.target} is not what the dataset's options name, {args.target}; leave "
            "out one of them"
        )
    if args.no_cuda:
        if given.device is not None and given.device.startswith("cuda"):
            parser.error(f"--no-cuda contradicts --device {given.device}; leave one out")
        if args.device.startswith(("auto", "cuda")):
            args.device = "cpu"
    return args


def given_settings(argv: Sequence[str] | None = None) -> frozenset[str]:
    """Settings that a command line names, be it with the values that they have anyway.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments; None takes those of the program.

    Returns
    -------
    frozenset of str
        Names of fields of `TrainConfig`.
    """
    names = TrainConfig.__dataclass_fields__
    unset = argparse.Namespace(**{_option_of(name): None for name in names})
    given, _ = build_parser().parse_known_args(argv, unset)
    return frozenset(name for name in names if getattr(given, _option_of(name)) is not None)


def _option_of(name: str) -> str:
    return UPSTREAM_NAMES.get(name, name)


def _stored_arguments(given: argparse.Namespace) -> dict[str, Any]:
    """Arguments of the run that is continued."""
    target = given.target or getattr(given, "target_dir", None)
    for name in ("target_file", "output_file"):
        if hasattr(given, name) and not is_pattern(getattr(given, name)):
            target = Path(getattr(given, name)).stem
    path, _ = find_checkpoint(given.checkpoint, target)
    if is_torch_checkpoint(path):
        stored = read_json(path.with_suffix(".json"), TrainingError).get("args", {})
    else:
        saved = read_checkpoint(path)
        stored = {**saved.get("arguments", {}), **saved.get("config", {})}
    return {key: value for key, value in stored.items() if key not in _NOT_CONTINUED}


def _add(group: argparse._ArgumentGroup, flag: str, help: str, **settings: Any) -> None:
    """Add an option whose default is that of `TrainConfig`."""
    name = flag.removeprefix("--").replace("-", "_")
    name = {option: field for field, option in UPSTREAM_NAMES.items()}.get(name, name)
    default = getattr(_DEFAULTS, name, None)
    shown = "" if default is None or default is False else f" (default: {default})"
    group.add_argument(flag, default=default, help=help + shown, **settings)


def _add_run(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    _add(group, "--output", "folder for the results", metavar="DIR")
    _add(group, "--model", "fine-tune this model", metavar="NAME|DIR")
    _add(group, "--checkpoint", "continue the run in this folder", metavar="DIR")
    group.add_argument(
        "--audio-backend", default="soundfile", help="accepted for Open-Unmix's sake, no effect"
    )


def _add_training(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("training")
    _add(group, "--epochs", "epochs of the whole run", type=int)
    _add(group, "--batch-size", "excerpts a batch", type=int)
    _add(group, "--lr", "learning rate", type=float)
    _add(group, "--patience", "epochs without a better one before stopping; 0: never", type=int)
    _add(group, "--lr-decay-patience", "such epochs before the rate is lowered", type=int)
    _add(group, "--lr-decay-gamma", "factor by which it is lowered", type=float)
    _add(group, "--weight-decay", "L2 penalty", type=float)
    _add(group, "--seed", "where all random numbers come from", type=int)


def _add_network(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("network and data")
    _add(group, "--seq-dur", "seconds of an excerpt; 0 or less: whole tracks", type=float)
    _add(group, "--unidirectional", "a causal network, usable live", action="store_true")
    _add(group, "--nfft", "STFT size in samples", type=int)
    _add(group, "--nhop", "STFT hop in samples", type=int)
    _add(group, "--hidden-size", "width of the network", type=int)
    _add(group, "--bandwidth", "highest frequency in Hz that is looked at", type=float)
    _add(group, "--nb-channels", "1 for a mono network", type=int)
    _add(group, "--nb-workers", "threads that make batches ahead of time", type=int)
    group.add_argument("--debug", action="store_true", help="begin at once, without statistics")
    group.add_argument("--quiet", action="store_true", help="show warnings and errors only")
    group.add_argument("--no-cuda", action="store_true", help="the same as --device cpu")


def _add_more(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("more", "Not in Open-Unmix.")
    _add(group, "--nb-layers", "LSTM layers; Open-Unmix loads 3 only", type=int)
    _add(group, "--optimizer", "what makes the steps", choices=OPTIMIZERS)
    _add(group, "--momentum", "for sgd", type=float)
    _add(
        group,
        "--lr-schedule",
        "lower the learning rate when the loss stops falling, or step by step to zero at the end",
        choices=LR_SCHEDULES,
    )
    _add(
        group,
        "--loss",
        "mean squared error, or its logarithm for each excerpt: soft excerpts count like loud ones",
        choices=LOSSES,
    )
    _add(group, "--clip-grad-norm", "limit the norm of the gradients", type=float, metavar="NORM")
    _add(group, "--device", "auto, cpu, cuda, cuda:INDEX or reference")
    _add(group, "--threads", "threads to compute on; all cores if not given", type=int)
    switch = argparse.BooleanOptionalAction
    text = "mixed precision; needs AVX512-BF16, or a CUDA device of compute capability 8.0"
    _add(group, "--amp", text, action=switch)
    _add(group, "--tf32", "matrix products of TF32, on such a card", action=switch)
    _add(
        group,
        "--resident",
        "whether the training data stays in the memory of the CUDA device",
        choices=RESIDENT,
    )
    _add(
        group,
        "--checkpoint-every",
        "save also within an epoch, every so many batches (500) or minutes (10min); 0: do not",
        metavar="INTERVAL",
    )
    _add(group, "--safetensors", "write the weights in this format too", action="store_true")
    _add(
        group,
        "--plot",
        "draw the losses; done anyway if matplotlib is installed",
        action=argparse.BooleanOptionalAction,
    )
    _add(group, "--overwrite", "replace an earlier run in --output", action="store_true")
    group.add_argument(
        "--loader",
        choices=("threads", "processes"),
        default="threads",
        help="what the workers are (default: threads)",
    )
