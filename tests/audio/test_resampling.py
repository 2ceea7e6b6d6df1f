"""Lengths and samples of the rate conversion, against libsoxr's one-shot function."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

import umx_np
from umx_np.audio import StreamResampler, nb_resampled, resample
from umx_np.audio.resampling import resample_to
from umx_np.errors import ConfigError, ShapeError

RATES = [(44100, 48000), (48000, 44100), (16000, 44100), (96000, 44100), (44100, 8000)]


def noise(*shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize(("rate_in", "rate_out"), RATES)
@pytest.mark.parametrize("nb_timesteps", [1, 2, 7, 999, 20000])
def test_whole_array_is_soxr_and_one_last_sample(rate_in, rate_out, nb_timesteps):
    audio = noise(2, nb_timesteps)
    actual = resample(audio, rate_in, rate_out)
    assert actual.dtype == np.float32
    assert actual.shape == (2, math.ceil(Fraction(nb_timesteps * rate_out, rate_in)))
    # One by one: soxr does not take a transposed array of one sample from every NumPy.
    oracle = np.stack([soxr.resample(row, rate_in, rate_out, quality="VHQ") for row in audio])
    assert actual.shape[1] - oracle.shape[1] in (0, 1)
    np.testing.assert_allclose(actual[:, : oracle.shape[1]], oracle, atol=2e-6)


def test_a_constant_stays_constant_up_to_the_last_sample():
    audio = resample(np.ones(44100 + 3), 44100, 48000)
    np.testing.assert_allclose(audio[100:-100], 1.0, atol=1e-3)
    # At the ends of the constant the filter rings.
    np.testing.assert_allclose(audio[:-1], 1.0, atol=0.1)
    # The last sample lies between the last one and the silence after it, nearer to that.
    place = (len(audio) - 1) * 44100 / 48000
    assert 0 < place - 44102 < 1
    assert audio[-1] == pytest.approx(np.sinc(place - np.arange(44103)).sum(), abs=0.05)


def test_float64_is_kept_and_precise():
    time = np.arange(48000) / 48000
    tone = np.sin(2 * np.pi * 1000 * time)
    actual = resample(tone, 48000, 44100)
    assert actual.dtype == np.float64
    expected = np.sin(2 * np.pi * 1000 * np.arange(44100) / 44100)
    np.testing.assert_allclose(actual[2000:-2000], expected[2000:-2000], atol=1e-6)


def test_any_leading_axes_and_memory_layout():
    audio = np.asfortranarray(noise(3, 2, 500))
    audio.setflags(write=False)
    actual = resample(audio, 48000, 44100)
    assert actual.shape == (3, 2, 460)
    np.testing.assert_array_equal(actual[2, 1], resample(audio[2, 1].copy(), 48000, 44100))


def test_equal_rates_copy():
    audio = noise(2, 10)
    actual = resample(audio, 44100, 44100.0)
    np.testing.assert_array_equal(actual, audio)
    assert not np.shares_memory(actual, audio)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32])
def test_rates_are_any_numbers(kind):
    audio = noise(2, 1000)
    expected = resample(audio, 44100, 48000)
    np.testing.assert_array_equal(resample(audio, kind(44100), kind(48000)), expected)
    assert nb_resampled(1000, kind(44100), kind(48000)) == expected.shape[1]


@pytest.mark.parametrize("audio", [np.zeros((2, 0), np.float32), np.float32(1)])
def test_nothing_to_resample(audio):
    with pytest.raises(ShapeError, match="no samples"):
        resample(audio, 44100, 48000)


def test_refuses_integers_and_rates_that_are_none():
    with pytest.raises(ShapeError, match="dtype=int16"):
        resample(np.zeros(4, np.int16), 44100, 48000)
    for rate in (0, -1, float("nan"), None, "fast"):
        with pytest.raises(ConfigError, match="rate_out="):
            resample(np.zeros(4), 44100, rate)


@settings(deadline=None)
@given(st.integers(0, 10**9), st.sampled_from(RATES), st.sampled_from([1, 2.5]), st.booleans())
def test_there_and_back_covers_the_signal(nb_timesteps, rates, scale, swap):
    rate_in, rate_out = (rate * scale for rate in (rates[::-1] if swap else rates))
    there = nb_resampled(nb_timesteps, rate_in, rate_out)
    assert there >= nb_timesteps * Fraction(rate_out) / Fraction(rate_in) > there - 1
    assert nb_resampled(there, rate_out, rate_in) >= nb_timesteps


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(RATES),
    st.lists(st.integers(0, 3000), min_size=1, max_size=6).filter(any),
    st.integers(1, 3),
)
def test_blocks_give_the_whole(rates, sizes, nb_channels):
    audio = noise(nb_channels, sum(sizes))
    stream = StreamResampler(*rates, nb_channels)
    blocks = [stream.push(block) for block in np.split(audio.T, np.cumsum(sizes)[:-1])]
    actual = np.concatenate([*blocks, stream.finish()]).T
    expected = resample(audio, *rates)
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, atol=4e-6)


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 3))
def test_any_length_becomes_any_other(nb_in, nb_timesteps, nb_channels):
    played = resample_to(noise(nb_channels, nb_in), nb_timesteps)
    assert played.shape == (nb_channels, nb_timesteps)
    assert played.dtype == np.float32
    assert np.isfinite(played).all()


@settings(deadline=None)
@given(st.integers(100, 3000), st.floats(0.5, 2.0))
def test_the_last_sample_is_played_too(nb_in, speed):
    """Half a sample behind the last one at most, a constant is still half of itself."""
    played = resample_to(np.ones((1, nb_in), np.float32), round(nb_in / speed))
    assert played[0, -1] > 0.4


def test_a_sample_more_or_less_of_libsoxr(monkeypatch):
    audio = noise(2, 500)
    expected = resample_to(audio, 400)
    plain = soxr.resample
    monkeypatch.setattr(soxr, "resample", lambda *args, **options: plain(*args, **options)[:-1])
    fewer = resample_to(audio, 400)
    np.testing.assert_array_equal(fewer[:, :-1], expected[:, :-1])
    assert not fewer[:, -1].any()
    monkeypatch.setattr(
        soxr, "resample", lambda *args, **options: np.pad(plain(*args, **options), ((0, 1), (0, 0)))
    )
    np.testing.assert_array_equal(resample_to(audio, 400), expected)


@pytest.mark.parametrize("speed", [0.87, 1.0, 1.1, 1.4])
def test_faster_is_higher(speed):
    count, nb_timesteps = round(8820 * speed), 8820
    cycles = np.array([0.01, 0.13])[:, None]
    audio = np.sin(2 * np.pi * cycles * np.arange(count)).astype(np.float32)
    audio.flags.writeable = False
    played = resample_to(audio, nb_timesteps)
    ratio = count / nb_timesteps
    expected = np.sin(2 * np.pi * cycles * ratio * np.arange(nb_timesteps))
    # Inside: at the ends the filter has no neighbours.
    np.testing.assert_allclose(played[:, 400:-400], expected[:, 400:-400], atol=2e-4)


# A signal that comes while the extension of soxr is being imported, and is handled in Python.
_SIGNAL_IN_AN_IMPORT = """
import enum, os, signal, sys

def leave(number, frame):
    raise SystemExit(128 + number)

def new(kind, *args, _new=enum.EnumType.__call__, **options):
    if "soxr.soxr_ext" in sys.modules:
        os.kill(os.getpid(), signal.SIGTERM)
    return _new(kind, *args, **options)

signal.signal(signal.SIGTERM, leave)
import numpy
enum.EnumType.__call__ = new
import umx_np.audio.resampling
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no signals of this kind")
def test_signal_while_the_library_is_imported():
    environment = os.environ | {"PYTHONPATH": os.path.dirname(os.path.dirname(umx_np.__file__))}
    done = subprocess.run(
        [sys.executable, "-c", _SIGNAL_IN_AN_IMPORT],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 128 + 15, done.stderr[-2000:]
