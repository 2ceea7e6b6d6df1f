"""Where numbers are computed: one object per device, chosen once at the top and passed down.

``reference`` is plain NumPy, slow and readable: the specification that everything else is measured
against. ``cpu`` runs the compiled kernels, ``cuda`` those of a CUDA device.
"""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from .config import check_precision
from .errors import ConfigError, DeviceError, shortened

if TYPE_CHECKING:
    import numpy as np

    from .backends.contracts import Backend, Network
    from .backends.training import TrainingBackend
    from .engines.job import Job, SeparationEngine

logger = logging.getLogger(__name__)

# Whether no CUDA device has run the kernels yet: until the results of one lie beside the others in
# benchmarks/results, 'auto' never takes one. README.md, docs/gpu.md and `umx-np info` say so.
CUDA_IS_EXPERIMENTAL = True


def get_backend(
    device: str | Backend = "auto", threads: int | None = None, precision: str = "full"
) -> Backend:
    """Return the backend that computes on a device.

    Parameters
    ----------
    device : {'auto', 'cpu', 'reference', 'cuda', 'cuda:INDEX'} or Backend
        ``'auto'`` takes the first CUDA device if it has proved itself, see docs/gpu.md, else the
        processor, and logs the choice and its reason. ``'cuda'`` is ``'cuda:0'``. A backend is
        returned as it is.
    threads : int or None
        Threads to compute on; None means all cores that this process may use. A CUDA device needs
        none of them.
    precision : {'full', 'fast', 'int8'}
        ``'fast'`` computes the networks in lower precision, ``'int8'``, which the processor has,
        in eight bits; see docs/guide.md.

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
    check_precision(precision)
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
    reason = _why_not_cuda()
    backend = get_backend("cpu", threads, precision) if reason else _cuda_backend(0, precision)
    logger.info("device='auto': using %s (%s)", backend, reason or "it passed its check")
    return backend


@cache
def _why_not_cuda() -> str:
    """Return why ``'auto'`` does not take the first CUDA device; empty if it does."""
    if CUDA_IS_EXPERIMENTAL:
        return "CUDA is experimental here: only device='cuda' takes it"
    try:
        from .cuda.proof import proof_of

        proof = proof_of(0)
    except DeviceError as error:
        return f"no CUDA device: {error}"
    return "" if proof.passed else f"the check of the CUDA device {proof}"


def gains_from(precision: str, device: str) -> bool:
    """Whether networks are computed faster with a precision than with ``'full'``.

    Parameters
    ----------
    precision : {'full', 'fast', 'int8'}
        Of the networks.
    device : str
        As for `get_backend`.

    Returns
    -------
    bool
        False for ``'full'``, and where it was not measured: on a CUDA device.
    """
    if device not in ("cpu", "auto") or (device == "auto" and not _why_not_cuda()):
        return False
    from .backends.cpu import describe

    return precision == "fast" or (precision == "int8" and describe()["int8_products"] != "none")


def on_cuda(ops: Backend) -> bool:
    """Whether a backend computes on a CUDA device."""
    return cuda_index(ops.name) is not None


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
        from .cuda.host_network import CudaNetwork

        assert isinstance(network, CudaNetwork)
        return network.whole_track(mags)
    from .engines.bottleneck import whole_track

    return whole_track(ops, network, mags)


def devices(*, check: bool = False) -> list[dict[str, Any]]:
    """List the devices, whether they can be used, and why not.

    Parameters
    ----------
    check : bool
        Whether to check every CUDA device now; see docs/gpu.md.

    Returns
    -------
    list of dict
        Each with ``name`` (str), ``available`` (bool) and ``reason`` (str, empty when available).
        CUDA devices are named ``cuda:0`` and so on, with what `umx_np.cuda.backend.describe` says
        of them, ``experimental`` (bool) and ``check`` (str, how it ended); without any there is one
        named ``cuda`` with the reason.
    """
    rows: list[dict[str, Any]] = [{"name": "reference", "available": True, "reason": ""}]
    try:
        get_backend("cpu")
        rows.append({"name": "cpu", "available": True, "reason": ""})
    except DeviceError as error:
        rows.append({"name": "cpu", "available": False, "reason": str(error)})
    try:
        from .cuda.backend import cards, describe
        from .cuda.proof import said_of

        state = {"available": True, "reason": "", "experimental": CUDA_IS_EXPERIMENTAL}
        rows += [
            {**describe(card), **state, "check": said_of(card, check=check)} for card in cards()
        ]
    except DeviceError as error:
        rows.append({"name": "cuda", "available": False, "reason": str(error)})
    return rows


def cuda_index(name: str) -> int | None:
    """Return the number of the CUDA device that a name like ``'cuda:1'`` means.

    Parameters
    ----------
    name : str
        Of a device or backend; ``'cuda'`` is the first one.

    Returns
    -------
    int or None
        None if none is meant.

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
        raise ConfigError(f"device={name!r} must be 'cuda' or 'cuda:' and the number of a device")
    return int(number or 0)


def training_backend_name(device: str) -> str:
    """Return the name of the backend that trains on a device; see `get_training_backend`."""
    if device != "auto":
        return "numba" if device == "cpu" else device
    reason = _why_not_cuda()
    logger.info(
        "device='auto': training on %s (%s)",
        "the processor" if reason else "cuda:0",
        reason or "it passed its check",
    )
    return "numba" if reason else "cuda"


def check_training(
    device: str, threads: int | None, *, amp: bool, tf32: bool, resident: bool = False
) -> None:
    """Raise an error if nothing here trains on a device like this.

    Parameters
    ----------
    device : {'auto', 'cpu', 'reference', 'cuda', 'cuda:INDEX'}
        Where to train.
    threads : int or None
        As for `get_training_backend`.
    amp, tf32 : bool
        Whether the operands of products are to be rounded.
    resident : bool
        Whether the data has to stay in the memory of the device.
    """
    on_cuda_device = cuda_index(device) is not None
    if device not in ("auto", "cpu", "reference") and not on_cuda_device:
        raise ConfigError(
            f"device={shortened(device)} must be 'auto', 'cpu', 'cuda', 'cuda:1' or 'reference'"
        )
    # Which device 'auto' is, is not looked at before it has to be known.
    rounded = amp or tf32
    if not (on_cuda_device or rounded or resident):
        return
    name = training_backend_name(device)
    if resident and cuda_index(name) is None:
        raise ConfigError("resident='yes': only a CUDA device keeps the data in its memory")
    if rounded and name == "reference":
        raise DeviceError(f"amp={amp}, tf32={tf32}: device='reference' has no mixed precision")
    if rounded or on_cuda_device:
        get_training_backend(name, threads).check_products(amp=amp, tf32=tf32)


def get_training_backend(name: str = "numba", threads: int | None = None) -> TrainingBackend:
    """Return the backend that trains under a name.

    Parameters
    ----------
    name : {'numba', 'reference', 'cuda', 'cuda:1', ...}
        Kernels for the processor, plain NumPy, or a CUDA device.
    threads : int or None
        Threads to compute on; None means all cores that this process may use.

    Raises
    ------
    DeviceError
        If a package is not installed, or there is no such device; the message says what to do.
    ConfigError
        If there is no backend of that name.
    """
    index = cuda_index(name)
    if index is not None:
        from .cuda import training

        return training.get_cuda_backend(index)
    if name == "reference":
        from .backends.reference_training import ReferenceTraining

        return ReferenceTraining()
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
