"""Scores by people: the drum performances and the bass lines that the renderer plays from.

Sources: ``midi/groove_cc-by-4.0.tar.xz`` (Groove MIDI Dataset) and ``midi/freedoom_bsd3.tar.xz``
(music of Freedoom). Each archive is parsed once and kept in the library's cache.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .sources import Library

GROOVE_ARCHIVE = "midi/groove_cc-by-4.0.tar.xz"
FREEDOOM_ARCHIVE = "midi/freedoom_bsd3.tar.xz"
# Programs of General MIDI that are basses.
BASS_PROGRAMS = range(32, 40)
DRUM_CHANNEL = 9
_BEATS_PER_BAR = 4
_FORMAT = 2

# Notes of the electronic drum set of the Groove MIDI Dataset.
GROOVE_PIECES = {
    36: "kick", 38: "snare", 40: "snare", 37: "rim", 48: "tom1", 50: "tom1", 45: "tom2",
    47: "tom2", 43: "tom3", 58: "tom4", 46: "hat_open", 26: "hat_open", 42: "hat", 22: "hat",
    44: "hat_foot", 49: "crash1", 55: "crash1", 57: "crash2", 52: "china", 51: "ride",
    59: "ride", 53: "bell",
}  # fmt: skip


class PlayedNote(NamedTuple):
    """A note of a score; begin and length in quarter notes, velocity from 0 to 1."""

    channel: int
    pitch: int
    program: int
    beat: float
    length: float
    velocity: float


@dataclass(frozen=True)
class Performance:
    """Notes of one drummer or bass player.

    Attributes
    ----------
    name : str
        File it comes from; Groove's say style, tempo and whether it is a beat or a fill.
    tempo : float
        Quarter notes per minute at which it was played.
    beats, lengths : ndarray
        Begin and length of the notes in quarter notes.
    notes, velocities : ndarray
        MIDI pitches; velocities from 0 to 1.
    """

    name: str
    tempo: float
    beats: np.ndarray
    lengths: np.ndarray
    notes: np.ndarray
    velocities: np.ndarray

    @property
    def nb_bars(self) -> int:
        """Number of bars that begin before the last note."""
        return int(self.beats[-1] // _BEATS_PER_BAR) + 1 if len(self.beats) else 0

    def bar(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Beats from 0 (slightly before, too), lengths, notes and velocities of a bar."""
        # Who plays a little before the bar line means the bar that follows.
        first = _BEATS_PER_BAR * index - 0.1
        inside = (self.beats >= first) & (self.beats < first + _BEATS_PER_BAR)
        beats = self.beats[inside] - _BEATS_PER_BAR * index
        return beats, self.lengths[inside], self.notes[inside], self.velocities[inside]


def groove(library: Library) -> tuple[Performance, ...]:
    """All performances of the Groove MIDI Dataset in four-four time."""
    return _performances(library.audio / GROOVE_ARCHIVE, library.cache, "drums")


def bass_lines(library: Library) -> tuple[Performance, ...]:
    """Bass parts of Freedoom's songs, one voice each, of at least eight bars."""
    return _performances(library.audio / FREEDOOM_ARCHIVE, library.cache, "bass")


@lru_cache(maxsize=8)
def _performances(archive: Path, cache: Path, kind: str) -> tuple[Performance, ...]:
    kept = cache / f"{archive.name.split('.')[0]}-{kind}-{_FORMAT}.npz"
    if not kept.exists():
        parsed = list(_parsed(archive, kind))
        part = kept.with_suffix(f".{os.getpid()}.npz")
        columns = np.concatenate(
            [np.stack([p.beats, p.lengths, p.notes, p.velocities]) for p in parsed], axis=1
        )
        np.savez_compressed(
            part,
            names=np.array([p.name for p in parsed]),
            tempi=np.array([p.tempo for p in parsed]),
            counts=np.array([len(p.beats) for p in parsed]),
            columns=columns.astype(np.float32),
        )
        os.replace(part, kept)
    with np.load(kept) as stored:
        names, tempi, counts = stored["names"], stored["tempi"], stored["counts"]
        columns = stored["columns"]
    ends = np.cumsum(counts)
    return tuple(
        Performance(str(name), float(tempo), *columns[:, end - count : end])
        for name, tempo, count, end in zip(names, tempi, counts, ends, strict=True)
    )


def _parsed(archive: Path, kind: str) -> Iterator[Performance]:
    with tarfile.open(archive) as files:
        for member in sorted(files.getmembers(), key=lambda m: m.name):
            if not member.name.endswith(".mid"):
                continue
            if kind == "drums" and not member.name.endswith("4-4.mid"):
                continue
            content = files.extractfile(member)
            assert content is not None
            yield from _read(member.name, content.read(), kind)


def read_score(content: bytes) -> tuple[float, list[PlayedNote]]:
    """Tempo at the beginning, in quarter notes per minute, and all notes of a MIDI file.

    A file that is damaged has none.
    """
    import mido  # only where a score is read for the first time

    try:
        song = mido.MidiFile(file=io.BytesIO(content), clip=True)
    except (OSError, EOFError, ValueError, KeyError, IndexError):
        return 120.0, []
    tempo, seen_tempo, beat = 500_000, False, 0.0
    program: dict[int, int] = {}
    sounding: dict[tuple[int, int], tuple[float, int, int]] = {}
    found = []
    for message in mido.merge_tracks(song.tracks):
        beat += message.time / song.ticks_per_beat
        if message.type == "set_tempo" and not seen_tempo:
            tempo, seen_tempo = message.tempo, True
        elif message.type == "program_change":
            program[message.channel] = message.program
        elif message.type in ("note_on", "note_off"):
            key = (message.channel, message.note)
            if key in sounding:
                begin, velocity, played = sounding.pop(key)
                found.append(PlayedNote(*key, played, begin, beat - begin, velocity / 127.0))
            if message.type == "note_on" and message.velocity:
                played = program.get(message.channel, 0)
                sounding[key] = (beat, message.velocity, played)
    return 6e7 / tempo, found


def _read(name: str, content: bytes, kind: str) -> Iterator[Performance]:
    """Performances in a MIDI file: the whole file for drums, a channel each for basses."""
    tempo, played = read_score(content)
    found: dict[int, list[tuple[float, float, int, float]]] = {}
    for note in played:
        if kind == "bass" and (note.program not in BASS_PROGRAMS or note.channel == DRUM_CHANNEL):
            continue
        voice = found.setdefault(note.channel if kind == "bass" else 0, [])
        voice.append((note.beat, max(note.length, 0.02), note.pitch, note.velocity))
    for channel, notes in sorted(found.items()):
        notes.sort()
        if kind == "bass":
            notes = _one_voice(notes)
            if len(notes) < 32 or notes[-1][0] < 8 * _BEATS_PER_BAR:
                continue
        beats, lengths, pitches, velocities = np.array(notes, np.float32).T
        label = f"{name}:{channel}" if kind == "bass" else name
        yield Performance(label, tempo, beats, lengths, pitches, velocities)


def _one_voice(
    notes: list[tuple[float, float, int, float]],
) -> list[tuple[float, float, int, float]]:
    """The lowest of notes that begin together, each cut where the next begins."""
    single: list[tuple[float, float, int, float]] = []
    for note in notes:
        if single and note[0] - single[-1][0] < 0.05:
            if note[2] < single[-1][2]:
                single[-1] = note
            continue
        single.append(note)
    return [
        (a[0], min(a[1], b[0] - a[0]), a[2], a[3])
        for a, b in zip(single, [*single[1:], (single[-1][0] + 4.0, 0.0, 0, 0.0)], strict=True)
    ]
