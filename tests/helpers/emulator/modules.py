"""Kernels of the stand-in for CuPy: compiled by g++, launched on the emulator."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from . import launching
from .arrays import use_of
from .building import BuildError, build_kernels
from .streams import operate

SHARED_MEMORY_PER_BLOCK = 232448
SHARED_MEMORY = 228 * 1024
MULTIPROCESSORS = 6


class CompileException(Exception):  # noqa: N818
    """The compiler's messages."""


class CUDADriverError(RuntimeError):
    """An error of the driver."""


def active_blocks(threads: int, shared: int) -> int:
    """Blocks that fit on one multiprocessor, as far as registers are not in the way."""
    return min(2048 // threads, SHARED_MEMORY // (shared + 1024), 32)


class Function:
    """A kernel as it is launched."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self.name = name
        self.library = library
        self.threads = library[f"umx_threads_{name}"]()
        self.parameters = launching.parameters(library, name)
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
        ):
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        resident = MULTIPROCESSORS * active_blocks(threads, shared_mem)
        if enable_cooperative_groups and blocks > resident:
            raise CUDADriverError(
                "CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE: too many blocks in cooperative launch"
            )
        launching.check_arguments(self.name, args, self.parameters)
        uses = [(use_of(given), p.reads) for given, p in zip(args, self.parameters, strict=True)]
        operate(
            f"kernel={self.name}",
            [use for use, reads in uses if reads],
            [use for use, reads in uses if not reads],
            stream,
        )
        launching.launch(
            self.library,
            self.name,
            grid,
            block,
            args,
            shared_bytes=shared_mem,
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

    def __init__(self, *, code: str, options: tuple[str, ...] = ()) -> None:
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
