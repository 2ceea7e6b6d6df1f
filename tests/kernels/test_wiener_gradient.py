"""The gradient of the magnitudes through the fused Wiener filter, against NumPy's."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers.asserts import assert_close, assert_finite
from tolerances import TOL

from umx_np.backends.contracts import DEFAULT_EPS
from umx_np.devices import get_backend
from umx_np.dsp.gradients import wiener_backward, wiener_magnitudes_backward
from umx_np.errors import ConfigError, ShapeError

from .conftest import material

BOUND = TOL["wiener_gradient"]["float32"]
CANCELLING = TOL["wiener_gradient_one_frame"]["float32"]


def gradient_of(mix, targets, seed=1):
    """Some gradient of the estimates (J, C, F, B) complex64."""
    parts = np.random.default_rng(seed).standard_normal((2, targets, *mix.shape))
    return (parts[0] + 1j * parts[1]).astype(np.complex64)


def oracle(mix, mags, d_y, scale_factor=10.0, eps=DEFAULT_EPS):
    """`wiener_backward` in double precision, which wants the frames first."""
    d_mags, _ = wiener_backward(
        d_y.transpose(2, 3, 1, 0).astype(np.complex128),
        mags.transpose(1, 3, 2, 0).astype(np.float64),
        mix.transpose(1, 2, 0).astype(np.complex128),
        scale_factor=scale_factor,
        eps=eps,
    )
    return d_mags.transpose(3, 0, 2, 1)


def computed(kernels, mix, mags, d_y, *, max_abs=1.0, eps=DEFAULT_EPS):
    d_mags = np.full_like(mags, np.nan)
    # In pieces that fit neither the lanes nor each other.
    cuts = [0, 1, 30, mix.shape[-1]] if mix.shape[-1] > 30 else [0, mix.shape[-1]]
    for start, stop in itertools.pairwise(cuts):
        kernels.wiener_gradient(
            mix, mags, d_y, d_mags, bin_start=start, bin_stop=stop, max_abs=max_abs, eps=eps
        )
    return d_mags


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("frames", "bins", "targets"), [(1, 1, 1), (2, 31, 1), (1, 64, 7), (30, 33, 4), (9, 45, 3)]
)
@pytest.mark.parametrize("mags", [1, None])
def test_sizes(kernels, channels, frames, bins, targets, mags):
    mix, magnitudes = material(channels, frames, bins, targets, level=0.5, mags=mags)
    d_y = gradient_of(mix, targets)
    for array in (mix, magnitudes, d_y):
        array.flags.writeable = False
    actual = computed(kernels, mix, magnitudes, d_y)
    # One source has all of a single frame whatever its magnitude: what is left of the gradient is
    # the rounding of terms that cancel.
    bound = CANCELLING if frames == targets == 1 else BOUND
    assert_close(actual, oracle(mix, magnitudes, d_y), bound, dtype=np.float32)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("eps", [1e-10, 1e-2])
def test_loud_mixtures_are_scaled_down(kernels, channels, eps):
    mix, mags = material(channels, level=50.0)
    d_y = gradient_of(mix, len(mags))
    max_abs = float(np.abs(mix).max()) / 10.0
    actual = computed(kernels, mix, mags, d_y, max_abs=max_abs, eps=eps)
    assert_close(actual, oracle(mix, mags, d_y, eps=eps), BOUND, dtype=np.float32)


@pytest.mark.parametrize("side", [1e-1, 1e-3, 1e-5, 0.0])
@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_near_mono(kernels, side, gain):
    """Where float32 arithmetic would lose everything."""
    mix, mags = material(2, 40, 50, 4, side=side)
    mags *= np.float32(gain)
    d_y = gradient_of(mix, len(mags))
    scale = max(1.0, float(np.abs(mix).max()) / 10.0)
    actual = computed(kernels, mix, mags, d_y, max_abs=scale)
    assert_close(actual, oracle(mix, mags, d_y), BOUND, dtype=np.float32)


@pytest.mark.parametrize("level", [0.0, 1e-38, 1e-20, 1e-6, 1e6, 1e18])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("size", [1e-15, 1.0, 1e15])
def test_amplitudes(kernels, level, channels, size):
    mix, mags = material(channels, level=level)
    d_y = gradient_of(mix, len(mags)) * np.float32(size)
    scale = max(1.0, float(np.abs(mix).max()) / 10.0)
    d_mags = computed(kernels, mix, mags, d_y, max_abs=scale)
    assert_finite(d_mags, shape=mags.shape, dtype=np.float32)
    expected = oracle(mix, mags, d_y).astype(np.float32)
    peak = np.abs(expected).max()
    # Under the smallest normal number there are fewer digits.
    assert np.abs(d_mags - expected).max() <= 1e-6 * peak + np.finfo(np.float32).tiny
    assert bool(peak) == bool(level) or peak < np.finfo(np.float32).tiny


@pytest.mark.parametrize("gain", [1e-6, 1e6])
def test_magnitudes_unlike_the_mixture(kernels, gain):
    mix, mags = material(level=0.5)
    mags *= np.float32(gain)
    d_y = gradient_of(mix, len(mags))
    expected = oracle(mix, mags, d_y)
    actual = computed(kernels, mix, mags, d_y)
    assert_close(actual, expected, CANCELLING, dtype=np.float32)


def test_silent_bins_have_phase_zero(kernels):
    mix, mags = material(level=0.5)
    mix[:, 3, 7] = 0
    mix[0, 5, 8] = 0
    d_y = gradient_of(mix, len(mags))
    actual = computed(kernels, mix, mags, d_y)
    assert_close(actual, oracle(mix, mags, d_y), BOUND, dtype=np.float32)


def test_nan_stays_in_its_bin(kernels):
    mix, mags = material()
    d_y = gradient_of(mix, len(mags))
    d_y[1, 0, 4, 10] = np.nan
    d_mags = computed(kernels, mix, mags, d_y)
    assert np.isnan(d_mags[..., 10]).any()
    assert np.isfinite(np.delete(d_mags, 10, axis=-1)).all()


def test_arguments_are_checked(kernels):
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


# -- umx_np.dsp.gradients.wiener_magnitudes_backward ---------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scale_factor": 0.5, "eps": 1e-4},
        {"iterations": 0},
        {"iterations": 2},
        {"softmask": True},
        {"residual": True},
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_the_first_result_of_wiener_backward(options, dtype, threads, monkeypatch):
    mix, mags = material(2, 9, 200, 3)
    mix, mags = mix.transpose(1, 2, 0), mags.transpose(1, 3, 2, 0).astype(dtype)
    mix = mix.astype(np.result_type(dtype, np.complex64))
    rng = np.random.default_rng(2)
    shape = (*mix.shape, 3 + options.get("residual", False))
    d_y = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(mix.dtype)
    desired, _ = wiener_backward(d_y, mags, mix, **options)
    ops = get_backend("cpu", threads)
    calls = []
    kernel = ops.wiener_gradient
    monkeypatch.setattr(
        ops, "wiener_gradient", lambda *a, **k: calls.append(a) or kernel(*a, **k), raising=True
    )
    actual = wiener_magnitudes_backward(d_y, mags, mix, **options, device=ops)
    assert_close(actual, desired, BOUND, dtype=dtype)
    usual = dtype == np.float32 and not {"iterations", "softmask", "residual"} & options.keys()
    assert len(calls) == usual
    slow = wiener_magnitudes_backward(d_y, mags, mix, **options, device="reference")
    np.testing.assert_array_equal(slow, desired)


@pytest.mark.parametrize(("channels", "mag_channels"), [(1, 1), (2, 1), (3, 3)])
def test_other_channels_and_arguments_that_may_not_be_written_to(channels, mag_channels):
    mix, mags = material(channels, 9, 40, 3, mags=1 if mag_channels < channels else None)
    mix, mags = mix.transpose(1, 2, 0), mags.transpose(1, 3, 2, 0)
    assert mags.shape[2] == mag_channels
    d_y = gradient_of(mix.transpose(2, 0, 1), 3).transpose(2, 3, 1, 0)
    for array in (mix, mags, d_y):
        array.flags.writeable = False
    desired, _ = wiener_backward(d_y, mags, mix)
    actual = wiener_magnitudes_backward(d_y, mags, mix)
    assert_close(actual, desired, BOUND, dtype=np.float32)
    # Without any target there is no gradient either.
    assert wiener_magnitudes_backward(d_y[..., :0], mags[..., :0], mix).shape == (
        9,
        40,
        mag_channels,
        0,
    )


def test_a_gradient_in_double_precision_is_not_cut():
    mix, mags = material(2, 4, 5, 3, level=0.5)
    mix, mags = mix.transpose(1, 2, 0), mags.transpose(1, 3, 2, 0)
    d_y = 1e-50 * gradient_of(mix.transpose(2, 0, 1), 3).transpose(2, 3, 1, 0).astype(np.complex128)
    desired, _ = wiener_backward(d_y, mags, mix)
    np.testing.assert_array_equal(wiener_magnitudes_backward(d_y, mags, mix), desired)


def test_wrong_arguments():
    mix, mags = material(2, 4, 5, 3)
    mix, mags = mix.transpose(1, 2, 0), mags.transpose(1, 3, 2, 0)
    d_y = np.zeros((*mix.shape, 3), np.complex64)
    with pytest.raises(ShapeError, match="do not fit"):
        wiener_magnitudes_backward(d_y[..., :2], mags, mix)
    with pytest.raises(ConfigError, match="eps=0"):
        wiener_magnitudes_backward(d_y, mags, mix, eps=0.0)
    with pytest.raises(ConfigError, match="iterations=-1"):
        wiener_magnitudes_backward(d_y, mags, mix, -1)
