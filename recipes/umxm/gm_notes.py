"""Single notes of General-MIDI sound fonts, rendered once by fluidsynth and kept.

Fonts: Debian's ``fluid-soundfont-gm`` and ``musescore-general-soundfont-lossless``.
"""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile

from .plan import SAMPLE_RATE
from .sources import Library

FONTS = ("sounds/sf2/FluidR3_GM.sf2", "sounds/sf2/MuseScore_General_Full.sf2")
_TICKS_PER_SECOND = 960
_RELEASE = 0.3
_DRUM_CHANNEL = 9


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
    path = library.debian / font
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
    with tempfile.TemporaryDirectory() as folder:
        score, out = Path(folder, "notes.mid"), Path(folder, "notes.wav")
        _write_score(score, program, pitches, velocities, seconds, drums)
        options = ["-ni", "-q", "-R", "0", "-C", "0", "-g", "0.5", "-r", str(SAMPLE_RATE)]
        subprocess.run(
            ["fluidsynth", *options, "-F", str(out), str(font), str(score)],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        audio, _ = soundfile.read(out, dtype="float32", always_2d=True)
    count = int(seconds * SAMPLE_RATE)
    padded = np.zeros((len(pitches) * len(velocities) * count, 2), np.float32)
    length = min(len(audio), len(padded))
    padded[:length] = audio[:length]
    return padded.reshape(len(pitches), len(velocities), count, 2).transpose(0, 1, 3, 2)


def _write_score(
    path: Path,
    program: int,
    pitches: tuple[int, ...],
    velocities: tuple[int, ...],
    seconds: float,
    drums: bool,
) -> None:
    import mido  # type: ignore[import-untyped]  # only where a font is rendered for the first time

    channel = _DRUM_CHANNEL if drums else 0
    held = int((seconds - _RELEASE) * _TICKS_PER_SECOND)
    rest = int(seconds * _TICKS_PER_SECOND) - held
    track = mido.MidiTrack()
    track.append(mido.Message("program_change", channel=channel, program=program, time=0))
    wait = 0
    for pitch in pitches:
        for velocity in velocities:
            on = mido.Message("note_on", channel=channel, note=pitch, velocity=velocity, time=wait)
            off = mido.Message("note_off", channel=channel, note=pitch, velocity=0, time=held)
            track.extend([on, off])
            wait = rest
    track.append(mido.MetaMessage("end_of_track", time=rest))
    song = mido.MidiFile(ticks_per_beat=480)
    song.tracks.append(track)
    song.save(path)
