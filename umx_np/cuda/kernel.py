"""One compiled kernel and how it is launched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DeviceError
from .compiling import Defines, options, read_source

if TYPE_CHECKING:
    from .device import Device

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
