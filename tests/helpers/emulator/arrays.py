"""Arrays of the device: NumPy arrays of a class of their own, in guarded and watched memory.

Mixing them with arrays of the host is refused, as CuPy does. Fresh memory is full of NaN and ends
at a page that cannot be touched.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import launching, streams
from .streams import EmulatorError, Stream, Use, operate


class OutOfMemoryError(MemoryError):
    """The limit of the pool is reached."""


class MemoryPool:
    """As in CuPy; counts, and keeps nothing."""

    total = 8 << 30

    def __init__(self) -> None:
        self._used = 0
        self._limit = 0

    def reserve(self, nb_bytes: int) -> None:
        if self._used + nb_bytes > (self._limit or self.total):
            raise OutOfMemoryError(f"Out of memory allocating {nb_bytes} bytes")
        self._used += nb_bytes

    def release(self, nb_bytes: int) -> None:
        self._used -= nb_bytes

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        self._limit = int(self.total * fraction) if fraction is not None else int(size or 0)

    def get_limit(self) -> int:
        return self._limit

    def used_bytes(self) -> int:
        return self._used

    def free_bytes(self) -> int:
        return 0

    def total_bytes(self) -> int:
        return self._used

    def free_all_blocks(self) -> None:
        pass


pool = MemoryPool()
_allocations: weakref.WeakValueDictionary[int, _Memory] = weakref.WeakValueDictionary()
# First and last address of memory of the host that the card copies from later.
_pinned: set[tuple[int, int]] = set()


class _Memory:
    """Guarded memory; NumPy keeps this object alive as long as an array shows it."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        nb_bytes = int(np.prod(shape)) * dtype.itemsize
        pool.reserve(nb_bytes)
        stream = streams.allocated(nb_bytes)
        self.first = launching.allocate(nb_bytes)
        self.use = Use(nb_bytes)
        self.__array_interface__ = {
            "data": (self.first, False),
            "shape": shape,
            "typestr": dtype.str,
            "version": 3,
        }
        _allocations[self.first] = self
        weakref.finalize(self, _free, self.first, self.use, stream)


def _free(first: int, use: Use, stream: int) -> None:
    launching.release(first)
    pool.release(use.nb_bytes)
    streams.freed(use, stream)


def use_at(address: int) -> Use | None:
    """The allocation that an address belongs to."""
    # A list made at once: other threads allocate meanwhile.
    for reference in _allocations.valuerefs():
        memory = reference()
        if memory is not None and 0 <= address - memory.first < max(1, memory.use.nb_bytes):
            return memory.use
    return None


def use_of(value: Any) -> Use | None:
    """The allocation of an array; None for what is no array of the device."""
    if not isinstance(value, ndarray):
        return None
    base: Any = value
    while base is not None and not isinstance(base, _Memory):
        base = getattr(base, "base", None)
    return base.use if base is not None else None


class _Pointer:
    def __init__(self, pointer: int) -> None:
        self.ptr = pointer


class ndarray(np.ndarray):  # noqa: N801
    """An array of the device."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        return _Pointer(self.ctypes.data)

    def get(
        self,
        stream: Stream | None = None,
        order: str = "C",
        out: np.ndarray | None = None,
        blocking: bool = True,
    ) -> np.ndarray:
        stream = stream or streams.current()
        values = np.array(plain(self), order="C")
        if out is None:
            out = np.empty_like(values)
        if out.dtype != self.dtype or out.shape != self.shape or not out.flags.c_contiguous:
            raise ValueError("out must be contiguous and have the shape and dtype of the array")
        target = out
        target.view(np.uint8).fill(0xFF) if target.ndim else target.fill(0)

        def arrive() -> None:
            target[...] = values

        operate("get", [use_of(self)], stream=stream, later=arrive)
        if blocking:
            stream.synchronize()
        return out

    def set(self, arr: np.ndarray, stream: Stream | None = None) -> None:
        if type(arr) is not np.ndarray or arr.dtype != self.dtype or arr.shape != self.shape:
            raise ValueError("set needs a NumPy array of the same shape and dtype")
        if not self.flags.c_contiguous:
            raise RuntimeError("Cannot set to non-contiguous array")
        plain(self)[...] = arr
        operate("set", (), [use_of(self)], stream, _unchanged(arr))

    def fill(self, value: Any) -> None:
        operate("fill", (), [use_of(self)])
        plain(self).fill(value)

    def copy(self, order: str = "C") -> ndarray:  # type: ignore[override]
        return array(self)

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:  # type: ignore[override]
        return array(self, dtype)

    def item(self, *index: int) -> Any:  # type: ignore[override]
        return self.get().item(*index)

    def __float__(self) -> float:
        return float(self.get())

    def __int__(self) -> int:
        return int(self.get())

    def __bool__(self) -> bool:
        return bool(self.get())

    def __setitem__(self, key: Any, value: Any) -> None:
        _refuse_host(value)
        operate("assignment", [use_of(value)], [use_of(self)])
        super().__setitem__(key, value)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", ())
        for value in (*inputs, *out):
            _refuse_host(value)
        operate(ufunc.__name__, map(use_of, inputs), map(use_of, out))
        if out:
            kwargs["out"] = tuple(plain(value) for value in out)
        result = getattr(ufunc, method)(*map(plain, inputs), **kwargs)
        return out[0] if out else on_device(result)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} of an array of the device; take xp's")


def _refuse_host(value: Any) -> None:
    if isinstance(value, np.ndarray) and not isinstance(value, ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")


def plain(value: Any) -> Any:
    """The NumPy array of an array of the device; anything else as it is."""
    return value.view(np.ndarray) if isinstance(value, ndarray) else value


def on_device(value: Any) -> Any:
    """An array of the device of what NumPy has computed from such arrays; views stay views."""
    if isinstance(value, (list, tuple)):
        return type(value)(on_device(item) for item in value)
    if isinstance(value, np.generic):
        return array(value)
    if not isinstance(value, np.ndarray):
        return value
    view = value.view(ndarray)
    return array(value) if use_of(view) is None else view


def _unchanged(host: np.ndarray) -> Callable[[], None] | None:
    """A check, for later, that the host has left alone what it gave to be copied."""
    address = host.ctypes.data
    if not any(first <= address < last for first, last in _pinned):
        return None  # copied before `set` returns
    before = host.copy()

    def check() -> None:
        if host.tobytes() != before.tobytes():
            raise EmulatorError("pinned memory was changed while the card may still copy from it")

    return check


class PinnedMemory(bytearray):
    """Memory of the host for fast copies, uninitialised."""

    def __init__(self, size: int) -> None:
        super().__init__(b"\xff" * size)
        first = ctypes.addressof(ctypes.c_char.from_buffer(self))
        _pinned.add((first, first + size))
        weakref.finalize(self, _pinned.discard, (first, first + size))


def _shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    return (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(map(int, shape))


def empty(shape: int | Sequence[int], dtype: Any = np.float64) -> ndarray:
    return np.asarray(_Memory(_shape(shape), np.dtype(dtype))).view(ndarray)


def zeros(shape: int | Sequence[int], dtype: Any = np.float64) -> ndarray:
    made = empty(shape, dtype)
    made.fill(0)
    return made


def ones(shape: int | Sequence[int], dtype: Any = np.float64) -> ndarray:
    made = empty(shape, dtype)
    made.fill(1)
    return made


def empty_like(prototype: ndarray, dtype: Any = None) -> ndarray:
    return empty(prototype.shape, dtype or prototype.dtype)


def array(source: Any, dtype: Any = None, copy: bool = True) -> ndarray:
    values = np.asarray(plain(source), dtype)
    made = empty(values.shape, values.dtype)
    operate("array", [use_of(source)], [use_of(made)])
    plain(made)[...] = values
    return made


def asarray(source: Any, dtype: Any = None, blocking: bool = False) -> ndarray:
    if isinstance(source, ndarray) and (dtype is None or source.dtype == dtype):
        return source
    return array(source, dtype)


def ascontiguousarray(source: Any, dtype: Any = None) -> ndarray:
    made = asarray(source, dtype)
    return made if made.flags.c_contiguous else array(made)


def asnumpy(
    source: Any, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True
) -> np.ndarray:
    if isinstance(source, ndarray):
        return source.get(stream, order, out, blocking)
    return np.asarray(source)


def forward(function: Any) -> Any:
    """The function of NumPy, on arrays of the device."""

    def forwarded(*args: Any, **kwargs: Any) -> Any:
        used: list[Any] = []

        def take(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return type(value)(take(item) for item in value)
            _refuse_host(value)
            used.append(use_of(value))
            return plain(value)

        out = kwargs.pop("out", None)
        args, kwargs = tuple(map(take, args)), {name: take(v) for name, v in kwargs.items()}
        operate(function.__name__, used, [use_of(out)])
        if out is None:
            return on_device(function(*args, **kwargs))
        function(*args, **kwargs, out=plain(out))
        return out

    return forwarded
