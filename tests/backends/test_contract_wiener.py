"""The Wiener filter of every backend against the specification in double precision."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close, assert_finite
from helpers.material import material
from tolerances import TOL

import umx_np
from umx_np.backends.contracts import FilterInput, WienerOptions, scale_of
from umx_np.backends.reference import ReferenceFilter
from umx_np.errors import ShapeError

BOUND = TOL["wiener"]["float32"]
NEAR_MONO = TOL["wiener_near_mono"]["float32"]
PLAIN, WITH_RESIDUAL = WienerOptions(), WienerOptions(residual=True)


def expected_of(mix, mags, options=PLAIN, *, iterations, max_abs):
    given = FilterInput(mix.astype(np.complex128), mags, max_abs)
    return ReferenceFilter(options).window(given, iterations)


def compare(ops, mix, mags, options=PLAIN, *, tolerance=BOUND, **window):
    given = FilterInput(mix, mags, window["max_abs"])
    actual = ops.wiener(options).window(given, window["iterations"])
    expected = expected_of(mix, mags, options, **window)
    assert_close(actual, expected, tolerance, dtype=np.complex64)


@pytest.mark.parametrize(("channels", "mag_channels"), [(1, None), (2, None), (2, 1)])
@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("softmask", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_options(ops, channels, mag_channels, targets, iterations, softmask, residual):
    mix, mags = material(channels, 11, targets=targets, mags=mag_channels)
    # Silence in some places.
    mix[:, 3], mags[-1, 5] = 0.0, 0.0
    window = {"iterations": iterations, "max_abs": scale_of(np.abs(mix).max())}
    compare(ops, mix, mags, WienerOptions(softmask, residual), **window)


@pytest.mark.parametrize(
    ("frames", "bins", "targets"), [(1, 1, 1), (2, 31, 1), (1, 64, 7), (30, 33, 4), (2, 515, 2)]
)
@pytest.mark.parametrize("mags", [1, None])
def test_sizes(ops, frames, bins, targets, mags):
    """Of fewer bins than a vector has, of more than a thread takes at a time."""
    mix, magnitudes = material(2, frames, bins, targets, mags=mags)
    window = {"iterations": 1, "max_abs": 2.0}
    compare(ops, mix, magnitudes, WITH_RESIDUAL, tolerance=NEAR_MONO, **window)


@pytest.mark.parametrize("side", [1e-1, 1e-3, 1e-5, 0.0])
@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_near_mono(ops, side, gain):
    """Where float32 arithmetic loses everything or returns NaN."""
    mix, mags = material(2, 40, 50, 4, level=50.0, side=side)
    mags *= np.float32(gain)
    window = {"iterations": 2, "max_abs": scale_of(np.abs(mix).max())}
    compare(ops, mix, mags, tolerance=NEAR_MONO, **window)


@pytest.mark.parametrize("level", [1e-12, 1e-6, 1e-3, 1e4, 1e6, 1e12])
@pytest.mark.parametrize("iterations", [0, 2])
@pytest.mark.parametrize("channels", [1, 2])
def test_faint_and_loud(ops, level, iterations, channels):
    mix, mags = material(channels, level=level)
    window = {"iterations": iterations, "max_abs": scale_of(np.abs(mix).max())}
    compare(ops, mix, mags, WITH_RESIDUAL, **window)


@pytest.mark.parametrize("level", [0.0, 1e-38, 1e-20, 1e18])
@pytest.mark.parametrize("channels", [1, 2])
def test_amplitudes_stay_finite(ops, level, channels):
    mix, mags = material(channels, level=level)
    max_abs = scale_of(np.abs(mix).max())
    y = ops.wiener(WITH_RESIDUAL).window(FilterInput(mix, mags, max_abs), 2)
    assert_finite(y, shape=(4, *mix.shape), dtype=np.complex64)
    if level == 0.0:
        assert not y.any()


def test_silent_bins_have_phase_zero(ops):
    mix, mags = material()
    mix[:, 3, 7] = 0
    mags[:] = 1.0
    y = ops.wiener(PLAIN).window(FilterInput(mix, mags), 0)
    np.testing.assert_array_equal(y[:, :, 3, 7], np.ones((3, 2), np.complex64))


def test_nan_reaches_the_output_of_its_bin(ops):
    mix, mags = material()
    mags[1, 4, 0, 10] = np.nan
    with np.errstate(invalid="ignore"):  # of the specification
        y = ops.wiener(PLAIN).window(FilterInput(mix, mags), 1)
    assert np.isnan(y[..., 10]).all()
    assert np.isfinite(np.delete(y, 10, axis=-1)).all()


def test_arguments_are_not_changed_and_results_repeat(ops):
    mix, mags = material(frames=90)
    mix[0, 0, 0] = 0
    kept = mix.copy(), mags.copy()
    for array in (mix, mags):
        array.flags.writeable = False
    wiener = ops.wiener(WITH_RESIDUAL)
    given = FilterInput(mix, mags, 3.0)
    first = wiener.window(given, 2)
    np.testing.assert_array_equal(mix, kept[0])
    np.testing.assert_array_equal(mags, kept[1])
    out = np.full_like(first, np.nan)
    assert wiener.window(given, 2, out) is out
    np.testing.assert_array_equal(out, first)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("softmask", [False, True])
def test_blocks_of_a_track(ops, channels, residual, softmask):
    """Statistics summed over blocks, then the filter, equal the filter of the whole track."""
    mix, mags = material(channels, frames=20)
    niter, max_abs = 3, scale_of(np.abs(mix).max())
    options = WienerOptions(softmask, residual)
    blocks = [
        FilterInput(
            np.ascontiguousarray(mix[:, span]), np.ascontiguousarray(mags[:, span]), max_abs
        )
        for span in (slice(0, 1), slice(1, 14), slice(14, 20))
    ]
    statistics = np.zeros((niter, len(mags) + residual, 4, mix.shape[-1]))
    oracle = np.zeros_like(statistics)
    wiener, reference = ops.wiener(options), ReferenceFilter(options)
    for level in range(niter):
        for block in blocks:
            wiener.accumulate(block, statistics, level)
            reference.accumulate(block, oracle, level)
    assert_close(statistics, oracle, TOL["wiener"]["float64"], dtype=np.float64)
    parts = []
    for block in blocks:
        y = wiener.apply(block, statistics)
        expected = reference.apply(block, oracle)
        assert_close(y, expected, BOUND, dtype=np.complex64)
        out = np.full_like(y, np.nan)
        assert wiener.apply(block, statistics, out) is out
        np.testing.assert_array_equal(out, y)
        parts.append(y)
    whole = expected_of(mix, mags, options, iterations=niter, max_abs=max_abs)
    assert_close(np.concatenate(parts, axis=2), whole, BOUND, dtype=np.complex64)


@pytest.mark.parametrize("nb_channels", [1, 2])
@pytest.mark.parametrize("iterations", [0, 2])
def test_public_function(ops, nb_channels, iterations):
    mix = signals.spectra(20, 33, nb_channels, level=40.0)
    mags = signals.estimates_for(mix, 3)
    y = umx_np.wiener(
        mags.astype(np.float32), mix.astype(np.complex64), iterations, residual=True, device=ops
    )
    expected = umx_np.wiener(mags, mix, iterations, residual=True, device="reference")
    assert_close(y, expected, BOUND, dtype=np.complex64)
    assert umx_np.wiener(mags[:0], mix[:0], iterations, device=ops).shape == (0, *y.shape[1:3], 3)


def test_more_channels(ops):
    mix, mags = material(3, 4, 5, 2)
    if ops.max_channels is None:
        y = ops.wiener(PLAIN).window(FilterInput(mix, mags), 1)
        assert_finite(y, shape=(2, *mix.shape), dtype=np.complex64)
        return
    with pytest.raises(ShapeError, match="nb_channels=3"):
        ops.wiener(PLAIN).window(FilterInput(mix, mags), 1)
    with pytest.raises(ShapeError, match="nb_channels=3"):
        umx_np.wiener(np.ones((4, 5, 3, 2)), np.ones((4, 5, 3), complex), device=ops)
