"""Synthesizers: oscillators from wavetables, FM, a filter that moves, and noise sweeps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import signal

from ..studio import effects
from ..studio.notes import Note, loudness
from ..studio.plan import SAMPLE_RATE, Plan, Section

_TABLE = 2048
# Cutoff frequencies between whose filters a moving filter is blended.
_CUTOFFS = (220.0, 500.0, 1100.0, 2400.0, 5000.0, 11000.0)


@lru_cache(maxsize=256)
def wavetable(shape: str, harmonics: int, seed: int = 0) -> np.ndarray:
    """One period without aliasing, one sample longer so that the end can be interpolated."""
    order = np.arange(1, harmonics + 1)
    rng = np.random.default_rng(seed)
    amplitudes = {
        "saw": 1.0 / order,
        "square": (order % 2) / order,
        "triangle": (order % 2) * (-1.0) ** (order // 2) / order**2,
        "pulse": np.sin(np.pi * order * rng.uniform(0.08, 0.4)) / order,
        "organ": np.isin(order, (1, 2, 3, 4, 6, 8)) * rng.uniform(0.1, 1.0, harmonics),
        "formant": np.exp(-(((order - rng.uniform(2, 12)) / 3.0) ** 2)) + 0.5 / order**1.5,
        "sine": (order == 1) * 1.0,
    }[shape]
    phases = rng.uniform(0, 2 * np.pi, harmonics) if shape == "formant" else np.zeros(harmonics)
    spectrum = np.zeros(_TABLE // 2 + 1, complex)
    spectrum[1 : harmonics + 1] = amplitudes * np.exp(1j * phases) * -1j
    table = np.fft.irfft(spectrum)
    table = table / (np.sqrt(np.mean(table**2)) + 1e-12)
    return np.append(table, table[0]).astype(np.float32)


def oscillator(
    frequency: float | np.ndarray, count: int, shape: str, phase: float, seed: int = 0
) -> np.ndarray:
    """A wave of constant or moving frequency, shape ``(count,)``."""
    top = float(np.max(frequency))
    harmonics = int(np.clip(0.45 * SAMPLE_RATE / top, 1, _TABLE // 2 - 1))
    # Few tables serve all pitches: 4 an octave.
    harmonics = max(1, int(2.0 ** (np.floor(4.0 * np.log2(harmonics)) / 4.0)))
    table = wavetable(shape, harmonics, seed)
    turns: np.ndarray
    if np.ndim(frequency):
        turns = phase + np.cumsum(frequency) / SAMPLE_RATE
    else:
        turns = phase + np.arange(count) * (float(np.mean(frequency)) / SAMPLE_RATE)
    place = ((turns - np.floor(turns)) * _TABLE).astype(np.float32)
    first = np.minimum(place.astype(np.int32), _TABLE - 1)
    part = place - first
    low = table[first]
    return np.asarray(low + part * (table[first + 1] - low))


@dataclass(frozen=True)
class Patch:
    """Settings of a synthesizer.

    Attributes
    ----------
    shapes : tuple of str
        Of the oscillators, each ``'saw'``, ``'square'``, ``'triangle'``, ``'pulse'``, ``'organ'``,
        ``'formant'`` or ``'sine'``.
    octaves : tuple of int
        By which each oscillator is transposed.
    unison : int
        Copies of each oscillator.
    detune : float
        Semitones from the lowest copy to the highest.
    fm : tuple of float
        Ratio, index and decay in seconds of a modulator; an index of 0 is none.
    attack, decay, sustain, release : float
        Of the amplitude; seconds, and level from 0 to 1.
    cutoff : float
        Octaves over 220 Hz at which the filter rests.
    sweep, sweep_decay : float
        Octaves by which a note opens the filter, and seconds in which it closes.
    wobble : float
        Octaves by which a slow oscillator moves the filter.
    wobble_beats : float
        Its period in quarter notes.
    resonance : float
        Quality of the filter.
    portamento : float
        Seconds from note to note; 0 plays notes together.
    seed : int
        Of the tables and phases.
    """

    shapes: tuple[str, ...]
    octaves: tuple[int, ...]
    unison: int
    detune: float
    fm: tuple[float, float, float]
    attack: float
    decay: float
    sustain: float
    release: float
    cutoff: float
    sweep: float
    sweep_decay: float
    wobble: float
    wobble_beats: float
    resonance: float
    portamento: float
    seed: int


def draw_patch(kind: str, rng: np.random.Generator) -> Patch:
    """Settings for a ``pad``, ``pluck``, ``lead``, ``keys`` or ``stab``."""
    basic = ("saw", "saw", "saw", "square", "pulse", "formant")
    soft = ("saw", "triangle", "organ", "pulse", "formant", "sine", "square")
    count = int(rng.integers(1, 3))
    choices = basic if kind in ("lead", "stab", "pluck") else soft
    shapes = tuple(str(rng.choice(choices)) for _ in range(count))
    octaves = (0, *(int(rng.choice((0, 0, 1, -1))) for _ in range(count - 1)))
    unison = int(rng.choice((1, 2, 3, 5, 7) if kind != "lead" else (1, 1, 2, 3, 5)))
    fm = (0.0, 0.0, 1.0)
    if rng.random() < {"keys": 0.7, "pluck": 0.35, "lead": 0.15}.get(kind, 0.08):
        shapes, octaves, unison = ("sine",), (0,), int(rng.choice((1, 2)))
        ratio = float(rng.choice((1, 1, 2, 3, 3.5, 4, 7, 14)))
        fm = (ratio, float(rng.uniform(0.4, 4.0) / ratio**0.4), float(rng.uniform(0.1, 1.5)))
    envelope = {
        "pad": (rng.uniform(0.1, 0.9), 1.0, rng.uniform(0.7, 1.0), rng.uniform(0.3, 1.2)),
        "pluck": (0.002, rng.uniform(0.1, 0.5), rng.uniform(0.0, 0.2), rng.uniform(0.05, 0.4)),
        "lead": (rng.uniform(0.003, 0.05), 0.4, rng.uniform(0.6, 1.0), rng.uniform(0.05, 0.25)),
        "keys": (0.003, rng.uniform(0.5, 2.0), rng.uniform(0.0, 0.5), rng.uniform(0.1, 0.4)),
        "stab": (0.003, rng.uniform(0.15, 0.6), rng.uniform(0.2, 0.8), rng.uniform(0.05, 0.3)),
    }[kind]
    filters = {
        "pad": (rng.uniform(1.0, 4.5), rng.uniform(0.0, 1.0), 1.5),
        "pluck": (rng.uniform(0.3, 3.0), rng.uniform(1.0, 4.0), rng.uniform(0.05, 0.3)),
        "lead": (rng.uniform(2.5, 5.5), rng.uniform(0.0, 2.0), rng.uniform(0.1, 0.6)),
        "keys": (rng.uniform(2.0, 5.5), rng.uniform(0.0, 2.0), rng.uniform(0.2, 0.8)),
        "stab": (rng.uniform(2.0, 5.0), rng.uniform(0.5, 3.0), rng.uniform(0.1, 0.4)),
    }[kind]
    attack, decay, sustain, release = (float(value) for value in envelope)
    cutoff, sweep, sweep_decay = (float(value) for value in filters)
    wobble = float(rng.uniform(0.3, 2.0)) if rng.random() < 0.45 else 0.0
    beats = float(rng.choice((0.25, 0.5, 1, 2, 4, 8, 16, 32)))
    glide = float(rng.uniform(0.02, 0.12)) if kind == "lead" else 0.0
    return Patch(
        shapes, octaves, unison, float(rng.uniform(0.1, 0.5)), fm,
        attack, decay, sustain, release, cutoff, sweep, sweep_decay,
        wobble, beats, float(rng.uniform(0.7, 2.5)), glide, int(rng.integers(8)),
    )  # fmt: skip


def play(plan: Plan, notes: Sequence[Note], patch: Patch, rng: np.random.Generator) -> np.ndarray:
    """Play a part; notes together, or one line where the patch glides.

    Returns
    -------
    ndarray [shape=(2, nb_timesteps)], float32
    """
    out = plan.silence()
    if not notes:
        return out
    if patch.portamento:
        _line(out, notes, patch, rng)
    else:
        _together(out, notes, patch, rng)
    return swept(out, _movement(plan, notes, patch), patch.resonance)


def _voices(
    frequency: float | np.ndarray, count: int, patch: Patch, rng: np.random.Generator
) -> np.ndarray:
    """All oscillators of a pitch, spread over the stereo field."""
    out = np.zeros((2, count), np.float32)
    if patch.fm[1]:
        ratio, index, decay = patch.fm
        time = np.arange(count) / SAMPLE_RATE
        base = np.cumsum(np.broadcast_to(frequency, count)) / SAMPLE_RATE
        depth = index * (0.3 + 0.7 * np.exp(-time / decay))
        for channel in range(2):
            slightly = 1.0 + 0.0008 * (channel - 0.5) * patch.unison
            inner = np.sin(2 * np.pi * ratio * base * slightly)
            out[channel] = np.sin(2 * np.pi * base * slightly + depth * inner)
        return out
    for shape, octave in zip(patch.shapes, patch.octaves, strict=True):
        for copy in range(patch.unison):
            offset = (copy / max(1, patch.unison - 1) - 0.5) if patch.unison > 1 else 0.0
            factor = 2.0 ** (octave + patch.detune * offset / 12.0)
            wave = oscillator(frequency * factor, count, shape, rng.random(), patch.seed)
            side = offset * (1.6 if copy % 2 else -1.6)
            out[0] += wave * np.float32(np.sqrt(0.5 * (1.0 - side)))
            out[1] += wave * np.float32(np.sqrt(0.5 * (1.0 + side)))
    return out / np.float32(np.sqrt(patch.unison * len(patch.shapes)))


def _envelope(hold: int, patch: Patch) -> np.ndarray:
    """Amplitude of a note over its hold and release."""
    tail = int(patch.release * SAMPLE_RATE)
    time = np.arange(hold, dtype=np.float32) / SAMPLE_RATE
    level = patch.sustain + (1.0 - patch.sustain) * np.exp(-time / np.float32(patch.decay))
    level *= np.minimum(1.0, time / np.float32(patch.attack))
    last = level[-1] if hold else 0.0
    fall = np.arange(tail, dtype=np.float32) / max(1, tail)
    ending = last * (1.0 - fall) * np.exp(-3.0 * fall)
    return np.concatenate([level, ending]).astype(np.float32)


def _together(
    out: np.ndarray, notes: Sequence[Note], patch: Patch, rng: np.random.Generator
) -> None:
    longest: dict[float, float] = {}
    for note in notes:
        longest[note.pitch] = max(longest.get(note.pitch, 0.0), note.duration)
    sounds: dict[float, np.ndarray] = {}
    for pitch, seconds in longest.items():
        count = int(seconds * SAMPLE_RATE) + int(patch.release * SAMPLE_RATE)
        frequency = 440.0 * 2.0 ** ((pitch - 69.0) / 12.0)
        sounds[pitch] = _voices(frequency, count, patch, rng)
    for note in notes:
        level = _envelope(int(note.duration * SAMPLE_RATE), patch)
        sound = sounds[note.pitch][:, : len(level)] * level
        effects.place(out, sound, note.start, 0.1 * loudness(note.velocity))


def _line(out: np.ndarray, notes: Sequence[Note], patch: Patch, rng: np.random.Generator) -> None:
    """One voice whose pitch glides from note to note and vibrates in long ones."""
    ordered = sorted(notes, key=lambda note: note.start)
    first = int(ordered[0].start * SAMPLE_RATE)
    last = int((ordered[-1].start + ordered[-1].duration + patch.release + 0.1) * SAMPLE_RATE)
    last = min(last, out.shape[-1])
    count = last - first
    if count <= 0:
        return
    pitch = np.full(count, float(ordered[0].pitch))
    level = np.zeros(count, np.float32)
    for index, note in enumerate(ordered):
        start = int(note.start * SAMPLE_RATE) - first
        if start >= count:
            break
        pitch[start:] = note.pitch
        after = ordered[index + 1].start if index + 1 < len(ordered) else np.inf
        hold = int(min(note.duration, after - note.start) * SAMPLE_RATE)
        shape = _envelope(hold, patch) * loudness(note.velocity)
        shape = shape[: count - start]
        np.maximum(level[start : start + len(shape)], shape, out=level[start : start + len(shape)])
        if note.vibrato:
            time = np.arange(min(hold, count - start)) / SAMPLE_RATE
            deep = note.vibrato * np.clip((time - 0.2) / 0.3, 0.0, 1.0)
            pitch[start : start + len(time)] += deep * np.sin(2 * np.pi * 5.4 * time)
    keep = np.exp(-3.0 / (patch.portamento * SAMPLE_RATE))
    pitch = signal.lfilter([1.0 - keep], [1.0, -keep], pitch - pitch[0]) + pitch[0]
    smooth = np.exp(-1.0 / (0.002 * SAMPLE_RATE))
    level = signal.lfilter([1.0 - smooth], [1.0, -smooth], level)
    frequency = 440.0 * np.exp2((pitch - 69.0) / 12.0)
    out[:, first:last] += 0.1 * _voices(frequency, count, patch, rng) * level.astype(np.float32)


def _movement(plan: Plan, notes: Sequence[Note], patch: Patch) -> np.ndarray:
    """Cutoff in octaves over 220 Hz, one value each 64 samples."""
    count = -(-plan.nb_timesteps // 64)
    time = np.arange(count) * 64.0 / SAMPLE_RATE
    cutoff = np.full(count, patch.cutoff)
    if patch.sweep:
        onsets = np.unique([round(note.start, 2) for note in notes])
        index = np.searchsorted(onsets, time + 0.005) - 1
        since = np.where(index >= 0, time - onsets[np.maximum(index, 0)], 10.0)
        cutoff += patch.sweep * np.exp(-np.maximum(since, 0.0) / patch.sweep_decay)
    if patch.wobble:
        period = patch.wobble_beats * plan.beat
        cutoff += patch.wobble * np.sin(2 * np.pi * time / period + patch.seed)
    return cutoff


def swept(audio: np.ndarray, cutoff: np.ndarray, resonance: float) -> np.ndarray:
    """Low pass whose cutoff moves, blended from filters of fixed cutoffs.

    Parameters
    ----------
    cutoff : ndarray
        Octaves over 220 Hz, one value each 64 samples.
    """
    grid = np.log2(np.array(_CUTOFFS) / _CUTOFFS[0])
    time = np.arange(audio.shape[-1]) / 64.0
    moving = np.interp(time, np.arange(len(cutoff)), np.clip(cutoff, grid[0], grid[-1]))
    out = np.zeros_like(audio)
    for index, frequency in enumerate(_CUTOFFS):
        weight = np.interp(moving, grid, np.eye(len(grid))[index]).astype(np.float32)
        if weight.max() <= 0.0:
            continue
        sections = np.concatenate([_lowpass(frequency, resonance), _lowpass(frequency, 0.7)])
        out += weight * effects.filtered(audio, sections)
    return out


def _lowpass(frequency: float, q: float) -> np.ndarray:
    """Second-order section of a resonant low pass."""
    w = 2.0 * np.pi * frequency / SAMPLE_RATE
    cos, alpha = np.cos(w), np.sin(w) / (2.0 * q)
    b = np.array([(1 - cos) / 2, 1 - cos, (1 - cos) / 2])
    a = np.array([1 + alpha, -2 * cos, 1 - alpha])
    return np.array([[*b, *a]]) / a[0]


def riser(plan: Plan, section: Section, rng: np.random.Generator) -> np.ndarray:
    """Noise that opens towards the section's end, or closes after its beginning."""
    out = plan.silence()
    bars = min(section.nb_bars, int(rng.choice((1, 2, 4))))
    seconds = bars * 4 * plan.beat
    rising = rng.random() < 0.7
    start = plan.seconds(section.first_bar + (section.nb_bars - bars if rising else 0))
    count = int(seconds * SAMPLE_RATE)
    noise = rng.standard_normal((2, count)).astype(np.float32)
    way = np.linspace(0.0, 1.0, -(-count // 64))
    way = way if rising else (1.0 - way) ** 2
    noise = swept(noise, 0.5 + 5.0 * way, rng.uniform(0.8, 3.0))
    level = np.repeat(way**1.5, 64)[:count].astype(np.float32)
    noise = effects.highpass(noise * level, rng.uniform(200, 800))
    effects.place(out, effects.faded(noise, 0.05, 0.03), start, 0.1)
    return out
