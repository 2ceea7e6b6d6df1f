"""The studio's part in a voice: equalisers, compressors, doublers, telephones, rooms."""

from __future__ import annotations

import numpy as np
from scipy import signal

from ..studio import effects
from ..studio.plan import SAMPLE_RATE, Plan, Section

# dB of what sounds.
LEVEL = -20.0
# Middles of octaves in Hz, and how loud they are in produced lead voices, in dB of the whole.
_OCTAVES = np.array([140.0, 280.0, 560.0, 1130.0, 2260.0, 4520.0, 9050.0])
_BALANCE = np.array([-9.5, -6.0, -4.3, -8.0, -10.5, -14.0, -17.0])


def balanced(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bring the octaves nearer to how produced voices are, each time to another taste."""
    share, taste = rng.uniform(0.4, 0.95), rng.normal(0.0, 2.5, len(_OCTAVES))
    if audio.shape[-1] < 4096 or not np.any(audio):
        return audio
    frequencies, power = signal.welch(audio.mean(axis=0), SAMPLE_RATE, nperseg=4096)
    edges = np.searchsorted(frequencies, np.append(_OCTAVES, 2.0 * _OCTAVES[-1]) / np.sqrt(2.0))
    octaves = np.add.reduceat(power, edges)[:-1]
    now = 10.0 * np.log10(octaves / (octaves.sum() + 1e-20) + 1e-7)
    gains = share * np.clip(_BALANCE + taste - now, -10.0, 14.0)
    sections = [
        effects.biquad("peak", frequency, gain, 1.1)
        for frequency, gain in zip(_OCTAVES, gains - gains.mean(), strict=True)
    ]
    return effects.filtered(audio, np.concatenate(sections))


def _widened(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add copies at the sides that sway against the voice, as a doubler does."""
    sides = effects.chorus(effects.highpass(audio, 200.0), rng, 0.002, float(rng.uniform(0.2, 0.8)))
    sides = effects.width(sides, 2.0)
    out = effects.stereo(audio).copy()
    effects.place(
        out, sides, float(rng.uniform(0.004, 0.02)), effects.decibels(rng.uniform(-18, -7))
    )
    return out


def treated(lead: np.ndarray, plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """Equaliser, compressor, de-esser and saturation of a lead voice."""
    if not np.any(lead):
        return lead
    lead = effects.highpass(lead, float(rng.uniform(70, 170)))
    lead = effects.random_eq(lead, rng, 4.0)
    lead = balanced(lead, rng)
    close = rng.random() < 0.5
    if close:
        # As records of today have it: very near, and always as loud.
        lead = effects.compress(lead, float(rng.uniform(-34, -26)), 8.0, 0.001, 0.06)
        lead = effects.peak(lead, float(rng.uniform(2000, 5000)), float(rng.uniform(0, 4)), 0.7)
        lead = effects.high_shelf(lead, float(rng.uniform(7000, 11000)), float(rng.uniform(0, 6)))
    lead = effects.compress(lead, float(rng.uniform(-30, -18)), float(rng.uniform(2.5, 8.0)))
    if rng.random() < 0.6:
        lead = _de_essed(lead, float(rng.uniform(3.0, 9.0)))
    if rng.random() < {"rock": 0.5, "metal": 0.7, "indie": 0.5}.get(plan.style, 0.3):
        lead = effects.drive(lead, float(rng.uniform(-4, 8)), float(rng.uniform(0.0, 0.2)))
    if close or rng.random() < 0.3:
        lead = effects.softened(lead, float(rng.uniform(10.0, 15.0)))
    if rng.random() < (0.3 if close else 0.15):
        lead = _widened(lead, rng)
    return lead


def _de_essed(audio: np.ndarray, most: float) -> np.ndarray:
    """Turn sibilants down by up to `most` dB where they stand out."""
    high = effects.highpass(audio, 5500.0)
    hop = 441
    count = -(-audio.shape[-1] // hop)
    padded = np.zeros((2, len(audio), count * hop), np.float32)
    padded[0, :, : audio.shape[-1]] = audio
    padded[1, :, : audio.shape[-1]] = high
    power = np.mean(padded.reshape(2, len(audio), count, hop) ** 2, axis=(1, 3)) + 1e-12
    share = 10.0 * np.log10(power[1] / power[0])
    cut = np.clip(share + 6.0, 0.0, 4.0) / 4.0 * most
    cut = np.convolve(cut, np.ones(3) / 3.0, "same")
    gain = np.interp(np.arange(audio.shape[-1]) / hop - 0.5, np.arange(count), cut)
    return (audio - high * (1.0 - 10.0 ** (-gain / 20.0))).astype(np.float32)


def special(
    mix: np.ndarray, plan: Plan, sections: list[Section], rng: np.random.Generator
) -> np.ndarray:
    """Now and then a section through a telephone, or the whole through a fuzz or a chorus."""
    if rng.random() < 0.1:
        section = sections[rng.integers(len(sections))]
        first = int(plan.seconds(section.first_bar) * SAMPLE_RATE)
        last = int(plan.seconds(section.first_bar + section.nb_bars) * SAMPLE_RATE)
        thin = effects.highpass(mix[:, first:last], float(rng.uniform(300, 700)), 3)
        thin = effects.lowpass(thin, float(rng.uniform(2500, 5000)), 4)
        if rng.random() < 0.6:
            thin = effects.drive(thin, float(rng.uniform(4, 14)))
        # From one to the other and back without a click.
        share = effects.faded(np.ones((1, thin.shape[-1]), np.float32), 0.01, 0.01)
        mix = mix.copy()
        mix[:, first:last] += share * (effects.normalise(thin, LEVEL) - mix[:, first:last])
    if rng.random() < {"metal": 0.25, "rock": 0.1, "indie": 0.1}.get(plan.style, 0.03):
        mix = effects.drive(mix, float(rng.uniform(6, 13)), 0.1)
    if rng.random() < 0.08:
        mix = effects.chorus(mix, rng)
    return mix


def spaced(mix: np.ndarray, plan: Plan, rng: np.random.Generator) -> np.ndarray:
    """Echo and reverb: from a dry booth to a hall."""
    if rng.random() < 0.4:
        beats = float(rng.choice((0.25, 0.5, 0.75, 1.0)))
        level = float(rng.uniform(-22, -9))
        mix = effects.echo(mix, beats * plan.beat, float(rng.uniform(0.2, 0.55)), level)
    elif rng.random() < 0.2:
        mix = effects.echo(mix, float(rng.uniform(0.07, 0.13)), 0.1, float(rng.uniform(-12, -6)))
    if rng.random() < 0.92:
        long = rng.random() < {"ballad": 0.35, "electronic": 0.3, "indie": 0.3}.get(
            plan.style, 0.15
        )
        low, high = (2.5, 5.5) if long else (0.35, 3.0)
        seconds = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        brightness = float(rng.uniform(3000, 9000))
        response = effects.room(rng, seconds, brightness, float(rng.uniform(0.0, 0.09)))
        mix = effects.reverb(mix, response, float(rng.uniform(-28.0, -13.0)))
    return mix
