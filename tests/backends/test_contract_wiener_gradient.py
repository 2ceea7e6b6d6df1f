"""The gradient of the magnitudes through the Wiener filter on every backend that has a kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from helpers.asserts import assert_close, assert_finite
from helpers.emulated import card
from helpers.material import gradient_of, material
from tolerances import TOL

from umx_np.backends.contracts import DEFAULT_EPS, FilterInput, WienerOptions, scale_of
from umx_np.backends.cpu import CpuBackend
from umx_np.cuda.device import Device
from umx_np.cuda.ops import WienerFilter
from umx_np.cuda.wiener_gradient import WienerGradient
from umx_np.dsp.gradients import wiener_backward

from .conftest import COMPILED

BOUND = TOL["wiener_gradient"]["float32"]
CANCELLING = TOL["wiener_gradient_one_frame"]["float32"]


@pytest.fixture(params=COMPILED)
def gradient(request: pytest.FixtureRequest) -> Callable[..., np.ndarray]:
    """``gradient(given, d_y, eps)``, as `WienerGradientBackend` has it."""
    if request.param.startswith("cpu-"):
        return CpuBackend(2, level=request.param.removeprefix("cpu-")).wiener_gradient
    device = card(request.param)

    return partial(_on_device, device)


def _on_device(device: Device, given: FilterInput, d_y: np.ndarray, eps: float) -> np.ndarray:
    """As the trainer of all networks calls the kernels, for one window."""
    mix, mags, max_abs = given
    sizes = {"nb_targets": len(mags), "nb_channels": len(mix), "mag_channels": mags.shape[2]}
    filters = WienerFilter(device, WienerOptions(eps=eps), **sizes)
    x, m, d, scales = map(device.xp.asarray, (mix, mags, d_y, np.array([max_abs], np.float64)))
    statistics = filters.statistics(1, 1, mix.shape[2])
    filters.accumulate(x, m, scales, statistics, level=0, window=mix.shape[1])
    kernel = WienerGradient(device, eps, **sizes)
    return kernel(x, m, d, scales, statistics, window=mix.shape[1]).get()


def oracle(mix, mags, d_y, eps=DEFAULT_EPS):
    """`wiener_backward` in double precision, which wants the frames first."""
    d_mags, _ = wiener_backward(
        d_y.transpose(2, 3, 1, 0).astype(np.complex128),
        mags.transpose(1, 3, 2, 0).astype(np.float64),
        mix.transpose(1, 2, 0).astype(np.complex128),
        eps=eps,
    )
    return d_mags.transpose(3, 0, 2, 1)


def compare(gradient, mix, mags, *, tolerance=BOUND, eps=DEFAULT_EPS):
    d_y = gradient_of(mix, len(mags))
    for array in (mix, mags, d_y):
        array.flags.writeable = False
    max_abs = scale_of(np.abs(mix).max())
    actual = gradient(FilterInput(mix, mags, max_abs), d_y, eps)
    assert_close(actual, oracle(mix, mags, d_y, eps), tolerance, dtype=np.float32)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("frames", "bins", "targets"),
    [(1, 1, 1), (2, 31, 1), (1, 64, 7), (30, 33, 4), (9, 45, 3), (2, 515, 2)],
)
@pytest.mark.parametrize("mags", [1, None])
@pytest.mark.parametrize("level", [0.05, 0.5])
def test_sizes(gradient, channels, frames, bins, targets, mags, level):
    mix, magnitudes = material(channels, frames, bins, targets, level=level, mags=mags)
    # One source has all of a single frame whatever its magnitude: what is left of the gradient is
    # the rounding of terms that cancel.
    tolerance = CANCELLING if frames == targets == 1 else BOUND
    compare(gradient, mix, magnitudes, tolerance=tolerance)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("eps", [1e-10, 1e-2])
def test_loud_mixtures_are_scaled_down(gradient, channels, eps):
    compare(gradient, *material(channels, level=50.0), eps=eps)


@pytest.mark.parametrize("side", [1e-1, 1e-3, 1e-5, 0.0])
@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_near_mono(gradient, side, gain):
    """Where float32 arithmetic would lose everything."""
    mix, mags = material(2, 40, 50, 4, side=side)
    mags *= np.float32(gain)
    compare(gradient, mix, mags)


@pytest.mark.parametrize("level", [0.0, 1e-38, 1e-20, 1e-6, 1e6, 1e18])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("size", [1e-15, 1.0, 1e15])
def test_amplitudes(gradient, level, channels, size):
    mix, mags = material(channels, level=level)
    d_y = gradient_of(mix, len(mags)) * np.float32(size)
    scale = scale_of(np.abs(mix).max())
    d_mags = gradient(FilterInput(mix, mags, scale), d_y, DEFAULT_EPS)
    assert_finite(d_mags, shape=mags.shape, dtype=np.float32)
    expected = oracle(mix, mags, d_y).astype(np.float32)
    peak = np.abs(expected).max()
    # Under the smallest normal number there are fewer digits.
    assert np.abs(d_mags - expected).max() <= 1e-6 * peak + np.finfo(np.float32).tiny
    assert bool(peak) == bool(level) or peak < np.finfo(np.float32).tiny
    if level == 0.0:
        assert not d_mags.any()


@pytest.mark.parametrize("gain", [1e-6, 1e6])
def test_magnitudes_unlike_the_mixture(gradient, gain):
    mix, mags = material(level=0.5)
    mags *= np.float32(gain)
    compare(gradient, mix, mags, tolerance=CANCELLING)


def test_silent_bins_have_phase_zero(gradient):
    mix, mags = material(level=0.5)
    mix[:, 3, 7] = 0
    mix[0, 5, 8] = 0
    compare(gradient, mix, mags)


def test_nan_stays_in_its_bin(gradient):
    mix, mags = material()
    d_y = gradient_of(mix, len(mags))
    d_y[1, 0, 4, 10] = np.nan
    d_mags = gradient(FilterInput(mix, mags), d_y, DEFAULT_EPS)
    assert np.isnan(d_mags[..., 10]).any()
    assert np.isfinite(np.delete(d_mags, 10, axis=-1)).all()


def test_results_repeat_bit_for_bit(gradient):
    mix, mags = material(frames=90)
    d_y = gradient_of(mix, len(mags))
    first, second = (gradient(FilterInput(mix, mags), d_y, DEFAULT_EPS) for _ in range(2))
    np.testing.assert_array_equal(first, second)
