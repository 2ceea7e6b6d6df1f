"""Clips that lie in the memory of a card, and the batches that are mixed from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends.training import PlannedBatch
from .launching import Kernels, flat

if TYPE_CHECKING:
    from .device import Device

Array = Any


class ClipStore:
    """Clips one behind the other, and each channel after the other.

    See `umx_np.backends.training.Clips` and `Offload.clips`.
    """

    def __init__(
        self, device: Device, shapes: Sequence[tuple[int, int]], dtype: Any, full_scale: float
    ) -> None:
        self._device = device
        self._kernels = Kernels(device, "training_steps.cu")
        sample = "short" if np.dtype(dtype) == np.int16 else "float"
        self._mixing = Kernels(device, "mixing.cu", SAMPLE=sample)
        self._shapes = np.array(shapes, np.int64).reshape(-1, 2)
        self._starts = np.concatenate([[0], np.cumsum(self._shapes.prod(axis=1))])
        self._scale = np.float32(1.0 / full_scale)
        with device.active():
            self._samples = device.xp.empty(int(self._starts[-1]), dtype)

    @property
    def nb_bytes(self) -> int:
        """See `Clips`."""
        return int(self._samples.nbytes)

    def put(self, clip: int, samples: np.ndarray) -> None:
        """See `Clips`."""
        start, stop = self._starts[clip : clip + 2]
        with self._device.active():
            self._samples[start:stop].set(np.ascontiguousarray(samples).reshape(-1))

    def mix(self, batch: PlannedBatch, nb_timesteps: int, faint: float) -> tuple[Array, Array]:
        """See `umx_np.backends.training.Clips`."""
        clips, firsts, channels, in_target, levels = batch
        xp, (nb_samples, nb_sources, nb_channels, nb_rows) = self._device.xp, channels.shape
        places = np.empty((*clips.shape, 3), np.int64)
        rows, lengths = self._shapes[clips].transpose(2, 0, 1)
        places[..., 0] = self._starts[clips] + firsts
        places[..., 1], places[..., 2] = lengths, rows
        with self._device.active():
            x, y = (xp.empty((nb_samples, nb_channels, nb_timesteps), np.float32) for _ in "xy")
            self._mixing.launch(
                "mix",
                flat(nb_timesteps, nb_samples),
                self._samples,
                self._scale,
                xp.asarray(places),
                xp.asarray(channels, np.float32),
                xp.asarray(in_target.astype(np.uint8)),
                x,
                y,
                nb_sources,
                nb_channels,
                nb_rows,
                nb_timesteps,
            )
            if levels is not None:
                self._bring_to_level(x, y, levels, faint)
        return x, y

    def _bring_to_level(self, x: Array, y: Array, levels: np.ndarray, faint: float) -> None:
        xp, nb_samples, count = self._device.xp, len(x), x[0].size
        grid, factors = flat(count, nb_samples), xp.empty(nb_samples, np.float32)
        self._kernels.reduce(
            "level_factors",
            grid,
            x,
            xp.asarray(levels, np.float64),
            factors,
            nb_sums=nb_samples,
            sizes=(np.int64(count), np.float64(faint)),
        )
        for batch in (x, y):
            batch *= factors[:, None, None]
