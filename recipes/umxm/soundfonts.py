"""Instruments of General MIDI soundfonts: single notes recorded once with fluidsynth."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from . import effects
from .notes import Note, glided, loudness
from .plan import SAMPLE_RATE
from .sources import Library

SOUNDFONTS = ("sounds/sf2/FluidR3_GM.sf2", "sounds/sf2/MuseScore_General_Full.sf2")
# Programs, counted from 0, by their use. Choirs and voices are left out on purpose.
FAMILIES: dict[str, tuple[int, ...]] = {
    "piano": (0, 0, 1, 2, 3),
    "electric piano": (4, 5, 4, 5, 7),
    "organ": (16, 17, 18, 19, 21, 22),
    "strings": (48, 49, 50, 51, 44, 40),
    "brass": (61, 62, 63, 56, 57, 60, 65, 66),
    "pad": (88, 89, 90, 92, 93, 94, 95, 50, 51, 99, 101),
    "lead": (80, 81, 82, 83, 84, 86, 87, 73, 75, 71, 68, 65, 40),
    "pluck": (45, 46, 6, 15, 107, 104, 105, 108, 96, 98),
    "mallet": (8, 11, 12, 14, 9, 10),
    "guitar": (24, 25, 26, 27, 28),
    "distorted guitar": (29, 30),
}
PROGRAMS = tuple(sorted({program for family in FAMILIES.values() for program in family}))
# What is recorded: every fourth pitch, soft and loud, held and released.
_PITCHES = tuple(range(40, 96, 4))
_VELOCITIES = (64, 112)
_HOLD, _SLOT = 3.2, 4.0
# A note never exceeds what was held; longer ones end there in a fade.
_LEVEL = 0.1


def instrument(library: Library, font: int, program: int) -> np.ndarray:
    """All recorded notes of an instrument, one after the other, 16 bit, made at the first call.

    Parameters
    ----------
    library : Library
    font : int
        Index into `SOUNDFONTS`.
    program : int
        From 0 to 127.
    """
    path = library.debian / SOUNDFONTS[font]
    name = f"{path.name}, program {program}, {_PITCHES}, {_VELOCITIES}, {_HOLD}, {_SLOT}"
    return library.made(name, lambda: _recorded(path, program))


def _recorded(path: Path, program: int) -> np.ndarray:
    if shutil.which("fluidsynth") is None or not path.exists():
        raise FileNotFoundError(f"fluidsynth and {path} are needed; see recipes/umxm/README.md")
    import mido  # only where an instrument is recorded for the first time

    ticks = 480
    score = mido.MidiFile(ticks_per_beat=ticks)
    track = mido.MidiTrack()
    score.tracks.append(track)
    # A quarter note of one second.
    track.append(mido.MetaMessage("set_tempo", tempo=1_000_000))
    track.append(mido.Message("program_change", program=program))
    for velocity in _VELOCITIES:
        for pitch in _PITCHES:
            track.append(mido.Message("note_on", note=pitch, velocity=velocity))
            track.append(mido.Message("note_off", note=pitch, time=round(_HOLD * ticks)))
            rest = mido.Message("control_change", control=20, time=round((_SLOT - _HOLD) * ticks))
            track.append(rest)
    with tempfile.TemporaryDirectory() as folder:
        midi, wave = Path(folder, "notes.mid"), Path(folder, "notes.wav")
        score.save(midi)
        options = ("-o", "synth.dynamic-sample-loading=1", "-o", "synth.polyphony=64")
        command = ["fluidsynth", "-ni", "-q", "-R", "0", "-C", "0", "-g", "0.7", *options]
        command += ["-r", str(SAMPLE_RATE), "-T", "wav", "-F", str(wave), str(path), str(midi)]
        subprocess.run(command, check=True, capture_output=True)
        audio, _ = soundfile.read(wave, dtype="float32", always_2d=True)
    length = round(len(_VELOCITIES) * len(_PITCHES) * _SLOT * SAMPLE_RATE)
    out = np.zeros((2, length), np.float32)
    out[:, : min(length, len(audio))] = audio.T[:, :length]
    return out


def play(
    library: Library,
    font: int,
    program: int,
    notes: Sequence[Note],
    nb_timesteps: int,
    detune: float = 0.0,
) -> np.ndarray:
    """Play a part on an instrument of a soundfont.

    Returns
    -------
    ndarray [shape=(2, nb_timesteps)], float32
    """
    recorded = instrument(library, font, program)
    out = np.zeros((2, nb_timesteps), np.float32)
    kept: dict[tuple[float, int], np.ndarray] = {}
    held, slot = round(_HOLD * SAMPLE_RATE), round(_SLOT * SAMPLE_RATE)
    for note in notes:
        pitch = note.pitch + detune
        layer = int(note.velocity > 0.7)
        key = (round(pitch, 2), layer)
        if key not in kept:
            nearest = int(np.argmin([abs(pitch - known) for known in _PITCHES]))
            first = (layer * len(_PITCHES) + nearest) * slot
            sound = recorded[:, first : first + slot].astype(np.float32) / np.float32(32767.0)
            body = sound[:, : SAMPLE_RATE // 2]
            sound *= np.float32(_LEVEL / (np.sqrt(np.mean(body**2)) + 1e-3))
            kept[key] = effects.respeed(sound, 2.0 ** ((pitch - _PITCHES[nearest]) / 12.0))
        sound = kept[key]
        factor = slot / sound.shape[-1]
        effects.place(out, _cut(sound, note, int(held / factor)), note.start,
                      loudness(note.velocity))  # fmt: skip
    return out


def _cut(sound: np.ndarray, note: Note, held: int) -> np.ndarray:
    """As long as the note asks: what was recorded of the release is set to the end of the hold."""
    if note.bend or note.vibrato:
        sound = glided(sound, note.bend, note.vibrato)
    hold = int(note.duration * SAMPLE_RATE)
    if hold >= held:
        return effects.faded(sound, 0.0, 0.2)
    tail = sound[:, held:]
    count = max(1, min(int(0.03 * SAMPLE_RATE), hold))
    out = np.zeros((len(sound), hold + tail.shape[-1]), np.float32)
    out[:, :hold] = sound[:, :hold]
    # The release goes on from the level at which the note stops, not where the recorded one did.
    now = np.sqrt(np.mean(sound[:, max(0, hold - 2000) : hold + 1] ** 2) + 1e-12)
    then = np.sqrt(np.mean(sound[:, held - 2000 : held] ** 2) + 1e-12)
    ramp = np.linspace(0.0, 1.0, count, dtype=np.float32)
    ring = sound[:, hold : hold + count] * (1.0 - ramp)
    out[:, hold : hold + ring.shape[-1]] += ring[:, : out.shape[-1] - hold]
    gain = np.float32(min(now / then, 8.0))
    joined = tail * gain
    joined[:, :count] *= ramp[: joined.shape[-1]]
    out[:, hold:] += joined
    return effects.faded(out, 0.0, 0.05)
