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
    asarray,
    ascontiguousarray,
    asnumpy,
    empty,
    empty_like,
    forward,
    ndarray,
    ones,
    pool,
    zeros,
)
from .modules import RawModule

__all__ = [
    "RawModule",
    "asarray",
    "ascontiguousarray",
    "asnumpy",
    "concatenate",
    "cuda",
    "empty",
    "empty_like",
    "fft",
    "get_default_memory_pool",
    "lib",
    "ndarray",
    "ones",
    "stack",
    "zeros",
]


__version__ = "13.0.0"


def __getattr__(name: str) -> Any:
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


concatenate = forward(np.concatenate)
stack = forward(np.stack)
lib = SimpleNamespace(
    stride_tricks=SimpleNamespace(as_strided=forward(np.lib.stride_tricks.as_strided))
)
fft = SimpleNamespace(**{name: forward(getattr(np.fft, name)) for name in ("rfft", "irfft")})
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
