"""Kernels of Numba on CuPy's arrays and streams.

Numba compiles Python for the card, which suits kernels of one formula per element. Those with more
structure are CUDA C++, below ``sources``.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from ...errors import DeviceError

if TYPE_CHECKING:
    from .device import Device

_THREADS = 256
# Blocks of a multiprocessor: enough to hide that memory is slow. Numba warns of grids of fewer than
# 128; a few that find nothing to do cost nothing.
_BLOCKS, _FEWEST_BLOCKS = 8, 128


def require_numba_cuda() -> None:
    """Raise `DeviceError` unless the package numba-cuda is installed.

    Numba's own kernels for graphics cards, which it has without that package, look for a CUDA
    toolkit in other places than CuPy.
    """
    if importlib.util.find_spec("numba_cuda") is None:
        raise DeviceError(
            "training on a graphics card needs the package numba-cuda; install it with: "
            "python -m pip install 'umx-np[cuda12]' or 'umx-np[cuda13]', whichever the driver "
            "supports"
        )


class Launcher:
    """Launches kernels of Numba on one card.

    Parameters
    ----------
    device : Device
        The card.
    """

    def __init__(self, device: Device) -> None:
        self.device = device

    def view(self, array: Any) -> Any:
        """Return an array of CuPy as Numba sees it.

        Handed to a kernel as it is, Numba would wait for everything that uses it.
        """
        from numba import cuda

        return cuda.as_cuda_array(array, sync=False)

    def __call__(self, kernel: Any, count: int, *arguments: Any) -> None:
        """Launch a kernel for `count` elements on the current stream.

        Parameters
        ----------
        kernel : callable
            With the decorator ``numba.cuda.jit``; its threads take turns with the elements, so that
            any number of them will do.
        count : int
            Number of elements.
        *arguments
            Arrays of CuPy, and NumPy scalars of the types that the kernel shall compute in.
        """
        from numba import cuda

        device = self.device
        most = _BLOCKS * device.multiprocessors
        blocks = max(min(-(-count // _THREADS), most), _FEWEST_BLOCKS)
        with device.active(), cuda.gpus[device.index]:
            # Numba asks the current card for the memory of an array.
            views = [self.view(a) if isinstance(a, device.xp.ndarray) else a for a in arguments]
            pointer = device.xp.cuda.get_current_stream().ptr
            # Numba's versions differ in what they make of the default stream given as a pointer.
            stream = cuda.external_stream(pointer) if pointer else 0
            kernel[blocks, _THREADS, stream](*views)
