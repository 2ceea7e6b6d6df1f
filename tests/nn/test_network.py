"""`TrainableNetwork`: its contract, on both engines."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.asserts import assert_close, assert_finite, relative_l2
from tolerances import TOL

import umx_np
from umx_np.config import ModelConfig
from umx_np.errors import ConfigError, ShapeError, WeightsError
from umx_np.nn import TrainableNetwork, mse_loss
from umx_np.testing import random_state
from umx_np.weights import expected_state

CONFIG = ModelConfig(nb_bins=33, hidden_size=16, nb_layers=2, max_bin=21)


def make(backend: str = "reference", config: ModelConfig = CONFIG, **options) -> TrainableNetwork:
    return TrainableNetwork(config, random_state(config, seed=1), backend=backend, **options)


def batch(config: ModelConfig = CONFIG, nb_frames: int = 6, nb_samples: int = 3) -> np.ndarray:
    rng = np.random.default_rng(2)
    shape = (nb_frames, nb_samples, config.nb_channels, config.nb_bins)
    return rng.uniform(0.0, 5.0, shape).astype(np.float32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_names_and_order(backend):
    network = make(backend)
    names = list(expected_state(CONFIG))
    assert list(network.state_dict()) == names
    trainable = [n for n in names if "running" not in n and "num_batches" not in n]
    assert list(network.parameters) == trainable
    assert trainable[:6] == [
        "input_mean",
        "input_scale",
        "output_scale",
        "output_mean",
        "fc1.weight",
        "bn1.weight",
    ]
    assert set(network.buffers) == set(names) - set(trainable)
    y, cache = network.forward(batch(), rng=rng())
    gradients = network.backward(np.ones_like(y), cache)
    assert list(gradients) == trainable
    for name, gradient in gradients.items():
        assert_finite(gradient, shape=network.parameters[name].shape, dtype=np.float32)


def test_input_gradient_only_on_request(backend):
    network = make(backend)
    y, cache = network.forward(batch(), rng=rng())
    gradients = network.backward(np.ones_like(y), cache, input_gradient=True)
    assert_finite(gradients["input"], shape=y.shape, dtype=np.float32)
    # Bins that the network does not read reach the result through the mixture only.
    assert not gradients["input"][..., CONFIG.nb_input_bins :].any()
    assert gradients["input"][..., : CONFIG.nb_input_bins].any()


def test_evaluation_mode_is_the_model(backend):
    """The same weights give what the engine for separation gives."""
    network = make(backend, dropout=0.4)
    x = batch(nb_samples=2)
    before = network.state_dict()
    y, _ = network.forward(x, training=False)
    model = umx_np.OpenUnmix(33, 2, 16, 2, max_bin=21)
    model.load_state_dict(network.state_dict())
    assert_close(y, model(x, layout="frames"), TOL["network"]["float32"], dtype=np.float32)
    for name, value in network.state_dict().items():
        assert np.array_equal(value, before[name]), name


def test_running_statistics(backend):
    network = make(backend, dropout=0.0)
    before = network.state_dict()
    network.forward(batch())
    for name in ("bn1", "bn2", "bn3"):
        assert network.buffers[f"{name}.num_batches_tracked"] == 1001
        for part in ("running_mean", "running_var"):
            assert not np.array_equal(network.buffers[f"{name}.{part}"], before[f"{name}.{part}"])
    assert network.buffers["bn1.num_batches_tracked"].dtype == np.int64


def test_running_variance_is_unbiased():
    network = make(dropout=0.0, dtype=np.float64)
    state = network.state_dict()
    x = batch()
    scaled = (x[..., :21] + state["input_mean"]) * state["input_scale"]
    z = scaled.reshape(-1, 42) @ state["fc1.weight"].T
    network.forward(x)
    expected = 0.9 * state["bn1.running_var"] + 0.1 * z.var(axis=0, ddof=1)
    assert relative_l2(network.buffers["bn1.running_var"], expected) < 1e-12


def test_dropout(backend):
    network = make(backend)
    x = batch()
    first, _ = network.forward(x, rng=rng(1))
    again, _ = network.forward(x, rng=rng(1))
    other, _ = network.forward(x, rng=rng(2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    with pytest.raises(ConfigError, match="rng=None"):
        network.forward(x)


def test_no_dropout_with_one_layer(backend):
    network = make(backend, ModelConfig(nb_bins=33, hidden_size=16, nb_layers=1))
    network.forward(batch())


def test_dropout_share():
    from umx_np.layers.dropout import dropout_mask

    mask = dropout_mask(rng(), 0.4, (100, 1000), np.dtype(np.float32))
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {np.float32(0.0), np.float32(1.0 / 0.6)}
    assert np.mean(mask > 0) == pytest.approx(0.6, abs=0.01)
    assert np.mean(mask) == pytest.approx(1.0, abs=0.02)


def test_nothing_given_is_modified(backend):
    network = make(backend)
    x = batch()
    x_before = x.copy()
    y, cache = network.forward(x, rng=rng())
    d_y = np.random.default_rng(3).standard_normal(y.shape).astype(np.float32)
    d_before = d_y.copy()
    y_before = y.copy()
    parameters = {name: value.copy() for name, value in network.parameters.items()}
    network.backward(d_y, cache, input_gradient=True)
    assert np.array_equal(x, x_before)
    assert np.array_equal(d_y, d_before)
    assert np.array_equal(y, y_before)
    for name, value in network.parameters.items():
        assert np.array_equal(value, parameters[name])


def test_state_is_copied(backend):
    state = random_state(CONFIG, seed=1)
    network = TrainableNetwork(CONFIG, state, backend=backend)
    before = {name: value.copy() for name, value in state.items()}
    network.forward(batch(), rng=rng())
    network.parameters["fc1.weight"][...] = 0
    for name, value in state.items():
        assert np.array_equal(value, before[name])


def test_parameters_are_read_anew(backend):
    """An optimiser changes the arrays in place between two passes."""
    network = make(backend, dropout=0.0)
    x = batch()
    first, _ = network.forward(x, training=False)
    for name in ("lstm.weight_hh_l1", "lstm.bias_ih_l0_reverse", "fc3.weight", "input_scale"):
        network.parameters[name] *= 1.5
        second, _ = network.forward(x, training=False)
        assert not np.array_equal(first, second), name
        first = second


def test_two_passes_at_once(backend):
    """Caches do not share memory: two forward passes, then their backward passes."""
    network = make(backend, dropout=0.0)
    x = batch()
    d_y = np.random.default_rng(3).standard_normal(x.shape).astype(np.float32)
    expected = network.backward(d_y, network.forward(x)[1])
    _, first = network.forward(x)
    _, second = network.forward(x[::-1])
    network.backward(d_y, second)
    actual = network.backward(d_y, first)
    for name, gradient in expected.items():
        assert np.array_equal(actual[name], gradient), name


def test_cache_is_used_up(backend):
    network = make(backend)
    y, cache = network.forward(batch(), rng=rng())
    network.backward(np.ones_like(y), cache)
    with pytest.raises(ConfigError, match="used"):
        network.backward(np.ones_like(y), cache)
    y, cache = network.forward(batch(), training=False, keep=False)
    with pytest.raises(ConfigError, match="keep=False"):
        network.backward(np.ones_like(y), cache)


def test_load_state_dict_keeps_the_arrays(backend):
    network = make(backend)
    weight = network.parameters["fc1.weight"]
    state = random_state(CONFIG, seed=9)
    network.load_state_dict(state)
    assert network.parameters["fc1.weight"] is weight
    assert np.array_equal(weight, state["fc1.weight"])
    state["bn3.bias"] = state["bn3.bias"][:-1]
    with pytest.raises(WeightsError, match=r"bn3\.bias"):
        network.load_state_dict(state)


@pytest.mark.parametrize("shape", [(6, 3, 2, 32), (6, 3, 1, 33), (6, 3, 33), (0, 3, 2, 33)])
def test_shapes_that_do_not_fit(backend, shape):
    with pytest.raises(ShapeError, match="x has shape"):
        make(backend).forward(np.ones(shape, np.float32), rng=rng())


def test_one_value_cannot_be_normalised(backend):
    network = make(backend)
    with pytest.raises(ShapeError, match="more than one value"):
        network.forward(batch(nb_frames=1, nb_samples=1), rng=rng())
    network.forward(batch(nb_frames=1, nb_samples=1), training=False)


def test_gradient_of_another_shape(backend):
    network = make(backend)
    y, cache = network.forward(batch(), rng=rng())
    with pytest.raises(ShapeError, match="d_y has shape"):
        network.backward(y[:-1], cache)


def test_options():
    with pytest.raises(ConfigError, match="dtype"):
        make(dtype=np.float16)
    with pytest.raises(ConfigError, match="dropout"):
        make(dropout=1.0)
    with pytest.raises(ConfigError, match="backend='torch'"):
        make("torch")


def test_not_a_number_stays_one(backend):
    """A damaged batch is seen in the loss and not hidden by a kernel."""
    network = make(backend, dropout=0.0)
    x = batch()
    x[2, 1, 0, 3] = np.nan
    y, cache = network.forward(x)
    loss, d_y = mse_loss(y, np.ones_like(y))
    assert np.isnan(loss)
    gradients = network.backward(d_y, cache)
    assert np.isnan(gradients["fc1.weight"]).any()


def test_mse_loss():
    y, target = batch(), batch() + 1.0
    target[0] = y[0]
    loss, d_y = mse_loss(y, target)
    expected = np.mean((y.astype(np.float64) - target) ** 2)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert_close(d_y, 2.0 * (y - target) / y.size, TOL["network"]["float32"], dtype=np.float32)
    assert mse_loss(y, target, threads=1)[0] == loss
    with pytest.raises(ShapeError, match="target has shape"):
        mse_loss(y, target[:1])
    in_place = y.copy()
    assert mse_loss(in_place, target, out=in_place)[1] is in_place
    assert np.array_equal(in_place, d_y)
    with pytest.raises(ShapeError, match="out has shape"):
        mse_loss(y, target, out=in_place[:1])
    # A view that is not contiguous.
    assert mse_loss(y[:, ::2], target[:, ::2])[0] == pytest.approx(
        np.mean((y[:, ::2].astype(np.float64) - target[:, ::2]) ** 2), rel=1e-6
    )


def test_mse_loss_of_what_overflows():
    """Whether it warns is the caller's business, also in other threads."""
    y = np.full(200_000, 1e30, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        assert mse_loss(y, -y, threads=2)[0] == np.inf
        assert np.isnan(mse_loss(y * np.float32(1e30), y * np.float32(1e30), threads=2)[0])
