"""Frame arithmetic and the transforms, without PyTorch."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers.asserts import assert_close
from tolerances import TOL

import umx_np
from umx_np.devices import get_backend
from umx_np.errors import ConfigError, ShapeError
from umx_np.framing.geometry import StftGeometry
from umx_np.framing.transform import Transform


def signal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


class TestGeometry:
    def test_six_seconds(self):
        """The frame counts of training and of separation."""
        assert StftGeometry(4096, 1024, center=False).nb_frames(6 * 44100) == 255
        assert StftGeometry(4096, 1024, center=True).nb_frames(6 * 44100) == 259

    @pytest.mark.parametrize("center", [False, True])
    @pytest.mark.parametrize(("n_fft", "n_hop"), [(8, 2), (9, 4), (16, 15), (5, 1)])
    def test_envelope_in_pieces(self, n_fft, n_hop, center):
        geometry = StftGeometry(n_fft, n_hop, center)
        nb_frames = 7
        total = geometry.nb_samples_of(nb_frames)
        whole = np.zeros(total)
        for t in range(nb_frames):
            whole[t * n_hop : t * n_hop + n_fft] += geometry.window**2
        cuts = [0, 1, n_fft - 1, total // 2, total]
        pieces = [geometry.envelope(a, b, nb_frames) for a, b in itertools.pairwise(cuts)]
        np.testing.assert_allclose(np.concatenate(pieces), whole, rtol=1e-13)

    def test_window_is_periodic_and_constant(self):
        window = StftGeometry(8, 2).window
        np.testing.assert_allclose(window, np.hanning(9)[:-1], atol=1e-15)
        with pytest.raises(ValueError, match="read-only"):
            window[0] = 1

    @pytest.mark.parametrize("kwargs", [{"n_fft": 1}, {"n_hop": 0}, {"n_fft": 4.0}])
    def test_bad_sizes(self, kwargs):
        with pytest.raises(ConfigError, match=next(iter(kwargs))):
            StftGeometry(**kwargs)

    def test_hop_too_large_for_an_inverse(self):
        with pytest.raises(ConfigError, match="n_hop=8"):
            StftGeometry(8, 8).check_invertible()


@pytest.mark.parametrize("n_fft", [2, 7, 16, 64])
@pytest.mark.parametrize("center", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_stft_is_the_fourier_sum(n_fft, center, dtype, device):
    n_hop = max(1, n_fft // 3)
    x = signal(2, 3 * n_fft + 1).astype(dtype)
    geometry = StftGeometry(n_fft, n_hop, center)
    padded = np.pad(x.astype(np.float64), ((0, 0), (geometry.pad,) * 2), mode="reflect")
    k, n = np.arange(geometry.nb_bins)[:, None], np.arange(n_fft)
    waves = np.exp(-2j * np.pi * (k * n % n_fft) / n_fft) * geometry.window
    frames = range(geometry.nb_frames(x.shape[1]))
    expected = np.stack([padded[:, t * n_hop : t * n_hop + n_fft] @ waves.T for t in frames], -1)
    for filterbank in ("torch", "asteroid"):
        actual = umx_np.stft(x, n_fft, n_hop, center, filterbank=filterbank, device=device)
        bound = TOL["stft"][np.dtype(dtype).name]
        assert_close(actual, expected, bound, dtype=np.result_type(dtype, np.complex64))


@pytest.mark.parametrize("n_fft", [7, 16, 4096])
@pytest.mark.parametrize("length", [1, 5, 1000, 12345])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip(n_fft, length, dtype, device):
    """Also of signals shorter than half a window."""
    x = signal(3, 2, length).astype(dtype)
    x.flags.writeable = False
    n_hop = n_fft // 4
    X = umx_np.stft(x, n_fft, n_hop, device=device)
    y = umx_np.istft(X, n_hop, length=length, n_fft=n_fft, device=device)
    assert_close(y, x, TOL["istft"][np.dtype(dtype).name], dtype=dtype)


@pytest.mark.parametrize("filterbank", ["torch", "asteroid"])
def test_round_trip_of_both_filterbanks(filterbank, device):
    x = signal(2, 500)
    X = umx_np.stft(x, 64, 16, filterbank=filterbank, device=device)
    y = umx_np.istft(X, 16, length=500, filterbank=filterbank, device=device)
    assert_close(y, x, TOL["istft"]["float64"], dtype=np.float64)


def test_narrow_integers_as_hop_do_not_wrap_around():
    x = signal(20000)
    X = umx_np.stft(x, 16, 4)
    np.testing.assert_array_equal(umx_np.stft(x, 16, np.int8(4)), X)
    np.testing.assert_array_equal(umx_np.istft(X, np.int8(4)), umx_np.istft(X, 4))


def test_length_cuts_and_extends():
    x = signal(500)
    X = umx_np.stft(x, 64, 16)
    natural = umx_np.istft(X, 16)
    assert natural.shape == (16 * (X.shape[-1] - 1),)
    longer = umx_np.istft(X, 16, length=600)
    assert longer.shape == (600,)
    np.testing.assert_allclose(longer[:500], x, atol=1e-12)
    assert not longer[560:].any()
    assert umx_np.istft(X, 16, length=10).shape == (10,)


def test_not_centred_inverse_knows_nothing_of_the_first_sample():
    x = signal(200)
    y = umx_np.istft(umx_np.stft(x, 16, 4, center=False), 4, center=False)
    assert y[0] == 0.0
    np.testing.assert_allclose(y[1 : len(y) - 1], x[1 : len(y) - 1], atol=1e-10)


@pytest.mark.parametrize("n_fft", [6, 9])
def test_both_filterbanks_agree(n_fft):
    ops = get_backend("reference")
    segment, geometry = signal(2, 50), StftGeometry(n_fft, 2)
    results = []
    for name in ("torch", "asteroid"):
        transform = Transform(geometry, name, ops, np.float64)
        spectrum = transform.forward(segment, 10)
        out = np.zeros((2, geometry.nb_samples_of(10)))
        transform.inverse(spectrum, out)
        results.append((spectrum, out))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-12)


def test_bad_input_is_refused():
    with pytest.raises(ShapeError, match="empty"):
        umx_np.stft(np.zeros((2, 0)))
    with pytest.raises(ShapeError, match="less than one frame"):
        umx_np.stft(np.zeros(100), 128, 32, center=False)
    with pytest.raises(ShapeError, match="real signal"):
        umx_np.stft(np.zeros(10, complex))
    with pytest.raises(ShapeError, match="dtype=object"):
        umx_np.stft(np.array([None] * 10))
    with pytest.raises(ShapeError, match="complex"):
        umx_np.istft(np.zeros((5, 5)))
    with pytest.raises(ShapeError, match="no spectrum"):
        umx_np.istft(np.zeros((5, 5), complex), 2, n_fft=20)
    with pytest.raises(ConfigError, match="n_hop=8"):
        umx_np.istft(np.zeros((5, 5), complex), 8)
    with pytest.raises(ConfigError, match="length=-1"):
        umx_np.istft(np.zeros((5, 5), complex), 2, length=-1)
