"""Short-time Fourier transform with a periodic Hann window, as ``torch.stft`` computes it.

`StftGeometry` owns all frame arithmetic. `Transform` maps segments of signal to spectra and back
and knows both filterbanks of Open-Unmix. `stft` and `istft` are the public functions on whole
arrays.
"""

from __future__ import annotations

import numpy as np

from ..backends.contracts import Backend
from ..config import check_array, check_int
from ..devices import get_backend
from ..errors import ShapeError
from ..framing.geometry import StftGeometry
from ..framing.transform import Transform

# Samples of a signal that addresses in memory can have.
_LONGEST = 1 << 48


def _real_dtype(x: np.ndarray, name: str) -> np.dtype:
    """Dtype to compute in, or `ShapeError` for arrays that hold no numbers."""
    if x.dtype.kind not in "iufc":
        raise ShapeError(f"{name} has dtype={x.dtype}; pass an array of numbers")
    dtype = np.result_type(x.real.dtype, np.float32)
    if dtype not in (np.float32, np.float64):
        raise ShapeError(f"{name} has dtype={x.dtype}; convert it to float32 or float64")
    return dtype


def stft(
    x: np.ndarray,
    n_fft: int = 4096,
    n_hop: int = 1024,
    center: bool = True,
    *,
    filterbank: str = "torch",
    device: str | Backend = "cpu",
) -> np.ndarray:
    """Short-time Fourier transform with a periodic Hann window.

    Parameters
    ----------
    x : np.ndarray [shape=(..., nb_timesteps)], real
        Signals. float64 is transformed in float64, other real dtypes in float32 (integers wider
        than 16 bits in float64).
    n_fft, n_hop : int
        Frame length and distance in samples.
    center : bool
        Pad with ``n_fft // 2`` reflected samples on both sides. A signal too short for that is
        first extended with zeros.
    filterbank : {'torch', 'asteroid'}
        FFT, or the same transform as a matrix product.
    device : str or Backend
        Where to compute.

    Returns
    -------
    np.ndarray [shape=(..., nb_bins, nb_frames)], complex
        One-sided, unnormalised spectra, as from ``torch.stft(..., return_complex=True)``.

    Raises
    ------
    ShapeError
        If the signal is empty, or shorter than one frame and not centred.

    Examples
    --------
    >>> import numpy as np
    >>> stft(np.zeros((2, 44100), np.float32)).shape
    (2, 2049, 44)
    """
    x = check_array("x", x)
    if x.ndim == 0 or x.dtype.kind == "c":
        raise ShapeError(f"x must be a real signal, not shape={x.shape}, dtype={x.dtype}")
    ops = get_backend(device)
    geometry = StftGeometry(n_fft, n_hop, center)
    dtype = _real_dtype(x, "x")
    nb_frames = geometry.nb_frames(x.shape[-1])
    transform = Transform(geometry, filterbank, ops, dtype)
    signals = x.reshape(-1, x.shape[-1]).astype(dtype, copy=False)
    out = transform.forward_all(geometry.pad_signal(signals), nb_frames)
    return out.swapaxes(-1, -2).reshape(*x.shape[:-1], geometry.nb_bins, nb_frames)


def istft(
    X: np.ndarray,
    n_hop: int = 1024,
    center: bool = True,
    length: int | None = None,
    *,
    n_fft: int | None = None,
    filterbank: str = "torch",
    device: str | Backend = "cpu",
) -> np.ndarray:
    """Inverse of `stft`: overlap-add divided by the sum of the squared windows.

    Parameters
    ----------
    X : np.ndarray [shape=(..., nb_bins, nb_frames)], complex
        One-sided spectra.
    n_hop : int
        Distance of the frames in samples.
    center : bool
        Whether the signal was padded.
    length : int or None
        Samples to return; the signal is cut or extended with zeros. None returns what the frames
        cover.
    n_fft : int or None
        Frame length; None means ``2 * (nb_bins - 1)``. Odd sizes must be given.
    filterbank, device
        As for `stft`.

    Returns
    -------
    np.ndarray [shape=(..., length)]
        float32 for complex64, float64 for complex128.

    Raises
    ------
    ConfigError
        If `n_hop` leaves samples that no frame covers.
    ShapeError
        If the array is no spectrum of `n_fft`.

    Notes
    -----
    Like ``torch.istft``, except that without centring the first samples, where the Hann window is
    zero and nothing is known, are 0 instead of an error.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.random.default_rng(0).standard_normal(5000)
    >>> bool(np.allclose(istft(stft(x), length=5000), x))
    True
    """
    X = check_array("X", X)
    if X.ndim < 2 or X.dtype.kind != "c":
        raise ShapeError(
            f"X must be complex with shape (..., nb_bins, nb_frames), not shape={X.shape}, "
            f"dtype={X.dtype}"
        )
    nb_bins, nb_frames = X.shape[-2:]
    geometry = StftGeometry(2 * (nb_bins - 1) if n_fft is None else n_fft, n_hop, center)
    if geometry.nb_bins != nb_bins or nb_frames == 0:
        raise ShapeError(
            f"X with nb_bins={nb_bins}, nb_frames={nb_frames} is no spectrum of "
            f"n_fft={geometry.n_fft}"
        )
    geometry.check_invertible()
    if length is not None:
        length = check_int("length", length, 0, _LONGEST)
    ops = get_backend(device)
    transform = Transform(geometry, filterbank, ops, _real_dtype(X, "X"))
    spectra = X.reshape(-1, nb_bins, nb_frames).swapaxes(-1, -2)
    padded = transform.inverse_all(spectra, geometry.nb_samples_of(nb_frames))
    padded *= geometry.inverse_envelope(0, padded.shape[1], nb_frames).astype(transform.dtype)
    start = geometry.pad
    stop = padded.shape[1] if length is not None else padded.shape[1] - geometry.pad
    signal = padded[:, start:stop]
    if length is not None:
        signal = signal[:, :length]
        if signal.shape[1] < length:
            signal = np.pad(signal, ((0, 0), (0, length - signal.shape[1])))
    return signal.reshape(*X.shape[:-2], signal.shape[1])
