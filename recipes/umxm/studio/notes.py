"""Notes, and instruments that are recordings of single notes."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from . import effects
from .plan import SAMPLE_RATE
from .sources import Library

_CLASSES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
# How softly a layer is played, by its name; velocities from 0 to 1 choose the nearest.
_LAYERS = {
    "p": 0.3, "mp": 0.5, "mf": 0.7, "f": 0.95,
    "vl1": 0.3, "vl2": 0.5, "vl3": 0.75, "vl4": 0.95,
}  # fmt: skip
_NAME = re.compile(r"(?:^|_)([a-g])([b#]?)(\d)(?:_(p|mp|mf|f|vl\d))?(?:_rr(\d))")
# Recorded notes are scaled so that their first moments have this root mean square.
_LEVEL = 0.1
_MOMENTS = 0.4
_KEPT_NOTES = 120


@dataclass(frozen=True)
class Note:
    """One note of a part.

    Attributes
    ----------
    start, duration : float
        Seconds; the sound may ring on after the duration where an instrument does.
    pitch : float
        MIDI pitch; fractions are played.
    velocity : float
        From 0 to 1.
    string : int
        Which string of a guitar; a note ends the one before it there. -1 where it does not matter.
    bend : float
        Semitones under the pitch from which the note is bent up to it (negative: from above).
    vibrato : float
        Depth in semitones.
    muted : bool
        Damped with the palm.
    """

    start: float
    duration: float
    pitch: float
    velocity: float = 0.8
    string: int = -1
    bend: float = 0.0
    vibrato: float = 0.0
    muted: bool = False


def moved(notes: Sequence[Note], rng: np.random.Generator, seconds: float = 0.006) -> list[Note]:
    """The same notes as a human plays them: a little early or late, louder or softer."""
    return [
        replace(
            note,
            start=max(0.0, note.start + float(rng.normal(0.0, seconds))),
            velocity=float(np.clip(note.velocity * (1.0 + rng.normal(0.0, 0.08)), 0.05, 1.0)),
        )
        for note in notes
    ]


def written_pitch(letter: str, accidental: str, octave: int) -> int:
    """MIDI pitch of a note's name, where a5 has 440 Hz."""
    return 12 * octave + _CLASSES[letter] + {"b": -1, "#": 1, "": 0}[accidental]


def parse_name(name: str, octave: int = 1) -> tuple[int, float, int] | None:
    """Pitch, velocity and round robin that a file's name says; None if it names no note.

    Parameters
    ----------
    name : str
        As ``twang_eb4_mf_rr2``.
    octave : int
        Added to the number of the octave: 1 where a4 has 440 Hz, 0 where a5 has.
    """
    match = _NAME.search(name.lower())
    if match is None or "release" in name:
        return None
    letter, accidental, number, layer, robin = match.groups()
    pitch = written_pitch(letter, accidental, int(number) + octave)
    return pitch, _LAYERS.get(layer or "f", 0.95), int(robin)


class Sampler:
    """Plays the nearest of some recorded notes.

    Parameters
    ----------
    library : Library
    paths : sequence of Path
        Recordings whose names say what they are (`parse_name`); others are left out.
    octave : int
        See `parse_name`.
    """

    def __init__(self, library: Library, paths: Sequence[Path], octave: int = 1) -> None:
        self._library = library
        self._found: list[tuple[int, float, int, Path]] = []
        for path in paths:
            parsed = parse_name(path.stem, octave)
            if parsed is not None:
                self._found.append((*parsed, path))
        if not self._found:
            raise ValueError("none of the paths names a note")
        self._pitches = np.array([found[0] for found in self._found])
        self._velocities = np.array([found[1] for found in self._found])
        self._kept: OrderedDict[tuple[Path, float], np.ndarray] = OrderedDict()

    @property
    def lowest(self) -> int:
        """MIDI pitch of the lowest recorded note."""
        return int(self._pitches.min())

    def choose(self, pitch: float, velocity: float, turn: int) -> tuple[Path, float]:
        """Recording for a note and by how many semitones it must be shifted.

        Parameters
        ----------
        turn : int
            Counts the notes: round robins take turns.
        """
        far = np.abs(self._pitches - pitch) + 0.9 * np.abs(self._velocities - velocity)
        near = np.flatnonzero(far <= far.min() + 1e-6)
        _, _, _, path = self._found[near[turn % len(near)]]
        return path, pitch - float(self._pitches[near[0]])

    def sound(self, pitch: float, velocity: float, turn: int) -> np.ndarray:
        """A note in full length at an even level, shape ``(nb_channels, nb_timesteps)``."""
        path, shift = self.choose(pitch, velocity, turn)
        key = (path, shift)
        if key not in self._kept:
            audio = self._library.load(path)
            audio = audio[:, : int(5.0 * SAMPLE_RATE)]
            first = audio[:, : int(_MOMENTS * SAMPLE_RATE)]
            audio *= np.float32(_LEVEL / (np.sqrt(np.mean(first**2)) + 1e-4))
            self._kept[key] = effects.respeed(audio, 2.0 ** (shift / 12.0))
            if len(self._kept) > _KEPT_NOTES:
                self._kept.popitem(last=False)
        return self._kept[key]

    def play(
        self,
        notes: Sequence[Note],
        nb_timesteps: int,
        rng: np.random.Generator,
        detune: float = 0.0,
        release: float = 0.06,
    ) -> np.ndarray:
        """Play a part.

        Parameters
        ----------
        notes : sequence of Note
        nb_timesteps : int
            Length of the result.
        rng : Generator
            Which round robin is first.
        detune : float
            Semitones added to every pitch.
        release : float
            Seconds in which a note dies away.

        Returns
        -------
        ndarray [shape=(nb_channels, nb_timesteps)], float32
        """
        turn = int(rng.integers(100))
        nb_channels = len(self._library.stored(self._found[0][3]))
        out = np.zeros((nb_channels, nb_timesteps), np.float32)
        for note in stopped(notes):
            sound = self.sound(note.pitch + detune, note.velocity, turn)
            turn += 1
            effects.place(out, shaped(sound, note, release), note.start, loudness(note.velocity))
        return out


def loudness(velocity: float) -> float:
    """Factor of amplitude for a velocity."""
    return float(max(velocity, 0.02) ** 1.4)


def stopped(notes: Sequence[Note]) -> list[Note]:
    """Cut each note of a string where the next on that string begins."""
    ordered = sorted(notes, key=lambda note: note.start)
    following: dict[int, float] = {}
    out = []
    for note in reversed(ordered):
        end = note.start + note.duration
        if note.string >= 0:
            end = min(end, following.get(note.string, np.inf))
            following[note.string] = note.start
        out.append(replace(note, duration=max(end - note.start, 0.01)))
    return out[::-1]


def shaped(sound: np.ndarray, note: Note, release: float) -> np.ndarray:
    """Length, bend, vibrato and palm of a note given to the sound of its pitch."""
    if note.bend or note.vibrato:
        sound = glided(sound, note.bend, note.vibrato)
    hold = int(note.duration * SAMPLE_RATE)
    tail = int(max(release, 0.005) * SAMPLE_RATE)
    audio = sound[:, : hold + tail].copy()
    if note.muted:
        time = np.arange(audio.shape[-1], dtype=np.float32) / SAMPLE_RATE
        audio *= np.exp(-time / np.float32(0.05 + 0.05 * note.velocity))
    if audio.shape[-1] > hold:
        count = audio.shape[-1] - hold
        audio[:, hold:] *= (0.5 + 0.5 * np.cos(np.linspace(0, np.pi, count))).astype(np.float32)
    else:
        return effects.faded(audio, 0.0, 0.03)
    return audio


def glided(sound: np.ndarray, bend: float, vibrato: float) -> np.ndarray:
    """Bend a sound up to its pitch within about 0.1 s and let it vibrate after 0.25 s."""
    time = np.arange(sound.shape[-1]) / SAMPLE_RATE
    semitones = -bend * 0.5 * (1.0 + np.cos(np.pi * np.clip((time - 0.03) / 0.12, 0.0, 1.0)))
    deep = np.clip((time - 0.25) / 0.3, 0.0, 1.0) * vibrato
    semitones += deep * np.sin(2.0 * np.pi * 5.6 * time)
    place = np.cumsum(np.exp2(semitones / 12.0))
    place = place[place < sound.shape[-1] - 2]
    first = place.astype(np.int64)
    part = (place - first).astype(np.float32)
    low, high = sound[:, first], sound[:, first + 1]
    return np.asarray(low + part * (high - low))
