"""Where the tensors of a training live: the contract, and arrays of NumPy.

A device with memory of its own keeps them there: see `umx_np.cuda.tensors`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from .._support.threads import parallel_map
from ..errors import ShapeError

# A step of an optimiser on a tensor, its gradient, and what it keeps of them.
Update: TypeAlias = Callable[..., None]

# Elements that are updated at a time: the temporaries of a part stay in the cache.
_PART = 2**15


def parts(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Walk contiguous arrays of the same shape in parts whose temporaries stay in the cache."""
    flat = [array.reshape(-1) for array in arrays]
    for start in range(0, flat[0].size, _PART):
        yield tuple(array[start : start + _PART] for array in flat)


class Reading(Protocol):
    """A number that may still be computed."""

    def value(self) -> float:
        """Wait for it."""


class Known(NamedTuple):
    """A number that is computed already."""

    number: float

    def value(self) -> float:
        """Return it."""
        return self.number


class TensorMemory(Protocol):
    """Memory to keep tensors in."""

    @property
    def name(self) -> str:
        """Where it is, for comparisons and messages."""

    def place(self, arrays: Mapping[str, np.ndarray]) -> Tensors:
        """Copy arrays to this memory."""

    def asarray(self, array: Any, dtype: np.dtype) -> Any:
        """Return an array as a contiguous one of this memory, which may be `array` itself."""


class Tensors(Mapping[str, Any]):
    """Named tensors in one memory: parameters, their gradients, or the state of an optimiser."""

    memory: TensorMemory
    factor: Any = None
    """Of gradients on a device: what they are multiplied with when used, not at all if NaN."""

    @abstractmethod
    def zeros_like(self) -> Tensors:
        """Return zeros of the same names, shapes and dtypes in the same memory."""

    @abstractmethod
    def to_host(self) -> dict[str, np.ndarray]:
        """Return copies as arrays of NumPy."""

    @abstractmethod
    def assign(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Take other values in place; arrays that are not named here are not looked at."""

    @abstractmethod
    def arranged(self, gradients: Mapping[str, Any]) -> Tensors:
        """Return gradients of these tensors in their order, others behind them."""

    @abstractmethod
    def clip(self, max_norm: float) -> Reading:
        """Scale all together so that their norm is at most `max_norm`; read the norm before."""

    @abstractmethod
    def apply_update(
        self, update: Update, gradients: Tensors, slots: Sequence[Tensors], threads: int
    ) -> None:
        """Change all tensors by ``update(tensor, gradient, *slots)``; see `checked`."""

    def checked(self, gradients: Mapping[str, Any]) -> Tensors:
        """Return gradients for `apply_update`; raise `ShapeError` if one is missing or unfit."""
        for name, tensor in self.items():
            if name not in gradients or gradients[name].shape != tensor.shape:
                shape = gradients[name].shape if name in gradients else None
                raise ShapeError(
                    f"the gradient of {name!r} has shape={shape} instead of {tensor.shape}"
                )
        return as_tensors(gradients)


class HostMemory:
    """Memory of NumPy; see `TensorMemory`."""

    name = "the processor"

    def place(self, arrays: Mapping[str, np.ndarray]) -> HostTensors:
        """See `TensorMemory`."""
        return HostTensors({name: np.array(array, order="C") for name, array in arrays.items()})

    def asarray(self, array: Any, dtype: np.dtype) -> np.ndarray:
        """See `TensorMemory`."""
        return np.ascontiguousarray(array, dtype=dtype)


class HostTensors(dict[str, np.ndarray], Tensors):
    """Arrays of NumPy; see `Tensors`."""

    memory = HostMemory()

    def zeros_like(self) -> HostTensors:
        """See `Tensors`."""
        return HostTensors({name: np.zeros_like(array) for name, array in self.items()})

    def to_host(self) -> dict[str, np.ndarray]:
        """See `Tensors`."""
        return {name: array.copy() for name, array in self.items()}

    def assign(self, arrays: Mapping[str, np.ndarray]) -> None:
        """See `Tensors`."""
        for name, array in self.items():
            array[...] = arrays[name]

    def arranged(self, gradients: Mapping[str, np.ndarray]) -> HostTensors:
        """See `Tensors`."""
        return HostTensors({**{name: gradients[name] for name in self}, **gradients})

    def clip(self, max_norm: float) -> Known:
        """See `Tensors`."""
        total = 0.0
        for array in self.values():
            for (part,) in parts(np.ascontiguousarray(array)):
                total += float(np.einsum("i,i->", part, part))
        norm = math.sqrt(total)
        share = max_norm / (norm + 1e-6)
        if not share >= 1.0:
            for array in self.values():
                array *= array.dtype.type(share)
        return Known(norm)

    def apply_update(
        self, update: Update, gradients: Tensors, slots: Sequence[Tensors], threads: int
    ) -> None:
        """See `Tensors`."""
        # Each tensor belongs to one thread; the large ones are dealt out first.
        names = sorted(self, key=lambda name: -self[name].size)
        errors = np.geterr()  # the caller's; each thread has its own

        def update_one(name: str) -> None:
            with np.errstate(**errors):
                update(self[name], gradients[name], *(slot[name] for slot in slots))

        parallel_map(threads, update_one, names)


def as_tensors(arrays: Mapping[str, Any]) -> Tensors:
    """Return tensors as they are, and other mappings as those of NumPy, sharing the arrays."""
    return arrays if isinstance(arrays, Tensors) else HostTensors(arrays)
