"""The studio: what happens to a sound between the instrument and the mix.

Waveforms are float32 arrays of shape ``(nb_channels, nb_timesteps)``; nothing is modified in place.
Levels are in dB, frequencies in Hz, times in seconds.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyloudnorm
from scipy import ndimage, signal

from .plan import SAMPLE_RATE

# Samples over which a gain that moves is worked out.
HOP = 64


def decibels(level: float) -> float:
    """Factor of a level in dB."""
    return float(10.0 ** (level / 20.0))


def rms(audio: np.ndarray) -> float:
    """Root of the mean square over the 0.1 s pieces less than 50 dB under the loudest."""
    size = SAMPLE_RATE // 10
    count = audio.shape[-1] // size
    if count == 0:
        return float(np.sqrt(np.mean(np.square(audio, dtype=np.float64)) + 1e-20))
    pieces = audio[..., : count * size].reshape(len(audio), count, size)
    power = np.mean(np.square(pieces, dtype=np.float64), axis=(0, 2))
    loud = power[power > 1e-5 * power.max()] if power.max() > 0 else power
    return float(np.sqrt(loud.mean() + 1e-20))


def normalise(audio: np.ndarray, level: float = -20.0) -> np.ndarray:
    """Scale to a level of the parts that sound; silence stays silence."""
    now = rms(audio)
    return audio * np.float32(decibels(level) / now) if now > 1e-6 else audio


@lru_cache(maxsize=1)
def _meter() -> pyloudnorm.Meter:
    return pyloudnorm.Meter(SAMPLE_RATE)


def loudness(audio: np.ndarray) -> float:
    """How loud people hear a sound: LUFS of ITU-R BS.1770-4, which passes over its pauses.

    Minus infinity for silence, and for what is shorter than the 0.4 s that the measure needs.
    """
    if audio.shape[-1] < 0.4 * SAMPLE_RATE:
        return -np.inf
    return float(_meter().integrated_loudness(audio.T))


def biquad(kind: str, frequency: float, gain: float, q: float) -> np.ndarray:
    """Section of an equaliser, after R. Bristow-Johnson, "Cookbook formulae for audio EQ".

    Parameters
    ----------
    kind : str
        ``peak``, or a shelf: ``low`` or ``high``.
    gain : float
        dB.

    Returns
    -------
    ndarray [shape=(1, 6)]
        As SciPy's filters in second-order sections take it.
    """
    frequency = float(np.clip(frequency, 10.0, 0.47 * SAMPLE_RATE))
    w = 2.0 * np.pi * frequency / SAMPLE_RATE
    cos, alpha, a = np.cos(w), np.sin(w) / (2.0 * q), 10.0 ** (gain / 40.0)
    if kind == "peak":
        b = (1 + alpha * a, -2 * cos, 1 - alpha * a)
        d = (1 + alpha / a, -2 * cos, 1 - alpha / a)
    else:
        s = 1.0 if kind == "low" else -1.0
        root = 2.0 * np.sqrt(a) * alpha
        b = (
            a * ((a + 1) - s * (a - 1) * cos + root),
            s * 2 * a * ((a - 1) - s * (a + 1) * cos),
            a * ((a + 1) - s * (a - 1) * cos - root),
        )
        d = (
            (a + 1) + s * (a - 1) * cos + root,
            s * -2 * ((a - 1) + s * (a + 1) * cos),
            (a + 1) + s * (a - 1) * cos - root,
        )
    return np.array([[*b, *d]]) / d[0]


def filtered(audio: np.ndarray, sections: np.ndarray) -> np.ndarray:
    """Audio after second-order sections, float32."""
    return signal.sosfilt(sections, audio, axis=-1).astype(np.float32)


def peak(audio: np.ndarray, frequency: float, gain: float, q: float = 1.0) -> np.ndarray:
    """Raise or lower a band."""
    return filtered(audio, biquad("peak", frequency, gain, q))


def low_shelf(audio: np.ndarray, frequency: float, gain: float) -> np.ndarray:
    """Raise or lower what is under a frequency."""
    return filtered(audio, biquad("low", frequency, gain, 0.707))


def high_shelf(audio: np.ndarray, frequency: float, gain: float) -> np.ndarray:
    """Raise or lower what is over a frequency."""
    return filtered(audio, biquad("high", frequency, gain, 0.707))


def highpass(audio: np.ndarray, frequency: float, order: int = 2) -> np.ndarray:
    """Take away what is under a frequency."""
    return filtered(audio, signal.butter(order, frequency, "high", fs=SAMPLE_RATE, output="sos"))


def lowpass(audio: np.ndarray, frequency: float, order: int = 2) -> np.ndarray:
    """Take away what is over a frequency."""
    frequency = min(frequency, 0.47 * SAMPLE_RATE)
    return filtered(audio, signal.butter(order, frequency, "low", fs=SAMPLE_RATE, output="sos"))


def random_eq(audio: np.ndarray, rng: np.random.Generator, depth: float = 5.0) -> np.ndarray:
    """Tilt and colour as another microphone or engineer would: two shelves and two bands."""
    sections = [
        biquad("low", rng.uniform(80, 300), rng.uniform(-depth, depth), 0.707),
        biquad("high", rng.uniform(2500, 9000), rng.uniform(-depth, depth), 0.707),
    ]
    for _ in range(2):
        frequency = float(np.exp(rng.uniform(np.log(150), np.log(7000))))
        gain, q = rng.uniform(-depth, depth), rng.uniform(0.5, 2.0)
        sections.append(biquad("peak", frequency, gain, q))
    return filtered(audio, np.concatenate(sections))


def envelope(audio: np.ndarray) -> np.ndarray:
    """Largest magnitude of each `HOP` samples in any channel, shape ``(nb_hops,)``."""
    count = -(-audio.shape[-1] // HOP)
    padded = np.zeros(count * HOP, np.float32)
    padded[: audio.shape[-1]] = np.max(np.abs(audio), axis=0)
    return padded.reshape(count, HOP).max(axis=1)


def gain_over_time(gains: np.ndarray, nb_timesteps: int) -> np.ndarray:
    """Gain for each sample, without steps, of one for each `HOP` samples."""
    gain = np.repeat(gains, HOP)
    return ndimage.uniform_filter1d(gain, 2 * HOP + 1, mode="nearest")[:nb_timesteps]


def compress(
    audio: np.ndarray,
    threshold: float = -24.0,
    ratio: float = 4.0,
    attack: float = 0.005,
    release: float = 0.12,
    makeup: bool = True,
) -> np.ndarray:
    """Feed-forward compressor on the louder channel, its gain worked out every 64 samples.

    Parameters
    ----------
    threshold : float
        dB relative to the loud parts' root mean square plus 12 dB, so that it acts on any input.
    """
    level = 20.0 * np.log10(envelope(audio) + 1e-7)
    level -= 20.0 * np.log10(rms(audio) + 1e-7) + 12.0
    over = np.maximum(level - threshold, 0.0) * (1.0 - 1.0 / ratio)
    # Attack: the largest reduction soon to come, smoothed; release: one pole.
    step = np.exp(-HOP / (SAMPLE_RATE * release))
    reduction = signal.lfilter([1.0 - step], [1.0, -step], over)
    ahead = max(1, int(attack * SAMPLE_RATE / HOP))
    reduction = np.maximum(reduction, ndimage.uniform_filter1d(over, 2 * ahead + 1) * 0.7)
    gain = np.repeat((10.0 ** (-reduction / 20.0)).astype(np.float32), HOP)[: audio.shape[-1]]
    gain = ndimage.uniform_filter1d(gain, 2 * HOP + 1, mode="nearest")
    squeezed = audio * gain
    return squeezed * np.float32(rms(audio) / (rms(squeezed) + 1e-9)) if makeup else squeezed


def drive(audio: np.ndarray, amount: float, asymmetry: float = 0.0) -> np.ndarray:
    """Saturate, `amount` dB over where it begins; the level stays about the same."""
    level = rms(audio) + 1e-9
    pushed = audio * np.float32(decibels(amount) * 0.35 / level) + np.float32(asymmetry)
    driven = np.tanh(pushed) - np.float32(np.tanh(asymmetry))
    return (driven * np.float32(level / (rms(driven) + 1e-9))).astype(np.float32)


def softened(audio: np.ndarray, crest: float) -> np.ndarray:
    """Round the peaks that stand more than `crest` dB over the loud parts' root mean square."""
    ceiling = np.float32(rms(audio) * decibels(crest) + 1e-9)
    knee = np.float32(0.6) * ceiling
    over = np.maximum(np.abs(audio) - knee, 0.0)
    rounded = knee + (ceiling - knee) * np.tanh(over / (ceiling - knee))
    return np.where(over > 0, np.sign(audio) * rounded, audio).astype(np.float32)


def pan(audio: np.ndarray, position: float) -> np.ndarray:
    """Place in the stereo field, -1 left to 1 right.

    Mono becomes stereo, at constant power; of stereo the other side is turned down.
    """
    angle = (position + 1.0) * np.pi / 4.0
    if len(audio) == 1:
        return audio * np.array([[np.cos(angle)], [np.sin(angle)]], np.float32) * np.float32(1.414)
    left, right = min(1.0, 1.0 - position), min(1.0, 1.0 + position)
    return audio * np.array([[left], [right]], np.float32)


def width(audio: np.ndarray, amount: float) -> np.ndarray:
    """Scale the difference of the channels: 0 is mono, 1 leaves it alone."""
    middle = 0.5 * (audio[:1] + audio[1:])
    side = 0.5 * np.float32(amount) * (audio[:1] - audio[1:])
    return np.concatenate([middle + side, middle - side])


def stereo(audio: np.ndarray) -> np.ndarray:
    """Two channels from one or two."""
    return audio if len(audio) == 2 else np.repeat(audio, 2, axis=0)


def room(
    rng: np.random.Generator, seconds: float = 1.2, brightness: float = 6000.0, delay: float = 0.0
) -> np.ndarray:
    """Impulse response of a made-up room: early reflections and a decaying, darkening tail.

    Returns
    -------
    ndarray [shape=(2, nb_timesteps)], float32
        Of unit energy in each channel; without the direct sound.
    """
    count = int(seconds * 1.1 * SAMPLE_RATE)
    time = np.arange(count) / SAMPLE_RATE
    tail = rng.standard_normal((2, count)) * np.exp(-6.9 * time / seconds)
    bright = tail * np.exp(-9.0 * time / seconds)
    dark = signal.sosfilt(
        signal.butter(1, brightness * 0.4, fs=SAMPLE_RATE, output="sos"), tail, axis=-1
    )
    response = signal.sosfilt(
        signal.butter(1, brightness, fs=SAMPLE_RATE, output="sos"), bright + dark, axis=-1
    )
    response *= np.minimum(1.0, time / rng.uniform(0.002, 0.02))
    for _ in range(int(rng.integers(4, 12))):
        place = int(rng.uniform(0.003, 0.06) * SAMPLE_RATE)
        if place < count:
            response[:, place] += rng.uniform(-1, 1, 2) * 8.0 * np.exp(-place / SAMPLE_RATE * 30)
    response = signal.sosfilt(
        signal.butter(1, rng.uniform(80, 250), "high", fs=SAMPLE_RATE, output="sos"), response
    )
    response /= np.sqrt(np.sum(response**2, axis=-1, keepdims=True)) + 1e-12
    silence = np.zeros((2, int(delay * SAMPLE_RATE)))
    return np.concatenate([silence, response], axis=-1).astype(np.float32)


def reverb(audio: np.ndarray, response: np.ndarray, level: float) -> np.ndarray:
    """Add a room's answer at a level in dB relative to the dry sound; same length, stereo."""
    dry = stereo(audio)
    wet = signal.oaconvolve(dry, response, axes=-1)[:, : dry.shape[-1]]
    return (dry + wet * decibels(level)).astype(np.float32)


def echo(audio: np.ndarray, seconds: float, feedback: float, level: float) -> np.ndarray:
    """Repeats, each darker and on the other side."""
    dry = stereo(audio)
    step = max(1, int(seconds * SAMPLE_RATE))
    out, repeat, gain = dry.copy(), lowpass(dry, 4000.0, 1), decibels(level)
    for turn in range(1, 7):
        place = turn * step
        if gain < 0.01 or place >= dry.shape[-1]:
            break
        source = repeat[::-1] if turn % 2 else repeat
        out[:, place:] += np.float32(gain) * source[:, : dry.shape[-1] - place]
        gain *= feedback
    return out


def chorus(
    audio: np.ndarray, rng: np.random.Generator, depth: float = 0.002, rate: float = 0.8
) -> np.ndarray:
    """Add a copy whose delay sways, another in each channel."""
    dry = stereo(audio)
    count = dry.shape[-1]
    time = np.arange(count, dtype=np.float64)
    out = np.empty_like(dry)
    for channel in range(2):
        phase = rng.uniform(0, 2 * np.pi)
        sway = 1.0 + np.sin(2 * np.pi * rate * time / SAMPLE_RATE + phase)
        place = np.maximum(time - SAMPLE_RATE * (0.008 + depth * sway), 0.0)
        out[channel] = 0.7 * dry[channel] + 0.7 * np.interp(place, time, dry[channel])
    return out.astype(np.float32)


def respeed(audio: np.ndarray, factor: float) -> np.ndarray:
    """Play faster and higher (factor > 1) or slower and lower, as a tape does.

    Cubic interpolation after a low pass where it would alias.
    """
    if abs(factor - 1.0) < 1e-4:
        return audio
    if factor > 1.02:
        audio = lowpass(audio, 0.46 * SAMPLE_RATE / factor, 6)
    count = max(2, int(audio.shape[-1] / factor))
    place = np.arange(count, dtype=np.float64) * factor
    first = place.astype(np.int64)
    t = (place - first).astype(np.float32)
    last = audio.shape[-1] - 1
    a, b, c, d = (audio[:, np.clip(first + k, 0, last)] for k in (-1, 0, 1, 2))
    # Catmull-Rom.
    out = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return out.astype(np.float32)


def limit(audio: np.ndarray, ceiling: float = 0.98) -> np.ndarray:
    """Gain of a look-ahead limiter, shape ``(nb_timesteps,)``: multiply mix *and* stems by it."""
    need = np.minimum(1.0, ceiling / (envelope(audio) + 1e-9))
    need = ndimage.minimum_filter1d(need, 5)
    back = np.exp(-HOP / (SAMPLE_RATE * 0.08))
    gain, out = 1.0, np.empty(len(need))
    for index, value in enumerate(need):
        gain = min(value, 1.0 - (1.0 - gain) * back)
        out[index] = gain
    return gain_over_time(out, audio.shape[-1]).astype(np.float32)


def place(stem: np.ndarray, audio: np.ndarray, seconds: float, gain: float = 1.0) -> None:
    """Add a sound to a stem **in place**, from a time on; what sticks out is cut."""
    start = round(seconds * SAMPLE_RATE)
    if start < 0:
        audio, start = audio[:, -start:], 0
    count = min(audio.shape[-1], stem.shape[-1] - start)
    if count > 0:
        stem[:, start : start + count] += np.float32(gain) * audio[:, :count]


def faded(audio: np.ndarray, into: float = 0.002, out: float = 0.02) -> np.ndarray:
    """Copy with short fades at both ends, so that a cut does not click."""
    audio = audio.copy()
    for seconds, at_start in ((into, True), (out, False)):
        count = min(int(seconds * SAMPLE_RATE), audio.shape[-1])
        if count > 1:
            ramp = np.linspace(0.0, 1.0, count, dtype=np.float32)
            if at_start:
                audio[:, :count] *= ramp
            else:
                audio[:, -count:] *= ramp[::-1]
    return audio
