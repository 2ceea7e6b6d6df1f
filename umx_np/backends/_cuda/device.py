"""One card: what it is, kernels compiled for it, matrix products, memory the card can reach."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from ...errors import ConfigError, DeviceError, ShapeError
from . import driver
from .compiling import Defines, cluster_size, options, read_source

# What a block may use without asking.
_SHARED_WITHOUT_ASKING = 48 * 1024

# Name of cuBLAS's compute type, and the compute capability it needs.
_MATH = {
    "float32": ("CUBLAS_COMPUTE_32F", (0, 0)),
    "tf32": ("CUBLAS_COMPUTE_32F_FAST_TF32", (8, 0)),
    "bf16": ("CUBLAS_COMPUTE_32F_FAST_16BF", (8, 0)),
}


class Kernel:
    """A compiled kernel; made by `Device.kernel`.

    Attributes
    ----------
    name : str
    registers : int
        32-bit registers of a thread.
    local_bytes : int
        Bytes of memory per thread for what did not fit into registers; 0 is the aim.
    static_shared : int
        Bytes of shared memory that the kernel declares itself.
    max_threads : int
        Threads a block may have at most, with these registers.
    cluster : int
        Blocks of the clusters it is compiled for; 1 without clusters.
    """

    def __init__(self, device: Device, source: str, name: str, defines: Defines) -> None:
        self.name = name
        self._device = device
        self._code = read_source(source)
        self._options = options(defines)
        self.cluster = cluster_size(self._code, name, defines)
        self._lock = threading.Lock()
        self._raw = {False: self._compiled(cooperative=False)}
        attributes = self._raw[False].attributes
        self.registers = int(attributes["num_regs"])
        self.local_bytes = int(attributes["local_size_bytes"])
        self.static_shared = int(attributes["shared_size_bytes"])
        self.max_threads = int(attributes["max_threads_per_block"])

    def __repr__(self) -> str:
        return f"<kernel {self.name}: {self.registers} registers, {self.local_bytes} bytes spilled>"

    def _compiled(self, *, cooperative: bool) -> Any:
        xp = self._device.xp
        try:
            with self._device.active():
                module = xp.RawModule(
                    code=self._code, options=self._options, enable_cooperative_groups=cooperative
                )
                raw = module.get_function(self.name)
                # Asked for once, so that no launch has to.
                free = self._device.shared_memory_per_block - int(raw.shared_size_bytes)
                raw.max_dynamic_shared_size_bytes = free
                return raw
        except xp.cuda.compiler.CompileException as error:
            raise DeviceError(
                f"kernel={self.name} does not compile for {self._device.name}:\n{error}"
            ) from error

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Any],
        *,
        shared: int = 0,
        cooperative: bool = False,
        cluster: int = 1,
    ) -> None:
        """Launch on the current stream.

        Parameters
        ----------
        grid, block : sequence of int
            Blocks of the grid (not clusters), threads of a block; up to three numbers.
        args : sequence
            Arrays of this device, None for a null pointer, and NumPy scalars of exactly the type
            of the parameter, such as ``np.int32(3)``.
        shared : int
            Bytes of dynamic shared memory of a block.
        cooperative : bool
            Whether all blocks must be resident at the same time.
        cluster : int
            Blocks of a cluster; the size that the kernel was compiled with.

        Raises
        ------
        DeviceError
            If the kernel cannot be launched like this.
        TypeError
            If an argument has no definite type in C.
        """
        for index, value in enumerate(args):
            if not (value is None or isinstance(value, (self._device.xp.ndarray, np.generic))):
                raise TypeError(
                    f"kernel={self.name}: argument {index} is a {type(value).__name__}; "
                    "pass arrays of the device and NumPy scalars"
                )
        if cluster != self.cluster:
            raise DeviceError(
                f"kernel={self.name}: cluster={cluster}, but it was compiled for {self.cluster}"
            )
        if cluster > 1 and grid[0] % cluster:
            raise DeviceError(
                f"kernel={self.name}: grid={tuple(grid)} is not made of clusters of {cluster}"
            )
        with self._lock:
            if cooperative not in self._raw:
                self._raw[cooperative] = self._compiled(cooperative=cooperative)
            raw = self._raw[cooperative]
        errors = (
            self._device.xp.cuda.driver.CUDADriverError,
            self._device.xp.cuda.runtime.CUDARuntimeError,
        )
        try:
            with self._device.active():
                raw(tuple(grid), tuple(block), tuple(args), shared_mem=shared)
        except errors as error:
            raise DeviceError(
                f"kernel={self.name} cannot be launched with grid={tuple(grid)} "
                f"block={tuple(block)} shared={shared} cooperative={cooperative}: {error}"
            ) from error

    def max_active_blocks(self, block: int, shared: int = 0) -> int:
        """Blocks of so many threads and so much shared memory that are resident at a time.

        Over the whole card: the largest grid of a cooperative launch.
        """
        with self._device.active():
            per_multiprocessor = (
                self._device.xp.cuda.driver.occupancyMaxActiveBlocksPerMultiprocessor(
                    self._raw[False].kernel.ptr, block, shared
                )
            )
        return int(per_multiprocessor) * self._device.multiprocessors

    def max_active_clusters(self, block: int, shared: int = 0) -> int:
        """Clusters that are resident at a time; 0 where that cannot be found out.

        Clusters stay inside of groups of multiprocessors, which need not be of equal size, so this
        may be less than the number of blocks suggests.
        """
        if not self._device.has_clusters:
            return 0
        with self._device.active():
            return self._device.driver.max_active_clusters(
                self._raw[False].kernel.ptr, block=block, shared=shared, cluster=self.cluster
            )


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
        Most dynamic shared memory of a block, in bytes.
    has_clusters : bool
        Whether blocks can form clusters (compute capability 9.0 and later).
    cuda_version : int
        Of CUDA's runtime, 1000 major + 10 minor.
    """

    def __init__(self, xp: Any, index: int = 0, driver: Any = driver) -> None:
        properties = xp.cuda.runtime.getDeviceProperties(index)
        name = properties["name"]
        self.xp = xp
        self.driver = driver
        self.index = index
        self.name = name.decode() if isinstance(name, bytes) else str(name)
        self.compute_capability = (int(properties["major"]), int(properties["minor"]))
        self.multiprocessors = int(properties["multiProcessorCount"])
        self.total_memory = int(properties["totalGlobalMem"])
        self.shared_memory_per_block = int(properties["sharedMemPerBlockOptin"])
        self.has_clusters = self.compute_capability >= (9, 0)
        self.cuda_version = int(xp.cuda.runtime.runtimeGetVersion())
        self._math = "float32"
        self._kernels: dict[Any, Kernel] = {}
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        major, minor = self.compute_capability
        return f"<cuda:{self.index} {self.name}, compute capability {major}.{minor}>"

    def active(self) -> Any:
        """Context in which this card is the current one of the thread; may be nested."""
        return self.xp.cuda.Device(self.index)

    @property
    def math(self) -> str:
        """How `gemm` multiplies: ``'float32'``, ``'tf32'`` or ``'bf16'``.

        Operands are rounded to 10 bits or 7 bits after the leading one; sums are float32 always.
        """
        return self._math

    @math.setter
    def math(self, value: str) -> None:
        self._math = self._checked_math(value)

    def _checked_math(self, value: str) -> str:
        if value not in _MATH:
            raise ConfigError(f"math={value!r} must be one of {', '.join(map(repr, _MATH))}")
        needed = _MATH[value][1]
        if self.compute_capability < needed:
            raise DeviceError(
                f"math={value!r} needs compute capability {needed[0]}.{needed[1]}; {self!r}"
            )
        return value

    def kernel(self, source: str, name: str, *, defines: Defines | None = None) -> Kernel:
        """Compile a kernel for this card, or return it if that was done before.

        Parameters
        ----------
        source : str
            File below ``sources``.
        name : str
            Kernel in that file.
        defines : mapping
            Values of macros.

        Raises
        ------
        DeviceError
            If it does not compile; with the compiler's messages.
        """
        defines = defines or {}
        key = (source, name, options(defines))
        with self._lock:
            if key not in self._kernels:
                self._kernels[key] = Kernel(self, source, name, defines)
            return self._kernels[key]

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
            Rows may be further apart than they are long, their elements not. A matrix `a` or `b`
            is used for every item of a batch. `out` must not overlap the others.
        trans_a, trans_b : bool
            Whether op transposes.
        accumulate : bool
        alpha : float
        math : str or None
            As the attribute `math`, for this product only; None takes the attribute.

        Raises
        ------
        ShapeError
            If shapes, layouts or dtypes do not fit.
        """
        first, second, product = _matrix("a", a), _matrix("b", b), _matrix("out", out)
        rows, inner = (first.columns, first.rows) if trans_a else (first.rows, first.columns)
        inner_b, columns = (
            (second.columns, second.rows) if trans_b else (second.rows, second.columns)
        )
        batch = product.batch
        if (
            inner != inner_b
            or (rows, columns) != (product.rows, product.columns)
            or first.batch not in (None, batch)
            or second.batch not in (None, batch)
        ):
            raise ShapeError(
                f"a.shape={a.shape} (trans_a={trans_a}), b.shape={b.shape} (trans_b={trans_b}) and "
                f"out.shape={out.shape} do not fit"
            )
        compute = self._math if math is None else self._checked_math(math)
        if out.size == 0:
            return
        if inner == 0:
            if not accumulate:
                out.fill(0)
            return
        cublas = self.xp.cuda.cublas
        scales = np.array([alpha, 1.0 if accumulate else 0.0], np.float32)
        alpha_pointer, beta_pointer = scales.ctypes.data, scales.ctypes.data + 4
        real = self.xp.cuda.runtime.CUDA_R_32F
        compute_type = getattr(cublas, _MATH[compute][0])
        algorithm = cublas.CUBLAS_GEMM_DEFAULT
        # cuBLAS counts along columns, so it sees every matrix transposed, and out^T = b^T a^T.
        operations = (
            cublas.CUBLAS_OP_T if trans_b else cublas.CUBLAS_OP_N,
            cublas.CUBLAS_OP_T if trans_a else cublas.CUBLAS_OP_N,
        )
        with self.active():
            handle = self.xp.cuda.device.get_cublas_handle()
            head = (handle, *operations, columns, rows, inner, alpha_pointer)
            left = (second.pointer, real, second.stride)
            right = (first.pointer, real, first.stride)
            result = (product.pointer, real, product.stride)
            if batch is None:
                cublas.gemmEx(*head, *left, *right, beta_pointer, *result, compute_type, algorithm)
            else:
                cublas.gemmStridedBatchedEx(
                    *head,
                    *left,
                    second.batch_stride,
                    *right,
                    first.batch_stride,
                    beta_pointer,
                    *result,
                    product.batch_stride,
                    batch,
                    compute_type,
                    algorithm,
                )

    def stream(self) -> Any:
        """A new stream, which does not wait for others unless told to; use it as a context."""
        with self.active():
            return self.xp.cuda.Stream(non_blocking=True)

    def event(self) -> Any:
        """A mark to set in a stream (``event.record(stream)``) and to wait for."""
        with self.active():
            return self.xp.cuda.Event(disable_timing=True)

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


class _matrix:  # noqa: N801
    """What cuBLAS has to know of one argument."""

    def __init__(self, name: str, array: Any) -> None:
        shape, strides = array.shape, array.strides
        if array.dtype != np.float32 or array.ndim not in (2, 3):
            raise ShapeError(f"{name} must be float32 with 2 or 3 axes, not {array.dtype} {shape}")
        self.batch = shape[0] if array.ndim == 3 else None
        self.rows, self.columns = shape[-2:]
        # Strides of axes of length 1 mean nothing.
        stride = strides[-2] // 4 if self.rows > 1 else max(1, self.columns)
        self.batch_stride = strides[0] // 4 if self.batch is not None and self.batch > 1 else 0
        if (
            (self.columns > 1 and strides[-1] != 4)
            or stride < self.columns
            or (self.rows > 1 and strides[-2] % 4)
            or self.batch_stride < 0
        ):
            raise ShapeError(
                f"{name} must have contiguous rows that do not overlap, not shape={shape} "
                f"strides={strides}"
            )
        self.stride = max(1, stride)
        self.pointer = array.data.ptr


REMEDY = "install 'umx-np[cuda12]' or 'umx-np[cuda13]', whichever the driver supports"


@lru_cache(maxsize=None)
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
        raise DeviceError(f"CuPy cannot be imported ({error}); {REMEDY}") from error
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(
            f"CUDA does not run ({error}); install a driver of NVIDIA for this card"
        ) from error
    if not 0 <= index < count:
        raise DeviceError(f"index={index}, but there are {count} CUDA devices")
    return Device(cupy, index)
