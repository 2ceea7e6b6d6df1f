"""Speakers, bodies and the studio of the vocals, without recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import signal

from recipes.umxm.studio.plan import SAMPLE_RATE
from recipes.umxm.studio.sources import Library
from recipes.umxm.voices import bodies, speakers, vocal_studio, vocoder


def test_a_line_depends_on_its_number() -> None:
    lines = [speakers.line(number) for number in range(50)]
    assert lines == [speakers.line(number) for number in range(50)]
    assert len(set(lines)) == 50
    assert all(8 <= len(line.split()) <= 30 for line in lines)


def test_every_voice_says_its_own_lines_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []
    table = np.full((40, 67), 0.1, np.float32)

    def say(name: str, text: str) -> np.ndarray:
        said.append((name, text))
        return np.zeros(100)

    monkeypatch.setattr(speakers, "_spoken", say)
    monkeypatch.setattr(vocoder, "analyse", lambda audio: table)
    library = Library(tmp_path, tmp_path / "cache")
    for _ in range(2):
        for name in speakers.SPOKEN:
            assert len(speakers.words(library, name, np.random.default_rng(0))) > 1
    assert len({text for _, text in said}) == len(said)
    assert {name for name, _ in said} == set(speakers.SPOKEN)


def test_missing_flite_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="flite is missing"):
        speakers._spoken("rms", "hello there")


def test_speakers_are_known() -> None:
    rng = np.random.default_rng(0)
    assert {speakers.choose(rng) for _ in range(200)} == {*speakers.RECORDED, *speakers.SPOKEN}
    assert all(speakers.top(name) > 5000.0 for name in (*speakers.RECORDED, *speakers.SPOKEN))
    assert set(speakers.complete()) < set(speakers.RECORDED)


@pytest.mark.parametrize("seed", range(10))
def test_a_throat_moves_formants_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    length = bodies.draw_length(rng)
    assert 0.78 <= length <= 1.22
    frequencies = np.linspace(0.0, 22050.0, 1025)
    source = bodies.Timbre(formants=length, shifts=bodies.draw_shifts(rng)).source(frequencies)
    assert np.all(np.diff(source) > 0)
    moved = frequencies[1:] / length / source[1:]
    assert moved.min() > 0.92
    assert moved.max() < 1.09
    assert np.ptp(moved) > 0.02
    plain = bodies.Timbre(formants=length)
    np.testing.assert_allclose(plain.source(frequencies), frequencies / length)


def test_effort_and_nose_colour_a_voice() -> None:
    frequencies = np.array([150.0, 1000.0, 2000.0, 20000.0])
    np.testing.assert_allclose(bodies.Timbre().curve(frequencies), 0.0)
    effort = bodies.Timbre(lift=10.0).curve(frequencies)
    assert effort[0] < 1.0
    assert 9.0 < effort[2] <= 10.0
    assert effort[3] < 5.0
    nose = bodies.Timbre(nasal=6.0).curve(frequencies)
    assert nose[1] < -5.0
    assert abs(nose[3]) < 0.1


def test_rasp_sounds_an_octave_lower() -> None:
    f0 = np.full(200, 200.0)
    factor = vocoder._rasp(f0, SAMPLE_RATE, 0.5)
    spectrum = np.abs(np.fft.rfft(factor - factor.mean()))
    assert abs(int(spectrum.argmax()) - 100) <= 2
    assert factor.min() > 0.4
    np.testing.assert_array_equal(vocoder._rasp(0.0 * f0, SAMPLE_RATE, 0.5), 1.0)


@pytest.mark.parametrize("register", bodies.REGISTERS)
def test_registers_lie_at_their_heights(register: str) -> None:
    rng = np.random.default_rng(0)
    heights = [bodies.draw_height(rng, register) for _ in range(20)]
    assert np.all(np.array(heights) > 11.0) == (register == "falsetto")
    assert np.all(np.array(heights) < 4.1) == (register == "low")
    timbre = bodies.choose_timbre(rng, 1.0, "pop", register)
    assert timbre.breath > 0.15 or register != "airy"
    assert 4.5 <= timbre.rate <= 6.8
    assert bodies.another(timbre, rng).shifts != timbre.shifts


@pytest.mark.parametrize("seed", range(4))
def test_a_dull_voice_is_brightened(seed: int) -> None:
    noise = np.random.default_rng(9).standard_normal((2, SAMPLE_RATE))
    dull = signal.lfilter([1.0], [1.0, -0.97], noise).astype(np.float32)
    changed = vocal_studio.balanced(dull, np.random.default_rng(seed))

    def high(audio: np.ndarray) -> float:
        frequencies, power = signal.welch(audio[0], SAMPLE_RATE, nperseg=2048)
        return float(power[(frequencies > 800) & (frequencies < 3200)].sum() / power.sum())

    assert changed.shape == dull.shape
    assert changed.dtype == np.float32
    assert high(changed) > 1.2 * high(dull)
    silence = np.zeros((2, SAMPLE_RATE), np.float32)
    np.testing.assert_array_equal(
        vocal_studio.balanced(silence, np.random.default_rng(seed)), silence
    )
