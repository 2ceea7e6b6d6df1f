"""The choice of recurrent kernels: what fits which card, and what is taken."""

from __future__ import annotations

import pytest
from helpers import nvrtc

from umx_np.cuda.card import Card, register_limit
from umx_np.cuda.plans import METHODS, Plan, choose, plans
from umx_np.cuda.tiling import Tiling
from umx_np.errors import ConfigError, DeviceError

KIB = 1024
CARDS = {
    "V100": Card(80, 96 * KIB),
    "A100": Card(108, 163 * KIB),
    "RTX 3090": Card(82, 99 * KIB),
    "RTX 4090": Card(128, 99 * KIB),
    "L4": Card(58, 99 * KIB),
    "H100": Card(132, 227 * KIB),
    "B200": Card(148, 227 * KIB),
    "ten multiprocessors": Card(10, 64 * KIB),
}
# Units and sequences: umxhq, umxm and umxl with four targets and with one, and other sizes.
SIZES = [(256, 8), (128, 8), (512, 8), (256, 2), (512, 1), (24, 8), (7, 3), (64, 100), (1, 1)]


@pytest.fixture(params=CARDS.values(), ids=CARDS.keys())
def card(request: pytest.FixtureRequest) -> Card:
    return request.param


@pytest.mark.parametrize(("hidden", "sequences"), SIZES)
def test_order_of_preference(card, hidden, sequences):
    chosen = choose(hidden, sequences, card)
    possible = [p for p in plans(hidden, sequences, card) if p.tiling]
    assert (chosen.method == "cooperative") == bool(possible)

    def launches(plan):
        return -(-sequences // plan.sequences_per_launch)

    def in_shared(plan):
        return plan.tiling.in_shared * plan.tiling.threads * plan.tiling.blocks

    if possible:
        assert launches(chosen) == min(map(launches, possible))
        possible = [p for p in possible if launches(p) == launches(chosen)]
        assert in_shared(chosen) == min(map(in_shared, possible))


@pytest.mark.parametrize(("hidden", "sequences"), SIZES)
def test_every_possible_plan_fits(card, hidden, sequences):
    seen = set()
    for plan in plans(hidden, sequences, card):
        seen.add(plan.method)
        assert plan.shared_bytes <= card.shared_memory_per_block
        assert plan.threads <= 1024
        assert 1 <= plan.sequences_per_launch <= min(sequences, 64)
        if plan.method == "cooperative":
            assert plan.blocks * plan.sequences_per_launch <= card.multiprocessors
        if plan.tiling:
            weights = plan.tiling.in_registers * plan.tiling.vector
            assert weights + plan.tiling.rows < register_limit(plan.tiling.warps)
            assert plan.tiling.units >= hidden
    # The plain kernel is the fallback everywhere.
    assert "step" in seen


@pytest.mark.parametrize(
    ("name", "hidden", "method", "blocks", "per_launch"),
    [
        ("H100", 256, "cooperative", 16, 8),
        ("H100", 128, "cooperative", 4, 8),
        ("H100", 512, "cooperative", 16, 8),
        ("B200", 256, "cooperative", 16, 8),
        ("A100", 256, "cooperative", 8, 8),
        ("A100", 512, "cooperative", 16, 6),
        ("V100", 256, "cooperative", 8, 8),
        ("RTX 3090", 256, "cooperative", 8, 8),
        ("RTX 4090", 256, "cooperative", 16, 8),
        ("RTX 4090", 512, "cooperative", 32, 4),
        ("L4", 256, "cooperative", 6, 8),
        ("L4", 512, "cooperative", 19, 3),
        ("ten multiprocessors", 256, "cooperative", 8, 1),
        ("ten multiprocessors", 512, "step", 1, 8),
        ("H100", 7, "cooperative", 2, 8),
        ("H100", 64, "cooperative", 2, 8),
    ],
)
def test_choice_for_eight_sequences(name, hidden, method, blocks, per_launch):
    plan = choose(hidden, 8, CARDS[name])
    assert (plan.method, plan.blocks, plan.sequences_per_launch) == (method, blocks, per_launch)


def test_umxhq_needs_no_shared_memory_for_weights():
    tiling = choose(256, 8, CARDS["H100"]).tiling
    assert tiling.in_shared == 0
    assert tiling.threads * tiling.in_registers * tiling.vector * 4 == 64 * KIB


@pytest.mark.parametrize(
    ("name", "hidden"),
    [(name, 256) for name in CARDS]
    + [(name, 512) for name in ("A100", "RTX 4090", "H100", "B200", "ten multiprocessors")],
)
def test_what_is_chosen_is_compiled_by_the_compile_check(name, hidden):
    """For all architectures; 19 blocks for 512 units spill 16 bytes on one that never gets them."""
    plan = choose(hidden, 8, CARDS[name])
    if plan.tiling:
        listed = nvrtc.read_header(plan.source).variants
        assert {name: str(value) for name, value in plan.defines.items()} in listed


def test_choice_can_be_forced():
    card = CARDS["H100"]
    for method in METHODS:
        assert choose(64, 2, card, method=method).method == method


def test_what_cannot_be_forced():
    with pytest.raises(DeviceError, match="hidden=512 fits none of the kernels cooperative"):
        choose(512, 8, CARDS["ten multiprocessors"], method="cooperative")
    with pytest.raises(ConfigError, match="method='magic'"):
        choose(256, 8, CARDS["A100"], method="magic")
    with pytest.raises(ConfigError, match="sequences=0"):
        choose(256, 0, CARDS["A100"])


def test_plans_are_checked():
    tiling = Tiling(24, 2, 3, 4)
    with pytest.raises(ConfigError, match="method='step' with tiling=Tiling"):
        Plan("step", 24, tiling)
    with pytest.raises(ConfigError, match="tiling=None"):
        Plan("cooperative", 24, None)
    with pytest.raises(ConfigError, match="method='magic'"):
        Plan("magic", 24, None)


def test_registers_are_those_of_a_quarter():
    """16384 registers for the warps of a quarter, in steps of 8 per thread, at most 255."""
    assert [register_limit(warps) for warps in (1, 8, 9, 12, 16, 17, 20, 32)] == [
        255,
        255,
        168,
        168,
        128,
        96,
        96,
        64,
    ]


def test_description():
    text = choose(256, 8, CARDS["H100"]).describe()
    assert text.startswith("cooperative: 16 blocks of 128 threads per sequence")
    assert "64 KiB in registers" in text
    assert choose(512, 8, CARDS["ten multiprocessors"]).describe().startswith("step")
