"""The backend of training on a card: engines, losses, updates, transforms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends.training import Loss
from ..backends.updates import adam_scalars, sgd_scalars
from ..config import ModelConfig, SeparatorConfig
from ..errors import ConfigError
from .chain import DeviceChain
from .clips import ClipStore
from .device import get_device
from .engine import CudaEngine
from .launching import Kernels, excerpts, flat
from .ops import Spectra
from .tensors import FlatTensors
from .transform import RealFft
from .uploads import UploadSlot

if TYPE_CHECKING:
    from .device import Device

Array = Any

# Memory for the frames that are transformed at a time, and their spectra.
_TRANSFORM_BYTES = 512 << 20


class Reading:
    """A number of the card on its way to the host.

    Parameters
    ----------
    device : Device
        The card.
    number : Array [shape=(1,)], float64
        What the kernels started so far write.
    """

    def __init__(self, device: Device, number: Array) -> None:
        self._host = device.pinned(1, np.float64)
        self._event = device.event()
        with device.active():
            number.get(out=self._host, blocking=False)
            self._event.record()

    def value(self) -> float:
        """Wait for the number, but for nothing that was started after it."""
        self._event.synchronize()
        return float(self._host[0])


class CudaTrainingBackend:
    """See `umx_np.backends.training.TrainingBackend` and `Offload`.

    It is the memory of its tensors, too: see `umx_np.cuda.tensors.FlatMemory`.

    Parameters
    ----------
    device : Device
        The card.
    """

    threads = 1
    side_by_side = False

    def __init__(self, device: Device) -> None:
        self.device = device
        self.name = self.separates_on = f"cuda:{device.index}"
        self.xp = device.xp
        self._kernels = Kernels(device, "training_steps.cu")
        self._updates = Kernels(device, "updates.cu")
        self._spectra = Spectra(device)
        self._ffts: dict[int, RealFft] = {}

    def __repr__(self) -> str:
        return f"{self.name} ({self.device.name})"

    @property
    def memory(self) -> CudaTrainingBackend:
        return self

    @property
    def offload(self) -> CudaTrainingBackend:
        return self

    def engine(
        self, config: ModelConfig, dtype: np.dtype, *, amp: bool = False, tf32: bool = False
    ) -> CudaEngine:
        if dtype != np.float32:
            raise ConfigError(f"dtype={dtype}: a CUDA device trains in float32")
        self.check_products(amp=amp, tf32=tf32)
        products = "bf16" if amp else "tf32" if tf32 else "float32"
        return CudaEngine(self.device, config, products)

    def check_products(self, *, amp: bool, tf32: bool) -> None:
        if amp and tf32:
            raise ConfigError("amp=True and tf32=True exclude each other: products are of one kind")
        if amp or tf32:
            self.device.check_math("bf16" if amp else "tf32")

    # -- tensors -----------------------------------------------------------------------------------

    def place(self, arrays: Mapping[str, np.ndarray]) -> FlatTensors:
        tensors = FlatTensors({name: array.shape for name, array in arrays.items()}, self)
        tensors.assign(arrays)
        return tensors

    def asarray(self, array: Any, dtype: np.dtype) -> Array:
        with self.device.active():
            return self.xp.ascontiguousarray(self.xp.asarray(array, dtype))

    def zeros(self, count: int) -> Array:
        with self.device.active():
            return self.xp.zeros(count, np.float32)

    def to_host(self, array: Array) -> np.ndarray:
        with self.device.active():
            return array.get()

    def replace(self, array: Array, values: np.ndarray) -> None:
        with self.device.active():
            array.set(np.ascontiguousarray(values, np.float32))

    # -- what is around the network ----------------------------------------------------------------

    @property
    def out_of_memory(self) -> type[Exception]:
        return self.device.out_of_memory

    def computing(self, what: str, remedy: str) -> AbstractContextManager[None]:
        return self.device.computing(what, remedy)

    def free_memory(self) -> int:
        return self.device.free_memory()

    def slot(self) -> UploadSlot:
        return UploadSlot(self.device)

    def clips(self, shapes: Sequence[tuple[int, int]], dtype: Any, full_scale: float) -> ClipStore:
        return ClipStore(self.device, shapes, dtype, full_scale)

    def chain(self, config: SeparatorConfig, nb_targets: int) -> DeviceChain:
        return DeviceChain(config, nb_targets, self.device)

    # -- loss and updates --------------------------------------------------------------------------

    def squared_error(self, y: Array, target: Array, out: Array | None = None) -> Loss:
        number, go = self._outcome()
        self._kernels.reduce(
            "squared_error",
            flat(y.size),
            y,
            target,
            out,
            number,
            go,
            nb_sums=1,
            sizes=(np.int64(y.size),),
        )
        return Loss(Reading(self.device, number), go)

    def log_squared_error(
        self, y: Array, target: Array, mixture: Array, *, small: float, out: Array
    ) -> Loss:
        nb_frames, nb_samples = y.shape[:2]
        number, go = self._outcome()
        errors = self._excerpt_errors(
            y, target, mixture, nb_frames, nb_samples, row_stride=nb_samples, excerpt_stride=1
        )
        self._kernels.launch(
            "log_error_gradient",
            excerpts(nb_frames, nb_samples),
            y,
            target,
            *errors,
            out,
            number,
            go,
            nb_frames,
            nb_samples,
            y[0, 0].size,
            np.float64(small),
        )
        return Loss(Reading(self.device, number), go)

    def errors_of_parts(
        self, y: Array, target: Array, mixture: Array, nb_frames: int
    ) -> tuple[np.ndarray, np.ndarray]:
        parts = -(-len(y) // nb_frames)
        found = self._excerpt_errors(
            y, target, mixture, nb_frames, parts, row_stride=1, excerpt_stride=nb_frames
        )
        errors, energies = map(self.to_host, found)
        return errors, energies

    def _excerpt_errors(
        self,
        y: Array,
        target: Array,
        mixture: Array,
        nb_rows: int,
        nb_excerpts: int,
        *,
        row_stride: int,
        excerpt_stride: int,
    ) -> tuple[Array, Array]:
        errors, energies = (self.xp.empty(nb_excerpts, np.float64) for _ in range(2))
        limit = y.shape[0] * y.shape[1]
        self._kernels.reduce(
            "excerpt_errors",
            excerpts(nb_rows, nb_excerpts),
            y,
            target,
            mixture,
            errors,
            energies,
            nb_sums=2 * nb_excerpts,
            sizes=(nb_rows, row_stride, excerpt_stride, limit, y[0, 0].size),
        )
        return errors, energies

    def _outcome(self) -> tuple[Array, Array]:
        """Where a kernel puts a number, and whether to go on."""
        return self.xp.empty(1, np.float64), self.xp.empty(1, np.float32)

    def clip(self, grads: FlatTensors, max_norm: float) -> Reading:
        with self.device.active():
            norm, go = self._outcome()
            count = grads.flat.size
            self._kernels.reduce(
                "gradient_norm",
                flat(count),
                grads.flat,
                grads.factor,
                norm,
                go,
                nb_sums=1,
                sizes=(np.int64(count), np.float64(max_norm)),
            )
        grads.factor = go
        return Reading(self.device, norm)

    @cached_property
    def _one(self) -> Array:
        with self.device.active():
            return self.xp.ones(1, np.float32)

    def adam_update(
        self,
        parameter: Array,
        gradient: Array,
        first: Array,
        second: Array,
        *,
        factor: Array | None = None,
        **step: Any,
    ) -> None:
        with self.device.active():
            self._updates.launch(
                "adam",
                flat(parameter.size),
                parameter,
                gradient,
                first,
                second,
                self._one if factor is None else factor,
                np.int64(parameter.size),
                *map(np.float32, adam_scalars(**step)),
            )

    def sgd_update(
        self,
        parameter: Array,
        gradient: Array,
        velocity: Array | None,
        *,
        nesterov: bool,
        factor: Array | None = None,
        **step: Any,
    ) -> None:
        with self.device.active():
            self._updates.launch(
                "sgd",
                flat(parameter.size),
                parameter,
                gradient,
                velocity,
                self._one if factor is None else factor,
                np.int64(parameter.size),
                *map(np.float32, sgd_scalars(**step)),
                int(nesterov),
            )

    # -- magnitudes --------------------------------------------------------------------------------

    def has_transform(self, n_fft: int, dtype: np.dtype) -> bool:
        return dtype == np.float32

    def magnitudes(
        self,
        audio: Array,
        window: Array,
        *,
        n_hop: int,
        out: Array | None = None,
        mono: bool = False,
    ) -> Array:
        nb_samples, nb_channels, nb_timesteps = audio.shape
        n_fft = len(window)
        nb_frames, nb_bins = 1 + (nb_timesteps - n_fft) // n_hop, n_fft // 2 + 1
        signals = audio.reshape(nb_samples * nb_channels, nb_timesteps)
        step = max(1, _TRANSFORM_BYTES // (8 * len(signals) * n_fft))
        shape = (nb_samples, 1 if mono else nb_channels, nb_bins)
        for start in range(0, nb_frames, step):
            count = min(step, nb_frames - start)
            frames = self._spectra.frame(signals, window, n_hop=n_hop, nb_frames=count, first=start)
            spectra = self._fft(n_fft).forward(frames)
            del frames
            mags = self._spectra.magnitude(spectra, nb_bins=nb_bins, mono=False)
            del spectra
            if mono and nb_channels > 1:
                mags = mags.reshape(count * nb_samples, nb_channels, nb_bins).mean(axis=1)
            mags = mags.reshape(count, *shape)
            if out is None and count == nb_frames:
                return mags
            if out is None:
                out = self.xp.empty((nb_frames, *shape), np.float32)
            out[start : start + count] = mags
        return out

    def _fft(self, size: int) -> RealFft:
        if size not in self._ffts:
            self._ffts[size] = RealFft(self.device, size)
        return self._ffts[size]


def get_cuda_backend(index: int = 0) -> CudaTrainingBackend:
    """Return the training backend of a card.

    Raises
    ------
    DeviceError
        If there is no such card, or a package is missing; the message says how to get it.
    """
    return CudaTrainingBackend(get_device(index))
