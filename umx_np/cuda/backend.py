"""The kernels of a CUDA device behind the backend contract: arrays of the host in and out.

Every call copies its arrival to the card and its result back, which suits single operations. Whole
tracks stay on the card: see `umx_np.cuda.separation`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .._support.threads import Item, Result, available_cores
from ..backends.contracts import Network, WienerOptions
from ..backends.reference import into
from ..config import ModelConfig
from ..errors import ConfigError
from ..weights.bundle import StateDict
from .card import Card
from .device import Device, get_device
from .host_network import CudaNetwork
from .ops import Array, Spectra, Statistics, WienerFilter, computing
from .plans import choose
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
        "recurrence": {
            model: choose(units, _SEQUENCES, Card.of(card)).describe()
            for model, units in _UNITS.items()
        },
    }


class CudaBackend:
    """Operations on one CUDA device; see `umx_np.backends.contracts.Backend`.

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
    The FFT between `frame` and `overlap_add` is that of the caller; only whole tracks have theirs
    on the card.
    """

    threads = 1
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
        has_tf32 = self.device.compute_capability >= _TF32_SINCE
        self._math = "tf32" if precision == "fast" and has_tf32 else "float32"

    def __repr__(self) -> str:
        plan = choose(_UNITS["umxhq"], _SEQUENCES, Card.of(self.device))
        return (
            f"{self.name} ({self.device.name}, {self.precision} precision, "
            f"{plan.method} kernel for the recurrence)"
        )

    @property
    def copy_threads(self) -> int:
        """The device leaves the processor idle."""
        return available_cores()

    def dtype_for(self, dtype: np.dtype) -> np.dtype:
        return np.dtype(np.float32)

    def network(self, config: ModelConfig, state: StateDict) -> Network:
        return CudaNetwork(self.device, config, state, self._math)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        return [function(item) for item in items]

    def frame(self, x: np.ndarray, window: np.ndarray, *, n_hop: int, nb_frames: int) -> np.ndarray:
        with computing(self.device):
            used = x[:, : (nb_frames - 1) * n_hop + len(window)]
            return (
                Spectra(self.device, x.dtype)
                .frame(
                    self._upload(used),
                    self._upload(window, x.dtype),
                    n_hop=n_hop,
                    nb_frames=nb_frames,
                )
                .get()
            )

    def overlap_add(
        self, frames: np.ndarray, window: np.ndarray, *, n_hop: int, out: np.ndarray
    ) -> None:
        covered = out[:, : (frames.shape[1] - 1) * n_hop + len(window)]
        with computing(self.device):
            samples = self._upload(covered)
            Spectra(self.device, out.dtype).add_frames(
                self._upload(frames, out.dtype),
                self._upload(window, out.dtype),
                samples,
                n_hop=n_hop,
            )
            covered[...] = samples.get()

    def magnitude(
        self, spectrum: np.ndarray, *, nb_bins: int, mono: bool, out: np.ndarray | None = None
    ) -> np.ndarray:
        with computing(self.device):
            mags = (
                Spectra(self.device, spectrum.real.dtype)
                .magnitude(self._upload(spectrum), nb_bins=nb_bins, mono=mono)
                .get()
            )
        return into(out, mags)

    def linear(self, x: np.ndarray, weight: Array) -> np.ndarray:
        if isinstance(weight, np.ndarray) and weight.dtype == np.float64:
            return x @ weight.T
        with computing(self.device):
            flat = self._upload(x.reshape(-1, x.shape[-1]), np.float32)
            out = self.device.xp.empty((len(flat), len(weight)), np.float32)
            self.device.gemm(flat, weight, out, trans_b=True, math="float32")
            return out.get().reshape(*x.shape[:-1], len(weight))

    def pack_linear(self, weight: np.ndarray) -> Array:
        # The card multiplies in float32; float64 is there for analysis, not for speed.
        if weight.dtype == np.float64:
            return weight
        with computing(self.device):
            return self._upload(weight, np.float32)

    def wiener(self, options: WienerOptions) -> CudaFilter:
        return CudaFilter(self.device, options)

    def _upload(self, array: np.ndarray, dtype: Any = None) -> Array:
        return upload(self.device, array, dtype)


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
        self,
        mix: np.ndarray,
        mags: np.ndarray,
        *,
        iterations: int,
        max_abs: float,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        window, max_abs = mix.shape[1], max_abs if iterations else 1.0

        def estimates(wiener: WienerFilter, arrays: tuple[Array, Array, Array]) -> Array:
            return wiener.windows(*arrays, window=window, iterations=iterations)

        return self._estimates(mix, mags, max_abs, estimates, out)

    def accumulate(
        self,
        mix: np.ndarray,
        mags: np.ndarray,
        statistics: np.ndarray,
        *,
        level: int,
        max_abs: float,
    ) -> None:
        wiener = self._filter(mix, mags)
        if mix.size == 0:
            return
        with computing(self.device):
            known = self._statistics(wiener, statistics)
            arrays = self._uploaded(mix, mags, max_abs)
            wiener.accumulate(*arrays, known, level=level, window=mix.shape[1])
            statistics[level] = known.sums[0, level].get()

    def apply(
        self,
        mix: np.ndarray,
        mags: np.ndarray,
        statistics: np.ndarray,
        *,
        max_abs: float,
        out: np.ndarray | None = None,
    ) -> np.ndarray:
        window = mix.shape[1]

        def estimates(wiener: WienerFilter, arrays: tuple[Array, Array, Array]) -> Array:
            return wiener.apply(*arrays, self._statistics(wiener, statistics), window=window)

        return self._estimates(mix, mags, max_abs, estimates, out)

    def _estimates(
        self,
        mix: np.ndarray,
        mags: np.ndarray,
        max_abs: float,
        estimates: Callable[[WienerFilter, tuple[Array, Array, Array]], Array],
        out: np.ndarray | None,
    ) -> np.ndarray:
        wiener = self._filter(mix, mags)
        if mix.size == 0:
            return into(out, np.empty((wiener.nb_sources, *mix.shape), np.complex64))
        with computing(self.device):
            y = estimates(wiener, self._uploaded(mix, mags, max_abs)).get()
        return into(out, y)

    def _filter(self, mix: np.ndarray, mags: np.ndarray) -> WienerFilter:
        return WienerFilter(
            self.device,
            self.options,
            nb_targets=len(mags),
            nb_channels=len(mix),
            mag_channels=mags.shape[2],
        )

    def _uploaded(
        self, mix: np.ndarray, mags: np.ndarray, max_abs: float
    ) -> tuple[Array, Array, Array]:
        return (
            upload(self.device, mix, np.complex64),
            upload(self.device, mags, np.float32),
            upload(self.device, np.array([max_abs]), np.float64),
        )

    def _statistics(self, wiener: WienerFilter, statistics: np.ndarray) -> Statistics:
        sums = upload(self.device, statistics[None], np.float64)
        known = Statistics(sums, self.device.xp.empty(sums.shape, np.float64))
        wiener.normalise(known)
        return known
