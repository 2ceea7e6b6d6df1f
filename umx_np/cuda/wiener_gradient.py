"""Gradient of the Wiener filter on a card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .launching import THREADS, Grid, Kernels
from .ops import FILTER_ROWS, PIECE_FRAMES, Statistics, bins_and_frames, bins_of, frame_sizes

if TYPE_CHECKING:
    from .device import Device

Array = Any


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
        self._launch = Kernels(
            device,
            "wiener_gradient.cu",
            NB_TARGETS=nb_targets,
            NB_CHANNELS=nb_channels,
            MAG_CHANNELS=mag_channels,
            PIECE=PIECE_FRAMES,
            ROWS=FILTER_ROWS,
        ).launch

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
        frames, eps = frame_sizes(nb_frames, nb_bins, window), self._eps
        given = mix, mags, d_y, statistics.covariances
        grid = bins_of(nb_bins, nb_windows * nb_pieces)
        self._launch("wiener_gradient_sums", grid, *given, scales, pieces, *frames, nb_pieces, eps)
        grid = Grid((-(-nb_bins // THREADS), nb_windows * nb_targets))
        sizes = nb_bins, nb_pieces
        self._launch("wiener_gradient_model", grid, pieces, *statistics, model, *sizes, eps)
        grid = bins_and_frames(nb_bins, nb_frames)
        self._launch("wiener_gradient_apply", grid, *given, model, scales, d_mags, *frames, eps)
        return d_mags
