"""How kernels are compiled: for named types, at a named time, cached where that is possible."""

from __future__ import annotations

import logging
import signal
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, wraps
from pathlib import Path
from threading import RLock
from types import FrameType
from typing import Any, TypeVar

import llvmlite.binding
import numba
import numpy as np

logger = logging.getLogger(__name__)

Made = TypeVar("Made")
# Preparing one thing may need another one.
_lock = RLock()

# Sums may be reordered into lanes and fused with products; NaN and infinity keep their meaning.
_FASTMATH = frozenset({"reassoc", "contract", "nsz", "arcp"})


@lru_cache(maxsize=1)
def build_number() -> int:
    """Checksum of the sources of all kernels.

    Numba's cache notices a change of the file a kernel stands in but not of the functions that the
    kernel calls. It does look at the constants of a kernel's closure, and this is one of them.
    """
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return zlib.crc32(b"".join(source.read_bytes() for source in sources))


def compiled(kernel: Callable, signatures: Sequence[Any], *, fastmath: bool = True) -> Any:
    """Compile a kernel now, for some signatures.

    Parameters
    ----------
    kernel : callable
        Python function that Numba can compile; it runs without the GIL.
    signatures : sequence
        Types of the arguments; calls with others fail.
    fastmath : bool
        Whether sums may be reordered.

    Returns
    -------
    callable

    Notes
    -----
    The result is kept on disk, beside the source or where Numba finds a place. Where there is none,
    in a read-only container for instance, the kernel is compiled again in every process.
    """
    options: dict[str, Any] = {
        "nogil": True,
        "error_model": "numpy",
        "fastmath": set(_FASTMATH) if fastmath else False,
    }
    kernel.__qualname__ = _name_of_variant(kernel, signatures)
    with _interrupted_afterwards():
        try:
            return numba.njit(list(signatures), cache=True, **options)(kernel)
        except (RuntimeError, OSError) as error:
            # Numba raises a bare RuntimeError if it finds no place, OSError if that place is full.
            if isinstance(error, RuntimeError) and "cannot cache" not in str(error):
                raise
            logger.warning("kernel=%s cannot be cached on disk: %s", kernel.__name__, error)
            return numba.njit(list(signatures), **options)(kernel)


def inlined(function: Callable) -> Any:
    """Let Numba write a function of a module into the kernels that call it.

    The function sees the constants of the kernel as such, and the kernel's cache knows it by
    `build_number`.
    """
    return numba.njit(inline="always")(function)


@contextmanager
def _interrupted_afterwards() -> Iterator[None]:
    """Hold back signals that Python code answers until a kernel is compiled.

    An exception out of nowhere is lost in LLVM's calls back into Python, which print it and go on,
    or leaves Numba's own state half changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # where no signals are answered
        return
    received: list[tuple[int, FrameType | None]] = []

    def hold(number: int, frame: FrameType | None) -> None:
        received.append((number, frame))

    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
    for kind in (signal.SIGINT, signal.SIGTERM):
        before = signal.getsignal(kind)
        if callable(before):
            handlers[kind] = before
            signal.signal(kind, hold)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number, frame in received:
            handlers[number](number, frame)


def _name_of_variant(kernel: Callable, signatures: Sequence[Any]) -> str:
    """Name by which Numba's cache keeps this variant of a kernel apart from all others.

    Variants of one name share an index on disk, which processes change without a lock: two that
    compile different ones at the same time can leave an index that has one for the other.
    """
    cells = zip(kernel.__code__.co_freevars, kernel.__closure__ or (), strict=True)
    closure = {name: cell.cell_contents for name, cell in cells}
    for name, value in closure.items():
        # Functions of Numba get a new identity in every process: the kernel would never be found.
        if not isinstance(value, int):
            raise TypeError(f"kernel={kernel.__name__} closes over {name}={value!r}, not a number")
    # The build is left out: what an older one has left in an index is replaced.
    numbers = {name: value for name, value in closure.items() if name != "build"}
    variant = repr((sorted(numbers.items()), [str(types) for types in signatures]))
    return f"{kernel.__name__}_{zlib.crc32(variant.encode()):08x}"


def once(make: Callable[..., Made]) -> Callable[..., Made]:
    """Call a function once for each set of arguments, also where several threads ask for it."""
    cached = lru_cache(maxsize=None)(make)

    @wraps(make)
    def locked(*arguments: Any) -> Made:
        with _lock:
            return cached(*arguments)

    return locked


@lru_cache(maxsize=1)
def vector_registers() -> tuple[int, int]:
    """Number of vector registers of this processor and the bytes in one of them."""
    features = llvmlite.binding.get_host_cpu_features()
    if features.get("avx512f"):
        return 32, 64
    if features.get("avx2") or features.get("avx"):
        return 16, 32
    return (16, 16) if "sse2" in features else (32, 16)


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Uninitialised array that begins at a cache line, so that vectors do not straddle two."""
    dtype = np.dtype(dtype)
    nb_bytes = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(nb_bytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + nb_bytes].view(dtype).reshape(shape)
