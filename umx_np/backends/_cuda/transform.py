"""Forward and inverse STFT of whole signals on the card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .ops import Array, Envelope, OverlapAdder, Spectra

if TYPE_CHECKING:
    from ...dsp.stft import StftGeometry
    from .device import Device


class DeviceTransform:
    """The twin of `umx_np.dsp.stft.Transform` on the card, float32.

    Parameters
    ----------
    device : Device
        The card.
    geometry : StftGeometry
        Where the frames lie.
    matrices : tuple of Array or None
        Analysis [shape=(2 * nb_bins, n_fft)] and synthesis [shape=(n_fft, 2 * nb_bins)]; None takes
        the FFT.
    """

    def __init__(
        self, device: Device, geometry: StftGeometry, matrices: tuple[Array, Array] | None = None
    ) -> None:
        self.device, self.geometry = device, geometry
        self.spectra = Spectra(device)
        self._matrices = matrices
        window = geometry.window
        # The inverse FFT is asked not to scale, which would be one more pass over its result; the
        # window does it, exactly where n_fft is a power of two.
        scale = 1.0 if matrices else 1.0 / geometry.n_fft
        # Far from the ends the envelope repeats every hop.
        overlap = -(-geometry.n_fft // geometry.n_hop)
        far = overlap * geometry.n_hop
        steady = geometry.inverse_envelope(far, far + geometry.n_hop, 2 * overlap + 2)
        with device.active():
            self._window = device.xp.asarray(window.astype(np.float32))
            self._envelope = Envelope(
                device.xp.asarray((window * scale).astype(np.float32)),
                device.xp.asarray(steady.astype(np.float32)),
                device.xp.asarray(window**2),
            )

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
            return xp.fft.rfft(frames)
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
        """Frames of some signals, without the window.

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
            frames = xp.fft.irfft(spectra, n=geometry.n_fft, norm="forward")
            return frames.reshape(-1, nb_frames, geometry.n_fft)
        flat = spectra.view(np.float32).reshape(-1, 2 * geometry.nb_bins)
        out = xp.empty((len(flat), geometry.n_fft), np.float32)
        self.device.gemm(flat, self._matrices[1], out, trans_b=True, math="float32")
        return out.reshape(-1, nb_frames, geometry.n_fft)

    def adder(self, nb_timesteps: int) -> OverlapAdder:
        """What turns the frames of `inverse` to samples."""
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
