"""Forward and inverse STFT of whole signals on the card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .ops import Array, Envelope, OverlapAdder, Spectra

if TYPE_CHECKING:
    from ..framing.geometry import StftGeometry
    from .device import Device


class RealFft:
    """Real FFT of rows, with the plans that were used last.

    CuPy would keep the plans of all sizes ever met, each with a workspace as large as the data, and
    copy what is to be inverted.
    """

    def __init__(self, device: Device, size: int) -> None:
        self._device, self._size = device, size
        self._plans: dict[int, Any] = {}

    def forward(self, frames: Array) -> Array:
        """Spectra of frames [shape=(..., size)], unscaled."""
        cufft = self._device.xp.cuda.cufft
        shape = (*frames.shape[:-1], self._size // 2 + 1)
        out = self._device.xp.empty(shape, np.complex64)
        plan = self._plan(cufft.CUFFT_R2C, frames.size // self._size)
        plan.fft(frames, out, cufft.CUFFT_FORWARD)
        return out

    def inverse(self, spectra: Array) -> Array:
        """Frames of spectra, times their size; the spectra are destroyed."""
        cufft = self._device.xp.cuda.cufft
        out = self._device.xp.empty((*spectra.shape[:-1], self._size), np.float32)
        plan = self._plan(cufft.CUFFT_C2R, out.size // self._size)
        plan.fft(spectra, out, cufft.CUFFT_INVERSE)
        return out

    def _plan(self, kind: int, batch: int) -> Any:
        plan = self._plans.get(kind)
        if plan is None or plan.batch != batch:
            del plan
            self._plans.pop(kind, None)  # before the next workspace is taken
            self._plans[kind] = self._device.xp.cuda.cufft.Plan1d(self._size, kind, batch)
        return self._plans[kind]


class Tables(NamedTuple):
    """Constants of a transform on the card, shared by all that transform.

    Attributes
    ----------
    window : Array [shape=(n_fft,)], float32
    envelope : Envelope
    matrices : tuple of Array or None
        Analysis [shape=(2 * nb_bins, n_fft)] and synthesis [shape=(n_fft, 2 * nb_bins)]; None takes
        the FFT.
    """

    window: Array
    envelope: Envelope
    matrices: tuple[Array, Array] | None


def make_tables(
    device: Device, geometry: StftGeometry, matrices: tuple[np.ndarray, np.ndarray] | None
) -> Tables:
    """Put the constants of a transform on the card; `matrices` as in `Tables`, on the host."""
    window = geometry.window
    # The inverse FFT does not scale, which would be one more pass over its result; the window does
    # it, exactly where n_fft is a power of two.
    scale = 1.0 if matrices else 1.0 / geometry.n_fft
    # Far from the ends the envelope repeats every hop.
    overlap = -(-geometry.n_fft // geometry.n_hop)
    far = overlap * geometry.n_hop
    steady = geometry.inverse_envelope(far, far + geometry.n_hop, 2 * overlap + 2)
    return Tables(
        upload(device, window, np.float32),
        Envelope(
            upload(device, window * scale, np.float32),
            upload(device, steady, np.float32),
            upload(device, window**2),
        ),
        matrices
        and (upload(device, matrices[0], np.float32), upload(device, matrices[1], np.float32)),
    )


class DeviceTransform:
    """The twin of `framing.transform.Transform` on the card, float32; for one call at a time.

    Parameters
    ----------
    device : Device
        The card.
    geometry : StftGeometry
        Where the frames lie.
    tables : Tables
        From `make_tables`.
    """

    def __init__(self, device: Device, geometry: StftGeometry, tables: Tables) -> None:
        self.device, self.geometry = device, geometry
        self.spectra = Spectra(device)
        self._window, self._envelope, self._matrices = tables
        self._fft = RealFft(device, geometry.n_fft)

    def forward(self, x: Array, *, first: int, nb_frames: int, padded: bool = False) -> Array:
        """Spectra of some frames of a signal.

        Parameters
        ----------
        x : Array [shape=(nb_channels, nb_timesteps)]
            The whole signal; or, if `padded`, a part of the signal with its padding.
        first, nb_frames : int
            First frame, and number of frames.
        padded : bool
            Whether `x` begins at a frame (number 0) instead of at the first sample.

        Returns
        -------
        Array [shape=(nb_channels, nb_frames, nb_bins)], complex64
        """
        geometry, xp = self.geometry, self.device.xp
        frames = self.spectra.frame(
            x,
            self._window,
            n_hop=geometry.n_hop,
            nb_frames=nb_frames,
            first=first,
            pad=0 if padded else geometry.pad,
        )
        if self._matrices is None:
            return self._fft.forward(frames)
        out = xp.empty((*frames.shape[:2], geometry.nb_bins), np.complex64)
        flat = out.view(np.float32).reshape(-1, 2 * geometry.nb_bins)
        self.device.gemm(
            frames.reshape(-1, geometry.n_fft),
            self._matrices[0],
            flat,
            trans_b=True,
            math="float32",
        )
        return out

    def inverse(self, spectra: Array) -> Array:
        """Frames of some signals, without the window; the spectra are destroyed.

        Parameters
        ----------
        spectra : Array [shape=(..., nb_frames, nb_bins)], complex64
            Contiguous.

        Returns
        -------
        Array [shape=(nb_signals, nb_frames, n_fft)]
            For the `adder`.
        """
        geometry, xp = self.geometry, self.device.xp
        nb_frames = spectra.shape[-2]
        if self._matrices is None:
            return self._fft.inverse(spectra).reshape(-1, nb_frames, geometry.n_fft)
        flat = spectra.view(np.float32).reshape(-1, 2 * geometry.nb_bins)
        out = xp.empty((len(flat), geometry.n_fft), np.float32)
        self.device.gemm(flat, self._matrices[1], out, trans_b=True, math="float32")
        return out.reshape(-1, nb_frames, geometry.n_fft)

    def adder(self, nb_timesteps: int) -> OverlapAdder:
        """Kernel that turns the frames of `inverse` to samples."""
        geometry = self.geometry
        return OverlapAdder(
            self.spectra,
            self._envelope,
            n_hop=geometry.n_hop,
            pad=geometry.pad,
            nb_frames=geometry.nb_frames(nb_timesteps),
            nb_timesteps=nb_timesteps,
        )


def upload(device: Device, array: np.ndarray, dtype: Any = None) -> Array:
    """Copy an array of the host, of any layout, to the card."""
    return device.xp.asarray(np.ascontiguousarray(array, dtype=dtype))
