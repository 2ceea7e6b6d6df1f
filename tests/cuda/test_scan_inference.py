"""The recurrent kernels in inference, against the reference: states, chunks, single samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.asserts import assert_close
from helpers.emulated import emulated
from helpers.emulator.launching import EmulatorError
from tolerances import TOL

from umx_np.cuda import compiling
from umx_np.cuda.device import Device
from umx_np.cuda.scan import Scan
from umx_np.cuda.scan_plan import Plan
from umx_np.errors import DeviceError, ShapeError
from umx_np.layers.lstm import lstm_scan

BOUND = TOL["lstm_scan"]["float32"]


# Blocks of a sequence, lanes of a unit, and samples of a tile, as training has them too.
SIZES = {"one block": (1, 32, 1), "two blocks": (2, 16, 1), "three blocks": (3, 16, 4)}
NAMES = ["step", *SIZES]


def plan_of(name: str, hidden: int) -> Plan:
    """A small plan of either kernel, with weights in registers and in shared memory."""
    if name == "step":
        return Plan("step", hidden)
    parts, lanes, samples = SIZES[name]
    units = min(-(-hidden // (4 * parts)) * 4, 1024 // lanes)
    parts = max(parts, -(-hidden // units))
    plan = Plan("cooperative", hidden, parts, units, samples=samples, forward_lanes=lanes)
    return replace(plan, forward_shared=plan.depth(backward=False) // 2)


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
        scan, weights = Scan(device, hidden, self.reverse, plan), xp.asarray(self.weights)
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
            result = xp.empty((size, 1, nb_sequences * hidden), np.float32)
            given = xp.asarray(gates)[:, :, None]
            assert scan.forward(given, weights, result, keep=False, state=state) is None
            found = xp.asnumpy(result).reshape(size, nb_sequences, hidden)
            for s, span in enumerate(spans):
                out[s, span] = found[:, s]
            first += size
        h, c = xp.asnumpy(state)[:, :, 0]
        return out, h, c


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
    """But on the lanes alone, which add up a sum."""
    case = Case(24, 2, 5)
    plans = [plan_of(name, 24) for name in ("two blocks", "three blocks")]
    first, second = (case.run(emulated_device, plan) for plan in plans)
    for got, expected in zip(second, first, strict=True):
        np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", NAMES[1:])
def test_any_order_of_threads(name, seed):
    """Blocks run ahead as far as they may."""
    case = Case(24, 2, 6)
    check(case.run(emulated("shuffled", seed), plan_of(name, 24)), case.expected())


@pytest.mark.parametrize(
    "plan",
    [
        Plan("cooperative", 256, 8, 32, samples=1, forward_shared=4),
        Plan("cooperative", 512, 8, 64, samples=1, forward_shared=4),
    ],
    ids=["umxhq", "umxl"],
)
def test_real_sizes_through_global_memory(emulated_device, plan):
    """With weights in registers and shared memory."""
    case = Case(plan.hidden, 1, 3)
    check(case.run(emulated_device, plan), case.expected())


def test_real_size_of_the_plain_kernel(emulated_device):
    case = Case(512, 1, 2)
    check(case.run(emulated_device, Plan("step", 512)), case.expected())


def test_what_does_not_fit_is_refused(emulated_device):
    plan = Plan("cooperative", 32, 256, 4, samples=1, forward_lanes=32)
    with pytest.raises(DeviceError, match=r"groups of 256 blocks.*does not fit"):
        Case(32, 1, 1).run(emulated_device, plan)


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


@pytest.mark.parametrize("name", NAMES)
def test_untouched_input(emulated_device, name):
    """Gates are only read, and rows of the result may lie apart."""
    case, xp = Case(16, 3, 5), emulated_device.xp
    scan = Scan(emulated_device, 16, case.reverse, plan_of(name, 16))
    gates, weights = xp.asarray(case.gates)[:, :, None], xp.asarray(case.weights)
    wide = xp.zeros((5, 1, 3 * 16 + 3), np.float32)
    scan.forward(gates, weights, wide[..., 3:], keep=False)
    found = xp.asnumpy(wide)[:, 0, 3:].reshape(5, 3, 16).transpose(1, 0, 2)
    assert_close(np.ascontiguousarray(found), case.expected()[0], BOUND, dtype=np.float32)
    np.testing.assert_array_equal(xp.asnumpy(gates)[:, :, 0], case.gates)
    assert not xp.asnumpy(wide)[..., :3].any()


def test_no_frames(emulated_device):
    out, h, c = Case(16, 2, 0).run(emulated_device, None)
    assert out.shape == (2, 0, 16)
    assert not h.any()
    assert not c.any()


@pytest.mark.parametrize("name", NAMES)
def test_a_state_goes_on(emulated_device, name):
    """From any state, not only from zeros; a batch has one for each sample."""
    rng = np.random.default_rng(1)
    case, xp = Case(12, 2, 4), emulated_device.xp
    scan = Scan(emulated_device, 12, case.reverse, plan_of(name, 12))
    gates = rng.standard_normal((2, 4, 3, 48)).astype(np.float32)
    given = rng.standard_normal((2, 2, 3, 12)).astype(np.float32)
    state, out = xp.asarray(given), xp.empty((4, 3, 24), np.float32)
    weights = xp.asarray(case.weights)
    scan.forward(xp.asarray(gates), weights, out, keep=False, state=state)
    for s, reverse in enumerate(case.reverse):
        for b in range(3):
            h, c = given[:, s, b].astype(np.float64)
            wide = gates[s, :, b].astype(np.float64), case.weights[s].astype(np.float64)
            expected = lstm_scan(*wide, h, c, reverse=reverse)
            found = np.ascontiguousarray(xp.asnumpy(out)[:, b, 12 * s : 12 * s + 12])
            assert_close(found, expected, BOUND, dtype=np.float32)
            made = np.ascontiguousarray(xp.asnumpy(state)[:, s, b])
            assert_close(made, np.stack([h, c]), BOUND, dtype=np.float32)


def test_states_are_independent(emulated_device):
    """What changes is in the states, so that runs of several threads do not meet."""
    scan = Scan(emulated_device, 16, [False, True], plan_of("three blocks", 16))
    one, other = scan.initial_state(), scan.initial_state()
    one.fill(1)
    assert not emulated_device.xp.asnumpy(other).any()


def test_wrong_arguments(emulated_device):
    case, xp = Case(16, 2, 3), emulated_device.xp
    scan = Scan(emulated_device, 16, case.reverse, plan_of("three blocks", 16))
    gates, weights = xp.asarray(case.gates)[:, :, None], xp.asarray(case.weights)
    out, state = xp.empty((3, 1, 32), np.float32), scan.initial_state()
    with pytest.raises(ShapeError, match="state must be float32"):
        scan.forward(gates, weights, out, keep=False, state=state[:, :1])
    wide = xp.zeros((2, 2, 1, 17), np.float32)[..., :16]
    with pytest.raises(ShapeError, match=r"state\.strides"):
        scan.forward(gates, weights, out, keep=False, state=wide)


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
    "scan_forward.cu",
    "const float x = input +",
    """if ((3 * part + 5 * (threadIdx.x / UMX_WARP) + step) % 4 == 0)
                for (int n = 0; n < 60; ++n) umx_emulated::pause();
            const float x = input +""",
)


@pytest.mark.parametrize("name", NAMES[1:])
def test_uneven_paces(name, tmp_path, use_sources):
    write_sources(tmp_path, [UNEVEN])
    use_sources(tmp_path)
    case = Case(24, 2, 9)
    for seed in range(4):
        check(case.run(emulated("shuffled", seed), plan_of(name, 24)), case.expected())


MISTAKES = {
    "one buffer instead of two": ("scan.cuh", "(step - 1) % 2 * BUFFER", "0"),
    "no wait": ("scan.cuh", "grid_barrier(counter_, PARTS, &generation_);", ""),
    "no state before the first frame": (
        "scan_forward.cu",
        "product.share(parts, tile, product.all_of_state(h, sample));",
        "",
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
            actual = case.run(emulated("shuffled", seed), plan_of("three blocks", 24), [4, 5])
        except EmulatorError:
            return
        if not all(np.allclose(a, e, atol=1e-5) for a, e in zip(actual, expected, strict=True)):
            return
    pytest.fail("the results are right in every order of threads")
