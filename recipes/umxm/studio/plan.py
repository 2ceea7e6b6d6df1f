"""What a rendered song is before any sound: tempo, key, chords, sections.

All four stems of a song are played from one plan, so that they agree in time and harmony as the
stems of a real song do. A plan is a function of its seed.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

SAMPLE_RATE = 44100
STEMS = ("vocals", "drums", "bass", "other")
STYLES = ("pop", "rock", "electronic", "ballad", "metal", "funk", "hiphop", "indie")

# Beats per minute from which a style's tempo is drawn.
_TEMPI = {
    "pop": (92, 132),
    "rock": (96, 164),
    "electronic": (100, 140),
    "ballad": (62, 88),
    "metal": (110, 190),
    "funk": (88, 118),
    "hiphop": (72, 104),
    "indie": (84, 150),
}
_SCALES = {"major": (0, 2, 4, 5, 7, 9, 11), "minor": (0, 2, 3, 5, 7, 8, 10)}
# Scale degrees (0 is the tonic) of four chords; the common progressions of popular music.
_PROGRESSIONS = {
    "major": (
        (0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 4, 3), (0, 3, 5, 4), (1, 4, 0, 0),
        (0, 2, 3, 4), (3, 4, 0, 5), (0, 0, 3, 4), (0, 4, 3, 3),
    ),
    "minor": (
        (0, 5, 2, 6), (0, 6, 5, 6), (0, 3, 4, 0), (0, 5, 6, 0), (0, 3, 6, 2), (0, 0, 5, 6),
        (0, 2, 6, 3), (0, 6, 5, 4), (0, 0, 0, 5),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Chord:
    """Three or four pitch classes.

    Attributes
    ----------
    root : int
        Pitch class, 0 is C.
    intervals : tuple of int
        Semitones over the root, beginning with 0.
    """

    root: int
    intervals: tuple[int, ...]

    @property
    def pitch_classes(self) -> tuple[int, ...]:
        """Pitch classes of all notes, the root first."""
        return tuple((self.root + interval) % 12 for interval in self.intervals)

    def voicing(self, lowest: int, inversion: int = 0) -> tuple[int, ...]:
        """MIDI pitches, close together, none under `lowest`."""
        classes = self.pitch_classes
        turn = inversion % len(classes)
        pitches, floor = [], lowest
        for pitch_class in classes[turn:] + classes[:turn]:
            pitch = floor + (pitch_class - floor) % 12
            pitches.append(pitch)
            floor = pitch + 1
        return tuple(pitches)


@dataclass(frozen=True)
class Section:
    """Some bars that sound alike.

    Attributes
    ----------
    name : str
        ``intro``, ``verse``, ``chorus``, ``bridge`` or ``break``.
    first_bar, nb_bars : int
        Place in the song.
    energy : float
        From 0 (sparse, soft) to 1 (dense, loud).
    stems : frozenset of str
        Which stems play.
    """

    name: str
    first_bar: int
    nb_bars: int
    energy: float
    stems: frozenset[str]


@dataclass(frozen=True)
class Plan:
    """A song on paper.

    Attributes
    ----------
    seed : int
        All randomness of the song derives from it.
    style : str
        One of `STYLES`.
    tempo : float
        Quarter notes per minute; a bar has four.
    tonic : int
        Pitch class of the key, 0 is C.
    mode : str
        ``major`` or ``minor``.
    swing : float
        Share of an eighth by which every second eighth comes late, 0 to 0.33.
    sections : tuple of Section
        In order, without gaps.
    chords : tuple of Chord
        One for each bar.
    nb_timesteps : int
        Length in samples; what is played must be cut there.
    """

    seed: int
    style: str
    tempo: float
    tonic: int
    mode: str
    swing: float
    sections: tuple[Section, ...]
    chords: tuple[Chord, ...]
    nb_timesteps: int

    @property
    def nb_bars(self) -> int:
        """Number of bars, the last of which may be cut."""
        return len(self.chords)

    @property
    def beat(self) -> float:
        """Seconds of a quarter note."""
        return 60.0 / self.tempo

    @property
    def scale(self) -> tuple[int, ...]:
        """Pitch classes of the key, the tonic first."""
        return tuple((self.tonic + step) % 12 for step in _SCALES[self.mode])

    def seconds(self, bar: float, beat: float = 0.0) -> float:
        """Time at which a beat (0 to 4, fractions too) of a bar begins, with swing."""
        eighth = beat * 2.0
        late = self.swing * 0.5 if abs(eighth % 2.0 - 1.0) < 1e-6 else 0.0
        return (4.0 * bar + beat + late) * self.beat

    def rng(self, name: str) -> np.random.Generator:
        """Random numbers for one purpose; another name gives independent ones."""
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def silence(self, nb_channels: int = 2) -> np.ndarray:
        """An empty stem, shape ``(nb_channels, nb_timesteps)``, float32."""
        return np.zeros((nb_channels, self.nb_timesteps), np.float32)


def make_plan(seed: int, duration: float = 48.0, style: str | None = None) -> Plan:
    """Write a song.

    Parameters
    ----------
    seed : int
        Which one.
    duration : float
        Length in seconds.
    style : str or None
        One of `STYLES`; None draws it.

    Returns
    -------
    Plan
    """
    rng = np.random.default_rng([seed, zlib.crc32(b"plan")])
    drawn = STYLES[rng.choice(len(STYLES), p=(0.26, 0.18, 0.14, 0.08, 0.08, 0.08, 0.08, 0.1))]
    style = style or drawn
    tempo = float(rng.uniform(*_TEMPI[style]))
    mode = "minor" if rng.random() < (0.75 if style in ("metal", "hiphop") else 0.5) else "major"
    tonic = int(rng.integers(12))
    swing = float(rng.uniform(0.1, 0.33)) if rng.random() < 0.12 else 0.0
    nb_bars = int(np.ceil(duration / (240.0 / tempo)))
    sections = _make_sections(nb_bars, rng)
    chords = _make_chords(sections, tonic, mode, style, rng)
    nb_timesteps = round(duration * SAMPLE_RATE)
    return Plan(seed, style, tempo, tonic, mode, swing, sections, chords, nb_timesteps)


def _make_sections(nb_bars: int, rng: np.random.Generator) -> tuple[Section, ...]:
    """Cut the bars into sections of 4 or 8, each with some stems silent now and then."""
    names = ("intro", "verse", "chorus", "verse", "chorus", "bridge", "chorus", "break")
    energies = {"intro": 0.4, "verse": 0.5, "chorus": 0.9, "bridge": 0.6, "break": 0.25}
    # Which stems rest, and how often.
    resting = {
        "intro": {"vocals": 0.7, "bass": 0.3, "drums": 0.25},
        "verse": {"drums": 0.08, "bass": 0.08, "other": 0.06, "vocals": 0.04},
        "chorus": {"vocals": 0.04},
        "bridge": {"drums": 0.25, "bass": 0.15, "vocals": 0.3},
        "break": {"drums": 0.5, "bass": 0.4, "other": 0.15, "vocals": 0.3},
    }
    sections, bar, index = [], 0, int(rng.integers(0, 3))
    while bar < nb_bars:
        name = names[index % len(names)]
        count = min(int(rng.choice((4, 4, 8))), nb_bars - bar)
        stems = {stem for stem in STEMS if rng.random() >= resting[name].get(stem, 0.0)}
        stems = stems or {"other"}
        energy = float(np.clip(energies[name] + rng.uniform(-0.15, 0.15), 0.1, 1.0))
        sections.append(Section(name, bar, count, energy, frozenset(stems)))
        bar, index = bar + count, index + 1
    return tuple(sections)


def _make_chords(
    sections: tuple[Section, ...], tonic: int, mode: str, style: str, rng: np.random.Generator
) -> tuple[Chord, ...]:
    scale = _SCALES[mode]
    progressions: dict[str, tuple[int, ...]] = {}
    sevenths = rng.random() < (0.6 if style in ("funk", "hiphop") else 0.15)
    power = style == "metal" or (style == "rock" and rng.random() < 0.4)
    chords = []
    for section in sections:
        choices = _PROGRESSIONS[mode]
        degrees = progressions.setdefault(section.name, choices[rng.integers(len(choices))])
        for bar in range(section.nb_bars):
            degree = degrees[bar % 4]
            steps = [degree, degree + 2, degree + 4] + ([degree + 6] if sevenths else [])
            tones = [scale[step % 7] + 12 * (step // 7) for step in steps]
            intervals = tuple(tone - tones[0] for tone in tones)
            chords.append(Chord((tonic + tones[0]) % 12, (0, 7, 12) if power else intervals))
    return tuple(chords)
