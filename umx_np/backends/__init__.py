"""Where numbers are computed: one object per device, chosen once at the top and passed down.

``reference`` is plain NumPy, slow and readable: the specification that everything else is measured
against. ``cpu`` runs the compiled kernels.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DeviceError

if TYPE_CHECKING:
    from .base import Backend

logger = logging.getLogger(__name__)


def get_backend(
    device: str | Backend = "auto", threads: int | None = None, precision: str = "full"
) -> Backend:
    """Return the backend that computes on a device.

    Parameters
    ----------
    device : {'auto', 'cpu', 'reference'} or Backend
        ``'auto'`` takes the best available device and logs the choice. A backend is returned as
        it is.
    threads : int or None
        Threads to compute on; None means all cores that this process may use.
    precision : {'full', 'fast'}
        ``'fast'`` computes the networks with weights of half the size, see docs/guide.md.

    Raises
    ------
    DeviceError
        If the device is not available; the message says why.
    ConfigError
        If there is no device of that name, or it has no such precision.
    """
    if not isinstance(device, str):
        return device
    if device == "reference":
        from .reference import ReferenceBackend

        if precision != "full":
            raise ConfigError(f"precision={precision!r}: device='reference' has only 'full'")
        return ReferenceBackend()
    if device in ("auto", "cpu"):
        from .cpu import CpuBackend

        backend = CpuBackend(threads, precision)
        if device == "auto":
            logger.info("device='auto': using %s", backend)
        return backend
    if device.split(":")[0] == "cuda":
        raise DeviceError(f"device={device!r} is not available: {CUDA_REASON}")
    raise ConfigError(f"device={device!r} must be 'auto', 'cpu' or 'reference'")


CUDA_REASON = "this version of umx_np has no CUDA kernels"


def devices() -> list[dict[str, Any]]:
    """List the devices, whether they can be used, and why not.

    Returns
    -------
    list of dict
        Each with ``name`` (str), ``available`` (bool) and ``reason`` (str, empty when available).
    """
    rows = [{"name": "reference", "available": True, "reason": ""}]
    try:
        get_backend("cpu")
        rows.append({"name": "cpu", "available": True, "reason": ""})
    except DeviceError as error:
        rows.append({"name": "cpu", "available": False, "reason": str(error)})
    rows.append({"name": "cuda", "available": False, "reason": CUDA_REASON})
    return rows
