"""The options of ``umx-np train``.

The names and defaults in the first groups are those of Open-Unmix's ``scripts/train.py``.
"""

from __future__ import annotations

import argparse
from typing import Any

from ..data.options import add_dataset_options
from ..training.config import (
    LOSSES,
    LR_SCHEDULES,
    OPTIMIZERS,
    RESIDENT,
    UPSTREAM_NAMES,
    TrainConfig,
)

_DEFAULTS = TrainConfig()


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command and those of all datasets to a parser."""
    add_dataset_options(parser)
    _add_run(parser)
    _add_training(parser)
    _add_network(parser)
    _add_more(parser)


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
    _add(group, "--tf32", "matrix products of TF32, on such a device", action=switch)
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
