"""Where numbers are computed: one object per device, chosen once at the top and passed down.

``reference`` is plain NumPy, slow and readable: the specification that everything else is measured
against. ``cpu`` runs the compiled kernels, ``cuda`` those of an NVIDIA card.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, DeviceError, shortened

if TYPE_CHECKING:
    from .base import Backend

logger = logging.getLogger(__name__)


def get_backend(
    device: str | Backend = "auto", threads: int | None = None, precision: str = "full"
) -> Backend:
    """Return the backend that computes on a device.

    Parameters
    ----------
    device : {'auto', 'cpu', 'reference', 'cuda', 'cuda:INDEX'} or Backend
        ``'auto'`` takes the first CUDA device if there is one, else the processor, and logs the
        choice and its reason. ``'cuda'`` is ``'cuda:0'``. A backend is returned as it is.
    threads : int or None
        Threads to compute on; None means all cores that this process may use. A CUDA device needs
        none of them.
    precision : {'full', 'fast'}
        ``'fast'`` computes the networks with numbers of fewer bits, see docs/guide.md.

    Raises
    ------
    DeviceError
        If the device is not available; the message says why.
    ConfigError
        If there is no device of that name, or it has no such precision.
    """
    if not isinstance(device, str):
        from .base import Backend

        if isinstance(device, type) or not isinstance(device, Backend):
            raise ConfigError(
                f"device={shortened(device)} must be text such as 'auto' or 'cpu', or a backend"
            )
        return device
    if precision not in ("full", "fast"):
        raise ConfigError(f"precision={shortened(precision)} must be 'full' or 'fast'")
    if device == "reference":
        from .reference import ReferenceBackend

        if precision != "full":
            raise ConfigError(f"precision={precision!r}: device='reference' has only 'full'")
        return ReferenceBackend()
    if device == "cpu":
        from .cpu import CpuBackend

        return CpuBackend(threads, precision)
    if device == "auto":
        return _best_backend(threads, precision)
    if match := re.fullmatch(r"cuda(?::(\d+))?", device):
        try:
            return _cuda_backend(int(match[1] or 0), precision)
        except DeviceError as error:
            raise DeviceError(f"device={device!r} is not available: {error}") from error
    raise ConfigError(f"device={device!r} must be 'auto', 'cpu', 'reference', 'cuda' or 'cuda:1'")


def _cuda_backend(index: int, precision: str) -> Backend:
    from .cuda import CudaBackend

    return CudaBackend(index, precision)


def _best_backend(threads: int | None, precision: str) -> Backend:
    backend = None
    try:
        backend = _cuda_backend(0, precision)
        reason = "a CUDA device is there"
    except DeviceError as error:
        reason = f"no CUDA device: {error}"
    if backend is None:  # not where the error above would be told with those of the processor
        backend = get_backend("cpu", threads, precision)
    logger.info("device='auto': using %s (%s)", backend, reason)
    return backend


def on_cuda(ops: Backend) -> bool:
    """Whether a backend computes on a CUDA device."""
    return ops.name.startswith("cuda:")


def devices() -> list[dict[str, Any]]:
    """List the devices, whether they can be used, and why not.

    Returns
    -------
    list of dict
        Each with ``name`` (str), ``available`` (bool) and ``reason`` (str, empty when available).
        CUDA devices are named ``cuda:0`` and so on, with what `umx_np.backends.cuda.describe` says
        of them; without any there is one named ``cuda`` with the reason.
    """
    rows: list[dict[str, Any]] = [{"name": "reference", "available": True, "reason": ""}]
    try:
        get_backend("cpu")
        rows.append({"name": "cpu", "available": True, "reason": ""})
    except DeviceError as error:
        rows.append({"name": "cpu", "available": False, "reason": str(error)})
    try:
        from .cuda import describe

        rows += [{"available": True, "reason": "", **card} for card in describe()]
    except DeviceError as error:
        rows.append({"name": "cuda", "available": False, "reason": str(error)})
    return rows
