"""The whole separator, from waveform to stems, against openunmix.model.Separator in float64."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close, assert_finite, snr_db
from helpers.upstream import options_id
from tolerances import TOL

import umx_np
from umx_np.config import ModelConfig
from umx_np.testing import random_bundle, random_bundle_of

pytestmark = pytest.mark.parity

# Small enough to be quick; between them they take every branch of the separator.
SMALL = {
    "stereo": random_bundle_of(ModelConfig(nb_bins=129, hidden_size=24, max_bin=90), seed=41),
    "mono network": random_bundle_of(
        ModelConfig(nb_bins=129, nb_channels=1, hidden_size=24), ("speech", "noise"), seed=42
    ),
    "unidirectional": random_bundle_of(
        ModelConfig(nb_bins=65, hidden_size=16, unidirectional=True), ("vocals", "rest"), seed=43
    ),
}

OPTIONS = [
    {},
    {"niter": 1},
    {"niter": 2, "residual": True},
    {"niter": 0, "residual": True},
    {"niter": 1, "softmask": True},
    {"niter": 0, "softmask": True, "residual": True},
    {"niter": 1, "wiener_win_len": 10},
    {"niter": 1, "wiener_win_len": None},
]


def separate(bundle, audio, *, device="cpu", niter=0, **options):
    separator = umx_np.Separator.from_bundle(bundle, niter=niter, device=device, **options)
    return separator(audio)


@pytest.mark.parametrize("options", OPTIONS, ids=options_id)
@pytest.mark.parametrize("name", SMALL)
def test_options(openunmix, name, options):
    bundle = SMALL[name]
    audio = signals.music(4001, nb_samples=2, seed=44)
    desired = openunmix.separate(bundle, audio, **options)
    actual = separate(bundle, audio, device="reference", **options)
    assert_close(actual, desired, TOL["separator"]["float64"], dtype=np.float64)

    audio = audio.astype(np.float32)
    desired = openunmix.separate(bundle, audio, **options)
    actual = separate(bundle, audio, **options)
    assert_close(actual, desired, TOL["separator"]["float32"], dtype=np.float32)


@pytest.mark.parametrize("wiener_win_len", [300, 128, None])
@pytest.mark.parametrize("nb_timesteps", [19200, 150_001])
def test_long(openunmix, nb_timesteps, wiener_win_len):
    """301 frames, whose last window is one frame, and more than the engine reads at a time.

    Loud enough for the filter to scale each window by a peak of its own.
    """
    audio = 30.0 * signals.music(nb_timesteps, seed=52).astype(np.float32)
    options = {"niter": 1, "wiener_win_len": wiener_win_len}
    desired = openunmix.separate(SMALL["stereo"], audio, **options)
    actual = separate(SMALL["stereo"], audio, **options)
    assert_close(actual, desired, TOL["separator"]["float32"], dtype=np.float32)


@pytest.mark.parametrize("niter", [0, 1])
def test_asteroid_filterbank(openunmix, niter):
    """The transform as a matrix product; upstream computes it with asteroid-filterbanks."""
    pytest.importorskip("asteroid_filterbanks")
    audio = signals.music(4001, seed=45).astype(np.float32)
    options = {"niter": niter, "filterbank": "asteroid"}
    desired = openunmix.separate(SMALL["stereo"], audio, **options)
    actual = separate(SMALL["stereo"], audio, **options)
    assert_close(actual, desired, TOL["separator_asteroid"]["float32"], dtype=np.float32)


@pytest.mark.parametrize("side_db", [-20.0, -40.0, -60.0])
def test_near_mono(openunmix, side_db):
    audio = signals.near_mono(6000, side_db, seed=46).astype(np.float32)
    desired = openunmix.separate(SMALL["stereo"], audio, niter=1)
    actual = separate(SMALL["stereo"], audio, niter=1)
    assert_close(actual, desired, TOL["separator_near_mono"]["float32"], dtype=np.float32)


@pytest.mark.parametrize("niter", [1, 2])
def test_dual_mono(openunmix, niter):
    """Two identical channels, which float32 upstream answers with NaN."""
    audio = signals.dual_mono(6000, seed=47).astype(np.float32)
    for bundle in (SMALL["stereo"], SMALL["mono network"]):
        desired = openunmix.separate(bundle, audio, niter=niter)
        actual = separate(bundle, audio, niter=niter)
        assert_close(actual, desired, TOL["separator_near_mono"]["float32"], dtype=np.float32)


@pytest.mark.parametrize(
    "options", [{}, {"niter": 1}, {"niter": 1, "softmask": True}], ids=options_id
)
def test_gap(openunmix, options):
    """Digital silence inside the signal; upstream is defined there without a residual."""
    audio = signals.gapped(9000, seed=48).astype(np.float32)
    desired = openunmix.separate(SMALL["stereo"], audio, **options)
    actual = separate(SMALL["stereo"], audio, **options)
    assert_close(actual, desired, TOL["separator"]["float32"], dtype=np.float32)
    with_residual = separate(SMALL["stereo"], audio, residual=True, **options)
    assert_finite(with_residual, shape=(1, 5, *audio.shape[1:]), dtype=np.float32)


@pytest.mark.parametrize("niter", [0, 1])
@pytest.mark.parametrize("name", ["umx", "umxhq", "umxl", "umxse"])
def test_published_architectures_on_synthetic_sound(openunmix, name, niter):
    bundle = random_bundle(name, seed=49)
    audio = signals.music(int(0.7 * bundle.sample_rate), seed=50).astype(np.float32)
    desired = openunmix.separate(bundle, audio, niter=niter)
    actual = separate(bundle, audio, niter=niter)
    assert_close(actual, desired, TOL["separator"]["float32"], dtype=np.float32)


@pytest.mark.parametrize("name", ["umx", "umxhq", "umxl", "umxse"])
def test_published_architectures_on_music(openunmix, excerpt, name):
    bundle = random_bundle(name, seed=51)
    audio = excerpt(int(bundle.sample_rate), 2.0)
    desired = openunmix.separate(bundle, audio, niter=1)
    actual = separate(bundle, audio, niter=1)
    assert_close(actual, desired, TOL["separator"]["float32"], dtype=np.float32)
    for target, ours, theirs in zip(bundle.targets, actual[0], desired[0], strict=True):
        assert snr_db(ours, theirs) >= 100.0, target
