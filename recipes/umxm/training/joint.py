"""Train the four networks together: ``python -m recipes.umxm.training.joint``.

The last steps of the recipe (`umx_np.training.JointTrainer`): from ``--model``, on the songs in
``--songs``, with the results in ``--out``. The command can be stopped at any time and given again:
it goes on from the last checkpoint. The loss on the songs in SONGS/valid is shown after each epoch
and kept in the log: where it no longer follows that of training, more songs are wanted and not more
epochs. The weights are those of the epoch where it was lowest.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from umx_np._support.console import logging_to_stderr
from umx_np.data import StemsDataset, aug_from_str
from umx_np.errors import UmxError
from umx_np.training import JointConfig, JointTrainer
from umx_np.training.checkpoint import checkpoint_path
from umx_np.training.interrupts import stopping_on_signals

from ..studio.plan import STEMS
from .train import AUGMENTATIONS, COHERENT_SHARE, MIX_LEVEL, SPEED

# Excerpts of each song for validation, the same ones every time.
VALID_EXCERPTS = 4
# Probability of an excerpt as it was mixed, but for its speed, its sides and `FADERS`. The others
# are varied like those of the networks alone.
AS_MIXED_SHARE = 0.85
# How far the stems of such an excerpt are turned up or down at most, in dB.
FADERS = 2.0
# Settings that are the recipe's, or `main` finds.
_NOT_OPTIONS = ("target", "output", "model", "checkpoint", "loss", "safetensors", "overwrite")


def datasets(
    songs: Path, seq_dur: float, *, samples_per_track: int = 1, **options: Any
) -> tuple[StemsDataset, StemsDataset]:
    """Make what is trained on, and what is validated on: excerpts just as they were mixed.

    Parameters
    ----------
    songs : Path
        Folder of rendered songs, with the folders ``train`` and ``valid``.
    seq_dur : float
        Seconds of an excerpt.
    samples_per_track : int
        Excerpts of each song in an epoch.
    **options
        More for the training set, such as ``level_range``.

    Returns
    -------
    train, valid : StemsDataset
    """
    varied = {
        "random_track_mix": True,
        "source_augmentations": aug_from_str(AUGMENTATIONS),
        "coherent_share": COHERENT_SHARE,
        "mix_level": MIX_LEVEL,
    }
    train = StemsDataset(
        *(songs, STEMS, seq_dur),
        as_mixed_share=AS_MIXED_SHARE,
        faders=FADERS,
        swap_sides=True,
        varied=varied,
        speed=SPEED,
        samples_per_track=samples_per_track,
        **options,
    )
    valid = StemsDataset(songs, STEMS, seq_dur, split="valid", samples_per_track=VALID_EXCERPTS)
    return train, valid


def build_parser() -> argparse.ArgumentParser:
    """Make the parser, with the fields of `JointConfig` as options."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.umxm.training.joint", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--songs", type=Path, required=True, help="folder of rendered songs")
    parser.add_argument("--model", type=Path, required=True, help="folder of the trained networks")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights and checkpoint")
    parser.add_argument(
        "--samples-per-track", type=int, default=1, help="excerpts of each song in an epoch"
    )
    parser.add_argument(
        "--level-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="turn each excerpt up or down by a gain between these, in dB",
    )
    for field in fields(JointConfig):
        option, default = "--" + field.name.replace("_", "-"), field.default
        if field.name in _NOT_OPTIONS:
            continue
        if isinstance(default, bool) or field.type == "bool | None":
            action = argparse.BooleanOptionalAction
            parser.add_argument(option, action=action, default=default, help="see JointConfig")
        else:
            kind = int if default is None else type(default)
            parser.add_argument(option, type=kind, default=default, help=f"default: {default}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the command line and train; returns the exit status."""
    parser = build_parser()
    arguments = vars(parser.parse_args(argv))
    data = {name: arguments.pop(name) for name in ("songs", "samples_per_track", "level_range")}
    model, out = str(arguments.pop("model")), str(arguments.pop("out"))
    begun = checkpoint_path(out, JointConfig.target).exists()
    received: list[int] = []
    try:
        config = JointConfig(
            output=out,
            safetensors=True,
            model=None if begun else model,
            checkpoint=out if begun else None,
            **arguments,
        )
        trainer = JointTrainer(
            config,
            *datasets(seq_dur=config.seq_dur, **data),
            arguments={"as_mixed_share": AS_MIXED_SHARE, "faders": FADERS, **data},
            progress=True,
        )

        def stop(number: int) -> bool:
            received.append(number)
            trainer.stop()
            return trainer.is_running

        with logging_to_stderr(logging.INFO), stopping_on_signals(stop):
            result = trainer.fit()
    except UmxError as error:
        parser.error(str(error))
    return 128 + received[-1] if result.reason == "stopped" and received else 0


if __name__ == "__main__":
    sys.exit(main())
