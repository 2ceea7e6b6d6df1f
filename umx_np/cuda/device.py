"""One card: what it is, kernels compiled for it, matrix products, memory, streams."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from ..errors import ConfigError, DeviceError
from .compiling import Defines, options
from .kernel import Kernel
from .products import MATH, gemm

__all__ = ["Device", "Kernel", "get_device"]


class Device:
    """One card; made by `get_device`, one object per card.

    Safe to use from several threads; each has a current stream of its own, as in CuPy.

    Attributes
    ----------
    xp : module
        cupy.
    index : int
    name : str
    compute_capability : tuple of int
    multiprocessors : int
    total_memory : int
        In bytes.
    shared_memory_per_block : int
        Most shared memory of a block, in bytes.
    cuda_version : int
        Of CUDA's runtime, 1000 major + 10 minor.
    """

    def __init__(self, xp: Any, index: int = 0) -> None:
        properties = xp.cuda.runtime.getDeviceProperties(index)
        self.xp = xp
        self.index = index
        self.name = properties["name"].decode(errors="replace")
        self.compute_capability = (int(properties["major"]), int(properties["minor"]))
        self.multiprocessors = int(properties["multiProcessorCount"])
        self.total_memory = int(properties["totalGlobalMem"])
        self.shared_memory_per_block = int(properties["sharedMemPerBlockOptin"])
        self.cuda_version = int(xp.cuda.runtime.runtimeGetVersion())
        self._math = "float32"
        self._kernels: dict[Any, Kernel] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        major, minor = self.compute_capability
        return f"<cuda:{self.index} {self.name}, compute capability {major}.{minor}>"

    def active(self) -> Any:
        """Context in which this card is the current one of the thread; may be nested."""
        return self.xp.cuda.Device(self.index)

    @contextmanager
    def computing(self, what: str, remedy: str) -> Iterator[None]:
        """As `active`; raises `DeviceError` if the memory of the card is too little for `what`."""
        try:
            with self.active():
                yield
        except self.out_of_memory as error:
            raise DeviceError(
                f"{self.name} has too little memory for {what} ({error}); {remedy}"
            ) from error

    def kernel(self, source: str, name: str, *, defines: Defines | None = None) -> Kernel:
        """Compile a kernel for this card, or return it if that was done before.

        Parameters
        ----------
        source : str
            File below ``sources``.
        name : str
            Kernel in that file.
        defines : mapping
            Values of macros. A float becomes a C literal of type double.

        Raises
        ------
        DeviceError
            If it does not compile; with the compiler's messages.
        """
        defines = defines or {}
        key = (source, name, options(defines))
        # Two threads that ask at once wait for one compilation; CuPy keeps the result on disk.
        with self._lock:
            if key not in self._kernels:
                self._kernels[key] = Kernel(self, source, name, defines)
            return self._kernels[key]

    @property
    def math(self) -> str:
        """How `gemm` multiplies: ``'float32'``, ``'tf32'`` or ``'bf16'``.

        Operands keep 23, 10 or 7 bits after the leading one; sums are float32 always.
        """
        return self._math

    @math.setter
    def math(self, value: str) -> None:
        self._math = self.check_math(value)

    def check_math(self, value: str) -> str:
        """Return `value` if this card can multiply like that.

        Raises
        ------
        ConfigError
            If there is no such mode.
        DeviceError
            If this card does not have it.
        """
        if value not in MATH:
            raise ConfigError(f"math={value!r} must be one of {', '.join(map(repr, MATH))}")
        major, minor = MATH[value][1]
        if self.compute_capability < (major, minor):
            raise DeviceError(f"math={value!r} needs compute capability {major}.{minor}: {self!r}")
        return value

    def gemm(
        self,
        a: Any,
        b: Any,
        out: Any,
        *,
        trans_a: bool = False,
        trans_b: bool = False,
        accumulate: bool = False,
        alpha: float = 1.0,
        math: str | None = None,
    ) -> None:
        """Compute ``out = alpha op(a) op(b)``, plus ``out`` if `accumulate`, on the current stream.

        Parameters
        ----------
        a, b, out : device array [shape=(rows, columns) or (batch, rows, columns)], float32
            Rows may be further apart than they are long, their elements not. The matrices of a
            batch may be at any distance, in `a` and `b` also 0; one matrix `a` or `b` is used for
            all of a batch. `out` must not overlap the others, nor itself.
        trans_a, trans_b : bool
            Whether op transposes.
        accumulate : bool
            Whether to add to `out`; otherwise its old values are not read.
        alpha : float
        math : str or None
            As the attribute `math`, for this product only; None takes the attribute.

        Raises
        ------
        ShapeError
            If shapes, layouts or dtypes do not fit.
        """
        math = self._math if math is None else self.check_math(math)
        with self.active():
            gemm(
                self.xp,
                a,
                b,
                out,
                trans_a=trans_a,
                trans_b=trans_b,
                accumulate=accumulate,
                alpha=alpha,
                math=math,
            )

    def stream(self) -> Any:
        """A new stream, which does not wait for others unless told to; use it as a context."""
        with self.active():
            return self.xp.cuda.Stream(non_blocking=True)

    def event(self) -> Any:
        """A mark to set in a stream (``event.record(stream)``) and to wait for."""
        with self.active():
            return self.xp.cuda.Event(disable_timing=True)

    def synchronize(self) -> None:
        """Wait for everything that was started on this card."""
        with self.active():
            self.xp.cuda.runtime.deviceSynchronize()

    def pinned(self, shape: int | Sequence[int], dtype: Any = np.float32) -> np.ndarray:
        """NumPy array in memory of the host that the card reads and writes directly.

        Uninitialised. Copies between it and the card can run beside computation.
        """
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        dtype = np.dtype(dtype)
        count = int(np.prod(shape))
        with self.active():
            memory = self.xp.cuda.alloc_pinned_memory(max(1, count * dtype.itemsize))
        return np.frombuffer(memory, dtype, count).reshape(shape)

    @property
    def out_of_memory(self) -> type[Exception]:
        """What is raised where the card has too little memory."""
        return self.xp.cuda.memory.OutOfMemoryError

    def free_memory(self) -> int:
        """Bytes that can still be allocated: what the card has free and what CuPy's pool keeps."""
        with self.active():
            pool = self.xp.get_default_memory_pool()
            free = int(self.xp.cuda.runtime.memGetInfo()[0]) + int(pool.free_bytes())
            limit = int(pool.get_limit())
            return min(free, limit - int(pool.used_bytes())) if limit else free


_PACKAGES = "'umx-np[cuda12]' or 'umx-np[cuda13]', whichever the driver supports"
_NO_DEVICE = 100  # cudaErrorNoDevice


@cache
def get_device(index: int = 0) -> Device:
    """Return a card.

    Parameters
    ----------
    index : int
        Number of the card, from 0.

    Raises
    ------
    DeviceError
        If there is no such card or what it needs is missing; with the remedy.
    """
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(f"CuPy cannot be imported ({error}); install {_PACKAGES}") from error
    if int(cupy.__version__.split(".")[0]) < 13:
        raise DeviceError(f"CuPy {cupy.__version__} is too old; install {_PACKAGES}")
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        count = 0
        if error.status != _NO_DEVICE:
            raise DeviceError(f"CUDA does not run ({error}); install NVIDIA's driver") from error
    if count == 0:
        raise DeviceError("there is no CUDA device; is CUDA_VISIBLE_DEVICES set?")
    if not 0 <= index < count:
        raise DeviceError(f"index={index} must be less than {count}, the number of CUDA devices")
    try:
        cupy.cuda.nvrtc.getVersion()
        # In this form: CuPy looks for libraries that came as packages when a name is taken out of
        # its own packages, and not when a module is imported by its full name.
        from cupy.cuda import cufft  # noqa: F401
        from cupy_backends.cuda.libs import cublas  # noqa: F401
    except (ImportError, OSError, RuntimeError) as error:
        raise DeviceError(
            f"a library of CUDA is missing ({error}); install the CUDA toolkit, or its packages "
            "with pip install 'cupy-cuda12x[ctk]' or 'cupy-cuda13x[ctk]'"
        ) from error
    device = Device(cupy, index)
    least = (7, 5) if device.cuda_version >= 13000 else (7, 0)
    if device.compute_capability < least:
        raise DeviceError(
            f"{device.name} has compute capability {_dotted(device.compute_capability)}; CUDA "
            f"{device.cuda_version // 1000} needs {_dotted(least)} here, use device='cpu'"
        )
    return device


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
