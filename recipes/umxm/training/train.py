"""Train the four networks: ``python -m recipes.umxm.training.train --songs SONGS --out RUN``.

Each target is trained by ``python -m umx_np.train`` in stages. What is there already is continued
or passed over, so that the command can be stopped and given again at any time; a later stage begins
with the weights of the one before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from umx_np._support.threads import parallel_map

from ..songs import instrumentals
from ..studio.plan import STEMS

# The network of these stages, which are soon done with it; `grow` makes it as wide as 25 MB allow.
_NETWORK = ("--hidden-size", "256", "--bandwidth", "14000")
# Songs are loud and soft, wide and narrow, high and low, coherent and thrown together.
AUGMENTATIONS = ("gain", "channelswap", "polarity", "width", "tilt")
COHERENT_SHARE = 0.4
MIX_LEVEL = (-20.0, -12.0)
# There are more voices and instruments than were recorded: shorter and longer, higher and lower.
SPEED = (0.87, 1.2)
_DATA = (
    *("--random-track-mix", "--coherent-share", str(COHERENT_SHARE)),
    *("--source-augmentations", *AUGMENTATIONS),
    *("--mix-level", *map(str, MIX_LEVEL), "--speed", *map(str, SPEED)),
)
# What is hardly heard counts like what is loud. Soft basses gain from that; networks for the other
# targets do so on rendered songs, but on real ones fall silent at instruments they do not know.
_LOSSES = {"bass": "log-mse"}


@dataclass(frozen=True)
class Stage:
    """A run of the trainer.

    Attributes
    ----------
    name : str
        Folder of the run.
    seq_dur : float
        Seconds of an excerpt.
    batch_size : int
        Excerpts of a step.
    lr : float
        Learning rate at the beginning; it falls along a cosine.
    steps : int
        About how many steps of the optimiser it takes.
    """

    name: str
    seq_dur: float
    batch_size: int
    lr: float
    steps: int


# Short excerpts first: many steps for the time they take.
STAGES = (
    Stage("learn", seq_dur=3.0, batch_size=16, lr=1e-3, steps=20_000),
    Stage("refine", seq_dur=6.0, batch_size=8, lr=3e-4, steps=6000),
)
_STEPS_PER_EPOCH = 500


def command(
    target: str,
    stage: Stage,
    songs: Path,
    out: Path,
    before: Path | None = None,
    more: Sequence[str] = (),
) -> list[str]:
    """Arguments of the trainer for a target and a stage.

    Parameters
    ----------
    target : str
        One of the stems.
    stage : Stage
        What to run.
    songs : Path
        Folder with the rendered ``train`` and ``valid`` songs; for vocals those with instrumentals
        are taken if they were made.
    out : Path
        Folder with the stages' folders.
    before : Path or None
        Folder of the stage whose weights are the beginning.
    more : sequence of str
        Further arguments.

    Returns
    -------
    list of str
    """
    others = [f"{name}.wav" for name in STEMS if name != target]
    folder = out / stage.name
    if target == "vocals" and (songs / instrumentals.FOLDER).is_dir():
        songs = songs / instrumentals.FOLDER
    # What begins with a dot is not finished.
    found = [path for path in (songs / "train").iterdir() if path.is_dir()]
    nb_songs = max(1, sum(not path.name.startswith(".") for path in found))
    samples_per_track = max(1, round(_STEPS_PER_EPOCH * stage.batch_size / nb_songs))
    epochs = round(stage.steps * stage.batch_size / (samples_per_track * nb_songs))
    arguments = [
        *("--dataset", "trackfolder_fix", "--root", str(songs)),
        *("--target-file", f"{target}.wav", "--interferer-files", *others),
        *_DATA,
        *("--loss", _LOSSES.get(target, "mse")),
        *("--samples-per-track", str(samples_per_track), "--seq-dur", str(stage.seq_dur)),
        *("--batch-size", str(stage.batch_size), "--epochs", str(epochs)),
        *("--lr", str(stage.lr), "--lr-schedule", "cosine", "--patience", "0"),
        *("--nb-workers", "1", "--safetensors", "--plot", *more),
    ]
    if (folder / f"{target}.chkpnt").exists():
        arguments += ["--checkpoint", str(folder)]
    else:
        arguments += ["--output", str(folder), *_NETWORK]
        if before is not None:
            arguments += ["--model", str(before)]
    return [sys.executable, "-m", "umx_np.train", *arguments]


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.umxm.training.train", description=__doc__
    )
    parser.add_argument("--songs", required=True, help="folder of rendered songs")
    parser.add_argument("--out", required=True, help="folder for the runs and their logs")
    parser.add_argument("--targets", nargs="+", default=list(STEMS), choices=STEMS)
    names = [stage.name for stage in STAGES]
    parser.add_argument("--stages", nargs="+", default=names, choices=names)
    parser.add_argument("--jobs", type=int, default=2, help="targets trained side by side")
    parser.add_argument("more", nargs="*", help="after --: arguments of umx_np.train")
    options = parser.parse_args()
    songs, out = Path(options.songs), Path(options.out)

    def train(target: str, stage: Stage, before: Path | None) -> bool:
        arguments = command(target, stage, songs, out, before, options.more)
        (out / stage.name).mkdir(parents=True, exist_ok=True)
        with open(out / stage.name / f"{target}.log", "a") as log:
            done = subprocess.run(arguments, stdout=log, stderr=subprocess.STDOUT)
        if done.returncode:
            print(f"{target}: {stage.name} ended with {done.returncode}, see {log.name}")
        return done.returncode == 0

    before = None
    for stage in STAGES:
        if stage.name in options.stages:
            done = parallel_map(
                options.jobs, partial(train, stage=stage, before=before), options.targets
            )
            if not all(done):
                sys.exit(1)
        before = out / stage.name


if __name__ == "__main__":
    main()
