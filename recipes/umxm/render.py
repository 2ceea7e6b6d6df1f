"""Render songs: ``python -m recipes.umxm.render --audio SOURCES --out SONGS``.

The songs come as the folders that ``umx_np.train --dataset trackfolder_fix`` reads: one for each
song, with a file for each stem, whose sum is the mixture. A song is a function of its number, so
that the set can be continued or made again. Songs that are there already are passed over.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import shutil
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from . import effects
from .plan import SAMPLE_RATE, STEMS, Plan, make_plan
from .sources import Library

# First song of each part; a part has fewer songs than lie between.
FIRST_SEED = {"train": 0, "valid": 1_000_000, "test": 2_000_000}

# How loud a mixing engineer makes each stem: mean and spread in LU from the mix. Engineers balance
# by ear, not by power, which basses need more of. Lead vocals lie near -3 (P. D. Pestana and J. D.
# Reiss, "Intelligent audio production strategies informed by best practices", AES 2014), with the
# softer backing voices of the stem a little lower. Drums and other lie between those of two
# finished productions (-6.0 and -2.4; -5.6 and -9.9), the bass under the only one at hand (-5.2).
_BALANCE = {"vocals": (-4.5, 1.5), "drums": (-5.0, 1.8), "bass": (-7.0, 1.8), "other": (-6.5, 2.0)}
# LUFS of the mix before it is mastered.
_MIX_LOUDNESS = -18.0
_CEILING = 0.98


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
        The stems as they are in the mix; their sum is the mixture, within full scale.
    """
    rng = plan.rng("mix")
    stems = {}
    for name in STEMS:
        player = importlib.import_module(f"{__package__}.{name}")
        audio = player.render(plan, library)
        if audio.shape != (2, plan.nb_timesteps) or not np.isfinite(audio).all():
            raise ValueError(f"song {plan.seed}: {name} is {audio.shape} or not finite")
        mean, spread = _BALANCE[name]
        level = np.clip(rng.normal(mean, spread), mean - 2.2 * spread, mean + 2.2 * spread)
        now = effects.loudness(audio)
        # Under -70 there is nothing to hear, and nothing to turn up.
        gain = effects.decibels(_MIX_LOUDNESS + level - now) if now > -70.0 else 1.0
        stems[name] = audio * np.float32(gain)
    return _mastered(stems, rng)


def _mastered(stems: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Make the sum loud. The gain over time is that of the mix, and is given to all stems."""
    mixture = np.sum(list(stems.values()), axis=0)
    loudness = effects.rms(mixture)
    if loudness < 1e-6:
        return stems
    # From untouched demos to loud masters.
    gain = effects.decibels(rng.uniform(-22.0, -10.0)) / loudness
    gain_over_time = effects.limit(mixture * np.float32(gain), _CEILING) * np.float32(gain)
    stems = {name: audio * gain_over_time for name, audio in stems.items()}
    peak = max(float(np.abs(audio).max()) for audio in stems.values())
    peak = max(peak, float(np.abs(np.sum(list(stems.values()), axis=0)).max()))
    if peak > _CEILING:
        stems = {name: audio * np.float32(_CEILING / peak) for name, audio in stems.items()}
    return stems


def write_song(folder: Path, stems: dict[str, np.ndarray], extension: str = "wav") -> None:
    """Write the stems of a song, 16 bit; the folder is there when all of it is."""
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    part.mkdir(parents=True, exist_ok=True)
    try:
        for name, audio in stems.items():
            soundfile.write(part / f"{name}.{extension}", audio.T, SAMPLE_RATE, "PCM_16")
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
    parser = argparse.ArgumentParser(prog="python -m recipes.umxm.render", description=__doc__)
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
