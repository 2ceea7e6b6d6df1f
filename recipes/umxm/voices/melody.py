"""What is sung: phrases of tones over the chords of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..studio.plan import SAMPLE_RATE, Chord, Plan, Section

# Beats of a tone and how often, by how fast the words come.
_LENGTHS = {
    "dense": ((0.5, 0.46), (1.0, 0.34), (1.5, 0.12), (2.0, 0.08)),
    "middle": ((0.5, 0.28), (1.0, 0.38), (1.5, 0.16), (2.0, 0.13), (3.0, 0.05)),
    "long": ((0.5, 0.08), (1.0, 0.32), (1.5, 0.17), (2.0, 0.25), (3.0, 0.1), (4.0, 0.08)),
    "rap": ((0.25, 0.3), (0.5, 0.56), (0.75, 0.06), (1.0, 0.08)),
}
_STEPS = (-4, -3, -2, -1, 0, 1, 2, 3, 4)
_STEP_SHARES = (0.03, 0.05, 0.12, 0.24, 0.16, 0.22, 0.11, 0.05, 0.02)
# A tone is not shorter than this many seconds.
_SHORTEST = 0.14
# Beats from the start of a unit, of 8 beats, where its phrase may end.
_ENDS = (5.0, 5.5, 6.0, 6.0, 6.5, 7.0)
_MELISMA = 0.09
# Scale degrees left out by a pentatonic melody.
_PENTATONIC = {"major": (3, 6), "minor": (1, 5)}


@dataclass(frozen=True)
class Tone:
    """One sung tone.

    Attributes
    ----------
    start, duration : float
        Seconds; the start is that of the vowel.
    pitch : float
        MIDI pitch.
    tied : bool
        Sung on the vowel of the tone before it.
    """

    start: float
    duration: float
    pitch: float
    tied: bool = False


Phrase = tuple[Tone, ...]


@dataclass(frozen=True)
class _Figure:
    """A tone before it is fitted to chords: place in a unit in beats, steps from the middle."""

    beat: float
    beats: float
    step: int
    tied: bool


class Composer:
    """Writes the melody of a song; sections of a name share their tunes, as verses do.

    Parameters
    ----------
    plan : Plan
        The song.
    rng : Generator
        Random numbers.
    lowest, highest : float
        Range of the singer in MIDI pitches.
    """

    def __init__(self, plan: Plan, rng: np.random.Generator, lowest: float, highest: float) -> None:
        self._plan, self._rng = plan, rng
        self._lowest, self._highest = lowest, highest
        scale = plan.scale
        if rng.random() < 0.3:
            left_out = _PENTATONIC[plan.mode]
            scale = tuple(tone for place, tone in enumerate(scale) if place not in left_out)
        self._scale = scale
        self._motifs: dict[str, list[list[_Figure]]] = {}

    def phrases(self, section: Section, rap: bool = False) -> list[Phrase]:
        """Phrases of a section, each followed by a pause."""
        plan, rng = self._plan, self._rng
        name = section.name + (" rap" if rap else "")
        if name not in self._motifs:
            pace = "rap" if rap else self._pace(section)
            units = [self._motif(pace) for _ in range(3)]
            self._motifs[name] = [units[0], units[1], units[0], units[2]]
        motifs = self._motifs[name]
        lifted = 2 if section.energy > 0.75 else 0
        phrases = []
        for unit in range(-(-section.nb_bars // 2)):
            first = section.first_bar + 2 * unit
            last = section.first_bar + section.nb_bars
            figures = [f for f in motifs[unit % len(motifs)] if first + f.beat / 4.0 < last - 0.05]
            if not figures or rng.random() < 0.03:
                continue
            phrase = self._fitted(figures, first, last, lifted)
            if phrase and phrase[0].start * SAMPLE_RATE < plan.nb_timesteps:
                phrases.append(phrase)
        return phrases

    def _pace(self, section: Section) -> str:
        """Dense where a beat lasts long; longer tones in choruses and at fast tempi."""
        slow = self._plan.beat > 0.62
        if section.name in ("chorus", "bridge"):
            return str(self._rng.choice(("middle", "dense") if slow else ("long", "middle")))
        return str(
            self._rng.choice(("dense", "middle", "middle") if slow else ("dense", "middle", "long"))
        )

    def _motif(self, pace: str) -> list[_Figure]:
        """Rhythm and contour of a unit of two bars."""
        rng = self._rng
        lengths, shares = zip(*_LENGTHS[pace], strict=True)
        shortest = _SHORTEST / self._plan.beat
        beat = float(rng.choice((0.0, 0.0, 0.5, 1.0, 1.5, -0.5)))
        end = float(rng.choice(_ENDS))
        step = int(rng.integers(-3, 4))
        figures: list[_Figure] = []
        while beat < end - 0.2:
            beats = float(rng.choice(lengths, p=shares))
            while beats < shortest:
                beats *= 2.0
            if beat % 1.0 == 0.5 and beats > 1.0 and rng.random() < 0.5:
                beats = 0.5 if shortest <= 0.5 else 1.0
            beats = min(beats, min(end + 1.0, 7.4) - beat)
            tied = bool(figures) and pace != "rap" and rng.random() < _MELISMA
            figures.append(_Figure(beat, beats, step, tied))
            beat += beats
            step += int(rng.choice(_STEPS, p=_STEP_SHARES))
            step -= int(np.sign(step)) * (abs(step) > 4) * 2
        if figures and pace != "rap" and rng.random() < 0.7:
            longest = 7.4 - figures[-1].beat
            held = float(rng.choice((1.5, 2.0, 3.0)))
            figures[-1] = replace(figures[-1], beats=max(figures[-1].beats, min(held, longest)))
        return figures

    def _fitted(
        self, figures: Sequence[_Figure], bar: int, last: int, lifted: int
    ) -> tuple[Tone, ...]:
        plan = self._plan
        tones: list[Tone] = []
        for figure in figures:
            start = plan.seconds(bar, figure.beat)
            stop = min(plan.seconds(bar, figure.beat + figure.beats), plan.seconds(last) - 0.05)
            if start < 0.05 or stop - start < 0.06:
                continue
            here = int(np.clip(bar + figure.beat // 4.0, 0, plan.nb_bars - 1))
            strong = figure.beats >= 1.5 or figure.beat % 2.0 == 0.0
            pitch = self._pitch(figure.step + lifted, plan.chords[here], strong)
            tied = figure.tied and bool(tones) and tones[-1].pitch != pitch
            tones.append(Tone(start, stop - start, pitch, tied))
        return tuple(tones)

    def _pitch(self, step: int, chord: Chord, strong: bool) -> float:
        """Pitch of a step; the nearest of the chord where it is heard most."""
        middle = 0.5 * (self._lowest + self._highest)
        pitches = self._ladder(self._scale)
        place = int(np.argmin(np.abs(pitches - middle))) + step
        pitch = pitches[np.clip(place, 0, len(pitches) - 1)]
        if strong:
            chosen = [tone for tone in chord.pitch_classes if tone in self._plan.scale]
            if chosen:
                pitch = nearest(self._ladder(chosen), pitch)
        return float(pitch)

    def _ladder(self, classes: Sequence[int]) -> np.ndarray:
        pitches = np.arange(int(self._lowest), int(self._highest) + 1)
        return pitches[np.isin(pitches % 12, classes)].astype(float)


def nearest(pitches: np.ndarray, pitch: float) -> float:
    """The one of some pitches that lies nearest."""
    return float(pitches[np.argmin(np.abs(pitches - pitch))])


def harmony(plan: Plan, phrase: Phrase, steps: int) -> Phrase:
    """The phrase some scale steps higher (2 is a third) or lower, chord tones on long tones."""
    pitches = np.arange(24, 100)
    scale = pitches[np.isin(pitches % 12, plan.scale)].astype(float)
    out = []
    for tone in phrase:
        place = int(np.argmin(np.abs(scale - tone.pitch))) + steps
        pitch = scale[np.clip(place, 0, len(scale) - 1)]
        if tone.duration > 1.2 * plan.beat:
            bar = int(np.clip(tone.start / (4.0 * plan.beat) + 0.02, 0, plan.nb_bars - 1))
            chord = [tone for tone in plan.chords[bar].pitch_classes if tone in plan.scale]
            near = nearest(pitches[np.isin(pitches % 12, chord)].astype(float), pitch)
            pitch = near if near != tone.pitch else pitch
        out.append(replace(tone, pitch=float(pitch)))
    return tuple(out)


def transposed(phrase: Phrase, semitones: float) -> Phrase:
    """The phrase at another pitch."""
    return tuple(replace(tone, pitch=tone.pitch + semitones) for tone in phrase)
