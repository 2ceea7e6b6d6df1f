"""Drums of drum machines, made from oscillators and noise; shape ``(1, nb_timesteps)``."""

from __future__ import annotations

import numpy as np
from scipy import signal

from ..studio import effects
from ..studio.plan import SAMPLE_RATE

# Frequencies of the six square oscillators of a well-known machine's cymbals.
_METAL = (205.3, 304.4, 369.6, 522.7, 540.0, 800.0)


def _time(seconds: float) -> np.ndarray:
    return np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def _noise(rng: np.random.Generator, count: int) -> np.ndarray:
    return rng.standard_normal(count)


def _band(audio: np.ndarray, low: float, high: float, order: int = 2) -> np.ndarray:
    sections = signal.butter(order, (low, high), "band", fs=SAMPLE_RATE, output="sos")
    return np.asarray(signal.sosfilt(sections, audio))


def _finished(audio: np.ndarray) -> np.ndarray:
    audio = audio / (np.abs(audio).max() + 1e-9)
    return effects.faded(audio[None].astype(np.float32), 0.0002, 0.02)


def kick(rng: np.random.Generator) -> np.ndarray:
    """A sine that falls to 40-65 Hz, with a click; from short and hard to long and booming."""
    seconds = float(rng.choice((0.25, 0.4, 0.7, 1.1), p=(0.3, 0.4, 0.2, 0.1)))
    time = _time(seconds)
    bottom, fall = rng.uniform(40, 65), rng.uniform(60, 400)
    speed = rng.uniform(25, 90)
    sweep = bottom + fall * np.exp(-speed * time)
    sweep += rng.uniform(0, 2500) * np.exp(-time * rng.uniform(300, 700))
    body = np.sin(2 * np.pi * np.cumsum(sweep) / SAMPLE_RATE)
    body *= np.exp(-time * (4.5 / seconds)) * np.minimum(1.0, time / 0.0007)
    click = effects.highpass(_noise(rng, len(time))[None], 1500.0)[0] * np.exp(-time * 500)
    mixed = body + rng.uniform(0, 0.35) * click
    pushed = rng.uniform(0.5, 4.0)
    return _finished(np.tanh(pushed * mixed))


def snare(rng: np.random.Generator) -> np.ndarray:
    """Two falling sines and filtered noise."""
    time = _time(rng.uniform(0.2, 0.5))
    root, decay = rng.uniform(150, 260), rng.uniform(14, 35)
    body = np.zeros(len(time))
    for ratio, gain in ((1.0, 1.0), (rng.uniform(1.5, 1.9), 0.6)):
        sweep = root * ratio * (1.0 + rng.uniform(0.1, 0.8) * np.exp(-time * 60))
        body += gain * np.sin(2 * np.pi * np.cumsum(sweep) / SAMPLE_RATE)
    body *= np.exp(-time * decay)
    noise = _band(_noise(rng, len(time)), rng.uniform(400, 2000), rng.uniform(7000, 16000))
    noise *= np.exp(-time * rng.uniform(8, 25))
    noise += _band(_noise(rng, len(time)), 3000, 14000) * np.exp(-time * 120)
    mixed = rng.uniform(0.3, 1.0) * body + rng.uniform(0.5, 1.2) * noise
    return _finished(np.tanh(rng.uniform(0.5, 3.0) * mixed))


def clap(rng: np.random.Generator) -> np.ndarray:
    """Some bursts of noise and a short tail."""
    time = _time(rng.uniform(0.25, 0.5))
    noise = _band(_noise(rng, len(time)), rng.uniform(600, 1000), rng.uniform(3000, 9000))
    envelope = np.zeros(len(time))
    place = 0.0
    for _ in range(int(rng.integers(3, 5))):
        envelope += np.where(time >= place, np.exp(-np.maximum(time - place, 0) * 200), 0.0)
        place += rng.uniform(0.007, 0.014)
    tail = np.where(time >= place, np.exp(-(time - place) * rng.uniform(9, 25)), 0.0)
    return _finished(np.tanh(1.5 * noise * (envelope + 0.7 * tail)))


def hat(rng: np.random.Generator, is_open: bool = False) -> np.ndarray:
    """Square oscillators or noise, high-passed; some of each."""
    time = _time(rng.uniform(0.4, 0.9) if is_open else rng.uniform(0.06, 0.16))
    tuning = rng.uniform(0.9, 2.0)
    metal = sum(signal.square(2 * np.pi * f * tuning * time) for f in _METAL)
    share = rng.uniform(0, 1)
    mixed = share * metal / 3.0 + (1 - share) * _noise(rng, len(time))
    mixed = _band(mixed, rng.uniform(5000, 8000), rng.uniform(14000, 19000))
    mixed *= np.exp(-time * (rng.uniform(5, 10) if is_open else rng.uniform(35, 90)))
    return _finished(mixed)


def crash(rng: np.random.Generator) -> np.ndarray:
    """Noise with many metallic partials that dies away in seconds."""
    time = _time(rng.uniform(1.5, 3.0))
    partials = np.exp(rng.uniform(np.log(400), np.log(9000), 40))
    metal = np.zeros(len(time))
    for partial in partials:
        metal += np.sin(2 * np.pi * partial * time + rng.uniform(0, 6)) * np.exp(
            -time * rng.uniform(1.5, 5)
        )
    noise = effects.highpass(_noise(rng, len(time))[None], rng.uniform(2500, 5000))[0]
    mixed = 0.12 * metal + noise * np.exp(-time * rng.uniform(2.0, 4.0))
    return _finished(mixed)


def tom(rng: np.random.Generator, frequency: float) -> np.ndarray:
    """A falling sine of a drum machine."""
    time = _time(rng.uniform(0.3, 0.7))
    sweep = frequency * (1.0 + rng.uniform(0.2, 1.0) * np.exp(-time * rng.uniform(10, 40)))
    body = np.sin(2 * np.pi * np.cumsum(sweep) / SAMPLE_RATE)
    body *= np.exp(-time * 4.0 / time[-1])
    noise = _band(_noise(rng, len(time)), 300, 5000) * np.exp(-time * 60)
    return _finished(np.tanh(1.5 * (body + 0.2 * noise)))


def shaker(rng: np.random.Generator) -> np.ndarray:
    """A short swell of high noise."""
    time = _time(rng.uniform(0.06, 0.14))
    noise = _band(_noise(rng, len(time)), rng.uniform(3500, 6000), rng.uniform(11000, 17000))
    rise = rng.uniform(0.01, 0.04)
    return _finished(noise * np.minimum(1, time / rise) * np.exp(-np.maximum(time - rise, 0) * 45))


def rim(rng: np.random.Generator) -> np.ndarray:
    """A short wooden or electronic tick."""
    time = _time(0.09)
    root = rng.uniform(380, 1000)
    body = np.sin(2 * np.pi * root * time) + np.sin(2 * np.pi * root * 2.7 * time)
    body += 0.6 * _band(_noise(rng, len(time)), 1500, 9000)
    return _finished(body * np.exp(-time * rng.uniform(50, 120)))
