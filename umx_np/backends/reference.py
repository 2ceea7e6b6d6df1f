"""The specification: every operation in plain NumPy, in the dtype of its arguments.

Nothing here is fast. Each kernel of the other backends names its twin as its oracle, in this file
or in `umx_np.layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .._support.threads import Item, Result
from ..config import ModelConfig
from ..layers import stages
from ..layers.concatenation import concatenate_forward
from ..layers.linear import linear_forward
from ..layers.lstm import lstm_inputs, lstm_scan, lstm_weights
from ..layers.scaling import mask_forward
from ..weights.bundle import StateDict
from .contracts import FilterInput, Network, WienerFilter, WienerOptions


def frame(x: np.ndarray, window: np.ndarray, *, n_hop: int, nb_frames: int) -> np.ndarray:
    """Windowed frames of x [shape=(nb_channels, n)]."""
    return np.stack(
        [x[:, t * n_hop : t * n_hop + len(window)] * window for t in range(nb_frames)], 1
    )


def overlap_add(frames: np.ndarray, window: np.ndarray, *, n_hop: int, out: np.ndarray) -> None:
    """Add windowed frames into out [shape=(nb_channels, n)]."""
    for t in range(frames.shape[1]):
        out[:, t * n_hop : t * n_hop + len(window)] += frames[:, t] * window


def magnitude(spectrum: np.ndarray, *, nb_bins: int, mono: bool) -> np.ndarray:
    """Magnitudes [shape=(nb_frames, nb_channels or 1, nb_bins)]."""
    mags = np.abs(spectrum[..., :nb_bins]).transpose(1, 0, 2)
    return mags.mean(axis=1, keepdims=True, dtype=mags.dtype) if mono else mags


# -- Wiener filter -----------------------------------------------------------------------------
# x mixture (F, B, C) and y estimates (F, B, C, J) are complex; v power (F, B, J); R (B, C, C, J).


def first_estimates(mags: np.ndarray, mix: np.ndarray, options: WienerOptions) -> np.ndarray:
    """Estimates before any iteration.

    Parameters
    ----------
    mags : ndarray [shape=(nb_frames, nb_bins, nb_channels or 1, nb_targets)]
        Magnitudes of the targets.
    mix : complex ndarray [shape=(nb_frames, nb_bins, nb_channels)]
        STFT of the mixture.
    options : WienerOptions
        As in `umx_np.wiener`; for a soft mask the eps is added to the sum of the magnitudes (sic,
        not of the powers).

    Returns
    -------
    complex ndarray [shape=(nb_frames, nb_bins, nb_channels, nb_sources)]
    """
    x = mix[..., None]
    if options.softmask:
        y = x * (mags / (options.eps + mags.sum(axis=-1, keepdims=True)))
    else:
        # The phase of a silent bin is 0, as atan2(0, 0) is.
        silent = x == 0
        y = mags * np.where(silent, 1.0, x / np.where(silent, 1.0, np.abs(x))).astype(mix.dtype)
    if options.residual:
        y = np.concatenate([y, x - y.sum(axis=-1, keepdims=True)], axis=-1)
    return y


def em_iteration(
    y: np.ndarray, x: np.ndarray, *, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One iteration of the EM; returns the new y, and v and R of the old one."""
    v = np.mean(np.abs(y) ** 2, axis=2)
    R = np.einsum("fbcj,fbdj->bcdj", y, y.conj()) / (eps + v.sum(axis=0))[:, None, None, :]
    return em_filter(y, x, v, R, eps=eps), v, R


def em_filter(
    y: np.ndarray, x: np.ndarray, v: np.ndarray, R: np.ndarray, *, eps: float
) -> np.ndarray:
    """Apply the Wiener gains v_j R_j Cxx^-1 to the mixture."""
    nb_channels = x.shape[-1]
    Cxx = np.einsum("fbj,bcdj->fbcd", v, R) + np.sqrt(eps) * np.eye(nb_channels, dtype=v.dtype)
    w = np.linalg.solve(Cxx, x[..., None])[..., 0]
    return np.einsum("fbj,bcdj,fbd->fbcj", v, R, w).astype(y.dtype)


def _sources(y: np.ndarray, mix: np.ndarray) -> np.ndarray:
    """Estimates (F, B, C, J) in the layout of a backend and the dtype of its mixture."""
    return np.ascontiguousarray(y.transpose(3, 2, 0, 1)).astype(mix.dtype)


def _scaled_estimates(given: FilterInput, options: WienerOptions) -> tuple[np.ndarray, np.ndarray]:
    """First estimates y (F, B, C, J) and mixture x (F, B, C) in float64, divided by max_abs."""
    mix, mags, max_abs = given
    x = mix.transpose(1, 2, 0).astype(np.complex128)
    m = mags.transpose(1, 3, 2, 0).astype(np.float64)
    y = first_estimates(m, x, options)
    return y / max_abs, x / max_abs


def _covariance_from_sums(sums: np.ndarray, nb_channels: int, eps: float) -> np.ndarray:
    """R (B, C, C, J) from the sums (J, 4, B) of a whole track."""
    r00, r11, re, im = sums.transpose(1, 2, 0)
    if nb_channels == 1:
        return (r00 / (eps + r00))[:, None, None, :].astype(np.complex128)
    R = np.stack([np.stack([r00, re + 1j * im], 1), np.stack([re - 1j * im, r11], 1)], 1)
    return R / (eps + (r00 + r11) / 2)[:, None, None, :]


class ReferenceFilter:
    """The Wiener filter in double precision throughout, for any number of channels.

    See Also
    --------
    umx_np.backends.contracts.WienerFilter : the contract.
    """

    def __init__(self, options: WienerOptions) -> None:
        self.options = options

    def window(
        self, given: FilterInput, iterations: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        given = given if iterations else given._replace(max_abs=1.0)
        y, x = _scaled_estimates(given, self.options)
        for _ in range(iterations):
            y, _, _ = em_iteration(y, x, eps=self.options.eps)
        return into(out, _sources(y * given.max_abs, given.mix))

    def accumulate(self, given: FilterInput, statistics: np.ndarray, level: int) -> None:
        y, x = _scaled_estimates(given, self.options)
        y = self._refined(y, x, statistics[:level])
        sums = statistics[level].transpose(1, 2, 0)
        sums[0] += (np.abs(y[:, :, 0]) ** 2).sum(axis=0)
        if x.shape[-1] == 2:
            sums[1] += (np.abs(y[:, :, 1]) ** 2).sum(axis=0)
            cross = (y[:, :, 0] * y[:, :, 1].conj()).sum(axis=0)
            sums[2] += cross.real
            sums[3] += cross.imag

    def apply(
        self, given: FilterInput, statistics: np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        y, x = _scaled_estimates(given, self.options)
        return into(out, _sources(self._refined(y, x, statistics) * given.max_abs, given.mix))

    def _refined(self, y: np.ndarray, x: np.ndarray, statistics: np.ndarray) -> np.ndarray:
        """Apply the filters of some iterations."""
        eps = self.options.eps
        for sums in statistics:
            v = np.mean(np.abs(y) ** 2, axis=2)
            y = em_filter(y, x, v, _covariance_from_sums(sums, x.shape[-1], eps), eps=eps)
        return y


# -- network -----------------------------------------------------------------------------------


def into(out: np.ndarray | None, result: np.ndarray) -> np.ndarray:
    """Put a result where the caller wants it."""
    if out is None:
        return result
    out[...] = result
    return out


class ReferenceNetwork:
    """Evaluation mode of the network whose layers are `umx_np.layers`; computes in `dtype`.

    See Also
    --------
    umx_np.backends.contracts.Network : the contract.
    """

    def __init__(
        self, config: ModelConfig, state: StateDict, dtype: np.dtype | type = np.float64
    ) -> None:
        self.config = config
        self.dtype = np.dtype(dtype)
        self._original = state
        self._state = {
            name: value.astype(dtype) if value.dtype.kind == "f" else value
            for name, value in state.items()
        }
        self._norm = stages.running_norm(self._state)

    def __reduce__(self) -> tuple[Any, ...]:
        return ReferenceNetwork, (self.config, self._original, self.dtype)

    def in_dtype(self, dtype: np.dtype) -> ReferenceNetwork:
        if dtype == self.dtype:
            return self
        return ReferenceNetwork(self.config, self._original, dtype)

    def encode(self, mags: np.ndarray) -> np.ndarray:
        return stages.encode(mags, self._state, self._norm)[1]

    def initial_state(self) -> tuple[np.ndarray, np.ndarray]:
        size = self.config.lstm_hidden_size
        return np.zeros(size, self.dtype), np.zeros(size, self.dtype)

    def scan(
        self,
        layer: int,
        direction: int,
        parts: Sequence[np.ndarray],
        state: tuple[np.ndarray, np.ndarray],
    ) -> np.ndarray:
        W_ih, W_hh, b_ih, b_hh = lstm_weights(self._state, layer, direction)
        inputs = lstm_inputs(concatenate_forward(parts), W_ih, b_ih, b_hh)
        return lstm_scan(inputs, W_hh, *state, reverse=bool(direction))

    def combine(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        return stages.combine(parts, self._state, self._norm)[1]

    def decode(self, z: np.ndarray, mags: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        _, mask = stages.decode(z, mags.shape, self._state, self._norm)
        return into(out, mask_forward(mask, mags))

    def state_dict(self) -> StateDict:
        return {name: value.copy() for name, value in self._original.items()}


class ReferenceBackend:
    """All operations in NumPy; see `umx_np.backends.contracts.Backend`."""

    name = "reference"
    threads = copy_threads = 1
    max_channels: int | None = None
    precision = "full"

    def __repr__(self) -> str:
        return "reference (NumPy)"

    def dtype_for(self, dtype: np.dtype) -> np.dtype:
        return np.result_type(dtype, np.float32)

    def network(self, config: ModelConfig, state: StateDict) -> Network:
        return ReferenceNetwork(config, state)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        return [function(item) for item in items]

    def frame(self, x: np.ndarray, window: np.ndarray, *, n_hop: int, nb_frames: int) -> np.ndarray:
        return frame(x, window, n_hop=n_hop, nb_frames=nb_frames)

    def overlap_add(
        self, frames: np.ndarray, window: np.ndarray, *, n_hop: int, out: np.ndarray
    ) -> None:
        overlap_add(frames, window, n_hop=n_hop, out=out)

    def magnitude(
        self, spectrum: np.ndarray, *, nb_bins: int, mono: bool, out: np.ndarray | None = None
    ) -> np.ndarray:
        return into(out, magnitude(spectrum, nb_bins=nb_bins, mono=mono))

    def linear(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        return linear_forward(x, weight)

    def pack_linear(self, weight: np.ndarray) -> np.ndarray:
        return weight

    def wiener(self, options: WienerOptions) -> WienerFilter:
        return ReferenceFilter(options)
