"""Where the tensors of a training live: arrays of NumPy, or one array on a device with views of it.

Hundreds of launches a step would cost a graphics card more time than it computes. One array with
all parameters, and others like it with their gradients and what an optimiser keeps of them, are
changed by one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from ..errors import ShapeError

# Every tensor begins at a multiple of so many elements: 256 bytes, as if it were on its own.
_ALIGNMENT = 64


class TensorMemory(Protocol):
    """Memory to keep tensors in."""

    def place(self, arrays: Mapping[str, np.ndarray]) -> Mapping[str, Any]:
        """Copy arrays to this memory."""
        ...

    def asarray(self, array: Any, dtype: np.dtype) -> Any:
        """Return an array as a contiguous one of this memory, which may be `array` itself."""
        ...

    def to_host(self, array: Any) -> np.ndarray:
        """Copy an array of this memory."""
        ...

    def replace(self, array: Any, values: np.ndarray) -> None:
        """Put other values of the same shape into an array of this memory."""
        ...


class HostMemory:
    """That of NumPy."""

    def place(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """See `TensorMemory`."""
        return {name: np.array(array, order="C") for name, array in arrays.items()}

    def asarray(self, array: Any, dtype: np.dtype) -> np.ndarray:
        """See `TensorMemory`."""
        return np.ascontiguousarray(array, dtype=dtype)

    def to_host(self, array: np.ndarray) -> np.ndarray:
        """See `TensorMemory`."""
        return array.copy()

    def replace(self, array: np.ndarray, values: np.ndarray) -> None:
        """See `TensorMemory`."""
        array[...] = values


def fetch(tensors: Mapping[str, Any], memory: TensorMemory) -> dict[str, np.ndarray]:
    """Copy tensors to NumPy."""
    if isinstance(tensors, FlatTensors):
        return tensors.to_host()
    return {name: memory.to_host(array) for name, array in tensors.items()}


class Reading(Protocol):
    """A number that a device is computing."""

    def value(self) -> float:
        """Wait for it."""
        ...


class FlatMemory(TensorMemory, Protocol):
    """Memory of a device."""

    xp: Any

    def zeros(self, count: int) -> Any:
        """Make an array of float32 zeros."""
        ...

    def clip(self, grads: FlatTensors, max_norm: float) -> Reading:
        """Set the factor of gradients such that their norm is at most `max_norm`; read the norm."""
        ...


class FlatTensors(Mapping[str, Any]):
    """Named float32 tensors in one array of a device: a mapping to views of it.

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
        self.memory = memory
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

    def like(self) -> FlatTensors:
        """Zeros of the same names and shapes, at the same places of another array."""
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
        """Copies of the tensors as arrays of NumPy, by one transfer."""
        flat = self.memory.to_host(self.flat)
        return {name: self._view(flat, name).copy() for name in self.shapes}

    def assign(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take other values, by one transfer; arrays that are not named here are not looked at."""
        flat = np.zeros(self.flat.shape, np.float32)
        for name in self.shapes:
            self._view(flat, name)[...] = arrays[name]
        self.memory.replace(self.flat, flat)
