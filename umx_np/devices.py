"""Where numbers are computed: one object per device, chosen once at the top and passed down.

``reference`` is plain NumPy, slow and readable: the specification that everything else is measured
against. ``cpu`` runs the compiled kernels, ``cuda`` those of an NVIDIA card.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, DeviceError, shortened

if TYPE_CHECKING:
    import numpy as np

    from .backends.contracts import Backend, Network
    from .backends.training import TrainingBackend
    from .engines.job import Job, SeparationEngine

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
        from .backends.contracts import Backend

        if isinstance(device, type) or not isinstance(device, Backend):
            raise ConfigError(
                f"device={shortened(device)} must be text such as 'auto' or 'cpu', or a backend"
            )
        return device
    if precision not in ("full", "fast"):
        raise ConfigError(f"precision={shortened(precision)} must be 'full' or 'fast'")
    if device == "reference":
        from .backends.reference import ReferenceBackend

        if precision != "full":
            raise ConfigError(f"precision={precision!r}: device='reference' has only 'full'")
        return ReferenceBackend()
    if device == "cpu":
        from .backends.cpu import CpuBackend

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
    from .cuda.backend import CudaBackend

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


def separation_engine(job: Job) -> SeparationEngine:
    """Return what separates tracks where a job computes."""
    if on_cuda(job.ops):
        from .cuda.separation import Engine

        return Engine(job)
    if job.ops.name == "reference":
        from .engines.whole import WholeTrackEngine

        return WholeTrackEngine(job)
    from .engines.host import HostEngine

    return HostEngine(job)


def run_network(ops: Backend, network: Network, mags: np.ndarray) -> np.ndarray:
    """Estimate the magnitudes of a target from those of a mixture, where a network computes.

    Parameters
    ----------
    ops : Backend
        Where the network computes.
    network : Network
        The network of the target.
    mags : ndarray [shape=(nb_frames, nb_channels, nb_bins)]
        Magnitudes of the mixture, in the dtype of the network.

    Returns
    -------
    ndarray [shape as `mags`]
    """
    if on_cuda(ops):
        from .cuda.network import CudaNetwork

        assert isinstance(network, CudaNetwork)
        return network.whole_track(mags)
    from .engines.bottleneck import whole_track

    return whole_track(ops, network, mags)


def devices() -> list[dict[str, Any]]:
    """List the devices, whether they can be used, and why not.

    Returns
    -------
    list of dict
        Each with ``name`` (str), ``available`` (bool) and ``reason`` (str, empty when available).
        CUDA devices are named ``cuda:0`` and so on, with what `umx_np.cuda.backend.describe` says
        of them; without any there is one named ``cuda`` with the reason.
    """
    rows: list[dict[str, Any]] = [{"name": "reference", "available": True, "reason": ""}]
    try:
        get_backend("cpu")
        rows.append({"name": "cpu", "available": True, "reason": ""})
    except DeviceError as error:
        rows.append({"name": "cpu", "available": False, "reason": str(error)})
    try:
        from .cuda.backend import describe

        rows += [{"available": True, "reason": "", **card} for card in describe()]
    except DeviceError as error:
        rows.append({"name": "cuda", "available": False, "reason": str(error)})
    return rows


def cuda_index(name: str) -> int | None:
    """Return the number of the graphics card that a name like ``'cuda:1'`` means.

    Parameters
    ----------
    name : str
        Of a device or backend; ``'cuda'`` is the first card.

    Returns
    -------
    int or None
        None if no card is meant.

    Raises
    ------
    ConfigError
        If what follows ``'cuda'`` is no number.
    """
    if not isinstance(name, str):
        raise ConfigError(f"device={shortened(name)} must be text such as 'auto', 'cpu' or 'cuda'")
    kind, _, number = name.partition(":")
    if kind != "cuda":
        return None
    if name != "cuda" and not number.isdecimal():
        raise ConfigError(f"device={name!r} must be 'cuda' or 'cuda:' and the number of a card")
    return int(number or 0)


@cache
def preferred_backend() -> str:
    """Name of the backend for ``device='auto'``: the first graphics card if it can train."""
    try:
        card = get_training_backend("cuda")
    except DeviceError as error:
        logger.info("device='auto': training on the processor (%s)", error)
        return "numba"
    logger.info("device='auto': training on %s", card)
    return "cuda"


def get_training_backend(name: str = "numba", threads: int | None = None) -> TrainingBackend:
    """Return a compiled backend.

    Parameters
    ----------
    name : {'numba', 'cuda', 'cuda:1', ...}
        Kernels for the processor, or for a graphics card.
    threads : int or None
        Threads to compute on; None means all cores that this process may use.

    Raises
    ------
    DeviceError
        If a package is not installed, or there is no such card; the message says what to do.
    ConfigError
        If there is no backend of that name.
    """
    index = cuda_index(name)
    if index is not None:
        from .cuda import training

        return training.get_cuda_backend(index)
    if name != "numba":
        raise ConfigError(f"backend={name!r} must be 'numba', 'reference', 'cuda' or 'cuda:1'")
    try:
        from .numba_engine.backend import NumbaBackend
    except ImportError as error:
        raise DeviceError(
            f"backend='numba' is not available ({error}); install it with: "
            "python -m pip install 'umx-np[train]', or use backend='reference'"
        ) from error
    return NumbaBackend(threads)
