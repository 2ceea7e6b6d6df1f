"""Augmentations do what their names say, with the random numbers they are given."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from umx_np.data import Compose, aug_from_str, channelswap, force_stereo, gain
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


@pytest.mark.parametrize("nb_channels", [1, 3])
def test_only_stereo_is_swapped(nb_channels: int) -> None:
    audio = np.arange(nb_channels * 4, dtype=np.float32).reshape(nb_channels, 4)
    rng = np.random.default_rng(0)
    for _ in range(20):
        np.testing.assert_array_equal(channelswap(audio, rng), audio)


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
    augment = aug_from_str(["gain", "channelswap", "force_stereo"])
    again = pickle.loads(pickle.dumps(augment))
    assert again == augment
    np.testing.assert_array_equal(
        again(stereo, np.random.default_rng(3)), augment(stereo, np.random.default_rng(3))
    )


def test_only_the_layout_remains_without_chance() -> None:
    assert aug_from_str(["gain", "force_stereo"]).without_random() == Compose((force_stereo,))
    assert aug_from_str(["gain", "channelswap"]).without_random() == Compose()
