"""Contracts of backends. Arguments are keyword-only wherever order could be confused.

Shapes use the names of docs/glossary.md. Spectra are channel-first and frame-major,
``(nb_channels, nb_frames, nb_bins)``, because the FFT and the filter walk along bins; network
activations are frame-major, ``(nb_frames, features)``, because matrix products walk along features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from .._support.threads import Item, Result
from ..config import ModelConfig
from ..errors import ShapeError
from ..weights.bundle import StateDict

DEFAULT_EPS = 1e-10
# The loudest bin of a mixture during the EM; louder mixtures are divided.
SCALE_FACTOR = 10.0


@dataclass(frozen=True)
class WienerOptions:
    """How the Wiener filter works, whatever it is given.

    Attributes
    ----------
    softmask, residual : bool
        As in `umx_np.wiener`.
    eps : float
        As in `umx_np.wiener`.
    """

    softmask: bool = False
    residual: bool = False
    eps: float = DEFAULT_EPS


class Network(Protocol):
    """One target network, cut where a track can be cut.

    `encode`, `combine` and `decode` treat frames independently; `scan` is the recurrence and
    carries a state from one call to the next. The parts of an activation that come from different
    places (the skip connection, the two directions) stay apart: a matrix product over several parts
    is the sum of the products.
    """

    config: ModelConfig
    dtype: Any

    def in_dtype(self, dtype: np.dtype) -> Network:
        """Return the network that computes in a dtype, which is one of `Backend.dtype_for`."""

    def encode(self, mags: np.ndarray) -> np.ndarray:
        """Normalise, fc1, bn1, tanh.

        Parameters
        ----------
        mags : ndarray [shape=(nb_frames, nb_channels, nb_input_bins)]
            Magnitudes of the bins that the network reads.

        Returns
        -------
        ndarray [shape=(nb_frames, hidden_size)]
        """

    def initial_state(self) -> Any:
        """Zero hidden and cell state of one direction of one layer."""

    def scan(
        self, layer: int, direction: int, parts: Sequence[np.ndarray], state: Any
    ) -> np.ndarray:
        """One direction of one LSTM layer over some frames.

        Parameters
        ----------
        layer : int
            Layer, from 0.
        direction : int
            0 walks the frames forward, 1 backward.
        parts : sequence of ndarray [shape=(nb_frames, any)]
            The input features side by side.
        state : object
            From `initial_state`; updated in place. Direction 1 must be given the last block first.

        Returns
        -------
        ndarray [shape=(nb_frames, lstm_hidden_size)]
        """

    def combine(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        """Compute fc2, bn2 and ReLU of the skip connection and the LSTM outputs.

        Returns an ndarray [shape=(nb_frames, hidden_size)].
        """

    def decode(self, z: np.ndarray, mags: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Compute fc3, bn3, output scaling and ReLU, and multiply with the mixture.

        Parameters
        ----------
        z : ndarray [shape=(nb_frames, hidden_size)]
            From `combine`.
        mags : ndarray [shape=(nb_frames, nb_channels, nb_bins)]
            Full-band magnitudes of the mixture.
        out : ndarray or None
            Where to put the result.

        Returns
        -------
        ndarray [shape=(nb_frames, nb_channels, nb_bins)]
            Magnitudes of the target.
        """

    def state_dict(self) -> StateDict:
        """Return copies of all parameters under PyTorch's names."""


class FilterInput(NamedTuple):
    """What a Wiener filter is given.

    Attributes
    ----------
    mix : complex ndarray [shape=(nb_channels, nb_frames, nb_bins)]
        STFT of the mixture.
    mags : ndarray [shape=(nb_targets, nb_frames, nb_channels or 1, nb_bins)]
        Magnitudes of the targets.
    max_abs : float
        The mixture and the estimates are divided by it during the iterations.
    """

    mix: np.ndarray
    mags: np.ndarray
    max_abs: float = 1.0


class WienerFilter(Protocol):
    """The Wiener filter of one device.

    Estimates are complex ndarrays [shape=(nb_sources, nb_channels, nb_frames, nb_bins)], put into
    `out` where one is given. Statistics are float64 [shape=(iterations, nb_sources, 4, nb_bins)]:
    ``|y_0|^2``, ``|y_1|^2``, real and imaginary part of ``y_0 y_1*``; for 1 or 2 channels.
    """

    options: WienerOptions

    def window(
        self, given: FilterInput, iterations: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the estimates of the frames given, as one window.

        `iterations` is as in `umx_np.wiener`; with 0, `max_abs` is not used.
        """

    def accumulate(self, given: FilterInput, statistics: np.ndarray, level: int) -> None:
        """Add the sums of y y^H after `level` iterations to ``statistics[level]``."""

    def apply(
        self, given: FilterInput, statistics: np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Return the estimates after all iterations, from statistics of a whole track."""


@runtime_checkable
class Backend(Protocol):
    """Operations on one device."""

    name: str
    threads: int
    precision: str

    @property
    def max_channels(self) -> int | None:
        """Channels that its Wiener filter takes at most; None for any number."""

    @property
    def copy_threads(self) -> int:
        """Threads of the processor for what is done beside."""

    def dtype_for(self, dtype: np.dtype) -> np.dtype:
        """Return the dtype in which it computes with samples or magnitudes of a real dtype."""

    def network(self, config: ModelConfig, state: StateDict) -> Network:
        """Prepare a network for inference; `state` is complete and checked."""

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        """Call `function` on every item, on the threads of this backend; results in order."""

    def frame(self, x: np.ndarray, window: np.ndarray, *, n_hop: int, nb_frames: int) -> np.ndarray:
        """Cut ``x`` [shape=(nb_channels, n)] to windowed frames.

        Returns an ndarray [shape=(nb_channels, nb_frames, n_fft)].
        """

    def overlap_add(
        self, frames: np.ndarray, window: np.ndarray, *, n_hop: int, out: np.ndarray
    ) -> None:
        """Add windowed frames into ``out`` [shape=(nb_channels, n)]."""

    def magnitude(
        self, spectrum: np.ndarray, *, nb_bins: int, mono: bool, out: np.ndarray | None = None
    ) -> np.ndarray:
        """Magnitudes of the first bins, averaged over the channels if `mono`.

        Returns an ndarray [shape=(nb_frames, nb_channels or 1, nb_bins)].
        """

    def linear(self, x: np.ndarray, weight: Any) -> np.ndarray:
        """Matrix product ``x weight^T`` with a weight from `pack_linear`."""

    def pack_linear(self, weight: np.ndarray) -> Any:
        """Prepare a weight [shape=(n, k)] for `linear`."""

    def wiener(self, options: WienerOptions) -> WienerFilter:
        """Return the Wiener filter with some options."""


@runtime_checkable
class WienerGradientBackend(Protocol):
    """A backend with a kernel for the gradient of the Wiener filter."""

    def wiener_gradient(self, given: FilterInput, d_y: np.ndarray, eps: float) -> np.ndarray:
        """Gradient of the magnitudes through one iteration without softmask and residual.

        Parameters
        ----------
        given : FilterInput
            As for `WienerFilter.window`; complex64 and float32, one or two channels.
        d_y : ndarray [shape=(nb_targets, nb_channels, nb_frames, nb_bins)], complex64
            Gradient of its result.
        eps : float
            As it was for it.

        Returns
        -------
        ndarray [shape as `mags`], float32
        """


def scale_of(peak: float, scale_factor: float = SCALE_FACTOR) -> float:
    """Divisor that keeps the EM in a comfortable range: ``max(1, peak / scale_factor)``."""
    return max(1.0, float(peak) / scale_factor)


def check_filter_channels(nb_channels: int) -> None:
    """Raise `ShapeError` for mixtures that the compiled Wiener filters do not take."""
    if nb_channels > 2:
        raise ShapeError(
            f"nb_channels={nb_channels}: the compiled Wiener filter takes 1 or 2 channels; "
            "use device='reference' for more"
        )
