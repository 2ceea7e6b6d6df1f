"""Instruments of General MIDI soundfonts: single notes recorded once with fluidsynth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..studio import effects
from ..studio.gm_notes import FONTS, recorded
from ..studio.notes import Note, glided, loudness
from ..studio.plan import SAMPLE_RATE
from ..studio.sources import Library

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
        Index into `FONTS`.
    program : int
        From 0 to 127.
    """
    path = library.installed(FONTS[font])
    name = f"{path.name}, program {program}, {_PITCHES}, {_VELOCITIES}, {_HOLD}, {_SLOT}"
    played = [(pitch, velocity) for velocity in _VELOCITIES for pitch in _PITCHES]
    return library.made(name, lambda: recorded(path, program, played, _HOLD, _SLOT, 0.7))


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
    stored = instrument(library, font, program)
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
            sound = stored[:, first : first + slot].astype(np.float32) / np.float32(32767.0)
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
