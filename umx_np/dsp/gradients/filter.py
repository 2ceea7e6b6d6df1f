"""Backward pass of the multichannel Wiener filter.

Inside, bins come first and frames last, so that every sum is a product of matrices, one for each
bin: mixture x (B, C, F), magnitudes m (B, J, C or 1, F), estimates y (B, J, C, F), powers v
(B, J, F), spatial covariances R (B, J, C, C), covariance of the mixture Cxx (B, C, C, F).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ...backends.contracts import (
    DEFAULT_EPS,
    SCALE_FACTOR,
    Backend,
    FilterInput,
    WienerGradientBackend,
    WienerOptions,
    scale_of,
)
from ...config import check_int
from ...devices import get_backend
from ...errors import ShapeError
from ..wiener import check_positive

# Elements of one array of estimates while a block of bins is filtered: 1 MB in complex128. The
# filter treats bins independently, so that it needs about ten such arrays whatever the track.
_ELEMENTS_PER_BLOCK = 2**16


class EmStep(NamedTuple):
    """Values that the backward pass of one EM iteration reads."""

    y: np.ndarray
    """Estimates before the iteration [shape=(B, J, C, F)]."""
    v: np.ndarray
    """Powers [shape=(B, J, F)]."""
    weight: np.ndarray
    """Sums of the powers plus eps [shape=(B, J)]."""
    R: np.ndarray
    """Spatial covariances [shape=(B, J, C, C)]."""
    Cxx: np.ndarray
    """Covariance of the mixture, regularised [shape=(B, C, C, F)]."""
    q: np.ndarray
    """Cxx^-1 x [shape=(B, C, F)]."""
    p: np.ndarray
    """R q [shape=(B, J, C, F)]."""
    eps: float


def first_estimates(x: np.ndarray, m: np.ndarray, options: WienerOptions) -> np.ndarray:
    """Estimates [shape=(B, J, C, F)] before any iteration (6), (8), (10)."""
    mix = x[:, None]
    if options.softmask:
        y = mix * (m / (options.eps + m.sum(axis=1, keepdims=True)))
    else:
        y = m * _polar(mix)[1]
    if options.residual:
        y = np.concatenate([y, mix - y.sum(axis=1, keepdims=True)], axis=1)
    return y


def first_estimates_backward(
    d_y: np.ndarray, x: np.ndarray, m: np.ndarray, options: WienerOptions
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of the magnitudes and of the mixture (7), (9), (11)."""
    mix, d_x = x[:, None], np.zeros_like(x)
    if options.residual:
        d_x += d_y[:, -1]
        d_y = d_y[:, :-1] - d_y[:, -1:]
    if options.softmask:
        total = options.eps + m.sum(axis=1, keepdims=True)
        d_mask = _sum_to_channels((mix.conj() * d_y).real, m)
        shared = (d_mask * m).sum(axis=1, keepdims=True) / total
        d_x += (d_y * (m / total)).sum(axis=1)
        return (d_mask - shared) / total, d_x
    magnitude, phase = _polar(mix)
    d_m = _sum_to_channels((phase.conj() * d_y).real, m)
    d_phase = (m * d_y).sum(axis=1, keepdims=True)
    # What is left turns the phase: a longer x has the same one.
    d_phase -= phase * (phase.conj() * d_phase).real
    d_x += (d_phase / magnitude)[:, 0]
    return d_m, d_x


def _polar(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Magnitude and ``x / |x|``; in silence, where the phase is 0, infinity and 1.

    One over the infinite magnitude takes the gradient of that phase away.
    """
    magnitude = np.abs(x)
    # Silence here is also what is so small that one over it overflows.
    silent = magnitude < np.finfo(magnitude.dtype).tiny
    phase = np.where(silent, 1.0, x / np.where(silent, 1.0, magnitude))
    return np.where(silent, np.inf, magnitude), phase


def _sum_to_channels(d_m: np.ndarray, m: np.ndarray) -> np.ndarray:
    """Sum a gradient (B, J, C, F) over the channels if they share the magnitudes."""
    return d_m if d_m.shape[2] == m.shape[2] else d_m.sum(axis=2, keepdims=True)


def em_step(y: np.ndarray, x: np.ndarray, *, eps: float) -> tuple[np.ndarray, EmStep]:
    """One EM iteration, and what `em_step_backward` needs.

    Parameters
    ----------
    y : complex ndarray [shape=(B, J, C, F)]
        Estimates.
    x : complex ndarray [shape=(B, C, F)]
        Mixture.
    eps : float
        Added to divisors; its square root regularises the covariance of the mixture.

    Returns
    -------
    new : complex ndarray [shape as `y`]
        Refined estimates, equal to those of `umx_np.backends.reference.em_iteration`.
    cache : EmStep
        Holds `y` itself.
    """
    nb_bins, nb_sources, nb_channels, nb_frames = y.shape
    v = np.mean(y.real**2 + y.imag**2, axis=2)  # (13)
    weight = v.dtype.type(eps) + v.sum(axis=-1)  # (14)
    R = y @ _adjoint(y) / weight[..., None, None]  # (15)
    # (B, C * C, J) @ (B, J, F)
    flat = R.reshape(nb_bins, nb_sources, nb_channels**2).swapaxes(1, 2) @ v.astype(y.dtype)
    Cxx = flat.reshape(nb_bins, nb_channels, nb_channels, nb_frames)
    for c in range(nb_channels):
        Cxx[:, c, c] += v.dtype.type(np.sqrt(eps))  # (16)
    q = solve_mixture(Cxx, x, eps=eps)  # (17)
    p = R @ q[:, None]
    return v[:, :, None] * p, EmStep(y, v, weight, R, Cxx, q, p, eps)  # (18)


def em_step_backward(d_new: np.ndarray, cache: EmStep) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of the estimates before the iteration and of the mixture.

    Parameters
    ----------
    d_new : complex ndarray [shape=(B, J, C, F)]
        Gradient of the refined estimates.
    cache : EmStep
        From `em_step`.

    Returns
    -------
    d_y : complex ndarray [shape=(B, J, C, F)]
    d_x : complex ndarray [shape=(B, C, F)]
    """
    d_v, d_R, d_x = filter_backward(d_new, cache)
    return model_backward(d_v, d_R, cache), d_x


def filter_backward(d_new: np.ndarray, cache: EmStep) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Gradients of the powers, the spatial covariances and the mixture (19)-(23)."""
    v, R, p = cache.v, cache.R, cache.p
    h = solve_mixture(cache.Cxx, unfiltered(d_new, v, R), eps=cache.eps)  # (20)
    # The gain reaches the output directly and through Cxx^-1; the difference holds both (21).
    e = d_new - h[:, None]
    d_v = (p.real * e.real + p.imag * e.imag).sum(axis=2)  # (22)
    d_R = (v[:, :, None] * e) @ _adjoint(cache.q)[:, None]  # (23)
    return d_v, d_R, h


def unfiltered(d_new: np.ndarray, v: np.ndarray, R: np.ndarray) -> np.ndarray:
    """Gradient of ``q`` = Cxx^-1 x: sum over the sources of v R^H d_new (19)."""
    return (_adjoint(R) @ (v[:, :, None] * d_new)).sum(axis=1)


def model_backward(d_v: np.ndarray, d_R: np.ndarray, cache: EmStep) -> np.ndarray:
    """Gradient of the estimates, given those of their powers and spatial covariances (24)-(26)."""
    y, R = cache.y, cache.R
    d_S = d_R / cache.weight[..., None, None]
    d_weight = -(R.conj() * d_S).real.sum(axis=(2, 3))  # (24)
    d_v = d_v + d_weight[..., None]  # (25)
    return (d_S + _adjoint(d_S)) @ y + (2.0 / y.shape[2]) * d_v[:, :, None] * y  # (26)


def solve_mixture(Cxx: np.ndarray, x: np.ndarray, *, eps: float) -> np.ndarray:
    """``Cxx^-1 x`` for Hermitian Cxx [shape=(B, C, C, F)] and x [shape=(B, C, F)].

    Cxx is not smaller than sqrt(eps) times the identity.
    """
    nb_channels = x.shape[1]
    if nb_channels == 1:
        return x / Cxx[:, 0].real
    if nb_channels == 2:
        left, right, cross = Cxx[:, 0, 0].real, Cxx[:, 1, 1].real, Cxx[:, 0, 1]
        determinant = left * right - (cross.real**2 + cross.imag**2)
        # Of two equal channels with masks far above 1 nothing but rounding errors would be left.
        floor = np.sqrt(eps)
        determinant = np.maximum(determinant, floor * (left + right - floor))
        q = np.empty_like(x)
        q[:, 0] = (right * x[:, 0] - cross * x[:, 1]) / determinant
        q[:, 1] = (left * x[:, 1] - cross.conj() * x[:, 0]) / determinant
        return q
    matrices, vectors = Cxx.transpose(0, 3, 1, 2), x.transpose(0, 2, 1)[..., None]
    return np.linalg.solve(matrices, vectors)[..., 0].transpose(0, 2, 1)


def _adjoint(a: np.ndarray) -> np.ndarray:
    """Conjugate transpose of the last two axes."""
    return a.conj().swapaxes(-1, -2)


def wiener_backward(
    d_y: np.ndarray,
    targets_spectrograms: np.ndarray,
    mix_stft: np.ndarray,
    iterations: int = 1,
    softmask: bool = False,
    residual: bool = False,
    scale_factor: float = SCALE_FACTOR,
    eps: float = DEFAULT_EPS,
    *,
    device: str | Backend = "cpu",
) -> tuple[np.ndarray, np.ndarray]:
    """Gradients of the magnitudes and of the mixture, given that of `umx_np.wiener`.

    Parameters
    ----------
    d_y : np.ndarray [shape=(nb_frames, nb_bins, nb_channels, nb_sources)], complex
        Gradient of the STFTs of the sources.
    targets_spectrograms : np.ndarray [shape=(nb_frames, nb_bins, nb_channels or 1, nb_targets)]
        Magnitudes of the targets, as they were for the filter.
    mix_stft : np.ndarray [shape=(nb_frames, nb_bins, nb_channels)], complex
        STFT of the mixture, as it was for the filter.
    iterations, softmask, residual, scale_factor, eps
        As they were for the filter.
    device : str or Backend
        On whose threads to compute.

    Returns
    -------
    d_targets : np.ndarray [shape as `targets_spectrograms`]
        In the dtype of the magnitudes.
    d_mix : np.ndarray [shape as `mix_stft`], complex
        In the dtype of the mixture. In silent bins, where the phase is not defined, its part
        through the phase is 0.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    ConfigError
        If `scale_factor` or `eps` is not positive, or `iterations` is negative.

    Notes
    -----
    The filter is run again instead of keeping its intermediate results, some bins at a time, and,
    like the filter, in double precision whatever the dtype. Memory beyond the arguments and results
    does not grow with the number of bins.

    The divisor of loud mixtures depends on the mixture by its loudest bin alone. Bins that are
    equally loud share its gradient, as in PyTorch.
    """
    d_y, mags, mix = np.asarray(d_y), np.asarray(targets_spectrograms), np.asarray(mix_stft)
    nb_sources = _check_shapes(d_y, mags, mix, residual)
    iterations = check_int("iterations", iterations, 0)
    check_positive(scale_factor=scale_factor, eps=eps)
    options = WienerOptions(bool(softmask), bool(residual), float(eps))
    loudness = np.abs(mix)
    peak = float(loudness.max(initial=0.0))
    scale = scale_of(peak, scale_factor)
    d_mags, d_mix = np.empty_like(mags), np.empty_like(mix)

    def some_bins(bins: slice) -> float:
        x = np.ascontiguousarray(mix[:, bins].transpose(1, 2, 0), dtype=np.complex128)
        m = np.ascontiguousarray(mags[:, bins].transpose(1, 3, 2, 0), dtype=np.float64)
        d = np.ascontiguousarray(d_y[:, bins].transpose(1, 3, 2, 0), dtype=np.complex128)
        d_x, d_scale = np.zeros_like(x), 0.0
        if iterations:
            y = first_estimates(x, m, options)
            d, d_x, d_scale = _iterations_backward(d, y, x, iterations, scale, eps)
        d_m, d_first = first_estimates_backward(d, x, m, options)
        d_mags[:, bins] = d_m.transpose(3, 0, 2, 1)
        d_mix[:, bins] = (d_first + d_x).transpose(2, 0, 1)
        return d_scale

    size = max(1, _ELEMENTS_PER_BLOCK // max(1, len(mix) * mix.shape[2] * nb_sources))
    blocks = [slice(first, first + size) for first in range(0, mix.shape[1], size)]
    d_scale = sum(get_backend(device).map(some_bins, blocks))
    if iterations and peak >= scale_factor:
        # The larger of 1 and the peak over the factor; at a draw each takes half (29).
        share = d_scale / scale_factor * (0.5 if peak == scale_factor else 1.0)
        loudest = loudness == loudness.max()
        d_mix[loudest] += share / loudest.sum() * (mix[loudest] / peak)
    return d_mags, d_mix


def wiener_magnitudes_backward(
    d_y: np.ndarray,
    targets_spectrograms: np.ndarray,
    mix_stft: np.ndarray,
    iterations: int = 1,
    softmask: bool = False,
    residual: bool = False,
    scale_factor: float = SCALE_FACTOR,
    eps: float = DEFAULT_EPS,
    *,
    device: str | Backend = "cpu",
) -> np.ndarray:
    """Gradient of the magnitudes alone, which is all that the training of networks needs.

    Parameters
    ----------
    d_y, targets_spectrograms, mix_stft, iterations, softmask, residual, scale_factor, eps, device
        As for `wiener_backward`.

    Returns
    -------
    np.ndarray [shape as `targets_spectrograms`]
        In the dtype of the magnitudes.

    Raises
    ------
    ShapeError, ConfigError
        As `wiener_backward`.

    Notes
    -----
    The usual case, one iteration on one or two channels in single precision without softmask and
    residual, runs in the kernel of a backend that has one, also in double precision inside; all
    else is the first result of `wiener_backward`.
    """
    ops = get_backend(device)
    d_y, mags, mix = np.asarray(d_y), np.asarray(targets_spectrograms), np.asarray(mix_stft)
    _check_shapes(d_y, mags, mix, residual)
    check_positive(scale_factor=scale_factor, eps=eps)
    single = mix.dtype == d_y.dtype == np.complex64 and mags.dtype == np.float32
    plain = iterations == 1 and not softmask and not residual and mix.shape[2] <= 2 and d_y.size
    if not (isinstance(ops, WienerGradientBackend) and single and plain):
        options = (iterations, softmask, residual, scale_factor, eps)
        return wiener_backward(d_y, mags, mix, *options, device=ops)[0]
    given = FilterInput(
        np.ascontiguousarray(mix.transpose(2, 0, 1)),
        np.ascontiguousarray(mags.transpose(3, 0, 2, 1)),
        scale_of(float(np.abs(mix).max(initial=0.0)), scale_factor),
    )
    d_y = np.ascontiguousarray(d_y.transpose(3, 2, 0, 1))
    return ops.wiener_gradient(given, d_y, float(eps)).transpose(1, 3, 2, 0)


def _check_shapes(d_y: np.ndarray, mags: np.ndarray, mix: np.ndarray, residual: bool) -> int:
    """Number of sources; an error if the arguments do not fit each other."""
    nb_sources = mags.shape[-1] + bool(residual) if mags.ndim else 0
    if (
        mags.ndim != 4
        or mix.dtype.kind != "c"
        or mix.ndim != 3
        or mags.shape[:2] != mix.shape[:2]
        or mags.shape[2] not in (1, mix.shape[2])
        or d_y.shape != (*mix.shape, nb_sources)
    ):
        raise ShapeError(
            f"d_y with shape={d_y.shape}, targets_spectrograms with shape={mags.shape} and "
            f"mix_stft with shape={mix.shape}, dtype={mix.dtype} do not fit residual={residual}"
        )
    return nb_sources


def _iterations_backward(
    d_y: np.ndarray, first: np.ndarray, x: np.ndarray, iterations: int, scale: float, eps: float
) -> tuple[np.ndarray, np.ndarray, float]:
    """Gradients of the first estimates, of the mixture and of the scale (27), (28)."""
    y, mix = first / scale, x / scale
    steps = []
    for _ in range(iterations):
        y, step = em_step(y, mix, eps=eps)
        steps.append(step)
    d_scale = _inner(d_y, y)
    d_y = d_y * scale
    d_x = np.zeros_like(x)
    for step in reversed(steps):
        d_y, d_mix = em_step_backward(d_y, step)
        d_x += d_mix
    d_scale -= (_inner(d_y, steps[0].y) + _inner(d_x, mix)) / scale
    return d_y / scale, d_x / scale, d_scale


def _inner(a: np.ndarray, b: np.ndarray) -> float:
    """``Re(sum(conj(a) b))``."""
    return float(np.vdot(a, b).real)
