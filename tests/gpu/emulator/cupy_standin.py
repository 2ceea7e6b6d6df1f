"""As much of CuPy as the package uses, over NumPy and the emulator."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from . import cublas_standin, cufft_standin, modules, streams
from .arrays import (
    MemoryPool,
    OutOfMemoryError,
    PinnedMemory,
    array,
    asarray,
    ascontiguousarray,
    asnumpy,
    empty,
    empty_like,
    forward,
    full,
    ndarray,
    ones,
    pool,
    zeros,
    zeros_like,
)
from .modules import RawModule

__all__ = [
    "RawModule",
    "array",
    "asarray",
    "ascontiguousarray",
    "asnumpy",
    "empty",
    "empty_like",
    "full",
    "ndarray",
    "ones",
    "zeros",
    "zeros_like",
]


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
        return forward(getattr(np, name))
    if name in _SAME:
        return getattr(np, name)
    raise AttributeError(f"the stand-in for CuPy has no {name!r}; does the package need it?")


class CUDARuntimeError(RuntimeError):
    """An error of the runtime."""

    status = 0


class _Current:
    """The device that there is; entering it has no effect."""

    def __init__(self, index: int = 0) -> None:
        self.id = index

    def __enter__(self) -> _Current:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def use(self) -> _Current:
        return self

    def synchronize(self) -> None:
        streams.host_waits_for_all()


def _properties(index: int) -> dict[str, Any]:
    return {
        "name": b"emulator",
        "major": 9,
        "minor": 0,
        "multiProcessorCount": modules.MULTIPROCESSORS,
        "totalGlobalMem": pool.total,
        "sharedMemPerBlockOptin": modules.SHARED_MEMORY_PER_BLOCK,
    }


def get_default_memory_pool() -> MemoryPool:
    return pool


def get_default_pinned_memory_pool() -> SimpleNamespace:
    return SimpleNamespace(free_all_blocks=lambda: None)


lib = SimpleNamespace(
    stride_tricks=SimpleNamespace(as_strided=forward(np.lib.stride_tricks.as_strided))
)
fft = SimpleNamespace(
    **{name: forward(getattr(np.fft, name)) for name in ("rfft", "irfft", "fft", "ifft")}
)
cuda = SimpleNamespace(
    Device=_Current,
    Stream=streams.Stream,
    Event=streams.Event,
    MemoryPool=MemoryPool,
    get_current_stream=streams.current,
    get_elapsed_time=streams.elapsed,
    alloc_pinned_memory=PinnedMemory,
    compiler=SimpleNamespace(CompileException=modules.CompileException),
    cublas=cublas_standin,
    cufft=cufft_standin,
    memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
    device=SimpleNamespace(get_cublas_handle=lambda: 1),
    driver=SimpleNamespace(
        CUDADriverError=modules.CUDADriverError,
        occupancyMaxActiveBlocksPerMultiprocessor=lambda function, threads, shared: (
            modules.active_blocks(threads, shared)
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
        deviceSynchronize=streams.host_waits_for_all,
        memGetInfo=lambda: (pool.total - pool.used_bytes(), pool.total),
    ),
)
