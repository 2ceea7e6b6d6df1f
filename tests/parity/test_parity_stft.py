"""STFT and inverse STFT against torch.stft and torch.istft, and both filterbanks."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close
from tolerances import TOL

import umx_np

pytestmark = pytest.mark.parity

DTYPES = ["float32", "float64"]
# n_fft, n_hop, nb_timesteps: Open-Unmix's two geometries, odd lengths, odd and prime FFT sizes,
# a hop that does not divide the window, one frame, and the shortest signal torch can pad.
CENTERED = [
    (4096, 1024, 44100),
    (4096, 1024, 2049),
    (1024, 512, 8191),
    (256, 64, 5000),
    (128, 48, 1001),
    (101, 25, 640),
    (64, 64, 33),
]
NOT_CENTERED = [(4096, 1024, 22050), (256, 64, 1000), (101, 25, 640), (64, 16, 64)]
# A Hann window that does not overlap ends in zeros, which cannot be inverted.
INVERTIBLE = [case for case in CENTERED if case[1] < case[0]]
CASES = [(*case, True) for case in CENTERED] + [(*case, False) for case in NOT_CENTERED]


def torch_stft(upstream, x, n_fft, n_hop, center, dtype):
    torch = upstream.torch
    with upstream.precision(dtype) as torch_dtype:
        window = torch.hann_window(n_fft, dtype=torch_dtype)
        return torch.stft(
            torch.tensor(x, dtype=torch_dtype).reshape(-1, x.shape[-1]),
            n_fft=n_fft,
            hop_length=n_hop,
            window=window,
            center=center,
            return_complex=True,
        ).numpy()


def torch_istft(upstream, spectrogram, n_fft, n_hop, center, length):
    torch = upstream.torch
    with upstream.precision("float64") as torch_dtype:
        window = torch.hann_window(n_fft, dtype=torch_dtype)
        return torch.istft(
            torch.tensor(spectrogram, dtype=torch.complex128),
            n_fft=n_fft,
            hop_length=n_hop,
            window=window,
            center=center,
            length=length,
        ).numpy()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_fft", "n_hop", "nb_timesteps", "center"), CASES)
def test_stft(openunmix, n_fft, n_hop, nb_timesteps, center, dtype):
    x = signals.music(nb_timesteps, seed=1)[0].astype(dtype)
    desired = torch_stft(openunmix, x, n_fft, n_hop, center, "float64")
    actual = umx_np.stft(x, n_fft=n_fft, n_hop=n_hop, center=center)
    assert_close(actual, desired, TOL["stft"][dtype], dtype=np.result_type(dtype, np.complex64))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n_fft", "n_hop", "nb_timesteps"), INVERTIBLE)
def test_istft(openunmix, n_fft, n_hop, nb_timesteps, dtype):
    # An STFT that no signal has: overlapping frames disagree, so the division by the window's
    # squared sum matters, not only reconstruction.
    x = signals.music(nb_timesteps, seed=2)[0]
    spectrogram = torch_stft(openunmix, x, n_fft, n_hop, True, "float64")
    spectrogram = spectrogram * np.random.default_rng(3).uniform(0.0, 1.0, spectrogram.shape)
    complex_dtype = np.result_type(dtype, np.complex64)
    spectrogram = spectrogram.astype(complex_dtype)
    desired = torch_istft(openunmix, spectrogram, n_fft, n_hop, True, nb_timesteps)
    actual = umx_np.istft(spectrogram, n_hop=n_hop, length=nb_timesteps, n_fft=n_fft)
    assert_close(actual, desired, TOL["istft"][dtype], dtype=dtype)


@pytest.mark.parametrize("length", [None, 700, 1900, 2400])
def test_istft_length(openunmix, length):
    """Without a length the whole frames' span comes back, with one it is cropped or zero-padded."""
    x = signals.music(2000, seed=4)[0]
    spectrogram = torch_stft(openunmix, x, 256, 64, True, "float64")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it pads the longest one with zeros
        desired = torch_istft(openunmix, spectrogram, 256, 64, True, length)
    actual = umx_np.istft(spectrogram, n_hop=64, center=True, length=length)
    assert_close(actual, desired, TOL["istft"]["float64"], dtype=np.float64)


@pytest.mark.parametrize("filterbank", ["torch", "asteroid"])
@pytest.mark.parametrize(("n_fft", "n_hop", "nb_timesteps"), [(4096, 1024, 9000), (256, 64, 2001)])
def test_filterbanks(openunmix, filterbank, n_fft, n_hop, nb_timesteps):
    """The modules that openunmix calls, on the four-dimensional arrays it passes around."""
    if filterbank == "asteroid":
        pytest.importorskip("asteroid_filterbanks")
    x = signals.music(nb_timesteps, nb_samples=2, seed=5)
    forward, inverse = openunmix.filterbanks(
        n_fft=n_fft, n_hop=n_hop, center=True, method=filterbank
    )
    desired = forward(x)
    actual = umx_np.stft(x, n_fft=n_fft, n_hop=n_hop)
    tolerance = TOL[f"filterbank_{filterbank}"]["float64"]
    assert_close(actual, desired, tolerance, dtype=np.complex128)
    masked = desired * np.random.default_rng(6).uniform(0.0, 1.0, desired.shape)
    assert_close(
        umx_np.istft(masked, n_hop=n_hop, length=nb_timesteps),
        inverse(masked, length=nb_timesteps),
        tolerance,
        dtype=np.float64,
    )
