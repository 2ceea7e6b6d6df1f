"""Launch a compiled kernel on the emulator."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from .building import line_of, runtime

lock = threading.RLock()

ORDERS = ("ascending", "descending", "shuffled")


class EmulatorError(Exception):
    """A kernel did what it must not do; the message says which threads, and what."""


class Settings:
    """How launches run; changed by the fixtures of the tests."""

    order: str = "ascending"
    seed: int = 0
    seconds: float = 120.0


class _Parameter(ctypes.Structure):
    _fields_ = (("pointer", ctypes.c_char), ("kind", ctypes.c_char), ("bytes", ctypes.c_short))


class _Launch(ctypes.Structure):
    _fields_ = (
        ("call", ctypes.c_void_p),
        ("arguments", ctypes.POINTER(ctypes.c_void_p)),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("cluster", ctypes.c_uint),
        ("together", ctypes.c_int),
        ("order", ctypes.c_int),
        ("seed", ctypes.c_ulonglong),
        ("seconds", ctypes.c_double),
    )


def parameters(library: ctypes.CDLL, name: str) -> list[tuple[int, str, int]]:
    """Types of a kernel's parameters, see ``Parameter`` in cuda.h."""
    described = (_Parameter * 64)()
    count = library[f"umx_describe_{name}"](described)
    return [(ord(p.pointer), p.kind.decode(), p.bytes) for p in described[:count]]


def _check(name: str, index: int, given: Any, wanted: tuple[int, str, int]) -> None:
    pointer, kind, size = wanted
    spelled = f"{'pointer to ' if pointer else ''}{kind}{size * 8}"
    if given is None:
        fits = bool(pointer)
    elif not pointer:
        fits = isinstance(given, np.generic) and (given.dtype.kind, given.itemsize) == (kind, size)
    elif not isinstance(given, np.ndarray):
        fits = False
    else:
        dtype = given.dtype
        # A complex array is read as pairs of floats, a vector type stands for several numbers.
        fits = (
            kind == "v"
            or (dtype.kind, dtype.itemsize) == (kind, size)
            or (dtype.kind == "c" and kind == "f" and dtype.itemsize == 2 * size)
            or (dtype.kind == "f" and kind == "c" and 2 * dtype.itemsize == size)
        )
    if not fits:
        seen = f"{type(given).__name__} {getattr(given, 'dtype', '')}"
        raise EmulatorError(f"kernel={name}: argument {index} is {seen}, not {spelled}")


def launch(
    library: ctypes.CDLL,
    name: str,
    grid: Sequence[int],
    block: Sequence[int],
    arguments: Sequence[Any],
    *,
    shared_bytes: int = 0,
    cluster: int = 1,
    together: bool = False,
) -> None:
    """Run a kernel to its end.

    Raises
    ------
    EmulatorError
        If the arguments do not fit, or the kernel does something that is not allowed.
    """
    wanted = parameters(library, name)
    if len(arguments) != len(wanted):
        raise EmulatorError(
            f"kernel={name}: {len(arguments)} arguments for {len(wanted)} parameters"
        )
    cells = []
    for index, (given, parameter) in enumerate(zip(arguments, wanted, strict=True)):
        _check(name, index, given, parameter)
        if parameter[0]:
            cells.append(np.array([0 if given is None else given.ctypes.data], np.uint64))
        else:
            cells.append(np.array([given]))
    pointers = (ctypes.c_void_p * max(1, len(cells)))(*(cell.ctypes.data for cell in cells))
    what = _Launch(
        call=ctypes.cast(library[f"umx_call_{name}"], ctypes.c_void_p).value,
        arguments=pointers,
        grid=(ctypes.c_uint * 3)(*grid),
        block=(ctypes.c_uint * 3)(*block),
        shared_bytes=shared_bytes,
        cluster=cluster,
        together=together,
        order=ORDERS.index(Settings.order),
        seed=Settings.seed,
        seconds=Settings.seconds,
    )
    message = ctypes.create_string_buffer(4000)
    with lock:
        failed = runtime().umx_launch(ctypes.byref(what), message, ctypes.c_size_t(4000))
    if failed:
        text, *place = message.value.decode(errors="replace").split("\1")
        if place and (line := line_of(*place)):
            text += f", at {line}"
        raise EmulatorError(f"kernel={name} order={Settings.order} seed={Settings.seed}: {text}")


def allocate(nb_bytes: int) -> int:
    """Address of guarded memory."""
    library = runtime()
    library.umx_allocate.restype = ctypes.c_void_p
    with lock:
        return library.umx_allocate(ctypes.c_size_t(nb_bytes))


def release(first: int) -> None:
    """Give guarded memory back."""
    with lock:
        runtime().umx_free(ctypes.c_void_p(first))
