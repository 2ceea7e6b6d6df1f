"""Which recurrent kernel for which size on which card; pure functions, reasons included.

A kernel is possible if its weights fit and its blocks can be resident. Among those the one with the
fewest estimated clocks is chosen. The estimate orders alternatives, it does not predict times: its
constants are counts of instructions and published latencies, to be replaced by measurements.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ...errors import ConfigError, DeviceError
from .tiling import WARP, Tiling

# Most sequences of a launch: their directions are the bits of one word.
MAX_SEQUENCES = 64
_MAX_WARPS = 32
_STEP_WARPS = 16  # of scan_step.cu, so that its loads ahead find registers
_CLUSTER_SIZES = (2, 4, 8)  # 8 is the largest that every card with clusters can run

METHODS = ("cluster", "cooperative", "resident", "step")
# Of each method, the default first. A cluster's default is the simpler one, until both have been
# measured on a card.
EXCHANGES: dict[str, tuple[str, ...]] = {
    "cluster": ("barrier", "mbarrier"),
    "cooperative": ("tagged", "counter"),
    "resident": ("block",),
    "step": ("block",),
}

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
# On an H100 a read of another block's shared memory takes 180 clocks, of the L2 cache 263
# (arXiv:2402.13499). One way through the cluster for asynchronous stores; there and back, and a
# barrier, for plain ones; a store to the L2 cache and reads of it until the value is there, or
# three times there and back.
_EXCHANGE = {"block": 40, "mbarrier": 300, "barrier": 500, "tagged": 900, "counter": 2000}
_PER_BLOCK = 4  # more readers
_SHARED_BYTES_PER_CLOCK = 128
_L2_BYTES_PER_CLOCK = 64  # of one multiprocessor
_COLUMN = 9  # of scan_step.cu: latency of the L1 cache, four loads at a time


@dataclass(frozen=True)
class Card:
    """What the choice depends on.

    Attributes
    ----------
    compute_capability : tuple of int
    multiprocessors : int
    shared_memory_per_block : int
        Most dynamic shared memory of a block, in bytes.
    has_clusters : bool
    """

    compute_capability: tuple[int, int]
    multiprocessors: int
    shared_memory_per_block: int
    has_clusters: bool

    @classmethod
    def of(cls, device: Any) -> Card:
        """Properties of a `Device`."""
        return cls(
            compute_capability=device.compute_capability,
            multiprocessors=device.multiprocessors,
            shared_memory_per_block=device.shared_memory_per_block,
            has_clusters=device.has_clusters,
        )

    def resident_clusters(self, blocks: int) -> int:
        """Clusters that run at the same time, if a block fills a multiprocessor.

        Groups of multiprocessors need not be multiples of a cluster: an H100 with 132 runs 15
        clusters of 8, not 16.
        """
        return max(1, self.multiprocessors // blocks - (1 if blocks > 2 else 0))


@dataclass(frozen=True)
class Plan:
    """A kernel and its sizes.

    Attributes
    ----------
    method : str
        ``'cluster'``: the blocks of a sequence exchange h through each other's shared memory.
        ``'cooperative'``: through global memory. ``'resident'``: one block has all weights.
        ``'step'``: one block reads the weights anew in every frame.
    exchange : str
        How: see `EXCHANGES`.
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
    exchange: str
    hidden: int
    tiling: Tiling | None
    sequences_per_launch: int = MAX_SEQUENCES
    clocks: int = 0
    reasons: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"method={self.method!r} must be one of {', '.join(METHODS)}")
        if self.exchange not in EXCHANGES[self.method]:
            raise ConfigError(
                f"exchange={self.exchange!r} must be one of {', '.join(EXCHANGES[self.method])} "
                f"for method={self.method!r}"
            )
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
        if self.tiling is None:
            return {}
        defines = self.tiling.defines
        if self.method in ("cluster", "cooperative"):
            defines["EXCHANGE"] = EXCHANGES[self.method].index(self.exchange)
        return defines

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
            f"{self.method} ({self.exchange}): {tiling.blocks} blocks of {tiling.threads} threads "
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


def clocks_per_frame(tiling: Tiling, exchange: str) -> int:
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
    return max(issued, traffic) + _CHAIN + _EXCHANGE[exchange] + _PER_BLOCK * tiling.blocks


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
    for method in METHODS:
        for exchange in EXCHANGES[method]:
            if method == "step":
                if 8 * hidden <= card.shared_memory_per_block:
                    per_launch = min(sequences, MAX_SEQUENCES)
                    clocks = 16 * hidden * hidden // _L2_BYTES_PER_CLOCK
                    clocks += _COLUMN * hidden + _CHAIN
                    waves = -(-sequences // min(per_launch, card.multiprocessors))
                    yield Plan(method, exchange, hidden, None, per_launch, clocks * waves)
                continue
            sizes: tuple[int, ...] | range = (1,)
            if method == "cluster":
                sizes = _CLUSTER_SIZES if card.has_clusters else ()
            elif method == "cooperative":
                sizes = range(2, min(card.multiprocessors, hidden) + 1)
            for blocks in sizes:
                # Blocks that wait for each other through global memory must be resident together;
                # clusters and single blocks may wait for their turn.
                per_launch = min(sequences, MAX_SEQUENCES)
                if method == "cooperative":
                    at_once = per_launch = min(per_launch, card.multiprocessors // blocks)
                elif method == "cluster":
                    at_once = min(per_launch, card.resident_clusters(blocks))
                else:
                    at_once = min(per_launch, card.multiprocessors)
                waves = -(-sequences // at_once)
                for tiling in _tilings(hidden, blocks, card):
                    clocks = clocks_per_frame(tiling, exchange) * waves
                    yield Plan(method, exchange, hidden, tiling, per_launch, clocks)


@lru_cache(maxsize=256)
def choose(
    hidden: int,
    sequences: int,
    card: Card,
    *,
    method: str | None = None,
    exchange: str | None = None,
    blocks: int | None = None,
    without: tuple[str, ...] = (),
) -> Plan:
    """Choose the kernel for some sequences.

    Parameters
    ----------
    hidden : int
        Units of a sequence, `lstm_hidden_size`.
    sequences : int
        Sequences that run side by side: targets times directions.
    card : Card
    method, exchange : str or None
        Force one of `METHODS` and of its `EXCHANGES`; None takes the best method and the default
        of a method.
    blocks : int or None
        Force the number of blocks per sequence.
    without : tuple of str
        Methods that the card turned out not to run.

    Returns
    -------
    Plan

    Raises
    ------
    ConfigError
        If there is no such method or exchange.
    DeviceError
        If what is forced does not fit the card.
    """
    if hidden < 1 or sequences < 1:
        raise ConfigError(f"hidden={hidden} and sequences={sequences} must be at least 1")
    if method is not None and method not in METHODS:
        raise ConfigError(f"method={method!r} must be one of {', '.join(METHODS)}")
    if exchange is not None and exchange not in {e for all_ in EXCHANGES.values() for e in all_}:
        raise ConfigError(f"exchange={exchange!r} is unknown")
    best: dict[str, Plan] = {}
    for plan in plans(hidden, sequences, card):
        wanted = plan.exchange == (exchange or EXCHANGES[plan.method][0])
        if not wanted or blocks not in (None, plan.blocks):
            continue
        if plan.method not in best or plan.clocks < best[plan.method].clocks:
            best[plan.method] = plan
    reasons = tuple(_reason(name, best.get(name), card) for name in METHODS)
    candidates = [
        plan for name, plan in best.items() if method in (None, name) and name not in without
    ]
    if not candidates:
        asked = f"method={method!r} exchange={exchange!r} blocks={blocks}"
        raise DeviceError(
            f"no recurrent kernel for hidden={hidden} with {asked} on this card: "
            + "; ".join(reasons)
        )
    chosen = min(candidates, key=lambda plan: plan.clocks)
    return Plan(
        chosen.method,
        chosen.exchange,
        hidden,
        chosen.tiling,
        chosen.sequences_per_launch,
        chosen.clocks,
        reasons,
    )


def _reason(method: str, plan: Plan | None, card: Card) -> str:
    if plan is not None:
        return f"{method}: possible, about {plan.clocks} clocks a frame with {plan.blocks} blocks"
    if method == "cluster" and not card.has_clusters:
        return "cluster: needs compute capability 9.0"
    return f"{method}: does not fit"
