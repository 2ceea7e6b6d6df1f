"""Which recurrent kernel for which size on which card; pure functions.

A kernel is possible if its weights fit and its blocks can be resident. `choose` takes those that
are possible in a fixed order of preference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from ..errors import ConfigError, DeviceError
from .card import QUARTERS, WARP, Card, register_limit
from .tiling import Tiling

# Most sequences of a launch: their directions are the bits of one word.
MAX_SEQUENCES = 64
_MAX_WARPS = 32
_STEP_WARPS = 16  # of scan_step.cu, so that its loads ahead find registers

METHODS = ("cooperative", "step")

# What a thread needs beside weights and sums, from the compiler's reports; more where weights pass
# through registers from shared memory. With the last number it just manages: taken where shared
# memory would be too small otherwise.
_OTHER_REGISTERS = 48
_OTHER_REGISTERS_WITH_SHARED = (92, 84)


@dataclass(frozen=True)
class Plan:
    """A kernel and its sizes.

    Attributes
    ----------
    method : str
        ``'cooperative'``: the blocks of a sequence keep its weights, and exchange h through global
        memory. ``'step'``: one block reads the weights again in every frame.
    hidden : int
    tiling : Tiling or None
        None for ``'step'``.
    sequences_per_launch : int
        More sequences take several launches.
    """

    method: str
    hidden: int
    tiling: Tiling | None
    sequences_per_launch: int = MAX_SEQUENCES

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"method={self.method!r} must be one of {', '.join(METHODS)}")
        if (self.tiling is None) != (self.method == "step"):
            raise ConfigError(f"method={self.method!r} with tiling={self.tiling}")

    @property
    def source(self) -> str:
        """File of the kernel."""
        return f"scan_{self.method}.cu"

    @property
    def kernel(self) -> str:
        """Name of the kernel."""
        return f"scan_{self.method}"

    @property
    def blocks(self) -> int:
        """Blocks of a sequence."""
        return self.tiling.blocks if self.tiling else 1

    @property
    def threads(self) -> int:
        """Threads of a block."""
        if self.tiling:
            return self.tiling.threads
        return min(_STEP_WARPS, -(-self.hidden // WARP)) * WARP

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block."""
        return self.tiling.shared_bytes if self.tiling else 2 * 4 * self.hidden

    @property
    def defines(self) -> dict[str, int]:
        """Macros of the kernel."""
        return self.tiling.defines if self.tiling else {}

    def describe(self) -> str:
        """One line for people."""
        if self.tiling is None:
            return f"step: a block of {self.threads} threads per sequence, weights from the caches"
        tiling = self.tiling
        slot = tiling.threads * tiling.vector * 4
        registers, shared = tiling.in_registers * slot, tiling.in_shared * slot
        where = [f"{registers // 1024} KiB in registers"] * (registers > 0)
        where += [f"{shared // 1024} KiB in shared memory"] * (shared > 0)
        return (
            f"{self.method}: {tiling.blocks} blocks of {tiling.threads} threads "
            f"per sequence, weights of a block {' and '.join(where)}"
        )


def fit(hidden: int, blocks: int, warps: int, units_per_warp: int, shared_bytes: int) -> Tiling:
    """Tiling with as many weights in registers as a thread can hold.

    Parameters
    ----------
    hidden, blocks, warps, units_per_warp : int
        As in `Tiling`.
    shared_bytes : int
        Shared memory that a block may have. The result may need more, if nothing fits.
    """
    tiling = Tiling(hidden, blocks, warps, units_per_warp)
    free = register_limit(warps) - tiling.rows
    if tiling.slots * tiling.vector + _OTHER_REGISTERS <= free:
        return tiling
    for others in _OTHER_REGISTERS_WITH_SHARED:
        slots = min(tiling.slots, max(0, free - others) // tiling.vector)
        # Rounded down to numbers with which the compiler does not spill; found by compiling.
        slots -= slots % (WARP // tiling.rows)
        parted = Tiling(hidden, blocks, warps, units_per_warp, slots)
        if parted.shared_bytes <= shared_bytes:
            break
    return parted


def _tilings(hidden: int, blocks: int, card: Card) -> Iterator[Tiling]:
    """All tilings over so many blocks that fit a block of the card."""
    for units_per_warp in (1, 2, 4, 8):
        warps = -(-hidden // (blocks * units_per_warp))
        # Blocks beyond those that the units need would idle, and so would a quarter of a
        # multiprocessor without a warp, unless there is one block anyway.
        idle = (blocks - 1) * warps * units_per_warp >= hidden or (warps < 4 and blocks > 1)
        if warps > _MAX_WARPS or idle:
            continue
        tiling = fit(hidden, blocks, warps, units_per_warp, card.shared_memory_per_block)
        if tiling.shared_bytes <= card.shared_memory_per_block:
            yield tiling


def plans(hidden: int, sequences: int, card: Card) -> Iterator[Plan]:
    """All plans that are possible.

    Parameters
    ----------
    hidden : int
        Units of a sequence.
    sequences : int
        Sequences that run side by side.
    card : Card
    """
    per_launch = min(sequences, MAX_SEQUENCES)
    for blocks in range(2, min(card.multiprocessors, hidden) + 1):
        # Blocks that wait for each other must be resident together.
        at_once = min(per_launch, card.multiprocessors // blocks)
        for tiling in _tilings(hidden, blocks, card):
            yield Plan("cooperative", hidden, tiling, at_once)
    if 8 * hidden <= card.shared_memory_per_block:
        yield Plan("step", hidden, None, per_launch)


@lru_cache(maxsize=256)
def choose(
    hidden: int,
    sequences: int,
    card: Card,
    *,
    method: str | None = None,
) -> Plan:
    """Choose the kernel for some sequences.

    Cooperative, if one fits: with the fewest launches; then with the fewest weights in shared
    memory, best none; then with the fewest warps to share a quarter of a multiprocessor; then with
    the fewest blocks, which wait for each other.

    Parameters
    ----------
    hidden : int
        Units of a sequence, `lstm_hidden_size`.
    sequences : int
        Sequences that run side by side: targets times directions.
    card : Card
    method : str or None
        Force one of `METHODS`.

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError
        If there is no such method.
    DeviceError
        If what is forced does not fit the card.
    """
    if hidden < 1 or sequences < 1:
        raise ConfigError(f"hidden={hidden} and sequences={sequences} must be at least 1")
    if method is not None and method not in METHODS:
        raise ConfigError(f"method={method!r} must be one of {', '.join(METHODS)}")

    def preference(plan: Plan) -> tuple[int, ...]:
        launches = -(-sequences // plan.sequences_per_launch)
        if plan.tiling is None:
            return 1, launches
        tiling = plan.tiling
        in_shared = tiling.in_shared * tiling.threads * tiling.blocks
        return 0, launches, in_shared, -(-tiling.warps // QUARTERS), tiling.blocks

    possible = [plan for plan in plans(hidden, sequences, card) if method in (None, plan.method)]
    if not possible:
        raise DeviceError(
            f"hidden={hidden} fits none of the kernels {method or ', '.join(METHODS)}"
        )
    return min(possible, key=preference)
