"""Owners, layouts and orders of the persistent scans, at real sizes, without a card."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import nvrtc
from helpers import scan_model as model

from umx_np.cuda.card import Card, register_limit
from umx_np.cuda.scan_plan import KINDS, OTHER_REGISTERS, VECTOR, Plan, choose
from umx_np.errors import ConfigError, DeviceError
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
# (kind, parts, units, tiles) for a batch of 16 in two directions in training.
CHOICES = {
    ("V100", 256): ("cooperative", 8, 32, 1),
    ("T4", 256): ("cooperative", 8, 32, 2),
    ("GTX 1650", 512): ("step", 1, 4, 1),
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
    assert plan.samples == 4
    found = (plan.kind, plan.parts, plan.units, plan.tiles)
    assert found == CHOICES[card, hidden]
    assert str(plan).startswith(plan.kind)


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("hidden", [1, 7, 64, 100, 128, 192, 256, 257, 384, 512, 768, 1024])
def test_every_choice_fits_its_card(card: str, hidden: int) -> None:
    for batch, sequences in ((1, 1), (1, 100), (16, 2), (100, 2)):
        for backward in (True, False):
            plan = choose(hidden, batch, sequences, CARDS[card], backward=backward)
            _check_fit(plan, CARDS[card])
            assert plan.kind == "step" or plan.passes[-1] >= backward


def _check_fit(plan: Plan, card: Card) -> None:
    assert plan.padded >= plan.hidden or plan.kind == "step"
    assert plan.parts <= card.multiprocessors
    if plan.kind == "step":
        return
    for backward, shared in zip(
        plan.passes, (plan.forward_shared, plan.backward_shared), strict=False
    ):
        threads, depth = plan.threads(backward=backward), plan.depth(backward=backward)
        assert plan.shared_bytes(backward=backward) <= card.shared_memory_per_block
        assert threads % 32 == 0
        assert threads <= 1024
        assert shared < depth
        assert (depth - shared) * VECTOR <= register_limit(threads // 32) - OTHER_REGISTERS


# (kind, parts, units) for eight sequences of one sample without a backward pass.
INFERENCE = {
    ("V100", 256): ("cooperative", 8, 32),
    ("GTX 1650", 256): ("cooperative", 8, 32),
    ("GTX 1650", 512): ("step", 1, 4),
    ("A100", 512): ("cooperative", 16, 32),
    ("RTX 4090", 256): ("cooperative", 16, 16),
    ("H100 SXM", 128): ("cooperative", 16, 8),
    ("H100 SXM", 256): ("cooperative", 16, 16),
    ("H100 SXM", 512): ("cooperative", 16, 32),
    ("RTX 4090", 512): ("cooperative", 32, 16),
}


@pytest.mark.parametrize(("card", "hidden"), INFERENCE)
def test_choices_for_inference(card: str, hidden: int) -> None:
    plan = choose(hidden, 1, 8, CARDS[card], backward=False)
    assert (plan.kind, plan.parts, plan.units) == INFERENCE[card, hidden]
    assert plan.kind == "step" or (plan.samples, plan.tiles) == (1, 1)


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("hidden", [128, 256, 512])
def test_what_is_chosen_for_inference_is_compiled_by_the_compile_check(card, hidden) -> None:
    plan = choose(hidden, 1, 8, CARDS[card], backward=False)
    listed = nvrtc.read_header("scan_forward.cu").variants
    if plan.kind == "step":
        return
    usual = Plan("cooperative", hidden).defines
    assert plan.defines in [
        {**usual, "BACKWARD_LANES": plan.backward_lanes, **{k: int(v) for k, v in variant.items()}}
        for variant in listed
    ]


def test_umxhq_needs_no_shared_memory_for_weights() -> None:
    plan = choose(256, 1, 8, CARDS["H100 SXM"], backward=False)
    assert plan.forward_shared == 0
    assert plan.weight_bytes == 64 << 10


def test_description() -> None:
    text = str(choose(256, 1, 8, CARDS["H100 SXM"], backward=False))
    assert text.startswith("cooperative scan: groups of 16 blocks, 1 sample each; 16 units (64 KiB")
    assert str(choose(512, 1, 8, CARDS["GTX 1650"], backward=False)).startswith("step")


def test_registers_are_those_of_a_quarter() -> None:
    """16384 registers for the warps of a quarter, in steps of 8 per thread, at most 255."""
    expected = {1: 255, 8: 255, 9: 168, 12: 168, 16: 128, 17: 96, 20: 96, 32: 64}
    assert {warps: register_limit(warps) for warps in expected} == expected


def test_kinds_can_be_excluded() -> None:
    card = CARDS["H100 SXM"]
    assert choose(256, 16, 2, card, kinds=("step",)).kind == "step"
    with pytest.raises(DeviceError, match="hidden=2048"):
        choose(2048, 16, 2, card, kinds=("cooperative",))
    with pytest.raises(ConfigError, match="nb_sequences=0"):
        choose(256, 1, 0, card)


def _real_plans() -> dict[str, Plan]:
    """All persistent plans that any of the cards gets at sizes that occur."""
    plans = {}
    for card in CARDS.values():
        for hidden in (64, 100, 128, 256, 512):
            for sizes in ((16, 2), (1, 8)):
                plan = choose(hidden, *sizes, card, backward=sizes[0] > 1)
                if plan.kind != "step":
                    plan = replace(plan, tiles=1)
                    name = f"{plan.kind}-{hidden}-{plan.parts}x{plan.units}x{plan.samples}"
                    plans[name] = plan
    return plans


PLANS = _real_plans()


@pytest.fixture(params=PLANS)
def plan(request: pytest.FixtureRequest) -> Plan:
    return PLANS[request.param]


def _models(plan: Plan) -> list[model.LanesForward | model.LanesBackward]:
    kinds = (model.LanesForward, model.LanesBackward)
    return [kinds[backward](plan) for backward in plan.passes]


def test_real_plans_are_of_all_kinds() -> None:
    assert {plan.kind for plan in PLANS.values()} == set(KINDS) - {"step"}


def test_every_weight_has_one_owner(plan: Plan) -> None:
    for made in _models(plan):
        counts = made.weights().counts(plan.hidden)
        assert counts.min() == counts.max() == 1


def test_weights_stay_with_the_part_that_owns_the_unit(plan: Plan) -> None:
    part = np.arange(plan.parts)[:, None, None, None]
    for made in _models(plan):
        unit = made.weights().unit
        assert ((unit // plan.units == part) | (unit >= plan.padded)).all()


def test_every_state_has_one_owner(plan: Plan) -> None:
    owners = model.LanesForward(plan).owners()
    expected = [(unit, n) for unit in range(plan.padded) for n in range(plan.samples)]
    assert sorted(map(tuple, owners.tolist())) == expected
    if True not in plan.passes:
        return
    items = model.LanesBackward(plan).items()
    expected = [(unit, n) for unit in range(plan.units) for n in range(plan.samples)]
    assert sorted(map(tuple, items.tolist())) == expected


def test_every_float_is_sent_once(plan: Plan) -> None:
    floats = plan.exchange(backward=False)
    forward = model.LanesForward(plan).sends().counts(plan.parts, floats)
    assert set(np.unique(forward)) <= {0, 1}
    assert (forward.sum(axis=1) == plan.padded * plan.samples).all()
    if True not in plan.passes:
        return
    floats = plan.exchange(backward=True) // plan.parts
    backward = model.LanesBackward(plan).sends().counts(plan.parts, floats)
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
    bound = 1e-6
    assert np.linalg.norm(h - expected) < bound * np.linalg.norm(expected)
    if d_gates is None:
        return
    d_expected, _ = lstm_backward(given["d_out"].astype(np.float64), cache, eye, W_hh)
    assert np.linalg.norm(d_gates - d_expected) < bound * np.linalg.norm(d_expected)
