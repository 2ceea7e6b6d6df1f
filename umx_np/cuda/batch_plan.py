"""Which kernels run the recurrent scans of training, and in which pieces. Needs no card.

A persistent scan (``sources/batch_scan.cuh``) gives a group of `parts` blocks one direction and
`tiles` tiles of samples; each block owns `units` hidden units, whose rows of W_hh it keeps in
registers, and what does not fit there in shared memory. `choose` takes the pieces that fit a card
in a fixed order of preference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ..errors import DeviceError
from .card import WARP, Card, register_limit

KINDS = ("cooperative", "step")

GATES = 4
FLOAT = 4  # bytes
VECTOR = 4  # floats

# Of the samples that a product takes at a time.
LANE_SAMPLES = 4

# What a scan needs besides weights was found by compiling it.
OTHER_REGISTERS = 64
ITEM_REGISTERS = 12  # more for each further unit and sample of a thread, backward
CROWDED_REGISTERS = 20  # more in blocks of more than the usual threads
MOST_THREADS = 1024
# Lanes share the depth of a product; with fewer weights each, exchanging sums costs more than it
# brings, and with more threads than this there are too few registers.
LEAST_WEIGHTS = 32
USUAL_THREADS = 512

MOST_TILES = 8

STEP_UNITS, STEP_SAMPLES, STEP_THREADS = 8, 16, 256
STEP_FORWARD_FLOATS = 32 * 33 + 32 * 16
STEP_BACKWARD_FLOATS = 64 * 8 + 16 * 65


@dataclass(frozen=True)
class Plan:
    """Kernels and pieces of the scans of one layer.

    Attributes
    ----------
    kind : str
        ``'cooperative'`` or ``'step'``.
    hidden : int
        Hidden units of a direction.
    parts : int
        Blocks of a group.
    units : int
        Hidden units of a block.
    tiles : int
        Tiles of samples of a group.
    forward_lanes, backward_lanes : int
        Lanes that share the depth of a product.
    forward_shared, backward_shared : int
        Steps over the depth of a product whose weights are in shared memory.
    """

    kind: str
    hidden: int
    parts: int = 1
    units: int = STEP_UNITS
    tiles: int = 1
    forward_lanes: int = 16
    backward_lanes: int = 8
    forward_shared: int = 0
    backward_shared: int = 0

    def __str__(self) -> str:
        """One line for people."""
        if self.kind == "step":
            return "step scan: one launch per frame"
        in_shared = self.forward_shared or self.backward_shared
        return (
            f"cooperative scan: groups of {self.parts} blocks, {self.tiles * self.samples} samples "
            f"each; {self.units} units ({self.weight_bytes // 1024} KiB of W_hh) of a block in "
            f"registers{' and shared memory' if in_shared else ''}"
        )

    @property
    def defines(self) -> dict[str, int]:
        """Macros to compile the kernels with."""
        if self.kind == "step":
            return {}
        names = (
            "hidden parts units tiles forward_lanes backward_lanes forward_shared backward_shared"
        )
        return {name.upper(): int(getattr(self, name)) for name in names.split()}

    @property
    def padded(self) -> int:
        """Units of all parts."""
        return self.parts * self.units

    @property
    def samples(self) -> int:
        """Samples of a tile."""
        return STEP_SAMPLES if self.kind == "step" else LANE_SAMPLES

    def groups(self, nb_samples: int, directions: int) -> int:
        """Groups of parts that a batch needs."""
        return directions * -(-nb_samples // (self.samples * self.tiles))

    @property
    def forward_threads(self) -> int:
        """Threads of a block, forward."""
        if self.kind == "step":
            return STEP_THREADS
        return self.units * self.forward_lanes

    @property
    def backward_threads(self) -> int:
        """Threads of a block, backward."""
        if self.kind == "step":
            return STEP_THREADS
        return _round_up(self.padded // VECTOR * self.backward_lanes, WARP)

    @property
    def forward_depth(self) -> int:
        """Steps over the depth of the forward product."""
        return -(-self.padded // self.forward_lanes)

    @property
    def backward_depth(self) -> int:
        """Steps over the depth of the backward product."""
        return GATES * self.units // self.backward_lanes

    @property
    def forward_exchange(self) -> int:
        """Floats of one of the two buffers of a group, forward: h of all units."""
        return self.tiles * self.forward_depth * self.forward_lanes * self.samples

    @property
    def backward_exchange(self) -> int:
        """Floats of one of the two buffers of a part, backward: d_h of its units by each part."""
        return self.parts * self.tiles * self.units * self.samples

    @property
    def forward_bytes(self) -> int:
        """Dynamic shared memory, forward."""
        if self.kind == "step":
            return FLOAT * STEP_FORWARD_FLOATS
        state = self.tiles * self.forward_threads
        weights = self.forward_shared * VECTOR * self.forward_threads
        return FLOAT * (state + weights)

    @property
    def backward_bytes(self) -> int:
        """Dynamic shared memory, backward."""
        if self.kind == "step":
            return FLOAT * STEP_BACKWARD_FLOATS
        operand = self.samples * GATES * self.units
        weights = self.backward_shared * VECTOR * self.backward_threads
        return FLOAT * (self.tiles * operand + weights)

    @cached_property
    def weight_bytes(self) -> int:
        """Bytes of W_hh that a block keeps."""
        return FLOAT * GATES * self.units * self.padded


def choose(
    hidden: int,
    batch: int,
    directions: int,
    card: Card,
    kinds: Sequence[str] = KINDS,
) -> Plan:
    """Choose kernels and pieces.

    Of the persistent scans that fit, the one with the fewest launches; then with all weights in
    registers; then with the fewest tiles, which a group computes one after the other; then without
    units that are only padding; then with the most parts, which share the work.

    Parameters
    ----------
    hidden : int
        Hidden units of a direction.
    batch : int
        Samples.
    directions : int
    card : Card
    kinds : sequence of str
        Kinds of kernels to choose from.

    Returns
    -------
    Plan
        One launch per frame always fits, but is taken only if no persistent scan does.

    Raises
    ------
    DeviceError
        If none of `kinds` fits.
    """

    def preference(plan: Plan) -> tuple[int, ...]:
        launches = -(-plan.groups(batch, directions) // _capacity(plan, card))
        in_shared = plan.forward_shared + plan.backward_shared > 0
        return launches, in_shared, plan.tiles, plan.padded > hidden, -plan.parts

    if "cooperative" in kinds and (fitting := list(_persistent(hidden, card))):
        return min(fitting, key=preference)
    if "step" in kinds:
        return Plan("step", hidden)
    raise DeviceError(f"hidden={hidden} fits none of the kernels {', '.join(kinds)}")


def _persistent(hidden: int, card: Card) -> Iterator[Plan]:
    """All persistent scans that fit the card."""
    # More than 128 units never fit into registers and shared memory.
    most = min(_round_up(hidden, VECTOR), 128)
    for units in range(VECTOR, most + 1, VECTOR):
        plan = Plan("cooperative", hidden, -(-hidden // units), units)
        if _capacity(plan, card) == 0:
            continue
        forward_lanes = _lanes(units, plan.padded, (16, 32))
        backward_lanes = _lanes(plan.padded // VECTOR, GATES * units, (4, 8, 16, 32))
        plan = replace(plan, forward_lanes=forward_lanes, backward_lanes=backward_lanes)
        for tiles in range(1, MOST_TILES + 1):
            tiled = _split_weights(replace(plan, tiles=tiles))
            if (
                tiled is None
                or max(tiled.forward_bytes, tiled.backward_bytes) > card.shared_memory_per_block
            ):
                break
            yield tiled


def _lanes(rows: int, depth: int, possible: Sequence[int]) -> int:
    """Lanes for products with so many rows; each lane multiplies four weights per depth."""
    fitting = [
        lanes
        for lanes in possible
        if rows * lanes <= USUAL_THREADS
        and VECTOR * depth // lanes >= LEAST_WEIGHTS
        and depth % min(lanes, depth) == 0
    ]
    return max(fitting, default=possible[0])


def _split_weights(plan: Plan) -> Plan | None:
    """Weights that do not fit into registers go to shared memory; None if threads are too many."""
    items = plan.tiles * plan.units * plan.samples
    further_items = -(-items // plan.backward_threads) - 1
    shared = []
    for threads, depth, others in (
        (plan.forward_threads, plan.forward_depth, OTHER_REGISTERS),
        (
            plan.backward_threads,
            plan.backward_depth,
            OTHER_REGISTERS + further_items * ITEM_REGISTERS,
        ),
    ):
        if threads > MOST_THREADS:
            return None
        crowded = CROWDED_REGISTERS if threads > USUAL_THREADS else 0
        registers = register_limit(-(-threads // WARP)) - others - crowded
        if registers < VECTOR:
            return None
        shared.append(max(0, depth - registers // VECTOR))
    return replace(plan, forward_shared=shared[0], backward_shared=shared[1])


def _capacity(plan: Plan, card: Card) -> int:
    """Groups that are resident at a time, one block on each multiprocessor."""
    return card.multiprocessors // plan.parts


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
