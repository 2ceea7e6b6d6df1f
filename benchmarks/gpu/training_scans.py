"""The recurrent kernels of training that this card can run, and what they are run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from umx_np.cuda.card import Card
from umx_np.cuda.scan_plan import KINDS, choose
from umx_np.errors import DeviceError
from umx_np.layers.lstm import lstm_backward, lstm_forward

from .context import Context

if TYPE_CHECKING:
    from umx_np.cuda.scan import Saved, Scan
    from umx_np.cuda.scan_plan import Plan


class Variant(NamedTuple):
    """A kernel with its sizes.

    Attributes
    ----------
    name : str
        For people.
    plan : Plan
    chosen : bool
        Whether it is what training uses on this card.
    """

    name: str
    plan: Plan
    chosen: bool


class Problem(NamedTuple):
    """Inputs of a layer, D directions: all float32.

    Attributes
    ----------
    gates : ndarray [shape=(D, T, B, 4 * H)]
    weight_hh : ndarray [shape=(D, 4 * H, H)]
    d_h : ndarray [shape=(T, B, D * H)]
    """

    gates: np.ndarray
    weight_hh: np.ndarray
    d_h: np.ndarray


def variants(context: Context, hidden: int, nb_samples: int) -> list[Variant]:
    """A plan of each kind; the one that is used first."""
    from umx_np.cuda.scan import Scan

    card = Card.of(context.device)
    default = Scan(context.device, hidden, [False, True]).plan(nb_samples)
    found = []
    for kind in KINDS:
        try:
            plan = choose(hidden, nb_samples, 2, card, kinds=[kind])
        except DeviceError:
            continue
        name = f"{kind}, {plan.parts} blocks"
        found.append(Variant(name, plan, plan.kind == default.kind))
    return sorted(found, key=lambda variant: not variant.chosen)


def problem(rng: np.random.Generator, nb_frames: int, nb_samples: int, hidden: int) -> Problem:
    """Random inputs, with larger weights than PyTorch's."""
    limit = 2.0 / np.sqrt(hidden)
    return Problem(
        rng.standard_normal((2, nb_frames, nb_samples, 4 * hidden), np.float32),
        rng.uniform(-limit, limit, (2, 4 * hidden, hidden)).astype(np.float32),
        rng.standard_normal((nb_frames, nb_samples, 2 * hidden), np.float32),
    )


def expected(given: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Outputs [shape=(T, B, D * H)] and gradients of the gates, by the reference in float64."""
    gates, weight_hh, d_h = (array.astype(np.float64) for array in given)
    hidden = weight_hh.shape[2]
    nothing = np.zeros(4 * hidden)
    outputs, gradients = [], []
    for k, (part, weight, d_out) in enumerate(
        zip(gates, weight_hh, np.split(d_h, len(gates), axis=-1), strict=True)
    ):
        # What comes in is the product already.
        same = np.eye(4 * hidden)
        h, cache = lstm_forward(part, same, weight, nothing, nothing, reverse=k == 1)
        d_gates, _ = lstm_backward(d_out, cache, same, weight, reverse=k == 1)
        outputs.append(h)
        gradients.append(d_gates)
    return np.concatenate(outputs, axis=-1), np.stack(gradients)


class OnCard:
    """A problem on the card; its gates are copied before each run, because they are overwritten.

    Parameters
    ----------
    context : Context
    given : Problem
    """

    def __init__(self, context: Context, given: Problem) -> None:
        xp = context.xp
        self._gates, self.weight_hh = xp.asarray(given.gates), xp.asarray(given.weight_hh)
        self.d_h = xp.asarray(given.d_h)
        self.gates = xp.empty_like(self._gates)
        self.out = context.nan(given.d_h.shape)
        self.d_gates = context.nan(given.gates.shape)
        self.refresh()

    def refresh(self) -> None:
        """Undo what a forward pass has done to the gates."""
        self.gates[...] = self._gates

    def forward(self, scan: Scan, *, keep: bool = True) -> Saved | None:
        """Run the forward pass."""
        return scan.forward(self.gates, self.weight_hh, self.out, keep)

    def backward(self, scan: Scan, saved: Any) -> Any:
        """Run the backward pass, in the memory of the gates."""
        return scan.backward(self.d_h, saved, self.weight_hh)
