"""The gradient of the Wiener filter on the card, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.asserts import assert_close
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


@pytest.mark.parametrize("window", [1, 7, 40, PIECE_FRAMES + 3])
def test_windows_side_by_side(any_device, window):
    """The last one is shorter; the longest has two pieces of sums."""
    mix, mags = spectra(2, PIECE_FRAMES + 20, 33, 3)
    compare(any_device, mix, mags, window)
