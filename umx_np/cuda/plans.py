"""Which recurrent kernel for which size on which card; pure functions, reasons included.

A kernel is possible if its weights fit and its blocks can be resident. Among those the one with the
fewest estimated clocks is chosen. The estimate orders alternatives, it does not predict times: its
constants are counts of instructions and published latencies, to be replaced by measurements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from ..errors import ConfigError, DeviceError
from .card import Card
from .tiling import WARP, Tiling

# Most sequences of a launch: their directions are the bits of one word.
MAX_SEQUENCES = 64
_MAX_WARPS = 32
_STEP_WARPS = 16  # of scan_step.cu, so that its loads ahead find registers

METHODS = ("cooperative", "step")

# -- limits of a multiprocessor, the same since compute capability 7.0 ----------------------------
_REGISTERS_OF_QUARTER = 16384  # a multiprocessor has four quarters with registers of their own
_REGISTER_STEP = 8
_MAX_REGISTERS = 255
# What a thread needs beside weights and sums, from the compiler's reports; more where weights pass
# through registers from shared memory. With the last number it just manages: taken where shared
# memory would be too small otherwise.
_OTHER_REGISTERS = 48
_OTHER_REGISTERS_WITH_SHARED = (92, 84)

# -- estimate, in clocks of a frame ----------------------------------------------------------------
# Instructions of a warp apart from products and sums, and the latency of what depends on each other
# from the first read of h to the new h; counted in machine code.
_TAIL_INSTRUCTIONS = 90
_CHAIN = 330
# A store to the L2 cache and reads of it until the value is there; on an H100 a read takes 263
# clocks (arXiv:2402.13499).
_EXCHANGE = 900
_PER_BLOCK = 4  # more readers
_SHARED_BYTES_PER_CLOCK = 128
_L2_BYTES_PER_CLOCK = 64  # of one multiprocessor
_COLUMN = 9  # of scan_step.cu: latency of the L1 cache, four loads at a time


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
    clocks : int
        Estimate for one frame of all sequences; orders plans, does not predict times.
    reasons : tuple of str
        Why this one: a line for each other method.
    """

    method: str
    hidden: int
    tiling: Tiling | None
    sequences_per_launch: int = MAX_SEQUENCES
    clocks: int = 0
    reasons: tuple[str, ...] = ()

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


def register_limit(warps: int) -> int:
    """Registers that a thread may have if a multiprocessor runs one block of so many warps."""
    per_thread = _REGISTERS_OF_QUARTER // (-(-warps // 4) * WARP)
    return min(_MAX_REGISTERS, per_thread // _REGISTER_STEP * _REGISTER_STEP)


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


def clocks_per_frame(tiling: Tiling) -> int:
    """Estimate for one frame, from reading h to everybody having the new one."""
    halvings = tiling.rows.bit_length() - 1
    shuffles = tiling.rows - 1 + (5 - halvings)
    instructions = (
        tiling.slots * tiling.vector  # products
        + tiling.groups
        + tiling.in_shared  # loads
        + 4 * (tiling.rows - 1)  # two selections, a shuffle and a sum for each pair of rows
        + 2 * (5 - halvings)
        + _TAIL_INSTRUCTIONS
    )
    issued = -(-tiling.warps // 4) * instructions
    bytes_read = tiling.warps * (tiling.groups + tiling.in_shared) * WARP * tiling.vector * 4
    traffic = bytes_read // _SHARED_BYTES_PER_CLOCK + tiling.warps * (shuffles + 4)
    return max(issued, traffic) + _CHAIN + _EXCHANGE + _PER_BLOCK * tiling.blocks


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
    """All plans that are possible, without reasons.

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
        waves = -(-sequences // at_once)
        for tiling in _tilings(hidden, blocks, card):
            clocks = clocks_per_frame(tiling) * waves
            yield Plan("cooperative", hidden, tiling, at_once, clocks)
    if 8 * hidden <= card.shared_memory_per_block:
        clocks = 16 * hidden * hidden // _L2_BYTES_PER_CLOCK
        clocks += _COLUMN * hidden + _CHAIN
        waves = -(-sequences // min(per_launch, card.multiprocessors))
        yield Plan("step", hidden, None, per_launch, clocks * waves)


@lru_cache(maxsize=256)
def choose(
    hidden: int,
    sequences: int,
    card: Card,
    *,
    method: str | None = None,
    blocks: int | None = None,
) -> Plan:
    """Choose the kernel for some sequences.

    Parameters
    ----------
    hidden : int
        Units of a sequence, `lstm_hidden_size`.
    sequences : int
        Sequences that run side by side: targets times directions.
    card : Card
    method : str or None
        Force one of `METHODS`; None takes the best.
    blocks : int or None
        Force the number of blocks per sequence.

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
    best: dict[str, Plan] = {}
    for plan in plans(hidden, sequences, card):
        if blocks not in (None, plan.blocks):
            continue
        if plan.method not in best or plan.clocks < best[plan.method].clocks:
            best[plan.method] = plan
    reasons = tuple(_reason(name, best.get(name)) for name in METHODS)
    candidates = [plan for name, plan in best.items() if method in (None, name)]
    if not candidates:
        asked = f"method={method!r} blocks={blocks}"
        raise DeviceError(
            f"no recurrent kernel for hidden={hidden} with {asked} on this card: "
            + "; ".join(reasons)
        )
    chosen = min(candidates, key=lambda plan: plan.clocks)
    return replace(chosen, reasons=reasons)


def _reason(method: str, plan: Plan | None) -> str:
    if plan is None:
        return f"{method}: does not fit"
    return f"{method}: possible, about {plan.clocks} clocks a frame with {plan.blocks} blocks"
