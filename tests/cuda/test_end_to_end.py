"""`WaveformSeparator` on a CUDA device against the processor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close
from helpers.cuda_training import backend_on
from helpers.upstream import options_id
from tolerances import TOL

from umx_np.config import ModelConfig
from umx_np.cuda.device import Device
from umx_np.cuda.training import CudaTrainingBackend
from umx_np.errors import ConfigError, DeviceError, ShapeError
from umx_np.optim import Adam, clip_grad_norm
from umx_np.testing import random_bundle_of
from umx_np.training.end_to_end import WaveformSeparator

STEREO = random_bundle_of(
    ModelConfig(nb_bins=33, hidden_size=8, nb_layers=2, max_bin=25), ("vocals", "rest"), seed=100
)
MONO = random_bundle_of(
    ModelConfig(nb_bins=33, nb_channels=1, hidden_size=8, nb_layers=1), ("a", "b", "c"), seed=101
)
SINGLE = random_bundle_of(ModelConfig(nb_bins=33, hidden_size=8), ("vocals",), seed=102)
BUNDLES = {"stereo": STEREO, "mono": MONO}


@pytest.fixture
def backend(any_device: Device, monkeypatch: pytest.MonkeyPatch) -> CudaTrainingBackend:
    return backend_on(any_device, monkeypatch)


def separators(bundle, **options) -> tuple[WaveformSeparator, WaveformSeparator]:
    """On the card, and the oracle: double precision on the processor."""
    oracle = {"backend": "reference", "dtype": np.float64}
    return (
        WaveformSeparator.from_bundle(bundle, backend="cuda", dropout=0.0, **options),
        WaveformSeparator.from_bundle(bundle, dropout=0.0, **oracle, **options),
    )


def audio_for(*, nb_samples=3, nb_channels=2, nb_timesteps=330, level=1.0) -> np.ndarray:
    sound = signals.music(nb_timesteps, nb_samples=nb_samples, nb_channels=nb_channels, seed=103)
    return (level * sound).astype(np.float32)


def weights_of_loss(stems: Any) -> np.ndarray:
    return np.random.default_rng(104).standard_normal(stems.shape).astype(np.float32)


def check(bundle, audio, *, training=False, **options) -> None:
    card, oracle = separators(bundle, **options)
    stems, cache = card.forward(audio, training=training)
    expected, expected_cache = oracle.forward(audio.astype(np.float64), training=training)
    assert_close(stems.get(), expected, TOL["end_to_end_device"]["float32"], dtype=np.float32)
    d_stems = weights_of_loss(expected)
    gradients = card.backward(d_stems, cache)
    expected_gradients = oracle.backward(d_stems.astype(np.float64), expected_cache)
    bound = TOL["end_to_end_device_gradient"]["float32"]
    for name, network in card.networks.items():
        found = gradients[name].to_host()
        largest = max(float(np.abs(g).max()) for g in expected_gradients[name].values())
        for key in network.parameters:
            desired = expected_gradients[name][key]
            # Some gradients are 0 but for rounding.
            if float(np.abs(desired).max()) > 1e-3 * largest:
                assert_close(found[key], desired, bound, dtype=np.float32)
            else:
                assert np.abs(found[key] - desired).max() < 1e-4 * largest


@pytest.mark.parametrize(
    "options",
    [{}, {"wiener_win_len": 6}, {"wiener_win_len": None}, {"training": True}],
    ids=options_id,
)
@pytest.mark.parametrize("name", BUNDLES)
def test_stems_and_gradients(backend: CudaTrainingBackend, name: str, options: dict) -> None:
    check(BUNDLES[name], audio_for(level=0.05), **options)


@pytest.mark.parametrize("nb_timesteps", [1, 20, 33, 64, 1000])
def test_lengths(backend: CudaTrainingBackend, nb_timesteps: int) -> None:
    """Excerpts shorter than the padding, too."""
    check(STEREO, audio_for(nb_timesteps=nb_timesteps, level=0.05))


def test_loud_mixtures_and_one_channel(backend: CudaTrainingBackend) -> None:
    check(STEREO, audio_for(level=60.0, nb_samples=1))
    check(MONO, audio_for(level=0.05, nb_channels=1))


def test_batches_of_other_lengths(backend: CudaTrainingBackend) -> None:
    """What is kept of one length is not used for another."""
    card, _ = separators(STEREO)
    audio = audio_for(level=0.05)
    results = []
    for excerpt in (audio, audio[:2, :, :150], audio):
        stems, cache = card.forward(excerpt, training=False)
        gradients = card.backward(weights_of_loss(stems), cache)
        results.append((stems.get(), gradients["rest"].to_host()["fc1.weight"]))
    np.testing.assert_array_equal(results[0][0], results[2][0])
    np.testing.assert_array_equal(results[0][1], results[2][1])


def test_arrays_of_the_card_are_taken(backend: CudaTrainingBackend) -> None:
    card, _ = separators(STEREO)
    audio = audio_for(level=0.05)
    expected, _ = card.forward(audio, training=False)
    actual, _ = card.forward(card.asarray(audio), training=False)
    np.testing.assert_array_equal(actual.get(), expected.get())


def test_it_learns(backend: CudaTrainingBackend) -> None:
    card, _ = separators(STEREO)
    optimizers = {
        name: Adam(network.parameters, lr=0.01, backend="cuda")
        for name, network in card.networks.items()
    }
    audio = audio_for(level=0.05)
    truth = card.asarray(np.stack([0.8 * audio, 0.2 * audio], axis=1))
    losses = []
    for _ in range(8):
        stems, cache = card.forward(audio, training=False)
        error = stems - truth
        for name, gradients in card.backward(error, cache).items():
            assert np.isfinite(clip_grad_norm(gradients, 1.0))
            optimizers[name].step(gradients)
        losses.append(float((error.get() ** 2).sum()))
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    "options", [{"niter": 0}, {"niter": 2}, {"softmask": True}, {"residual": True}], ids=options_id
)
def test_other_filters_are_refused(backend: CudaTrainingBackend, options: dict) -> None:
    with pytest.raises(ConfigError, match="gradient of one iteration"):
        WaveformSeparator.from_bundle(STEREO, backend="cuda", **options)


def test_a_single_target_is_refused(backend: CudaTrainingBackend) -> None:
    with pytest.raises(ConfigError, match="residual=True with 1 targets"):
        WaveformSeparator.from_bundle(SINGLE, backend="cuda")


def test_bad_arguments(backend: CudaTrainingBackend) -> None:
    card, oracle = separators(STEREO)
    audio = audio_for()
    audio[1, 0, 5] = np.nan
    with pytest.raises(ShapeError, match="NaN"):
        card.forward(audio)
    with pytest.raises(ShapeError, match="audio has shape"):
        card.forward(audio[0])
    with pytest.raises(ShapeError, match="nb_channels=3"):
        separators(MONO)[0].forward(np.zeros((1, 3, 200), np.float32))
    stems, cache = card.forward(audio_for(), training=False)
    with pytest.raises(ShapeError, match="d_stems"):
        card.backward(stems[:1], cache)
    with pytest.raises(ConfigError, match="no gradient of the mixtures"):
        card.audio_gradient(stems, cache)
    networks = {"vocals": card.networks["vocals"], "rest": oracle.networks["rest"]}
    with pytest.raises(ConfigError, match=r"dtype=float64|same place"):
        WaveformSeparator(networks, card.config)


def test_too_little_memory(backend: CudaTrainingBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    card, _ = separators(STEREO)

    def full(*args: Any, **options: Any) -> None:
        raise backend.device.out_of_memory(1, 2)

    monkeypatch.setattr(card._chain, "stems", full)
    with pytest.raises(DeviceError, match="too little memory for a batch of 3"):
        card.forward(audio_for(), training=False)
