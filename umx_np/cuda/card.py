"""Properties of a device that the choice of kernels depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .device import Device

WARP = 32

# Limits of a multiprocessor, the same since compute capability 7.0: its warps are spread over four
# quarters with registers of their own, given in eights.
_QUARTERS = 4
_QUARTER_REGISTERS = 16384
_REGISTER_STEP = 8
_MOST_REGISTERS = 255


def register_limit(warps: int) -> int:
    """Registers that a thread may have if a multiprocessor runs one block of so many warps."""
    each = _QUARTER_REGISTERS // (-(-warps // _QUARTERS) * WARP)
    return min(each // _REGISTER_STEP * _REGISTER_STEP, _MOST_REGISTERS)


@dataclass(frozen=True)
class Card:
    """Properties of a CUDA device.

    Attributes
    ----------
    multiprocessors : int
    shared_memory_per_block : int
        Most dynamic shared memory of a block, in bytes.
    """

    multiprocessors: int
    shared_memory_per_block: int

    @classmethod
    def of(cls, device: Device) -> Card:
        """Properties of a device that is there."""
        return cls(
            multiprocessors=device.multiprocessors,
            shared_memory_per_block=device.shared_memory_per_block,
        )
