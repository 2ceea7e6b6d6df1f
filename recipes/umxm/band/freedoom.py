"""Accompaniments that people wrote: the parts of Freedoom's songs that are not drums or bass."""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..studio import midi
from ..studio.notes import Note
from ..studio.plan import Plan, Section
from ..studio.sources import Library

# Voices, percussion and noises are not played.
_UNWANTED = (52, 53, 54, 85, 91, *range(112, 128), 47, 55)
# Lower parts are basses whatever their program says.
_LOWEST_MEAN = 47.0
_FEWEST_NOTES = 24
# Steps over the tonic that count for major and for minor, after C. Krumhansl's key profiles.
_PROFILES = {
    "major": (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88),
    "minor": (6.33, 2.68, 3.52, 5.38, 2.6, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17),
}


@dataclass(frozen=True)
class Part:
    """What one channel of a song plays.

    Attributes
    ----------
    program : int
        Of General MIDI, from 0.
    notes : ndarray [shape=(nb_notes, 4)]
        Begin and length in quarter notes, pitch, velocity from 0 to 1; in order.
    """

    program: int
    notes: np.ndarray


def song(library: Library, rng: np.random.Generator) -> tuple[Part, ...]:
    """The accompanying parts of a song drawn at random, busiest first; empty if it has none."""
    scores = _scores(library.audio / midi.FREEDOOM_ARCHIVE)
    return _parts(scores[rng.integers(len(scores))])


@lru_cache(maxsize=2)
def _scores(archive: Path) -> tuple[bytes, ...]:
    with tarfile.open(archive) as files:
        members = sorted(files.getmembers(), key=lambda member: member.name)
        read = [files.extractfile(member) for member in members if member.name.endswith(".mid")]
        return tuple(file.read() for file in read if file is not None)


@lru_cache(maxsize=32)
def _parts(score: bytes) -> tuple[Part, ...]:
    found: dict[tuple[int, int], list[tuple[float, float, int, float]]] = {}
    for note in midi.read_score(score)[1]:
        if note.channel != midi.DRUM_CHANNEL:
            part = found.setdefault((note.channel, note.program), [])
            part.append((note.beat, max(note.length, 0.05), note.pitch, note.velocity))
    parts = []
    for (_, played), notes in sorted(found.items()):
        table = np.array(sorted(notes), np.float64)
        wanted = played not in midi.BASS_PROGRAMS and played not in _UNWANTED
        if wanted and len(table) >= _FEWEST_NOTES and table[:, 2].mean() >= _LOWEST_MEAN:
            parts.append(Part(played, table))
    return tuple(sorted(parts, key=lambda part: -part.notes[:, 1].sum()))


def transposition(parts: tuple[Part, ...], plan: Plan) -> int:
    """Semitones, -6 to 5, that bring the parts into the plan's key as well as can be told."""
    classes = np.zeros(12)
    for part in parts:
        np.add.at(classes, part.notes[:, 2].astype(int) % 12, part.notes[:, 1])
    profile = np.array(_PROFILES[plan.mode])
    fits = [np.dot(np.roll(profile, tonic), classes) for tonic in range(12)]
    return (plan.tonic - int(np.argmax(fits)) + 6) % 12 - 6


def excerpt(part: Part, plan: Plan, section: Section, first_bar: int, shift: int) -> list[Note]:
    """Notes of a part from one of its bars on, played in a section of a plan."""
    beats = part.notes[:, 0] - 4.0 * first_bar
    inside = (beats >= -0.02) & (beats < 4.0 * section.nb_bars - 0.02)
    out = []
    for begin, (_, length, pitch, velocity) in zip(beats[inside], part.notes[inside], strict=True):
        bar, beat = divmod(max(0.0, float(begin)), 4.0)
        start = plan.seconds(section.first_bar + bar, beat)
        length = min(float(length), 4.0 * section.nb_bars - float(begin)) * plan.beat
        out.append(Note(start, length, int(pitch) + shift, 0.3 + 0.65 * float(velocity)))
    return out


def fullest_bar(parts: tuple[Part, ...], nb_bars: int, rng: np.random.Generator) -> int:
    """Of some bars drawn at random that from which most notes follow."""
    last = max(part.notes[-1, 0] for part in parts) / 4.0
    tries = 4 * rng.integers(0, max(1, int((last - nb_bars) // 4) + 1), 4)

    def count(bar: int) -> int:
        begins = [part.notes[:, 0] / 4.0 - bar for part in parts]
        return sum(int(np.sum((begin >= 0) & (begin < nb_bars))) for begin in begins)

    return int(max(tries, key=count))
