"""Copies of batches to a card, while it computes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .device import Device


class UploadSlot:
    """See `umx_np.backends.training.Slot`."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._stream, self._free = device.stream(), device.event()
        self._arrays: Any = None
        self._host = np.empty(0, np.float32)

    def fill(self, x: np.ndarray, y: np.ndarray) -> tuple[Any, Any]:
        """See `Slot`."""
        size = x.size
        with self._device.active(), self._stream:
            if self._arrays is None or self._arrays.shape[1] < size:
                self._host = self._device.pinned((2, size), np.float32)
                self._arrays = self._device.xp.empty((2, size), np.float32)
            self._stream.wait_event(self._free)
            for row, array in enumerate((x, y)):
                self._host[row, :size] = array.reshape(-1)
                self._arrays[row, :size].set(self._host[row, :size], stream=self._stream)
            self._stream.synchronize()
            return tuple(self._arrays[row, :size].reshape(x.shape) for row in range(2))

    def used(self) -> None:
        """See `Slot`."""
        with self._device.active():
            self._free.record()
