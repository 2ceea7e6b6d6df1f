"""The mixing desk: who gives way to whom."""

from __future__ import annotations

import numpy as np
import pytest

from recipes.umxm.songs import desk
from recipes.umxm.studio import effects
from recipes.umxm.studio.plan import SAMPLE_RATE, STEMS, STYLES, make_plan


def _tone(frequency: float, seconds: float) -> np.ndarray:
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = 0.3 * np.sin(2.0 * np.pi * frequency * time)
    return np.stack([wave, wave]).astype(np.float32)


def _strokes(frequency: float, *seconds: float, last: float = 4.0) -> np.ndarray:
    """Strokes of 100 ms at the given times."""
    out = np.zeros((2, int(last * SAMPLE_RATE)), np.float32)
    for start in seconds:
        effects.place(out, effects.faded(_tone(frequency, 0.1), 0.002, 0.05), start)
    return out


def _at(gain: np.ndarray, seconds: float) -> float:
    return float(20.0 * np.log10(gain[int(seconds * SAMPLE_RATE)]))


@pytest.mark.parametrize("loudness", [1.0, 1e-3])
def test_the_bass_drum_turns_down_and_lets_go(loudness):
    gain = desk.bass_drum_gain(np.float32(loudness) * _strokes(50.0, 1.0, 3.0), 9.0, 0.1)
    assert gain.shape == (4 * SAMPLE_RATE,)
    assert gain.dtype == np.float32
    for stroke in (1.0, 3.0):
        assert _at(gain, stroke + 0.03) == pytest.approx(-9.0, abs=0.2)
        # Less than a third of it a tenth of a second after the stroke, which fades itself.
        assert _at(gain, stroke + 0.2) == pytest.approx(-2.5, abs=0.4)
        assert _at(gain, stroke + 0.9) > -0.1
    assert _at(gain, 0.9) == pytest.approx(0.0, abs=1e-3)


def test_what_is_loudest_below_is_the_bass_drum():
    drums = _strokes(50.0, 1.0) + _strokes(6000.0, 2.0)
    gain = desk.bass_drum_gain(drums, 9.0, 0.1)
    assert _at(gain, 1.03) < -8.0
    assert _at(gain, 2.03) > -0.1


def test_one_has_its_bottom_and_the_other_what_is_above():
    below, above, high = (_tone(f, 1.0) for f in (40.0, 160.0, 2000.0))
    for tone, first, second in ((below, -6.0, 0.0), (above, 0.0, -3.6), (high, 0.0, 0.0)):
        upper, lower = desk.split_bottom(tone, tone, 80.0, 6.0)
        for changed, expected in ((upper, first), (lower, second)):
            gain = 20.0 * np.log10(effects.rms(changed) / effects.rms(tone))
            assert gain == pytest.approx(expected, abs=1.1)


def test_only_the_speech_band_is_turned_down():
    gain = np.full(SAMPLE_RATE, 0.5, np.float32)
    for frequency, least, most in ((60.0, -0.4, 0.1), (1100.0, -6.1, -4.5), (15_000.0, -0.6, 0.1)):
        tone = _tone(frequency, 1.0)
        out = desk.turned_down(tone, gain)
        assert out.dtype == np.float32
        assert least < 20.0 * np.log10(effects.rms(out) / effects.rms(tone)) < most


def test_the_voice_turns_down_while_it_lasts():
    vocals = np.zeros((2, 4 * SAMPLE_RATE), np.float32)
    effects.place(vocals, _tone(440.0, 1.5), 1.0)
    gain = desk.voice_gain(vocals, 4.0)
    assert _at(gain, 1.8) == pytest.approx(-4.0, abs=0.1)
    assert _at(gain, 0.5) == pytest.approx(0.0, abs=1e-3)
    assert _at(gain, 3.9) > -0.1


@pytest.mark.parametrize("nb_timesteps", [1, 63, 64, 65, 1000])
def test_gains_of_silence_and_of_short_sounds(nb_timesteps):
    silence = np.zeros((2, nb_timesteps), np.float32)
    noise = silence + np.random.default_rng(1).standard_normal(silence.shape).astype(np.float32)
    for keyed in (lambda x: desk.bass_drum_gain(x, 6.0, 0.1), lambda x: desk.voice_gain(x, 6.0)):
        np.testing.assert_array_equal(keyed(silence), np.ones(nb_timesteps, np.float32))
        gain = keyed(noise)
        assert gain.shape == (nb_timesteps,)
        assert np.isfinite(gain).all()
        assert (gain <= 1.0).all()
        assert (gain > 0.49).all()


def _song(**changes: np.ndarray) -> dict[str, np.ndarray]:
    stems = {
        "vocals": _tone(800.0, 4.0),
        "drums": _strokes(50.0, *np.arange(0.0, 4.0, 0.5)),
        "bass": _tone(80.0, 4.0),
        "other": _tone(1000.0, 4.0),
    }
    return {**stems, **changes}


@pytest.mark.parametrize("seed", range(12))
def test_a_mix(seed):
    plan, stems = make_plan(seed, 4.0), _song()
    before = {name: audio.copy() for name, audio in stems.items()}
    for audio in stems.values():
        audio.flags.writeable = False
    mix = desk.mixed(stems, plan)
    assert list(mix) == list(STEMS)
    for name in STEMS:
        np.testing.assert_array_equal(stems[name], before[name])
        assert mix[name].shape == (2, 4 * SAMPLE_RATE)
        assert mix[name].dtype == np.float32
        assert np.isfinite(mix[name]).all()
    for audio in (*mix.values(), np.sum(list(mix.values()), axis=0)):
        assert np.abs(audio).max() <= 0.98 + 1e-6
    again = desk.mixed(_song(), plan)
    for name in STEMS:
        np.testing.assert_array_equal(mix[name], again[name])


@pytest.mark.slow
def test_most_songs_make_room():
    """For the bass drum, for the voice, at the bottom, and in the middle of the drums."""
    halves = np.arange(4 * SAMPLE_RATE) // (SAMPLE_RATE // 2) % 2
    sung = np.where(halves == 0, 1.0, 0.0).astype(np.float32)
    struck, free = slice(44_100, 46_305), slice(61_740, 63_945)
    quiet, loud = slice(38_000, 44_000), slice(52_000, 60_000)
    silent = np.zeros((2, 4 * SAMPLE_RATE), np.float32)
    low, high = _tone(40.0, 4.0), _tone(320.0, 4.0)

    def gain(after: np.ndarray, before: np.ndarray) -> float:
        return 20.0 * np.log10(effects.rms(after) / effects.rms(before))

    keyed, spoken, bottoms, boxy = [], [], [], []
    for seed in range(24):
        plan = make_plan(seed, 4.0)
        mix = desk._cleared(_song(vocals=_tone(800.0, 4.0) * sung), plan)
        keyed.append(gain(mix["bass"][:, free], mix["bass"][:, struck]))
        spoken.append(gain(mix["other"][:, quiet], mix["other"][:, loud]))
        drums = desk._cleared(_song(drums=low), plan)["drums"]
        bass = desk._cleared(_song(drums=silent, bass=low), plan)["bass"]
        bottoms.append((gain(drums, low), gain(bass, low)))
        boxy.append(gain(desk._cleared(_song(drums=high), plan)["drums"], high))
    for ratios in (np.array(keyed), np.array(spoken)):
        assert 0.5 < np.mean(ratios > 0.3) < 1.0
        assert ratios.max() < 14.0
        assert ratios.min() > -1.5
    gone = np.array(bottoms) < -1.5
    assert 0.4 < gone.any(axis=1).mean() < 1.0
    assert gone.any(axis=0).all()
    assert not gone.all(axis=1).any()
    assert -7.0 < np.mean(boxy) < -1.5


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("silent", STEMS)
def test_what_is_silent_stays_silent(silent, style):
    seed = next(seed for seed in range(1000) if make_plan(seed, 4.0).style == style)
    mix = desk.mixed(
        _song(**{silent: np.zeros((2, 4 * SAMPLE_RATE), np.float32)}), make_plan(seed, 4.0)
    )
    assert not mix[silent].any()
    assert all(mix[name].any() and np.isfinite(mix[name]).all() for name in STEMS if name != silent)
