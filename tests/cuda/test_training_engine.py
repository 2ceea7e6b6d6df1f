"""What the engine of CUDA devices does otherwise than others: masks, memory, precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers.asserts import assert_close, relative_l2
from helpers.cuda_training import backend_on
from helpers.signals import magnitudes
from tolerances import TOL

from umx_np.backends.training import CounterMasks
from umx_np.config import ModelConfig
from umx_np.cuda.device import Device
from umx_np.cuda.tensors import FlatTensors
from umx_np.cuda.training import CudaTrainingBackend
from umx_np.errors import ConfigError, ShapeError
from umx_np.nn import TrainableNetwork
from umx_np.optim import Adam, clip_grad_norm
from umx_np.testing import random_state

CONFIGS = {
    "three layers": ModelConfig(nb_bins=17, hidden_size=8, max_bin=11),
    "two layers, unidirectional": ModelConfig(
        nb_bins=20, hidden_size=12, nb_layers=2, unidirectional=True
    ),
    "one layer, mono": ModelConfig(nb_bins=45, nb_channels=1, hidden_size=16, nb_layers=1),
    "one layer, unidirectional, mono": ModelConfig(
        nb_bins=9, nb_channels=1, hidden_size=8, nb_layers=1, unidirectional=True
    ),
}
# nb_frames, nb_samples: less than a piece of rows, and more than one
USUAL, LARGE = (7, 3), (33, 2)


@pytest.fixture
def backend(any_device: Device, monkeypatch: pytest.MonkeyPatch) -> CudaTrainingBackend:
    return backend_on(any_device, monkeypatch)


def on_host(arrays: Any) -> dict[str, np.ndarray]:
    return {key: value.get() if hasattr(value, "get") else value for key, value in arrays.items()}


def network_of(config: ModelConfig, name: str, **settings: Any) -> TrainableNetwork:
    settings.setdefault("dtype", np.float64 if name == "reference" else np.float32)
    return TrainableNetwork(config, random_state(config, seed=5), backend=name, **settings)


def passes(
    network: TrainableNetwork,
    shape: tuple[int, int],
    masks: list[np.ndarray] | CounterMasks,
    *,
    training: bool,
) -> dict[str, np.ndarray]:
    """Results, gradients and buffers after a forward and a backward pass."""
    network._draw_masks = lambda *place: masks  # type: ignore[method-assign]
    config = network.config
    mags = magnitudes(config, nb_frames=shape[0], nb_samples=shape[1])
    x = mags.transpose(3, 0, 1, 2)
    d_y = np.random.default_rng(0).standard_normal(x.shape)
    y, cache = network.forward(x, training=training)
    gradients = network.backward(d_y, cache, input_gradient=True)
    return on_host({"y": y, **gradients, **network.buffers})


def compare(
    actual: dict[str, np.ndarray], expected: dict[str, np.ndarray], *, training: bool
) -> None:
    assert list(actual) == list(expected)
    for key, value in expected.items():
        if value.dtype.kind == "i":
            assert actual[key] == value
        elif key == "input_mean" and training:
            # The batch norm takes any mean away: the reference has rounding errors.
            assert not actual[key].any()
        else:
            operation = "network" if key == "y" else "gradients"
            assert_close(actual[key], value, TOL[operation]["float32"], dtype="float32")


def drawn_masks(
    network: TrainableNetwork, masks: CounterMasks, shape: tuple[int, int]
) -> list[np.ndarray]:
    """What the card draws, as arrays."""
    engine, size = network._engine, network.config.hidden_size
    xp = engine.device.xp  # type: ignore[attr-defined]
    found = []
    for layer in range(network.config.nb_layers - 1):
        ones = xp.ones((shape[0] * shape[1], size), np.float32)
        engine._lstm.drop(ones, masks, layer, ones)  # type: ignore[attr-defined]
        found.append(ones.get().T.reshape(size, *shape))
    return found


class TestDropout:
    def test_both_passes_draw_the_same_masks(self, backend: CudaTrainingBackend) -> None:
        config = CONFIGS["three layers"]
        counters = CounterMasks(key=12345, rate=0.4)
        actual = passes(network_of(config, "cuda"), USUAL, counters, training=True)
        masks = drawn_masks(network_of(config, "cuda"), counters, USUAL)
        expected = passes(network_of(config, "reference"), USUAL, masks, training=True)
        compare(actual, expected, training=True)

    def test_shares(self, backend: CudaTrainingBackend) -> None:
        network = network_of(CONFIGS["three layers"], "cuda")
        masks = drawn_masks(network, CounterMasks(7, 0.25), (37, 9))
        for mask in masks:
            np.testing.assert_allclose(np.unique(mask), [0.0, 1.0 / 0.75], rtol=1e-6)
            assert (mask == 0).mean() == pytest.approx(0.25, abs=0.03)
        assert (masks[0] != masks[1]).any()
        other = drawn_masks(network, CounterMasks(8, 0.25), (37, 9))
        assert (masks[0] != other[0]).any()
        again = drawn_masks(network, CounterMasks(7, 0.25), (37, 9))
        np.testing.assert_array_equal(masks, again)

    def test_random_numbers_are_philox(self, backend: CudaTrainingBackend) -> None:
        """The vector of the authors for a counter and key of zeros."""
        first = 0x6627E8D5
        for threshold, kept in ((first, 1.0), (first + 1, 0.0)):
            out = backend.xp.ones(1, np.float32)
            arguments = [np.int64(1), np.uint64(0), np.uint32(0), np.uint32(threshold)]
            kernel = backend.device.kernel("training_steps.cu", "dropout")
            kernel((1,), (256,), (out, out, *arguments, np.float32(1.0)))
            assert float(out.get()[0]) == kept

    def test_depend_on_the_generator(self, backend: CudaTrainingBackend) -> None:
        network = network_of(CONFIGS["three layers"], "cuda", dropout=0.5)
        x = np.random.default_rng(0).random((5, 2, 2, 17), np.float32)
        results = [network.forward(x, rng=np.random.default_rng(k))[0].get() for k in (1, 1, 2)]
        np.testing.assert_array_equal(results[0], results[1])
        assert relative_l2(results[2], results[0]) > 0.01


def test_repeatable(backend: CudaTrainingBackend) -> None:
    config = CONFIGS["three layers"]
    first, again = (
        passes(network_of(config, "cuda"), LARGE, CounterMasks(1, 0.4), training=True)
        for _ in range(2)
    )
    for key, value in first.items():
        np.testing.assert_array_equal(again[key], value, err_msg=key)


@pytest.mark.parametrize(("settings", "error"), [({"tf32": True}, 3e-2), ({"amp": True}, 0.3)])
def test_rounded_products(
    backend: CudaTrainingBackend, settings: dict[str, bool], error: float
) -> None:
    """Random gradients cancel, so that single ones may be far off."""
    config = CONFIGS["three layers"]
    expected = passes(network_of(config, "reference"), USUAL, [], training=True)
    actual = passes(network_of(config, "cuda", **settings), USUAL, [], training=True)
    for key in ("y", "fc3.weight", "lstm.weight_ih_l1", "fc1.weight"):
        assert 1e-6 < relative_l2(actual[key], expected[key]) < error, key
    # So it is with running statistics; without a backward pass nothing is rounded.
    expected = passes(network_of(config, "reference"), USUAL, [], training=False)
    network = network_of(config, "cuda", **settings)
    actual = passes(network, USUAL, [], training=False)
    for key in ("y", "fc3.weight", "lstm.weight_ih_l1", "fc1.weight"):
        assert 1e-6 < relative_l2(actual[key], expected[key]) < error, key
    x = magnitudes(config, nb_frames=USUAL[0], nb_samples=USUAL[1]).transpose(3, 0, 1, 2)
    y, _ = network.forward(x, training=False, keep=False)
    assert_close(y.get(), expected["y"], TOL["network"]["float32"], dtype="float32")


def test_statistics_of_a_large_mean(backend: CudaTrainingBackend) -> None:
    """The variance does not drown in the square of the mean."""
    config = CONFIGS["three layers"]
    z = (1000.0 + np.random.default_rng(0).standard_normal((500, 37))).astype(np.float32)
    buffers = {f"n.running_{kind}": backend.zeros(37) for kind in ("mean", "var")}
    engine = backend.engine(config, np.dtype(np.float32))
    norm = engine._norm("n", backend.xp.asarray(z), buffers, True)
    exact = z.astype(np.float64)
    assert relative_l2(norm.mean.get(), exact.mean(axis=0)) < 1e-7
    assert relative_l2(norm.variance.get(), exact.var(axis=0)) < 1e-6
    unbiased = 0.1 * exact.var(axis=0, ddof=1)
    assert relative_l2(buffers["n.running_var"].get(), unbiased) < 1e-6


class TestNetwork:
    def test_state_goes_to_the_card_and_back(self, backend: CudaTrainingBackend) -> None:
        config = CONFIGS["three layers"]
        state = random_state(config, seed=5)
        network = network_of(config, "cuda")
        assert isinstance(network.parameters, FlatTensors)
        for name, array in network.state_dict().items():
            assert type(array) is np.ndarray
            np.testing.assert_array_equal(array, state[name], err_msg=name)
        other = random_state(config, seed=6)
        network.load_state_dict(other)
        for name, array in network.state_dict().items():
            np.testing.assert_array_equal(array, other[name], err_msg=name)

    def test_arrays_of_the_card_are_taken_as_they_are(self, backend: CudaTrainingBackend) -> None:
        config = CONFIGS["three layers"]
        x = np.random.default_rng(0).random((5, 2, 2, 17), np.float32)
        network = network_of(config, "cuda", dropout=0.0)
        first, _ = network.forward(x, training=False)
        again, _ = network.forward(backend.xp.asarray(x), training=False)
        np.testing.assert_array_equal(first.get(), again.get())

    def test_double_precision_is_refused(self, backend: CudaTrainingBackend) -> None:
        with pytest.raises(ConfigError, match="float32"):
            network_of(CONFIGS["three layers"], "cuda", dtype=np.float64)
        with pytest.raises(ConfigError, match="exclude each other"):
            network_of(CONFIGS["three layers"], "cuda", amp=True, tf32=True)

    def test_gradients_with_that_of_the_input_are_used_like_others(
        self, backend: CudaTrainingBackend
    ) -> None:
        x = np.random.default_rng(0).random((5, 2, 2, 17), np.float32)

        def trained(**options: Any) -> tuple[float, dict[str, np.ndarray]]:
            network = network_of(CONFIGS["three layers"], "cuda", dropout=0.0)
            y, cache = network.forward(x)
            gradients = network.backward(y, cache, **options)
            norm = clip_grad_norm(gradients, 1.0)
            Adam(network.parameters, backend="cuda").step(gradients)
            assert ("input" in gradients) == bool(options)
            assert len(list(gradients)) == len(gradients)
            return norm, network.state_dict()

        norm, expected = trained()
        found, actual = trained(input_gradient=True)
        assert found == norm
        for name, array in expected.items():
            np.testing.assert_array_equal(actual[name], array)

    def test_gradients_do_not_change_later(self, backend: CudaTrainingBackend) -> None:
        network = network_of(CONFIGS["three layers"], "cuda", dropout=0.0)
        x = np.random.default_rng(0).random((5, 2, 2, 17), np.float32)

        def gradients() -> FlatTensors:
            y, cache = network.forward(x)
            found = network.backward(y, cache)
            assert isinstance(found, FlatTensors)
            return found

        first = gradients()
        kept = first.to_host()
        gradients()
        for name, array in first.to_host().items():
            np.testing.assert_array_equal(array, kept[name])


SHAPES: dict[str, tuple[int, ...]] = {"a": (3, 5), "b": (70,), "c": (3, 5), "d": ()}


class TestFlatTensors:
    def test_views(self, backend: CudaTrainingBackend) -> None:
        tensors = FlatTensors(SHAPES, backend)
        assert list(tensors) == list(SHAPES)
        assert len(tensors) == 4
        values = {
            name: np.full(shape, number, np.float32)
            for number, (name, shape) in enumerate(SHAPES.items(), start=1)
        }
        tensors.assign({**values, "of no interest": np.zeros(2)})
        for name, array in tensors.to_host().items():
            np.testing.assert_array_equal(array, values[name])
            np.testing.assert_array_equal(tensors[name].get(), values[name])
            assert tensors[name].data.ptr % 256 == tensors.flat.data.ptr % 256
        # What lies between the tensors stays zero.
        assert float(tensors.flat.get().sum()) == 1 * 15 + 2 * 70 + 3 * 15 + 4
        assert not tensors.zeros_like().flat.get().any()

    def test_together(self, backend: CudaTrainingBackend) -> None:
        tensors = FlatTensors(SHAPES, backend)
        together = tensors.together(["a", "c"])
        together[1, 2, 4] = 7.0
        assert float(tensors["c"].get()[2, 4]) == 7.0
        assert tensors.together(["b"]).shape == (1, 70)
        with pytest.raises(ShapeError, match="equally far apart"):
            tensors.distance(["a", "b", "d"])
