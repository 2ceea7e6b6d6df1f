"""Launch a compiled kernel on the emulator."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .building import line_of, runtime
from .streams import EmulatorError

# The runtime has one launch at a time.
_lock = threading.RLock()
_MESSAGE_BYTES = 4000

ORDERS = ("ascending", "descending", "shuffled")


class Settings:
    """How launches run; changed by the fixtures of the tests."""

    order: str = "ascending"
    seed: int = 0
    seconds: float = 120.0


@dataclass(frozen=True)
class Parameter:
    """Type of a parameter: kind as in NumPy and bytes, of what is pointed to if it is a pointer."""

    pointer: bool
    reads: bool
    kind: str
    nb_bytes: int

    def __str__(self) -> str:
        return f"{'pointer to ' if self.pointer else ''}{self.kind}{8 * self.nb_bytes}"

    def takes(self, given: Any) -> bool:
        """Whether an argument has this type."""
        if self.pointer and isinstance(given, np.uint64):
            return not given  # a null pointer
        if self.pointer != isinstance(given, np.ndarray) or not hasattr(given, "dtype"):
            return False
        kind, nb_bytes = given.dtype.kind, given.dtype.itemsize
        if (kind, nb_bytes) == (self.kind, self.nb_bytes):
            return True
        # A complex array is read as pairs of floats, a vector type stands for several numbers.
        return self.pointer and (
            self.kind == "v"
            or (kind + self.kind == "cf" and nb_bytes == 2 * self.nb_bytes)
            or (kind + self.kind == "fc" and 2 * nb_bytes == self.nb_bytes)
        )


class _Parameter(ctypes.Structure):
    _fields_ = (("pointer", ctypes.c_char), ("kind", ctypes.c_char), ("nb_bytes", ctypes.c_short))


class _Launch(ctypes.Structure):
    _fields_ = (
        ("call", ctypes.c_void_p),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("together", ctypes.c_int),
        ("order", ctypes.c_int),
        ("seed", ctypes.c_ulonglong),
        ("seconds", ctypes.c_double),
    )


def parameters(library: ctypes.CDLL, name: str) -> list[Parameter]:
    """Parameters of a kernel."""
    described = (_Parameter * 64)()
    count = library[f"umx_describe_{name}"](described)
    return [
        Parameter(p.pointer != b"\0", p.pointer == b"\2", p.kind.decode(), p.nb_bytes)
        for p in described[:count]
    ]


def check_arguments(name: str, given: Sequence[Any], wanted: Sequence[Parameter]) -> None:
    """Compare arguments with the types in the source, which a card takes on trust."""
    if len(given) != len(wanted):
        raise EmulatorError(f"kernel={name}: {len(given)} arguments for {len(wanted)} parameters")
    for index, (value, parameter) in enumerate(zip(given, wanted, strict=True)):
        if not parameter.takes(value):
            kind = f"{type(value).__name__} {getattr(value, 'dtype', '')}".strip()
            raise EmulatorError(f"kernel={name}: argument {index} is {kind}, not {parameter}")


def launch(
    library: ctypes.CDLL,
    name: str,
    grid: Sequence[int],
    block: Sequence[int],
    arguments: Sequence[Any],
    *,
    shared_bytes: int = 0,
    together: bool = False,
) -> None:
    """Run a kernel to its end, with arguments that `check_arguments` has passed.

    Raises
    ------
    EmulatorError
        If the kernel does something that is not allowed.
    """
    cells = [
        np.array([value.ctypes.data], np.uint64)
        if isinstance(value, np.ndarray)
        else np.array([value])
        for value in arguments
    ]
    what = _Launch(
        call=ctypes.cast(library[f"umx_call_{name}"], ctypes.c_void_p).value,
        arguments=(ctypes.c_void_p * (len(cells) + 1))(*(cell.ctypes.data for cell in cells)),
        grid=(ctypes.c_uint * 3)(*grid),
        block=(ctypes.c_uint * 3)(*block),
        shared_bytes=shared_bytes,
        together=together,
        order=ORDERS.index(Settings.order),
        seed=Settings.seed,
        seconds=Settings.seconds,
    )
    message = ctypes.create_string_buffer(_MESSAGE_BYTES)
    with _lock:
        failed = runtime().umx_launch(ctypes.byref(what), message, ctypes.c_size_t(_MESSAGE_BYTES))
    if failed:
        text, *place = message.value.decode(errors="replace").split("\1")
        if place and (line := line_of(*place)):
            text += f", at {line}"
        raise EmulatorError(f"kernel={name} order={Settings.order} seed={Settings.seed}: {text}")


def allocate(nb_bytes: int) -> int:
    """Address of guarded memory."""
    library = runtime()
    library.umx_allocate.restype = ctypes.c_void_p
    with _lock:
        return library.umx_allocate(ctypes.c_size_t(nb_bytes))


def release(first: int) -> None:
    """Give guarded memory back."""
    with _lock:
        runtime().umx_free(ctypes.c_void_p(first))
