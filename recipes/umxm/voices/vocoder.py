"""Voices taken apart and put together anew by WORLD.

After M. Morise, F. Yokomori and K. Ozawa, "WORLD: a vocoder-based high-quality speech synthesis
system for real-time applications" (2016). A recording is analysed once; see `frames`.
"""

from __future__ import annotations

import importlib
import itertools
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import ModuleType

import numpy as np
from scipy import ndimage, signal

from ..studio.plan import SAMPLE_RATE
from ..studio.sources import Library
from .bodies import Timbre

# Seconds between frames.
HOP = 0.005
_ENVELOPE_SIZE = 60
# Half of what is usual here: a voice needs no longer responses, and sings twice as fast.
_FFT_SIZE = 1024
_BANDS = 5
# Columns of an analysis: f0, level, aperiodicity, envelope; what full scale stands for in each.
_SCALES = np.array([2000.0, 120.0] + [120.0] * _BANDS + [60.0] * _ENVELOPE_SIZE)
_PIECE = 30.0
# Frames: longest consonants before and after a vowel, least and greatest steady centre.
_ONSET, _CODA, _STEADY = 44, 30, (4, 30)
# Logarithm of a power per dB.
_NEPER = np.log(10.0) / 10.0
# Noise in the lowest band, in dB, over which a frame has no voice.
_VOICELESS = -0.05
_FREQUENCIES = np.arange(_FFT_SIZE // 2 + 1) * (SAMPLE_RATE / _FFT_SIZE)


@dataclass(frozen=True)
class Frames:
    """What WORLD found, one row for each `HOP` of time.

    Attributes
    ----------
    f0 : ndarray [shape=(nb_frames,)]
        Hz, 0 where there is no voice.
    level : ndarray [shape=(nb_frames,)]
        dB.
    aperiodicity, envelope : ndarray
        Coded by pyworld.
    """

    f0: np.ndarray
    level: np.ndarray
    aperiodicity: np.ndarray
    envelope: np.ndarray

    def cut(self, first: int, last: int) -> Frames:
        """Some of the frames."""
        kept = slice(max(first, 0), last)
        return Frames(self.f0[kept], self.level[kept], self.aperiodicity[kept], self.envelope[kept])


@dataclass(frozen=True)
class Syllable:
    """Places in frames: begin, steady centre of the vowel from and to, end."""

    begin: int
    vowel: int
    close: int
    end: int


def analyse(audio: np.ndarray) -> np.ndarray:
    """Take a recording apart.

    Parameters
    ----------
    audio : ndarray [shape=(nb_timesteps,)]
        One voice at 44.1 kHz.

    Returns
    -------
    ndarray [shape=(nb_frames, 67)], float32
        Columns divided by what full scale stands for, so that 16 bit can hold them.
    """
    pyworld = _pyworld()
    audio = np.asarray(audio, np.float64)
    audio = audio * (0.08 / (np.sqrt(np.mean(audio**2)) + 1e-9))
    rows, size = [], int(_PIECE * SAMPLE_RATE)
    for start in range(0, len(audio), size):
        piece = np.ascontiguousarray(audio[start : start + size])
        if len(piece) < 0.1 * SAMPLE_RATE:
            break
        f0, time = pyworld.harvest(piece, SAMPLE_RATE, f0_floor=70.0, f0_ceil=800.0)
        f0 = pyworld.stonemask(piece, f0, time, SAMPLE_RATE)
        envelope = pyworld.cheaptrick(piece, f0, time, SAMPLE_RATE)
        aperiodicity = pyworld.d4c(piece, f0, time, SAMPLE_RATE)
        level = 10.0 * np.log10(envelope.mean(axis=1) + 1e-12)
        coded = pyworld.code_spectral_envelope(envelope, SAMPLE_RATE, _ENVELOPE_SIZE)
        bands = pyworld.code_aperiodicity(aperiodicity, SAMPLE_RATE)
        last = len(f0) if start + size >= len(audio) else round(_PIECE / HOP)
        rows.append(np.column_stack([f0, level, bands, coded])[:last])
    return np.asarray(np.concatenate(rows) / _SCALES, np.float32)


@lru_cache(maxsize=2)
def frames(library: Library, path: Path) -> Frames:
    """The analysis of a recording (its middle, if stereo), from the cache if it is there."""

    def make() -> np.ndarray:
        return analyse(library.load(path).mean(axis=0))

    return decoded(library.made(f"world 1 {path.relative_to(library.audio)}", make))


def decoded(coded: np.ndarray) -> Frames:
    """Frames of what `analyse` returned, in 16 bit."""
    table = coded.astype(np.float64) / 32767.0 * _SCALES
    bands = 2 + _BANDS
    f0 = np.where((table[:, 0] > 40.0) & (table[:, 2] < _VOICELESS), table[:, 0], 0.0)
    return Frames(f0, table[:, 1], table[:, 2:bands], table[:, bands:])


def joined(parts: Sequence[Frames]) -> Frames:
    """Frames one after another."""
    return Frames(
        np.concatenate([part.f0 for part in parts]),
        np.concatenate([part.level for part in parts]),
        np.concatenate([part.aperiodicity for part in parts]),
        np.concatenate([part.envelope for part in parts]),
    )


def syllables(voice: Frames) -> list[Syllable]:
    """Find the vowels of speech and what stands before and after each."""
    level = ndimage.gaussian_filter1d(voice.level, 3.0)
    voiced = ndimage.binary_opening(voice.f0 > 0, np.ones(5))
    heard = np.where(voiced, level, level.min())
    top = np.percentile(level, 97)
    peaks, _ = signal.find_peaks(heard, height=top - 22.0, distance=22, prominence=2.0)
    if not len(peaks):
        return []
    loud = np.flatnonzero(level > top - 38.0)
    borders = [max(int(loud[0]) - 2, 0)]
    for left, right in itertools.pairwise(peaks):
        borders.append(int(left + np.argmin(level[left:right])))
    borders.append(min(int(loud[-1]) + 3, len(level)))
    out = []
    for place, begin, end in zip(peaks, borders[:-1], borders[1:], strict=True):
        steady = voiced & (heard > heard[place] - 4.0)
        vowel, close = int(place), int(place)
        while vowel > begin and steady[vowel - 1] and place - vowel < _STEADY[1]:
            vowel -= 1
        while close < end - 1 and steady[close + 1] and close - place < _STEADY[1]:
            close += 1
        if close - vowel >= _STEADY[0]:
            begin = max(begin, vowel - _ONSET)
            out.append(Syllable(begin, vowel, close, min(end, close + _CODA)))
    return out


def synthesise(voice: Frames, f0: np.ndarray, gain: np.ndarray, timbre: Timbre) -> np.ndarray:
    """Sound of some frames.

    Parameters
    ----------
    voice : Frames
        Envelopes and aperiodicities.
    f0 : ndarray [shape=(nb_frames,)]
        Hz, 0 for voiceless sound.
    gain : ndarray [shape=(nb_frames,)]
        dB.

    Returns
    -------
    ndarray [shape=(1, nb_timesteps)], float32
    """
    pyworld = _pyworld()
    shapes, mean, bands, floor = _decoder()
    place = timbre.source(_FREQUENCIES) / SAMPLE_RATE * _FFT_SIZE
    place = np.minimum(place, shapes.shape[1] - 1.001)
    reach = timbre.top / SAMPLE_RATE * _FFT_SIZE
    over = np.maximum(place - reach, 0.0) * (SAMPLE_RATE / _FFT_SIZE)
    place = np.minimum(place, reach)
    first = place.astype(np.int64)
    part = place - first
    shapes = shapes[:, first] * (1.0 - part) + shapes[:, first + 1] * part
    mean = mean[first] * (1.0 - part) + mean[first + 1] * part
    # What the recording lacks at the top falls by 0.6 dB a kHz; rumble under a voice is no voice.
    mean = mean - _NEPER * (0.0006 * over + 13.0 * (_FREQUENCIES < 60.0))
    voiced = f0 > 0
    # Decoding, gain and curve are sums of logarithms: one product does them all.
    rows = np.column_stack([voice.envelope, _NEPER * gain, _NEPER * voiced])
    columns = np.vstack([shapes, np.ones((1, shapes.shape[1])), timbre.curve(_FREQUENCIES)])
    envelope = np.exp(_product(rows, columns, mean)).astype(np.float64) + 1e-14
    noise = voice.aperiodicity * timbre.clarity * (1.0 - timbre.breath)
    aperiodicity = np.exp(_product(np.minimum(noise, -1e-3), bands, floor)).astype(np.float64)
    np.clip(aperiodicity, 1e-3, 0.9999, out=aperiodicity)
    aperiodicity[~voiced] = 1.0
    audio = pyworld.synthesize(
        np.ascontiguousarray(f0, np.float64), envelope, aperiodicity, SAMPLE_RATE
    )
    if timbre.rasp > 0:
        audio = audio * _rasp(f0, len(audio), timbre.rasp)
    return np.asarray(audio[None], np.float32)


def _rasp(f0: np.ndarray, count: int, depth: float) -> np.ndarray:
    """Factor over time that weakens every second pulse, now more, now less."""
    pitch = np.interp(np.arange(count) / (HOP * SAMPLE_RATE), np.arange(len(f0)), f0)
    cycles = np.cumsum(pitch) / SAMPLE_RATE
    # Some hundreds of cycles from more to less.
    sway = 0.6 + 0.4 * np.sin(0.03 * cycles)
    wave = np.sin(np.pi * cycles)
    return np.asarray(1.0 + depth * sway * np.minimum(pitch / 80.0, 1.0) * wave)


@lru_cache(maxsize=1)
def _decoder() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """WORLD's decoding as matrices: logarithms of envelope and aperiodicity are affine in codes."""
    pyworld = _pyworld()
    rate, size = SAMPLE_RATE, _FFT_SIZE
    zero = np.log(pyworld.decode_spectral_envelope(np.zeros((1, _ENVELOPE_SIZE)), rate, size))
    shapes = np.log(pyworld.decode_spectral_envelope(np.eye(_ENVELOPE_SIZE), rate, size)) - zero
    level = np.full((1, _BANDS), -1.0)
    low = np.log(pyworld.decode_aperiodicity(level, rate, size))
    lower = np.log(pyworld.decode_aperiodicity(level - np.eye(_BANDS), rate, size))
    bands = low - lower
    return shapes, zero[0], bands, (low + bands.sum(axis=0))[0]


def _product(rows: np.ndarray, columns: np.ndarray, added: np.ndarray) -> np.ndarray:
    product = rows.astype(np.float32) @ columns.astype(np.float32)
    return np.asarray(product + added.astype(np.float32))


def taken(voice: Frames, places: np.ndarray) -> Frames:
    """Frames at any places, interpolated; voiced as the nearest."""
    places = np.clip(places, 0.0, len(voice.f0) - 1.001)
    first = places.astype(np.int64)
    part = (places - first)[:, None]

    def between(table: np.ndarray) -> np.ndarray:
        return np.asarray(table[first] * (1.0 - part) + table[first + 1] * part)

    f0 = voice.f0[np.rint(places).astype(np.int64)]
    level = between(voice.level[:, None])[:, 0]
    return Frames(f0, level, between(voice.aperiodicity), between(voice.envelope))


def _pyworld() -> ModuleType:
    """The package, imported where it is needed: the rest works without it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("pyworld")
