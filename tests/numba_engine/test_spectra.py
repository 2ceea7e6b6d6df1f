"""Magnitudes of the STFT against NumPy's FFT."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.asserts import assert_close
from tolerances import TOL

pytest.importorskip("numba", reason="needs the extra 'train'")

from umx_np.devices import get_training_backend


def expected(audio: np.ndarray, window: np.ndarray, n_hop: int) -> np.ndarray:
    """Magnitudes in float64 [shape=(nb_frames, nb_samples, nb_channels, nb_bins)]."""
    audio, window = audio.astype(np.float64), window.astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(audio, len(window), axis=-1)
    spectrum = np.fft.rfft(frames[:, :, ::n_hop] * window)
    return np.abs(spectrum).transpose(2, 0, 1, 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("n_fft", "n_hop", "nb_frames"),
    [
        (128, 32, 37),
        (256, 100, 16),
        (512, 128, 31),
        (4096, 1024, 20),
        # In parts, the last of which is longer.
        (128, 32, 515),
        (100, 30, 515),
        # Without a kernel: no power of two, too short, too few frames.
        (100, 30, 40),
        (16, 4, 20),
        (128, 32, 3),
    ],
)
def test_magnitudes(n_fft, n_hop, nb_frames, dtype):
    rng = np.random.default_rng(n_fft)
    # A rest that fills no frame.
    nb_timesteps = n_fft + (nb_frames - 1) * n_hop + n_hop // 2
    audio = rng.standard_normal((2, 2, nb_timesteps)).astype(dtype)
    audio[1, 0] *= 1e-3  # nothing leaks from its neighbours
    window = np.hanning(n_fft).astype(dtype)
    out = np.full((nb_frames, 2, 2, n_fft // 2 + 1), np.nan, dtype)
    get_training_backend("numba", 2).magnitudes(audio, window, n_hop=n_hop, out=out)
    want = expected(audio, window, n_hop)
    for sample, channel in np.ndindex(2, 2):
        assert_close(
            np.ascontiguousarray(out[:, sample, channel]),
            want[:, sample, channel],
            TOL["stft"][np.dtype(dtype).name],
            dtype=dtype,
        )


def test_pure_tones_and_silence():
    """First and last bin, which have a formula of their own, and exact zeros."""
    n_fft = 256
    time = np.arange(n_fft + 31 * 64)
    audio = np.stack([np.ones(len(time)), np.cos(np.pi * time), np.zeros(len(time))])
    out = np.empty((32, 1, 3, 129), np.float32)
    get_training_backend("numba", 1).magnitudes(
        audio[None].astype(np.float32), np.ones(n_fft, np.float32), n_hop=64, out=out
    )
    for channel, peak in ((0, 0), (1, 128)):
        np.testing.assert_allclose(out[:, 0, channel, peak], n_fft, rtol=1e-6)
        assert np.abs(np.delete(out[:, 0, channel], peak, axis=-1)).max() < 1e-4
    assert not out[:, 0, 2].any()


def test_not_a_number_stays_in_its_frames():
    audio = np.zeros((1, 1, 256 + 31 * 256), np.float32)
    audio[0, 0, 256 * 5] = np.nan
    out = np.empty((32, 1, 1, 129), np.float32)
    get_training_backend("numba", 1).magnitudes(audio, np.ones(256, np.float32), n_hop=256, out=out)
    assert np.isnan(out[5]).all()
    assert not np.isnan(np.delete(out, 5, axis=0)).any()
