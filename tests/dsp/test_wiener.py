"""The Wiener filter and the EM as functions: layouts, the choice of a backend, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close, relative_l2
from tolerances import TOL

import umx_np
from umx_np.backends.reference import em_iteration
from umx_np.errors import ConfigError, ShapeError

EPS = 1e-10


def material(nb_channels=2, nb_targets=3, *, level=0.5):
    """Mixture (F, B, C), magnitudes (F, B, C, J) and estimates of these with its phase."""
    mix = signals.spectra(12, 7, nb_channels, seed=41, level=level)
    mags = signals.estimates_for(mix, nb_targets, seed=42)
    return mix, mags, mags * np.exp(1j * np.angle(mix))[..., None]


def pairs(x, axis):
    """Real and imaginary parts on an axis of their own."""
    return np.stack([x.real, x.imag], axis=axis)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("nb_channels", [1, 2, 3])
@pytest.mark.parametrize("iterations", [1, 3])
def test_em_is_that_of_the_reference(iterations, nb_channels, dtype):
    complex_dtype = np.result_type(dtype, np.complex64)
    mix, _, y = material(nb_channels)
    mix, y = mix.astype(complex_dtype), y.astype(complex_dtype)
    expected = y.astype(np.complex128)
    for _ in range(iterations):
        expected, v, R = em_iteration(expected, mix.astype(np.complex128), eps=EPS)
    y.flags.writeable = mix.flags.writeable = False
    actual = umx_np.expectation_maximization(y, mix, iterations=iterations)
    for ours, desired, kind in zip(
        actual, (expected, v, R), (complex_dtype, dtype, complex_dtype), strict=True
    ):
        assert_close(ours, desired, TOL["wiener"][dtype], dtype=kind)
    # What the argument was is refined, not returned.
    assert relative_l2(actual[0], y) > 0.01


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_em_of_reals_is_that_of_complex_numbers(dtype):
    mix, _, y = material()
    mix, y = (x.astype(np.result_type(dtype, np.complex64)) for x in (mix, y))
    expected, v, R = umx_np.expectation_maximization(y, mix)
    real_y, real_mix = pairs(y, 3), pairs(mix, -1)
    real_y.flags.writeable = real_mix.flags.writeable = False
    actual = umx_np.expectation_maximization(real_y, real_mix)
    for ours, desired in zip(actual, (pairs(expected, 3), v, pairs(R, 3)), strict=True):
        assert ours.dtype == dtype
        np.testing.assert_array_equal(ours, desired)
    assert actual[0].shape == real_y.shape
    # The mixture may be in the other layout.
    np.testing.assert_array_equal(umx_np.expectation_maximization(y, real_mix)[0], expected)
    np.testing.assert_array_equal(umx_np.expectation_maximization(real_y, mix)[0], actual[0])


def test_em_regularises_with_eps():
    mix, _, y = material(level=1e-3)
    refined = [umx_np.expectation_maximization(y, mix, eps=eps)[0] for eps in (1e-10, 1e-2)]
    expected = y
    for _ in range(2):
        expected, _, _ = em_iteration(expected, mix, eps=1e-2)
    assert_close(refined[1], expected, TOL["wiener"]["float64"], dtype=np.complex128)
    assert relative_l2(refined[0], refined[1]) > 0.1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("options", [{"iterations": 0, "softmask": True}, {"residual": True}])
def test_filter_of_reals_is_that_of_complex_numbers(options, dtype):
    mix, mags, _ = material()
    mags, mix = mags.astype(dtype), mix.astype(np.result_type(dtype, np.complex64))
    expected = umx_np.wiener(mags, mix, **options)
    actual = umx_np.wiener(mags, pairs(mix, -1), **options)
    assert actual.dtype == dtype
    np.testing.assert_array_equal(actual, pairs(expected, 3))


def test_filter_of_whole_numbers():
    """They are as real as others: of so few digits float32 holds all."""
    mix, mags, _ = material(level=20.0)
    whole = np.rint(pairs(mix, -1)).astype(np.int16)
    np.testing.assert_array_equal(
        umx_np.wiener(mags, whole), umx_np.wiener(mags, whole.astype(np.float32))
    )


def test_filter_without_iterations():
    mix, mags, y = material()
    actual = umx_np.wiener(mags, mix, iterations=0)
    assert_close(actual, y, TOL["wiener"]["float64"], dtype=np.complex128)
    shares = mags / (EPS + mags.sum(axis=-1, keepdims=True))
    actual = umx_np.wiener(mags, mix, iterations=0, softmask=True, residual=True)
    expected = mix[..., None] * shares
    rest = mix - expected.sum(axis=-1)
    np.testing.assert_allclose(actual[..., :3], expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(actual[..., 3], rest, atol=1e-14)


@pytest.mark.parametrize("scale_factor", [10.0, 0.5])
def test_filter_of_loud_mixtures(scale_factor):
    """By the EM of what is scaled down so that its loudest bin is `scale_factor`."""
    mix, mags, y = material(level=2.0)
    scale = max(1.0, np.abs(mix).max() / scale_factor)
    assert (scale > 1.0) == (scale_factor == 0.5)
    expected, _, _ = em_iteration(y / scale, mix / scale, eps=1e-4)
    actual = umx_np.wiener(mags, mix, scale_factor=scale_factor, eps=1e-4)
    assert_close(actual, expected * scale, TOL["wiener"]["float64"], dtype=np.complex128)


@pytest.mark.parametrize(
    ("nb_channels", "kinds", "name"),
    [
        (2, ("complex64", "float32"), "cpu"),
        (1, ("complex64", "float16"), "cpu"),
        (3, ("complex64", "float32"), "reference"),
        (2, ("complex128", "float32"), "reference"),
        (2, ("complex64", "float64"), "reference"),
    ],
)
def test_where_it_is_computed(nb_channels, kinds, name, monkeypatch):
    asked = []
    get_backend = umx_np.dsp.wiener.get_backend
    monkeypatch.setattr(
        "umx_np.dsp.wiener.get_backend", lambda device: asked.append(device) or get_backend(device)
    )
    mix, mags, _ = material(nb_channels)
    mix, mags = mix.astype(kinds[0]), mags.astype(kinds[1])
    y = umx_np.wiener(mags, mix)
    assert asked == [name]
    assert y.dtype == mix.dtype
    # Unless a device is asked for.
    umx_np.wiener(mags, mix, device="reference")
    assert asked == [name, "reference"]


@pytest.mark.parametrize(
    ("mags", "mix", "message"),
    [
        ((5, 4, 3), (5, 4, 2), r"targets_spectrograms has shape=\(5, 4, 3\); it must be"),
        ((5, 4, 2, 3), (5, 4), r"mix_stft with shape=\(5, 4\) does not fit"),
        ((5, 4, 2, 3), (6, 4, 2), r"mix_stft with shape=\(6, 4, 2\) does not fit .*\(5, 4, 2, 3\)"),
        ((5, 4, 2, 3), (5, 3, 2), r"mix_stft with shape=\(5, 3, 2\) does not fit"),
        ((5, 4, 2, 3), (5, 4, 1), r"mix_stft with shape=\(5, 4, 1\) does not fit"),
        ((5, 4, 2, 0), (5, 4, 2), "holds no target"),
    ],
)
def test_shapes_that_do_not_fit(mags, mix, message):
    with pytest.raises(ShapeError, match=message):
        umx_np.wiener(np.ones(mags), np.ones(mix, complex))


def test_reals_that_are_no_pairs():
    mags = np.ones((5, 4, 2, 3))
    with pytest.raises(ShapeError, match=r"mix_stft has shape=\(5, 4, 3\); a real array needs"):
        umx_np.wiener(mags, np.ones((5, 4, 3)))
    # One axis of two is that of the channels or that of the parts.
    with pytest.raises(ShapeError, match=r"mix_stft with shape=\(5, 4, 2\) does not fit"):
        umx_np.wiener(mags, np.ones((5, 4, 2)))


def test_channels_that_the_compiled_filter_cannot_take():
    with pytest.raises(ShapeError, match=r"nb_channels=3.*1 or 2 channels"):
        umx_np.wiener(np.ones((5, 4, 3, 2)), np.ones((5, 4, 3), complex), device="cpu")


OPTIONS = [
    ({"iterations": 1.5}, r"iterations=1\.5 must be an integer"),
    ({"iterations": True}, "iterations=True must be an integer"),
    ({"eps": 0.0}, r"eps=0\.0 must be positive"),
    ({"eps": float("nan")}, "eps=nan must be positive"),
]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *OPTIONS,
        ({"iterations": -1}, "iterations=-1 must be at least 0"),
        ({"scale_factor": -1.0}, r"scale_factor=-1\.0 must be positive"),
        ({"scale_factor": float("nan")}, "scale_factor=nan must be positive"),
        ({"device": "gpu"}, "device='gpu'"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ConfigError, match=message):
        umx_np.wiener(np.ones((5, 4, 2, 3)), np.ones((5, 4, 2), complex), **options)


@pytest.mark.parametrize(
    ("options", "message"), [*OPTIONS, ({"iterations": 0}, "iterations=0 must be at least 1")]
)
def test_options_of_the_em_that_make_no_sense(options, message):
    y = np.ones((5, 4, 2, 3), complex)
    with pytest.raises(ConfigError, match=message):
        umx_np.expectation_maximization(y, y[..., 0], **options)


@pytest.mark.parametrize(
    ("y", "x", "message"),
    [
        (np.ones((5, 4, 2, 3)), np.ones((5, 4, 2, 2)), r"y has shape=\(5, 4, 2, 3\); real .* 5 a"),
        (np.ones((5, 4, 2, 3, 2)), np.ones((5, 4, 2, 2)), r"y has shape=.*last axis of 2"),
        (np.ones((5, 4, 2, 2, 3)), np.ones((5, 4, 2, 3)), r"x has shape=\(5, 4, 2, 3\); a real"),
        (np.ones((5, 4, 2, 2, 3)), np.ones((5, 3, 2, 2)), r"x with shape=\(5, 3, 2\) does not fit"),
        (np.ones((5, 4, 2), complex), np.ones((5, 4), complex), r"does not fit y with shape=\(5,"),
        (np.ones((5, 4, 2, 3), complex), np.ones((5, 4, 1), complex), r"x with shape=\(5, 4, 1\)"),
    ],
)
def test_shapes_of_the_em_that_do_not_fit(y, x, message):
    with pytest.raises(ShapeError, match=message):
        umx_np.expectation_maximization(y, x)
