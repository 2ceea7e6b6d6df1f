"""The recurrent scans against nn.lstm in float64: emulated in small, and on a card."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import scan_model as model
from helpers.emulated import emulated
from helpers.emulator.launching import EmulatorError

from umx_np.cuda import compiling
from umx_np.cuda.device import Device, Kernel
from umx_np.cuda.scan import Saved, Scan
from umx_np.cuda.scan_plan import Plan
from umx_np.errors import DeviceError, ShapeError
from umx_np.layers.lstm import lstm_backward, lstm_forward

# Measured: 1.4e-7.
BOUND = 1e-6

# Which of the directions of a layer walk through time backward.
BOTH = [False, True]

# Every kernel, both products; padding of units, depth, columns and samples, weights in shared
# memory, several tiles, all numbers of lanes.
PLANS = {
    "step": Plan("step", 11),
    "cooperative": Plan("cooperative", 11, 3, 4, backward_lanes=4),
    "whole": Plan("cooperative", 16, 2, 8),
    "padded": Plan("cooperative", 11, 4, 4, tiles=2),
    "shared": Plan("cooperative", 22, 2, 12, tiles=2, forward_shared=1, backward_shared=2),
    "lanes": Plan("cooperative", 13, 2, 8, forward_lanes=32, backward_lanes=16),
}


@pytest.fixture(params=PLANS)
def plan(request: pytest.FixtureRequest) -> Plan:
    return PLANS[request.param]


class Case:
    """Inputs of a layer, and what comes out in float64."""

    def __init__(
        self,
        hidden: int,
        directions: int,
        nb_frames: int,
        nb_samples: int,
        *,
        input_scale: float = 1.0,
        gradient_scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)

        def normal(*shape: int) -> np.ndarray:
            return rng.standard_normal(shape).astype(np.float32)

        self.hidden = hidden
        self.gates = normal(directions, nb_frames, nb_samples, 4 * hidden) * np.float32(input_scale)
        self.W_hh = normal(directions, 4 * hidden, hidden) / np.float32(hidden**0.5)
        self.bias = normal(directions, 4 * hidden)
        self.d_h = normal(nb_frames, nb_samples, directions * hidden) * np.float32(gradient_scale)

        outs, caches, d_gates, d_W_hh = [], [], [], []
        for direction in range(directions):
            given = (self.gates + self.bias[:, None, None])[direction].astype(np.float64)
            # As if x were the pre-activations: d_x is their gradient.
            weights = np.eye(4 * hidden), self.W_hh[direction].astype(np.float64)
            zero = np.zeros(4 * hidden)
            reverse = direction == 1
            h, cache = lstm_forward(given, *weights, zero, zero, reverse=reverse)
            d_part = self.d_h[..., direction * hidden : (direction + 1) * hidden]
            d_x, gradients = lstm_backward(
                d_part.astype(np.float64), cache, *weights, reverse=reverse
            )
            outs.append(h)
            caches.append([x[::-1] if reverse else x for x in (cache.gates, cache.c)])
            d_gates.append(d_x)
            d_W_hh.append(gradients["weight_hh"])
        self.out = np.concatenate(outs, axis=-1)
        self.activations, self.cells = (np.stack(x) for x in zip(*caches, strict=True))
        self.d_gates, self.d_W_hh = np.stack(d_gates), np.stack(d_W_hh)


class Run:
    """What a scan makes of a case."""

    def __init__(self, device: Device, case: Case, plan: Plan | None, **options: Any) -> None:
        xp = device.xp
        directions = len(case.gates)
        self.scan = Scan(device, case.hidden, BOTH[:directions], plan, **options)
        self.gates, self.W_hh = xp.asarray(case.gates), xp.asarray(case.W_hh)
        self.out = xp.empty(case.out.shape, np.float32)
        saved = self.scan.forward(self.gates, self.W_hh, self.out, bias=xp.asarray(case.bias))
        assert saved is not None
        self.activations, self.cells = xp.asnumpy(saved.gates).copy(), xp.asnumpy(saved.cells)
        self.d_gates = self.scan.backward(xp.asarray(case.d_h), saved, self.W_hh)
        device.synchronize()
        self.arrays = [
            *(xp.asnumpy(x) for x in (self.out, self.d_gates)),
            self.activations,
            self.cells,
        ]

    def check(self, case: Case, bound: float) -> None:
        expected = case.out, case.d_gates, case.activations, case.cells
        for found, wanted in zip(self.arrays, expected, strict=True):
            assert_near(found, wanted, bound)


def assert_near(found: np.ndarray, wanted: np.ndarray, bound: float) -> None:
    assert found.dtype == np.float32
    assert found.shape == wanted.shape
    assert np.isfinite(found).all()
    difference = np.linalg.norm(found.astype(np.float64) - wanted)
    assert difference <= bound * np.linalg.norm(wanted)


@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(("nb_frames", "nb_samples"), [(6, 9), (1, 3), (2, 1), (3, 8)])
def test_layer(any_device, plan: Plan, directions: int, nb_frames: int, nb_samples: int) -> None:
    case = Case(plan.hidden, directions, nb_frames, nb_samples)
    Run(any_device, case, plan).check(case, BOUND)


@pytest.mark.parametrize("gradient_scale", [1e-25, 1e25])
def test_gradients_of_any_size(emulated_device, plan: Plan, gradient_scale: float) -> None:
    case = Case(plan.hidden, 2, 5, 3, gradient_scale=gradient_scale)
    Run(emulated_device, case, plan).check(case, BOUND)


def test_saturated_gates(emulated_device, plan: Plan) -> None:
    case = Case(plan.hidden, 2, 5, 3, input_scale=100.0)
    run = Run(emulated_device, case, plan)
    assert_near(run.arrays[0], case.out, BOUND)
    # What is left of the gradient of a saturated gate is the rounding of the activation.
    difference = np.abs(run.arrays[1] - case.d_gates).max()
    assert difference < 10 * BOUND * np.abs(case.d_h).max()


def test_order_of_threads_changes_nothing(plan: Plan) -> None:
    case = Case(plan.hidden, 2, 5, 9)
    orders = [("ascending", 0), ("descending", 0), *(("shuffled", seed) for seed in range(3))]
    first, *others = (Run(emulated(*order), case, plan).arrays for order in orders)
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", [name for name in PLANS if name != "step"])
def test_model_has_the_same_order_of_sums(emulated_device, name: str) -> None:
    plan = PLANS[name]
    case = Case(plan.hidden, 1, 5, plan.samples)
    case.bias[:] = 0.0
    run = Run(emulated_device, case, plan)
    h, d_gates = model.scan(plan, case.gates[0], case.W_hh[0], case.d_h)
    # Up to the last bit of tanh.
    assert_near(run.arrays[0], h, 2e-7)
    assert_near(run.arrays[1][0], d_gates, 3e-7)


def test_without_keeping(any_device, plan: Plan) -> None:
    xp = any_device.xp
    case = Case(plan.hidden, 2, 4, 5)
    run = Run(any_device, case, plan)
    gates, out = xp.asarray(case.gates), xp.empty(case.out.shape, np.float32)
    bias = xp.asarray(case.bias)
    assert run.scan.forward(gates, run.W_hh, out, keep=False, bias=bias) is None
    np.testing.assert_array_equal(xp.asnumpy(out), run.arrays[0])
    np.testing.assert_array_equal(xp.asnumpy(gates), case.gates)


def test_views(any_device, plan: Plan) -> None:
    """Rows of a wider array, matrices anywhere in a buffer, no bias."""
    xp = any_device.xp
    case = Case(plan.hidden, 2, 4, 5)
    case.bias[:] = 0.0
    run = Run(any_device, case, plan)
    hidden, size = plan.hidden, case.W_hh[0].size
    buffer = xp.zeros(3 * size + 7, np.float32)
    strides = (4 * (size + 6), 4 * hidden, 4)
    W_hh = xp.lib.stride_tricks.as_strided(buffer[1:], case.W_hh.shape, strides)
    W_hh[...] = run.W_hh
    wide = xp.zeros((4, 5, 2 * hidden + 3), np.float32)
    d_wide = xp.zeros((4, 5, 3 * hidden), np.float32)
    out, d_h = wide[..., 3:], d_wide[..., : 2 * hidden]
    d_h[...] = xp.asarray(case.d_h)
    saved = run.scan.forward(xp.asarray(case.gates), W_hh, out)
    activations = xp.asnumpy(saved.gates).copy()
    d_gates = run.scan.backward(d_h, saved, W_hh)
    assert d_gates is saved.gates
    for found, wanted in zip((out, d_gates, activations, saved.cells), run.arrays, strict=True):
        np.testing.assert_array_equal(xp.asnumpy(found), wanted)
    assert not xp.asnumpy(wide[..., :3]).any()


def _recurrent_rows(d_gates: Any, out: Any, direction: int) -> tuple[Any, Any]:
    """Matrices whose product is the gradient of W_hh of one direction.

    Every frame's gradients stand beside h of the frame that the direction visited before it; the
    first visited frame had h = 0 before it and is left out.
    """
    _, nb_frames, nb_samples, nb_gates = d_gates.shape
    hidden = nb_gates // 4
    nb_rows = max(0, nb_frames - 1) * nb_samples
    columns = out[..., direction * hidden : (direction + 1) * hidden]
    rows, h_before = (d_gates[1, :-1], columns[1:]) if direction else (d_gates[0, 1:], columns[:-1])
    return rows.reshape(nb_rows, nb_gates), h_before.reshape(nb_rows, hidden)


@pytest.mark.parametrize("nb_frames", [1, 5])
def test_gradient_of_the_recurrent_weights(any_device, nb_frames: int) -> None:
    plan = PLANS["padded"]
    case = Case(plan.hidden, 2, nb_frames, 3)
    run = Run(any_device, case, plan)
    for direction in range(2):
        rows, h_before = _recurrent_rows(run.d_gates, run.out, direction)
        d_W_hh = any_device.xp.empty(case.W_hh.shape[1:], np.float32)
        any_device.gemm(rows, h_before, d_W_hh, trans_a=True)
        assert_near(any_device.xp.asnumpy(d_W_hh), case.d_W_hh[direction], 1e-6)


# ------------------------------------------------------------------ choices


@pytest.mark.parametrize("resident", [1, 2])
def test_cooperative_groups_run_in_rounds(emulated_device, monkeypatch, resident: int) -> None:
    plan = PLANS["cooperative"]
    case = Case(plan.hidden, 2, 4, 9)  # six groups
    whole = Run(emulated_device, case, plan)
    monkeypatch.setattr(Scan, "_resident_groups", lambda *args, **kwargs: resident)
    for a, b in zip(Run(emulated_device, case, plan).arrays, whole.arrays, strict=True):
        np.testing.assert_array_equal(a, b)


def test_chosen_plan(emulated_device) -> None:
    case = Case(12, 2, 3, 4)
    run = Run(emulated_device, case, None)
    assert run.scan.plan(4).kind == "cooperative"
    run.check(case, BOUND)


def test_what_the_card_cannot_hold_is_not_chosen(emulated_device, monkeypatch) -> None:
    monkeypatch.setattr(Kernel, "max_active_blocks", lambda *args: 1)
    scan = Scan(emulated_device, 12, BOTH)
    assert scan.plan(4).kind == "step"
    case = Case(12, 2, 3, 4)
    Run(emulated_device, case, None).check(case, BOUND)
    with pytest.raises(DeviceError, match="cooperative scan"):
        Run(emulated_device, Case(11, 1, 2, 1), PLANS["cooperative"])


def test_shapes_are_checked(emulated_device) -> None:
    xp = emulated_device.xp
    scan = Scan(emulated_device, 4, BOTH, Plan("step", 4))
    gates, W_hh, out = (
        xp.zeros(shape, np.float32) for shape in ((2, 3, 5, 16), (2, 16, 4), (3, 5, 8))
    )
    with pytest.raises(ShapeError, match=r"gates\.shape"):
        scan.forward(gates[0], W_hh, out)
    with pytest.raises(ShapeError, match="gates must be float32"):
        scan.forward(gates.astype(np.float64), W_hh, out)
    with pytest.raises(ShapeError, match=r"gates\.strides"):
        scan.forward(xp.zeros((2, 3, 5, 17), np.float32)[..., :16], W_hh, out)
    with pytest.raises(ShapeError, match="weight_hh must be"):
        scan.forward(gates, W_hh[:1], out)
    with pytest.raises(ShapeError, match=r"weight_hh\.strides"):
        scan.forward(gates, xp.zeros((2, 16, 5), np.float32)[..., :4], out)
    with pytest.raises(ShapeError, match="out must be"):
        scan.forward(gates, W_hh, out[:2])
    with pytest.raises(ShapeError, match=r"out\.strides"):
        scan.forward(gates, W_hh, xp.zeros((3, 6, 8), np.float32)[:, :5])
    with pytest.raises(ShapeError, match="bias must be"):
        scan.forward(gates, W_hh, out, bias=xp.zeros((2, 4), np.float32))
    saved = Saved(gates, xp.zeros((2, 3, 5, 4), np.float32))
    with pytest.raises(ShapeError, match=r"saved\.cells must be"):
        scan.backward(out, saved._replace(cells=gates), W_hh)
    with pytest.raises(ShapeError, match=r"plan\.hidden"):
        Scan(emulated_device, 5, BOTH, Plan("step", 4))


def test_nothing_to_do(emulated_device, plan: Plan) -> None:
    xp = emulated_device.xp
    scan = Scan(emulated_device, plan.hidden, BOTH, plan)
    W_hh = xp.zeros((2, 4 * plan.hidden, plan.hidden), np.float32)
    for shape in ((0, 3), (3, 0)):
        gates = xp.zeros((2, *shape, 4 * plan.hidden), np.float32)
        out = xp.zeros((*shape, 2 * plan.hidden), np.float32)
        scan.backward(out, scan.forward(gates, W_hh, out), W_hh)


# ------------------------------------------------------------------ gradients and single pieces


def test_step_scan_is_its_own_derivative(emulated_device) -> None:
    """In float64: central differences of 4th order along random directions."""
    hidden, directions, nb_frames, nb_samples = 3, 2, 4, 2
    xp = emulated_device.xp
    forward, backward = (
        emulated_device.kernel("scan_step.cu", f"scan_{name}_step", defines={"REAL": "double"})
        for name in ("forward", "backward")
    )
    rng = np.random.default_rng(1)
    gates = rng.standard_normal((directions, nb_frames, nb_samples, 4 * hidden))
    W_hh = rng.standard_normal((directions, 4 * hidden, hidden))
    d_h = rng.standard_normal((nb_frames, nb_samples, directions * hidden))
    reverse = xp.asarray(np.array(BOTH, np.uint8))

    def launch(kernel: Kernel, step: int, *arrays: Any) -> None:
        numbers = map(np.int32, (step, nb_frames, nb_samples, hidden, directions * hidden))
        kernel((1, nb_samples, directions), (256,), (*arrays, reverse, *numbers))

    def run(gates: np.ndarray, W_hh: np.ndarray) -> tuple[np.ndarray, Any, Any]:
        made, out = xp.asarray(gates), xp.empty(d_h.shape, np.float64)
        cells = xp.empty((*gates.shape[:3], hidden), np.float64)
        h, c = (xp.zeros((directions, nb_samples, hidden), np.float64) for _ in "hc")
        for step in range(nb_frames):
            products = xp.asarray(xp.asnumpy(h) @ W_hh.swapaxes(1, 2))
            launch(forward, step, made, products, None, out, cells, h, c)
        return xp.asnumpy(out), made, cells

    def loss(gates: np.ndarray, W_hh: np.ndarray) -> float:
        return float((run(gates, W_hh)[0] * d_h).sum())

    out, activations, cells = run(gates, W_hh)
    d_c = xp.zeros((directions, nb_samples, hidden), np.float64)
    d_a = xp.zeros((directions, nb_samples, 4 * hidden), np.float64)
    for step in range(nb_frames):
        by_h = xp.asarray(xp.asnumpy(d_a) @ W_hh)
        launch(backward, step, activations, cells, xp.asarray(d_h), by_h, d_c, d_a)
    d_gates = xp.asnumpy(activations)
    d_W_hh = np.zeros_like(W_hh)
    for direction in range(directions):
        rows, h_before = _recurrent_rows(d_gates, out, direction)
        d_W_hh[direction] = rows.T @ h_before

    for _ in range(3):
        to_gates, to_W_hh = rng.standard_normal(gates.shape), rng.standard_normal(W_hh.shape)
        step = 3e-4
        at = [loss(gates + k * step * to_gates, W_hh + k * step * to_W_hh) for k in (-2, -1, 1, 2)]
        numeric = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step)
        exact = (d_gates * to_gates).sum() + (d_W_hh * to_W_hh).sum()
        assert abs(numeric - exact) < 1e-9 * max(1.0, abs(exact))


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the sources, which may be changed."""
    for file in compiling.SOURCES.glob("*.cu*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(compiling, "SOURCES", tmp_path)
    getattr(compiling.read_source, "cache_clear", lambda: None)()
    yield tmp_path
    getattr(compiling.read_source, "cache_clear", lambda: None)()


# Some parts stop in some steps before they read what the others sent.
UNEVEN = (
    "scan.cuh",
    "buffer_ = step % 2;",
    "buffer_ = step % 2; if ((3 * part_ + step) % 4 == 0) "
    "for (int n = 0; n < 60; ++n) umx_emulated::pause();",
)
# Each takes away one thing that keeps the threads apart, or one term of the gradient.
MISTAKES = {
    "one buffer": ("scan.cuh", "(step - 1) % 2 * BUFFER", "0"),
    "send to one buffer": (
        "scan.cuh",
        "buffer_ = step % 2; if",
        "buffer_ = 0; if",
    ),
    "no wait": ("scan.cuh", "grid_barrier(counter_, PARTS, &generation_);", ""),
    "one part less waited for": ("scan.cuh", "(counter_, PARTS,", "(counter_, 1,"),
    "no barrier before the product": (
        "scan_backward.cu",
        "        __syncthreads();\n#pragma",
        "#pragma",
    ),
    "no gradient from the frame after": (
        "scan_backward.cu",
        "d_h += received[",
        "d_h += 0.0f * received[",
    ),
    "no gradient of the cell": ("scan_backward.cu", "d_c_next[k] + d_h", "d_h"),
    "no cell before": ("scan_backward.cu", "d_c * x.c_before * x.f", "d_c * 0.0f * x.f"),
    "one direction only": ("scan.cuh", "(reverse[sequence] != 0) != backward", "backward"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_found(sources: Path, mistake: str) -> None:
    name, right, wrong = MISTAKES[mistake]
    for file, before, after in (UNEVEN, (name, right, wrong)):
        text = (sources / file).read_text(encoding="utf-8")
        assert text.count(before) == 1
        (sources / file).write_text(text.replace(before, after), encoding="utf-8")
    plan = PLANS["shared"]
    case = Case(plan.hidden, 2, 6, 9)

    def found(order: str, seed: int) -> bool:
        device = emulated(order, seed)
        try:
            Run(device, case, plan).check(case, BOUND)
        except (AssertionError, EmulatorError):
            return True
        return False

    orders = [("ascending", 0), ("descending", 0), *(("shuffled", seed) for seed in range(5))]
    assert any(found(*order) for order in orders)


# ------------------------------------------------------------------ real sizes


@pytest.mark.slow
@pytest.mark.parametrize("tiles", [1, 2])
def test_real_layer_on_the_emulator(tiles: int) -> None:
    """512 threads in each of 8 blocks of a group."""
    case = Case(256, 1, 3, 4)
    plan = Plan("cooperative", 256, 8, 32, tiles=tiles)
    Run(emulated("shuffled", 1), case, plan).check(case, BOUND)


@pytest.mark.gpu
@pytest.mark.parametrize("hidden", [128, 256, 512])
def test_real_layer(device: Device, hidden: int) -> None:
    case = Case(hidden, 2, 255, 16)
    run = Run(device, case, None)
    plan = run.scan.plan(16)
    run.check(case, 3 * BOUND)  # 255 frames
    for backward in (False, True):
        assert run.scan._kernel(plan, backward).local_bytes == 0


@pytest.mark.gpu
def test_real_layer_is_deterministic(device: Device) -> None:
    case = Case(256, 2, 255, 16)
    runs: list[Callable[[], Any]] = [lambda: Run(device, case, None).arrays for _ in range(5)]
    first, *others = (run() for run in runs)
    for other in others:
        for a, b in zip(first, other, strict=True):
            np.testing.assert_array_equal(a, b)
