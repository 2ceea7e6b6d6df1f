"""Gradient of the Wiener filter on a card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .ops import FILTER_ROWS, MOST_ROWS, PIECE_FRAMES, THREADS, Statistics

if TYPE_CHECKING:
    from .device import Device

Array = Any

_BINS = 32  # of a block


class WienerGradient:
    """Gradient of the magnitudes through one iteration; see sources/wiener_gradient.cu.

    Parameters
    ----------
    device : Device
        The card.
    eps : float
        As it was for the filter.
    nb_targets, nb_channels, mag_channels : int
        As for `WienerFilter`.
    """

    def __init__(
        self, device: Device, eps: float, *, nb_targets: int, nb_channels: int, mag_channels: int
    ) -> None:
        self.device = device
        self._eps = np.float64(eps)
        self._defines = {
            "NB_TARGETS": nb_targets,
            "NB_CHANNELS": nb_channels,
            "MAG_CHANNELS": mag_channels,
            "PIECE": PIECE_FRAMES,
            "ROWS": FILTER_ROWS,
        }

    def _launch(
        self, name: str, grid: tuple[int, ...], block: tuple[int, ...], *args: Any, shared: int = 0
    ) -> None:
        kernel = self.device.kernel("wiener_gradient.cu", name, defines=self._defines)
        kernel(grid, block, (*args, self._eps), shared=shared)

    def __call__(
        self,
        mix: Array,
        mags: Array,
        d_y: Array,
        scales: Array,
        statistics: Statistics,
        *,
        window: int,
    ) -> Array:
        """Compute the gradient; nothing is waited for.

        Parameters
        ----------
        mix, mags, scales, window
            As they were for `WienerFilter.windows`.
        d_y : Array [shape=(nb_targets, nb_channels, nb_frames, nb_bins)], complex64
            Gradient of the estimates.
        statistics : Statistics
            Of the filter's only iteration.

        Returns
        -------
        Array [shape as `mags`], float32
        """
        xp = self.device.xp
        _, nb_frames, nb_bins = mix.shape
        nb_windows, _, nb_targets = statistics.sums.shape[:3]
        nb_pieces = -(-min(window, nb_frames) // PIECE_FRAMES)
        pieces = xp.empty((nb_windows, nb_pieces, nb_targets, 4, nb_bins), np.float64)
        model = xp.empty((nb_windows, nb_targets, 5, nb_bins), np.float64)
        d_mags = xp.empty(mags.shape, np.float32)
        frames = np.int64(nb_frames), np.int32(nb_bins), np.int64(window)
        tiles, block = -(-nb_bins // _BINS), (_BINS, FILTER_ROWS)
        given = mix, mags, d_y, statistics.covariances
        self._launch(
            "wiener_gradient_sums",
            (tiles, nb_windows * nb_pieces),
            block,
            *given,
            scales,
            pieces,
            *frames,
            np.int32(nb_pieces),
            shared=8 * _BINS * FILTER_ROWS,
        )
        self._launch(
            "wiener_gradient_model",
            (-(-nb_bins // THREADS), nb_windows * nb_targets),
            (THREADS,),
            pieces,
            *statistics,
            model,
            np.int32(nb_bins),
            np.int32(nb_pieces),
        )
        self._launch(
            "wiener_gradient_apply",
            (tiles, min(-(-nb_frames // FILTER_ROWS), MOST_ROWS)),
            block,
            *given,
            model,
            scales,
            d_mags,
            *frames,
        )
        return d_mags
