"""Multichannel Wiener filtering by expectation-maximisation, as in Open-Unmix and norbert.

The model: each source is Gaussian in every time-frequency bin, with a power that changes over time
and a spatial covariance that does not. See Duong, Vincent and Gribonval, "Under-determined
reverberant audio source separation using a full-rank spatial covariance model", IEEE TASLP 2010,
and Nugraha, Liutkus and Vincent, "Multichannel audio source separation with deep neural networks",
IEEE/ACM TASLP 2016. It is a simplified EM: the covariances are those of the current estimates, not
posterior ones.
"""

from __future__ import annotations

import numpy as np

from ..backends.contracts import (
    DEFAULT_EPS,
    SCALE_FACTOR,
    Backend,
    FilterInput,
    WienerOptions,
    scale_of,
)
from ..backends.reference import em_iteration
from ..config import check_array, check_int
from ..devices import get_backend
from ..errors import ConfigError, ShapeError, shortened


def check_positive(**values: float) -> None:
    """Raise `ConfigError` for what is not a positive number, NaN and infinity included."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
            raise ConfigError(f"{name}={shortened(value)} must be a number")
        if not 0 < value < np.inf:
            raise ConfigError(f"{name}={shortened(value)} must be positive and finite")


def _as_complex(x: np.ndarray, name: str) -> np.ndarray:
    """View real and imaginary parts on a last axis of 2 as complex numbers."""
    if x.ndim == 0 or x.shape[-1] != 2:
        raise ShapeError(
            f"{name} has shape={x.shape}; a real array needs a last axis of 2 (re, im)"
        )
    dtype = np.result_type(x.dtype, np.float32)
    return np.ascontiguousarray(x, dtype=dtype).view(np.result_type(dtype, np.complex64))[..., 0]


def _parts(x: np.ndarray, axis: int) -> np.ndarray:
    """Real and imaginary parts on a new axis."""
    return np.stack([x.real, x.imag], axis=axis)


def wiener(
    targets_spectrograms: np.ndarray,
    mix_stft: np.ndarray,
    iterations: int = 1,
    softmask: bool = False,
    residual: bool = False,
    scale_factor: float = SCALE_FACTOR,
    eps: float = DEFAULT_EPS,
    *,
    device: str | Backend = "auto",
) -> np.ndarray:
    """Separate a mixture by the magnitudes of its sources.

    Parameters
    ----------
    targets_spectrograms : np.ndarray [shape=(nb_frames, nb_bins, nb_channels, nb_targets)]
        Magnitudes of the targets. One channel is shared by all channels of the mixture.
    mix_stft : np.ndarray [shape=(nb_frames, nb_bins, nb_channels)], complex
        STFT of the mixture; or real with a last axis of 2 (real, imaginary), as in Open-Unmix.
    iterations : int
        EM iterations; 0 returns the first estimates.
    softmask : bool
        First estimates are the mixture times the share of each target in the sum of the magnitudes,
        instead of the target's magnitude with the phase of the mixture.
    residual : bool
        Append the mixture minus the targets as one more source, before any iteration.
    scale_factor : float
        Mixtures louder than this are scaled down to it while the EM runs.
    eps : float
        Added to divisors; its square root regularises the covariance of the mixture.
    device : str or Backend
        ``'reference'`` computes in NumPy for any number of channels, ``'cpu'`` and ``'cuda'`` run
        a compiled filter for 1 or 2 channels in complex64. ``'auto'`` takes that of the processor
        where it fits.

    Returns
    -------
    np.ndarray [shape=(nb_frames, nb_bins, nb_channels, nb_sources)], complex
        STFTs of the sources; for a real mixture [shape=(nb_frames, nb_bins, nb_channels, 2,
        nb_sources)] real, as in Open-Unmix. Arguments are never changed.

    Raises
    ------
    ShapeError
        If the shapes do not fit, or the device cannot take the number of channels.
    ConfigError
        If an option is out of range.

    Notes
    -----
    Same result as ``openunmix.filtering.wiener`` in float64, which this follows down to its eps. In
    float32 the original loses precision on near-mono mixtures and can return NaN; here the filter
    runs in float64 whatever the dtype.
    """
    mix = check_array("mix_stft", mix_stft)
    mags = check_array("targets_spectrograms", targets_spectrograms)
    if mags.ndim != 4:
        raise ShapeError(
            f"targets_spectrograms has shape={mags.shape}; "
            "it must be (nb_frames, nb_bins, nb_channels, nb_targets)"
        )
    was_real = mix.dtype.kind != "c"
    if was_real:
        mix = _as_complex(mix, "mix_stft")
    if mix.ndim != 3 or mix.shape[:2] != mags.shape[:2] or mags.shape[2] not in (1, mix.shape[2]):
        raise ShapeError(
            f"mix_stft with shape={np.shape(mix_stft)} does not fit targets_spectrograms with "
            f"shape={mags.shape}"
        )
    iterations = check_int("iterations", iterations, 0)
    check_positive(scale_factor=scale_factor, eps=eps)
    if mags.shape[3] == 0:
        raise ShapeError("targets_spectrograms holds no target")
    single = mix.dtype == np.complex64 and mags.dtype != np.float64
    if device == "auto":
        device = "cpu" if single and mix.shape[2] <= 2 else "reference"
    ops = get_backend(device)
    dtype = np.result_type(ops.dtype_for(mix.real.dtype), np.complex64)
    mix = mix.astype(dtype, copy=False)
    mags = mags.astype(ops.dtype_for(mags.dtype), copy=False)
    given = FilterInput(
        np.ascontiguousarray(mix.transpose(2, 0, 1)),
        np.ascontiguousarray(mags.transpose(3, 0, 2, 1)),
        scale_of(np.abs(mix).max(initial=0.0), scale_factor),
    )
    options = WienerOptions(bool(softmask), bool(residual), float(eps))
    y = ops.wiener(options).window(given, iterations).transpose(2, 3, 1, 0)
    return _parts(y, axis=3) if was_real else y


def expectation_maximization(
    y: np.ndarray,
    x: np.ndarray,
    iterations: int = 2,
    eps: float = DEFAULT_EPS,
    batch_size: int = 200,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Refine estimates of the sources of a mixture.

    Parameters
    ----------
    y : np.ndarray [shape=(nb_frames, nb_bins, nb_channels, nb_sources)], complex
        First estimates; or real [shape=(nb_frames, nb_bins, nb_channels, 2, nb_sources)].
    x : np.ndarray [shape=(nb_frames, nb_bins, nb_channels)], complex
        STFT of the mixture; or real with a last axis of 2.
    iterations : int
        Number of iterations, at least 1.
    eps : float
        Added to divisors; its square root regularises the covariance of the mixture.
    batch_size : int
        Frames that Open-Unmix handles together to save memory. It changes nothing here, as there
        it changes nothing but the rounding.

    Returns
    -------
    y : np.ndarray, as the argument
        Refined estimates; the argument is not changed.
    v : np.ndarray [shape=(nb_frames, nb_bins, nb_sources)]
        Power spectral densities that the last filter used.
    R : np.ndarray [shape=(nb_bins, nb_channels, nb_channels, nb_sources)], complex
        Spatial covariance matrices that the last filter used; for real arguments
        [shape=(nb_bins, nb_channels, nb_channels, 2, nb_sources)]. (Open-Unmix returns a list with
        one matrix a source.)

    Notes
    -----
    Follows ``openunmix.filtering.expectation_maximization``, in double precision. Any number of
    channels.
    """
    y, x = check_array("y", y), check_array("x", x)
    was_real = y.dtype.kind != "c"
    if was_real:
        if y.ndim != 5:
            raise ShapeError(f"y has shape={y.shape}; real estimates have 5 axes, complex ones 4")
        y = _as_complex(np.moveaxis(y, 3, -1), "y")
    if x.dtype.kind != "c":
        x = _as_complex(x, "x")
    if y.ndim != 4 or x.shape != y.shape[:3]:
        raise ShapeError(f"x with shape={x.shape} does not fit y with shape={y.shape}")
    iterations = check_int("iterations", iterations, 1)
    check_int("batch_size", batch_size, 1)
    check_positive(eps=eps)
    dtype = y.dtype
    new, mix = y.astype(np.complex128), x.astype(np.complex128)
    for _ in range(iterations):
        new, v, R = em_iteration(new, mix, eps=float(eps))
    new, v, R = new.astype(dtype), v.astype(dtype.type(0).real.dtype), R.astype(dtype)
    return (_parts(new, 3), v, _parts(R, 3)) if was_real else (new, v, R)
