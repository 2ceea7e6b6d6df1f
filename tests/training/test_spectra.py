"""Batches of waveforms to batches of magnitudes."""

from __future__ import annotations

import numpy as np
import pytest

import umx_np
from umx_np.devices import get_backend, get_training_backend
from umx_np.errors import ShapeError
from umx_np.training.spectra import BatchMagnitudes, mean_squared_error

from .conftest import Tones


def audio(nb_samples=3, nb_channels=2, nb_timesteps=9000):
    rng = np.random.default_rng(5)
    return rng.standard_normal((nb_samples, nb_channels, nb_timesteps)).astype(np.float32)


@pytest.mark.parametrize("threads", [1, 2])
def test_is_the_stft_in_the_layout_of_the_network(threads):
    x = audio()
    actual = BatchMagnitudes(512, 128, 2, get_backend("cpu", threads))(x)
    spectrum = umx_np.stft(x, 512, 128, center=False)
    expected = np.ascontiguousarray(np.abs(spectrum).transpose(3, 0, 1, 2))
    assert actual.shape == (67, 3, 2, 257)
    assert actual.flags.c_contiguous
    np.testing.assert_array_equal(actual, expected)


def test_six_seconds_are_255_frames():
    make = BatchMagnitudes(4096, 1024, 2, get_backend("cpu"))
    assert make.geometry.nb_frames(6 * 44100) == 255


def test_mono_is_the_mean_of_the_magnitudes():
    x = audio()
    mono = BatchMagnitudes(512, 128, 1, get_backend("cpu"))(x)
    stereo = BatchMagnitudes(512, 128, 2, get_backend("cpu"))(x)
    np.testing.assert_allclose(mono, stereo.mean(axis=2, keepdims=True), rtol=1e-6)


class TestCompiled:
    """With the kernel of the training backend in place of the transform of separation."""

    @pytest.fixture(autouse=True)
    def _needs_numba(self):
        pytest.importorskip("numba")

    @pytest.mark.parametrize("threads", [1, 2])
    # Whole tracks, which are transformed in parts; batches; too few frames for the kernel.
    @pytest.mark.parametrize("shape", [(1, 2, 512 + 128 * 800), (5, 2, 9000), (1, 2, 600)], ids=str)
    @pytest.mark.parametrize("nb_channels", [1, 2])
    def test_both_agree(self, shape, nb_channels, threads):
        x, ops = audio(*shape), get_backend("cpu", threads)
        expected = BatchMagnitudes(512, 128, nb_channels, ops)(x)
        compiled = get_training_backend("numba", threads)
        actual = BatchMagnitudes(512, 128, nb_channels, ops, compiled)(x, "mixture")
        assert actual.shape == expected.shape
        assert actual.flags.c_contiguous
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-6 * expected.max())

    @pytest.mark.parametrize("nb_channels", [1, 2])
    def test_does_not_depend_on_threads(self, nb_channels):
        x = audio(nb_timesteps=512 + 128 * 800)
        one, two = (
            BatchMagnitudes(
                512,
                128,
                nb_channels,
                get_backend("cpu", threads),
                get_training_backend("numba", threads),
            )(x)
            for threads in (1, 2)
        )
        np.testing.assert_array_equal(one, two)

    def test_sizes_without_a_kernel_are_left_to_the_other(self):
        x, ops = audio(), get_backend("cpu")
        compiled = get_training_backend("numba")
        assert not compiled.has_transform(500, np.dtype(np.float32))
        np.testing.assert_array_equal(
            BatchMagnitudes(500, 125, 2, ops, compiled)(x), BatchMagnitudes(500, 125, 2, ops)(x)
        )

    @pytest.mark.parametrize("nb_channels", [1, 2])
    @pytest.mark.parametrize("device", ["cpu", "reference"])
    def test_the_trainer_uses_it(self, make_trainer, monkeypatch, device, nb_channels):
        """For batches and for validation."""
        backend = get_training_backend("numba")
        calls, magnitudes = [], type(backend).magnitudes

        def counted(self, audio, window, *, n_hop, out):
            calls.append(audio.shape[0])
            magnitudes(self, audio, window, n_hop=n_hop, out=out)

        monkeypatch.setattr(type(backend), "magnitudes", counted)
        make_trainer(Tones(7), Tones(2), device=device, nb_channels=nb_channels, epochs=1).fit()
        # Mixture and target of three batches, and of two items.
        assert calls == ([3, 3, 3, 3, 1, 1] + 4 * [1] if device == "cpu" else [])


def test_memory_is_reused_on_request_only():
    make = BatchMagnitudes(512, 128, 2, get_backend("cpu"))
    first = make(audio(), "mixture")
    assert make(audio(), "mixture") is first
    assert make(audio(), "target") is not first
    assert make(audio()) is not first
    shorter = make(audio(nb_samples=2), "mixture")
    assert shorter.shape[1] == 2


def test_what_does_not_fit():
    make = BatchMagnitudes(512, 128, 2, get_backend("cpu"))
    with pytest.raises(ShapeError, match="force_stereo"):
        make(audio(nb_channels=1))
    with pytest.raises(ShapeError, match="n_fft=512"):
        make(audio(nb_timesteps=511))


def test_mean_squared_error():
    rng = np.random.default_rng(6)
    y, target = (rng.random((300, 1, 2, 400)).astype(np.float32) for _ in range(2))
    expected = np.mean((y.astype(np.float64) - target) ** 2)
    assert mean_squared_error(y, target) == pytest.approx(expected, rel=1e-6)
