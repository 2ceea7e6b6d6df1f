"""Activations of a whole track: on the card, or kept by the host where the card is too small."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from .ops import Array
from .transform import upload

if TYPE_CHECKING:
    from .device import Device


class Activations(Protocol):
    """Activations of some targets, float32 [shape=(nb_targets, nb_frames, nb_parts * width)].

    The parts of a frame, such as the two directions of a layer, are written one by one.
    """

    def read(self, targets: slice, start: int, stop: int) -> Array:
        """Return frames [start, stop) with all their parts; batches and rows may lie apart."""

    def writing(
        self, targets: slice, start: int, stop: int, part: int = 0
    ) -> AbstractContextManager[Array]:
        """Context with an array [shape=(targets, stop - start, width)] to fill.

        It takes the place of that part of the frames when the context ends; batches and rows of it
        may lie apart.
        """


class _OnCard:
    def __init__(
        self, device: Device, nb_targets: int, nb_frames: int, nb_parts: int, width: int
    ) -> None:
        self._array = device.xp.empty((nb_targets, nb_frames, nb_parts, width), np.float32)

    def read(self, targets: slice, start: int, stop: int) -> Array:
        nb_targets, nb_frames, nb_parts, width = self._array.shape
        joined = self._array.reshape(nb_targets, nb_frames, nb_parts * width)
        return joined[targets, start:stop]

    @contextmanager
    def writing(self, targets: slice, start: int, stop: int, part: int = 0) -> Iterator[Array]:
        yield self._array[targets, start:stop, part]


class _OnHost:
    def __init__(
        self,
        device: Device,
        new_store: Callable[[int], Any],
        nb_targets: int,
        nb_parts: int,
        width: int,
    ) -> None:
        self._device = device
        self._width = width
        self._stores = [[new_store(width) for _ in range(nb_parts)] for _ in range(nb_targets)]

    def read(self, targets: slice, start: int, stop: int) -> Array:
        frames = [
            np.concatenate([store.read(start, stop) for store in parts], axis=-1)
            for parts in self._stores[targets]
        ]
        return upload(self._device, np.stack(frames))

    @contextmanager
    def writing(self, targets: slice, start: int, stop: int, part: int = 0) -> Iterator[Array]:
        stores = [parts[part] for parts in self._stores[targets]]
        block = self._device.xp.empty((len(stores), stop - start, self._width), np.float32)
        yield block
        for store, frames in zip(stores, block.get(), strict=True):
            store.write(start, frames)


def on_card(
    device: Device, nb_targets: int, nb_frames: int, nb_parts: int, width: int
) -> Activations:
    """Make room on the card for the activations of a track, see `Activations`."""
    return _OnCard(device, nb_targets, nb_frames, nb_parts, width)


def on_host(
    device: Device, new_store: Callable[[int], Any], nb_targets: int, nb_parts: int, width: int
) -> Activations:
    """Make room on the host; `new_store` makes a `FrameStore` of a width."""
    return _OnHost(device, new_store, nb_targets, nb_parts, width)


def spans_of(nb_frames: int, size: int) -> list[tuple[int, int]]:
    """Ranges [start, stop) of at most `size` frames that cover a track."""
    return [(start, min(start + size, nb_frames)) for start in range(0, nb_frames, size)]
