"""Train the four networks: ``python -m recipes.umxm.train --songs SONGS --out RUN``.

Each target is trained by ``python -m umx_np.train`` in stages. What is there already is continued
or passed over, so that the command can be stopped and given again at any time; a later stage begins
with the weights of the one before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .plan import STEMS

# The network: small enough for 25 MB with four targets in half precision.
_NETWORK = ("--hidden-size", "256", "--bandwidth", "14000")
# Songs are loud and soft, wide and narrow, coherent and thrown together.
_DATA = (
    *("--random-track-mix", "--coherent-share", "0.4"),
    *("--source-augmentations", "gain", "channelswap"),
)


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
    epochs, samples_per_track : int
        How long it lasts.
    """

    name: str
    seq_dur: float
    batch_size: int
    lr: float
    epochs: int
    samples_per_track: int


STAGES = (
    Stage("learn", seq_dur=3.0, batch_size=8, lr=1e-3, epochs=24, samples_per_track=12),
    Stage("refine", seq_dur=6.0, batch_size=8, lr=3e-4, epochs=12, samples_per_track=8),
)


def command(
    target: str, stage: Stage, songs: Path, out: Path, threads: int, before: Path | None
) -> list[str]:
    """Arguments of the trainer for a target and a stage.

    Parameters
    ----------
    target : str
        One of the stems.
    stage : Stage
        What to run.
    songs : Path
        Folder with the rendered ``train`` and ``valid`` songs.
    out : Path
        Folder with the stages' folders.
    threads : int
        To compute on.
    before : Path or None
        Folder of the stage whose weights are the beginning.

    Returns
    -------
    list of str
    """
    others = [f"{name}.wav" for name in STEMS if name != target]
    folder = out / stage.name
    arguments = [
        *("--dataset", "trackfolder_fix", "--root", str(songs)),
        *("--target-file", f"{target}.wav", "--interferer-files", *others),
        *_DATA,
        *("--samples-per-track", str(stage.samples_per_track), "--seq-dur", str(stage.seq_dur)),
        *("--batch-size", str(stage.batch_size), "--epochs", str(stage.epochs)),
        *("--lr", str(stage.lr), "--lr-schedule", "cosine", "--patience", "0"),
        *("--threads", str(threads), "--nb-workers", "1", "--safetensors", "--plot"),
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
    parser = argparse.ArgumentParser(prog="python -m recipes.umxm.train", description=__doc__)
    parser.add_argument("--songs", required=True, help="folder of rendered songs")
    parser.add_argument("--out", required=True, help="folder for the runs and their logs")
    parser.add_argument("--targets", nargs="+", default=list(STEMS), choices=STEMS)
    parser.add_argument("--stages", nargs="+", default=[stage.name for stage in STAGES])
    parser.add_argument("--jobs", type=int, default=2, help="targets trained side by side")
    parser.add_argument("--threads", type=int, default=1, help="threads of each")
    options = parser.parse_args()
    songs, out = Path(options.songs), Path(options.out)
    failed = threading.Event()

    def train(target: str) -> None:
        before = None
        for stage in STAGES:
            if stage.name in options.stages and not failed.is_set():
                arguments = command(target, stage, songs, out, options.threads, before)
                (out / stage.name).mkdir(parents=True, exist_ok=True)
                with open(out / stage.name / f"{target}.log", "a") as log:
                    done = subprocess.run(arguments, stdout=log, stderr=subprocess.STDOUT)
                if done.returncode:
                    failed.set()
                    print(f"{target}: {stage.name} ended with {done.returncode}, see {log.name}")
                    return
            before = out / stage.name

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(train, options.targets))
    if failed.is_set():
        sys.exit(1)


if __name__ == "__main__":
    main()
