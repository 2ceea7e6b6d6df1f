"""Which kernels run the recurrence, and in which pieces. Needs no card.

A persistent scan (``sources/scan.cuh``) gives a group of `parts` blocks one sequence and `tiles`
tiles of samples; each block owns `units` hidden units, whose rows of W_hh it keeps in registers,
and what does not fit there in shared memory. `choose` takes the pieces that fit a card in a fixed
order of preference.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..errors import ConfigError, DeviceError
from .card import WARP, Card, register_limit

KINDS = ("cooperative", "step")

GATES = 4
FLOAT = 4  # bytes
VECTOR = 4  # floats

# Samples that a product takes at a time in training. A single one, without a backward pass, is by
# itself.
TILE_SAMPLES = 4

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


@dataclass(frozen=True)
class Plan:
    """Kernels and pieces of the scans of one layer.

    Attributes
    ----------
    kind : str
        ``'cooperative'``: blocks keep the weights, and exchange h through global memory.
        ``'step'``: a matrix product and a launch for each frame.
    hidden : int
        Hidden units of a sequence.
    parts : int
        Blocks of a group.
    units : int
        Hidden units of a block.
    tiles : int
        Tiles of samples of a group.
    samples : int
        Samples of a tile: 4, or 1 where there is a single one and no backward pass.
    forward_lanes, backward_lanes : int
        Lanes that share the depth of a product.
    forward_shared, backward_shared : int
        Steps over the depth of a product whose weights are in shared memory.
    """

    kind: str
    hidden: int
    parts: int = 1
    units: int = VECTOR
    tiles: int = 1
    samples: int = TILE_SAMPLES
    forward_lanes: int = 16
    backward_lanes: int = 8
    forward_shared: int = 0
    backward_shared: int = 0

    def __str__(self) -> str:
        """One line for people."""
        if self.kind == "step":
            return "step scan: one launch per frame"
        in_shared = self.forward_shared or self.backward_shared
        samples = self.tiles * self.samples
        return (
            f"cooperative scan: groups of {self.parts} blocks, {samples} "
            f"sample{'s' if samples > 1 else ''} each; {self.units} units "
            f"({self.weight_bytes // 1024} KiB of W_hh) of a block in "
            f"registers{' and shared memory' if in_shared else ''}"
        )

    def kernel(self, *, backward: bool) -> tuple[str, str]:
        """Source and name of a kernel."""
        name = "scan_backward" if backward else "scan_forward"
        return ("scan_step.cu", f"{name}_step") if self.kind == "step" else (f"{name}.cu", name)

    @property
    def defines(self) -> dict[str, int]:
        """Macros to compile the kernels with."""
        if self.kind == "step":
            return {}
        names = (
            "hidden parts units tiles samples "
            "forward_lanes backward_lanes forward_shared backward_shared"
        )
        return {name.upper(): int(getattr(self, name)) for name in names.split()}

    @property
    def padded(self) -> int:
        """Units of all parts."""
        return self.parts * self.units

    def groups(self, nb_samples: int, nb_sequences: int) -> int:
        """Groups of parts that a batch needs."""
        return nb_sequences * -(-nb_samples // (self.samples * self.tiles))

    def threads(self, *, backward: bool) -> int:
        """Threads of a block."""
        if backward:
            return _round_up(self.padded // VECTOR * self.backward_lanes, WARP)
        return self.units * self.forward_lanes

    def depth(self, *, backward: bool) -> int:
        """Steps over the depth of the product."""
        if backward:
            return GATES * self.units // self.backward_lanes
        return -(-self.padded // self.forward_lanes)

    def exchange(self, *, backward: bool) -> int:
        """Floats of one of the two buffers of a group.

        Forward, h of all units; backward, for each part d_h of its units by each part.
        """
        if backward:
            return self.parts * self.parts * self.tiles * self.units * self.samples
        return self.tiles * self.depth(backward=False) * self.forward_lanes * self.samples

    def shared_bytes(self, *, backward: bool) -> int:
        """Dynamic shared memory of a block: gradients of gates or cells, and weights."""
        threads = self.threads(backward=backward)
        state = self.samples * GATES * self.units if backward else threads
        weights = self.backward_shared if backward else self.forward_shared
        return FLOAT * (self.tiles * state + weights * VECTOR * threads)

    @property
    def passes(self) -> tuple[bool, ...]:
        """Values of `backward` for which the plan has kernels."""
        return (False, True) if self.samples == TILE_SAMPLES else (False,)

    @property
    def weight_bytes(self) -> int:
        """Bytes of W_hh that a block keeps."""
        return FLOAT * GATES * self.units * self.padded


def choose(
    hidden: int,
    nb_samples: int,
    nb_sequences: int,
    card: Card,
    kinds: Sequence[str] = KINDS,
    *,
    backward: bool = True,
) -> Plan:
    """Choose kernels and pieces.

    Of the persistent scans that fit, the one with the fewest launches; then with all weights in
    registers; then with the fewest tiles, which a group computes one after the other; then without
    units that are only padding; then with the most parts, which share the work.

    Parameters
    ----------
    hidden : int
        Hidden units of a sequence.
    nb_samples : int
        Samples.
    nb_sequences : int
        Sequences side by side, such as the directions of a layer, or of all targets.
    card : Card
    kinds : sequence of str
        Kinds of kernels to choose from.
    backward : bool
        Whether there is a backward pass.

    Returns
    -------
    Plan
        One launch per frame always fits, but is taken only if no persistent scan does.

    Raises
    ------
    ConfigError
        If a size is not positive.
    DeviceError
        If none of `kinds` fits.
    """
    if min(hidden, nb_samples, nb_sequences) < 1:
        raise ConfigError(
            f"hidden={hidden}, nb_samples={nb_samples} and nb_sequences={nb_sequences} must be at "
            "least 1"
        )

    def preference(plan: Plan) -> tuple[int, ...]:
        launches = -(-plan.groups(nb_samples, nb_sequences) // _capacity(plan, card))
        in_shared = plan.forward_shared + plan.backward_shared > 0
        return launches, in_shared, plan.tiles, plan.padded > hidden, -plan.parts

    samples = TILE_SAMPLES if backward or nb_samples > 1 else 1
    if "cooperative" in kinds and (fitting := list(_persistent(hidden, samples, card))):
        return min(fitting, key=preference)
    if "step" in kinds:
        return Plan("step", hidden)
    raise DeviceError(f"hidden={hidden} fits none of the kernels {', '.join(kinds)}")


def _persistent(hidden: int, samples: int, card: Card) -> Iterator[Plan]:
    """All persistent scans that fit the card."""
    # More than 128 units never fit into registers and shared memory.
    most = min(_round_up(hidden, VECTOR), 128)
    for units in range(VECTOR, most + 1, VECTOR):
        plan = Plan("cooperative", hidden, -(-hidden // units), units, samples=samples)
        if _capacity(plan, card) == 0:
            continue
        forward_lanes = _lanes(units, plan.padded, (16, 32))
        backward_lanes = _lanes(plan.padded // VECTOR, GATES * units, (4, 8, 16, 32))
        plan = replace(plan, forward_lanes=forward_lanes, backward_lanes=backward_lanes)
        for tiles in range(1, MOST_TILES + 1 if samples > 1 else 2):
            tiled = _split_weights(replace(plan, tiles=tiles))
            if tiled is None or card.shared_memory_per_block < max(
                tiled.shared_bytes(backward=backward) for backward in tiled.passes
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
    shared = [0, 0]
    for backward in plan.passes:
        threads, others = plan.threads(backward=backward), OTHER_REGISTERS
        if threads > MOST_THREADS:
            return None
        if backward:
            items = plan.tiles * plan.units * plan.samples
            others += (-(-items // threads) - 1) * ITEM_REGISTERS
        if threads > USUAL_THREADS:
            others += CROWDED_REGISTERS
        registers = register_limit(-(-threads // WARP)) - others
        if registers < VECTOR:
            return None
        shared[backward] = max(0, plan.depth(backward=backward) - registers // VECTOR)
    return replace(plan, forward_shared=shared[0], backward_shared=shared[1])


def _capacity(plan: Plan, card: Card) -> int:
    """Groups that are resident at a time, one block on each multiprocessor."""
    return card.multiprocessors // plan.parts


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
