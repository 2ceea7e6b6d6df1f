"""Gradients of a loss on waveforms against torch's autograd through openunmix, in float64.

The signals have no bin that is exactly zero: there upstream changes the mixture while it filters.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close
from helpers.upstream import options_id
from tolerances import TOL

import umx_np
from umx_np.config import ModelConfig
from umx_np.dsp.gradients import (
    istft_backward,
    magnitude_backward,
    stft_backward,
    wiener_backward,
)
from umx_np.testing import random_bundle_of
from umx_np.training.end_to_end import WaveformSeparator

pytestmark = pytest.mark.parity

BUNDLES = {
    "stereo": random_bundle_of(
        ModelConfig(nb_bins=65, hidden_size=16, max_bin=50), ("vocals", "rest"), seed=120
    ),
    "mono network": random_bundle_of(
        ModelConfig(nb_bins=33, nb_channels=1, hidden_size=8, nb_layers=1),
        ("speech", "noise"),
        seed=121,
    ),
    "unidirectional": random_bundle_of(
        ModelConfig(nb_bins=129, hidden_size=8, nb_layers=2, unidirectional=True),
        ("vocals", "drums", "bass"),
        seed=122,
    ),
}
OPTIONS = [
    {"niter": 0},
    {"niter": 1},
    {"niter": 2},
    {"niter": 0, "residual": True},
    {"niter": 1, "residual": True},
    {"niter": 0, "softmask": True},
    {"niter": 1, "softmask": True, "residual": True},
    {"niter": 1, "wiener_win_len": 10},
    {"niter": 2, "wiener_win_len": None},
]
SINGLE = random_bundle_of(
    ModelConfig(nb_bins=65, hidden_size=8, nb_layers=1), ("vocals",), seed=123
)
GRADIENT = TOL["end_to_end_gradient"]["float64"]


def pairs(array):
    return np.stack([array.real, array.imag], axis=-1)


def joined(array):
    return array[..., 0] + 1j * array[..., 1]


def normal(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape)


# -- The pieces ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mono", [False, True])
@pytest.mark.parametrize("level", [1.0, 20.0])
@pytest.mark.parametrize("nb_channels", [1, 2])
@pytest.mark.parametrize(
    ("iterations", "softmask", "residual"),
    list(itertools.product((0, 1, 3), (False, True), (False, True))),
)
def test_filter(openunmix, iterations, softmask, residual, nb_channels, level, mono):
    """Of the magnitudes and of the mixture, from which loud ones take their divisor."""
    torch = openunmix.torch
    mix = signals.spectra(13, 9, nb_channels, seed=124, level=level)
    mags = signals.estimates_for(mix, 3, seed=125)
    if mono:
        mags = mags.mean(axis=2, keepdims=True)
    options = {"iterations": iterations, "softmask": softmask, "residual": residual, "eps": 1e-4}
    d_y = joined(normal((*mix.shape, 3 + residual, 2), 126))
    actual = wiener_backward(d_y, mags, mix, **options)
    with openunmix.precision("float64"), torch.enable_grad():
        m, x = (torch.tensor(a, requires_grad=True) for a in (mags, pairs(mix)))
        # A copy of the mixture, which upstream changes.
        y = openunmix.filtering.wiener(m, x.clone(), **options)
        y.backward(torch.tensor(np.moveaxis(pairs(d_y), -1, -2)))
    assert_close(actual[0], m.grad.numpy(), GRADIENT, dtype=np.float64)
    assert_close(actual[1], joined(x.grad.numpy()), GRADIENT, dtype=np.complex128)


def test_equally_loud_bins(openunmix):
    """Where several bins hold the peak torch shares its gradient; at a draw with 1 it halves it."""
    torch = openunmix.torch
    for peak in (30.0, 10.0):
        mix = signals.spectra(5, 4, 2, seed=127, level=1.0)
        # Not on an axis, where upstream's arctangent has no gradient.
        turned = peak * np.array([0.6 + 0.8j, 0.8 - 0.6j, -0.6 + 0.8j])
        mix[[1, 3, 4], [2, 1, 2], [0, 1, 1]] = turned
        assert np.count_nonzero(np.abs(mix) == peak) == 3
        mags = signals.estimates_for(mix, 2, seed=128)
        d_y = joined(normal((*mix.shape, 2, 2), 129))
        _, actual = wiener_backward(d_y, mags, mix, 1, eps=1e-2)
        with openunmix.precision("float64"), torch.enable_grad():
            x = torch.tensor(pairs(mix), requires_grad=True)
            y = openunmix.filtering.wiener(torch.tensor(mags), x.clone(), 1, eps=1e-2)
            y.backward(torch.tensor(np.moveaxis(pairs(d_y), -1, -2)))
        assert_close(actual, joined(x.grad.numpy()), GRADIENT, dtype=np.complex128)


@pytest.mark.parametrize("nb_timesteps", [400, 333])
@pytest.mark.parametrize(("n_fft", "n_hop"), [(64, 16), (256, 64)])
def test_transforms(openunmix, n_fft, n_hop, nb_timesteps):
    torch = openunmix.torch
    audio = normal((2, 2, nb_timesteps), 130)
    with openunmix.precision("float64"), torch.enable_grad():
        encoder, decoder = openunmix.transforms.make_filterbanks(n_fft, n_hop, center=True)
        x = torch.tensor(audio, requires_grad=True)
        X = encoder(x)
        d_X = normal(X.shape, 131)
        X.backward(torch.tensor(d_X))
        spectra = torch.tensor(normal(X.shape, 132), requires_grad=True)
        signal = decoder(spectra, length=nb_timesteps)
        d_signal = normal(signal.shape, 133)
        signal.backward(torch.tensor(d_signal))
    actual = stft_backward(joined(d_X), nb_timesteps, n_fft, n_hop)
    assert_close(actual, x.grad.numpy(), GRADIENT, dtype=np.float64)
    actual = istft_backward(d_signal, X.shape[3], n_fft, n_hop)
    assert_close(actual, joined(spectra.grad.numpy()), GRADIENT, dtype=np.complex128)


@pytest.mark.parametrize("mono", [False, True])
def test_magnitude(openunmix, mono):
    torch = openunmix.torch
    X = joined(normal((2, 2, 9, 5, 2), 134))
    X[0, :, 3] = 0.0
    with openunmix.precision("float64"), torch.enable_grad():
        x = torch.tensor(pairs(X), requires_grad=True)
        mags = openunmix.transforms.ComplexNorm(mono=mono)(x)
        d_mags = normal(mags.shape, 135)
        mags.backward(torch.tensor(d_mags))
    actual = magnitude_backward(d_mags, X, mono=mono)
    assert_close(actual, joined(x.grad.numpy()), GRADIENT, dtype=np.complex128)


# -- The whole separator -------------------------------------------------------------------------


def autograd(openunmix, bundle, audio, loss, *, training, keep=slice(None), **options):
    """Stems, gradients of the parameters and gradient of the audio, all by torch."""
    torch = openunmix.torch
    separator = openunmix.separator(bundle, **options)
    for network in separator.target_models.values():
        # Torch draws other dropout masks than NumPy.
        network.lstm.dropout = 0.0
        network.requires_grad_(True).train(training)
    with openunmix.precision("float64"), torch.enable_grad():
        x = torch.tensor(audio, requires_grad=True)
        stems = separator(x)[:, keep]
        loss(torch, stems).backward()
    gradients = {
        name: {key: p.grad.numpy() for key, p in network.named_parameters()}
        for name, network in separator.target_models.items()
    }
    return stems.detach().numpy(), gradients, x.grad.numpy()


def assert_gradients_close(actual, desired, tolerance, dtype, *, training, moved=None):
    """Compare every gradient of every target.

    `moved` holds the gradients in float64 at a mixture rounded to float32. Where that alone changes
    them by more than the tolerance, float32 cannot do better.
    """
    assert list(actual) == list(desired)
    for name, gradients in desired.items():
        assert list(actual[name]) == list(gradients)
        largest = max(map(rms, gradients.values()))
        for key, gradient in gradients.items():
            rtol, atol = tolerance.rtol, 0.0
            if moved is not None:
                atol = 10.0 * rms(moved[name][key] - gradient)
            if training and key == "input_mean":
                # The batch norm takes it out again, and leaves rounding errors as its gradient.
                rtol, atol = 0.0, atol + rtol * largest
            usual = (rtol, atol) == (tolerance.rtol, 0.0)
            bound = tolerance if usual else tolerance._replace(rtol=rtol, atol=atol)
            assert_close(actual[name][key], gradient, bound, dtype=dtype)


def rms(array):
    return float(np.sqrt(np.mean(np.abs(array) ** 2)))


def trainable(bundle, dtype, **options):
    return WaveformSeparator.from_bundle(
        bundle, backend="reference", dtype=dtype, dropout=0.0, **options
    )


@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("options", OPTIONS, ids=options_id)
@pytest.mark.parametrize("name", BUNDLES)
def test_separator(openunmix, name, options, training):
    """Squared error of the stems: every parameter of every network, and the audio."""
    bundle = BUNDLES[name]
    # Soft under a mono network: its estimates differ in phase only, so that the filter is nearly
    # singular for loud ones and both sides lose digits.
    audio = signals.music(911, nb_samples=2, seed=136) * (0.2 if name == "mono network" else 1.0)
    ours = trainable(bundle, np.float64, **options)
    stems, cache = ours.forward(audio, training=training)
    truth = signals.music(stems.size, nb_channels=1, seed=137).reshape(stems.shape)
    desired_stems, desired, desired_audio = autograd(
        openunmix,
        bundle,
        audio,
        lambda torch, y: torch.nn.functional.mse_loss(y, torch.tensor(truth)),
        training=training,
        **options,
    )
    assert_close(stems, desired_stems, TOL["separator"]["float64"], dtype=np.float64)
    d_stems = 2.0 * (stems - truth) / stems.size
    d_audio = ours.audio_gradient(d_stems, cache)
    actual = ours.backward(d_stems, cache)
    assert_gradients_close(actual, desired, GRADIENT, np.float64, training=training)
    assert_close(d_audio, desired_audio, GRADIENT, dtype=np.float64)

    audio, found = audio.astype(np.float32), {}
    for dtype in (np.float32, np.float64):
        ours = trainable(bundle, dtype, **options)
        stems, cache = ours.forward(audio, training=training)
        found[dtype] = ours.backward((2.0 * (stems - truth) / stems.size).astype(dtype), cache)
    tolerance = TOL["end_to_end_gradient"]["float32"]
    assert_gradients_close(
        found[np.float32],
        desired,
        tolerance,
        np.float32,
        training=training,
        moved=found[np.float64],
    )


@pytest.mark.parametrize("loss", ["absolute", "spectral"])
def test_other_losses(openunmix, loss):
    """An L1 loss of the waveforms, and one of the magnitudes of the stems."""
    bundle, options = BUNDLES["stereo"], {"niter": 1, "residual": True}
    audio = signals.music(1511, nb_samples=2, seed=138)
    ours = trainable(bundle, np.float64, **options)
    stems, cache = ours.forward(audio)
    truth = signals.music(stems.size, nb_channels=1, seed=139).reshape(stems.shape)

    def reference(torch, y):
        target = torch.tensor(truth)
        if loss == "absolute":
            return torch.nn.functional.l1_loss(y, target)
        spectra = [
            torch.stft(s.flatten(0, 2), 64, 16, window=torch.hann_window(64), return_complex=True)
            for s in (y, target)
        ]
        return torch.nn.functional.mse_loss(spectra[0].abs(), spectra[1].abs())

    _, desired, _ = autograd(openunmix, bundle, audio, reference, training=True, **options)
    if loss == "absolute":
        d_stems = np.sign(stems - truth) / stems.size
    else:
        spectra, other = (umx_np.stft(s, 64, 16) for s in (stems, truth))
        d_mags = 2.0 * (np.abs(spectra) - np.abs(other)) / spectra.size
        d_stems = stft_backward(magnitude_backward(d_mags, spectra), stems.shape[-1], 64, 16)
    actual = ours.backward(d_stems, cache)
    assert_gradients_close(actual, desired, GRADIENT, np.float64, training=True)


@pytest.mark.parametrize("niter", [1, 2])
def test_single_target(openunmix, niter):
    """Upstream refuses to filter one target; with a residual that is dropped it is our rule."""
    audio = signals.music(1511, seed=140)
    ours = trainable(SINGLE, np.float64, niter=niter)
    stems, cache = ours.forward(audio, training=False)
    assert stems.shape[1] == 1
    desired_stems, desired, desired_audio = autograd(
        openunmix,
        SINGLE,
        audio,
        lambda torch, y: (y**2).sum(),
        training=False,
        keep=slice(1),
        niter=niter,
        residual=True,
    )
    assert_close(stems, desired_stems, TOL["separator"]["float64"], dtype=np.float64)
    d_audio = ours.audio_gradient(2.0 * stems, cache)
    actual = ours.backward(2.0 * stems, cache)
    assert_gradients_close(actual, desired, GRADIENT, np.float64, training=False)
    assert_close(d_audio, desired_audio, GRADIENT, dtype=np.float64)
