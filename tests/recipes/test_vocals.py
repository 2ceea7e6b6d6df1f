"""The vocals of the training songs, from tiny made-up recordings."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import soundfile

from recipes.umxm.studio import effects
from recipes.umxm.studio.plan import SAMPLE_RATE, make_plan
from recipes.umxm.studio.sources import Library
from recipes.umxm.voices import speakers, takes, vocal_studio, vocals
from recipes.umxm.voices.melody import Composer, Tone, harmony

_FOLDERS = (
    "speech_kathleen",
    "speech_kerstin",
    "speech_nathalie",
    "speech_flemishguy",
    "merry_orks/samples/vowels",
    "vocadito/tests",
)


def _babble(seconds: float, seed: int, hertz: float = 180.0) -> np.ndarray:
    """Buzzing vowels with noise between, somewhat like speech."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2.0 * np.pi * np.cumsum(hertz * (1.0 + 0.1 * np.sin(3.0 * time))) / SAMPLE_RATE
    buzz = sum(np.sin(k * phase) / k for k in range(1, 25))
    open_ = np.clip(np.sin(2.0 * np.pi * 2.5 * time), 0.0, 1.0)
    noise = 0.02 * rng.standard_normal(len(time)) * (open_ == 0.0)
    pause = np.sin(2.0 * np.pi * 0.35 * time) > -0.6
    return np.asarray((0.15 * buzz * open_ + noise) * pause, np.float32)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    audio = tmp_path_factory.mktemp("audio")
    for seed, folder in enumerate(_FOLDERS):
        _write(audio / folder / "a.ogg", _babble(2.0, seed, 120.0 + 30.0 * seed)[None])
    for song in ("1.Hydrogen", "4.Potassium", "5.Rubidium", "6.Caesium"):
        for name in ("vocals_lead", "vocals_bg"):
            sound = np.stack([_babble(4.0, 7), _babble(4.0, 8)])
            _write(audio / "everythingisfree" / song / f"{name}.ogg", sound)
    return Library(audio, tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _no_flite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speakers, "_spoken", lambda name, text: _babble(2.0, len(name), 110.0))


def _write(path: Path, audio: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, audio.T, SAMPLE_RATE)


@pytest.mark.parametrize("seed", range(5))
def test_melody_is_in_the_scale_and_range_and_pauses(seed: int) -> None:
    plan = make_plan(seed)
    composer = Composer(plan, plan.rng("test"), 55.0, 71.0)
    for section in plan.sections:
        phrases = composer.phrases(section)
        tones = [tone for phrase in phrases for tone in phrase]
        assert all(tone.pitch % 12 in plan.scale for tone in tones)
        assert all(55 <= tone.pitch <= 71 and tone.duration > 0 for tone in tones)
        sung = sum(tone.duration for tone in tones)
        assert section.nb_bars < 2 or sung < 0.98 * section.nb_bars * 4.0 * plan.beat
        for before, after in itertools.pairwise(tones):
            assert after.start >= before.start + before.duration - 0.02


def test_harmony_is_in_the_scale_and_elsewhere() -> None:
    plan = make_plan(3)
    phrase = (Tone(0.0, 0.3, 60.0 + plan.tonic), Tone(0.4, 3.0, 64.0 + plan.tonic))
    line = harmony(plan, phrase, 2)
    assert all(tone.pitch % 12 in plan.scale for tone in line)
    assert all(a.pitch != b.pitch for a, b in zip(line, phrase, strict=True))


def test_recordings_are_cut_at_silences(tmp_path: Path) -> None:
    sound = np.zeros((1, 5 * SAMPLE_RATE), np.float32)
    for second in (1, 3):
        sound[:, second * SAMPLE_RATE : (second + 1) * SAMPLE_RATE] = _babble(1.0, second) + 0.05
    _write(tmp_path / "audio" / "a.wav", sound)
    library = Library(tmp_path / "audio", tmp_path / "cache")
    found = takes.phrases(library, tmp_path / "audio" / "a.wav", 60.0)
    assert [round(take.start) for take in found] == [1, 3]
    assert [round(take.stop) for take in found] == [2, 4]


def test_shift_into_finds_the_key() -> None:
    plan = make_plan(0)
    pitches = np.array([60.0 + step for step in plan.scale] * 5) + 0.5
    shift = takes.shift_into(plan, 440.0 * 2.0 ** ((pitches - 69.0) / 12.0))
    assert abs((shift + 0.5) % 1.0) < 1e-6


@pytest.mark.parametrize("kind", vocals._KINDS)
def test_every_kind_of_voice_renders(
    kind: str, library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pyworld", exc_type=ImportError)
    monkeypatch.setattr(vocals, "_choose_kind", lambda plan, rng: kind)
    plan = next(
        plan
        for plan in (make_plan(seed, 4.0, "electronic") for seed in range(100))
        if "vocals" in plan.sections[0].stems
    )
    audio = vocals.render(plan, library)
    assert audio.shape == (2, plan.nb_timesteps)
    assert audio.dtype == np.float32
    assert np.isfinite(audio).all()
    assert 20.0 * np.log10(effects.rms(audio)) == pytest.approx(-20.0, abs=0.1)
    if kind == "speech":
        np.testing.assert_array_equal(audio, vocals.render(plan, library))


@pytest.mark.parametrize("seed", range(3))
def test_a_telephone_does_not_click(seed: int) -> None:
    plan = make_plan(seed, 24.0, "pop")
    time = np.arange(plan.nb_timesteps) / SAMPLE_RATE
    tone = np.repeat(np.sin(2.0 * np.pi * 400.0 * time)[None], 2, axis=0).astype(np.float32)
    # The first number that is drawn decides.
    draws = [draw for draw in range(100) if np.random.default_rng(draw).random() < 0.1][:2]
    changed = [
        vocal_studio.special(tone, plan, list(plan.sections[1:2]), np.random.default_rng(draw))
        for draw in draws
    ]
    smooth = np.abs(np.diff(tone)).max()
    section = plan.sections[1]
    for mix in changed:
        assert not np.array_equal(mix, tone)
        for bar in (section.first_bar, section.first_bar + section.nb_bars):
            place = int(plan.seconds(bar) * SAMPLE_RATE)
            assert np.abs(np.diff(mix[:, place - 5 : place + 5])).max(initial=0.0) < 3.0 * smooth


def test_sections_without_vocals_are_silent(library: Library) -> None:
    pytest.importorskip("pyworld", exc_type=ImportError)
    plan = next(
        plan
        for plan in (make_plan(seed, 16.0) for seed in range(100))
        if "vocals" not in plan.sections[0].stems and plan.sections[0].nb_bars >= 4
    )
    audio = vocals.render(plan, library)
    until = int((plan.seconds(plan.sections[0].nb_bars) - 0.4) * SAMPLE_RATE)
    assert not np.any(audio[:, :until])
