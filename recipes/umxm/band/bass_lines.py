"""What a bass plays: lines over the chords of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..studio.midi import Performance
from ..studio.plan import Chord, Plan, Section
from .drum_patterns import swung

# The open E string; the highest pitch of a line is the G two octaves and a third above.
LOWEST, HIGHEST = 28, 55


@dataclass(frozen=True)
class BassNote:
    """One note of a bass.

    Attributes
    ----------
    start, duration : float
        Seconds.
    pitch : int
        MIDI pitch.
    velocity : float
        From 0 to 1.
    slide : float
        Semitones, from which the note slides to its pitch.
    is_ghost : bool
        Damped: a thud with hardly a pitch.
    """

    start: float
    duration: float
    pitch: int
    velocity: float
    slide: float = 0.0
    is_ghost: bool = False


# Beat, length in beats, degree of the chord (0 root, 1 third, 2 fifth, 3 octave; 9 a ghost note),
# velocity.
Step = tuple[float, float, int, float]


def _even(count: int, degree: int = 0, length: float = 0.95) -> tuple[Step, ...]:
    size = 4.0 / count
    loudness = (0.9, 0.78)
    return tuple((k * size, size * length, degree, loudness[k % 2]) for k in range(count))


RIFFS: dict[str, tuple[tuple[Step, ...], ...]] = {
    "held": (((0.0, 4.0, 0, 0.85),), ((0.0, 3.5, 0, 0.85), (3.5, 0.5, 2, 0.7))),
    "half": (
        ((0.0, 2.0, 0, 0.9), (2.0, 2.0, 0, 0.8)),
        ((0.0, 1.5, 0, 0.9), (1.5, 2.5, 0, 0.8)),
        ((0.0, 2.5, 0, 0.9), (2.5, 1.5, 2, 0.8)),
    ),
    "quarters": (_even(4), _even(4, length=0.6)),
    "eighths": (_even(8), _even(8, length=0.6), _even(8, length=0.8)),
    "sixteenths": (_even(16, length=0.8),),
    "octaves": (
        tuple((k * 0.5, 0.4, 0 if k % 2 == 0 else 3, 0.9) for k in range(8)),
        tuple((k * 0.5 + (0.25 if k % 2 else 0), 0.25, 3 * (k % 2), 0.9) for k in range(8)),
    ),
    "offbeat": (tuple((k + 0.5, 0.45, 0, 0.9) for k in range(4)),),
    "syncopated": (
        ((0.0, 0.7, 0, 0.95), (0.75, 0.7, 0, 0.8), (1.5, 0.9, 0, 0.9), (2.5, 0.5, 2, 0.8),
         (3.0, 0.5, 0, 0.85), (3.5, 0.5, 2, 0.7)),
        ((0.0, 1.4, 0, 0.95), (1.5, 1.0, 0, 0.85), (2.5, 0.5, 0, 0.8), (3.0, 0.9, 2, 0.85)),
        ((0.0, 0.75, 0, 0.95), (0.75, 0.75, 0, 0.85), (1.5, 0.5, 3, 0.85), (2.0, 0.75, 0, 0.9),
         (2.75, 0.75, 0, 0.8), (3.5, 0.5, 2, 0.8)),
    ),
    "arpeggio": (
        ((0.0, 1.0, 0, 0.9), (1.0, 1.0, 1, 0.8), (2.0, 1.0, 2, 0.85), (3.0, 1.0, 1, 0.8)),
        ((0.0, 0.5, 0, 0.9), (0.5, 0.5, 2, 0.75), (1.0, 0.5, 3, 0.8), (1.5, 0.5, 2, 0.75),
         (2.0, 0.5, 0, 0.9), (2.5, 0.5, 2, 0.75), (3.0, 0.5, 1, 0.8), (3.5, 0.5, 2, 0.75)),
    ),
    "funk": (
        ((0.0, 0.4, 0, 1.0), (0.75, 0.2, 9, 0.6), (1.0, 0.2, 9, 0.5), (1.25, 0.2, 3, 0.95),
         (1.75, 0.4, 0, 0.8), (2.5, 0.2, 0, 0.85), (2.75, 0.2, 3, 0.95), (3.25, 0.2, 9, 0.5),
         (3.5, 0.4, 2, 0.85)),
        ((0.0, 0.6, 0, 1.0), (0.75, 0.2, 0, 0.8), (1.5, 0.2, 9, 0.5), (1.75, 0.2, 3, 0.95),
         (2.25, 0.2, 9, 0.5), (2.5, 0.4, 0, 0.9), (3.0, 0.2, 2, 0.85), (3.5, 0.2, 3, 0.95)),
        ((0.0, 0.2, 0, 1.0), (0.25, 0.2, 9, 0.5), (0.5, 0.2, 3, 0.9), (1.0, 0.2, 9, 0.5),
         (1.5, 0.4, 0, 0.9), (2.0, 0.2, 0, 1.0), (2.5, 0.2, 3, 0.9), (2.75, 0.2, 9, 0.5),
         (3.0, 0.4, 1, 0.8), (3.5, 0.4, 2, 0.8)),
    ),
}  # fmt: skip
# Kinds of lines of a style; beside the riffs there are walking, kick (on the drummer's kicks),
# trap (long, few, sliding) and score (a line of Freedoom's songs).
STYLE_LINES = {
    "pop": ("eighths", "held", "half", "syncopated", "octaves", "kick", "score", "quarters"),
    "rock": ("eighths", "eighths", "quarters", "kick", "score", "syncopated", "walking"),
    "electronic": ("eighths", "offbeat", "octaves", "sixteenths", "held", "syncopated", "trap"),
    "ballad": ("held", "half", "arpeggio", "quarters", "syncopated"),
    "metal": ("eighths", "sixteenths", "kick", "kick", "score"),
    "funk": ("funk", "funk", "octaves", "syncopated", "walking", "score"),
    "hiphop": ("trap", "trap", "kick", "half", "syncopated"),
    "indie": ("eighths", "quarters", "arpeggio", "walking", "syncopated", "octaves", "score"),
}


def _even_scale_step(pitch: int, plan: Plan) -> int:
    """The pitch itself if it belongs to the key, else the one below."""
    return pitch if pitch % 12 in plan.scale else pitch - 1


class Bassist:
    """Plays a plan.

    Parameters
    ----------
    plan : Plan
    kicks : ndarray
        Seconds at which the drummer plays the kick.
    scores : sequence of Performance
        Bass lines to play from, may be empty.
    rng : Generator
    lowest : int
        The lowest pitch of the instrument.
    """

    def __init__(
        self,
        plan: Plan,
        kicks: np.ndarray,
        scores: Sequence[Performance],
        rng: np.random.Generator,
        lowest: int = LOWEST,
    ) -> None:
        self._plan, self._kicks, self._rng = plan, kicks, rng
        self._lowest = lowest + int(rng.integers(0, 4))
        self._score = scores[int(rng.integers(len(scores)))] if len(scores) else None
        self._kinds: dict[str, tuple[str, tuple[Step, ...], int]] = {}
        self._loose = float(rng.uniform(0.001, 0.01))
        self._length = float(rng.uniform(0.7, 1.05))
        self._passing = float(rng.uniform(0.0, 0.6))
        self._slides = float(rng.choice((0.0, 0.05, 0.15)))

    def notes(self) -> list[BassNote]:
        """All notes, one at a time: each ends where the next begins at the latest."""
        found: list[BassNote] = []
        for section in self._plan.sections:
            if "bass" in section.stems:
                found += self._section(section)
        found.sort(key=lambda note: note.start)
        single: list[BassNote] = []
        for note in found:
            if single and note.start - single[-1].start < 0.03:
                continue
            if single:
                last = single[-1]
                single[-1] = replace(last, duration=min(last.duration, note.start - last.start))
            single.append(note)
        return single

    def root(self, chord: Chord) -> int:
        """Lowest pitch of a chord's root on the instrument."""
        return self._lowest + (chord.root - self._lowest) % 12

    def _kind(self, section: Section) -> tuple[str, tuple[Step, ...], int]:
        if section.name not in self._kinds:
            rng = self._rng
            choices = STYLE_LINES[self._plan.style]
            kind = choices[rng.integers(len(choices))]
            if kind == "score" and self._score is None:
                kind = "eighths"
            if section.energy < 0.35 and rng.random() < 0.6:
                kind = "held"
            riffs = RIFFS.get(kind, RIFFS["eighths"])
            first = int(rng.integers(self._score.nb_bars)) if self._score is not None else 0
            self._kinds[section.name] = kind, riffs[rng.integers(len(riffs))], first
        return self._kinds[section.name]

    def _section(self, section: Section) -> list[BassNote]:
        plan, rng = self._plan, self._rng
        kind, riff, first = self._kind(section)
        loudness = 0.8 + 0.2 * section.energy
        out = []
        for bar in range(section.first_bar, section.first_bar + section.nb_bars):
            chord = plan.chords[bar]
            after = plan.chords[min(bar + 1, plan.nb_bars - 1)]
            root, target = self.root(chord), self.root(after)
            steps = self._steps(kind, riff, bar, first + bar - section.first_bar, chord, target)
            if kind not in ("held", "trap", "walking") and rng.random() < self._passing:
                # Lead over to the next chord in the last beat.
                steps = [step for step in steps if step[0] < 3.4]
                near = target + (1 if target < root else -1) * int(rng.integers(1, 3))
                steps.append((3.5, 0.45, _even_scale_step(near, plan), 0.8, False))
            for beat, length, pitch, velocity, is_ghost in steps:
                start = plan.beat * (4.0 * bar + swung(beat, plan.swing))
                start = max(0.0, start + float(rng.normal(0.0, self._loose)))
                hard = float(np.clip(velocity * loudness * rng.uniform(0.88, 1.1), 0.1, 1.0))
                slide = 0.0
                if not is_ghost and length >= 0.45 and rng.random() < self._slides:
                    slide = float(rng.choice((-5, -3, -2, -2, 2, 3)))
                duration = max(0.04, length * self._length * plan.beat)
                pitch = int(np.clip(pitch, self._lowest - 5, HIGHEST))
                out.append(BassNote(start, duration, pitch, hard, slide, is_ghost))
        return out

    def _steps(
        self, kind: str, riff: tuple[Step, ...], bar: int, place: int, chord: Chord, target: int
    ) -> list[tuple[float, float, int, float, bool]]:
        root = self.root(chord)
        tones = (root, root + chord.intervals[1], root + chord.intervals[2], root + 12)
        if chord.intervals[1] >= 7:
            # A chord without a third.
            tones = (root, root + 7, root + 7, root + 12)
        if kind == "walking":
            return self._walking(tones, target)
        if kind == "kick":
            steps = self._with_kicks(bar, root)
            if len(steps) >= 2:
                return steps
        if kind == "trap":
            return self._trap(bar, root)
        if kind == "score" and self._score is not None:
            steps = self._from_score(place, root)
            if steps:
                return steps
        return [
            (beat, length, root if degree == 9 else tones[degree], velocity, degree == 9)
            for beat, length, degree, velocity in riff
        ]

    def _walking(
        self, tones: tuple[int, ...], target: int
    ) -> list[tuple[float, float, int, float, bool]]:
        rng = self._rng
        lead = target + int(rng.choice((-1, 1, -2, 2)))
        middle = tones[int(rng.integers(1, 4))]
        pitches = (tones[0], tones[1], middle, lead)
        return [(float(k), 0.95, pitch, 0.85, False) for k, pitch in enumerate(pitches)]

    def _with_kicks(self, bar: int, root: int) -> list[tuple[float, float, int, float, bool]]:
        plan = self._plan
        begin = plan.seconds(bar)
        inside = self._kicks[(self._kicks > begin - 0.05) & (self._kicks < begin + 4 * plan.beat)]
        beats = np.unique(np.round((inside - begin) / plan.beat * 4.0) / 4.0)
        beats = beats[beats < 3.99]
        ends = np.append(beats, 4.0)[1:]
        return [
            (float(beat), min(float(end - beat), 2.0) * 0.9, root, 0.9, False)
            for beat, end in zip(beats, ends, strict=True)
        ]

    def _trap(self, bar: int, root: int) -> list[tuple[float, float, int, float, bool]]:
        rng = np.random.default_rng([self._plan.seed, bar % 2])
        out = [(0.0, 1.4, root, 0.95, False)]
        for beat in (1.5, 2.25, 2.5, 3.5):
            if rng.random() < 0.45:
                pitch = root + int(rng.choice((0, 0, 12, 7)))
                out.append((beat, float(rng.uniform(0.4, 1.5)), pitch, 0.85, False))
        return out

    def _from_score(self, place: int, root: int) -> list[tuple[float, float, int, float, bool]]:
        """A bar of a written line, moved so that its longest pitch class becomes the root."""
        assert self._score is not None
        beats, lengths, pitches, velocities = self._score.bar(place % self._score.nb_bars)
        if len(beats) < 2:
            return []
        weights = np.bincount(pitches.astype(int) % 12, weights=lengths, minlength=12)
        weights[int(pitches[0]) % 12] += 0.5
        main = int(np.argmax(weights))
        lowest = min(int(p) for p in pitches if int(p) % 12 == main)
        out = []
        for beat, length, pitch, velocity in zip(beats, lengths, pitches, velocities, strict=True):
            moved = _even_scale_step(root + int(pitch) - lowest, self._plan)
            while moved > HIGHEST:
                moved -= 12
            while moved < self._lowest - 3:
                moved += 12
            hard = 0.6 + 0.35 * float(velocity)
            out.append((max(0.0, float(beat)), min(float(length), 4.0), moved, hard, False))
        return out
