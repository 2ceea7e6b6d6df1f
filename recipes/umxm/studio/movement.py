"""Resonant filters that move in time with the song, as synthesizers' and wah pedals do.

A slow sweep over a bar looks much like a vowel that changes: without such sounds among the
instruments, a network takes them for voices.
"""

from __future__ import annotations

import numpy as np
from scipy import signal

from .plan import SAMPLE_RATE, Plan

# Samples over which a moving filter stands still.
_STEP = 128
# Bars that a movement lasts: wobbles, sweeps, and long openings.
_PERIODS = (1 / 12, 1 / 8, 1 / 6, 1 / 4, 1 / 2, 1.0, 1.0, 2.0, 2.0, 4.0)


def swept(audio: np.ndarray, cutoff: np.ndarray, q: float, kind: str = "low") -> np.ndarray:
    """Send a sound through a second-order filter whose frequency moves.

    Parameters
    ----------
    audio : ndarray [shape=(nb_channels, nb_timesteps)], float32
        Waveform, not modified.
    cutoff : ndarray [shape=(nb_steps,)]
        Frequency in Hz for each 128 samples; the last one holds on.
    q : float
        Quality; 0.7 does not ring, 10 whistles.
    kind : {'low', 'band'}
        Low pass, or a peak whose surroundings fall off on both sides.

    Returns
    -------
    ndarray [shape=(nb_channels, nb_timesteps)], float32

    Notes
    -----
    R. Bristow-Johnson, "Cookbook formulae for audio EQ"; the state is kept where the coefficients
    change, which is inaudible for movements this slow.
    """
    out = np.empty_like(audio)
    state = np.zeros((1, len(audio), 2))
    w = 2.0 * np.pi * np.clip(cutoff, 20.0, 0.45 * SAMPLE_RATE) / SAMPLE_RATE
    cos, alpha = np.cos(w), np.sin(w) / (2.0 * q)
    zero = np.zeros_like(w)
    b = np.array(
        [alpha, zero, -alpha] if kind == "band" else [(1 - cos) / 2, 1 - cos, (1 - cos) / 2]
    )
    sections = np.stack([*b, 1.0 + alpha, -2.0 * cos, 1.0 - alpha], axis=1) / (1.0 + alpha)[:, None]
    for index, start in enumerate(range(0, audio.shape[-1], _STEP)):
        coefficients = sections[min(index, len(sections) - 1)][None]
        piece = audio[:, start : start + _STEP]
        out[:, start : start + _STEP], state = signal.sosfilt(coefficients, piece, zi=state)
    return out


def curve(plan: Plan, rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """Draw a movement between two frequencies in Hz, in time with the song.

    Returns
    -------
    ndarray [shape=(nb_steps,)]
        As `swept` takes it.
    """
    time = np.arange(-(-plan.nb_timesteps // _STEP)) * (_STEP / SAMPLE_RATE)
    bars = time / (4.0 * plan.beat)
    phase = np.mod(bars / _PERIODS[rng.integers(len(_PERIODS))], 1.0)
    shape = rng.integers(5)
    if shape == 0:
        position = phase
    elif shape == 1:
        position = 1.0 - phase
    elif shape == 2:
        position = 0.5 - 0.5 * np.cos(2.0 * np.pi * phase)
    elif shape == 3:
        position = 1.0 - np.abs(2.0 * phase - 1.0)
    else:
        # A hand at the knob: another place each beat, glided to.
        points = rng.random(int(bars[-1] * 4.0) + 3)
        position = np.interp(bars * 4.0, np.arange(len(points)), points)
    position = position ** rng.uniform(0.6, 2.0)
    return low * (high / low) ** position


def moved(audio: np.ndarray, plan: Plan, rng: np.random.Generator, low: float = 1.0) -> np.ndarray:
    """Send a layer through a filter drawn at random: a sweep, a wobble, a wah or a vowel.

    Parameters
    ----------
    low : float
        Share of the sound that stays under the filter's lowest frequency as it is: synthesizer
        basses keep their bottom.
    """
    bottom = float(rng.uniform(120.0, 350.0))
    top = bottom * float(2.0 ** rng.uniform(1.5, 4.0))
    q = float(np.exp(rng.uniform(np.log(1.5), np.log(9.0))))
    kind = "band" if rng.random() < 0.3 else "low"
    path = curve(plan, rng, bottom, top)
    wet = swept(audio, path, q, kind)
    if rng.random() < 0.3:
        # A second resonance, as vowels have.
        wet = wet + swept(audio, path * rng.uniform(1.8, 4.0), q * 1.5, "band")
    dry = float(rng.uniform(0.0, 0.15))
    under = signal.sosfilt(
        signal.butter(2, bottom, fs=SAMPLE_RATE, output="sos"), audio, axis=-1
    ).astype(np.float32)
    return (wet + np.float32(dry) * audio + np.float32(low) * under).astype(np.float32)
