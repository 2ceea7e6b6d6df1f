"""Tensors in one array of a device, and the memory that they need."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..backends.tensors import Reading, TensorMemory, Tensors, Update
from ..errors import ShapeError

# Every tensor begins at a multiple of so many elements: 256 bytes, as if it were on its own.
_ALIGNMENT = 64


class FlatMemory(TensorMemory, Protocol):
    """Memory of a device."""

    xp: Any

    def zeros(self, count: int) -> Any:
        """Make an array of float32 zeros."""

    def to_host(self, array: Any) -> np.ndarray:
        """Copy an array of this memory."""

    def replace(self, array: Any, values: np.ndarray) -> None:
        """Put other values of the same shape into an array of this memory."""

    def clip(self, grads: FlatTensors, max_norm: float) -> Reading:
        """Set the factor of gradients such that their norm is at most `max_norm`; read the norm."""


class FlatTensors(Tensors):
    """Named float32 tensors in one array of a device: a mapping to views of it.

    Hundreds of launches a step would cost a device more time than it computes. One array with all
    parameters, and others like it with their gradients and what an optimiser keeps of them, are
    changed by one.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        Shapes of the tensors, in their order.
    memory : FlatMemory
        Where the array is made.

    Attributes
    ----------
    flat : device array [shape=(n,)], float32
        All tensors, with zeros between them.
    factor : device array [shape=(1,)] or None
        For gradients: what they are to be multiplied with when they are used. If it is NaN they are
        not to be used at all.
    others : dict of str to device array
        What goes with the tensors and is none of them, such as the gradient of the input; found
        under its name behind them.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], memory: FlatMemory) -> None:
        self.shapes = dict(shapes)
        self.memory: FlatMemory = memory
        self._offsets: dict[str, int] = {}
        count = 0
        for name, shape in self.shapes.items():
            self._offsets[name] = count
            count += -(-math.prod(shape) // _ALIGNMENT) * _ALIGNMENT
        self.flat = memory.zeros(count)
        self.factor: Any = None
        self.others: dict[str, Any] = {}
        self._views = {name: self._view(self.flat, name) for name in self.shapes}

    def _view(self, flat: Any, name: str) -> Any:
        start, shape = self._offsets[name], self.shapes[name]
        return flat[start : start + math.prod(shape)].reshape(shape)

    def __getitem__(self, name: str) -> Any:
        return self._views[name] if name in self._views else self.others[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.shapes
        yield from self.others

    def __len__(self) -> int:
        return len(self.shapes) + len(self.others)

    def zeros_like(self) -> FlatTensors:
        """See `Tensors`; at the same places of another array."""
        return FlatTensors(self.shapes, self.memory)

    def distance(self, names: Sequence[str]) -> int:
        """Elements from one of some tensors to the next; 0 for a single one.

        Raises
        ------
        ShapeError
            If it differs.
        """
        offsets = [self._offsets[name] for name in names]
        found = set(np.diff(offsets).tolist()) or {0}
        if len(found) > 1:
            raise ShapeError(f"the tensors {', '.join(names)} are not equally far apart")
        return found.pop()

    def together(self, names: Sequence[str]) -> Any:
        """Tensors of one shape, equally far apart, as one view with another axis in front."""
        first = self[names[0]]
        strides = (4 * self.distance(names), *first.strides)
        shape = (len(names), *first.shape)
        return self.memory.xp.lib.stride_tricks.as_strided(first, shape=shape, strides=strides)

    def to_host(self) -> dict[str, np.ndarray]:
        """See `Tensors`; by one transfer."""
        flat = self.memory.to_host(self.flat)
        return {name: self._view(flat, name).copy() for name in self.shapes}

    def assign(self, arrays: Mapping[str, np.ndarray]) -> None:
        """See `Tensors`; by one transfer."""
        flat = np.zeros(self.flat.shape, np.float32)
        for name in self.shapes:
            self._view(flat, name)[...] = arrays[name]
        self.memory.replace(self.flat, flat)

    def arranged(self, gradients: Mapping[str, Any]) -> FlatTensors:
        """See `Tensors`; the engine has put them in order."""
        assert isinstance(gradients, FlatTensors)
        return gradients

    def clip(self, max_norm: float) -> Reading:
        """See `Tensors`; sets `factor`, and waits for nothing."""
        return self.memory.clip(self, max_norm)

    def checked(self, gradients: Mapping[str, Any]) -> FlatTensors:
        """See `Tensors`."""
        super().checked(gradients)
        if not isinstance(gradients, FlatTensors) or gradients.flat.shape != self.flat.shape:
            raise ShapeError("the gradients must be those that the network returned")
        return gradients

    def apply_update(
        self, update: Update, gradients: Tensors, slots: Sequence[Tensors], threads: int
    ) -> None:
        """See `Tensors`; all are changed at once, as if they were one tensor."""
        assert isinstance(gradients, FlatTensors)
        flat = [slot.flat for slot in slots if isinstance(slot, FlatTensors)]
        update(self.flat, gradients.flat, *flat, factor=gradients.factor)
