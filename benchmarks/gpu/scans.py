"""The recurrent kernels of inference that this card can run, and what they are run on."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from umx_np.cuda.card import Card
from umx_np.cuda.scan_plan import KINDS, choose
from umx_np.errors import DeviceError

from .context import Context

if TYPE_CHECKING:
    from umx_np.cuda.scan_plan import Plan


class Variant(NamedTuple):
    """A kernel with its sizes.

    Attributes
    ----------
    name : str
        For people: kind and blocks of a sequence.
    plan : Plan
    chosen : bool
        Whether it is what separations use on this card.
    """

    name: str
    plan: Plan
    chosen: bool


def variants(context: Context, hidden: int, nb_sequences: int) -> list[Variant]:
    """All kinds that the device can run.

    Parameters
    ----------
    context : Context
    hidden : int
        Units of a sequence.
    nb_sequences : int
        Sequences side by side.
    """
    card = Card.of(context.device)
    default = choose(hidden, 1, nb_sequences, card, backward=False)
    found: dict[str, Variant] = {}
    for kind in KINDS:
        try:
            plan = choose(hidden, 1, nb_sequences, card, kinds=[kind], backward=False)
        except DeviceError:
            continue
        name = f"{kind}, {plan.parts} blocks"
        found[name] = Variant(name, plan, plan == default)
    # The likeliest to be used first.
    return sorted(found.values(), key=lambda variant: not variant.chosen)


def inputs(
    rng: np.random.Generator, nb_sequences: int, nb_frames: int, hidden: int
) -> tuple[np.ndarray, np.ndarray]:
    """Gates and weights of sequences, with larger weights than PyTorch's.

    Returns
    -------
    gates : ndarray [shape=(nb_sequences, nb_frames, 4 * hidden)], float32
    weights : ndarray [shape=(nb_sequences, 4 * hidden, hidden)], float32
    """
    gates = rng.standard_normal((nb_sequences, nb_frames, 4 * hidden), np.float32)
    limit = 2.0 / np.sqrt(hidden)
    weights = rng.uniform(-limit, limit, (nb_sequences, 4 * hidden, hidden))
    return gates, weights.astype(np.float32)


def directions(nb_sequences: int) -> list[bool]:
    """Forward and backward in turn, as the directions of targets are."""
    return [bool(k % 2) for k in range(nb_sequences)]


def operations(nb_sequences: int, hidden: int) -> float:
    """Additions and multiplications of the recurrent products of one frame."""
    return 2.0 * nb_sequences * 4 * hidden * hidden
