"""Voices taken apart and put together anew by WORLD: speech becomes song.

After M. Morise, F. Yokomori and K. Ozawa, "WORLD: a vocoder-based high-quality speech synthesis
system for real-time applications" (2016), and, for what makes speech sound sung, T. Saitou and
others, "Speech-to-singing synthesis" (2007). A recording is analysed once; see `frames`.
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
from .melody import Tone

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
        np.ascontiguousarray(f0, np.float64),
        envelope,
        aperiodicity,
        SAMPLE_RATE,
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


def sing(
    voice: Frames,
    words: Sequence[Syllable],
    phrase: Sequence[Tone],
    timbre: Timbre,
    rng: np.random.Generator,
    breath: bool = False,
    spoken: float = 0.0,
) -> tuple[float, np.ndarray]:
    """Sing a phrase.

    Parameters
    ----------
    voice : Frames
        Speech.
    words : sequence of Syllable
        In the order in which they are sung; they are repeated if there are too few.
    phrase : sequence of Tone
    timbre : Timbre
    rng : Generator
        Of what no singer does twice alike.
    breath : bool
        Whether to breathe in before.
    spoken : float
        Share of the speaker's own intonation, 1 for speech in rhythm.

    Returns
    -------
    tuple of float and ndarray [shape=(1, nb_timesteps)]
        Second at which the sound begins, and the sound.
    """
    times, places, holds = _alignment(words, phrase)
    lead_in = float(rng.uniform(0.35, 0.6)) if breath else 0.02
    start = times[0] - lead_in
    count = int((times[-1] - start) / HOP) + 1
    time = start + HOP * np.arange(count)
    taken_at = np.interp(time, times, places)
    frames_ = taken(voice, taken_at)
    own = frames_.f0 > 0
    held = np.zeros(count, bool)
    for begin, end in holds:
        held |= (time >= begin) & (time < end)
    inside = time >= times[0]
    voiced = ndimage.binary_opening((own | held) & inside, np.ones(3)) & inside
    pitch = _intonation(time, phrase, timbre, rng)
    if spoken > 0:
        own_pitch = _filled(frames_.f0)
        moved = own_pitch - np.median(own_pitch)
        pitch = (1.0 - spoken) * pitch + spoken * (phrase[0].pitch + moved)
    f0 = np.where(voiced, 440.0 * 2.0 ** ((pitch - 69.0) / 12.0), 0.0)
    gain = _dynamics(time, frames_, voiced, phrase, timbre, rng)
    gain[~inside] = -90.0
    if breath:
        frames_, gain = _with_breath(voice, words[0], frames_, gain, lead_in, rng)
    end = min(int(0.05 / HOP), count)
    gain[-end:] += np.linspace(0.0, -40.0, end)
    return start, synthesise(frames_, f0, gain, timbre)


def _alignment(
    words: Sequence[Syllable], phrase: Sequence[Tone]
) -> tuple[np.ndarray, np.ndarray, list[tuple[float, float]]]:
    """Seconds and the frames that sound at them, and where vowels are held.

    Consonants keep their length as far as the tones leave room; vowels begin with the tones.
    """
    groups: list[list[Tone]] = []
    for tone in phrase:
        if tone.tied and groups:
            groups[-1].append(tone)
        else:
            groups.append([tone])
    starts = [group[0].start for group in groups]
    stops = [group[-1].start + group[-1].duration for group in groups]
    times: list[float] = []
    places: list[float] = []
    holds = []
    for index, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        word = words[index % len(words)]
        after = words[(index + 1) % len(words)]
        onset = HOP * (word.vowel - word.begin)
        coda = HOP * (word.end - word.close)
        onset = min(onset, 0.45 * (start - starts[index - 1]) if index else 0.25)
        # Where this syllable must be over.
        if index + 1 < len(groups) and starts[index + 1] - stop < 0.12:
            follows = HOP * (after.vowel - after.begin)
            over = starts[index + 1] - min(follows, 0.45 * (starts[index + 1] - start))
        else:
            over = stop
        coda = min(coda, 0.35 * max(over - start, 0.02))
        times += [start - onset, start, over - coda, over - 1e-3]
        places += [word.begin, word.vowel, word.close, word.end]
        holds.append((start, over - coda))
    ordered = np.maximum.accumulate(np.array(times) + 1e-6 * np.arange(len(times)))
    return ordered, np.array(places, float), holds


def _intonation(
    time: np.ndarray, phrase: Sequence[Tone], timbre: Timbre, rng: np.random.Generator
) -> np.ndarray:
    """MIDI pitch over time: glides, overshoot, late vibrato, drift and jitter."""
    count = len(time)
    starts = np.array([tone.start for tone in phrase])
    pitches = np.array([tone.pitch for tone in phrase], float)
    corrected = timbre.glide < 0.03
    index = np.clip(np.searchsorted(starts - 0.5 * timbre.glide, time, "right") - 1, 0, None)
    if not corrected:
        pitches = pitches + rng.normal(0.0, 0.1, len(pitches))
    pitch = pitches[index]
    scoops = np.zeros(count)
    swings = np.zeros(count)
    for place, tone in enumerate(phrase):
        since = time - tone.start
        if not tone.tied and (place == 0 or rng.random() < 0.3):
            depth, slow = rng.uniform(0.3, 2.2), rng.uniform(0.03, 0.11)
            scoops -= depth * np.exp(-np.maximum(since + 0.06, 0) / slow) * (since > -0.2)
        if tone.duration > 0.32 and timbre.vibrato > 0 and rng.random() < 0.85:
            begin = min(timbre.onset * rng.uniform(0.6, 1.6), 0.45 * tone.duration)
            rate = timbre.rate * rng.uniform(0.93, 1.07)
            deep = timbre.vibrato / 100.0 * rng.uniform(0.6, 1.4)
            rising = np.clip((since - begin) / 0.3, 0.0, 1.0)
            ending = np.clip((tone.duration - since) / 0.08, 0.0, 1.0)
            speed = 2.0 * np.pi * rate * (1.0 + 0.05 * since)
            swings += deep * rising * ending * np.sin(speed * (since - begin))
    if rng.random() < 0.25:
        # Let fall at the end.
        late = np.maximum(time - (phrase[-1].start + phrase[-1].duration - 0.15), 0.0)
        scoops -= rng.uniform(4.0, 20.0) * late
    width = timbre.glide / HOP / 2.5
    # Two smoothings of unlike width overshoot a little.
    smooth = ndimage.gaussian_filter1d(pitch, width)
    smooth += 0.12 * (smooth - ndimage.gaussian_filter1d(smooth, 2.2 * width))
    drift = ndimage.gaussian_filter1d(rng.standard_normal(count), 30.0) * 0.10 * np.sqrt(60.0)
    jitter = ndimage.gaussian_filter1d(rng.standard_normal(count), 1.5) * 0.05
    if corrected:
        return np.asarray(smooth + 0.5 * swings + 0.2 * drift + jitter)
    return np.asarray(smooth + scoops + swings + 1.8 * drift + jitter)


def _dynamics(
    time: np.ndarray,
    voice: Frames,
    voiced: np.ndarray,
    phrase: Sequence[Tone],
    timbre: Timbre,
    rng: np.random.Generator,
) -> np.ndarray:
    """Gain in dB: speech's ups and downs evened out, tones shaped."""
    loud = np.percentile(voice.level[voiced], 80) if voiced.any() else voice.level.max()
    level = ndimage.gaussian_filter1d(voice.level, 4.0)
    evened = np.clip(timbre.evenness * (loud - level), -6.0, 9.0)
    gain = np.where(voiced, evened, np.clip(0.3 * (loud - 12.0 - level), -6.0, 3.0))
    gain = ndimage.gaussian_filter1d(gain, 2.0)
    begin, end = phrase[0].start, phrase[-1].start + phrase[-1].duration
    arch = np.clip((time - begin) / max(end - begin, 0.1), 0.0, 1.0)
    gain += rng.uniform(0.0, 2.5) * np.sin(np.pi * arch) + rng.uniform(-2.0, 1.0) * arch
    for tone in phrase:
        since = (time - tone.start) / max(tone.duration, 0.05)
        within = (since >= 0.0) & (since < 1.0)
        gain[within] += rng.normal(0.0, 0.7) - rng.uniform(0.0, 3.0) * since[within] ** 2
    sway = ndimage.gaussian_filter1d(rng.standard_normal(len(time)), 8.0) * 3.0
    release = np.clip((time - (end - rng.uniform(0.06, 0.2))) / 0.2, 0.0, 1.0)
    # Pauses of the speaker, and what hisses in them.
    floor = np.percentile(voice.level, 98) - 45.0
    quiet = np.clip(floor - voice.level, 0.0, 30.0)
    return np.asarray(ndimage.gaussian_filter1d(gain + 0.5 * sway - 10.0 * release, 1.5) - quiet)


def _with_breath(
    voice: Frames,
    word: Syllable,
    sung: Frames,
    gain: np.ndarray,
    seconds: float,
    rng: np.random.Generator,
) -> tuple[Frames, np.ndarray]:
    """Noise through the shape of the first vowel, rising and cut off."""
    count = max(int((seconds - 0.08) / HOP), 2)
    middle = (word.vowel + word.close) // 2
    envelope = sung.envelope.copy()
    envelope[:count] = voice.envelope[middle]
    # Less of the formants, more of the air.
    envelope[:count, 1:] *= 0.55
    shape = np.linspace(0.0, 1.0, count)
    gain = gain.copy()
    curve = 14.0 * np.sqrt(np.sin(np.pi * shape**0.8) + 1e-4) - 14.0
    gain[:count] = rng.uniform(-34.0, -24.0) + curve
    return Frames(sung.f0, sung.level, sung.aperiodicity, envelope), gain


def _filled(f0: np.ndarray) -> np.ndarray:
    """MIDI pitch of an f0, straight lines through voiceless parts."""
    found = np.flatnonzero(f0 > 0)
    if not len(found):
        return np.full(len(f0), 57.0)
    pitch = 69.0 + 12.0 * np.log2(f0[found] / 440.0)
    return np.asarray(np.interp(np.arange(len(f0)), found, pitch))


def retuned(
    voice: Frames,
    semitones: float,
    stretch: float,
    timbre: Timbre,
    scale: Sequence[int] = (),
    strength: float = 0.8,
) -> np.ndarray:
    """The same performance by another singer, at another pitch and pace.

    Parameters
    ----------
    semitones : float
        By how much it is shifted.
    stretch : float
        Factor of its length.
    scale : sequence of int
        Pitch classes towards which it is corrected; none leaves it as it is.
    strength : float
        Share of the error that is taken away.

    Returns
    -------
    ndarray [shape=(1, nb_timesteps)], float32
    """
    places = np.arange(int(len(voice.f0) * stretch)) / stretch
    moved = taken(voice, places)
    pitch = _filled(moved.f0) + semitones
    if len(scale):
        slow = ndimage.median_filter(pitch, 31)
        wanted = np.array([p for p in range(20, 110) if p % 12 in set(scale)], float)
        target = wanted[np.argmin(np.abs(slow[:, None] - wanted), axis=1)]
        error = target - slow
        if timbre.glide >= 0.01:
            error = ndimage.gaussian_filter1d(error, timbre.glide / HOP / 2.0)
        pitch = pitch + strength * error
    f0 = np.where(moved.f0 > 0, 440.0 * 2.0 ** ((pitch - 69.0) / 12.0), 0.0)
    floor = np.percentile(moved.level, 98) - 45.0
    gain = -np.clip(floor - moved.level, 0.0, 30.0)
    return synthesise(moved, f0, gain, timbre)


def vowel(
    voice: Frames,
    word: Syllable,
    pitch: float,
    seconds: float,
    timbre: Timbre,
    rng: np.random.Generator,
) -> np.ndarray:
    """One held vowel, as choirs sing it, shape ``(1, nb_timesteps)``."""
    count = max(int(seconds / HOP), 12)
    turn = 0.5 - 0.5 * np.cos(np.pi * np.arange(count) / max(count - 1, 1))
    middle, half = 0.5 * (word.vowel + word.close), 0.25 * (word.close - word.vowel)
    held = taken(voice, middle + half * (2.0 * turn - 1.0))
    tone = Tone(0.0, seconds, pitch)
    line = _intonation(HOP * np.arange(count), [tone], timbre, rng)
    f0 = 440.0 * 2.0 ** ((line - 69.0) / 12.0)
    attack = min(rng.uniform(0.05, 0.3), 0.3 * seconds)
    time = HOP * np.arange(count)
    rising = np.clip(time / attack, 1e-4, 1.0)
    falling = np.clip((time[-1] - time) / min(0.3, 0.3 * seconds), 1e-4, 1.0)
    level = np.median(held.level)
    gain = 20.0 * np.log10(np.sin(0.5 * np.pi * rising) * np.sin(0.5 * np.pi * falling))
    gain = np.maximum(gain, -70.0) + 0.8 * (level - held.level)
    return synthesise(held, f0, gain, timbre)


def _pyworld() -> ModuleType:
    """The package, imported where it is needed: the rest works without it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("pyworld")
