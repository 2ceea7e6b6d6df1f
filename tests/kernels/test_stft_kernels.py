"""Framing, overlap-add and magnitudes against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.asserts import assert_close
from tolerances import TOL

from umx_np._kernels import stft as kernels
from umx_np.backends import reference

DTYPES = [np.float32, np.float64]


def normal(*shape: int, dtype=np.float64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_fft", "n_hop", "nb_frames"), [(8, 3, 5), (2, 1, 1), (7, 7, 4)])
def test_frame(dtype, n_fft, n_hop, nb_frames):
    storage = normal(3, 60, dtype=dtype)
    storage.flags.writeable = False
    x, window = storage[:, 5:50], normal(n_fft, dtype=dtype, seed=1)
    out = np.empty((3, nb_frames, n_fft), dtype)
    kernels.frame(x, window, out, n_hop)
    expected = reference.frame(x, window, n_hop=n_hop, nb_frames=nb_frames)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_fft", "n_hop", "nb_frames"), [(8, 3, 5), (2, 1, 1), (7, 7, 4)])
def test_overlap_add(dtype, n_fft, n_hop, nb_frames):
    frames, window = normal(3, nb_frames, n_fft, dtype=dtype), normal(n_fft, dtype=dtype, seed=1)
    out, expected = normal(3, 60, dtype=dtype, seed=2), normal(3, 60, dtype=dtype, seed=2)
    kernels.overlap_add(frames, window, out[:, 4:55], n_hop)
    reference.overlap_add(frames, window, n_hop=n_hop, out=expected[:, 4:55])
    bound = TOL["istft"][np.dtype(dtype).name]
    assert_close(out, expected, bound, dtype=dtype)
    np.testing.assert_array_equal(out[:, :4], expected[:, :4])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("mono", [False, True])
@pytest.mark.parametrize("nb_bins", [1, 9, 11])
@pytest.mark.parametrize("level", [0.0, 1e-30, 1.0, 1e25])
def test_magnitude(dtype, mono, nb_bins, level):
    storage = level * (normal(3, 9, 11) + 1j * normal(3, 9, 11, seed=1))
    spectrum = storage.astype(np.result_type(dtype, np.complex64))[:, 2:8]
    out = np.full((6, 1 if mono else 3, nb_bins), np.nan, dtype)
    kernels.magnitude(spectrum, out, mono)
    expected = reference.magnitude(spectrum.astype(np.complex128), nb_bins=nb_bins, mono=mono)
    assert_close(out, expected, TOL["stft"][np.dtype(dtype).name], dtype=dtype)


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        kernels.frame(normal(1, 10), normal(4), np.empty((1, 8, 4)), 1)
    with pytest.raises(ValueError, match="do not fit"):
        kernels.overlap_add(normal(1, 8, 4), normal(4), np.empty((1, 10)), 1)
    with pytest.raises(ValueError, match="bins"):
        kernels.magnitude(normal(1, 2, 3) + 0j, np.empty((2, 1, 4)), False)
    with pytest.raises(ValueError, match="adjacent"):
        kernels.frame(normal(10, 1).T[:, ::2], normal(2), np.empty((1, 2, 2)), 1)
