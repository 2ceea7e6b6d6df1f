"""Rendered songs: loudness, balance, and what a broken stem does."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from recipes.umxm.band import bass, drums, other
from recipes.umxm.songs import desk, render
from recipes.umxm.studio import effects
from recipes.umxm.studio.plan import SAMPLE_RATE, STEMS, Section, make_plan
from recipes.umxm.voices import vocals

_PLAYERS = {"vocals": vocals, "drums": drums, "bass": bass, "other": other}


def _tone(frequency: float, seconds: float, amplitude: float = 1.0) -> np.ndarray:
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    wave = amplitude * np.sin(2.0 * np.pi * frequency * time)
    return np.stack([wave, wave]).astype(np.float32)


@pytest.mark.parametrize("amplitude", [1.0, 0.01])
def test_loudness_of_the_standards_tone(amplitude):
    # BS.1770: 997 Hz at full scale in one channel is -3.01 LUFS; here are two.
    tone = _tone(997.0, 2.0, amplitude)
    expected = 20.0 * np.log10(amplitude)
    assert effects.loudness(tone) == pytest.approx(expected, abs=0.05)
    # A pause is passed over.
    paused = np.concatenate([tone, np.zeros_like(tone), np.zeros_like(tone)], axis=1)
    assert effects.loudness(paused) == pytest.approx(expected, abs=0.4)


@pytest.mark.parametrize("seconds", [0.0, 0.2, 3.0])
def test_silence_and_clicks_have_no_loudness(seconds):
    assert effects.loudness(np.zeros((2, int(seconds * SAMPLE_RATE)), np.float32)) == -np.inf


@pytest.fixture
def tones(monkeypatch):
    """Every player plays a tone of its own at a level of its own."""

    def play(frequency, amplitude):
        return lambda plan, library: _tone(
            frequency, plan.nb_timesteps / SAMPLE_RATE + 1.0, amplitude
        )[:, : plan.nb_timesteps]

    for name, frequency, amplitude in (
        ("vocals", 800.0, 0.5),
        ("drums", 3000.0, 0.001),
        ("bass", 50.0, 0.1),
        ("other", 400.0, 1.0),
    ):
        monkeypatch.setattr(_PLAYERS[name], "render", play(frequency, amplitude))


@pytest.mark.parametrize("seed", range(5))
def test_stems_are_balanced_by_loudness(tones, seed):
    stems = render.render_song(make_plan(seed, 4.0), None)
    levels = {name: effects.loudness(stems[name]) for name in STEMS}
    for one, other_one in itertools.combinations(STEMS, 2):
        (mean, spread), (other_mean, other_spread) = desk.BALANCE[one], desk.BALANCE[other_one]
        difference = levels[one] - levels[other_one]
        assert abs(difference - (mean - other_mean)) < 2.2 * (spread + other_spread) + 0.5
    # A deep tone needs more power to be as loud.
    for name in ("vocals", "other"):
        power = 20.0 * np.log10(effects.rms(stems["bass"]) / effects.rms(stems[name]))
        assert power > levels["bass"] - levels[name] + 2.0


def test_balances_differ_from_song_to_song(tones):
    def difference(seed):
        stems = render.render_song(make_plan(seed, 4.0), None)
        return effects.loudness(stems["vocals"]) - effects.loudness(stems["other"])

    assert np.std([difference(seed) for seed in range(8)]) > 0.5


def test_what_is_silent_stays_silent(tones, monkeypatch):
    monkeypatch.setattr(vocals, "render", lambda plan, library: plan.silence())
    stems = render.render_song(make_plan(0, 4.0), None)
    assert not stems["vocals"].any()
    assert all(stems[name].any() for name in ("drums", "bass", "other"))


@pytest.mark.parametrize("broken", ["short", "nan"])
def test_a_broken_stem_is_told(tones, monkeypatch, broken):
    def play(plan, library):
        return plan.silence()[:, 1:] if broken == "short" else plan.silence() + np.nan

    monkeypatch.setattr(bass, "render", play)
    with pytest.raises(ValueError, match="song 7: bass"):
        render.render_song(make_plan(7, 2.0), None)


def test_melodies_rest_while_somebody_sings(monkeypatch):
    def silent(sections):
        raise AssertionError("nothing is to be played")

    layers = [other._Layer(silent, 0.0, 0.0, leads) for leads in (True, False, True, False)]
    sung = Section("verse", 0, 4, 1.0, frozenset({"vocals", "other"}))
    unsung = Section("verse", 4, 4, 1.0, frozenset({"other"}))
    rng = np.random.default_rng(0)
    monkeypatch.setattr(other, "_YIELDING", 1.0)
    played = other._arranged(layers, [sung, unsung], rng)
    assert [sung in sections for sections in played] == [False, True, False, True]
    assert all(unsung in sections for sections in played)
    # Somebody has to play.
    assert other._arranged(layers[:1], [sung], rng) == [[sung]]
    monkeypatch.setattr(other, "_YIELDING", 0.0)
    assert all(sung in sections for sections in other._arranged(layers, [sung], rng))
