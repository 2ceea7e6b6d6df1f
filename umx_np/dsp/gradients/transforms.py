"""Backward passes of the short-time Fourier transform, its inverse and its magnitudes."""

from __future__ import annotations

import math

import numpy as np

from ...backends.contracts import Backend
from ...devices import get_backend
from ...errors import ShapeError
from ...framing.geometry import StftGeometry
from ...framing.transform import Transform


def stft_backward(
    d_X: np.ndarray,
    nb_timesteps: int,
    n_fft: int = 4096,
    n_hop: int = 1024,
    center: bool = True,
    *,
    device: str | Backend = "cpu",
) -> np.ndarray:
    """Gradient of a signal, given that of its `umx_np.stft`.

    Parameters
    ----------
    d_X : np.ndarray [shape=(..., nb_bins, nb_frames)], complex
        Gradient of the spectra.
    nb_timesteps : int
        Samples of the signal.
    n_fft, n_hop, center
        As they were for the transform. Both filterbanks have the same gradient.
    device : str or Backend
        Where to compute.

    Returns
    -------
    np.ndarray [shape=(..., nb_timesteps)]
        float32 for complex64, float64 for complex128.

    Raises
    ------
    ShapeError
        If the array is no gradient of the spectra of such a signal.
    """
    geometry = StftGeometry(n_fft, n_hop, center)
    nb_frames = geometry.nb_frames(nb_timesteps)
    d_X = _complex_array(d_X, "d_X")
    if d_X.shape[-2:] != (geometry.nb_bins, nb_frames):
        raise ShapeError(
            f"d_X has shape={d_X.shape}; {nb_timesteps} samples have spectra with "
            f"nb_bins={geometry.nb_bins}, nb_frames={nb_frames}"
        )
    transform = Transform(geometry, "torch", get_backend(device), d_X.real.dtype)
    # The inverse transform with other weights of the bins is the adjoint of the forward one (4).
    spectra = d_X.reshape(-1, *d_X.shape[-2:]).swapaxes(-1, -2)
    weights = (1.0 / geometry.inverse_weights()).astype(transform.dtype)
    extended = geometry.nb_extended(nb_timesteps)
    d_padded = transform.inverse_all(spectra * weights, extended + 2 * geometry.pad)
    d_signal = _unpad(d_padded, geometry.pad, extended)[:, :nb_timesteps]
    return np.ascontiguousarray(d_signal).reshape(*d_X.shape[:-2], nb_timesteps)


def istft_backward(
    d_signal: np.ndarray,
    nb_frames: int,
    n_fft: int = 4096,
    n_hop: int = 1024,
    center: bool = True,
    *,
    device: str | Backend = "cpu",
) -> np.ndarray:
    """Gradient of spectra, given that of their `umx_np.istft`.

    Parameters
    ----------
    d_signal : np.ndarray [shape=(..., length)], real
        Gradient of the signal, of whatever length it was asked for.
    nb_frames : int
        Frames of the spectra.
    n_fft, n_hop, center
        As they were for the transform. Both filterbanks have the same gradient.
    device : str or Backend
        Where to compute.

    Returns
    -------
    np.ndarray [shape=(..., nb_bins, nb_frames)], complex
        complex64 for float32, complex128 for float64. The transform ignores the imaginary parts of
        the first and, for an even `n_fft`, of the last bin; their gradients are zero.

    Raises
    ------
    ShapeError
        If `d_signal` is not real, or there is no frame.
    """
    d_signal = np.asarray(d_signal)
    if d_signal.ndim == 0 or d_signal.dtype not in (np.float32, np.float64):
        raise ShapeError(
            f"d_signal must be a float32 or float64 signal, not shape={d_signal.shape}, "
            f"dtype={d_signal.dtype}"
        )
    if nb_frames < 1:
        raise ShapeError(f"nb_frames={nb_frames}: there is no frame")
    geometry = StftGeometry(n_fft, n_hop, center)
    transform = Transform(geometry, "torch", get_backend(device), d_signal.dtype)
    signals = d_signal.reshape(math.prod(d_signal.shape[:-1]), d_signal.shape[-1])
    # What was cut off or filled with zeros has no influence (5).
    covered = geometry.nb_samples_of(nb_frames)
    lo, hi = geometry.pad, min(geometry.pad + signals.shape[1], covered)
    d_padded = np.zeros((len(signals), covered), transform.dtype)
    if hi > lo:
        envelope = geometry.inverse_envelope(lo, hi, nb_frames).astype(transform.dtype)
        d_padded[:, lo:hi] = signals[:, : hi - lo] * envelope
    weights = geometry.inverse_weights().astype(transform.dtype)  # those of (3)
    out = transform.forward_all(d_padded, nb_frames)
    out *= weights
    return out.swapaxes(-1, -2).reshape(*d_signal.shape[:-1], geometry.nb_bins, nb_frames)


def magnitude_backward(d_mags: np.ndarray, X: np.ndarray, *, mono: bool = False) -> np.ndarray:
    """Gradient of a spectrum, given that of its magnitudes.

    The separator does not need it, since its networks see the magnitudes of the mixture as
    constants. It is for losses on the magnitudes of the stems.

    Parameters
    ----------
    d_mags : np.ndarray [shape=(..., nb_channels or 1, nb_bins, nb_frames)]
        Gradient of ``abs(X)``, or of its mean over the channels if `mono`.
    X : np.ndarray [shape=(..., nb_channels, nb_bins, nb_frames)], complex
        The spectrum.
    mono : bool
        Whether the magnitudes were averaged over the channels.

    Returns
    -------
    np.ndarray [shape as `X`], complex
        0 where the spectrum is 0, as PyTorch has it.

    Raises
    ------
    ShapeError
        If the shapes do not fit.
    """
    X, d_mags = _complex_array(X, "X"), np.asarray(d_mags)
    expected = (*X.shape[:-3], 1, *X.shape[-2:]) if mono else X.shape
    if X.ndim < 3 or d_mags.shape != expected:
        raise ShapeError(f"d_mags has shape={d_mags.shape}; X, shape={X.shape}, needs {expected}")
    share = 1.0 / X.shape[-3] if mono else 1.0
    silent = X == 0
    phase = np.where(silent, 0.0, X / np.where(silent, 1.0, np.abs(X)))
    return (d_mags * share * phase).astype(X.dtype)


def _complex_array(x: np.ndarray, name: str) -> np.ndarray:
    """Return an array of at least two axes in complex64 or complex128, or raise `ShapeError`."""
    x = np.asarray(x)
    if x.ndim < 2 or x.dtype not in (np.complex64, np.complex128):
        raise ShapeError(
            f"{name} has shape={x.shape}, dtype={x.dtype}; it must be a complex64 or complex128 "
            "spectrum"
        )
    return x


def _unpad(d_padded: np.ndarray, pad: int, size: int) -> np.ndarray:
    """Add the gradients of reflected samples to those of their originals (2)."""
    d_signal = d_padded[:, pad : pad + size].copy()
    if pad:
        d_signal[:, 1 : pad + 1] += d_padded[:, pad - 1 :: -1]
        d_signal[:, size - 1 - pad : size - 1] += d_padded[:, : -pad - 1 : -1]
    return d_signal
