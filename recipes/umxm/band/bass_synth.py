"""Synthesised basses: one voice with glide, oscillators, a filter with envelope."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import signal

from ..studio import effects
from ..studio.plan import SAMPLE_RATE
from .bass_lines import BassNote

KINDS = ("saw", "square", "sub", "fm", "boom", "reese", "pluck")
# Cut-offs between which a moving filter is blended.
_CUTOFFS = (90.0, 220.0, 500.0, 1100.0, 2600.0, 6500.0)


def play(
    notes: Sequence[BassNote], nb_timesteps: int, rng: np.random.Generator, kind: str
) -> np.ndarray:
    """Render a line.

    Parameters
    ----------
    notes : sequence of BassNote
        In order, one at a time.
    kind : str
        One of `KINDS`: ``boom`` is a drum machine's long kick that is played in tune, ``reese``
        detuned saws that beat.

    Returns
    -------
    ndarray [shape=(2, nb_timesteps)], float32
    """
    glide = float(rng.choice((0.002, 0.02, 0.06), p=(0.5, 0.3, 0.2)))
    if kind == "boom":
        glide = float(rng.uniform(0.01, 0.09))
    frequency, amplitude, age = _curves(notes, nb_timesteps, rng, kind, glide)
    phase = np.cumsum(frequency) / SAMPLE_RATE
    if kind == "sub":
        wave = np.sin(2 * np.pi * phase)
        wave = np.tanh(rng.uniform(0.8, 4.0) * wave)
    elif kind == "boom":
        wave = np.tanh(rng.uniform(1.0, 5.0) * np.sin(2 * np.pi * phase) * (0.3 + 0.7 * amplitude))
    elif kind == "fm":
        ratio, depth = float(rng.choice((0.5, 1.0, 1.0, 2.0, 3.0))), rng.uniform(1.0, 4.0)
        index = depth * np.exp(-age * rng.uniform(2, 12)) + rng.uniform(0, 0.8)
        wave = np.sin(2 * np.pi * phase + index * np.sin(2 * np.pi * ratio * phase))
    else:
        wave = _analogue(kind, phase, frequency, rng)
    if kind in ("saw", "square", "reese", "pluck"):
        wave = _filtered(wave, age, rng, kind)
        under = rng.uniform(0.0, 0.8)
        wave = wave + under * np.sin(2 * np.pi * phase)[None] * 0.6
    wave = np.atleast_2d(wave) * amplitude
    return effects.stereo(wave.astype(np.float32))


def _curves(
    notes: Sequence[BassNote], nb_timesteps: int, rng: np.random.Generator, kind: str, glide: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frequency, amplitude, and seconds since the note began, for every sample."""
    pitch = np.full(nb_timesteps, float(notes[0].pitch) if notes else 36.0, np.float32)
    amplitude = np.zeros(nb_timesteps, np.float32)
    age = np.full(nb_timesteps, 10.0, np.float32)
    fast = kind in ("pluck", "boom")
    decay = float(rng.uniform(0.25, 0.9) if kind == "pluck" else rng.uniform(0.5, 2.0))
    sustain = 0.0 if fast else float(rng.uniform(0.4, 1.0))
    attack, release = float(rng.uniform(0.002, 0.012)), float(rng.uniform(0.02, 0.08))
    punch = float(rng.uniform(0, 24)) if kind == "boom" else 0.0
    for index, note in enumerate(notes):
        first = int(note.start * SAMPLE_RATE)
        following = int(notes[index + 1].start * SAMPLE_RATE) if index + 1 < len(notes) else None
        last = min(nb_timesteps, following or nb_timesteps)
        if last <= first:
            continue
        time = np.arange(last - first, dtype=np.float32) / np.float32(SAMPLE_RATE)
        pitch[first:last] = note.pitch
        if note.slide:
            pitch[first:last] += note.slide * np.clip(1.0 - time / 0.12, 0.0, 1.0)
        if punch:
            pitch[first:last] += punch * np.exp(-time * 70)
        age[first:last] = time
        level = sustain + (1 - sustain) * np.exp(-time / decay)
        held = note.duration * (0.3 if note.is_ghost else 1.0)
        # End in time for the next attack, so that nothing clicks.
        held = max(0.01, min(held, (last - first) / SAMPLE_RATE - 0.012))
        shape = np.minimum(1.0, time / attack) * np.clip(1.0 - (time - held) / release, 0.0, 1.0)
        gap = np.clip((time[-1] - time) / 0.006, 0.0, 1.0)
        amplitude[first:last] = note.velocity * level * shape * gap
    step = np.exp(-1.0 / (SAMPLE_RATE * glide / 3.0))
    start = np.array([pitch[0] * step])
    pitch, _ = signal.lfilter([1.0 - step], [1.0, -step], pitch, zi=start)
    frequency = 440.0 * np.exp2((pitch - 69.0) / 12.0)
    return frequency, amplitude, age


def _saw(phase: np.ndarray, frequency: np.ndarray) -> np.ndarray:
    """Sawtooth with its jump rounded (polynomial band limiting)."""
    part = np.mod(phase, 1.0)
    width = frequency / SAMPLE_RATE
    wave = 2.0 * part - 1.0
    near = part < width
    t = part[near] / width[near]
    wave[near] -= 2 * t - t * t - 1.0
    near = part > 1.0 - width
    t = (part[near] - 1.0) / width[near]
    wave[near] -= t * t + 2 * t + 1.0
    return np.asarray(wave)


def _analogue(
    kind: str, phase: np.ndarray, frequency: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Oscillators of a subtractive synthesiser; two channels for a wide reese."""
    if kind == "reese":
        cents = rng.uniform(6, 30)
        ratios = np.exp2(np.array([-cents, cents, 0.4 * cents]) / 1200.0)
        voices = [_saw(phase * ratio + rng.random(), frequency * ratio) for ratio in ratios]
        if rng.random() < 0.4:
            return np.stack([voices[0] + 0.6 * voices[2], voices[1] + 0.6 * voices[2]]) * 0.6
        return np.asarray(0.5 * sum(voices))
    if kind == "square":
        width = rng.uniform(0.2, 0.5)
        return 0.7 * (_saw(phase, frequency) - _saw(phase + width, frequency))
    wave = _saw(phase, frequency)
    if rng.random() < 0.5:
        detune = 2.0 ** (rng.uniform(3, 12) / 1200.0)
        wave = 0.6 * wave + 0.6 * _saw(phase * detune, frequency * detune)
    if rng.random() < 0.3:
        wave = 0.7 * wave + 0.5 * _saw(phase * 0.5, frequency * 0.5)
    return wave


def _filtered(wave: np.ndarray, age: np.ndarray, rng: np.random.Generator, kind: str) -> np.ndarray:
    """A low pass whose cut-off falls after each attack: a blend of fixed ones."""
    base = rng.uniform(0.3, 2.8)
    depth = rng.uniform(0.3, 3.0) if kind != "reese" else rng.uniform(0, 0.6)
    speed = rng.uniform(3, 14) * (2.0 if kind == "pluck" else 1.0)
    position = base + depth * np.exp(-age * speed)
    if kind == "reese" and rng.random() < 0.5:
        time = np.arange(len(age)) / SAMPLE_RATE
        position = position + rng.uniform(0.3, 1.2) * np.sin(2 * np.pi * rng.uniform(0.1, 2) * time)
    position = np.clip(position, 0.0, len(_CUTOFFS) - 1.0).astype(np.float32)
    resonance = rng.uniform(0, 9)
    audio = np.atleast_2d(wave).astype(np.float32)
    out = np.zeros_like(audio)
    low, high = int(np.floor(position.min())), int(np.ceil(position.max()))
    for index in range(low, high + 1):
        weight = np.clip(1.0 - np.abs(position - index), 0.0, 1.0)
        # Four first-order poles turn little in phase between neighbours, so that blends stay full.
        part = effects.lowpass(audio, _CUTOFFS[index] * 1.3, 2)
        part = effects.peak(part, _CUTOFFS[index], resonance, 2.0)
        out += weight * part
    return out
