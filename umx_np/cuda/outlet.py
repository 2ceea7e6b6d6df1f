"""The way out of the card: samples to the host, and how far the work has come."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .ops import Array

if TYPE_CHECKING:
    from .device import Device

# Steps that may be under way before the next is started: so the report is that of the card, and an
# exception of it ends the work soon.
_STEPS_AHEAD = 2


class Outlet:
    """Copies blocks to the host in a stream of their own, through two page-locked buffers.

    Parameters
    ----------
    device : Device
        The card.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        self._stream = device.stream()
        self._buffers = [np.empty(0, np.float32), np.empty(0, np.float32)]
        # Position, array on the card (its memory must not be used again before it is copied), array
        # of the host, and the event that says that it is there.
        self._copies: deque[tuple[int, Array, np.ndarray, Any]] = deque()

    @property
    def under_way(self) -> int:
        """Blocks that were sent and not received yet; at most two."""
        return len(self._copies)

    def send(self, start: int, block: Array) -> None:
        """Copy a block when the current stream has computed it."""
        self._buffers.reverse()
        if self._buffers[0].size < block.size:
            self._buffers[0] = self._device.pinned(block.size, np.float32)
        host = self._buffers[0][: block.size].reshape(block.shape)
        computed, copied = self._device.event(), self._device.event()
        computed.record()
        self._stream.wait_event(computed)
        block.get(stream=self._stream, out=host, blocking=False)
        copied.record(self._stream)
        self._copies.append((start, block, host, copied))

    def receive(self) -> tuple[int, np.ndarray]:
        """Wait for the oldest block; it is valid until the next but one is sent."""
        start, _, host, copied = self._copies[0]
        copied.synchronize()
        self._copies.popleft()
        return start, host

    def close(self) -> None:
        """Wait for all copies, so that their memory can be given back."""
        self._stream.synchronize()
        self._copies.clear()


class Pace:
    """Reports steps when the card has done them, and waits where too many are under way.

    Parameters
    ----------
    device : Device
        The card.
    report : callable or None
        Gets the fraction that is done, from 0 to 1.
    """

    def __init__(self, device: Device, report: Callable[[float], None] | None) -> None:
        self._device, self._report = device, report
        self._steps: deque[tuple[Any, float]] = deque()
        self._done = 0.0

    def step(self, share: float) -> None:
        """Note that this share of the work was started in the current stream."""
        event = self._device.event()
        event.record()
        self._steps.append((event, share))
        while len(self._steps) > _STEPS_AHEAD:
            self._wait()

    def finish(self) -> None:
        """Wait for all steps."""
        while self._steps:
            self._wait()

    def _wait(self) -> None:
        event, share = self._steps.popleft()
        event.synchronize()
        self._done += share
        if self._report is not None:
            self._report(min(self._done, 1.0))
