"""What the accompanying instruments play: strums, riffs, comping, arpeggios, melodies.

Each function writes the notes of one section from the plan's chords.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..studio.notes import Note
from ..studio.plan import Chord, Plan, Section

# Open strings of a guitar, lowest first.
TUNING = (40, 45, 50, 55, 59, 64)
_FRETS = 4
# Strings and pitches of a chord.
Shape = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Stroke:
    """When a chord is struck within its bar, and how.

    Attributes
    ----------
    beat, length : float
        In quarter notes.
    velocity : float
        From 0 to 1.
    muted : bool
        With the palm on the strings.
    """

    beat: float
    length: float
    velocity: float = 0.8
    muted: bool = False


def rhythm(marks: str, accent: float = 0.9, soft: float = 0.65) -> tuple[Stroke, ...]:
    """Strokes from a bar drawn in characters, evenly spaced.

    ``X`` is an accent, ``x`` a soft stroke, ``m`` a palm mute, ``-`` lets the one before ring on,
    ``.`` is silence.
    """
    step = 4.0 / len(marks)
    strokes: list[Stroke] = []
    ringing = False
    for index, mark in enumerate(marks):
        if mark == "-" and ringing:
            last = strokes.pop()
            strokes.append(Stroke(last.beat, last.length + step, last.velocity, last.muted))
        elif mark in "Xxm":
            velocity = accent if mark == "X" else soft
            strokes.append(Stroke(index * step, step, velocity, mark == "m"))
            ringing = True
        else:
            ringing = False
    return tuple(strokes)


STRUMS = tuple(
    rhythm(marks)
    for marks in (
        "X---x-xx-xx-x-x-", "X---X-x---x-X-x-", "X-x-X-x-X-x-X-x-", "X-----x-X---x-x-",
        "X---x---X---x-x-", "X--x--x-X--x--x-", "X-xxx-xxX-xxx-xx", "X---------------",
        "X-------x---x---", "X---x-x---x-x-x-",
    )
)  # fmt: skip
CHUGS = tuple(
    rhythm(marks, 1.0, 0.85)
    for marks in (
        "mmmmmmmmmmmmmmmm", "X-mmX-mmX-mmX-mm", "X-----mmX-----mm", "m-mmm-mmm-mmX---",
        "X-m-m-m-X-m-m-m-", "m-m-m-m-m-m-m-m-", "X-x-x-x-x-x-x-x-", "X-------X---X---",
        "mmX-mmX-mmX-X-X-", "X---mmmmX---mmmm", "X-x-X-x-X-x-X-x-", "X---------------",
    )
)  # fmt: skip
FUNK = tuple(
    rhythm(marks, 0.85, 0.5)
    for marks in (
        "x.mxm.x.m.xmx.m.", "..x...x...x...x.", "m.x.mmx.m.x.mmx.", "x..x..m.x..x.mm.",
        "....X.......X...", "x.x...mmx.x...mm",
    )
)  # fmt: skip
COMPING = tuple(
    rhythm(marks)
    for marks in (
        "X---------------", "X-------X-------", "X---x---X---x---", "X-x-x-x-X-x-x-x-",
        "X--x--x-X--x--x-", "X--x--x---------", "..x-..x-..x-..x-", "X-----x---x-----",
        "X-..x-..X-..x-..", "X..X..X.X..X..X.", "....X---....X---", "X--X----X--X-X--",
    )
)  # fmt: skip
STABS = tuple(
    rhythm(marks)
    for marks in (
        "X.......X.X.....", "....X.......X.X.", "X-------........", "..X...X.........",
        "X-x-............", "......X-......X-", "X..X..X.........", "X-------------xX",
    )
)  # fmt: skip


def fingering(chord: Chord, position: int = 0) -> Shape:
    """String and pitch of a chord on a guitar, the root lowest.

    Parameters
    ----------
    chord : Chord
    position : int
        Lowest fret used; from 0.
    """
    reach = range(position, position + _FRETS + (1 if position else 0))
    out: list[tuple[int, int]] = []
    for string, opened in enumerate(TUNING):
        frets = [fret for fret in reach if (opened + fret) % 12 in chord.pitch_classes]
        if not out:
            frets = [fret for fret in frets if (opened + fret) % 12 == chord.root]
        if frets:
            out.append((string, opened + frets[0]))
    return tuple(out)


def power_chord(chord: Chord, lowest: int = 40) -> Shape:
    """Root, fifth and octave on the three strings from the lowest that has the root near."""
    root = lowest + (chord.root - lowest) % 12
    string = 0 if root - lowest <= 6 else 1
    return ((string, root), (string + 1, root + 7), (string + 2, root + 12))


def strums(
    plan: Plan,
    section: Section,
    bars: Sequence[Stroke],
    shapes: Sequence[Shape],
    rng: np.random.Generator,
    spread: float = 0.016,
) -> list[Note]:
    """Chords struck across the strings, down and up.

    Parameters
    ----------
    bars : sequence of Stroke
        What is struck in each bar.
    shapes : sequence of tuple
        Strings and pitches for each bar of the section.
    spread : float
        Seconds from the first string to the last.
    """
    notes = []
    for bar, shape in enumerate(shapes):
        for stroke in bars:
            start = plan.seconds(section.first_bar + bar, stroke.beat)
            up = (stroke.beat * 2.0) % 1.0 > 0.1 or (stroke.beat % 1.0 > 0.4 and len(bars) > 6)
            strings = shape[::-1] if up else shape
            if up and len(strings) > 4:
                strings = strings[:4]
            if stroke.muted and len(strings) > 3:
                strings = strings[:3]
            wide = spread * rng.uniform(0.6, 1.5) * (1.4 - 0.6 * stroke.velocity)
            for place, (string, pitch) in enumerate(strings):
                late = wide * place / max(1, len(strings) - 1)
                velocity = stroke.velocity * (1.0 - 0.05 * place) * rng.uniform(0.9, 1.05)
                length = stroke.length * plan.beat - late
                notes.append(
                    Note(start + late, length, pitch, velocity, string, muted=stroke.muted)
                )
    return notes


def picking(
    plan: Plan, section: Section, shapes: Sequence[Shape], rng: np.random.Generator
) -> list[Note]:
    """Chords broken string by string, ringing into each other."""
    step = 0.25 if plan.tempo < 105 and rng.random() < 0.5 else 0.5
    count = int(4 / step)
    order = [0, *rng.permutation([1, 2, 3, 2, 3, 4, 1])]
    notes = []
    for bar, shape in enumerate(shapes):
        for index in range(count):
            string, pitch = shape[order[index % 8] % len(shape)]
            start = plan.seconds(section.first_bar + bar, index * step)
            ring = (4.0 - index * step) * plan.beat + 0.05
            velocity = 0.8 if index % 4 == 0 else rng.uniform(0.5, 0.7)
            notes.append(Note(start, ring, pitch, velocity, string))
    return notes


def chords(
    plan: Plan, section: Section, bars: Sequence[Stroke], lowest: int, nb_notes: int = 4
) -> list[Note]:
    """Close voicings that move little from chord to chord.

    Parameters
    ----------
    lowest : int
        MIDI pitch under which no note lies.
    nb_notes : int
        At most; the voicing is doubled in octaves from below up to there.
    """
    notes = []
    before: tuple[int, ...] = ()
    for bar in range(section.nb_bars):
        voicing = voiced(plan.chords[section.first_bar + bar], lowest, before)
        before = voicing
        full = (voicing + tuple(pitch + 12 for pitch in voicing))[:nb_notes]
        for stroke in bars:
            start = plan.seconds(section.first_bar + bar, stroke.beat)
            for pitch in full:
                notes.append(Note(start, stroke.length * plan.beat, pitch, stroke.velocity))
    return notes


def voiced(chord: Chord, lowest: int, before: Sequence[int] = ()) -> tuple[int, ...]:
    """The voicing not under `lowest` that is nearest to the one before."""
    choices = [chord.voicing(lowest, turn) for turn in range(len(chord.intervals))]
    middle = float(np.mean(before)) if before else lowest + 6.0
    return min(choices, key=lambda pitches: (abs(float(np.mean(pitches)) - middle), pitches))


def arpeggio(
    plan: Plan, section: Section, lowest: int, rng: np.random.Generator, step: float | None = None
) -> list[Note]:
    """Chord tones one after the other: up, down, both or in a pattern of their own."""
    step = step or float(rng.choice((0.25, 0.25, 0.5)))
    octaves = int(rng.integers(1, 3))
    way = rng.choice(("up", "down", "both", "own"))
    own = rng.integers(0, 8, 8)
    gate = rng.uniform(0.4, 1.0)
    gaps = rng.random(16) < rng.choice((0.0, 0.0, 0.25))
    notes = []
    for bar in range(section.nb_bars):
        chord = plan.chords[section.first_bar + bar]
        voicing = chord.voicing(lowest)
        tones = [pitch + 12 * octave for octave in range(octaves) for pitch in voicing]
        tones = sorted(set(tones))
        if way == "down":
            tones = tones[::-1]
        elif way == "both":
            tones = tones + tones[-2:0:-1]
        for index in range(int(4 / step)):
            if gaps[index % 16]:
                continue
            place = own[index % 8] if way == "own" else index
            velocity = 0.85 if index % 4 == 0 else 0.65
            start = plan.seconds(section.first_bar + bar, index * step)
            pitch = tones[place % len(tones)]
            notes.append(Note(start, step * gate * plan.beat, pitch, velocity))
    return notes


def melody(
    plan: Plan,
    section: Section,
    centre: int,
    rng: np.random.Generator,
    busy: float = 0.5,
    expressive: bool = False,
) -> list[Note]:
    """A line of a two-bar rhythm that comes again, on chord tones where the beat is strong.

    Parameters
    ----------
    centre : int
        MIDI pitch around which it moves.
    busy : float
        Share of the eighths on which a note begins.
    expressive : bool
        With bends and vibrato, as a lead guitar.
    """
    onsets = [0.0] if rng.random() < 0.7 else [0.5]
    while onsets[-1] < 7.5:
        lengths = (0.25, 0.5, 0.5, 1.0) if busy > 0.6 else (0.5, 1.0, 1.0, 1.5, 2.0)
        onsets.append(onsets[-1] + float(rng.choice(lengths)))
    onsets = [onset for onset in onsets if onset < 7.9]
    steps = rng.integers(-2, 3, len(onsets))
    rests = rng.random(len(onsets)) < 0.12
    ladder = [pitch for pitch in range(centre - 10, centre + 11) if pitch % 12 in plan.scale]
    place = len(ladder) // 2
    notes = []
    for first in range(0, section.nb_bars, 2):
        for index, onset in enumerate(onsets):
            bar = first + int(onset // 4)
            if bar >= section.nb_bars or rests[index]:
                continue
            place = int(np.clip(place + steps[index], 0, len(ladder) - 1))
            pitch = ladder[place]
            chord = plan.chords[section.first_bar + bar]
            if onset % 1.0 == 0.0:
                near = [tone for tone in ladder if tone % 12 in chord.pitch_classes]
                if near:
                    pitch = min(near, key=lambda tone: abs(tone - ladder[place]))
            after = onsets[index + 1] if index + 1 < len(onsets) else 8.0
            length = (after - onset) * plan.beat
            start = plan.seconds(section.first_bar + bar, onset % 4)
            bend, vibrato = 0.0, 0.0
            if expressive:
                bend = float(rng.choice((0.0, 0.0, 0.0, 1.0, 2.0, -1.0)))
                vibrato = float(rng.uniform(0.1, 0.45)) if length > 0.4 else 0.0
            velocity = float(rng.uniform(0.65, 0.95))
            notes.append(Note(start, length * 0.97, pitch, velocity, 0, bend, vibrato))
    return notes


def riff(
    plan: Plan, section: Section, rng: np.random.Generator, lowest: int = 40, muted: float = 0.3
) -> list[Note]:
    """A bar of low notes around the root that comes again over every chord."""
    marks = "".join(rng.choice(list("Xx-m."), 16, p=(0.22, 0.2, 0.3, 0.2 * min(1, muted * 3), 0.28
                       - 0.2 * min(1, muted * 3))))  # fmt: skip
    strokes = rhythm("X" + marks[1:], 1.0, 0.8)
    # Minor pentatonic over the root with octave; palm mutes stay on the root.
    choices = rng.choice((0, 0, 3, 5, 7, 10, 12), len(strokes))
    notes = []
    for bar in range(section.nb_bars):
        root = lowest + (plan.chords[section.first_bar + bar].root - lowest) % 12
        for index, stroke in enumerate(strokes):
            pitch = root + (0 if stroke.muted or index == 0 else int(choices[index]))
            start = plan.seconds(section.first_bar + bar, stroke.beat)
            length = stroke.length * plan.beat
            notes.append(Note(start, length, pitch, stroke.velocity, 0, muted=stroke.muted))
    return notes
