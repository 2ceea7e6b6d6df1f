"""Optimisers, schedule, early stopping and clipping, without torch."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from umx_np.errors import ConfigError, ShapeError
from umx_np.optim import SGD, Adam, EarlyStopping, ReduceLROnPlateau, clip_grad_norm

SHAPES = {"a": (3, 4), "b": (7,), "c": (70_000,), "d": ()}


def parameters(dtype=np.float64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {name: np.array(rng.standard_normal(s), dtype) for name, s in SHAPES.items()}


def gradients(step: int, dtype=np.float64) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(100 + step)
    return {name: np.array(rng.standard_normal(s), dtype) for name, s in SHAPES.items()}


def adam_by_the_book(p, grads, *, lr, betas, eps, weight_decay, decoupled):
    """Equations of the papers, one step after the other."""
    m = v = 0.0
    for t, g in enumerate(grads, 1):
        if decoupled:
            p = p - lr * weight_decay * p
        else:
            g = g + weight_decay * p
        m = betas[0] * m + (1 - betas[0]) * g
        v = betas[1] * v + (1 - betas[1]) * g**2
        p = p - lr * (m / (1 - betas[0] ** t)) / (np.sqrt(v / (1 - betas[1] ** t)) + eps)
    return p


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_adam(backend, decoupled, weight_decay):
    options = {"lr": 0.01, "betas": (0.8, 0.95), "eps": 1e-3}
    options |= {"weight_decay": weight_decay, "decoupled": decoupled}
    ours = parameters()
    optimizer = Adam(ours, backend=backend, **options)
    for step in range(4):
        optimizer.step(gradients(step))
    for name, start in parameters().items():
        expected = adam_by_the_book(start, [gradients(s)[name] for s in range(4)], **options)
        np.testing.assert_allclose(ours[name], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("momentum", "nesterov", "dampening"),
    [(0.0, False, 0.0), (0.0, False, 0.5), (0.9, False, 0.0), (0.9, False, 0.5), (0.9, True, 0.0)],
)
def test_sgd(backend, momentum, nesterov, dampening):
    ours = parameters()
    optimizer = SGD(
        ours, 0.1, momentum, nesterov, weight_decay=0.02, dampening=dampening, backend=backend
    )
    for step in range(3):
        optimizer.step(gradients(step))
    for name, p in parameters().items():
        velocity = None
        for step in range(3):
            g = gradients(step)[name] + 0.02 * p
            velocity = g if velocity is None else momentum * velocity + (1 - dampening) * g
            direction = g + momentum * velocity if nesterov else velocity
            p = p - 0.1 * (direction if momentum else g)
        np.testing.assert_allclose(ours[name], p, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("kind", "options"),
    [(Adam, {"weight_decay": 0.01}), (SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True})],
)
def test_resumed_run_is_the_same(backend, dtype, kind, options):
    """Bit for bit, also after the learning rate was changed."""
    straight = parameters(dtype)
    optimizer = kind(straight, backend=backend, **options)
    broken = parameters(dtype)
    first = kind(broken, backend=backend, **options)
    for step in range(3):
        optimizer.step(gradients(step, dtype))
        first.step(gradients(step, dtype))
    optimizer.lr = first.lr = 0.003
    state = first.state_dict()
    assert all(isinstance(value, np.ndarray) for value in state.values())
    first.step(gradients(9, dtype))  # what was saved does not move with it
    resumed = {name: value.copy() for name, value in straight.items()}
    second = kind(resumed, backend=backend, **options)
    second.load_state_dict(state)
    assert second.lr == 0.003
    assert second.nb_steps == 3
    for step in range(3, 6):
        optimizer.step(gradients(step, dtype))
        second.step(gradients(step, dtype))
    for name, value in straight.items():
        assert value.dtype == dtype
        assert np.array_equal(resumed[name], value), name


def test_arrays_are_changed_in_place(backend):
    ours = parameters()
    views = dict(ours)
    grads = gradients(0)
    kept = {name: value.copy() for name, value in grads.items()}
    Adam(ours, weight_decay=0.1, backend=backend).step(grads)
    for name, value in ours.items():
        assert value is views[name]
        assert not np.array_equal(value, parameters()[name])
        assert np.array_equal(grads[name], kept[name])


@pytest.mark.parametrize("threads", [1, 4])
def test_threads_change_nothing(backend, threads):
    expected, actual = parameters(), parameters()
    Adam(expected, backend=backend, threads=2).step(gradients(0))
    Adam(actual, backend=backend, threads=threads).step(gradients(0))
    for name, value in expected.items():
        assert np.array_equal(actual[name], value)


def test_overflow_is_the_callers_business(backend):
    """Whether it warns is decided where the step is made, also for the threads of the step."""
    ours = parameters(np.float32)
    grads = {name: np.full_like(value, 1e30) for name, value in ours.items()}
    with np.errstate(over="ignore", invalid="ignore"):
        optimizer = Adam(ours, backend=backend, threads=2)
        optimizer.step(grads)
    assert np.isinf(optimizer.state_dict()["exp_avg_sq.a"]).all()


def test_other_gradients_are_not_looked_at():
    ours, expected = parameters(), parameters()
    SGD(ours, 0.1).step({**gradients(0), "input": np.ones(5)})
    SGD(expected, 0.1).step(gradients(0))
    assert set(ours) == set(expected)
    for name, value in expected.items():
        assert not np.array_equal(value, parameters()[name])
        assert np.array_equal(ours[name], value)


def test_gradients_that_do_not_fit():
    ours = parameters()
    optimizer = Adam(ours)
    grads = gradients(0)
    del grads["b"]
    with pytest.raises(ShapeError, match="'b' has shape=None"):
        optimizer.step(grads)
    with pytest.raises(ShapeError, match=r"'a' has shape=\(4, 3\)"):
        optimizer.step({**gradients(0), "a": np.ones((4, 3))})
    assert optimizer.nb_steps == 0
    for name, value in ours.items():
        assert np.array_equal(value, parameters()[name])


def test_states_that_do_not_fit():
    optimizer = Adam(parameters())
    state = optimizer.state_dict()
    with pytest.raises(ShapeError, match=r"exp_avg\.a"):
        optimizer.load_state_dict({**state, "exp_avg.a": np.ones(2)})
    del state["exp_avg_sq.c"]
    with pytest.raises(ShapeError, match=r"exp_avg_sq\.c"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize(
    "options",
    [
        {"lr": -1.0},
        {"lr": math.nan},
        {"betas": (1.0, 0.9)},
        {"betas": (0.9, -0.1)},
        {"eps": -1e-8},
        {"weight_decay": -0.1},
    ],
)
def test_adam_options(options):
    with pytest.raises(ConfigError):
        Adam(parameters(), **options)


def test_sgd_options():
    with pytest.raises(ConfigError, match="nesterov"):
        SGD(parameters(), 0.1, nesterov=True)
    with pytest.raises(ConfigError, match="nesterov"):
        SGD(parameters(), 0.1, 0.9, nesterov=True, dampening=0.1)
    with pytest.raises(ConfigError, match="backend='fast'"):
        SGD(parameters(), 0.1, backend="fast")
    with pytest.raises(ShapeError, match="'a'"):
        SGD({"a": np.zeros((4, 4)).T[1:]}, 0.1)
    with pytest.raises(ShapeError, match="'a'"):
        SGD({"a": np.zeros(4, int)}, 0.1)


# -- clipping --------------------------------------------------------------------------------------


def test_clipping():
    grads = gradients(0, np.float32)
    norm = math.sqrt(sum(float(np.sum(g.astype(np.float64) ** 2)) for g in grads.values()))
    before = {name: value.copy() for name, value in grads.items()}
    assert clip_grad_norm(grads, 10 * norm) == pytest.approx(norm, rel=1e-6)
    for name, value in grads.items():
        assert np.array_equal(value, before[name])
    clip_grad_norm(grads, norm / 4)
    for name, value in grads.items():
        assert value.dtype == np.float32
        np.testing.assert_allclose(value, before[name] / 4, rtol=1e-5)


def test_clipping_of_what_is_not_finite():
    grads = {"a": np.array([1.0, np.nan]), "b": np.array([1.0])}
    assert math.isnan(clip_grad_norm(grads, 1.0))
    assert np.isnan(grads["b"]).all()


# -- schedule --------------------------------------------------------------------------------------


def rates(metrics, **options) -> list[float]:
    optimizer = SGD({"p": np.zeros(1)}, lr=1.0)
    schedule = ReduceLROnPlateau(optimizer, **options)
    found = []
    for metric in metrics:
        schedule.step(metric)
        found.append(optimizer.lr)
    return found


def test_plateau():
    assert rates([3, 2, 2, 2, 2], factor=0.5, patience=1) == [1, 1, 1, 0.5, 0.5]
    assert rates([3, 3, 3, 3], factor=0.5, patience=0) == [1, 0.5, 0.25, 0.125]
    # Of the five epochs after a reduction the first two do not count.
    assert rates([3, 3, 3, 3, 3], factor=0.5, patience=0, cooldown=2) == [1, 0.5, 0.5, 0.5, 0.25]
    assert rates([3, 3, 3], factor=0.1, patience=0, min_lr=0.2) == [1, 0.2, 0.2]


def test_plateau_threshold_is_relative():
    assert rates([100, 99.995], factor=0.5, patience=0) == [1, 0.5]
    assert rates([100, 99.98], factor=0.5, patience=0) == [1, 1]


def test_plateau_of_losses_below_zero():
    """Those of log-mse, in dB, mostly are."""
    assert rates([-12, -12, -12], factor=0.5, patience=0) == [1, 0.5, 0.25]
    assert rates([-12, -12.001, -11.999], factor=0.5, patience=0) == [1, 0.5, 0.25]
    assert rates([1, -1, -12, -12.01], factor=0.5, patience=0) == [1, 1, 1, 1]
    assert rates([0, -1e-9, 0], factor=0.5, patience=0) == [1, 1, 0.5]


def test_plateau_counts_not_a_number_as_bad():
    assert rates([math.nan, 3, math.nan], factor=0.5, patience=0) == [0.5, 0.5, 0.25]


def test_plateau_resumes():
    metrics = [3, 2.5, 2.6, 2.7, 2.8, 2.4, 2.5, 2.6, 2.7]
    for cut in range(len(metrics)):
        optimizer = SGD({"p": np.zeros(1)}, lr=1.0)
        options = {"factor": 0.5, "patience": 1, "cooldown": 1}
        schedule = ReduceLROnPlateau(optimizer, **options)
        for metric in metrics[:cut]:
            schedule.step(metric)
        again = SGD({"p": np.zeros(1)}, lr=optimizer.lr)
        resumed = ReduceLROnPlateau(again, **options)
        resumed.load_state_dict(json.loads(json.dumps(schedule.state_dict())))
        for metric in metrics[cut:]:
            resumed.step(metric)
        assert again.lr == rates(metrics, **options)[-1]


@pytest.mark.parametrize(
    "options", [{"factor": 1.0}, {"patience": -1}, {"cooldown": -1}, {"threshold": -1.0}]
)
def test_plateau_options(options):
    with pytest.raises(ConfigError):
        ReduceLROnPlateau(SGD({"p": np.zeros(1)}, lr=1.0), **options)


# -- early stopping --------------------------------------------------------------------------------


def stops(metrics, **options) -> list[bool]:
    stopping = EarlyStopping(**options)
    return [stopping.step(metric) for metric in metrics]


def test_early_stopping():
    assert stops([3, 2, 2.5, 2.5], patience=2) == [False, False, False, True]
    assert stops([3, 2, 2.5, 1, 2, 2], patience=2) == [False] * 5 + [True]
    assert stops([3, 2.95, 2.9, 2.0], patience=2, min_delta=0.2) == [False, False, True, False]


def test_patience_zero_never_stops():
    """Upstream stops at the second epoch, although 0 looks meant as never."""
    assert not any(stops([1, 2, math.nan, 3, 4, 5], patience=0))


def test_not_a_number_is_survived():
    """Upstream keeps a NaN of the first epoch as the best for ever, and stops at a later one."""
    stopping = EarlyStopping(patience=3)
    assert [stopping.step(m) for m in [math.nan, 3, math.nan, 2, math.inf]] == [False] * 5
    assert stopping.best == 2
    assert stopping.num_bad_epochs == 1
    assert stops([math.nan] * 3, patience=3) == [False, False, True]


def test_early_stopping_resumes():
    first = EarlyStopping(patience=3)
    for metric in [3, 2, 4, 4]:
        first.step(metric)
    second = EarlyStopping(patience=3)
    second.load_state_dict(first.state_dict())
    assert second.step(4) is True
    assert second.best == 2


def test_early_stopping_options():
    with pytest.raises(ConfigError):
        EarlyStopping(patience=-1)
    with pytest.raises(ConfigError):
        EarlyStopping(min_delta=-0.1)
