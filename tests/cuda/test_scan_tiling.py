"""The tiling of the recurrent weights: exact owners, and the right result without a card."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import tiling_model
from helpers.asserts import assert_close
from tolerances import TOL

from umx_np.cuda.tiling import Tiling, pack_by_column
from umx_np.errors import ConfigError
from umx_np.layers.lstm import lstm_scan

# As chosen for umxhq, umxm and umxl on several cards, and sizes that fit nothing.
TILINGS = [
    Tiling(256, blocks=8, warps=8, units_per_warp=4),
    Tiling(256, blocks=8, warps=16, units_per_warp=2),
    Tiling(256, blocks=7, warps=10, units_per_warp=4, register_slots=16),
    Tiling(256, blocks=6, warps=11, units_per_warp=4, register_slots=16),
    Tiling(128, blocks=8, warps=4, units_per_warp=4),
    Tiling(128, blocks=2, warps=8, units_per_warp=8),
    Tiling(512, blocks=16, warps=8, units_per_warp=4, register_slots=38),
    Tiling(512, blocks=22, warps=6, units_per_warp=4, register_slots=38),
    Tiling(7, blocks=2, warps=4, units_per_warp=1),
    Tiling(24, blocks=2, warps=3, units_per_warp=4),
    Tiling(33, blocks=1, warps=5, units_per_warp=8),
    Tiling(70, blocks=4, warps=9, units_per_warp=2, register_slots=0),
]


def name_of(tiling: Tiling) -> str:
    return f"{tiling.hidden}={tiling.blocks}x{tiling.warps}x{tiling.units_per_warp}"


@pytest.fixture(params=TILINGS, ids=name_of)
def tiling(request: pytest.FixtureRequest) -> Tiling:
    return request.param


def test_every_weight_has_one_owner(tiling):
    hidden = tiling.hidden
    numbers = np.arange(1, 4 * hidden * hidden + 1).reshape(1, 4 * hidden, hidden)
    packed = tiling.pack(numbers)[0]
    assert packed.shape == (tiling.blocks, tiling.warps, tiling.slots, 32, tiling.vector)
    owned = np.sort(packed[packed > 0])
    np.testing.assert_array_equal(owned, np.arange(1, 4 * hidden * hidden + 1))


def test_packing_follows_the_kernel(tiling):
    """Against the owners as the kernel computes them, for every weight and all filling."""
    hidden = tiling.hidden
    numbers = np.arange(1, 4 * hidden * hidden + 1).reshape(1, 4, hidden, hidden)
    filled = np.zeros((4, tiling.units, tiling.columns), int)
    filled[:, :hidden, :hidden] = numbers[0]
    filled = filled.reshape(4 * tiling.units, tiling.columns)
    packed = tiling.pack(numbers.reshape(1, 4 * hidden, hidden))[0]
    np.testing.assert_array_equal(packed, filled[tiling_model.owners(tiling)])


def test_filling_stays_below_one_tile(tiling):
    assert tiling.columns - tiling.hidden < 32 * tiling.vector
    assert tiling.h_length >= max(tiling.units, tiling.columns)
    assert tiling.h_length % 4 == 0
    assert tiling.in_registers + tiling.in_shared == tiling.slots


@pytest.mark.parametrize("reverse", [False, True])
def test_model_equals_reference(tiling, reverse):
    rng = np.random.default_rng(tiling.hidden)
    hidden, nb_frames = tiling.hidden, 5
    weights = (2 / np.sqrt(hidden) * rng.standard_normal((1, 4 * hidden, hidden))).astype("f4")
    gates = rng.standard_normal((nb_frames, 4 * hidden)).astype(np.float32)
    h, c = rng.uniform(-1, 1, (2, hidden)).astype(np.float32)
    h_exact, c_exact = h.astype(np.float64), c.astype(np.float64)
    expected = lstm_scan(
        gates.astype(np.float64), weights[0].astype(np.float64), h_exact, c_exact, reverse=reverse
    )
    out = tiling_model.scan(tiling, tiling.pack(weights)[0], gates, h, c, reverse=reverse)
    bound = TOL["lstm_scan"]["float32"]
    assert_close(out, expected, bound, dtype=np.float32)
    assert_close(h, h_exact, bound, dtype=np.float32)
    assert_close(c, c_exact, bound, dtype=np.float32)


def test_sums_do_not_depend_on_the_tiling():
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((1, 4 * 70, 70)).astype(np.float32)
    gates = rng.standard_normal((3, 4 * 70)).astype(np.float32)
    results = []
    for sizes in [(1, 9, 8), (4, 9, 2), (3, 6, 4), (10, 7, 1)]:
        tiling = Tiling(70, *sizes)
        h, c = np.zeros((2, 70), np.float32)
        results.append(
            tiling_model.scan(tiling, tiling.pack(weights)[0], gates, h, c, reverse=False)
        )
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


def test_columns_of_the_plain_kernel():
    weights = np.arange(2 * 12 * 3).reshape(2, 12, 3)
    packed = pack_by_column(weights)
    for sequence, column, unit, gate in np.ndindex(2, 3, 3, 4):
        assert packed[sequence, column, unit, gate] == weights[sequence, 3 * gate + unit, column]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((8, 1, 1, 1), "do not fit"),
        ((8, 1, 1, 3), "units_per_warp=3"),
        ((0, 1, 1, 1), "hidden=0"),
        ((8, 1, 2, 4, 17), "register_slots=17"),
    ],
)
def test_wrong_sizes(sizes, message):
    with pytest.raises(ConfigError, match=message):
        Tiling(*sizes)
