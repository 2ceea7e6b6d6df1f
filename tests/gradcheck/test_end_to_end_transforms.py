"""Backward passes of the transforms: adjoints of linear maps, and finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.asserts import assert_close, assert_finite
from tolerances import TOL

import umx_np
from umx_np.dsp.gradients import istft_backward, magnitude_backward, stft_backward, transforms
from umx_np.errors import ShapeError
from umx_np.testing import gradcheck

ADJOINT_ERROR = TOL["adjoint"]["float64"].rtol

# n_fft, n_hop, center, nb_timesteps
GEOMETRIES = {
    "usual": (64, 16, True, 300),
    "hop does not divide": (64, 24, True, 333),
    "one sample left over": (64, 16, True, 305),
    "odd size": (63, 16, True, 300),
    "extended with zeros": (64, 16, True, 20),
    "one sample": (64, 16, True, 1),
    "just long enough to reflect": (64, 16, True, 33),
    "not centred": (64, 16, False, 307),
    "not centred, one frame": (64, 16, False, 64),
    "many slices": (16, 4, True, 1200),
}


def normal(shape, seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        x = x + 1j * rng.standard_normal(shape)
    return x.astype(dtype)


def inner(a, b):
    return float(np.vdot(a, b).real)


def adjoint_error(forward, backward, x, d_y):
    """Relative difference of <d_y, A x> and <A^H d_y, x>."""
    y, d_x = forward(x), backward(d_y)
    assert d_x.shape == x.shape
    return abs(inner(d_y, y) - inner(d_x, x)) / (np.linalg.norm(d_y) * np.linalg.norm(y))


def stft_error(n_fft, n_hop, center, nb_timesteps, **options):
    x = normal((2, 3, nb_timesteps), 80)
    d_X = normal(umx_np.stft(x, n_fft, n_hop, center).shape, 81, complex)
    return adjoint_error(
        lambda x: umx_np.stft(x, n_fft, n_hop, center, **options),
        lambda d_X: stft_backward(d_X, nb_timesteps, n_fft, n_hop, center),
        x,
        d_X,
    )


def istft_error(n_fft, n_hop, center, nb_timesteps, length, **options):
    nb_frames = umx_np.framing.geometry.StftGeometry(n_fft, n_hop, center).nb_frames(nb_timesteps)
    X = normal((2, 3, n_fft // 2 + 1, nb_frames), 82, complex)

    def forward(X):
        return umx_np.istft(X, n_hop, center, length, n_fft=n_fft, **options)

    d_signal = normal(forward(X).shape, 83)
    return adjoint_error(
        forward, lambda d: istft_backward(d, nb_frames, n_fft, n_hop, center), X, d_signal
    )


@pytest.mark.parametrize("name", GEOMETRIES)
def test_stft(name):
    assert stft_error(*GEOMETRIES[name]) < ADJOINT_ERROR


@pytest.mark.parametrize("length", ["whole", "exact", "shorter", "longer", "empty"])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_istft(name, length):
    n_fft, n_hop, center, nb_timesteps = GEOMETRIES[name]
    samples = {
        "whole": None,
        "exact": nb_timesteps,
        "shorter": max(nb_timesteps - 7, 1),
        "longer": nb_timesteps + 200,
        "empty": 0,
    }[length]
    if length == "empty":
        d_X = istft_backward(np.empty((2, 0)), 3, n_fft, n_hop, center)
        assert_finite(d_X, shape=(2, n_fft // 2 + 1, 3), dtype=complex)
        assert not d_X.any()
        return
    assert istft_error(n_fft, n_hop, center, nb_timesteps, samples) < ADJOINT_ERROR


def test_asteroid_filterbank_has_the_same_gradient():
    options = {"filterbank": "asteroid", "device": "reference"}
    for name in ("usual", "odd size"):
        geometry = GEOMETRIES[name]
        assert stft_error(*geometry, **options) < ADJOINT_ERROR
        assert istft_error(*geometry, geometry[-1], **options) < ADJOINT_ERROR


def test_imaginary_parts_that_the_inverse_ignores_have_no_gradient():
    d_X = istft_backward(normal((300,), 84), 10, 64, 16)
    assert np.abs(d_X[[0, -1]].imag).max() < 1e-15 * np.abs(d_X).max()
    d_X = istft_backward(normal((300,), 84), 10, 63, 16)
    assert np.abs(d_X[-1].imag).max() > 1e-3 * np.abs(d_X).max()


def test_single_precision(device):
    d_X = normal((2, 33, 20), 85, np.complex64)
    actual = stft_backward(d_X, 310, 64, 16, device=device)
    desired = stft_backward(d_X.astype(complex), 310, 64, 16)
    assert_close(actual, desired, TOL["stft"]["float32"], dtype=np.float32)
    d_signal = normal((2, 310), 86, np.float32)
    actual = istft_backward(d_signal, 20, 64, 16, device=device)
    desired = istft_backward(d_signal.astype(float), 20, 64, 16)
    assert_close(actual, desired, TOL["istft"]["float32"], dtype=np.complex64)


@pytest.mark.parametrize("mono", [False, True])
@pytest.mark.parametrize("nb_channels", [1, 2, 3])
def test_magnitude(nb_channels, mono):
    def magnitude(X):
        X = X @ [1, 1j]
        mags = np.abs(X)

        def back(d_mags):
            d_X = magnitude_backward(d_mags, X, mono=mono)
            return {"X": np.stack([d_X.real, d_X.imag], axis=-1)}

        return mags.mean(axis=1, keepdims=True) if mono else mags, back

    gradcheck(magnitude, {"X": normal((2, nb_channels, 9, 5, 2), 87)})


def test_magnitude_of_silence_has_no_gradient():
    X = np.zeros((2, 9, 5), np.complex64)
    d_X = magnitude_backward(np.ones(X.shape, np.float32), X)
    assert_finite(d_X, shape=X.shape, dtype=np.complex64)
    assert not d_X.any()


def test_arguments_are_checked():
    good = normal((2, 33, 20), 90, complex)
    for wrong in (good[:, :-1], good[..., :-1], good.real, good[0, 0]):
        with pytest.raises(ShapeError, match="d_X"):
            stft_backward(wrong, 310, 64, 16)
    with pytest.raises(ShapeError, match="d_signal"):
        istft_backward(np.ones(300, complex), 20, 64, 16)
    with pytest.raises(ShapeError, match="nb_frames"):
        istft_backward(np.ones(300), 0, 64, 16)
    with pytest.raises(ShapeError, match="d_mags"):
        magnitude_backward(np.ones((1, 33, 20)), good)
    with pytest.raises(ShapeError, match="X has"):
        magnitude_backward(np.ones((2, 33, 20)), good.real)


# -- Sharpness: without any one of the terms the checks above must fail --------------------------


def test_missing_reflection_is_found(monkeypatch):
    monkeypatch.setattr(transforms, "_unpad", lambda d, pad, size: d[:, pad : pad + size].copy())
    assert stft_error(*GEOMETRIES["usual"]) > 1e6 * ADJOINT_ERROR


def test_one_reflection_off_by_one_is_found(monkeypatch):
    def wrong(d_padded, pad, size):
        d_signal = d_padded[:, pad : pad + size].copy()
        d_signal[:, :pad] += d_padded[:, pad - 1 :: -1]
        d_signal[:, size - 1 - pad : size - 1] += d_padded[:, : -pad - 1 : -1]
        return d_signal

    monkeypatch.setattr(transforms, "_unpad", wrong)
    assert stft_error(*GEOMETRIES["usual"]) > 1e6 * ADJOINT_ERROR


@pytest.mark.parametrize("bin_", [0, 5, -1])
def test_a_wrong_weight_of_a_bin_is_found(monkeypatch, bin_):
    geometry = umx_np.framing.geometry.StftGeometry
    original = geometry.inverse_weights

    def wrong(geometry):
        weights = original(geometry)
        weights[bin_] *= 2.0 if bin_ in (0, -1) else 0.5
        return weights

    monkeypatch.setattr(geometry, "inverse_weights", wrong)
    assert stft_error(*GEOMETRIES["usual"]) > 1e6 * ADJOINT_ERROR
    assert istft_error(*GEOMETRIES["usual"], 300) > 1e6 * ADJOINT_ERROR


def test_a_missing_envelope_is_found(monkeypatch):
    geometry = umx_np.framing.geometry.StftGeometry
    original = geometry.inverse_envelope
    X = normal((33, 20), 91, complex)
    d_signal = normal((310,), 92)
    expected = inner(d_signal, umx_np.istft(X, 16, length=310))
    monkeypatch.setattr(geometry, "inverse_envelope", lambda *a: 0 * original(*a) + 2 / 3)
    actual = inner(istft_backward(d_signal, 20, 64, 16), X)
    assert abs(actual - expected) > 1e6 * ADJOINT_ERROR * abs(expected)
