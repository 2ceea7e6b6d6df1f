"""Recorded singing, growling and speech, cut into phrases and set on the beats of a song."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..studio import effects
from ..studio.plan import SAMPLE_RATE, Plan, Section
from ..studio.sources import Library
from . import vocoder

_HOP = 441
_LONGEST = 8.0


@dataclass(frozen=True)
class Take:
    """A phrase of a recording, from and to in seconds."""

    path: Path
    start: float
    stop: float

    def sound(self, library: Library) -> np.ndarray:
        """The phrase at an even level, with short fades."""
        stored = library.stored(self.path)
        first, last = int(self.start * SAMPLE_RATE), int(self.stop * SAMPLE_RATE)
        audio = stored[:, first:last].astype(np.float32) / np.float32(32767.0)
        return effects.faded(effects.normalise(audio), 0.01, 0.03)


def levels(audio: np.ndarray) -> np.ndarray:
    """Level in dB of each 10 ms."""
    count = audio.shape[-1] // _HOP
    pieces = audio[..., : count * _HOP].astype(np.float32).reshape(len(audio), count, _HOP)
    return np.asarray(10.0 * np.log10(np.mean(pieces**2, axis=(0, 2)) + 1e-3))


def phrases(library: Library, path: Path, depth: float = 30.0) -> list[Take]:
    """Cut a recording where it is `depth` dB under its loud parts; long phrases where softest."""
    level = levels(library.stored(path))
    loud = level > np.percentile(level, 95) - depth
    edges = np.flatnonzero(np.diff(np.concatenate([[0], loud.astype(np.int8), [0]])))
    runs: list[list[int]] = []
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        if runs and begin - runs[-1][1] < 14:
            runs[-1][1] = int(end)
        else:
            runs.append([int(begin), int(end)])
    out = []
    while runs:
        begin, end = runs.pop(0)
        if end - begin > 100 * _LONGEST:
            third = (end - begin) // 3
            middle = begin + third + int(np.argmin(level[begin + third : end - third]))
            runs[:0] = [[begin, middle], [middle, end]]
        elif end - begin > 50:
            stop = min(0.01 * end + 0.06, 0.01 * len(level))
            out.append(Take(path, max(0.01 * begin - 0.03, 0.0), stop))
    return out


def voiced(library: Library, take: Take) -> float:
    """Share of a phrase in which there is a pitch, by the cached analysis of its recording."""
    f0 = pitches(library, take)
    return float(np.mean(f0 > 0)) if len(f0) else 0.0


def pitches(library: Library, take: Take) -> np.ndarray:
    """Fundamental frequency every 5 ms, 0 without voice."""
    voice = vocoder.frames(library, take.path)
    return voice.f0[int(take.start / vocoder.HOP) : int(take.stop / vocoder.HOP)]


def shift_into(plan: Plan, f0: np.ndarray, most: float = 3.0) -> float:
    """Semitones by which a melody must be shifted to fit the key best."""
    sung = f0[f0 > 0]
    if len(sung) < 20:
        return 0.0
    pitch = 69.0 + 12.0 * np.log2(sung / 440.0)
    scale = np.array(plan.scale, float)
    best, chosen = -np.inf, 0.0
    for shift in np.arange(-most, most + 0.01, 0.25):
        distance = np.abs((pitch[:, None] + shift - scale + 6.0) % 12.0 - 6.0).min(axis=1)
        fit = float(np.mean(np.exp(-((distance / 0.3) ** 2)))) - 0.01 * abs(shift)
        if fit > best:
            best, chosen = fit, float(shift)
    return chosen


def setting(
    plan: Plan,
    section: Section,
    sounds: Sequence[tuple[float, np.ndarray]],
    rng: np.random.Generator,
    rest: float = 1.0,
) -> list[tuple[float, np.ndarray]]:
    """Set phrases on the beats of a section, with pauses.

    Parameters
    ----------
    sounds : sequence of tuple of float and ndarray
        Seconds from the beginning of a phrase to its first stress, and its sound.
    rest : float
        Beats of pause between phrases, at least.

    Returns
    -------
    list of tuple of float and ndarray
        Second at which each begins, and the sound.
    """
    begin, end = plan.seconds(section.first_bar), plan.seconds(section.first_bar + section.nb_bars)
    beat = plan.beat * float(rng.choice((0.0, 0.0, 1.0)))
    now, out = begin + beat, []
    for lead_in, sound in sounds:
        if now > end - 1.0:
            break
        out.append((max(now - lead_in, 0.0), sound[:, : int((end - now + 0.1) * SAMPLE_RATE)]))
        over = now + sound.shape[-1] / SAMPLE_RATE + rest * plan.beat * rng.uniform(0.3, 1.5)
        # The next phrase begins with a beat, mostly one of the heavy ones.
        grid = plan.beat * float(rng.choice((1.0, 1.0, 2.0, 2.0)))
        now = begin + np.ceil((over - begin) / grid) * grid
    return out


def first_stress(sound: np.ndarray) -> float:
    """Seconds until a phrase is first nearly as loud as it becomes."""
    level = levels(sound * np.float32(32767.0))
    if not len(level):
        return 0.0
    return float(min(0.01 * int(np.argmax(level > np.percentile(level, 90) - 8.0)), 0.35))
