"""Guitars: real notes through made-up amplifiers and cabinets, and recorded performances."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy import ndimage, signal

from ..studio import effects
from ..studio.notes import Note, Sampler, moved
from ..studio.plan import SAMPLE_RATE, Plan, Section
from ..studio.sources import Library
from . import parts

# Where the guitars' notes are, and what is added to the octave of their names.
GUITARS = {
    "black": ("black_and_green_guitars/Samples/black/ord/*.ogg", 0),
    "green": ("black_and_green_guitars/Samples/green/ord/*.ogg", 0),
    "black staccato": ("black_and_green_guitars/Samples/black/stac/*.ogg", 0),
    "green staccato": ("black_and_green_guitars/Samples/green/stac/*.ogg", 0),
    "shiny": ("shinyguitar/Samples/acoustic/*.ogg", 1),
    "emily": ("emilyguitar/notes/*.ogg", 1),
}
ELECTRIC = ("black", "green")
ACOUSTIC = ("shiny", "emily")


@lru_cache(maxsize=16)
def sampler(library: Library, name: str) -> Sampler:
    """The recorded notes of one of `GUITARS`."""
    pattern, octave = GUITARS[name]
    return Sampler(library, library.files(pattern), octave)


def cabinet(rng: np.random.Generator) -> np.ndarray:
    """Second-order sections of a made-up loudspeaker: a band with a bump, a peak and dips."""
    low, high = rng.uniform(75, 120), rng.uniform(4000, 6200)
    butter = [
        signal.butter(2, low, "high", fs=SAMPLE_RATE, output="sos"),
        signal.butter(4, high, "low", fs=SAMPLE_RATE, output="sos"),
    ]
    bands = [
        (rng.uniform(100, 180), rng.uniform(0, 5), 1.2),
        (rng.uniform(350, 700), rng.uniform(-8, 0), 0.8),
        (rng.uniform(900, 1500), rng.uniform(-6, 2), 2.0),
        (rng.uniform(1900, 3200), rng.uniform(1, 7), 1.2),
        (rng.uniform(3300, 4600), rng.uniform(-9, 0), 3.0),
    ]
    peaks = [effects.biquad("peak", *band) for band in bands]
    return np.concatenate([*butter, *peaks])


def amplifier(audio: np.ndarray, rng: np.random.Generator, gain: float) -> np.ndarray:
    """Two tube-like stages, tone and cabinet.

    Parameters
    ----------
    gain : float
        dB of drive: about 0 is clean, 12 crunches, 30 is metal.
    """
    tight = rng.uniform(60, 110) + 4.0 * max(gain, 0.0)
    out = effects.highpass(audio, tight, 1)
    out = effects.peak(out, rng.uniform(600, 1100), rng.uniform(0, 6), 0.6)
    out = effects.lowpass(out, 7000.0, 1)
    if gain > 2.0:
        out = effects.drive(out, gain * 0.55, rng.uniform(0.0, 0.3))
        out = effects.highpass(out, rng.uniform(60, 140), 1)
        out = effects.drive(out, gain * 0.45, rng.uniform(0.0, 0.15))
        out = _gated(out, audio)
    else:
        out = effects.compress(out, -22.0, rng.uniform(2.0, 5.0), 0.003)
        out = effects.drive(out, rng.uniform(-6.0, 2.0))
    return effects.filtered(out, cabinet(rng))


def _gated(audio: np.ndarray, clean: np.ndarray) -> np.ndarray:
    """Close where the clean sound is more than 48 dB under its level."""
    hop = 256
    count = -(-clean.shape[-1] // hop)
    level = np.zeros(count * hop, np.float32)
    level[: clean.shape[-1]] = np.abs(clean).max(axis=0)
    peaks = level.reshape(count, hop).max(axis=1)
    opened = (peaks > effects.decibels(-48.0) * 4.0 * effects.rms(clean)).astype(np.float32)
    opened = ndimage.uniform_filter1d(ndimage.maximum_filter1d(opened, 9), 9)
    gain = np.interp(np.arange(audio.shape[-1]), np.arange(count) * hop + hop / 2, opened)
    return audio * gain.astype(np.float32)


def _shapes(plan: Plan, section: Section, power: bool, position: int) -> list[parts.Shape]:
    played = plan.chords[section.first_bar : section.first_bar + section.nb_bars]
    if power:
        return [parts.power_chord(chord) for chord in played]
    return [parts.fingering(chord, position) for chord in played]


def _capo(plan: Plan, rng: np.random.Generator) -> int:
    """A fret from which most chords of the song are complete."""
    return int(rng.choice((0, 0, 0, 2, 3, 5, 7))) if plan.tonic % 2 else int(rng.choice((0, 2, 5)))


def rhythm_part(plan: Plan, section: Section, rng: np.random.Generator, manner: str) -> list[Note]:
    """Notes of a rhythm guitar.

    Parameters
    ----------
    manner : str
        ``strum``, ``pick``, ``power``, ``chug``, ``funk``, ``riff`` or ``lead``.
    """
    if manner == "riff":
        return parts.riff(plan, section, rng)
    if manner == "lead":
        return parts.melody(plan, section, 69, rng, rng.uniform(0.3, 0.9), expressive=True)
    if manner in ("power", "chug"):
        strokes = parts.CHUGS if manner == "chug" else parts.CHUGS[6:]
        bars = strokes[rng.integers(len(strokes))]
        return parts.strums(plan, section, bars, _shapes(plan, section, True, 0), rng, 0.006)
    shapes = _shapes(plan, section, False, _capo(plan, rng))
    if manner == "pick":
        return parts.picking(plan, section, shapes, rng)
    if manner == "funk":
        bars = parts.FUNK[rng.integers(len(parts.FUNK))]
        high = [tuple(shape[-4:]) for shape in shapes]
        return parts.strums(plan, section, bars, high, rng, 0.008)
    bars = parts.STRUMS[rng.integers(len(parts.STRUMS))]
    return parts.strums(plan, section, bars, shapes, rng, rng.uniform(0.01, 0.03))


def electric(
    plan: Plan,
    library: Library,
    notes: Sequence[Note],
    rng: np.random.Generator,
    gain: float,
    double: bool,
) -> np.ndarray:
    """An electric guitar, alone or played twice and panned hard.

    Parameters
    ----------
    gain : float
        See `amplifier`.
    double : bool
        Whether it is played twice.
    """
    names = list(rng.permutation(ELECTRIC))
    amp, side = int(rng.integers(2**31)), rng.uniform(0.7, 1.0)
    place = rng.uniform(-0.7, 0.7)
    out = plan.silence()
    for take in range(2 if double else 1):
        name = names[take] if rng.random() < 0.3 else names[0]
        detune = rng.normal(0.0, 0.04)
        played = moved(notes, rng, 0.007)
        audio = plan.silence(1)
        held = [note for note in played if not note.muted]
        short = [note for note in played if note.muted]
        audio += sampler(library, name).play(held, plan.nb_timesteps, rng, detune, 0.03)
        if short:
            kind = f"{name} staccato" if rng.random() < 0.3 else name
            audio += sampler(library, kind).play(short, plan.nb_timesteps, rng, detune, 0.02)
        audio = amplifier(audio, np.random.default_rng([amp, take // 2]), gain)
        if double:
            audio = effects.random_eq(audio, rng, 2.0)
        out += effects.pan(audio, (side if take else -side) if double else place)
    return out


def acoustic(
    plan: Plan, library: Library, notes: Sequence[Note], rng: np.random.Generator, double: bool
) -> np.ndarray:
    """An acoustic guitar, alone or played twice."""
    name = str(rng.choice(ACOUSTIC))
    side, place = rng.uniform(0.5, 1.0), rng.uniform(-0.6, 0.6)
    out = plan.silence()
    for take in range(2 if double else 1):
        played = moved(notes, rng, 0.007)
        detune = rng.normal(0.0, 0.03)
        audio = sampler(library, name).play(played, plan.nb_timesteps, rng, detune, 0.08)
        out += effects.pan(audio, (side if take else -side) if double else place)
    out = effects.highpass(out, rng.uniform(80, 160))
    out = effects.drive(effects.compress(out, -22.0, rng.uniform(1.5, 4.0)), -6.0)
    return effects.high_shelf(out, rng.uniform(4000, 8000), rng.uniform(0, 6))
