"""The mixing desk: who gives way to whom, how loud each stem is, and the master.

Stems of finished productions overlap less than what musicians play; `oracle` measures it, and
README.md has the figures. Engineers clear the way: the bass goes down when the bass drum is struck,
each of the two has its own bottom, what plays behind a voice is turned down where the voice is.
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from ..studio import effects
from ..studio.plan import SAMPLE_RATE, STEMS, Plan

# How loud a mixing engineer makes each stem: mean and spread in LU from `_MIX_LOUDNESS`. Engineers
# balance by ear, not by power, which basses need more of. From the finished mix, the medians of the
# test songs are -3.6 for vocals, -5.6 for drums, -6.7 for bass and -6.1 for other. Lead vocals lie
# near -3 (P. D. Pestana and J. D. Reiss, "Intelligent audio production strategies informed by best
# practices", AES 2014), in two finished productions vocals lay at -5.6 and -3.5, drums at -5.9 and
# -2.4, other at -5.6 and -9.9, and the bass of one at -5.3.
BALANCE = {"vocals": (-2.2, 1.5), "drums": (-6.2, 1.8), "bass": (-5.6, 1.8), "other": (-5.3, 2.0)}
# LUFS that the balance counts from. Before it is mastered, a mix is some 1.5 LU louder.
_MIX_LOUDNESS = -18.0
_CEILING = 0.98
# How often the bass gives way to the bass drum, and by how many dB: probability, least, most.
_KEYED = {
    "electronic": (0.95, 5.0, 14.0),
    "hiphop": (0.85, 4.0, 12.0),
    "pop": (0.85, 4.0, 12.0),
    "ballad": (0.5, 2.0, 6.0),
}
_KEYED_ELSEWHERE = (0.7, 3.0, 8.0)
# Hz in which a voice is understood.
_SPEECH = (300.0, 4000.0)


def mixed(stems: dict[str, np.ndarray], plan: Plan) -> dict[str, np.ndarray]:
    """Mix and master a song.

    Parameters
    ----------
    stems : dict of str to ndarray [shape=(2, nb_timesteps)], float32
        What was played, at any level. Not modified.
    plan : Plan
        The song.

    Returns
    -------
    dict of str to ndarray [shape=(2, nb_timesteps)], float32
        The stems as they are in the mix; their sum is the mixture. All are within full scale.
    """
    stems = _cleared(stems, plan)
    rng = plan.rng("mix")
    for name in STEMS:
        mean, spread = BALANCE[name]
        level = np.clip(rng.normal(mean, spread), mean - 2.2 * spread, mean + 2.2 * spread)
        now = effects.loudness(stems[name])
        # Under -70 there is nothing to hear, and nothing to turn up.
        gain = effects.decibels(_MIX_LOUDNESS + level - now) if now > -70.0 else 1.0
        stems[name] = stems[name] * np.float32(gain)
    return _mastered(stems, rng)


def _cleared(stems: dict[str, np.ndarray], plan: Plan) -> dict[str, np.ndarray]:
    """Clear the way for the bass drum and the voice, in each song in its own way."""
    rng = plan.rng("desk")
    stems = dict(stems)
    frequency, kick_below = float(rng.uniform(55.0, 95.0)), rng.random() < 0.6
    if rng.random() < 0.7:
        upper, lower = ("bass", "drums") if kick_below else ("drums", "bass")
        stems[upper], stems[lower] = split_bottom(
            stems[upper], stems[lower], frequency, float(rng.uniform(3.0, 9.0))
        )
    # Drums sound boxy there, and everything else has its middle there.
    boxy, cut = float(rng.uniform(220.0, 450.0)), float(rng.uniform(1.0, 8.0))
    stems["drums"] = effects.peak(stems["drums"], boxy, -cut, 0.7)
    share, least, most = _KEYED.get(plan.style, _KEYED_ELSEWHERE)
    if rng.random() < share:
        depth, release = float(rng.uniform(least, most)), float(rng.uniform(0.06, 0.2))
        stems["bass"] = stems["bass"] * bass_drum_gain(stems["drums"], depth, release)
    if rng.random() < 0.8:
        gain = voice_gain(stems["vocals"], float(rng.uniform(1.0, 7.0)))
        stems["other"] = turned_down(stems["other"], gain)
    return stems


def split_bottom(
    upper: np.ndarray, lower: np.ndarray, frequency: float, depth: float
) -> tuple[np.ndarray, np.ndarray]:
    """Give what is under a frequency to one of two stems, and the octave above to the other.

    Parameters
    ----------
    upper, lower : ndarray [shape=(2, nb_timesteps)], float32
        The stem whose bottom goes, and the one that gives way above it.
    frequency : float
        Hz.
    depth : float
        dB by which the bottom goes; above it is less.

    Returns
    -------
    tuple of ndarray
        Both, in this order.
    """
    return (
        effects.low_shelf(upper, frequency, -depth),
        effects.peak(lower, 2.0 * frequency, -0.6 * depth, 0.9),
    )


def turned_down(audio: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """Audio whose speech band, and not the rest, has a gain [shape=(nb_timesteps,)]."""
    band = effects.lowpass(effects.highpass(audio, _SPEECH[0], 1), _SPEECH[1], 1)
    return audio - (np.float32(1.0) - gain) * band


def bass_drum_gain(drums: np.ndarray, depth: float, release: float) -> np.ndarray:
    """Gain that falls with the strokes of the bass drum, as a compressor keyed by it has.

    Parameters
    ----------
    drums : ndarray [shape=(nb_channels, nb_timesteps)], float32
        All drums, at any level.
    depth : float
        dB by which the loudest strokes turn down.
    release : float
        Seconds after which a third of that is left.

    Returns
    -------
    ndarray [shape=(nb_timesteps,)], float32

    Notes
    -----
    What is loudest under 100 Hz is taken for the bass drum, even if it is another drum.
    """
    envelope = effects.envelope(effects.lowpass(drums, 100.0))
    loudest = float(np.percentile(envelope, 99.5))
    # From 14 dB under the loudest strokes on, all of it from 4 dB under them.
    amount = _amount(envelope, loudest, -14.0, -4.0)
    amount = _released(ndimage.maximum_filter1d(amount, 5), release)
    return _gain(amount, depth, drums.shape[-1])


def voice_gain(vocals: np.ndarray, depth: float) -> np.ndarray:
    """Gain that is lower while somebody sings.

    Parameters
    ----------
    vocals : ndarray [shape=(nb_channels, nb_timesteps)], float32
        Voices, at any level.
    depth : float
        dB.

    Returns
    -------
    ndarray [shape=(nb_timesteps,)], float32
    """
    envelope = ndimage.uniform_filter1d(effects.envelope(vocals), 35)
    # Peaks of 18 dB under what the loud parts have as root mean square are a whisper.
    amount = _amount(envelope, effects.rms(vocals), -18.0, -6.0)
    amount = _released(ndimage.maximum_filter1d(amount, 21), 0.25)
    return _gain(ndimage.uniform_filter1d(amount, 41), depth, vocals.shape[-1])


def _amount(envelope: np.ndarray, reference: float, begin: float, full: float) -> np.ndarray:
    """Rise from 0 to 1 between two levels in dB relative to a reference; 0 in silence."""
    if reference < 1e-6:
        return np.zeros_like(envelope)
    level = 20.0 * np.log10(envelope / reference + 1e-6)
    return np.clip((level - begin) / (full - begin), 0.0, 1.0)


def _released(amount: np.ndarray, release: float) -> np.ndarray:
    """Let each peak fall off exponentially."""
    step = float(np.exp(-effects.HOP / (SAMPLE_RATE * release)))
    out, held = np.empty_like(amount), 0.0
    for index, value in enumerate(amount):
        held = max(float(value), held * step)
        out[index] = held
    return out


def _gain(amount: np.ndarray, depth: float, nb_timesteps: int) -> np.ndarray:
    """Gain for each sample of an amount for each hop."""
    gains = (10.0 ** (-depth * amount / 20.0)).astype(np.float32)
    return effects.gain_over_time(gains, nb_timesteps)


def _mastered(stems: dict[str, np.ndarray], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Make the sum loud. The gain over time is that of the mix, and is given to all stems."""
    mixture = np.sum(list(stems.values()), axis=0)
    level = effects.rms(mixture)
    if level < 1e-6:
        return stems
    # From untouched demos to loud masters.
    gain = effects.decibels(rng.uniform(-22.0, -10.0)) / level
    gain_over_time = effects.limit(mixture * np.float32(gain), _CEILING) * np.float32(gain)
    stems = {name: audio * gain_over_time for name, audio in stems.items()}
    peak = max(float(np.abs(audio).max()) for audio in stems.values())
    peak = max(peak, float(np.abs(np.sum(list(stems.values()), axis=0)).max()))
    if peak > _CEILING:
        stems = {name: audio * np.float32(_CEILING / peak) for name, audio in stems.items()}
    return stems
