"""Clips that lie in the memory of a graphics card, and the batches that are mixed from them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .training_kernels import TrainingKernels, flat

if TYPE_CHECKING:
    from .training import CudaTrainingBackend

Array = Any


class ClipStore:
    """Clips one behind the other, and each channel after the other.

    Parameters
    ----------
    backend : CudaTrainingBackend
        The card.
    shapes : sequence of tuple of int
        ``(nb_channels, nb_timesteps)`` of each clip.
    dtype : dtype
        int16 or float32.
    full_scale : float
        What the samples are divided by.
    """

    def __init__(
        self,
        backend: CudaTrainingBackend,
        shapes: Sequence[tuple[int, int]],
        dtype: Any,
        full_scale: float,
    ) -> None:
        self._backend = backend
        self._kernels = TrainingKernels(backend.device, "training_steps.cu")
        self._mixing = TrainingKernels(backend.device, "mixing.cu")
        self._shapes = np.array(shapes, np.int64).reshape(-1, 2)
        self._starts = np.concatenate([[0], np.cumsum(self._shapes.prod(axis=1))])
        self._scale = np.float32(1.0 / full_scale)
        with backend.device.active():
            self._samples = backend.xp.empty(int(self._starts[-1]), dtype)

    @property
    def nb_bytes(self) -> int:
        """Memory that the clips take."""
        return int(self._samples.nbytes)

    def put(self, clip: int, samples: np.ndarray) -> None:
        """Copy the samples of a clip [shape=(nb_channels, nb_timesteps)], in the dtype of all."""
        start, stop = self._starts[clip : clip + 2]
        with self._backend.device.active():
            self._samples[start:stop].set(np.ascontiguousarray(samples).reshape(-1))

    def mix(
        self,
        clips: np.ndarray,
        firsts: np.ndarray,
        channels: np.ndarray,
        in_target: np.ndarray,
        levels: np.ndarray | None,
        *,
        nb_timesteps: int,
        faint: float,
    ) -> tuple[Array, Array]:
        """Make a batch.

        Parameters
        ----------
        clips, firsts : ndarray [shape=(nb_samples, nb_sources)], int
            Where the excerpts lie: number of the clip, and first sample.
        channels : ndarray [shape=(nb_samples, nb_sources, nb_channels, channels of a clip)]
            What the channels of an excerpt are multiplied with.
        in_target : ndarray [shape=(nb_sources,)], bool
            Which sources make up the target.
        levels : ndarray [shape=(nb_samples,)] or None
            Root mean squares to bring the mixtures to, and the targets with them.
        nb_timesteps : int
            Length of the excerpts.
        faint : float
            Mean square below which a mixture stays as it is.

        Returns
        -------
        x, y : Array [shape=(nb_samples, nb_channels, nb_timesteps)], float32
            Mixtures and targets.
        """
        backend = self._backend
        xp, (nb_samples, nb_sources, nb_channels, nb_rows) = backend.xp, channels.shape
        places = np.empty((*clips.shape, 3), np.int64)
        rows, lengths = self._shapes[clips].transpose(2, 0, 1)
        places[..., 0] = self._starts[clips] + firsts
        places[..., 1], places[..., 2] = lengths, rows
        with backend.device.active():
            x, y = (xp.empty((nb_samples, nb_channels, nb_timesteps), np.float32) for _ in "xy")
            self._mixing.launch(
                "mix_short" if self._samples.dtype == np.int16 else "mix_float",
                flat(nb_timesteps, nb_samples),
                *(self._samples, self._scale, xp.asarray(places)),
                *(xp.asarray(channels, np.float32), xp.asarray(in_target.astype(np.uint8))),
                *(x, y, nb_sources, nb_channels, nb_rows, nb_timesteps),
            )
            if levels is not None:
                self._bring_to_level(x, y, levels, faint)
        return x, y

    def _bring_to_level(self, x: Array, y: Array, levels: np.ndarray, faint: float) -> None:
        xp, nb_samples, count = self._backend.xp, len(x), x[0].size
        grid, factors = flat(count, nb_samples), xp.empty(nb_samples, np.float32)
        self._kernels.reduce(
            "level_factors",
            grid,
            *(x, xp.asarray(levels, np.float64), factors),
            nb_sums=nb_samples,
            sizes=(np.int64(count), np.float64(faint)),
        )
        self._kernels.launch("scale_items", grid, x, y, factors, np.int64(count))
