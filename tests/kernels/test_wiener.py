"""The kernels of the Wiener filter and of its gradient; what they compute is tested in backends."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers.material import gradient_of, material

from umx_np.backends.contracts import DEFAULT_EPS

# Parts that fit neither the lanes nor the blocks of a kernel.
CUTS = [0, 1, 30, 45]
MAX_ABS = 2.0


def filtered(kernels, mix, mags, cuts):
    y = np.full((len(mags) + 1, *mix.shape), np.nan, np.complex64)
    options = {"iterations": 2, "max_abs": MAX_ABS, "residual": True, "eps": DEFAULT_EPS}
    for start, stop in itertools.pairwise(cuts):
        kernels.wiener(mix, mags, y, bin_start=start, bin_stop=stop, **options)
    return y


def gradient(kernels, mix, mags, cuts):
    d_y, d_mags = gradient_of(mix, len(mags)), np.full_like(mags, np.nan)
    options = {"max_abs": MAX_ABS, "eps": DEFAULT_EPS}
    for start, stop in itertools.pairwise(cuts):
        kernels.wiener_gradient(mix, mags, d_y, d_mags, bin_start=start, bin_stop=stop, **options)
    return d_mags


@pytest.mark.parametrize("compute", [filtered, gradient])
@pytest.mark.parametrize("channels", [1, 2])
def test_parts_of_the_bins_make_the_whole(kernels, compute, channels):
    mix, mags = material(channels)
    whole = compute(kernels, mix, mags, [0, 45])
    assert np.isfinite(whole).all()
    np.testing.assert_allclose(compute(kernels, mix, mags, CUTS), whole, rtol=1e-6)
    # Nothing is written beside a part.
    part = compute(kernels, mix, mags, [1, 30])
    assert np.isnan(part[..., :1]).all()
    assert np.isnan(part[..., 30:]).all()
    assert np.isfinite(part[..., 1:30]).all()


def test_arguments_of_the_filter_are_checked(kernels):
    mix, mags = material()
    y = np.empty((3, *mix.shape), np.complex64)
    common = {"bin_start": 0, "bin_stop": 45, "iterations": 1, "max_abs": 1.0, "eps": DEFAULT_EPS}
    with pytest.raises(ValueError, match=r"y is complex64 of shape \(2"):
        kernels.wiener(mix, mags, y[:2].copy(), **common)
    with pytest.raises(ValueError, match="among the 45 of mix"):
        kernels.wiener(mix, mags, y, **{**common, "bin_stop": 46})
    with pytest.raises(ValueError, match="nb_channels"):
        kernels.wiener(np.zeros((3, 9, 45), np.complex64), mags, y, **common)


def test_arguments_of_the_gradient_are_checked(kernels):
    mix, mags = material()
    d_y, d_mags = gradient_of(mix, len(mags)), np.empty_like(mags)
    common = {"bin_start": 0, "bin_stop": 45, "max_abs": 1.0, "eps": 1e-10}
    with pytest.raises(ValueError, match=r"d_y is complex64 of shape \("):
        kernels.wiener_gradient(mix, mags, d_y[:2].copy(), d_mags, **common)
    with pytest.raises(ValueError, match="d_y is complex128"):
        kernels.wiener_gradient(mix, mags, d_y.astype(np.complex128), d_mags, **common)
    with pytest.raises(ValueError, match="d_mags have shape"):
        kernels.wiener_gradient(mix, mags, d_y, d_mags[:2].copy(), **common)
    with pytest.raises(ValueError, match="bins"):
        kernels.wiener_gradient(mix, mags, d_y, d_mags, **{**common, "bin_stop": 46})
    with pytest.raises(ValueError, match=r"max_abs=0\.0 and eps"):
        kernels.wiener_gradient(mix, mags, d_y, d_mags, **{**common, "max_abs": 0.0})
