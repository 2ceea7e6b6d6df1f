"""Owners, layouts and orders of the persistent scans of training, at real sizes, without a card."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import batch_tiling_model as model

from umx_np.cuda.batch_plan import KINDS, OTHER_REGISTERS, VECTOR, Plan, choose
from umx_np.cuda.card import Card, register_limit
from umx_np.errors import DeviceError
from umx_np.layers.lstm import lstm_backward, lstm_forward

CARDS = {
    "V100": Card(80, 96 << 10),
    "GTX 1650": Card(14, 64 << 10),
    "T4": Card(40, 64 << 10),
    "A100": Card(108, 163 << 10),
    "RTX 3060": Card(28, 99 << 10),
    "RTX 3090": Card(82, 99 << 10),
    "RTX 4090": Card(128, 99 << 10),
    "H100 PCIe": Card(114, 227 << 10),
    "H100 SXM": Card(132, 227 << 10),
    "B200": Card(148, 227 << 10),
    "RTX 5090": Card(170, 99 << 10),
}
# (kind, parts, units, tiles) for a batch of 16 in two directions.
CHOICES = {
    ("V100", 256): ("cooperative", 8, 32, 1),
    ("T4", 256): ("cooperative", 8, 32, 2),
    ("GTX 1650", 512): ("step", 1, 8, 1),
    ("RTX 3060", 256): ("cooperative", 8, 32, 4),
    ("RTX 3090", 256): ("cooperative", 8, 32, 1),
    ("RTX 4090", 512): ("cooperative", 32, 16, 2),
    ("H100 SXM", 128): ("cooperative", 16, 8, 1),
    ("H100 SXM", 256): ("cooperative", 16, 16, 1),
    ("H100 SXM", 512): ("cooperative", 32, 16, 2),
    ("RTX 5090", 256): ("cooperative", 16, 16, 1),
}


@pytest.mark.parametrize(("card", "hidden"), CHOICES)
def test_choices(card: str, hidden: int) -> None:
    plan = choose(hidden, 16, 2, CARDS[card])
    found = (plan.kind, plan.parts, plan.units, plan.tiles)
    assert found == CHOICES[card, hidden]
    assert str(plan).startswith(plan.kind)


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("hidden", [1, 7, 64, 100, 128, 192, 256, 257, 384, 512, 768, 1024])
def test_every_choice_fits_its_card(card: str, hidden: int) -> None:
    for batch, directions in ((1, 1), (16, 2), (100, 2)):
        _check_fit(choose(hidden, batch, directions, CARDS[card]), CARDS[card])


def _check_fit(plan: Plan, card: Card) -> None:
    assert plan.padded >= plan.hidden or plan.kind == "step"
    assert plan.parts <= card.multiprocessors
    for threads, nb_bytes, depth, shared in (
        (
            plan.forward_threads,
            plan.forward_bytes,
            plan.forward_depth,
            plan.forward_shared,
        ),
        (
            plan.backward_threads,
            plan.backward_bytes,
            plan.backward_depth,
            plan.backward_shared,
        ),
    ):
        assert nb_bytes <= card.shared_memory_per_block
        assert threads % 32 == 0
        assert threads <= 1024
        if plan.kind != "step":
            assert shared < depth
            assert (depth - shared) * VECTOR <= register_limit(threads // 32) - OTHER_REGISTERS


def test_kinds_can_be_excluded() -> None:
    card = CARDS["H100 SXM"]
    assert choose(256, 16, 2, card, kinds=("step",)).kind == "step"
    with pytest.raises(DeviceError, match="hidden=2048"):
        choose(2048, 16, 2, card, kinds=("cooperative",))


def _real_plans() -> dict[str, Plan]:
    """All persistent plans that any of the cards gets at sizes that occur."""
    plans = {}
    for card in CARDS.values():
        for hidden in (64, 100, 128, 256, 512):
            plan = choose(hidden, 16, 2, card)
            if plan.kind != "step":
                plan = replace(plan, tiles=1)
                plans[f"{plan.kind}-{hidden}-{plan.parts}x{plan.units}"] = plan
    return plans


PLANS = _real_plans()


@pytest.fixture(params=PLANS)
def plan(request: pytest.FixtureRequest) -> Plan:
    return PLANS[request.param]


def test_real_plans_are_of_all_kinds() -> None:
    assert {plan.kind for plan in PLANS.values()} == set(KINDS) - {"step"}


def test_every_weight_has_one_owner(plan: Plan) -> None:
    for made in (model.LanesForward(plan), model.LanesBackward(plan)):
        counts = made.weights().counts(plan.hidden)
        assert counts.min() == counts.max() == 1


def test_weights_stay_with_the_part_that_owns_the_unit(plan: Plan) -> None:
    part = np.arange(plan.parts)[:, None, None, None]
    for made in (model.LanesForward(plan), model.LanesBackward(plan)):
        unit = made.weights().unit
        assert ((unit // plan.units == part) | (unit >= plan.padded)).all()


def test_every_state_has_one_owner(plan: Plan) -> None:
    owners = model.LanesForward(plan).owners()
    expected = [(unit, n) for unit in range(plan.padded) for n in range(plan.samples)]
    assert sorted(map(tuple, owners.tolist())) == expected
    items = model.LanesBackward(plan).items()
    expected = [(unit, n) for unit in range(plan.units) for n in range(plan.samples)]
    assert sorted(map(tuple, items.tolist())) == expected


def test_every_float_is_sent_once(plan: Plan) -> None:
    # A counter of bytes waits for exactly these, or for ever.
    forward = model.LanesForward(plan).sends().counts(plan.parts, plan.forward_exchange)
    assert set(np.unique(forward)) <= {0, 1}
    assert (forward.sum(axis=1) == plan.padded * plan.samples).all()
    backward = model.LanesBackward(plan).sends().counts(plan.parts, plan.backward_exchange)
    assert (backward == 1).all()


def case(plan: Plan, nb_frames: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    hidden = plan.hidden
    return {
        "gates": rng.standard_normal((nb_frames, plan.samples, 4 * hidden)).astype(np.float32),
        "W_hh": rng.uniform(-1, 1, (4 * hidden, hidden)).astype(np.float32) / hidden**0.5,
        "d_out": rng.standard_normal((nb_frames, plan.samples, hidden)).astype(np.float32),
    }


def test_model_is_the_oracle(plan: Plan) -> None:
    given = case(plan, nb_frames=4)
    h, d_gates = model.scan(plan, **given)
    W_hh = given["W_hh"].astype(np.float64)
    eye, zero = np.eye(len(W_hh)), np.zeros(len(W_hh))
    expected, cache = lstm_forward(given["gates"].astype(np.float64), eye, W_hh, zero, zero)
    d_expected, _ = lstm_backward(given["d_out"].astype(np.float64), cache, eye, W_hh)
    bound = 1e-6
    assert np.linalg.norm(h - expected) < bound * np.linalg.norm(expected)
    assert np.linalg.norm(d_gates - d_expected) < bound * np.linalg.norm(d_expected)
