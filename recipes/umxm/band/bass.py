"""The bass of a song: real notes, a synthesiser or General MIDI, through an amplifier or dry.

Sources: ``growlybass``, ``swagbass``, ``double_bass`` (notes), ``midi/freedoom_bsd3.tar.xz``
(lines), ``everythingisfree/3.Sodium/bass.ogg`` (excerpts of a finished stem), sound fonts
(`gm_notes`) and `bass_synth`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ..studio import effects, gm_notes, midi, movement
from ..studio.notes import written_pitch
from ..studio.plan import SAMPLE_RATE, Plan
from ..studio.sources import Library
from . import bass_synth, drums
from .bass_lines import LOWEST, Bassist, BassNote

# Shares of the kinds of basses in a style: real notes, synthesiser, General MIDI, finished stem.
_KINDS = ("real", "synth", "midi", "stem")
_SHARES = {
    "electronic": (0.12, 0.72, 0.08, 0.08),
    "hiphop": (0.20, 0.62, 0.12, 0.06),
    "pop": (0.52, 0.30, 0.13, 0.05),
    "metal": (0.86, 0.02, 0.10, 0.02),
    "rock": (0.82, 0.05, 0.12, 0.01),
}
_OTHER_SHARES = (0.70, 0.14, 0.13, 0.03)
_NAME = re.compile(r"^(?:pizz_)?([a-g])(b?)(\d)_(?:open_)?([pmf]+)_?(?:rr)?([\da-d])$")
# Layers from soft to loud, and what is added to the octave of their names (see `written_pitch`).
_BASSES: dict[str, tuple[str, tuple[str, ...], int]] = {
    "growlybass": ("growlybass/sustain/*.ogg", ("pp", "p", "f", "ff"), 0),
    "swagbass": ("swagbass/notes/*.ogg", ("p", "f", "fff"), 0),
    "double_bass": ("double_bass/pizz/*.ogg", ("p", "m", "f"), 1),
}
# Acoustic, fingered, picked, fretless, slap, synth; which is played more often counts twice.
_GM_BASSES = (32, 33, 33, 34, 34, 35, 36, 37, 38, 39)
_GM_PITCHES = tuple(range(25, 58, 3))
_GM_VELOCITIES = (60, 90, 118)
_GM_SECONDS = 3.5
_LONGEST_NOTE = 4.5
_SLIDE_SECONDS = 0.12
_REST_FADE = 0.15
_BOTTOM = 120.0
# Share of synthesizer basses whose filter moves in time with the song.
_MOVING = 0.4


@dataclass(frozen=True)
class NoteSet:
    """Recorded notes by pitch and layer.

    Attributes
    ----------
    pitches : tuple of int
        MIDI pitches there are, ascending.
    paths : dict
        Round robins of (pitch, layer).
    nb_layers : int
        Number of dynamic layers.
    """

    pitches: tuple[int, ...]
    paths: dict[tuple[int, int], tuple[Path, ...]]
    nb_layers: int

    def choose(self, pitch: int, velocity: float, turn: int) -> tuple[Path, int]:
        """A recording for a note, and by how many semitones it must be moved.

        Parameters
        ----------
        pitch : int
        velocity : float
            From 0 to 1.
        turn : int
            Counts the notes; round robins take turns.
        """
        nearest = min(self.pitches, key=lambda known: (abs(known - pitch), known))
        layer = int(np.clip(velocity * self.nb_layers, 0, self.nb_layers - 1))
        for other in sorted(range(self.nb_layers), key=lambda k: abs(k - layer)):
            found = self.paths.get((nearest, other))
            if found:
                return found[turn % len(found)], pitch - nearest
        raise KeyError(f"no recording of pitch {nearest}")


def parse_name(stem: str) -> tuple[int, str] | None:
    """Pitch (octave as written) and layer that the name of a note's file says; None if none."""
    match = _NAME.match(stem)
    if match is None:
        return None
    letter, flat, octave, layer, _ = match.groups()
    return written_pitch(letter, flat, int(octave)), layer


def note_set(paths: Sequence[Path], layers: Sequence[str], octave: int = 0) -> NoteSet:
    """Sort recordings by what their names say; others are left out."""
    found: dict[tuple[int, int], list[Path]] = {}
    for path in paths:
        parsed = parse_name(path.stem)
        if parsed is not None and parsed[1] in layers:
            pitch, layer = parsed
            found.setdefault((pitch + 12 * octave, layers.index(layer)), []).append(path)
    pitches = tuple(sorted({pitch for pitch, _ in found}))
    return NoteSet(pitches, {key: tuple(value) for key, value in found.items()}, len(layers))


@lru_cache(maxsize=8)
def _notes_of(library: Library, name: str) -> NoteSet:
    pattern, layers, octave = _BASSES[name]
    return note_set(library.files(pattern), layers, octave)


def kind_of(plan: Plan) -> str:
    """Which bass a song has: ``real``, ``synth``, ``midi`` or ``stem``."""
    shares = _SHARES.get(plan.style, _OTHER_SHARES)
    return _KINDS[plan.rng("bass kind").choice(len(_KINDS), p=shares)]


def render(plan: Plan, library: Library) -> np.ndarray:
    """Play, amplify and finish the bass.

    Returns
    -------
    ndarray [shape=(2, nb_timesteps)], float32
        About -20 dB where it sounds, silent where a section has no bass.
    """
    if not any("bass" in section.stems for section in plan.sections):
        return plan.silence()
    rng = plan.rng("bass sound")
    kind = kind_of(plan)
    if kind == "stem":
        stem = _excerpt(plan, library, rng)
    else:
        kicks = [s.start for s in drums.strokes(plan, library) if s.piece == "kick"]
        scores = midi.bass_lines(library)
        part = Bassist(plan, np.array(kicks), scores, plan.rng("bass part"), LOWEST).notes()
        if not part:
            return plan.silence()
        if kind == "synth":
            names = bass_synth.KINDS
            chosen = "boom" if plan.style == "hiphop" and rng.random() < 0.6 else None
            name = chosen or names[rng.integers(len(names))]
            stem = bass_synth.play(part, plan.nb_timesteps, rng, name)
            moving = plan.rng("bass movement")
            if moving.random() < _MOVING:
                stem = movement.moved(stem, plan, moving)
            stem = _synth_channel(stem, rng)
        else:
            stem = _amplified(_played(plan, library, part, kind, rng), plan, rng)
    stem = effects.softened(stem, rng.uniform(11, 18))
    stem = effects.highpass(stem, rng.uniform(22, 34)) * _presence(plan)
    return effects.normalise(stem).astype(np.float32)


def _played(
    plan: Plan, library: Library, part: Sequence[BassNote], kind: str, rng: np.random.Generator
) -> np.ndarray:
    """Recorded notes one after the other, mono."""
    source = _GmSource(library, rng) if kind == "midi" else _RealSource(library, plan, rng)
    out = plan.silence(1)
    dynamics = float(rng.uniform(0.5, 1.3))
    release = float(rng.uniform(0.02, 0.09))
    damp = float(rng.uniform(0.15, 0.6)) if rng.random() < 0.2 else 0.0
    turn = int(rng.integers(100))
    for note in part:
        turn += 1
        audio = source.sound(note, turn)
        if note.slide:
            audio = _slid(audio, note.slide)
        held = 0.05 if note.is_ghost else note.duration
        count = int((held + release) * SAMPLE_RATE)
        audio = effects.faded(audio[:, :count], 0.001, release)
        if note.is_ghost:
            audio = effects.lowpass(effects.highpass(audio, 90.0), 1200.0) * np.float32(0.7)
        if damp:
            # The palm on the strings.
            time = np.arange(audio.shape[-1], dtype=np.float32) / SAMPLE_RATE
            audio = audio * np.exp(-time / damp)
        effects.place(out, audio, note.start, note.velocity**dynamics)
    return out


class _RealSource:
    """Notes of one of the recorded basses, each tuned once per song."""

    def __init__(self, library: Library, plan: Plan, rng: np.random.Generator) -> None:
        acoustic = {"ballad": 0.3, "indie": 0.2, "funk": 0.15, "pop": 0.15}.get(plan.style, 0.05)
        shares = ((1 - acoustic) * 0.5, (1 - acoustic) * 0.5, acoustic)
        self.name = tuple(_BASSES)[rng.choice(3, p=shares)]
        self._notes = _notes_of(library, self.name)
        self._library = library
        self._detune = float(rng.uniform(-0.15, 0.15))
        # One player hits softly, another hard.
        self._hardness = float(rng.uniform(0.6, 1.1))
        self._kept: dict[tuple[Path, int], np.ndarray] = {}

    def sound(self, note: BassNote, turn: int) -> np.ndarray:
        path, shift = self._notes.choose(note.pitch, note.velocity * self._hardness, turn)
        key = (path, shift)
        if key not in self._kept:
            stored = self._library.stored(path)[:, : int(_LONGEST_NOTE * 1.2 * SAMPLE_RATE)]
            audio = stored.astype(np.float32).mean(axis=0, keepdims=True) / np.float32(32767.0)
            self._kept[key] = _levelled(
                effects.respeed(_attack_first(audio), 2.0 ** ((shift + self._detune) / 12.0))
            )
        return self._kept[key]


class _GmSource:
    """Notes of a General-MIDI bass."""

    def __init__(self, library: Library, rng: np.random.Generator) -> None:
        font = gm_notes.FONTS[rng.integers(len(gm_notes.FONTS))]
        program = int(rng.choice(_GM_BASSES))
        self._notes = gm_notes.notes(
            library, font, program, _GM_PITCHES, _GM_VELOCITIES, _GM_SECONDS
        )
        self._kept: dict[tuple[int, int], np.ndarray] = {}

    def sound(self, note: BassNote, turn: int) -> np.ndarray:
        layer = int(np.clip(note.velocity * len(_GM_VELOCITIES), 0, len(_GM_VELOCITIES) - 1))
        key = (note.pitch, layer)
        if key not in self._kept:
            index = int(np.argmin([abs(pitch - note.pitch) for pitch in _GM_PITCHES]))
            audio = self._notes[index, layer].astype(np.float32).mean(axis=0, keepdims=True)
            shift = note.pitch - _GM_PITCHES[index]
            audio = effects.respeed(_attack_first(audio / np.float32(32767.0)), 2.0 ** (shift / 12))
            self._kept[key] = _levelled(audio)
        return self._kept[key]


def _attack_first(audio: np.ndarray) -> np.ndarray:
    """Without the silence before the attack."""
    loud = np.abs(audio[0])
    start = int(np.argmax(loud > 0.03 * loud.max())) - int(0.002 * SAMPLE_RATE)
    return audio[:, max(0, start) :]


def _levelled(audio: np.ndarray) -> np.ndarray:
    """Scale to a root mean square of 0.1 in the first 0.3 s: of soft notes only colour is kept."""
    power = float(np.mean(np.square(audio[:, : int(0.3 * SAMPLE_RATE)])))
    return audio * np.float32(0.1 / np.sqrt(power + 1e-10))


def _slid(audio: np.ndarray, semitones: float) -> np.ndarray:
    """The same note, sliding from some semitones off to its pitch."""
    count = audio.shape[-1]
    time = np.arange(count) / SAMPLE_RATE
    off = semitones * np.clip(1.0 - time / _SLIDE_SECONDS, 0.0, 1.0)
    place = np.cumsum(np.exp2(off / 12.0)) - 1.0
    place = place[place < count - 1]
    return np.interp(place, np.arange(count), audio[0])[None].astype(np.float32)


def _amplified(audio: np.ndarray, plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """DI or amplifier and cabinet or both, compressed and equalised; mono in two channels."""
    audio = effects.compress(audio, rng.uniform(-28, -16), rng.uniform(2.5, 8), 0.006,
                             rng.uniform(0.06, 0.25))  # fmt: skip
    share = {"metal": 0.9, "rock": 0.75, "indie": 0.6}.get(plan.style, 0.4)
    if rng.random() < share:
        amp = effects.drive(effects.highpass(audio, 60.0), rng.uniform(-4, 18), rng.uniform(0, 0.2))
        amp = effects.peak(amp, rng.uniform(500, 1200), rng.uniform(-6, 5), 0.8)
        amp = effects.lowpass(amp, rng.uniform(2000, 5500), 4)
        amount = effects.decibels(rng.uniform(-12, 6))
        level = effects.rms(audio) / (effects.rms(amp) + 1e-9)
        dry = 0.0 if rng.random() < 0.35 else 1.0
        audio = dry * audio + np.float32(amount * level) * amp
    audio = _with_bottom(audio, rng.uniform(-6.0, -1.5))
    audio = effects.peak(audio, rng.uniform(160, 400), rng.uniform(-6, 3), 1.0)
    audio = effects.peak(audio, rng.uniform(700, 2500), rng.uniform(-4, 7), 0.8)
    audio = effects.high_shelf(audio, rng.uniform(2500, 5000), rng.uniform(-12, 4))
    if rng.random() < 0.35:
        audio = effects.lowpass(audio, rng.uniform(600, 4000), 2)
    return _widened(effects.stereo(audio.astype(np.float32)), rng, 0.15)


def _with_bottom(audio: np.ndarray, wanted: float) -> np.ndarray:
    """Raise what is under 120 Hz towards a level in dB relative to the whole, as engineers do."""
    low = effects.lowpass(audio, _BOTTOM, 4)
    now = 20.0 * np.log10((effects.rms(low) + 1e-9) / (effects.rms(audio) + 1e-9))
    return effects.low_shelf(audio, _BOTTOM, float(np.clip(1.5 * (wanted - now), -3.0, 13.0)))


def _synth_channel(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Saturation, tone and width of a synthesised bass."""
    if rng.random() < 0.5:
        audio = effects.drive(audio, rng.uniform(-6, 12))
    if rng.random() < 0.4:
        audio = effects.compress(audio, rng.uniform(-24, -14), rng.uniform(2, 6))
    audio = effects.low_shelf(audio, rng.uniform(60, 120), rng.uniform(-4, 4))
    audio = effects.high_shelf(audio, rng.uniform(1500, 5000), rng.uniform(-8, 5))
    return _widened(audio, rng, 0.3)


def _widened(audio: np.ndarray, rng: np.random.Generator, share: float) -> np.ndarray:
    """Chorus or a small room now and then, over 150 Hz only; a little off the middle."""
    draw = rng.random()
    if draw < share:
        low = effects.lowpass(audio, 150.0)
        high = audio - low
        if draw < 0.5 * share:
            high = effects.chorus(high, rng, 0.0015, rng.uniform(0.3, 1.2))
        else:
            response = effects.room(rng, rng.uniform(0.2, 0.6), rng.uniform(2000, 6000))
            high = effects.reverb(high, response, rng.uniform(-22, -10))
        audio = low + high
    if rng.random() < 0.2:
        audio = effects.pan(audio, rng.uniform(-0.2, 0.2))
    return audio


def _excerpt(plan: Plan, library: Library, rng: np.random.Generator) -> np.ndarray:
    """A finished stem from a random place, faster or slower, coloured."""
    recorded = library.stored(library.files("everythingisfree/3.Sodium/bass.ogg")[0])
    speed = float(rng.uniform(0.8, 1.25))
    count = min(int(plan.nb_timesteps * speed) + 64, recorded.shape[-1])
    first = int(rng.integers(0, recorded.shape[-1] - count + 1))
    piece = recorded[:, first : first + count].astype(np.float32) / np.float32(32767.0)
    piece = effects.random_eq(effects.respeed(piece, speed), rng, 5.0)
    if rng.random() < 0.4:
        piece = effects.drive(piece, rng.uniform(-3, 9))
    stem = plan.silence()
    place = 0
    while place < plan.nb_timesteps:
        length = min(piece.shape[-1], plan.nb_timesteps - place)
        stem[:, place : place + length] = effects.faded(piece[:, :length], 0.01, 0.01)
        place += length
    return stem


def _presence(plan: Plan) -> np.ndarray:
    """Gain that silences the bass where it rests."""
    gain = np.zeros(plan.nb_timesteps, np.float32)
    fade = np.linspace(1.0, 0.0, int(_REST_FADE * SAMPLE_RATE), dtype=np.float32)
    for section in plan.sections:
        if "bass" in section.stems:
            begin = max(0, int((plan.seconds(section.first_bar) - 0.03) * SAMPLE_RATE))
            end = int(plan.seconds(section.first_bar + section.nb_bars) * SAMPLE_RATE)
            rise = gain[begin : begin + 200]
            rise[:] = np.maximum(rise, np.linspace(0.0, 1.0, len(rise), dtype=np.float32))
            gain[begin + 200 : end] = 1.0
            tail = gain[end : end + len(fade)]
            tail[:] = np.maximum(tail, fade[: len(tail)])
    return gain
