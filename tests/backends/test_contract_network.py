"""Networks of every backend: each stage, cut anywhere, and the whole."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close
from helpers.models import CONFIGS, model_of
from tolerances import TOL

from umx_np.backends.reference import ReferenceNetwork
from umx_np.testing import random_state
from umx_np.weights import expected_state

BOUND = TOL["network"]["float32"]


def network_on(ops, config, state):
    """A network that computes in float32."""
    return ops.network(config, state).in_dtype(ops.dtype_for(np.dtype(np.float32)))


def mags_for(config, nb_frames, level=1.0):
    """Magnitudes as `Network.decode` takes them."""
    mags = level * signals.magnitudes(config, nb_frames=nb_frames)[0].transpose(2, 0, 1)
    return np.ascontiguousarray(mags.astype(np.float32))


def single(parts):
    return [part.astype(np.float32) for part in parts]


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("level", [1e-6, 1.0, 1e3])
def test_stage_by_stage(ops, config, level):
    state, nb_frames = random_state(config, seed=3), 13
    fast, slow = network_on(ops, config, state), ReferenceNetwork(config, state)
    mags = mags_for(config, nb_frames, level)
    mags.flags.writeable = False
    read = mags[:, :, : config.nb_input_bins]
    encoded = slow.encode(read.astype(np.float64))
    assert_close(fast.encode(read), encoded, BOUND, dtype=np.float32)
    parts = [encoded]
    spans = [slice(0, 5), slice(5, 6), slice(6, nb_frames)]
    for layer in range(config.nb_layers):
        outputs = []
        for direction in range(config.nb_directions):
            expected = slow.scan(layer, direction, parts, slow.initial_state())
            blocks, memory = {}, fast.initial_state()
            for span in spans[::-1] if direction else spans:
                arrivals = single([part[span] for part in parts])
                blocks[span.start] = fast.scan(layer, direction, arrivals, memory)
            joined = np.concatenate([blocks[span.start] for span in spans])
            assert_close(joined, expected, TOL["lstm_scan"]["float32"], dtype=np.float32)
            outputs.append(expected)
        parts = outputs
    parts = [encoded, *parts]
    z = slow.combine(parts)
    assert_close(fast.combine(single(parts)), z, BOUND, dtype=np.float32)
    expected = slow.decode(z, mags.astype(np.float64))
    out = np.empty(mags.shape, np.float32)
    assert fast.decode(z.astype(np.float32), mags, out=out) is out
    assert_close(out, expected, BOUND, dtype=np.float32)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
@pytest.mark.parametrize("nb_frames", [1, 5, 260])
def test_model(ops, config, nb_frames):
    state = random_state(config, seed=1)
    models = [model_of(config, device=device) for device in (ops, "reference")]
    for model in models:
        model.load_state_dict(state)
    x = signals.magnitudes(config, nb_frames=nb_frames, nb_samples=2).astype(np.float32)
    x.flags.writeable = False
    actual, expected = models[0](x), models[1](x.astype(np.float64))
    assert expected.dtype == np.float64
    assert_close(actual, expected, BOUND, dtype=np.float32)
    frames_first = models[0](x.transpose(3, 0, 1, 2), layout="frames")
    np.testing.assert_array_equal(frames_first.transpose(1, 2, 3, 0), actual)
    assert models[0](x[..., :0]).shape == (*x.shape[:-1], 0)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_weights_come_back_bit_for_bit(ops, config):
    state = random_state(config, seed=3)
    model = model_of(config, device=ops)
    model.load_state_dict(state)
    back = model.state_dict()
    assert list(back) == list(expected_state(config))
    for name, value in state.items():
        np.testing.assert_array_equal(back[name], value)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_silence_stays_silent(ops, config):
    model = model_of(config, device=ops)
    model.load_state_dict(random_state(config, seed=1))
    x = np.zeros((1, config.nb_channels, config.nb_bins, 6), np.float32)
    np.testing.assert_array_equal(model(x), x)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_what_is_no_number_passes_no_stage(ops, config):
    """It stays in its frame, but for the recurrence, which carries it on."""
    network = network_on(ops, config, random_state(config, seed=3))
    mags = mags_for(config, 7)
    mags[3] = np.nan
    others = [0, 1, 2, 4, 5, 6]

    def only_that_frame(found):
        assert np.isnan(found[3]).all()
        assert np.isfinite(found[others]).all()

    only_that_frame(network.encode(mags[:, :, : config.nb_input_bins]))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((7, config.hidden_size)).astype(np.float32)
    x[3] = np.nan
    for direction in range(config.nb_directions):
        h = network.scan(0, direction, [x], network.initial_state())
        reached = slice(None, 4) if direction else slice(3, None)
        assert np.isnan(h[reached]).all()
        assert np.isfinite(h).sum() == 3 * h.shape[1]
    parts = [x, *[x[:, : config.lstm_hidden_size]] * config.nb_directions]
    only_that_frame(network.combine([np.ascontiguousarray(part) for part in parts]))
    only_that_frame(network.decode(x, mags_for(config, 7)))
    x[3] = 0.5
    only_that_frame(network.decode(x, mags))
