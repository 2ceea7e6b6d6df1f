"""The backend: engines and updates of parameters, on some threads."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from .._support.threads import parallel_map, resolve_threads
from ..backends.tensors import HostMemory
from ..backends.updates import adam_scalars, sgd_scalars
from ..config import ModelConfig
from ..errors import ConfigError, DeviceError
from .engine import NumbaEngine
from .gemm import has_pairs
from .spectra import is_supported, lanes_of, magnitude_kernel
from .updates import update_kernels

# Frames of a signal that one thread transforms at a time, and fewer than twice as many at its end:
# a batch has enough signals for all threads, a whole track has two.
_FRAMES_PER_TASK = 256


class NumbaBackend:
    """See `umx_np.backends.training.TrainingBackend`.

    Parameters
    ----------
    threads : int or None
        Threads to compute on; None means all cores that this process may use.
    """

    name = "numba"
    separates_on = "cpu"
    side_by_side = True
    memory = HostMemory()
    offload = None

    def __init__(self, threads: int | None = None) -> None:
        self.threads = resolve_threads(threads)

    def __repr__(self) -> str:
        return f"numba ({self.threads} threads)"

    def engine(
        self, config: ModelConfig, dtype: np.dtype, *, amp: bool = False, tf32: bool = False
    ) -> NumbaEngine:
        self.check_products(amp=amp, tf32=tf32)
        if amp and dtype != np.float32:
            raise ConfigError(f"amp=True: mixed precision needs dtype=float32, not {dtype}")
        return NumbaEngine(config, np.dtype(dtype), self.threads, amp)

    def check_products(self, *, amp: bool, tf32: bool) -> None:
        if tf32:
            raise ConfigError("tf32=True: TF32 is for CUDA devices; leave it out")
        if amp and not has_pairs():
            raise DeviceError(
                "amp=True: mixed precision needs a processor with AVX512-BF16, which this one is "
                "not, or else a newer numba; leave it out to compute in single precision"
            )

    def has_transform(self, n_fft: int, dtype: np.dtype) -> bool:
        return is_supported(n_fft, np.dtype(dtype))

    def magnitudes(
        self, audio: np.ndarray, window: np.ndarray, *, n_hop: int, out: np.ndarray
    ) -> None:
        nb_frames, nb_samples, nb_channels, nb_bins = out.shape
        n_fft, dtype = len(window), audio.dtype
        stride = nb_samples * nb_channels * nb_bins
        kernel = None
        if is_supported(n_fft, dtype) and nb_frames >= lanes_of(dtype):
            kernel = magnitude_kernel(n_fft, dtype)
        x, flat = np.ascontiguousarray(audio).reshape(-1), out.reshape(-1)
        nb_timesteps = audio.shape[-1]

        def some_frames(task: tuple[int, int]) -> None:
            number, first = task
            # What would be left over belongs to the last part: it may be too short for the kernel.
            rest = nb_frames - first
            count = rest if rest < 2 * _FRAMES_PER_TASK else _FRAMES_PER_TASK
            if kernel is not None:
                kernel(
                    x,
                    window,
                    flat,
                    n_hop=n_hop,
                    nb_frames=count,
                    start=number * nb_timesteps + first * n_hop,
                    place=number * nb_bins + first * stride,
                    stride=stride,
                )
                return
            sample, channel = divmod(number, nb_channels)
            part = audio[sample, channel, first * n_hop :]
            frames = np.lib.stride_tricks.sliding_window_view(part, n_fft)[::n_hop][:count]
            np.abs(np.fft.rfft(frames * window), out=out[first : first + count, sample, channel])

        firsts = range(0, max(nb_frames - _FRAMES_PER_TASK, 0) + 1, _FRAMES_PER_TASK)
        tasks = itertools.product(range(nb_samples * nb_channels), firsts)
        parallel_map(self.threads, some_frames, tasks)

    def adam_update(
        self,
        parameter: np.ndarray,
        gradient: np.ndarray,
        first: np.ndarray,
        second: np.ndarray,
        **step: Any,
    ) -> None:
        update_kernels(parameter.dtype).adam(
            *_flat(parameter, gradient, first, second), tuple(adam_scalars(**step))
        )

    def sgd_update(
        self,
        parameter: np.ndarray,
        gradient: np.ndarray,
        velocity: np.ndarray | None,
        *,
        nesterov: bool,
        **step: Any,
    ) -> None:
        # Without momentum there is no velocity to keep; the kernel writes it somewhere.
        kept = np.zeros_like(parameter) if velocity is None else velocity
        update_kernels(parameter.dtype).sgd(
            *_flat(parameter, gradient, kept), *sgd_scalars(**step), nesterov
        )


def _flat(*arrays: np.ndarray) -> list[Any]:
    dtype = arrays[0].dtype
    return [np.ascontiguousarray(array, dtype=dtype).reshape(-1) for array in arrays]
