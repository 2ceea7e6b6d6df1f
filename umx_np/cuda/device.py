"""One card: what it is, kernels compiled for it, matrix products, memory, streams."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from ..errors import ConfigError, DeviceError
from .compiling import Defines, options, read_source
from .products import MATH, gemm

_NULL = np.uint64(0)


class Kernel:
    """A compiled kernel; made by `Device.kernel`.

    Attributes
    ----------
    device : Device
    name : str
    registers : int
        32-bit registers of a thread.
    local_bytes : int
        Bytes of memory per thread for what did not fit into registers; 0 is the aim.
    static_shared : int
        Bytes of shared memory that the kernel declares itself.
    max_threads : int
        Threads a block may have at most, with these registers.
    """

    def __init__(self, device: Device, source: str, name: str, defines: Defines) -> None:
        self.name = name
        self.device = device
        xp = device.xp
        code = read_source(source)
        self._launch_errors = (xp.cuda.driver.CUDADriverError, xp.cuda.runtime.CUDARuntimeError)
        try:
            with device.active():
                # Not declared cooperative: CuPy 13 would compile it as relocatable code then, and
                # link a library that its packages do not bring along. Only the launch differs.
                raw = xp.RawModule(code=code, options=options(defines)).get_function(name)
                attributes = raw.attributes
                self.registers = int(attributes["num_regs"])
                self.local_bytes = int(attributes["local_size_bytes"])
                self.static_shared = int(attributes["shared_size_bytes"])
                self.max_threads = int(attributes["max_threads_per_block"])
                # More than 48 KiB must be asked for; done once, so that no launch has to.
                raw.max_dynamic_shared_size_bytes = (
                    device.shared_memory_per_block - self.static_shared
                )
                self._function = raw.kernel
        except xp.cuda.compiler.CompileException as error:
            raise DeviceError(f"kernel={name} of {source} does not compile:\n{error}") from error
        except self._launch_errors as error:
            raise DeviceError(f"kernel={name} of {source} cannot be loaded: {error}") from error

    def __repr__(self) -> str:
        return f"<kernel {self.name}: {self.registers} registers, {self.local_bytes} bytes spilled>"

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Any],
        *,
        shared: int = 0,
        cooperative: bool = False,
    ) -> None:
        """Launch on the current stream.

        Parameters
        ----------
        grid, block : sequence of int
            Blocks of the grid, threads of a block; up to three numbers.
        args : sequence
            Arrays of this device, None for a null pointer, and NumPy scalars of exactly the type
            of the parameter, such as ``np.int32(3)``.
        shared : int
            Bytes of dynamic shared memory of a block.
        cooperative : bool
            Whether all blocks must be resident at the same time.

        Raises
        ------
        DeviceError
            If the kernel cannot be launched like this.
        TypeError
            If an argument has no definite type in C.
        """
        accepted = (self.device.xp.ndarray, np.generic)
        for index, value in enumerate(args):
            # CuPy would pass a Python int as 64 bits, whatever the kernel takes.
            if value is not None and not isinstance(value, accepted):
                raise TypeError(
                    f"kernel={self.name}: argument {index} is of type {type(value).__name__}; "
                    "pass arrays of the device and NumPy scalars"
                )
        # CuPy does not turn None into a null pointer, but into no argument at all.
        values = tuple(_NULL if value is None else value for value in args)
        try:
            with self.device.active():
                self._function(
                    tuple(grid),
                    tuple(block),
                    values,
                    shared_mem=shared,
                    enable_cooperative_groups=cooperative,
                )
        except self._launch_errors as error:
            raise DeviceError(
                f"kernel={self.name} cannot be launched with grid={tuple(grid)} "
                f"block={tuple(block)} shared={shared} cooperative={cooperative}: {error}"
            ) from error

    def max_active_blocks(self, block: int, shared: int = 0) -> int:
        """Blocks that are resident at a time: the largest grid of a cooperative launch.

        Parameters
        ----------
        block : int
            Threads of a block.
        shared : int
            Bytes of dynamic shared memory of a block.

        Returns
        -------
        int
            Of the whole card.
        """
        with self.device.active():
            of_one = self.device.xp.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(
                self._function.ptr, block, shared
            )
        return int(of_one) * self.device.multiprocessors


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
        self._kernels: dict[Any, Kernel] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        major, minor = self.compute_capability
        return f"<cuda:{self.index} {self.name}, compute capability {major}.{minor}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return get_device, (self.index,)  # the card of that number, wherever this arrives

    def __deepcopy__(self, memo: object) -> Device:
        return self

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

    def check_math(self, value: str) -> None:
        """Check that this card can multiply like that; see `gemm`.

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

    def gemm(
        self,
        a: Any,
        b: Any,
        out: Any,
        *,
        trans_a: bool = False,
        trans_b: bool = False,
        accumulate: bool = False,
        math: str = "float32",
    ) -> None:
        """Compute ``out = op(a) op(b)``, plus ``out`` if `accumulate`, on the current stream.

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
        math : {'float32', 'tf32', 'bf16'}
            Operands keep 23, 10 or 7 bits after the leading one; sums are float32 always.

        Raises
        ------
        ShapeError
            If shapes, layouts or dtypes do not fit.
        """
        self.check_math(math)
        with self.active():
            gemm(
                self.xp,
                a,
                b,
                out,
                trans_a=trans_a,
                trans_b=trans_b,
                accumulate=accumulate,
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
        """Errors of a device that has too little memory."""
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
