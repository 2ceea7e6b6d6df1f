"""Which thread owns which recurrent weights; the twin in Python of ``sources/scan_tile.cuh``.

Pure index arithmetic, so it is proven without a card: the tests check that every weight has exactly
one owner and run the tiling in NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ConfigError
from .card import WARP

NB_GATES = 4
_FLOAT = 4  # bytes


@dataclass(frozen=True)
class Tiling:
    """How the recurrent product of one sequence is shared out.

    A warp owns `units_per_warp` units with all gates and columns; the columns of a row are dealt to
    its lanes in vectors. A *slot* is one such vector of weights; the first `register_slots` of a
    lane stay in registers, the others in shared memory.

    Parameters
    ----------
    hidden : int
        Units of a sequence, H.
    blocks : int
        Thread blocks that share a sequence.
    warps : int
        Warps of a block.
    units_per_warp : int
        1, 2, 4 or 8.
    register_slots : int or None
        None for all.
    """

    hidden: int
    blocks: int
    warps: int
    units_per_warp: int
    register_slots: int | None = None

    def __post_init__(self) -> None:
        if self.units_per_warp not in (1, 2, 4, 8):
            raise ConfigError(f"units_per_warp={self.units_per_warp} must be 1, 2, 4 or 8")
        if self.hidden < 1 or self.blocks < 1 or self.units < self.hidden:
            raise ConfigError(
                f"hidden={self.hidden} units do not fit into {self.blocks} blocks of {self.warps} "
                f"warps with {self.units_per_warp} units each"
            )
        if self.register_slots is None:
            object.__setattr__(self, "register_slots", self.slots)
        if not 0 <= self.in_registers <= self.slots:
            raise ConfigError(
                f"register_slots={self.register_slots} must be between 0 and {self.slots}"
            )

    @property
    def in_registers(self) -> int:
        """Slots of a lane in registers."""
        return self.slots if self.register_slots is None else self.register_slots

    @property
    def in_shared(self) -> int:
        """Slots of a lane in shared memory."""
        return self.slots - self.in_registers

    @property
    def vector(self) -> int:
        """Columns side by side: as wide as one access may be without reading much beyond H."""
        return 1 if self.hidden <= WARP else 2 if self.hidden <= 2 * WARP else 4

    @property
    def groups(self) -> int:
        """Vectors of a row that a lane owns."""
        return -(-self.hidden // (WARP * self.vector))

    @property
    def rows(self) -> int:
        """Rows of the weights that a warp owns."""
        return NB_GATES * self.units_per_warp

    @property
    def slots(self) -> int:
        """Vectors of weights that a lane owns."""
        return self.groups * self.rows

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return WARP * self.warps

    @property
    def units(self) -> int:
        """Units, filled up."""
        return self.blocks * self.warps * self.units_per_warp

    @property
    def columns(self) -> int:
        """Columns, filled up."""
        return self.groups * WARP * self.vector

    @property
    def h_length(self) -> int:
        """Floats of one of the two halves of h in shared memory."""
        return -(-max(self.units, self.columns) // 4) * 4

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block: weights, and both halves of h."""
        weights = self.warps * self.in_shared * WARP * self.vector
        return _FLOAT * (weights + 2 * self.h_length)

    @property
    def scratch_words(self) -> int:
        """Words of 8 bytes through which the blocks of a cooperative launch exchange h."""
        return 2 * self.units

    @property
    def prefetch(self) -> int:
        """Frames that the input gates are read ahead.

        Frames take longer where weights come from shared memory, and registers are short.
        """
        return 2 if self.in_shared else 4

    @property
    def defines(self) -> dict[str, int]:
        """Macros of the kernels."""
        return {
            "HIDDEN": self.hidden,
            "BLOCKS": self.blocks,
            "WARPS": self.warps,
            "UNITS_PER_WARP": self.units_per_warp,
            "VECTOR": self.vector,
            "REGISTER_SLOTS": self.in_registers,
            "PREFETCH": self.prefetch,
        }

    def pack(self, weights: np.ndarray) -> np.ndarray:
        """Put weights into the order in which threads read them.

        Parameters
        ----------
        weights : ndarray [shape=(nb_sequences, 4 * hidden, hidden)]
            Rows in the order of the gates i, f, g, o.

        Returns
        -------
        ndarray [shape=(nb_sequences, blocks, warps, slots, 32, vector)]
            Zero where a tile exceeds the weights.
        """
        nb_sequences, hidden = len(weights), self.hidden
        filled = np.zeros((nb_sequences, NB_GATES, self.units, self.columns), weights.dtype)
        filled[:, :, :hidden, :hidden] = weights.reshape(nb_sequences, NB_GATES, hidden, hidden)
        tiles = filled.reshape(
            nb_sequences,
            NB_GATES,
            self.blocks,
            self.warps,
            self.units_per_warp,
            self.groups,
            WARP,
            self.vector,
        )
        # A row of a warp is 4 * unit + gate, a slot is group * rows + row.
        return tiles.transpose(0, 2, 3, 5, 4, 1, 6, 7).reshape(
            nb_sequences, self.blocks, self.warps, self.slots, WARP, self.vector
        )


def pack_by_column(weights: np.ndarray) -> np.ndarray:
    """Put weights into the order of ``scan_step.cu``.

    Parameters
    ----------
    weights : ndarray [shape=(nb_sequences, 4 * hidden, hidden)]

    Returns
    -------
    ndarray [shape=(nb_sequences, hidden columns, hidden units, 4)]
    """
    nb_sequences, _, hidden = weights.shape
    by_gate = weights.reshape(nb_sequences, NB_GATES, hidden, hidden)
    return np.ascontiguousarray(by_gate.transpose(0, 3, 2, 1))
