"""Properties of a device that the choice of kernels depends on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .device import Device


@dataclass(frozen=True)
class Card:
    """Properties of a CUDA device.

    Attributes
    ----------
    compute_capability : tuple of int
        Such as ``(9, 0)``.
    multiprocessors : int
    shared_memory_per_block : int
        Most dynamic shared memory of a block, in bytes.
    """

    compute_capability: tuple[int, int]
    multiprocessors: int
    shared_memory_per_block: int

    @classmethod
    def of(cls, device: Device) -> Card:
        """Properties of a device that is there."""
        return cls(
            compute_capability=device.compute_capability,
            multiprocessors=device.multiprocessors,
            shared_memory_per_block=device.shared_memory_per_block,
        )
