"""One target network against openunmix.model.OpenUnmix."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close
from tolerances import TOL

import umx_np
from umx_np.config import ModelConfig
from umx_np.testing import random_bundle, random_state
from umx_np.weights import TargetWeights

pytestmark = pytest.mark.parity

SMALL = {
    "defaults": ModelConfig(nb_bins=129, hidden_size=32),
    "one layer": ModelConfig(nb_bins=65, hidden_size=16, nb_layers=1),
    "two layers": ModelConfig(nb_bins=65, hidden_size=16, nb_layers=2),
    "four layers": ModelConfig(nb_bins=33, hidden_size=8, nb_layers=4),
    "unidirectional": ModelConfig(nb_bins=129, hidden_size=32, unidirectional=True),
    "unidirectional, one layer": ModelConfig(
        nb_bins=65, hidden_size=15, nb_layers=1, unidirectional=True
    ),
    "cropped": ModelConfig(nb_bins=129, hidden_size=32, max_bin=77),
    "mono": ModelConfig(nb_bins=129, nb_channels=1, hidden_size=32, max_bin=100),
    "odd sizes": ModelConfig(nb_bins=51, hidden_size=22, nb_layers=2, max_bin=37),
    "three channels": ModelConfig(nb_bins=33, nb_channels=3, hidden_size=10, nb_layers=1),
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize(("nb_samples", "nb_frames"), [(1, 20), (3, 7), (1, 1)])
def test_small_architectures(openunmix, name, nb_samples, nb_frames):
    config = SMALL[name]
    weights = TargetWeights(config, random_state(config, seed=11))
    x = signals.magnitudes(config, nb_samples=nb_samples, nb_frames=nb_frames, seed=12)
    x32 = x.astype(np.float32)
    desired = openunmix.forward(weights, x)
    desired32 = openunmix.forward(weights, x32)  # the same input, rounded, in double precision

    reference = umx_np.OpenUnmix.from_weights(weights, device="reference")
    assert_close(reference(x), desired, TOL["network"]["float64"], dtype=np.float64)
    assert_close(reference(x32), desired32, TOL["network"]["float32"], dtype=np.float32)
    compiled = umx_np.OpenUnmix.from_weights(weights, device="cpu")
    assert_close(compiled(x32), desired32, TOL["network"]["float32"], dtype=np.float32)
    frames_first = np.ascontiguousarray(x32.transpose(3, 0, 1, 2))
    assert_close(
        compiled(frames_first, layout="frames"),
        desired32.transpose(3, 0, 1, 2),
        TOL["network"]["float32"],
        dtype=np.float32,
    )


@pytest.mark.parametrize("nb_samples", [1, 3])
@pytest.mark.parametrize("name", ["umxhq", "umxl", "umxse"])
def test_published_architectures(openunmix, name, nb_samples):
    bundle = random_bundle(name, seed=13)
    weights = next(iter(bundle.targets.values()))
    nb_frames = 24 // nb_samples
    x = signals.magnitudes(weights.config, nb_samples=nb_samples, nb_frames=nb_frames, seed=14)
    x = x.astype(np.float32)
    desired = openunmix.forward(weights, x)
    actual = umx_np.OpenUnmix.from_weights(weights, device="cpu")(x)
    assert_close(actual, desired, TOL["network"]["float32"], dtype=np.float32)


def test_input_statistics_as_arguments(openunmix):
    """Mean and scale given at construction are negated and inverted, as upstream does."""
    config = SMALL["cropped"]
    rng = np.random.default_rng(15)
    mean, scale = rng.uniform(1.0, 2.0, (2, config.nb_bins))
    theirs = openunmix.model.OpenUnmix(
        nb_bins=config.nb_bins,
        hidden_size=config.hidden_size,
        max_bin=config.max_bin,
        input_mean=mean,
        input_scale=scale,
    )
    ours = umx_np.OpenUnmix(
        nb_bins=config.nb_bins,
        hidden_size=config.hidden_size,
        max_bin=config.max_bin,
        input_mean=mean,
        input_scale=scale,
    )
    state = ours.state_dict()
    for name in ("input_mean", "input_scale", "output_mean", "output_scale"):
        np.testing.assert_array_equal(state[name], getattr(theirs, name).detach().numpy())


def test_state_dict_fits_upstream(openunmix):
    """Names, shapes and dtypes are PyTorch's, in both directions."""
    config = SMALL["two layers"]
    weights = TargetWeights(config, random_state(config, seed=16))
    theirs = openunmix.network(weights, "float32").state_dict()
    ours = umx_np.OpenUnmix.from_weights(weights, device="cpu").state_dict()
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.numpy().dtype, name
        np.testing.assert_array_equal(ours[name], tensor.numpy())
