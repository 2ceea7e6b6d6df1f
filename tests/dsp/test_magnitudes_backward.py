"""The gradient of the magnitudes, with a kernel or without: the first one of `wiener_backward`."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.asserts import assert_close
from helpers.material import gradient_of, material
from tolerances import TOL

from umx_np.devices import get_backend
from umx_np.dsp.gradients import wiener_backward, wiener_magnitudes_backward
from umx_np.errors import ConfigError, ShapeError

BOUND = TOL["wiener_gradient"]["float32"]


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
