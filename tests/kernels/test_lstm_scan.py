"""The recurrent scan against the NumPy reference."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.asserts import assert_close, assert_finite
from tolerances import TOL

from umx_np.layers.lstm import lstm_scan

BOUND = TOL["lstm_scan"]["float32"]


class Case:
    """Random weights and gates, and both ways to scan them."""

    def __init__(self, kernels, hidden: int, nb_frames: int, *, scale: float = 1.0) -> None:
        rng = np.random.default_rng(hidden)
        self.kernels, self.hidden = kernels, hidden
        bound = 2.0 / np.sqrt(hidden)
        self.weight = rng.uniform(-bound, bound, (4 * hidden, hidden)).astype(np.float32)
        self.gates = (scale * rng.standard_normal((nb_frames, 4 * hidden))).astype(np.float32)
        self.packed_weight = kernels.pack_recurrent(self.weight)
        self.packed_gates = np.ascontiguousarray(kernels.pack_gates(self.gates.T, hidden).T)

    def zeros(self) -> tuple[np.ndarray, np.ndarray]:
        size = self.kernels.padded_size(self.hidden)
        return np.zeros(size, np.float32), np.zeros(size, np.float32)

    def scan(self, frames: slice, state, *, reverse: bool) -> np.ndarray:
        gates = self.packed_gates[frames]
        out = np.full((len(gates), self.hidden), np.nan, np.float32)
        self.kernels.lstm_scan(gates, self.packed_weight, *state, out, reverse=reverse)
        return out

    def expected(self, *, reverse: bool) -> np.ndarray:
        h, c = np.zeros(self.hidden), np.zeros(self.hidden)
        gates, weight = self.gates.astype(np.float64), self.weight.astype(np.float64)
        return lstm_scan(gates, weight, h, c, reverse=reverse)


@pytest.mark.parametrize("hidden", [1, 5, 8, 31, 32, 33, 100])
@pytest.mark.parametrize("nb_frames", [1, 2, 40])
@pytest.mark.parametrize("reverse", [False, True])
def test_against_reference(kernels, hidden, nb_frames, reverse):
    case = Case(kernels, hidden, nb_frames)
    out = case.scan(slice(None), case.zeros(), reverse=reverse)
    assert_close(out, case.expected(reverse=reverse), BOUND, dtype=np.float32)


@pytest.mark.parametrize("reverse", [False, True])
def test_blocks_carry_the_state(kernels, reverse):
    """Any partition of the frames gives bit for bit the same as one scan."""
    case = Case(kernels, 20, 50)
    whole = case.scan(slice(None), case.zeros(), reverse=reverse)
    state = case.zeros()
    spans = [(0, 1), (1, 17), (17, 49), (49, 50)]
    for start, stop in reversed(spans) if reverse else spans:
        part = case.scan(slice(start, stop), state, reverse=reverse)
        np.testing.assert_array_equal(part, whole[start:stop])


@pytest.mark.parametrize("scale", [1e-6, 30.0, 1e4])
def test_saturated_and_tiny_gates(kernels, scale):
    case = Case(kernels, 17, 30, scale=scale)
    out = case.scan(slice(None), case.zeros(), reverse=False)
    assert_close(out, case.expected(reverse=False), BOUND, dtype=np.float32)
    assert np.abs(out).max() <= 1.0


def test_state_decays_to_nothing(kernels):
    """With all gates shut the state passes below the smallest normal number."""
    case = Case(kernels, 8, 400)
    case.gates[:] = -30.0
    case.gates[:, 16:24] = 0.0  # g, so that nothing new comes in
    packed = np.ascontiguousarray(kernels.pack_gates(case.gates.T, 8).T)
    h, c = case.zeros()
    c[:8] = 1.0
    out = np.empty((400, 8), np.float32)
    kernels.lstm_scan(packed, case.packed_weight * 0, h, c, out)
    assert_finite(out, shape=(400, 8), dtype=np.float32)
    assert np.abs(c).max() < np.finfo(np.float32).tiny


def test_nan_reaches_the_output(kernels):
    case = Case(kernels, 6, 5)
    case.packed_gates[2] = np.nan
    out = case.scan(slice(None), case.zeros(), reverse=False)
    assert np.isfinite(out[:2]).all()
    assert np.isnan(out[2:]).all()


def test_padding_stays_zero(kernels):
    case = Case(kernels, 5, 10)
    h, c = case.zeros()
    case.scan(slice(None), (h, c), reverse=False)
    order = kernels.padded_size(5)
    assert len(h) == order
    assert not h[5:].any()
    assert not c[5:].any()


def test_packing_is_reversible(kernels):
    for hidden in (1, 7, 32, 40):
        case = Case(kernels, hidden, 1)
        np.testing.assert_array_equal(kernels.unpack_recurrent(case.packed_weight), case.weight)
        gates = np.ascontiguousarray(case.packed_gates.T)
        np.testing.assert_array_equal(kernels.unpack_gates(gates, hidden).T, case.gates)


def test_wrong_shapes_are_refused(kernels):
    case = Case(kernels, 6, 5)
    h, c = case.zeros()
    with pytest.raises(ValueError, match="7 columns of out"):
        kernels.lstm_scan(case.packed_gates, case.packed_weight, h, c, np.empty((5, 7), np.float32))
    with pytest.raises(ValueError, match="out has 4 rows, gates 5"):
        kernels.lstm_scan(case.packed_gates, case.packed_weight, h, c, np.empty((4, 6), np.float32))
    with pytest.raises(ValueError, match="h has length"):
        kernels.lstm_scan(
            case.packed_gates, case.packed_weight, h[:-1], c, np.empty((5, 6), np.float32)
        )
