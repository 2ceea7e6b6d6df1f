"""Real mixes without a singer, for the vocals network only.

``python -m recipes.umxm.songs.instrumentals --audio SOURCES --songs SONGS`` writes
``SONGS/with_instrumentals``: links to the rendered songs, and excerpts of finished instrumental
productions whose stems are not apart. All of such an excerpt is the file *other*; the remaining
stems are silent. What a produced mix of guitars and synthesisers sounds like is the thing that
rendered songs show least, and voices are mistaken for it most.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..studio import effects
from ..studio.plan import SAMPLE_RATE, STEMS
from ..studio.sources import Library
from .render import write_song

FOLDER = "with_instrumentals"
_SECTOID = "games/fretsonfire/data/songs/sectoid"
_ROCK = ("Escape from chaosland", "Feelings", "Metal madness", "War of freedom")
_ELECTRONIC = ("1.Hydrogen", "3.Sodium", "4.Potassium", "5.Rubidium", "6.Caesium")
# Kenta Cho's instrumental music: techno and rock with lead synthesisers.
_GAMES = tuple(
    f"games/{path}.ogg"
    for path in (
        *(f"a7xpg/sounds/bgm{n}" for n in (1, 2, 3)),
        *(f"gunroar/sounds/musics/gr{n}" for n in (0, 1, 2, 3)),
        *(f"mu-cade/sounds/musics/mcd{n}" for n in (1, 2, 3, 4)),
        *(f"noiz2sa/sounds/stg{n}" for n in ("0", "00", "1", "2", "3", "4", "5")),
        *(f"parsec47/sounds/ptn{n}" for n in (0, 1, 2, 3)),
        *(f"rrootage/sounds/stg_{n}" for n in ("a", "b", "c")),
        *(f"titanion/sounds/musics/ttn{n}" for n in (1, 2, 3)),
        *(f"torus-trooper/sounds/musics/tt{n}" for n in (1, 2, 3, 4)),
        "tumiki-fighters/sounds/here_comes_a_gigantic_toy",
        "tumiki-fighters/sounds/just_over_the_horizon",
        "tumiki-fighters/sounds/we_are_tumiki_fighters",
    )
)
_SECONDS = 36.0
_SEED = 20_000_000  # apart from those of the songs


def production(number: int, library: Library) -> list[np.ndarray]:
    """Stems of a production, int16 [shape=(1 or 2, n)] each, whose sum is an instrumental mix."""
    kind, index = number % 4, number // 4
    if kind == 0:
        folder = library.installed(f"{_SECTOID}/{_ROCK[index % len(_ROCK)]}/song.ogg").parent
        return [library.stored(folder / f"{name}.ogg") for name in ("song", "guitar")]
    if kind == 1:
        song = _ELECTRONIC[index % len(_ELECTRONIC)]
        paths = library.files(f"everythingisfree/{song}/*.ogg")
        return [library.stored(path) for path in paths if not path.name.startswith("vocals")]
    path = _GAMES[(2 * index + kind) % len(_GAMES)]
    return [library.stored(library.installed(path))]


def excerpt(number: int, library: Library) -> np.ndarray:
    """An excerpt at another speed, with another balance and sound; float32 [shape=(2, n)].

    Parameters
    ----------
    number : int
        Which one; everything is drawn from it.
    library : Library
        The sources.
    """
    rng = np.random.default_rng(_SEED + number)
    stems = production(number, library)
    factor = rng.uniform(0.84, 1.19)
    count = int(_SECONDS * factor * SAMPLE_RATE)
    place = int(rng.integers(0, max(1, min(stem.shape[-1] for stem in stems) - count)))
    mix = np.zeros((2, count), np.float32)
    for stem in stems:
        piece = stem[:, place : place + count].astype(np.float32) / np.float32(32767.0)
        mix[:, : piece.shape[-1]] += piece * np.float32(effects.decibels(rng.uniform(-3.0, 3.0)))
    mix = effects.random_eq(effects.respeed(mix, factor), rng, depth=3.0)
    if all(len(stem) == 1 for stem in stems):
        # A wide mix is what is heard; one from a single point has to get its width from a room.
        room = effects.room(rng, seconds=rng.uniform(0.3, 1.2))
        mix = effects.reverb(mix, room, rng.uniform(-20.0, -8.0))
    mix = effects.width(mix, rng.uniform(0.7, 1.2))
    mix = effects.normalise(mix, rng.uniform(-20.0, -12.0))
    peak = float(np.abs(mix).max())
    return mix * np.float32(min(1.0, 0.98 / max(peak, 1e-9)))


def main() -> None:
    """Parse the command line, link the songs and write the excerpts."""
    parser = argparse.ArgumentParser(
        prog="python -m recipes.umxm.songs.instrumentals", description=__doc__
    )
    parser.add_argument("--audio", required=True, help="folder of the sources, see README.md")
    parser.add_argument("--songs", required=True, help="folder of rendered songs")
    parser.add_argument("--cache", help="folder for decoded sounds (default: SONGS/.cache)")
    parser.add_argument("--excerpts", type=int, default=160)
    options = parser.parse_args()
    songs = Path(options.songs)
    library = Library(options.audio, options.cache or songs / ".cache")
    for part in ("train", "valid"):
        (songs / FOLDER / part).mkdir(parents=True, exist_ok=True)
        for song in (songs / part).iterdir():
            link = songs / FOLDER / part / song.name
            if link.is_symlink() and not link.exists():
                link.unlink()  # the folder of the songs was moved
            if not song.name.startswith(".") and not link.exists():
                link.symlink_to(song.resolve(), target_is_directory=True)
    for number in tqdm(range(options.excerpts), unit="excerpt"):
        folder = songs / FOLDER / "train" / f"instrumental-{number:03d}"
        if not folder.exists():
            mix = excerpt(number, library)
            stems = {name: np.zeros_like(mix) for name in STEMS}
            write_song(folder, {**stems, "other": mix})


if __name__ == "__main__":
    main()
