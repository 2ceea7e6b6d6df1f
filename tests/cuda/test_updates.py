"""Optimisers on a CUDA device against the reference: all parameters in one launch."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from helpers.asserts import relative_l2
from helpers.cuda_training import backend_on

from umx_np import optim
from umx_np.cuda.device import Device
from umx_np.cuda.tensors import FlatTensors
from umx_np.cuda.training import CudaTrainingBackend
from umx_np.errors import ConfigError, ShapeError
from umx_np.optim import SGD, Adam, Optimizer

SHAPES: dict[str, tuple[int, ...]] = {"weight": (7, 9), "bias": (7,), "scale": (70,)}


@pytest.fixture
def backend(any_device: Device, monkeypatch: pytest.MonkeyPatch) -> CudaTrainingBackend:
    return backend_on(any_device, monkeypatch)


def arrays(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in SHAPES.items()}


def on_card(backend: CudaTrainingBackend, values: dict[str, np.ndarray]) -> FlatTensors:
    return backend.place(values)


def run(optimizer: Optimizer, grads: Any, nb_steps: int) -> None:
    for step in range(nb_steps):
        optimizer.lr *= 0.9
        optimizer.step(grads(step))


ADAM: list[dict[str, Any]] = [{}, {"weight_decay": 0.1}, {"weight_decay": 0.1, "decoupled": True}]
SGDS: list[dict[str, Any]] = [
    {"weight_decay": 0.1},
    {"momentum": 0.9},
    {"momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1},
    {"momentum": 0.9, "nesterov": True},
]


@pytest.mark.parametrize(
    ("kind", "settings"), [*((Adam, s) for s in ADAM), *((SGD, s) for s in SGDS)], ids=str
)
def test_ten_steps(
    backend: CudaTrainingBackend, kind: type[Optimizer], settings: dict[str, Any]
) -> None:
    start = arrays(0)
    expected = {name: array.copy() for name, array in start.items()}
    run(kind(expected, lr=0.01, **settings), lambda step: arrays(step + 1), 10)
    tensors = on_card(backend, start)
    optimizer = kind(tensors, lr=0.01, backend="cuda", **settings)
    run(optimizer, lambda step: on_card(backend, arrays(step + 1)), 10)
    for name, array in tensors.to_host().items():
        change = array - start[name]
        assert relative_l2(change, expected[name] - start[name]) < 1e-5, name


@pytest.mark.parametrize(("kind", "settings"), [(Adam, {}), (SGD, {"momentum": 0.9})], ids=str)
def test_state_goes_between_processor_and_card(
    backend: CudaTrainingBackend, kind: type[Optimizer], settings: dict[str, Any]
) -> None:
    """Three steps on the one, three on the other, three on the first: as nine on either."""
    values = arrays(0)
    straight = {name: array.copy() for name, array in values.items()}
    run(kind(straight, lr=0.01, **settings), lambda step: arrays(step + 1), 9)
    state, lr = None, 0.01
    for part in range(3):
        there = part % 2 == 1
        parameters: Any = on_card(backend, values) if there else values
        optimizer = kind(parameters, lr=lr, backend="cuda" if there else "reference", **settings)
        if state is not None:
            optimizer.load_state_dict(state)

        def grads(step: int, part: int = part, there: bool = there) -> Any:
            found = arrays(3 * part + step + 1)
            return on_card(backend, found) if there else found

        run(optimizer, grads, 3)
        state = optimizer.state_dict()
        assert all(type(array) is np.ndarray for array in state.values())
        values = parameters.to_host() if there else parameters
    for name, array in values.items():
        np.testing.assert_allclose(array, straight[name], rtol=1e-5, atol=1e-6)


class TestFactor:
    """What the gradients are multiplied with, and whether they are used at all."""

    def step(self, backend: CudaTrainingBackend, kind: Any, factor: float | None) -> Any:
        tensors, grads = on_card(backend, arrays(0)), on_card(backend, arrays(1))
        if factor is not None:
            grads.factor = backend.xp.asarray(np.array([factor], np.float32))
        kind(tensors, 0.1, backend="cuda").step(grads)
        return tensors.to_host()

    @pytest.mark.parametrize("kind", [Adam, SGD])
    def test_nothing_is_changed_by_what_is_no_number(
        self, backend: CudaTrainingBackend, kind: Any
    ) -> None:
        for name, array in self.step(backend, kind, math.nan).items():
            np.testing.assert_array_equal(array, arrays(0)[name])

    def test_multiplies(self, backend: CudaTrainingBackend) -> None:
        expected = arrays(0)
        SGD(expected, 0.1).step({name: 0.25 * array for name, array in arrays(1).items()})
        for name, array in self.step(backend, SGD, 0.25).items():
            np.testing.assert_allclose(array, expected[name], rtol=1e-6, atol=1e-7)
        for name, array in self.step(backend, SGD, None).items():
            np.testing.assert_array_equal(array, self.step(backend, SGD, 1.0)[name])


class TestClipping:
    def test_as_on_the_processor(self, backend: CudaTrainingBackend) -> None:
        for max_norm in (0.5, 1e3):
            grads = arrays(1)
            norm = optim.clip_grad_norm(grads, max_norm)
            expected = arrays(0)
            SGD(expected, 0.1).step(grads)
            tensors, found = on_card(backend, arrays(0)), on_card(backend, arrays(1))
            assert optim.clip_grad_norm(found, max_norm) == pytest.approx(norm, rel=1e-6)
            SGD(tensors, 0.1, backend="cuda").step(found)
            for name, array in tensors.to_host().items():
                np.testing.assert_allclose(array, expected[name], rtol=1e-5, atol=1e-7)

    def test_twice(self, backend: CudaTrainingBackend) -> None:
        grads = on_card(backend, arrays(1))
        optim.clip_grad_norm(grads, 2.0)
        assert optim.clip_grad_norm(grads, 1.0) == pytest.approx(2.0, rel=1e-5)
        assert optim.clip_grad_norm(grads, 5.0) == pytest.approx(1.0, rel=1e-5)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_no_number(self, backend: CudaTrainingBackend, value: float) -> None:
        broken = arrays(1)
        broken["bias"][3] = value
        tensors, grads = on_card(backend, arrays(0)), on_card(backend, broken)
        assert not math.isfinite(optim.clip_grad_norm(grads, 1.0))
        Adam(tensors, backend="cuda").step(grads)
        for name, array in tensors.to_host().items():
            np.testing.assert_array_equal(array, arrays(0)[name])


class TestMistakes:
    def test_tensors_and_backend_belong_together(self, backend: CudaTrainingBackend) -> None:
        with pytest.raises(ConfigError, match="are on cuda:0"):
            Adam(on_card(backend, arrays(0)))
        with pytest.raises(ConfigError, match="are on the processor"):
            Adam(arrays(0), backend="cuda")

    def test_gradients_are_those_of_the_network(self, backend: CudaTrainingBackend) -> None:
        optimizer = Adam(on_card(backend, arrays(0)), backend="cuda")
        with pytest.raises(ShapeError, match="those that the network returned"):
            optimizer.step(arrays(1))
        with pytest.raises(ShapeError, match="gradient of 'scale'"):
            optimizer.step({"weight": arrays(1)["weight"], "bias": arrays(1)["bias"]})
        assert optimizer.nb_steps == 0
