"""The Wiener filter and its EM iterations against openunmix.filtering in float64."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close, assert_finite
from helpers.upstream import options_id
from tolerances import TOL

import umx_np

pytestmark = pytest.mark.parity

DTYPES = ["float32", "float64"]
OPTIONS = [
    {"iterations": iterations, "softmask": softmask, "residual": residual}
    for iterations, softmask, residual in itertools.product((0, 1, 3), (False, True), (False, True))
]


def complex_of(dtype: str) -> np.dtype:
    return np.result_type(dtype, np.complex64)


def decorrelated(nb_frames=23, nb_bins=17, nb_channels=2, *, seed=21, level=5.0):
    return signals.spectra(nb_frames, nb_bins, nb_channels, seed=seed, level=level)


def with_side_level(side_db: float) -> np.ndarray:
    """Mixture whose channels differ by a signal `side_db` below their sum."""
    mid, side = np.moveaxis(decorrelated(seed=22, level=20.0), -1, 0)
    side = side * 10.0 ** (side_db / 20.0)
    return np.stack([mid + side, mid - side], axis=-1)


def run_both(openunmix, estimates, mix, dtype, **options):
    """Filter with both packages, which get identical (rounded) inputs."""
    estimates, mix = estimates.astype(dtype), mix.astype(complex_of(dtype))
    actual = umx_np.wiener(estimates, mix, **options)
    return actual, openunmix.wiener(estimates, mix, **options)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS, ids=options_id)
def test_options(openunmix, options, dtype):
    mix = decorrelated()
    actual, desired = run_both(
        openunmix, signals.estimates_for(mix, 4, seed=23), mix, dtype, **options
    )
    assert_close(actual, desired, TOL["wiener"][dtype], dtype=complex_of(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nb_sources", [2, 3, 5])
@pytest.mark.parametrize("nb_channels", [1, 2])
def test_sources_and_channels(openunmix, nb_channels, nb_sources, dtype):
    mix = decorrelated(nb_channels=nb_channels)
    estimates = signals.estimates_for(mix, nb_sources, seed=24)
    actual, desired = run_both(openunmix, estimates, mix, dtype, iterations=2)
    assert_close(actual, desired, TOL["wiener"][dtype], dtype=complex_of(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("nb_frames", [1, 2, 200, 201])
def test_frame_counts(openunmix, nb_frames, dtype):
    """Upstream sums in batches of 200 frames; this must not be visible."""
    mix = decorrelated(nb_frames, 5)
    estimates = signals.estimates_for(mix, 4, seed=25)
    actual, desired = run_both(openunmix, estimates, mix, dtype, iterations=1)
    assert_close(actual, desired, TOL["wiener"][dtype], dtype=complex_of(dtype))


@pytest.mark.parametrize("level", [1e-3, 0.05, 100.0, 1e4])
def test_levels(openunmix, level):
    """The scaling by the maximum is active above 10 only; the regularisation matters below."""
    mix = decorrelated(level=level)
    estimates = signals.estimates_for(mix, 4, seed=26)
    actual, desired = run_both(openunmix, estimates, mix, "float32", iterations=1, residual=True)
    assert_close(actual, desired, TOL["wiener"]["float32"], dtype=np.complex64)


@pytest.mark.parametrize("softmask", [False, True])
@pytest.mark.parametrize(("scale_factor", "eps"), [(1.0, 1e-10), (10.0, 1e-4), (100.0, 1.0)])
def test_constants(openunmix, scale_factor, eps, softmask):
    mix = decorrelated(level=30.0)
    estimates = signals.estimates_for(mix, 3, seed=27)
    options = {"iterations": 2, "softmask": softmask, "scale_factor": scale_factor, "eps": eps}
    actual, desired = run_both(openunmix, estimates, mix, "float64", **options)
    assert_close(actual, desired, TOL["wiener"]["float64"], dtype=np.complex128)


@pytest.mark.parametrize("options", OPTIONS[4:], ids=options_id)
@pytest.mark.parametrize("side_db", [-20.0, -40.0, -60.0, -80.0, -np.inf])
def test_nearly_equal_channels(openunmix, side_db, options):
    """float32 upstream loses all digits here; float64 upstream is still good to follow."""
    mix = with_side_level(side_db)
    estimates = signals.estimates_for(mix[..., :1], 4, seed=28).repeat(2, axis=2)
    if np.isinf(side_db):  # exactly dual mono: equal estimates in both channels
        estimates = np.abs(mix)[..., None] * 0.3 * np.arange(1, 5)
    actual, desired = run_both(openunmix, estimates, mix, "float32", **options)
    assert_close(actual, desired, TOL["wiener_near_mono"]["float32"], dtype=np.complex64)
    actual, desired = run_both(openunmix, estimates, mix, "float64", **options)
    assert_close(actual, desired, TOL["wiener_near_mono"]["float64"], dtype=np.complex128)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS, ids=options_id)
def test_zero_bins(openunmix, options, dtype):
    """Some bins hold nothing, as in a signal with gaps.

    Unless it masks softly, upstream writes 1 into the mixture there. That makes its residual 1
    instead of 0, and spreads to the other channel where only one is zero. The comparison leaves
    both cases out; in all others the two must agree.
    """
    mix = decorrelated()
    mix[5:9] = 0.0
    mix[:, 3] = 0.0
    if options["softmask"]:
        mix[11, 4, 0] = 0.0
    estimates = signals.estimates_for(mix, 4, seed=29)
    actual, desired = run_both(openunmix, estimates, mix, dtype, **{**options, "residual": False})
    assert_close(actual, desired, TOL["wiener"][dtype], dtype=complex_of(dtype))
    if options["residual"]:
        actual = umx_np.wiener(estimates.astype(dtype), mix.astype(complex_of(dtype)), **options)
        assert_finite(actual, shape=(*mix.shape, 5), dtype=complex_of(dtype))
        assert not actual[5:9].any()
        assert not actual[:, 3].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS, ids=options_id)
def test_one_silent_channel(options, dtype):
    """What is silent in the mixture stays silent in the first estimates; all stays finite."""
    mix = decorrelated().astype(complex_of(dtype))
    mix[..., 1] = 0.0
    estimates = signals.estimates_for(mix, 4, seed=29).astype(dtype)
    actual = umx_np.wiener(estimates, mix, **options)
    assert_finite(actual, shape=(*mix.shape, 4 + options["residual"]), dtype=complex_of(dtype))
    assert not actual[..., 1, :].any()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("options", OPTIONS, ids=options_id)
def test_silence_stays_silent(options, dtype):
    mix = np.zeros((6, 5, 2), complex_of(dtype))
    actual = umx_np.wiener(np.zeros((6, 5, 2, 4), dtype), mix, **options)
    assert_finite(actual, shape=(6, 5, 2, 4 + options["residual"]), dtype=complex_of(dtype))
    assert not actual.any()


def test_upstream_residual_of_silence_is_one(openunmix):
    """The defect behind `test_zero_bins`: if this fails, upstream has been mended."""
    desired = openunmix.wiener(
        np.zeros((2, 3, 2, 4)), np.zeros((2, 3, 2), complex), iterations=0, residual=True
    )
    np.testing.assert_array_equal(desired[..., 4], np.ones((2, 3, 2)))


@pytest.mark.parametrize("options", OPTIONS, ids=options_id)
def test_pairs_of_reals(openunmix, options):
    """A mixture with a last axis of two comes back in upstream's real layout."""
    mix = decorrelated()
    estimates = signals.estimates_for(mix, 4, seed=30)
    desired = openunmix.wiener(estimates, mix, **options)
    pairs = np.stack([mix.real, mix.imag], axis=-1)
    actual = umx_np.wiener(estimates, pairs, **options)
    assert actual.shape == (*mix.shape, 2, 4 + options["residual"])
    joined = actual[..., 0, :] + 1j * actual[..., 1, :]
    assert_close(joined, desired, TOL["wiener"]["float64"], dtype=np.complex128)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("iterations", [1, 2, 4])
@pytest.mark.parametrize("nb_channels", [1, 2])
def test_expectation_maximization(openunmix, nb_channels, iterations, dtype):
    """Estimates, power spectral densities and spatial covariances."""
    mix = decorrelated(nb_channels=nb_channels, level=0.5).astype(complex_of(dtype))
    phases = np.exp(1j * np.angle(mix))[..., None]
    y = (signals.estimates_for(mix, 3, seed=31) * phases).astype(complex_of(dtype))
    before = y.copy()
    actual = umx_np.expectation_maximization(y, mix, iterations=iterations)
    desired = openunmix.expectation_maximization(y, mix, iterations=iterations)
    np.testing.assert_array_equal(y, before)  # upstream writes into it
    expected_dtypes = (complex_of(dtype), np.dtype(dtype), complex_of(dtype))
    for ours, theirs, expected in zip(actual, desired, expected_dtypes, strict=True):
        assert_close(ours, theirs, TOL["wiener"][dtype], dtype=expected)
