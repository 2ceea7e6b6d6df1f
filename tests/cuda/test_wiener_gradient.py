"""The gradient of the Wiener filter on the card, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.asserts import assert_close, assert_finite
from test_ops_wiener import on_card, spectra
from tolerances import TOL

from umx_np.backends.contracts import WienerOptions
from umx_np.cuda.ops import PIECE_FRAMES, WienerFilter
from umx_np.cuda.wiener_gradient import WienerGradient
from umx_np.dsp.gradients import wiener_backward

EPS = WienerOptions().eps


def gradient_of(mix, nb_targets, seed=5):
    rng = np.random.default_rng(seed)
    parts = rng.standard_normal((2, nb_targets, *mix.shape))
    return (parts[0] + 1j * parts[1]).astype(np.complex64)


def computed(device, mix, mags, d_y, scales, window):
    sizes = {"nb_targets": len(mags), "nb_channels": len(mix), "mag_channels": mags.shape[2]}
    filters = WienerFilter(device, WienerOptions(), **sizes)
    arrays = on_card(device, mix, mags, scales)
    statistics = filters.statistics(len(scales), 1, mix.shape[2])
    filters.accumulate(*arrays, statistics, level=0, window=window)
    gradient = WienerGradient(device, EPS, **sizes)
    mix, mags, scales = arrays
    d_y = device.xp.asarray(d_y)
    return gradient(mix, mags, d_y, scales, statistics, window=window).get()


def expected(mix, mags, d_y, window):
    """Each window by the oracle, which finds the scale itself."""
    parts = [
        wiener_backward(
            d_y[:, :, frames].transpose(2, 3, 1, 0).astype(np.complex128),
            mags[:, frames].transpose(1, 3, 2, 0).astype(np.float64),
            mix[:, frames].transpose(1, 2, 0).astype(np.complex128),
        )[0]
        for frames in windows_of(mix, window)
    ]
    return np.concatenate(parts).transpose(3, 0, 2, 1)


def windows_of(mix, window):
    return [slice(first, first + window) for first in range(0, mix.shape[1], window)]


def scales_of(mix, window):
    return [max(1.0, float(np.abs(mix[:, w]).max()) / 10.0) for w in windows_of(mix, window)]


def compare(device, mix, mags, window, tolerance=TOL["wiener_gradient"]["float32"]):
    d_y = gradient_of(mix, len(mags))
    actual = computed(device, mix, mags, d_y, scales_of(mix, window), window)
    assert_close(actual, expected(mix, mags, d_y, window), tolerance, dtype=np.float32)


@pytest.mark.parametrize(("nb_channels", "mag_channels"), [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("nb_targets", [1, 2, 4])
@pytest.mark.parametrize("level", [0.05, 5.0])
def test_one_window(emulated_device, nb_channels, mag_channels, nb_targets, level):
    mix, mags = spectra(
        nb_channels, 11, 35, nb_targets, mag_channels=mag_channels, level=level, seed=2
    )
    compare(emulated_device, mix, mags, 11)


@pytest.mark.parametrize("window", [1, 7, 40, PIECE_FRAMES + 3])
def test_windows_side_by_side(any_device, window):
    """The last one is shorter; the longest has two pieces of sums."""
    mix, mags = spectra(2, PIECE_FRAMES + 20, 33, 3)
    compare(any_device, mix, mags, window)


def test_near_mono(any_device):
    """Where float32 would lose everything."""
    mix, mags = spectra(2, 20, 12, 3)
    mix[1] = mix[0] * (1 + 1e-6)
    mags[:, :, 1] = mags[:, :, 0]
    compare(any_device, mix, mags, 20, TOL["wiener_near_mono"]["float32"])


def test_silence(any_device):
    mix, mags = np.zeros((2, 5, 9), np.complex64), np.zeros((2, 5, 2, 9), np.float32)
    d_mags = computed(any_device, mix, mags, gradient_of(mix, 2), [1.0], 5)
    np.testing.assert_array_equal(d_mags, np.zeros_like(mags))


def test_nan_stays_in_its_bin(any_device):
    mix, mags = spectra(2, 10, 35, 2)
    d_y = gradient_of(mix, 2)
    d_y[1, 0, 4, 10] = np.nan
    d_mags = computed(any_device, mix, mags, d_y, [1.0], 10)
    assert np.isnan(d_mags[..., 10]).any()
    rest = np.delete(d_mags, 10, axis=-1)
    assert_finite(rest, shape=rest.shape, dtype=np.float32)


def test_results_repeat_bit_for_bit(any_device):
    mix, mags = spectra(2, 90, 40, 3)
    d_y = gradient_of(mix, 3)
    first, second = (computed(any_device, mix, mags, d_y, [1.0], 90) for _ in range(2))
    np.testing.assert_array_equal(first, second)
