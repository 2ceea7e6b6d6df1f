"""As much of CuPy as the package uses, over NumPy.

Arrays are NumPy arrays of a class of their own, so that mixing them with arrays of the host, which
CuPy refuses, is refused here too. Fresh memory is full of NaN and ends at a page that cannot be
touched.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Sequence
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from . import cublas_standin, launching
from .building import BuildError, build_kernels

SHARED_MEMORY_PER_BLOCK = 232448
MULTIPROCESSORS = 6


class _Pointer:
    def __init__(self, pointer: int) -> None:
        self.ptr = pointer


class ndarray(np.ndarray):  # noqa: N801
    """An array of the device."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        return _Pointer(self.ctypes.data)

    def get(
        self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True
    ) -> np.ndarray:
        if out is None:
            return np.array(self.view(np.ndarray), order="C")
        if out.dtype != self.dtype or out.shape != self.shape:
            raise ValueError("out has another shape or dtype")
        out[...] = self.view(np.ndarray)
        return out

    def set(self, arr: np.ndarray, stream: Any = None) -> None:
        if type(arr) is not np.ndarray or arr.dtype != self.dtype or arr.shape != self.shape:
            raise ValueError("set needs a NumPy array of the same shape and dtype")
        self.view(np.ndarray)[...] = arr

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        for value in (*inputs, *kwargs.get("out", ())):
            _refuse_host(value)
        plain = [_plain(value) for value in inputs]
        if "out" in kwargs:
            kwargs["out"] = tuple(_plain(value) for value in kwargs["out"])
        result = getattr(ufunc, method)(*plain, **kwargs)
        if "out" in kwargs:
            return inputs[0] if method == "at" else _device(kwargs["out"][0])
        return _device(result)

    def __setitem__(self, key: Any, value: Any) -> None:
        _refuse_host(value)
        super().__setitem__(key, value)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        result = super().__array_function__(function, types, args, kwargs)
        return _device(result)


def _refuse_host(value: Any) -> None:
    if isinstance(value, np.ndarray) and not isinstance(value, ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")


def _plain(value: Any) -> Any:
    return value.view(np.ndarray) if isinstance(value, ndarray) else value


def _device(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_device(item) for item in value)
    return np.asarray(value).view(ndarray) if isinstance(value, (np.ndarray, np.generic)) else value


class _Memory:
    """Guarded memory; NumPy keeps this object alive as long as an array shows it."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        nb_bytes = int(np.prod(shape)) * dtype.itemsize
        first = launching.allocate(nb_bytes)
        self.__array_interface__ = {
            "data": (first, False),
            "shape": shape,
            "typestr": dtype.str,
            "version": 3,
        }
        weakref.finalize(self, launching.release, first)


def _shape(shape: int | Sequence[int]) -> tuple[int, ...]:
    return (int(shape),) if np.ndim(shape) == 0 else tuple(int(n) for n in shape)  # type: ignore


def empty(shape: int | Sequence[int], dtype: Any = np.float64) -> ndarray:
    return np.asarray(_Memory(_shape(shape), np.dtype(dtype))).view(ndarray)


def full(shape: int | Sequence[int], value: Any, dtype: Any = np.float64) -> ndarray:
    array = empty(shape, dtype)
    array.fill(value)
    return array


def zeros(shape: int | Sequence[int], dtype: Any = np.float64) -> ndarray:
    return full(shape, 0, dtype)


def ones(shape: int | Sequence[int], dtype: Any = np.float64) -> ndarray:
    return full(shape, 1, dtype)


def empty_like(array: ndarray, dtype: Any = None) -> ndarray:
    return empty(array.shape, dtype or array.dtype)


def zeros_like(array: ndarray, dtype: Any = None) -> ndarray:
    return zeros(array.shape, dtype or array.dtype)


def array(source: Any, dtype: Any = None, copy: bool = True) -> ndarray:
    plain = np.asarray(_plain(source), dtype)
    made = empty(plain.shape, plain.dtype)
    made.view(np.ndarray)[...] = plain
    return made


def asarray(source: Any, dtype: Any = None, blocking: bool = False) -> ndarray:
    if isinstance(source, ndarray) and (dtype is None or source.dtype == dtype):
        return source
    return array(source, dtype)


def ascontiguousarray(source: Any, dtype: Any = None) -> ndarray:
    made = asarray(source, dtype)
    return made if made.flags.c_contiguous else array(made)


def asnumpy(source: Any, stream: Any = None, out: Any = None, blocking: bool = True) -> np.ndarray:
    return source.get(out=out) if isinstance(source, ndarray) else np.asarray(source)


def _forward(function: Any) -> Any:
    def forwarded(*args: Any, **kwargs: Any) -> Any:
        def check(value: Any) -> Any:
            if isinstance(value, (list, tuple)):
                return type(value)(check(item) for item in value)
            _refuse_host(value)
            return _plain(value)

        out = kwargs.get("out")
        result = function(*map(check, args), **{k: check(v) for k, v in kwargs.items()})
        if out is not None:
            return out
        return _device(result)

    return forwarded


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_FORWARDED = _words(
    "abs absolute add angle arange argmax broadcast_to clip concatenate conj conjugate cos cumsum "
    "divide dot einsum equal exp expand_dims fabs flip hypot imag isfinite isnan log log10 "
    "logaddexp matmul maximum mean minimum moveaxis multiply negative pad power real reciprocal "
    "repeat reshape roll rollaxis sign sin split sqrt square squeeze stack subtract sum "
    "swapaxes take tanh tensordot tile transpose tril triu where count_nonzero array_equal "
    "allclose ravel may_share_memory shares_memory any all max min"
)
_SAME = _words(
    "float16 float32 float64 complex64 complex128 int8 int16 int32 int64 uint8 uint16 uint32 "
    "uint64 bool_ dtype newaxis pi inf nan"
)


def __getattr__(name: str) -> Any:
    if name in _FORWARDED:
        return _forward(getattr(np, name))
    if name in _SAME:
        return getattr(np, name)
    raise AttributeError(f"the stand-in for CuPy has no {name!r}; does the package need it?")


lib = SimpleNamespace(
    stride_tricks=SimpleNamespace(as_strided=_forward(np.lib.stride_tricks.as_strided))
)
fft = SimpleNamespace(
    **{name: _forward(getattr(np.fft, name)) for name in ("rfft", "irfft", "fft", "ifft")}
)


class Function:
    """A kernel as it is launched."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self.name = name
        self.library = library
        self.cluster = library[f"umx_cluster_{name}"]()
        self.threads = library[f"umx_threads_{name}"]()
        self.shared = 48 * 1024
        self.ptr = id(self)

    def __call__(
        self,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        args: tuple[Any, ...],
        shared_mem: int = 0,
        stream: Any = None,
        enable_cooperative_groups: bool = False,
    ) -> None:
        grid, block = (*grid, 1, 1)[:3], (*block, 1, 1)[:3]
        blocks, threads = int(np.prod(grid)), int(np.prod(block))
        if (
            shared_mem > self.shared
            or not 1 <= threads <= self.threads
            or blocks < 1
            or max(grid[1:]) > 65535
            or block[2] > 64
            or grid[0] % self.cluster
        ):
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        resident = MULTIPROCESSORS * _active_blocks(threads, shared_mem)
        if enable_cooperative_groups and blocks > resident:
            raise CUDADriverError(
                "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE: too many blocks in cooperative launch"
            )
        launching.launch(
            self.library,
            self.name,
            grid,
            block,
            args,
            shared_bytes=shared_mem,
            cluster=self.cluster,
            together=enable_cooperative_groups,
        )


class RawKernel:
    """A kernel as it is compiled."""

    def __init__(self, kernel: Function) -> None:
        self.kernel = kernel

    @property
    def attributes(self) -> dict[str, int]:
        return {
            "num_regs": 32,
            "local_size_bytes": 0,
            "shared_size_bytes": 0,
            "max_threads_per_block": self.kernel.threads,
            "max_dynamic_shared_size_bytes": self.kernel.shared,
        }

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self.kernel.shared

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, value: int) -> None:
        if value > SHARED_MEMORY_PER_BLOCK:
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        self.kernel.shared = value


class RawModule:
    """Kernels of one source."""

    def __init__(
        self,
        *,
        code: str,
        options: tuple[str, ...] = (),
    ) -> None:
        self._code = code
        self._options = options

    def get_function(self, name: str) -> RawKernel:
        defines = tuple(option for option in self._options if option.startswith("-D"))
        try:
            library = build_kernels(self._code, defines)
        except BuildError as error:
            raise CompileException(str(error)) from error
        if not hasattr(library, f"umx_call_{name}"):
            raise CUDADriverError("CUDA_ERROR_NOT_FOUND: named symbol not found")
        return RawKernel(Function(library, name))


class CompileException(Exception):  # noqa: N818
    """The compiler's messages."""


class CUDADriverError(RuntimeError):
    """An error of the driver."""


class CUDARuntimeError(RuntimeError):
    """An error of the runtime."""


class OutOfMemoryError(MemoryError):
    """No memory of the device is left."""


class _Context:
    """Something that can be entered and has no effect."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.ptr = 0

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def synchronize(self) -> None:
        pass

    def record(self, event: Any = None) -> Any:
        return event

    def wait_event(self, event: Any) -> None:
        pass

    def use(self) -> Any:
        return self

    done = True


class Stream(_Context):
    """All work is done when it is started."""


Stream.null = Stream()  # type: ignore[attr-defined]


def _active_blocks(threads: int, shared: int) -> int:
    return min(2048 // max(threads, 1), (228 * 1024) // (shared + 1024), 32)


class _Driver:
    """Stands for umx_np.backends._cuda.driver."""

    @staticmethod
    def max_active_clusters(function: int, *, block: int, shared: int, cluster: int) -> int:
        return MULTIPROCESSORS * 8 * _active_blocks(block, shared) // cluster


def _properties(index: int) -> dict[str, Any]:
    return {
        "name": b"emulator",
        "major": 9,
        "minor": 0,
        "multiProcessorCount": MULTIPROCESSORS,
        "totalGlobalMem": 8 << 30,
        "sharedMemPerBlockOptin": SHARED_MEMORY_PER_BLOCK,
    }


class MemoryPool:
    """A pool that keeps nothing."""

    def free_all_blocks(self) -> None:
        pass

    def used_bytes(self) -> int:
        return 0

    def free_bytes(self) -> int:
        return 0

    def get_limit(self) -> int:
        return 0

    def total_bytes(self) -> int:
        return 0

    def set_limit(self, size: int | None = None, fraction: float | None = None) -> None:
        pass


_pool = MemoryPool()


def get_default_memory_pool() -> MemoryPool:
    return _pool


def get_default_pinned_memory_pool() -> MemoryPool:
    return _pool


cuda = SimpleNamespace(
    Device=_Context,
    Stream=Stream,
    Event=_Context,
    MemoryPool=MemoryPool,
    get_current_stream=lambda: Stream.null,  # type: ignore[attr-defined]
    get_elapsed_time=lambda first, last: 0.0,
    alloc_pinned_memory=lambda size: bytearray(b"\xff" * size),
    compiler=SimpleNamespace(CompileException=CompileException),
    cublas=cublas_standin,
    memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    device=SimpleNamespace(get_cublas_handle=lambda: 1),
    driver=SimpleNamespace(
        CUDADriverError=CUDADriverError,
        occupancyMaxActiveBlocksPerMultiprocessor=lambda f, block, shared: _active_blocks(
            block, shared
        ),
    ),
    runtime=SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        CUDA_R_32F=0,
        getDeviceCount=lambda: 1,
        getDevice=lambda: 0,
        getDeviceProperties=_properties,
        runtimeGetVersion=lambda: 12090,
        driverGetVersion=lambda: 12090,
        deviceSynchronize=lambda: None,
        memGetInfo=lambda: (8 << 30, 8 << 30),
    ),
)

standin_driver = _Driver()
this_module: ModuleType = sys.modules[__name__]
