"""The recurrent kernels of inference against the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from helpers.asserts import assert_close
from helpers.emulated import emulated
from helpers.emulator.launching import EmulatorError
from tolerances import TOL

from umx_np.cuda import compiling
from umx_np.cuda.device import Device
from umx_np.cuda.plans import Plan
from umx_np.cuda.recurrent import Scan, ScanState
from umx_np.cuda.tiling import Tiling
from umx_np.errors import DeviceError, ShapeError
from umx_np.layers.lstm import lstm_scan

BOUND = TOL["lstm_scan"]["float32"]


# Blocks of a sequence and units of a warp: idle units, one block, and several.
SIZES = {"one block": (1, 8), "two blocks": (2, 2), "three blocks": (3, 4)}
NAMES = ["step", *SIZES]


def plan_of(name: str, hidden: int) -> Plan:
    """A small plan of either kernel, with weights in registers and in shared memory."""
    if name == "step":
        return Plan("step", hidden, None)
    blocks, units_per_warp = SIZES[name]
    warps = -(-hidden // (blocks * units_per_warp))
    slots = Tiling(hidden, blocks, warps, units_per_warp).slots // 2
    tiling = Tiling(hidden, blocks, warps, units_per_warp, slots)
    return Plan("cooperative", hidden, tiling, 2)


class Case:
    """Sequences that alternate between forward and backward, and their exact results."""

    def __init__(self, hidden: int, nb_sequences: int, nb_frames: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.reverse = [bool(s % 2) for s in range(nb_sequences)]
        self.weights = (
            2 / np.sqrt(hidden) * rng.uniform(-1, 1, (nb_sequences, 4 * hidden, hidden))
        ).astype(np.float32)
        self.gates = rng.standard_normal((nb_sequences, nb_frames, 4 * hidden)).astype(np.float32)
        self.shape = (nb_sequences, nb_frames, hidden)

    def expected(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        out = np.empty(self.shape)
        h, c = np.zeros((2, self.shape[0], self.shape[2]))
        for s, reverse in enumerate(self.reverse):
            gates, weights = self.gates[s].astype(np.float64), self.weights[s].astype(np.float64)
            out[s] = lstm_scan(gates, weights, h[s], c[s], reverse=reverse)
        return out, h, c

    def run(
        self, device: Device, plan: Plan | None, sizes: list[int] | None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All frames, in chunks of those sizes."""
        xp, (nb_sequences, nb_frames, hidden) = device.xp, self.shape
        scan = Scan(device, self.weights, plan)
        state = scan.initial_state()
        out = np.full(self.shape, np.nan, np.float32)
        first = 0
        for size in sizes or [nb_frames]:
            spans = [
                slice(nb_frames - first - size, nb_frames - first)
                if reverse
                else slice(first, first + size)
                for reverse in self.reverse
            ]
            gates = np.stack([g[span] for g, span in zip(self.gates, spans, strict=True)])
            result = xp.empty((nb_sequences, size, hidden), np.float32)
            scan.run(xp.asarray(gates), state, result, self.reverse)
            for s, span in enumerate(spans):
                out[s, span] = xp.asnumpy(result)[s]
            first += size
        return out, xp.asnumpy(state.h), xp.asnumpy(state.c)


def check(actual, expected):
    for got, exact in zip(actual, expected, strict=True):
        assert_close(got, exact, BOUND, dtype=np.float32)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("hidden", "nb_sequences", "nb_frames"),
    [(24, 3, 7), (32, 1, 4), (16, 2, 1), (7, 5, 6), (1, 1, 2), (70, 2, 3)],
)
def test_equals_reference(any_device, name, hidden, nb_sequences, nb_frames):
    case = Case(hidden, nb_sequences, nb_frames)
    check(case.run(any_device, plan_of(name, hidden)), case.expected())


@pytest.mark.parametrize("name", NAMES)
def test_chunks_equal_the_whole(any_device, name):
    """To the bit, for chunks of one frame too, and again when repeated."""
    case, plan = Case(24, 2, 9), plan_of(name, 24)
    whole = case.run(any_device, plan)
    for sizes in ([4, 5], [1, 1, 7], [9]):
        for got, expected in zip(case.run(any_device, plan, sizes), whole, strict=True):
            np.testing.assert_array_equal(got, expected)


def test_results_do_not_depend_on_the_tiling(emulated_device):
    case = Case(24, 2, 5)
    results = [case.run(emulated_device, plan_of(name, 24)) for name in NAMES[1:]]
    for result in results[1:]:
        for got, expected in zip(result, results[0], strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", NAMES[1:])
def test_any_order_of_threads(name, seed):
    """Blocks run ahead as far as they may."""
    case = Case(24, 2, 6)
    check(case.run(emulated("shuffled", seed), plan_of(name, 24)), case.expected())


@pytest.mark.parametrize(
    "tiling", [Tiling(256, 7, 10, 4, 16), Tiling(512, 16, 8, 4, 48)], ids=["umxhq", "umxl"]
)
def test_real_sizes_through_global_memory(emulated_device, tiling):
    """With weights in registers and shared memory."""
    plan = Plan("cooperative", tiling.hidden, tiling)
    case = Case(tiling.hidden, 1, 3)
    check(case.run(emulated_device, plan), case.expected())


def test_real_size_of_the_plain_kernel(emulated_device):
    case = Case(512, 1, 2)
    check(case.run(emulated_device, Plan("step", 512, None)), case.expected())


def test_what_does_not_fit_is_refused(emulated_device):
    tiling = Tiling(512, 6, 22, 4, 0)
    with pytest.raises(DeviceError, match="bytes of shared memory"):
        Scan(emulated_device, Case(512, 1, 1).weights, Plan("cooperative", 512, tiling))
    tiling = Tiling(32, 32, 16, 1)
    with pytest.raises(DeviceError, match="24 blocks are resident"):
        Scan(emulated_device, Case(32, 1, 1).weights, Plan("cooperative", 32, tiling))


@pytest.mark.parametrize("name", NAMES)
def test_silence_stays_silent(emulated_device, name):
    case = Case(24, 2, 4)
    case.gates[:] = 0
    for got in case.run(emulated_device, plan_of(name, 24)):
        np.testing.assert_array_equal(got, 0.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", [1e4, 1e30])
def test_huge_gates(any_device, name, level):
    case = Case(24, 2, 4)
    case.gates *= np.float32(level)
    check(case.run(any_device, plan_of(name, 24)), case.expected())


def test_activations_are_accurate(any_device):
    """One unit whose gates are all inputs: relative errors over the whole range."""
    x = np.concatenate([np.geomspace(1e-6, 80, 300), np.linspace(0.4, 0.7, 100)])
    x = np.concatenate([-x, x]).astype(np.float32)
    case = Case(1, 1, len(x))
    case.weights[:] = 0
    case.gates[:] = 0
    exact = x.astype(np.float64)
    # f closed, i open. First o open: h = tanh(tanh(g)); then g open: h = sigmoid(o) tanh(1).
    for column, rest, expected in (
        (2, [40, -80, 0, 40], np.tanh(np.tanh(exact))),
        (3, [40, -80, 40, 0], np.tanh(1) / (1 + np.exp(-exact))),
    ):
        case.gates[0, :] = np.array(rest, np.float32)
        case.gates[0, :, column] = x
        out = case.run(any_device, plan_of("one block", 1))[0][0, :, 0]
        assert np.max(np.abs(out / expected - 1)) < 2e-6


def test_layouts_and_untouched_input(emulated_device):
    """Frames may lie apart, as in arrays that are frame-major; gates are only read."""
    case, xp = Case(16, 3, 5), emulated_device.xp
    scan = Scan(emulated_device, case.weights, plan_of("two blocks", 16))
    gates = xp.asarray(np.ascontiguousarray(case.gates.transpose(1, 0, 2)))
    out = xp.empty((5, 3, 16), np.float32)
    state = scan.initial_state()
    scan.run(gates.transpose(1, 0, 2), state, out.transpose(1, 0, 2), case.reverse)
    assert_close(xp.asnumpy(out).transpose(1, 0, 2), case.expected()[0], BOUND, dtype=np.float32)
    np.testing.assert_array_equal(xp.asnumpy(gates).transpose(1, 0, 2), case.gates)


def test_no_frames(emulated_device):
    case, xp = Case(16, 2, 0), emulated_device.xp
    scan = Scan(emulated_device, case.weights)
    state = scan.initial_state()
    scan.run(xp.asarray(case.gates), state, xp.empty(case.shape, np.float32), case.reverse)
    np.testing.assert_array_equal(xp.asnumpy(state.h), 0.0)


def test_states_are_independent(emulated_device):
    """Scratch memory belongs to the state, so that runs of several threads do not meet."""
    scan = Scan(emulated_device, Case(16, 2, 3).weights, plan_of("three blocks", 16))
    one, other = scan.initial_state(), scan.initial_state()
    assert one.scratch is not other.scratch
    assert one.h is not other.h


def test_description(emulated_device):
    scan = Scan(emulated_device, Case(16, 2, 3).weights, plan_of("two blocks", 16))
    assert scan.describe().startswith("cooperative: 2 blocks")
    assert "float32" in repr(scan)


def test_wrong_arguments(emulated_device):
    case, xp = Case(16, 2, 3), emulated_device.xp
    with pytest.raises(ShapeError, match="weights must be float32"):
        Scan(emulated_device, case.weights[:, :, :-1])
    with pytest.raises(ShapeError, match="weights must be float32"):
        Scan(emulated_device, case.weights.astype(np.float64))
    with pytest.raises(ShapeError, match="hidden=24"):
        Scan(emulated_device, case.weights, plan_of("step", 24))
    scan = Scan(emulated_device, case.weights, plan_of("three blocks", 16))
    state, gates = scan.initial_state(), xp.asarray(case.gates)
    out = xp.empty(case.shape, np.float32)
    with pytest.raises(ShapeError, match="gates must be float32"):
        scan.run(gates[:1], state, out, case.reverse)
    with pytest.raises(ShapeError, match="out must be float32"):
        scan.run(gates, state, out[:, :2], case.reverse)
    with pytest.raises(ShapeError, match="last axis"):
        scan.run(gates, state, xp.empty((2, 16, 3), np.float32).transpose(0, 2, 1), case.reverse)
    with pytest.raises(ShapeError, match="reverse has 1"):
        scan.run(gates, state, out, [True])
    with pytest.raises(ShapeError, match="scratch"):
        scan.run(gates, ScanState(state.h, state.c, None), out, case.reverse)


# -- warps at different paces, and sharpness: without one safeguard, the result must be wrong ------


def write_sources(folder: Path, changes: list[tuple[str, str, str]]) -> None:
    """Copy the sources and replace texts in them."""
    for source in compiling.SOURCES.iterdir():
        (folder / source.name).write_bytes(source.read_bytes())
    for file, text, replacement in changes:
        original = (folder / file).read_text(encoding="utf-8")
        assert original.count(text) == 1
        changed = original.replace(text, replacement)
        (folder / file).write_text(changed, encoding="utf-8")


@pytest.fixture
def use_sources(monkeypatch):
    """Let kernels be compiled from another folder for the rest of the test."""

    def use(folder: Path) -> None:
        monkeypatch.setattr(compiling, "SOURCES", folder)
        compiling.read_source.cache_clear()

    yield use
    compiling.read_source.cache_clear()


# Some warps of some blocks stop before they read h, others in other frames.
UNEVEN = (
    "scan_tile.cuh",
    "const float gate = gate_input +",
    """if ((3 * rank + 5 * owner.warp + frame) % 4 == 0)
                for (int n = 0; n < 60; ++n) umx_emulated::pause();
            const float gate = gate_input +""",
)


@pytest.mark.parametrize("name", NAMES[1:])
def test_uneven_paces(name, tmp_path, use_sources):
    write_sources(tmp_path, [UNEVEN])
    use_sources(tmp_path)
    case = Case(24, 2, 9)
    for seed in range(4):
        check(case.run(emulated("shuffled", seed), plan_of(name, 24)), case.expected())


MISTAKES = {
    "one half instead of two": (
        "scan_tile.cuh",
        "const int half = k % 2;",
        "const int half = 1;",
    ),
    "tags not compared": (
        "scan_cooperative.cu",
        "if (complete) break;",
        "break;",
    ),
    "no barrier after fetching": (
        "scan_cooperative.cu",
        "static_cast<unsigned>(word[k]));\n        __syncthreads();",
        "static_cast<unsigned>(word[k]));",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_noticed(mistake, tmp_path, use_sources):
    write_sources(tmp_path, [UNEVEN, MISTAKES[mistake]])
    use_sources(tmp_path)
    case = Case(24, 2, 9)
    expected = case.expected()
    for seed in range(8):
        try:
            actual = case.run(emulated("shuffled", seed), plan_of("three blocks", 24))
        except EmulatorError:
            return
        if not all(np.allclose(a, e, atol=1e-5) for a, e in zip(actual, expected, strict=True)):
            return
    pytest.fail("the results are right in every order of threads")
