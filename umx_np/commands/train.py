"""``umx-np train``: train a model, with the options of Open-Unmix's trainer."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._support.console import say
from ..devices import cuda_index
from ..errors import TrainingError
from .frame import FRAME, Command

_DESCRIPTION = """\
Train one target's network. The options and defaults are those of Open-Unmix's trainer; what it does
not have stands under "more". The files of the run go to --output."""

_EPILOG = """\
examples:
  umx-np train --dataset trackfolder_var --root data --target-file vocals.wav
  umx-np train --root musdb18hq --is-wav --target drums --output my-model --nb-workers 2
  umx-np train --checkpoint my-model --target drums

A run is continued with the settings it began with, unless other ones are given. Ctrl-C saves and
stops; press it twice to stop at once. docs/training.md has the details."""

# Of a run that is continued, these are asked for again.
_NOT_CONTINUED = ("model", "checkpoint", "output", "overwrite", "quiet", "debug", "no_cuda")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser."""
    from .train_options import add_options

    add_options(parser)


def parse_options(words: Sequence[str]) -> argparse.Namespace:
    """Parse a command line; what is not given comes from the checkpoint, if there is one.

    Parameters
    ----------
    words : sequence of str
        Arguments of the command.

    Returns
    -------
    Namespace
        Options of the run, and nothing else.

    Raises
    ------
    TrainingError
        If the checkpoint cannot be read.
    SystemExit
        With a message of the parser, if an option is wrong.
    """
    from ..data import parse_dataset_options

    parser = COMMAND.parser()
    # None in place of the default tells whether the option was given.
    unset = argparse.Namespace(target=None, dataset=None, device=None)
    given, _ = parser.parse_known_args(words, unset)
    if given.checkpoint is not None:
        general = set(vars(parser.parse_known_args([])[0]))
        stored = _stored_arguments(given)
        if given.dataset not in (None, stored.get("dataset")):
            stored = {key: value for key, value in stored.items() if key in general}
        stored["output"] = given.checkpoint
        parser.set_defaults(**stored)
    args = parse_dataset_options(parser, words)
    if given.target not in (None, args.target):
        parser.error(
            f"--target {given.target} is not what the dataset's options name, {args.target}; leave "
            "out one of them"
        )
    if args.no_cuda:
        if given.device is not None and cuda_index(given.device) is not None:
            parser.error(f"--no-cuda contradicts --device {given.device}; leave one out")
        if args.device == "auto" or cuda_index(args.device) is not None:
            args.device = "cpu"
    return argparse.Namespace(**{k: v for k, v in vars(args).items() if k not in FRAME})


def given_settings(words: Sequence[str]) -> frozenset[str]:
    """Name the settings that a command line gives, also with the values that they have anyway.

    Parameters
    ----------
    words : sequence of str
        Arguments of the command.

    Returns
    -------
    frozenset of str
        Names of fields of `TrainConfig`.
    """
    from ..training.config import UPSTREAM_NAMES, TrainConfig

    options = {name: UPSTREAM_NAMES.get(name, name) for name in TrainConfig.__dataclass_fields__}
    unset = argparse.Namespace(**dict.fromkeys(options.values()))
    given, _ = COMMAND.parser().parse_known_args(words, unset)
    return frozenset(name for name, option in options.items() if getattr(given, option) is not None)


def _stored_arguments(given: argparse.Namespace) -> dict[str, Any]:
    """Arguments of the run that is continued."""
    from .._support.inputs import read_json
    from ..data.options import is_pattern
    from ..training.checkpoint import find_checkpoint, is_torch_checkpoint, read_checkpoint

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


def run(args: argparse.Namespace) -> int:
    """Train; return 128 plus its number after a signal that stopped the run in good order."""
    arguments = vars(parse_options(args.words))
    given = given_settings(args.words)
    from ..data import load_datasets
    from ..training.config import TrainConfig
    from ..training.files import RunFiles
    from ..training.interrupts import stopping_on_signals

    config = TrainConfig.from_arguments(arguments)
    # Before the data is looked at, which may take long.
    RunFiles(config).check()

    from ..training.trainer import Trainer

    received: list[int] = []
    trainers: list[Trainer] = []

    def stop(number: int) -> bool:
        """Stop in good order once there is something to save."""
        received.append(number)
        if not trainers or not trainers[0].is_running:
            return False
        trainers[0].stop()
        say("stopping after this batch; once more to stop at once")
        return True

    with stopping_on_signals(stop):
        datasets = load_datasets({**arguments, "seq_dur": config.seq_duration})
        trainers.append(
            Trainer(
                config,
                *datasets,
                arguments=arguments,
                progress=not arguments["quiet"],
                loader_mode=arguments["loader"],
                given=given,
            )
        )
        result = trainers[0].fit()
    return 128 + received[-1] if result.reason == "stopped" and received else 0


COMMAND = Command(
    "train",
    run,
    add_options,
    help="train a model",
    description=_DESCRIPTION,
    epilog=_EPILOG,
    usage="%(prog)s [options]",
    # `--target` is also the beginning of options of some datasets.
    allow_abbrev=False,
    news=logging.INFO,
    quiet=logging.WARNING,
    quiet_help="show warnings and errors only",
    renamed={"n_fft": "nfft", "n_hop": "nhop"},
)
