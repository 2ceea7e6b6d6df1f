"""Single notes of General-MIDI sound fonts, rendered once by fluidsynth and kept.

Fonts: Debian's ``fluid-soundfont-gm`` and ``musescore-general-soundfont-lossless``.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile

from .midi import DRUM_CHANNEL
from .plan import SAMPLE_RATE
from .sources import Library

FONTS = ("sounds/sf2/FluidR3_GM.sf2", "sounds/sf2/MuseScore_General_Full.sf2")
# 480 a quarter note, at the usual tempo.
_TICKS_PER_SECOND = 960
_RELEASE = 0.3


def notes(
    library: Library,
    font: str,
    program: int,
    pitches: tuple[int, ...],
    velocities: tuple[int, ...],
    seconds: float,
    drums: bool = False,
) -> np.ndarray:
    """Recordings of a program's notes, dry.

    Parameters
    ----------
    font : str
        One of `FONTS`.
    program : int
        Number from 0; with `drums` that of a kit.
    seconds : float
        Length of each; a note is held to 0.3 s before the end.

    Returns
    -------
    ndarray [shape=(nb_pitches, nb_velocities, 2, nb_timesteps)], int16
        Mapped from the cache.
    """
    label = f"{font} {program} {pitches} {velocities} {seconds} {drums}"
    path = library.installed(font)
    return library.made(
        label, lambda: _rendered(path, program, pitches, velocities, seconds, drums)
    )


def _rendered(
    font: Path,
    program: int,
    pitches: tuple[int, ...],
    velocities: tuple[int, ...],
    seconds: float,
    drums: bool,
) -> np.ndarray:
    played = [(pitch, velocity) for pitch in pitches for velocity in velocities]
    audio = recorded(font, program, played, seconds - _RELEASE, seconds, 0.5, drums)
    return audio.reshape(2, len(pitches), len(velocities), -1).transpose(1, 2, 0, 3)


def recorded(
    font: Path,
    program: int,
    played: Sequence[tuple[int, int]],
    held: float,
    slot: float,
    gain: float,
    drums: bool = False,
) -> np.ndarray:
    """Let fluidsynth play notes one after the other, without reverb and chorus.

    Parameters
    ----------
    font : Path
    program : int
        Number from 0; with `drums` that of a kit.
    played : sequence of tuple of int
        Pitches and velocities.
    held, slot : float
        Seconds from a note's begin to its end, and to the next one.
    gain : float
        Of fluidsynth.

    Returns
    -------
    ndarray [shape=(2, nb_timesteps)], float32
        As many slots as there are notes.

    Raises
    ------
    FileNotFoundError
        If there is no fluidsynth.
    RuntimeError
        If it fails, or only silence comes out.
    """
    if shutil.which("fluidsynth") is None:
        raise FileNotFoundError("fluidsynth is needed; see recipes/umxm/README.md")
    with tempfile.TemporaryDirectory() as folder:
        score, wave = Path(folder, "notes.mid"), Path(folder, "notes.wav")
        _write_score(score, program, played, held, slot, drums)
        command = ["fluidsynth", "-ni", "-q", "-R", "0", "-C", "0", "-g", str(gain)]
        command += ["-o", "synth.dynamic-sample-loading=1", "-r", str(SAMPLE_RATE), "-T", "wav"]
        command += ["-F", str(wave), str(font), str(score)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode or not wave.exists():
            raise RuntimeError(f"fluidsynth ended with {done.returncode}: {done.stderr.strip()}")
        audio, _ = soundfile.read(wave, dtype="float32", always_2d=True)
    if not np.any(audio):
        # It goes on without a font that it cannot read.
        raise RuntimeError(f"{font}, program {program}: silence; {done.stderr.strip()}")
    length = len(played) * round(slot * SAMPLE_RATE)
    out = np.zeros((2, length), np.float32)
    out[:, : min(length, len(audio))] = audio.T[:, :length]
    return out


def _write_score(
    path: Path,
    program: int,
    played: Sequence[tuple[int, int]],
    held: float,
    slot: float,
    drums: bool,
) -> None:
    import mido  # only where a font is played for the first time

    channel = DRUM_CHANNEL if drums else 0
    sounding = round(held * _TICKS_PER_SECOND)
    rest = round(slot * _TICKS_PER_SECOND) - sounding
    track = mido.MidiTrack()
    track.append(mido.Message("program_change", channel=channel, program=program, time=0))
    wait = 0
    for pitch, velocity in played:
        on = mido.Message("note_on", channel=channel, note=pitch, velocity=velocity, time=wait)
        off = mido.Message("note_off", channel=channel, note=pitch, velocity=0, time=sounding)
        track.extend([on, off])
        wait = rest
    track.append(mido.MetaMessage("end_of_track", time=rest))
    song = mido.MidiFile(ticks_per_beat=480)
    song.tracks.append(track)
    song.save(path)
