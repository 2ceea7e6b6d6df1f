"""Context of the cases of a section: the device, random numbers, memory that was used before."""

from __future__ import annotations

import sys
import zlib
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from umx_np.cuda.device import Device

# Sizes of the blocks that are filled with NaN before a check; what is allocated next gets them.
_POISONED_BYTES = tuple(1 << bits for bits in range(9, 27))


@dataclass(frozen=True)
class Options:
    """Choices that hold for a whole run.

    Attributes
    ----------
    device : int
        Index of the card.
    seed : int
        Of all random numbers.
    torch : bool
        Whether PyTorch may be used where it is installed.
    small : bool
        Sizes that an emulator can compute.
    pool : bool
        Whether memory of the card is kept for the next allocation, as CuPy does.
    patience : float
        Factor for the time limits of cases, for tools that slow everything down.
    """

    device: int = 0
    seed: int = 0
    torch: bool = True
    small: bool = False
    pool: bool = True
    patience: float = 1.0


class Context:
    """Card and random numbers of one process.

    Parameters
    ----------
    options : Options
    device : Device or None
        Given by tests; otherwise the card of `options` is opened when it is first asked for.
    """

    def __init__(self, options: Options, device: Device | None = None) -> None:
        self.options = options
        if device is not None:
            self.__dict__["device"] = device

    @cached_property
    def device(self) -> Device:
        """The card."""
        from umx_np.cuda.device import get_device

        device = get_device(self.options.device)
        # Arrays that the cases make themselves belong there, too.
        device.xp.cuda.Device(device.index).use()
        if not self.options.pool:
            device.xp.cuda.set_allocator(None)
        return device

    @property
    def xp(self) -> Any:
        """CuPy."""
        return self.device.xp

    def rng(self, name: str) -> np.random.Generator:
        """Random numbers that depend on the seed of the run and a name only."""
        return np.random.default_rng([self.options.seed, zlib.crc32(name.encode())])

    def size(self, full: Any, small: Any) -> Any:
        """Choose between a size for a card and one for the emulator."""
        return small if self.options.small else full

    def nan(self, shape: tuple[int, ...], dtype: Any = np.float32) -> Any:
        """An array on the card that a kernel must fill, because every number in it is NaN."""
        out = self.xp.empty(shape, dtype)
        out.fill(np.nan)
        return out

    def poison(self) -> None:
        """Leave NaN in the memory that the next allocations get.

        A kernel that reads what nobody has written then computes NaN, not the zeros of fresh
        memory.
        """
        limit = 1 << 16 if self.options.small else max(_POISONED_BYTES)
        blocks = [self.nan((size // 4,)) for size in _POISONED_BYTES if size <= limit]
        del blocks

    def is_broken(self) -> bool:
        """Whether the card refuses all further work of this process."""
        if "device" not in self.__dict__:
            return False
        try:
            self.device.synchronize()
        except Exception:
            return True
        return False

    def release(self) -> None:
        """Give cached memory back, so that a case does not stand in the way of the next."""
        if "device" in self.__dict__:
            # Tests have no pool.
            with suppress(AttributeError):
                self.xp.get_default_memory_pool().free_all_blocks()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_available():
            torch.cuda.empty_cache()
