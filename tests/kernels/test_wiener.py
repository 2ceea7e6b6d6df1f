"""The fused Wiener filter against the NumPy reference, whole windows and block by block."""

from __future__ import annotations

import itertools
from dataclasses import asdict

import numpy as np
import pytest
from helpers.asserts import assert_close, assert_finite
from tolerances import TOL

from umx_np.backends.contracts import FilterInput, WienerOptions, scale_of
from umx_np.backends.reference import ReferenceFilter

from .conftest import material

BOUND = TOL["wiener"]["float32"]
NEAR_MONO = TOL["wiener_near_mono"]["float32"]
PLAIN, WITH_RESIDUAL = WienerOptions(), WienerOptions(residual=True)


def filtered(kernels, mix, mags, options=PLAIN, **window):
    y = np.full((len(mags) + options.residual, *mix.shape), np.nan, np.complex64)
    # In pieces that fit neither the lanes nor the blocks of the kernel.
    cuts = [0, 1, 30, mix.shape[-1]] if mix.shape[-1] > 30 else [0, mix.shape[-1]]
    for start, stop in itertools.pairwise(cuts):
        kernels.wiener(mix, mags, y, bin_start=start, bin_stop=stop, **asdict(options), **window)
    return y


def oracle(options, mix, mags, *, iterations, max_abs):
    given = FilterInput(mix.astype(np.complex128), mags, max_abs)
    return ReferenceFilter(options).window(given, iterations)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("softmask", [False, True])
@pytest.mark.parametrize("residual", [False, True])
def test_options(kernels, channels, iterations, softmask, residual):
    mix, mags = material(channels)
    options = WienerOptions(softmask, residual)
    window = {
        "iterations": iterations,
        "max_abs": scale_of(np.abs(mix).max()) if iterations else 1.0,
    }
    expected = oracle(options, mix, mags, **window)
    actual = filtered(kernels, mix, mags, options, **window)
    assert_close(actual, expected, BOUND, dtype=np.complex64)


@pytest.mark.parametrize(
    ("frames", "bins", "targets"), [(1, 1, 1), (2, 31, 1), (1, 64, 7), (30, 33, 4)]
)
@pytest.mark.parametrize("mags", [1, None])
def test_sizes(kernels, frames, bins, targets, mags):
    mix, magnitudes = material(2, frames, bins, targets, mags=mags)
    window = {"iterations": 1, "max_abs": 2.0}
    expected = oracle(WITH_RESIDUAL, mix, magnitudes, **window)
    actual = filtered(kernels, mix, magnitudes, WITH_RESIDUAL, **window)
    assert_close(actual, expected, NEAR_MONO, dtype=np.complex64)


@pytest.mark.parametrize("side", [1e-1, 1e-3, 1e-5, 0.0])
@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_near_mono(kernels, side, gain):
    """Where float32 arithmetic loses everything or returns NaN."""
    mix, mags = material(2, 40, 50, 4, level=50.0, side=side)
    mags *= np.float32(gain)
    window = {"iterations": 2, "max_abs": scale_of(np.abs(mix).max())}
    expected = oracle(PLAIN, mix, mags, **window)
    assert_close(filtered(kernels, mix, mags, **window), expected, NEAR_MONO, dtype=np.complex64)


@pytest.mark.parametrize("level", [0.0, 1e-38, 1e-20, 1e-6, 1e6, 1e18])
@pytest.mark.parametrize("channels", [1, 2])
def test_amplitudes_stay_finite(kernels, level, channels):
    mix, mags = material(channels, level=level)
    max_abs = scale_of(np.abs(mix).max())
    y = filtered(kernels, mix, mags, WITH_RESIDUAL, iterations=2, max_abs=max_abs)
    assert_finite(y, shape=y.shape, dtype=np.complex64)
    if level == 0.0:
        assert not y.any()


def test_silent_bins_have_phase_zero(kernels):
    mix, mags = material()
    mix[:, 3, 7] = 0
    mags[:] = 1.0
    y = filtered(kernels, mix, mags, iterations=0, max_abs=1.0)
    np.testing.assert_array_equal(y[:, :, 3, 7], np.ones((3, 2), np.complex64))


def test_nan_reaches_the_output(kernels):
    mix, mags = material()
    mags[1, 4, 0, 10] = np.nan
    y = filtered(kernels, mix, mags, iterations=1, max_abs=1.0)
    assert np.isnan(y[..., 10]).all()
    assert np.isfinite(np.delete(y, 10, axis=-1)).all()


def test_arguments_are_not_changed(kernels):
    mix, mags = material()
    mix[0, 0, 0] = 0
    kept = mix.copy(), mags.copy()
    for array in (mix, mags):
        array.flags.writeable = False
    filtered(kernels, mix, mags, WITH_RESIDUAL, iterations=2, max_abs=3.0)
    np.testing.assert_array_equal(mix, kept[0])
    np.testing.assert_array_equal(mags, kept[1])


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("softmask", [False, True])
def test_blocks_of_a_track(kernels, channels, residual, softmask):
    """Statistics summed over blocks, then the filter, equal the filter of the whole track."""
    mix, mags = material(channels, frames=20)
    niter, nb_bins, max_abs = 3, mix.shape[-1], scale_of(np.abs(mix).max())
    options = WienerOptions(softmask, residual)
    spans = [slice(0, 1), slice(1, 14), slice(14, 20)]
    blocks = [
        (np.ascontiguousarray(mix[:, span]), np.ascontiguousarray(mags[:, span])) for span in spans
    ]
    statistics = np.zeros((niter, len(mags) + residual, 4, nb_bins))
    exact = np.zeros_like(statistics)
    common = {"bin_start": 0, "bin_stop": nb_bins, "iterations": niter, "max_abs": max_abs}
    common |= asdict(options)
    reference = ReferenceFilter(options)
    for level in range(niter):
        for block in blocks:
            kernels.wiener(*block, None, r=statistics, level=level, **common)
            reference.accumulate(FilterInput(*block, max_abs), exact, level)
    assert_close(statistics, exact, TOL["wiener"]["float64"], dtype=np.float64)
    parts = []
    for block in blocks:
        y = np.empty((len(mags) + residual, *block[0].shape), np.complex64)
        kernels.wiener(*block, y, r=statistics, **common)
        expected = reference.apply(FilterInput(*block, max_abs), exact)
        assert_close(y, expected, BOUND, dtype=np.complex64)
        parts.append(y)
    whole = oracle(options, mix, mags, iterations=niter, max_abs=max_abs)
    assert_close(np.concatenate(parts, axis=2), whole, BOUND, dtype=np.complex64)


def test_wrong_shapes_are_refused(kernels):
    mix, mags = material()
    y = np.empty((3, *mix.shape), np.complex64)
    common = {"bin_start": 0, "bin_stop": 45, "iterations": 1, "max_abs": 1.0, "eps": PLAIN.eps}
    with pytest.raises(ValueError, match=r"y is complex64 of shape \(2"):
        kernels.wiener(mix, mags, y[:2].copy(), **common)
    with pytest.raises(ValueError, match="among the 45 of mix"):
        kernels.wiener(mix, mags, y, **{**common, "bin_stop": 46})
    with pytest.raises(ValueError, match="nb_channels"):
        kernels.wiener(np.zeros((3, 9, 45), np.complex64), mags, y, **common)
