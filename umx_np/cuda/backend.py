"""The kernels of a CUDA device behind the backend contract: arrays of the host in and out.

Every call copies its arrival to the card and its result back, which suits single operations. Whole
tracks stay on the card: see `umx_np.cuda.separation`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .._support.threads import available_cores
from ..backends.contracts import FilterInput, Network, WienerOptions
from ..backends.reference import ReferenceBackend, into
from ..config import ModelConfig
from ..errors import ConfigError
from ..weights.bundle import StateDict
from .card import Card
from .device import Device, get_device
from .host_network import CudaNetwork
from .ops import Array, Statistics, WienerFilter, computing
from .scan_plan import Plan, choose
from .transform import upload

# Units of one direction of a layer of published models, and sequences that run side by side: both
# directions of four targets.
_UNITS = {"umxhq": 256, "umxl": 512}
_SEQUENCES = 8

# Compute capability from which products may round their operands to TF32.
_TF32_SINCE = (8, 0)


def cards() -> list[Device]:
    """Return all CUDA devices.

    Raises
    ------
    DeviceError
        If there is none; the message says why.
    """
    first = get_device(0)
    count = first.xp.cuda.runtime.getDeviceCount()
    return [first, *(get_device(index) for index in range(1, count))]


def describe(card: Device) -> dict[str, Any]:
    """Return what there is to say of a CUDA device, for ``umx-np info``.

    Returns
    -------
    dict
        ``name`` (such as ``'cuda:0'``), ``card``, ``memory`` and ``free_memory`` in bytes,
        ``compute_capability``, ``multiprocessors``, ``cuda`` (version of the runtime) and
        ``recurrence`` (for some models, the kernel that computes their layers).
    """
    return {
        "name": f"cuda:{card.index}",
        "card": card.name,
        "memory": card.total_memory,
        "free_memory": card.free_memory(),
        "compute_capability": "{}.{}".format(*card.compute_capability),
        "multiprocessors": card.multiprocessors,
        "cuda": f"{card.cuda_version // 1000}.{card.cuda_version % 1000 // 10}",
        "recurrence": {model: str(_plan(card, units)) for model, units in _UNITS.items()},
    }


def _plan(card: Device, units: int) -> Plan:
    return choose(units, 1, _SEQUENCES, Card.of(card), backward=False)


class CudaBackend(ReferenceBackend):
    """Networks and filter on one CUDA device; see `umx_np.backends.contracts.Backend`.

    Parameters
    ----------
    device : int or Device
        The card, or its number.
    precision : {'full', 'fast'}
        ``'full'`` computes in float32. ``'fast'`` rounds the operands of the networks' matrix
        products to TF32, which keeps 10 bits after the leading one; sums, the recurrence and
        everything outside the networks stay as they are. Cards older than compute capability 8.0
        have no TF32: there it computes as ``'full'``.

    Raises
    ------
    DeviceError
        If there is no such card.
    ConfigError
        If there is no such precision.

    Notes
    -----
    May be used from several threads; all work is done in the default stream of the card, in turns.
    Around the FFT of arrays of the host (frames, magnitudes, overlap-add, filter banks) nothing is
    worth two copies over the bus: that is NumPy's. Whole tracks have all of it on the card.
    """

    max_channels = 2

    def __init__(self, device: int | Device = 0, precision: str = "full") -> None:
        if precision not in ("full", "fast"):
            raise ConfigError(
                f"precision={precision!r} must be 'full' or 'fast' on a CUDA device; only "
                "device='cpu' computes in eight bits"
            )
        self.device = get_device(device) if isinstance(device, int) else device
        self.name = f"cuda:{self.device.index}"
        self.precision = precision
        self.copy_threads = available_cores()  # the device leaves the processor idle
        has_tf32 = self.device.compute_capability >= _TF32_SINCE
        self._math = "tf32" if precision == "fast" and has_tf32 else "float32"

    def __repr__(self) -> str:
        return (
            f"{self.name} ({self.device.name}, {self.precision} precision, "
            f"{_plan(self.device, _UNITS['umxhq']).kind} kernel for the recurrence)"
        )

    def dtype_for(self, dtype: np.dtype) -> np.dtype:
        return np.dtype(np.float32)

    def network(self, config: ModelConfig, state: StateDict) -> Network:
        return CudaNetwork(self.device, config, state, self._math)

    def wiener(self, options: WienerOptions) -> CudaFilter:
        return CudaFilter(self.device, options)


class CudaFilter:
    """The Wiener filter for one or two channels, with arrays of the host.

    See Also
    --------
    umx_np.backends.contracts.WienerFilter : the contract.
    umx_np.cuda.ops.WienerFilter : the filter of arrays on the card.
    """

    def __init__(self, device: Device, options: WienerOptions) -> None:
        self.device, self.options = device, options

    def window(
        self, given: FilterInput, iterations: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        given = given if iterations else given._replace(max_abs=1.0)

        def estimates(wiener: WienerFilter, arrays: tuple[Array, Array, Array]) -> Array:
            return wiener.windows(*arrays, window=given.mix.shape[1], iterations=iterations)

        return self._estimates(given, estimates, out)

    def accumulate(self, given: FilterInput, statistics: np.ndarray, level: int) -> None:
        wiener = self._filter(given)
        if given.mix.size == 0:
            return
        with computing(self.device):
            known, arrays = self._statistics(wiener, statistics), self._uploaded(given)
            wiener.accumulate(*arrays, known, level=level, window=given.mix.shape[1])
            statistics[level] = known.sums[0, level].get()

    def apply(
        self, given: FilterInput, statistics: np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        def estimates(wiener: WienerFilter, arrays: tuple[Array, Array, Array]) -> Array:
            known = self._statistics(wiener, statistics)
            return wiener.apply(*arrays, known, window=given.mix.shape[1])

        return self._estimates(given, estimates, out)

    def _estimates(
        self,
        given: FilterInput,
        estimates: Callable[[WienerFilter, tuple[Array, Array, Array]], Array],
        out: np.ndarray | None,
    ) -> np.ndarray:
        wiener = self._filter(given)
        if given.mix.size == 0:
            return into(out, np.empty((wiener.nb_sources, *given.mix.shape), np.complex64))
        with computing(self.device):
            y = estimates(wiener, self._uploaded(given)).get()
        return into(out, y)

    def _filter(self, given: FilterInput) -> WienerFilter:
        return WienerFilter(
            self.device,
            self.options,
            nb_targets=len(given.mags),
            nb_channels=len(given.mix),
            mag_channels=given.mags.shape[2],
        )

    def _uploaded(self, given: FilterInput) -> tuple[Array, Array, Array]:
        return (
            upload(self.device, given.mix, np.complex64),
            upload(self.device, given.mags, np.float32),
            upload(self.device, np.array([given.max_abs]), np.float64),
        )

    def _statistics(self, wiener: WienerFilter, statistics: np.ndarray) -> Statistics:
        sums = upload(self.device, statistics[None], np.float64)
        known = Statistics(sums, self.device.xp.empty(sums.shape, np.float64))
        wiener.normalise(known)
        return known
