"""Owners, layouts and orders of the persistent scans of training, at real sizes, without a card."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import batch_tiling_model as model

from umx_np.cuda.batch_plan import KINDS, OTHER_REGISTERS, Plan, choose, registers_of
from umx_np.cuda.card import Card
from umx_np.errors import DeviceError
from umx_np.layers.lstm import lstm_backward, lstm_forward

CARDS = {
    "V100": Card((7, 0), 80, 96 << 10),
    "GTX 1650": Card((7, 5), 14, 64 << 10),
    "T4": Card((7, 5), 40, 64 << 10),
    "A100": Card((8, 0), 108, 163 << 10),
    "RTX 3060": Card((8, 6), 28, 99 << 10),
    "RTX 3090": Card((8, 6), 82, 99 << 10),
    "RTX 4090": Card((8, 9), 128, 99 << 10),
    "H100 PCIe": Card((9, 0), 114, 227 << 10),
    "H100 SXM": Card((9, 0), 132, 227 << 10),
    "B200": Card((10, 0), 148, 227 << 10),
    "RTX 5090": Card((12, 0), 170, 99 << 10),
}
# (kind, parts, units, tiles, tensor) for a batch of 16 in two directions.
CHOICES = {
    ("V100", 256, "float32"): ("cooperative", 8, 32, 1, False),
    ("T4", 256, "float32"): ("cooperative", 8, 32, 2, False),
    ("GTX 1650", 512, "float32"): ("step", 1, 8, 1, False),
    ("A100", 256, "tf32"): ("cooperative", 16, 16, 1, True),
    ("RTX 3060", 256, "float32"): ("cooperative", 13, 20, 4, False),
    ("RTX 3090", 256, "tf32"): ("cooperative", 8, 32, 1, False),
    ("RTX 4090", 512, "float32"): ("cooperative", 32, 16, 2, False),
    ("H100 SXM", 128, "float32"): ("cooperative", 16, 8, 1, False),
    ("H100 SXM", 256, "float32"): ("cooperative", 16, 16, 1, False),
    ("H100 SXM", 256, "tf32"): ("cooperative", 16, 16, 1, True),
    ("H100 SXM", 256, "bf16"): ("cooperative", 16, 16, 1, True),
    ("H100 SXM", 512, "float32"): ("cooperative", 32, 16, 2, False),
    ("H100 SXM", 512, "tf32"): ("cooperative", 32, 16, 1, True),
    ("H100 PCIe", 256, "tf32"): ("cooperative", 16, 16, 1, True),
    ("B200", 256, "tf32"): ("cooperative", 16, 16, 1, True),
    ("RTX 5090", 256, "float32"): ("cooperative", 16, 16, 1, False),
}


@pytest.mark.parametrize(("card", "hidden", "math"), CHOICES)
def test_choices(card: str, hidden: int, math: str) -> None:
    plan = choose(hidden, 16, 2, CARDS[card], math)
    found = (plan.kind, plan.parts, plan.units, plan.tiles, plan.tensor)
    assert found == CHOICES[card, hidden, math]
    assert plan.reason
    assert str(plan).startswith(plan.kind)


def test_registers() -> None:
    # 17 warps put five into one quarter of a multiprocessor.
    threads = (32, 256, 320, 512, 544, 1024)
    assert [registers_of(n) for n in threads] == [255, 255, 168, 128, 96, 64]


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("hidden", [1, 7, 64, 100, 128, 192, 256, 257, 384, 512, 768, 1024])
def test_every_choice_fits_its_card(card: str, hidden: int) -> None:
    for batch, directions in ((1, 1), (16, 2), (100, 2)):
        for math in ("float32", "tf32"):
            _check_fit(choose(hidden, batch, directions, CARDS[card], math), CARDS[card])


def _check_fit(plan: Plan, card: Card) -> None:
    assert plan.padded >= plan.hidden or plan.kind == "step"
    assert plan.parts <= card.multiprocessors
    assert not plan.tensor or card.compute_capability >= (8, 0)
    for threads, nb_bytes, depth, shared, step in (
        (
            plan.forward_threads,
            plan.forward_bytes,
            plan.forward_depth,
            plan.forward_shared,
            plan.forward_step,
        ),
        (
            plan.backward_threads,
            plan.backward_bytes,
            plan.backward_depth,
            plan.backward_shared,
            plan.backward_step,
        ),
    ):
        assert nb_bytes <= card.shared_memory_per_block
        assert threads % 32 == 0
        assert threads <= 1024
        if plan.kind != "step":
            assert shared < depth
            assert (depth - shared) * step <= registers_of(threads) - OTHER_REGISTERS


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
            for math in ("float32", "tf32"):
                plan = choose(hidden, 16, 2, card, math)
                if plan.kind != "step":
                    plan = replace(plan, tiles=1, reason="")
                    name = f"{plan.kind}-{hidden}-{plan.parts}x{plan.units}"
                    plans[name + "-tensor" * plan.tensor] = plan
    return plans


PLANS = _real_plans()


@pytest.fixture(params=PLANS)
def plan(request: pytest.FixtureRequest) -> Plan:
    return PLANS[request.param]


def test_real_plans_are_of_all_kinds() -> None:
    found = {(plan.kind, plan.tensor) for plan in PLANS.values()}
    assert found == {(kind, tensor) for kind in KINDS if kind != "step" for tensor in (False, True)}


def test_every_weight_has_one_owner(plan: Plan) -> None:
    for made in (model.forward_model(plan), model.backward_model(plan)):
        counts = made.weights().counts(plan.hidden)
        assert counts.min() == counts.max() == 1


def test_weights_stay_with_the_part_that_owns_the_unit(plan: Plan) -> None:
    part = np.arange(plan.parts)[:, None, None, None]
    for made in (model.forward_model(plan), model.backward_model(plan)):
        unit = made.weights().unit
        assert ((unit // plan.units == part) | (unit >= plan.padded)).all()


def test_every_state_has_one_owner(plan: Plan) -> None:
    owners = model.forward_model(plan).owners()
    expected = [(unit, n) for unit in range(plan.padded) for n in range(plan.samples)]
    assert sorted(map(tuple, owners.tolist())) == expected
    items = model.backward_model(plan).items()
    expected = [(unit, n) for unit in range(plan.units) for n in range(plan.samples)]
    assert sorted(map(tuple, items.tolist())) == expected


def test_every_float_is_sent_once(plan: Plan) -> None:
    # A counter of bytes waits for exactly these, or for ever.
    forward = model.forward_model(plan).sends().counts(plan.parts, plan.forward_exchange)
    assert set(np.unique(forward)) <= {0, 1}
    assert (forward.sum(axis=1) == plan.padded * plan.samples).all()
    backward = model.backward_model(plan).sends().counts(plan.parts, plan.backward_exchange)
    assert (backward == 1).all()


@pytest.mark.parametrize("name", [name for name in PLANS if name.endswith("tensor")])
def test_tensor_operands_are_read_without_bank_conflicts(name: str) -> None:
    plan = PLANS[name]
    for made in (model.TensorForward(plan), model.TensorBackward(plan)):
        words = made.addresses()[:, None] + np.arange(4)
        for quarter in words.reshape(4, 32):  # 8 lanes of 16 bytes are served at a time
            assert len(set(quarter % 32)) == 32


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
    bound = 1e-3 if plan.tensor else 1e-6
    assert np.linalg.norm(h - expected) < bound * np.linalg.norm(expected)
    assert np.linalg.norm(d_gates - d_expected) < bound * np.linalg.norm(d_expected)
