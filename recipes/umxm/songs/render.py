"""Render songs: ``python -m recipes.umxm.songs.render --audio SOURCES --out SONGS``.

The songs come as the folders that ``umx_np.train --dataset trackfolder_fix`` reads: one for each
song, with a file for each stem, whose sum is the mixture. A song is a function of its number, so
that the set can be continued or made again. Songs that are there already are passed over.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import shutil
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from ..band import bass, drums, other
from ..studio.plan import SAMPLE_RATE, STEMS, Plan, make_plan
from ..studio.sources import Library
from ..voices import vocals
from . import desk

PLAYERS = {"vocals": vocals, "drums": drums, "bass": bass, "other": other}
# First song of each part; a part has fewer songs than lie between.
FIRST_SEED = {"train": 0, "valid": 1_000_000, "test": 2_000_000}


def render_song(plan: Plan, library: Library) -> dict[str, np.ndarray]:
    """Play, mix and master a song.

    Parameters
    ----------
    plan : Plan
        The song.
    library : Library
        Recorded sounds.

    Returns
    -------
    dict of str to ndarray [shape=(2, nb_timesteps)], float32
        As `desk.mixed` makes them.
    """
    stems = {}
    for name in STEMS:
        audio = PLAYERS[name].render(plan, library)
        if audio.shape != (2, plan.nb_timesteps) or not np.isfinite(audio).all():
            raise ValueError(f"song {plan.seed}: {name} is {audio.shape} or not finite")
        stems[name] = audio
    return desk.mixed(stems, plan)


def write_song(folder: Path, stems: dict[str, np.ndarray], subtype: str = "PCM_16") -> None:
    """Write the stems of a song as WAV files; the folder is there when all of it is."""
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    part.mkdir(parents=True, exist_ok=True)
    try:
        for name, audio in stems.items():
            soundfile.write(part / f"{name}.wav", audio.T, SAMPLE_RATE, subtype)
        part.rename(folder)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


# One for all songs of a process, whose samplers then keep their notes.
_library = lru_cache(maxsize=1)(Library)


def _job(task: tuple[int, float, str, str, str]) -> str:
    seed, duration, audio, cache, folder = task
    if not Path(folder).exists():
        write_song(Path(folder), render_song(make_plan(seed, duration), _library(audio, cache)))
    return folder


def main() -> None:
    """Parse the command line and render."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.umxm.songs.render", description=__doc__
    )
    parser.add_argument("--audio", required=True, help="folder of the sources, see README.md")
    parser.add_argument("--out", required=True, help="folder for the songs")
    parser.add_argument("--cache", help="folder for decoded sounds (default: OUT/.cache)")
    parser.add_argument("--part", choices=tuple(FIRST_SEED), default="train")
    parser.add_argument("--first", type=int, default=0, help="number of the first song")
    parser.add_argument("--songs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=48.0, help="length of each song")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args()
    if options.first < 0 or options.first + options.songs > FIRST_SEED["valid"]:
        parser.error(f"songs of a part have numbers from 0 to {FIRST_SEED['valid'] - 1}")
    cache = options.cache or str(Path(options.out) / ".cache")
    tasks = []
    for number in range(options.first, options.first + options.songs):
        folder = str(Path(options.out) / options.part / f"{number:05d}")
        seed = FIRST_SEED[options.part] + number
        tasks.append((seed, options.seconds, options.audio, cache, folder))
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for _ in tqdm(pool.imap_unordered(_job, tasks), total=len(tasks), unit="song"):
            pass


if __name__ == "__main__":
    main()
