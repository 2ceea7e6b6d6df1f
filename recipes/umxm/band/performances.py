"""Excerpts of recorded performances for the *other* stem: rock guitars, electronic songs."""

from __future__ import annotations

import numpy as np

from ..studio import effects
from ..studio.plan import SAMPLE_RATE, Plan, Section
from ..studio.sources import Library

# Folder, tempo. The guitars of S. Carlos Viola Iborra ("Sectoid").
_GUITARS = (
    ("Escape from chaosland", 135.0),
    ("Feelings", 95.0),
    ("Metal madness", 150.0),
    ("War of freedom", 140.0),
)
_GUITAR_FOLDER = "games/fretsonfire/data/songs/sectoid"
# Folder, how often it is taken, and the frequency under which its accompaniment holds a bass line.
# The fourth and fifth are mostly bass, whose overtones the high pass leaves.
_SONGS = (
    ("1.Hydrogen", 0.32, 160.0),
    ("3.Sodium", 0.32, 150.0),
    ("4.Potassium", 0.1, 280.0),
    ("5.Rubidium", 0.04, 400.0),
    ("6.Caesium", 0.22, 200.0),
)
_SLOWEST, _FASTEST = 0.85, 1.18


def guitar(
    plan: Plan, library: Library, sections: list[Section], rng: np.random.Generator
) -> np.ndarray:
    """Real rock guitars, brought to the plan's tempo where it is near theirs."""
    factors = [plan.tempo / tempo for _, tempo in _GUITARS]
    near = [index for index, factor in enumerate(factors) if _SLOWEST <= factor <= _FASTEST]
    chosen = int(rng.choice(near)) if near and rng.random() < 0.6 else int(rng.integers(4))
    folder, tempo = _GUITARS[chosen]
    in_time = chosen in near
    factor = factors[chosen] if in_time else rng.uniform(_SLOWEST, _FASTEST)
    recorded = library.stored(library.installed(f"{_GUITAR_FOLDER}/{folder}/guitar.ogg"))
    bar = 240.0 / tempo if in_time else 0.0
    return _excerpts(plan, recorded, sections, factor, bar, rng)


def electronic(
    plan: Plan, library: Library, sections: list[Section], rng: np.random.Generator
) -> np.ndarray:
    """Accompaniment of electronic songs, freed of its bass line."""
    folder, _, lowest = _SONGS[rng.choice(len(_SONGS), p=[song[1] for song in _SONGS])]
    recorded = library.stored(library.audio / "everythingisfree" / folder / "other.ogg")
    factor = rng.uniform(_SLOWEST, _FASTEST)
    audio = _excerpts(plan, recorded, sections, factor, 0.0, rng)
    return effects.highpass(audio, lowest * rng.uniform(1.0, 1.2), 6)


def _excerpts(
    plan: Plan,
    recorded: np.ndarray,
    sections: list[Section],
    factor: float,
    bar: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """One excerpt for each kind of section, at another speed; silent passages are avoided.

    Parameters
    ----------
    bar : float
        Seconds of a bar of the recording, from its beginning; 0 if that is not known.
    """
    out = plan.silence()
    places: dict[str, int] = {}
    total = recorded.shape[-1]
    for section in sections:
        start = plan.seconds(section.first_bar)
        count = int(section.nb_bars * 4 * plan.beat * factor * SAMPLE_RATE)
        count = min(count, int(out.shape[-1] * factor), total - 1)
        if section.name not in places:
            tries = [int(rng.integers(0, max(1, total - count))) for _ in range(5)]
            if bar:
                step = bar * SAMPLE_RATE
                tries = [int(round(place / step) * step) for place in tries]
            # The one whose quietest quarter is loudest.
            quarters = [_quietest(recorded, place, count) for place in tries]
            places[section.name] = tries[int(np.argmax(quarters))]
        place = places[section.name]
        piece = recorded[:, place : place + count].astype(np.float32) / np.float32(32767.0)
        if piece.shape[-1] > SAMPLE_RATE // 10:
            sound = effects.faded(effects.respeed(piece, factor), 0.005, 0.06)
            effects.place(out, sound, start)
    return out


def _quietest(recorded: np.ndarray, place: int, count: int) -> float:
    piece = recorded[0, place : place + count : 16].astype(np.float32)
    if len(piece) < 64:
        return 0.0
    return float(min(np.mean(part**2) for part in np.array_split(piece, 4)))
