"""The Wiener filter on the card, against the reference."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close
from tolerances import TOL

from umx_np.backends.contracts import FilterInput, WienerOptions
from umx_np.backends.reference import ReferenceFilter
from umx_np.cuda.ops import PIECE_FRAMES, WienerFilter
from umx_np.errors import ShapeError

PLAIN, WITH_RESIDUAL = WienerOptions(), WienerOptions(residual=True)


def spectra(nb_channels, nb_frames, nb_bins, nb_targets, *, mag_channels=None, level=5.0, seed=0):
    """Mixture and magnitudes in the backends' layout, with silence in some places."""
    mix = signals.spectra(nb_frames, nb_bins, nb_channels, seed=seed, level=level)
    mags = signals.estimates_for(mix, nb_targets, seed=seed)
    if mag_channels == 1:
        mags = mags.mean(axis=2, keepdims=True)
    mix[nb_frames // 3] = 0.0
    mags[-1] = 0.0
    return (
        np.ascontiguousarray(mix.transpose(2, 0, 1)).astype(np.complex64),
        np.ascontiguousarray(mags.transpose(3, 0, 2, 1)).astype(np.float32),
    )


def on_card(device, mix, mags, scales):
    return (
        device.xp.asarray(mix),
        device.xp.asarray(mags),
        device.xp.asarray(np.array(scales, np.float64)),
    )


def filter_for(device, mix, mags, options=PLAIN) -> WienerFilter:
    return WienerFilter(
        device, options, nb_targets=len(mags), nb_channels=len(mix), mag_channels=mags.shape[2]
    )


@pytest.mark.parametrize("softmask", [False, True])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("nb_channels", "mag_channels"), [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("nb_targets", [1, 3])
@pytest.mark.parametrize("iterations", [0, 1, 3])
def test_one_window(
    emulated_device, softmask, residual, nb_channels, mag_channels, nb_targets, iterations
):
    mix, mags = spectra(nb_channels, 11, 35, nb_targets, mag_channels=mag_channels)
    options = WienerOptions(softmask, residual)
    wiener = filter_for(emulated_device, mix, mags, options)
    scale = 1.7 if iterations else 1.0
    y = wiener.windows(
        *on_card(emulated_device, mix, mags, [scale]), window=11, iterations=iterations
    )
    expected = ReferenceFilter(options).window(FilterInput(mix, mags, scale), iterations)
    assert_close(y.get(), expected, TOL["wiener"]["float32"], dtype=np.complex64)


@pytest.mark.parametrize("level", [1e-12, 1e-3, 1e4, 1e12])
@pytest.mark.parametrize("iterations", [0, 2])
def test_faint_and_loud(any_device, level, iterations):
    mix, mags = spectra(2, 9, 33, 2, level=level)
    scale = max(1.0, float(np.abs(mix).max()) / 10) if iterations else 1.0
    y = filter_for(any_device, mix, mags, WITH_RESIDUAL).windows(
        *on_card(any_device, mix, mags, [scale]), window=9, iterations=iterations
    )
    expected = ReferenceFilter(WITH_RESIDUAL).window(FilterInput(mix, mags, scale), iterations)
    assert_close(y.get(), expected, TOL["wiener"]["float32"], dtype=np.complex64)


def test_silence(any_device):
    mix, mags = np.zeros((2, 5, 9), np.complex64), np.zeros((2, 5, 2, 9), np.float32)
    y = filter_for(any_device, mix, mags, WITH_RESIDUAL).windows(
        *on_card(any_device, mix, mags, [1.0]), window=5, iterations=2
    )
    np.testing.assert_array_equal(y.get(), np.zeros((3, 2, 5, 9)))


def test_near_mono(any_device):
    """Where float32 would lose everything."""
    mix, mags = spectra(2, 20, 12, 3)
    mix[1] = mix[0] * (1 + 1e-6)
    mags[:, :, 1] = mags[:, :, 0]
    y = filter_for(any_device, mix, mags).windows(
        *on_card(any_device, mix, mags, [1.0]), window=20, iterations=2
    )
    expected = ReferenceFilter(PLAIN).window(FilterInput(mix, mags), 2)
    assert_close(y.get(), expected, TOL["wiener_near_mono"]["float32"], dtype=np.complex64)


@pytest.mark.parametrize("window", [1, 7, 40, 100])
def test_windows_side_by_side(any_device, window):
    """Each window is filtered by itself; the last is shorter. Only the sources asked for."""
    nb_frames = 40
    mix, mags = spectra(2, nb_frames, 33, 2)
    nb_windows = -(-nb_frames // window)
    scales = np.linspace(1.0, 2.0, nb_windows)
    y = filter_for(any_device, mix, mags, WITH_RESIDUAL).windows(
        *on_card(any_device, mix, mags, scales), window=window, iterations=1, nb_written=2
    )
    expected = [
        ReferenceFilter(WITH_RESIDUAL).window(
            FilterInput(
                mix[:, i * window : (i + 1) * window],
                mags[:, i * window : (i + 1) * window],
                scale,
            ),
            iterations=1,
        )[:2]
        for i, scale in enumerate(scales)
    ]
    expected = np.concatenate(expected, axis=2)
    assert_close(y.get(), expected, TOL["wiener"]["float32"], dtype=np.complex64)


@pytest.mark.parametrize("group", [PIECE_FRAMES - 1, 2 * PIECE_FRAMES])
def test_a_track_in_blocks(any_device, group):
    """Statistics of blocks add up to those of the track."""
    nb_frames, iterations = 2 * PIECE_FRAMES + 9, 2
    mix, mags = spectra(2, nb_frames, 10, 2)
    wiener = filter_for(any_device, mix, mags)
    statistics = wiener.statistics(1, iterations, 10)
    parts = [
        (
            np.ascontiguousarray(mix[:, i : i + group]),
            np.ascontiguousarray(mags[:, i : i + group]),
        )
        for i in range(0, nb_frames, group)
    ]
    for level in range(iterations):
        for part in parts:
            wiener.accumulate(
                *on_card(any_device, *part, [1.5]),
                statistics,
                level=level,
                window=part[0].shape[1],
            )
    y = [
        wiener.apply(*on_card(any_device, *part, [1.5]), statistics, window=part[0].shape[1])
        for part in parts
    ]
    expected = ReferenceFilter(PLAIN).window(FilterInput(mix, mags, 1.5), iterations)
    result = np.concatenate([part.get() for part in y], axis=2)
    assert_close(result, expected, TOL["wiener"]["float32"], dtype=np.complex64)


def test_results_repeat_bit_for_bit(any_device):
    mix, mags = spectra(2, 90, 40, 3)
    wiener = filter_for(any_device, mix, mags)
    first, second = (
        wiener.windows(*on_card(any_device, mix, mags, [1.0]), window=90, iterations=2).get()
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_more_channels_are_refused(emulated_device):
    mix, mags = spectra(3, 4, 5, 2)
    with pytest.raises(ShapeError, match="nb_channels=3"):
        filter_for(emulated_device, mix, mags)
