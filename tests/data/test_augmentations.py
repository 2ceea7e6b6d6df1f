"""Augmentations do what their names say, with the random numbers they are given."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

from umx_np.data import (
    Compose,
    aug_from_str,
    augmentations,
    channelswap,
    force_stereo,
    gain,
    polarity,
    tilt,
    width,
)
from umx_np.errors import ConfigError


@pytest.fixture
def stereo() -> np.ndarray:
    audio = np.random.default_rng(0).standard_normal((2, 50), np.float32)
    audio.flags.writeable = False
    return audio


def test_gain_is_uniform_from_a_quarter_to_five_quarters(stereo: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    factors = []
    for _ in range(2000):
        result = gain(stereo, rng)
        factors.append(result[0, 0] / stereo[0, 0])
        np.testing.assert_allclose(result, stereo * factors[-1], rtol=1e-6)
        assert result.dtype == np.float32
    factors.sort()
    # The quantiles of 2000 uniform numbers are within 0.05 of where they should be.
    np.testing.assert_allclose(factors, np.linspace(0.25, 1.25, 2000), atol=0.05)
    assert factors[0] >= 0.25
    assert factors[-1] <= 1.25


def test_channels_are_swapped_half_of_the_time(stereo: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    swapped = [np.array_equal(channelswap(stereo, rng), stereo[::-1]) for _ in range(1000)]
    assert 400 < sum(swapped) < 600
    kept = [np.array_equal(channelswap(stereo, rng), stereo) for _ in range(1000)]
    assert 400 < sum(kept) < 600


def test_half_of_the_waveforms_are_turned_upside_down(stereo: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    turned = [np.array_equal(polarity(stereo, rng), -stereo) for _ in range(1000)]
    assert 400 < sum(turned) < 600
    kept = [np.array_equal(polarity(stereo, rng), stereo) for _ in range(1000)]
    assert 400 < sum(kept) < 600


def test_width_changes_the_difference_of_the_channels_only(stereo: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    factors = []
    for _ in range(1000):
        result = width(stereo, rng)
        assert result.dtype == np.float32
        np.testing.assert_allclose(result[0] + result[1], stereo[0] + stereo[1], atol=1e-6)
        factors.append((result[0, 0] - result[1, 0]) / (stereo[0, 0] - stereo[1, 0]))
        difference = factors[-1] * (stereo[0] - stereo[1])
        np.testing.assert_allclose(result[0] - result[1], difference, atol=1e-5)
    factors.sort()
    np.testing.assert_allclose(factors, np.linspace(0.0, 1.5, 1000), atol=0.1)


def test_tilt_is_a_slope_around_its_corner(stereo: np.ndarray) -> None:
    impulse = np.zeros((2, 2**15), np.float32)
    impulse[:, 0] = 1.0
    impulse.flags.writeable = False
    rng = np.random.default_rng(0)
    gains, kept = [], 0
    for _ in range(200):
        result = tilt(impulse, rng)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result[0], result[1])
        if result is impulse:
            kept += 1
            continue
        level = 20.0 * np.log10(np.abs(np.fft.rfft(result[0].astype(np.float64))))
        # As much up at one end as down at the other, a slope without waves, and 0 dB in between.
        assert level[0] == pytest.approx(-level[-1], abs=1e-3)
        slope = np.diff(level) * np.sign(level[-1])
        assert slope.min() > -1e-4
        if abs(level[0]) > 0.5:
            corner = np.abs(level).argmin() / 2**15
            assert 0.0019 < corner < 0.105
        gains.append(level[0])
    assert 70 < kept < 130
    gains.sort()
    np.testing.assert_allclose(gains, np.linspace(-6.0, 6.0, len(gains)), atol=2.0)
    assert np.abs(gains).max() <= 6.001


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (3, 1001)])
def test_tilt_against_its_recursion(shape: tuple[int, int], scale: float) -> None:
    audio = np.random.default_rng(1).standard_normal(shape) * scale
    for seed in range(20):
        result = tilt(audio, np.random.default_rng(seed))
        if result is audio:
            continue
        rng = np.random.default_rng(seed)
        rng.random()
        root = 10.0 ** (rng.uniform(-6.0, 6.0) / 20.0)
        corner = np.tan(np.pi * np.exp(rng.uniform(np.log(0.002), np.log(0.1))))
        expected, before, last = np.zeros(shape), np.zeros(shape[0]), np.zeros(shape[0])
        for n in range(shape[1]):
            now = (1.0 / root + corner) * audio[:, n] + (corner - 1.0 / root) * before
            last = (now - (corner / root - 1.0) * last) / (1.0 + corner / root)
            before, expected[:, n] = audio[:, n], last
        np.testing.assert_allclose(result, expected, rtol=1e-9, atol=1e-12 * scale)


def test_tilt_of_silence_is_silence() -> None:
    silence = np.zeros((2, 100), np.float32)
    for seed in range(10):
        np.testing.assert_array_equal(tilt(silence, np.random.default_rng(seed)), silence)


def test_without_scipy_tilt_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(augmentations.importlib, "import_module", missing)
    with pytest.raises(ConfigError, match=r"'tilt' needs the package scipy: pip install"):
        aug_from_str(["gain", "tilt"])
    aug_from_str(["gain", "width"])


@pytest.mark.parametrize("augmentation", [channelswap, polarity, width, tilt])
def test_the_same_numbers_are_drawn_whatever_the_shape(augmentation: Any) -> None:
    for seed in range(20):
        after = []
        for shape in ((1, 5), (2, 2), (2, 100)):
            rng = np.random.default_rng(seed)
            augmentation(np.ones(shape, np.float32), rng)
            after.append(rng.random())
        if augmentation is not channelswap:  # mono has nothing to decide there
            assert after[0] == after[1]
        assert after[1] == after[2]


@pytest.mark.parametrize("nb_channels", [1, 3])
@pytest.mark.parametrize("augmentation", [channelswap, width])
def test_only_stereo_has_sides(augmentation: Any, nb_channels: int) -> None:
    audio = np.arange(nb_channels * 4, dtype=np.float32).reshape(nb_channels, 4)
    rng = np.random.default_rng(0)
    for _ in range(20):
        np.testing.assert_array_equal(augmentation(audio, rng), audio)


@pytest.mark.parametrize("nb_channels", [1, 2, 3, 6])
def test_force_stereo(nb_channels: int) -> None:
    audio = np.arange(nb_channels * 4, dtype=np.float32).reshape(nb_channels, 4)
    result = force_stereo(audio)
    expected = audio[[0, 0]] if nb_channels == 1 else audio[:2]
    np.testing.assert_array_equal(result, expected)


def test_compose_applies_them_in_order_with_the_same_generator(stereo: np.ndarray) -> None:
    augment = aug_from_str(["channelswap", "gain"])
    result = augment(stereo, np.random.default_rng(5))
    rng = np.random.default_rng(5)
    np.testing.assert_array_equal(result, gain(channelswap(stereo, rng), rng))


@pytest.mark.parametrize("names", [None, [], ()])
def test_no_augmentation_changes_nothing(names: list[str] | None, stereo: np.ndarray) -> None:
    assert aug_from_str(names)(stereo, np.random.default_rng(0)) is stereo


def test_unknown_names_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"'reverb' is not known; there are gain, channelswap"):
        aug_from_str(["gain", "reverb"])


def test_they_can_be_sent_to_other_processes(stereo: np.ndarray) -> None:
    augment = aug_from_str(["gain", "channelswap", "tilt", "force_stereo"])
    again = pickle.loads(pickle.dumps(augment))
    assert again == augment
    np.testing.assert_array_equal(
        again(stereo, np.random.default_rng(3)), augment(stereo, np.random.default_rng(3))
    )


def test_only_the_layout_remains_without_chance() -> None:
    assert aug_from_str(["gain", "force_stereo"]).without_random() == Compose((force_stereo,))
    assert aug_from_str(["gain", "channelswap"]).without_random() == Compose()
