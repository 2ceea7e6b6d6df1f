"""What drummers and drum machines play: patterns, fills, and whole parts for a plan."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..studio.midi import GROOVE_PIECES, Performance
from ..studio.plan import Plan, Section


@dataclass(frozen=True)
class Stroke:
    """One hit on one piece.

    Attributes
    ----------
    start : float
        Seconds.
    piece : str
        One of `drumkits.PIECES` or `drumkits.PERCUSSION`.
    velocity : float
        From 0 to 1.
    """

    start: float
    piece: str
    velocity: float


# Sixteen steps a bar: x loud, o middling, g a ghost note, ? now and then.
Pattern = dict[str, str]
_STEPS = {"x": 0.95, "o": 0.7, "g": 0.3, "?": 0.55}
# Hits of a step marked with a question mark.
_MAYBE = 0.4
PATTERNS: dict[str, tuple[Pattern, ...]] = {
    kind: tuple(bars)
    for kind, bars in tomllib.loads(Path(__file__).with_suffix(".toml").read_text()).items()
}
STYLE_PATTERNS = {
    "pop": ("rock", "four", "half", "disco", "boombap"),
    "rock": ("rock", "rock", "punk", "half"),
    "electronic": ("four", "four", "breakbeat", "disco", "trap"),
    "ballad": ("ballad", "half", "rock"),
    "metal": ("double", "double", "blast", "punk", "half", "rock"),
    "funk": ("funk", "disco", "breakbeat"),
    "hiphop": ("trap", "boombap", "boombap", "half"),
    "indie": ("rock", "disco", "half", "punk"),
}
_PERCUSSION_PATTERNS: tuple[Pattern, ...] = (
    {"shaker": "xgogxgogxgogxgog"}, {"shaker": "o.x.o.x.o.x.o.x."},
    {"tambourine": "....x.......x..."}, {"tambourine": "x.o.x.o.x.o.x.o."},
    {"tambourine": "oggxoggxoggxoggx"}, {"clap": "....x.......x..."},
    {"conga_high": "..x...?...x.x...", "conga_low": "......xx......xx"},
    {"conga_high": "x..x..x...x.?...", "conga_low": "......oo......ox"},
    {"cowbell": "x...x...x...x..."}, {"rim": "...x..x....x..x."},
)  # fmt: skip
# Words in the names of Groove's performances that suit a style, best first.
_GROOVE_STYLES = {
    "pop": ("pop", "rock", "soul", "dance", "funk"),
    "rock": ("rock", "punk", "country", "rock"),
    "electronic": ("dance", "hiphop", "rock", "funk"),
    "ballad": ("soft", "rock-halftime", "soul", "rock", "gospel"),
    "metal": ("punk", "rock", "rock-prog"),
    "funk": ("funk", "soul", "hiphop"),
    "hiphop": ("hiphop", "funk", "soul"),
    "indie": ("rock", "indie", "punk", "pop", "afrobeat"),
}
_SHUFFLED = ("shuffle", "swing", "jazz", "blues", "bembe", "march")


def swung(beat: float, swing: float) -> float:
    """Beat after swing: the second eighth of each quarter comes late, its neighbours in part."""
    whole, part = divmod(beat, 1.0)
    middle = 0.5 + 0.5 * swing
    if part < 0.5:
        return whole + part * middle / 0.5
    return whole + middle + (part - 0.5) * (1.0 - middle) / 0.5


def pattern_bar(
    pattern: Pattern, rng: np.random.Generator, thirty_seconds: float = 0.0
) -> list[tuple[float, str, float]]:
    """Beat, piece and velocity of a programmed bar.

    Parameters
    ----------
    thirty_seconds : float
        How often a step of the hi-hat becomes a roll.
    """
    out = []
    for piece, steps in pattern.items():
        for step, mark in enumerate(steps):
            if mark == "." or (mark == "?" and rng.random() > _MAYBE):
                continue
            velocity = _STEPS[mark]
            out.append((step / 4.0, piece, velocity))
            if piece == "hat" and rng.random() < thirty_seconds:
                parts = int(rng.choice((2, 3, 4)))
                out += [
                    (step / 4.0 + k / (4.0 * parts), piece, velocity * (0.6 + 0.1 * k))
                    for k in range(1, parts)
                ]
    return out


def fill_bar(
    rng: np.random.Generator, is_fast: bool
) -> tuple[float, list[tuple[float, str, float]]]:
    """A programmed fill: the beat at which it begins, and its strokes."""
    start = float(rng.choice((0.0, 2.0, 2.0, 3.0)))
    step = 0.25 if is_fast or rng.random() < 0.7 else 0.5
    pieces = ("snare", "tom1", "tom2", "tom3", "tom4")
    kind = int(rng.integers(4))
    out = []
    beats = np.arange(start, 4.0 - 1e-6, step)
    for index, beat in enumerate(beats):
        share = index / len(beats)
        if kind == 0:
            piece = "snare"
        elif kind == 1:
            piece = pieces[min(4, int(share * 5))]
        elif kind == 2:
            piece = pieces[int(rng.integers(5))]
        else:
            piece = "snare" if index % 4 < 2 else pieces[1 + min(3, int(share * 4))]
        if rng.random() < 0.1 and index:
            continue
        out.append((float(beat), piece, 0.65 + 0.3 * share))
        if kind == 3 and index % 2 == 0:
            out.append((float(beat), "kick", 0.8))
    return start, out


def choose_performances(
    performances: Sequence[Performance], plan: Plan, rng: np.random.Generator, fills: bool
) -> list[Performance]:
    """Performances that suit style and tempo, in random order, the best style first."""
    kind = "_fill_" if fills else "_beat_"
    words = _GROOVE_STYLES[plan.style]
    fitting: list[tuple[float, Performance]] = []
    for performance in performances:
        if kind not in performance.name or (not fills and performance.nb_bars < 4):
            continue
        if plan.swing < 0.1 and any(word in performance.name for word in _SHUFFLED):
            continue
        stretch = abs(np.log2(plan.tempo / performance.tempo))
        if stretch > 0.6:
            continue
        rank = next((k for k, word in enumerate(words) if word in performance.name), len(words))
        fitting.append((rank + 3.0 * stretch + rng.uniform(0, 3.0), performance))
    fitting.sort(key=lambda pair: pair[0])
    return [performance for _, performance in fitting]


def _human_bar(
    performance: Performance, index: int, latest: float = 4.0
) -> list[tuple[float, str, float]]:
    beats, _, notes, velocities = performance.bar(index)
    return [
        (float(beat), GROOVE_PIECES[int(note)], float(velocity))
        for beat, note, velocity in zip(beats, notes, velocities, strict=True)
        if int(note) in GROOVE_PIECES and beat < latest
    ]


def _window(performance: Performance, nb_bars: int, energy: float, rng: np.random.Generator) -> int:
    """First of some bars with about as many strokes as the energy asks for."""
    count = max(1, performance.nb_bars - nb_bars)
    density = np.bincount(
        np.clip(performance.beats // 4, 0, None).astype(int), minlength=performance.nb_bars + 1
    )
    firsts = np.unique(rng.integers(0, count, 6))
    dense = np.array([density[first : first + nb_bars].mean() for first in firsts])
    # Leave out windows in which the drummer rests.
    enough = dense >= 5
    if not enough.any():
        return int(firsts[np.argmax(dense)])
    firsts, dense = firsts[enough], dense[enough]
    return int(firsts[np.argsort(dense)[round(energy * (len(firsts) - 1))]])


class Drummer:
    """Plays a plan: chooses performances or patterns once per song, then bar by bar.

    Parameters
    ----------
    plan : Plan
    performances : sequence of Performance
        Groove's; none makes a machine of the drummer.
    rng : Generator
    """

    def __init__(
        self, plan: Plan, performances: Sequence[Performance], rng: np.random.Generator
    ) -> None:
        self._plan = plan
        self._rng = rng
        self._beats = choose_performances(performances, plan, rng, fills=False)[:4]
        self._fills = choose_performances(performances, plan, rng, fills=True)[:8]
        kinds = STYLE_PATTERNS[plan.style]
        self._kind = kinds[rng.integers(len(kinds))]
        self._patterns: dict[str, Pattern] = {}
        self._percussion = dict(_PERCUSSION_PATTERNS[rng.integers(len(_PERCUSSION_PATTERNS))])
        self._has_percussion = rng.random() < 0.4
        self._rolls = 0.12 if self._kind == "trap" else 0.0
        self._loose = float(rng.uniform(0.001, 0.008)) if len(performances) else 0.0

    @property
    def is_human(self) -> bool:
        """Whether there are performances to play from."""
        return bool(self._beats)

    def strokes(self) -> list[Stroke]:
        """All strokes of the song in the order of time."""
        out: list[Stroke] = []
        for section in self._plan.sections:
            if "drums" in section.stems:
                out += self._section(section)
        return sorted(out, key=lambda stroke: (stroke.start, stroke.piece))

    def _pattern(self, section: Section) -> Pattern:
        if section.name not in self._patterns:
            choices = PATTERNS[self._kind]
            if self._plan.style == "metal" and self._rng.random() < 0.5:
                kinds = STYLE_PATTERNS["metal"]
                choices = PATTERNS[kinds[self._rng.integers(len(kinds))]]
            pattern = dict(choices[self._rng.integers(len(choices))])
            if section.energy < 0.35 and self._rng.random() < 0.5:
                pattern.pop("snare", None)
            if section.name == "chorus" and "hat" in pattern and self._rng.random() < 0.3:
                pattern["ride"] = pattern.pop("hat")
            self._patterns[section.name] = pattern
        return self._patterns[section.name]

    def _section(self, section: Section) -> list[Stroke]:
        plan, rng = self._plan, self._rng
        loudness = 0.72 + 0.28 * section.energy
        performance, first = None, 0
        if self._beats:
            turn = 1 if section.name == "chorus" else 2 if section.name == "bridge" else 0
            performance = self._beats[turn % len(self._beats)]
            first = _window(performance, section.nb_bars, section.energy, rng)
        out: list[Stroke] = []
        for bar in range(section.nb_bars):
            is_last = bar == section.nb_bars - 1
            if performance is not None:
                strokes = _human_bar(performance, (first + bar) % performance.nb_bars)
                if not strokes:
                    strokes = pattern_bar(self._pattern(section), rng)
            else:
                strokes = pattern_bar(self._pattern(section), rng, self._rolls)
            if (is_last and rng.random() < 0.75) or (bar % 4 == 3 and rng.random() < 0.25):
                strokes = self._with_fill(strokes)
            if bar == 0 and section.energy > rng.uniform(0.2, 0.6):
                crash = "crash1" if rng.random() < 0.6 else "crash2"
                strokes = [*strokes, (0.0, crash, 0.95), (0.0, "kick", 0.95)]
            if self._has_percussion and section.energy > 0.4:
                strokes = strokes + pattern_bar(self._percussion, rng)
            for beat, piece, velocity in strokes:
                late = float(rng.normal(0, self._loose)) if performance is None else 0.0
                start = 4.0 * (section.first_bar + bar) + swung(beat, plan.swing)
                hard = float(np.clip(velocity * loudness * rng.uniform(0.93, 1.07), 0.03, 1.0))
                out.append(Stroke(max(0.0, start * plan.beat + late), piece, hard))
        return out

    def _with_fill(self, strokes: list[tuple[float, str, float]]) -> list[tuple[float, str, float]]:
        rng = self._rng
        if self._fills and rng.random() < 0.6:
            fill = self._fills[rng.integers(len(self._fills))]
            human = _human_bar(fill, max(0, fill.nb_bars - 1))
            if len(human) >= 4:
                begin = float(rng.choice((0.0, 2.0)))
                return [s for s in strokes if s[0] < begin] + [s for s in human if s[0] >= begin]
        begin, programmed = fill_bar(rng, self._plan.style in ("metal", "rock"))
        return [s for s in strokes if s[0] < begin] + programmed
