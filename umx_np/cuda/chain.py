"""Transforms and filter around the networks of a `WaveformSeparator`, both ways."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..backends.contracts import DEFAULT_EPS, WienerOptions
from ..backends.training import check_finite
from ..config import SeparatorConfig
from ..errors import ConfigError, ShapeError
from ..framing.geometry import StftGeometry
from .ops import Statistics, WienerFilter
from .transform import DeviceTransform, make_tables, upload
from .wiener_gradient import WienerGradient

if TYPE_CHECKING:
    from .device import Device

Array = Any


class Filtered(NamedTuple):
    """Frames that were filtered by one launch, and what their gradient needs."""

    mix: Array
    """Spectra [shape=(nb_channels, nb_frames, nb_bins)]."""
    mags: Array
    """Magnitudes [shape=(nb_targets, nb_frames, mag_channels, nb_bins)]."""
    scales: Array
    """Divisor of each window [shape=(nb_windows,)]."""
    statistics: Statistics
    window: int
    """Frames that are filtered together."""


class DeviceChain:
    """See `umx_np.backends.training.Chain`.

    The backward pass needs one iteration of the plain filter.

    The samples of a batch lie one behind the other, as windows of one long track would; stems and
    channels in front of them.

    Parameters
    ----------
    config : SeparatorConfig
        STFT and filter.
    nb_targets : int
        Networks.
    device : Device
        The card.

    Raises
    ------
    ConfigError
        If the filter is another one.
    """

    def __init__(self, config: SeparatorConfig, nb_targets: int, device: Device) -> None:
        residual = config.residual_takes_part(nb_targets)
        if config.niter != 1 or config.softmask or residual:
            raise ConfigError(
                f"niter={config.niter}, softmask={config.softmask}, residual={residual} with "
                f"{nb_targets} targets: a CUDA device has the gradient of one iteration without "
                "softmask and residual (which a single target always has); use backend='numba'"
            )
        self.config, self.device = config, device
        self._nb_targets = nb_targets
        self._geometry = StftGeometry(config.n_fft, config.n_hop, center=True)
        with self.device.active():
            tables = make_tables(self.device, self._geometry, None)
        # Each keeps the plans of the sizes that it transforms in every step.
        self._mixtures = DeviceTransform(self.device, self._geometry, tables)
        self._stems = DeviceTransform(self.device, self._geometry, tables)
        # Of the excerpts that came last, which are usually all of one length.
        self._envelope_of: tuple[int, int, int] | None = None
        self._inverse_envelope: Array = None

    def computing(self, what: str) -> AbstractContextManager[None]:
        """See `Chain`."""
        return self.device.computing(what, "use a smaller batch or shorter excerpts")

    def asarray(self, array: Any) -> Array:
        """See `Chain`."""
        xp = self.device.xp
        with self.device.active():
            return xp.ascontiguousarray(xp.asarray(array, np.float32))

    def checked(self, audio: Any) -> Array:
        """See `Chain`. To look at an array of the device would be to wait for it."""
        if not isinstance(audio, self.device.xp.ndarray):
            audio = np.asarray(audio, np.float32)
            check_finite(audio)
        return self.asarray(audio)

    def mixture(self, audio: Array) -> tuple[None, Array, Array]:
        """See `Chain`; of the audio nothing is kept.

        The spectra are [shape=(nb_channels, nb_samples * nb_frames, nb_bins)].
        """
        xp, geometry = self.device.xp, self._geometry
        nb_samples, nb_channels, nb_timesteps = audio.shape
        if nb_channels > 2:
            raise ShapeError(
                f"nb_channels={nb_channels}: on a CUDA device the filter takes 1 or 2 channels"
            )
        signals = xp.ascontiguousarray(audio.transpose(1, 0, 2))
        extended = geometry.nb_extended(nb_timesteps)
        if extended > nb_timesteps:
            longer = xp.zeros((nb_channels, nb_samples, extended), np.float32)
            longer[..., :nb_timesteps] = signals
            signals = longer
        nb_frames, rows = geometry.nb_frames(nb_timesteps), nb_channels * nb_samples
        spectra = self._mixtures.forward(
            signals.reshape(rows, extended), first=0, nb_frames=nb_frames
        )
        mix = spectra.reshape(nb_channels, nb_samples * nb_frames, geometry.nb_bins)
        mags = self._mixtures.spectra.magnitude(
            mix, nb_bins=geometry.nb_bins, mono=self.config.nb_channels == 1
        )
        mags = mags.reshape(nb_samples, nb_frames, -1, geometry.nb_bins)
        return None, mix, xp.ascontiguousarray(mags.transpose(1, 0, 2, 3))

    def stems(
        self, spectra: Array, targets: list[Array], nb_timesteps: int
    ) -> tuple[Array, list[Filtered]]:
        """See `Chain`."""
        xp = self.device.xp
        nb_frames, nb_samples, mag_channels, nb_bins = targets[0].shape
        nb_channels = len(spectra)
        mags = xp.empty((len(targets), nb_samples, nb_frames, mag_channels, nb_bins), np.float32)
        for j, target in enumerate(targets):
            mags[j] = target.transpose(1, 0, 2, 3)
        mags = mags.reshape(len(targets), nb_samples * nb_frames, mag_channels, nb_bins)
        kept, estimates = [], []
        wiener = WienerFilter(self.device, WienerOptions(), **self._sizes(spectra, mags))
        for frames, window in self._groups(nb_samples, nb_frames):
            group = self._filtered(
                wiener,
                xp.ascontiguousarray(spectra[:, frames]),
                xp.ascontiguousarray(mags[:, frames]),
                window,
            )
            estimates.append(wiener.apply(*group[:4], window=window))
            kept.append(group)
        y = estimates[0] if len(estimates) == 1 else xp.concatenate(estimates, axis=2)
        del estimates
        signals = len(targets) * nb_channels * nb_samples
        frames_of_stems = self._stems.inverse(y.reshape(signals, nb_frames, nb_bins))
        del y
        _, samples = self._stems.adder(nb_timesteps).add(0, frames_of_stems)
        samples = samples.reshape(len(targets), nb_channels, nb_samples, nb_timesteps)
        return samples.transpose(2, 0, 1, 3), kept

    def backward(
        self, d_stems: Array, audio: None, targets: list[Array], kept: list[Filtered]
    ) -> list[Array]:
        """See `Chain`."""
        xp, geometry = self.device.xp, self._geometry
        nb_frames, nb_samples, mag_channels, nb_bins = targets[0].shape
        nb_channels, nb_timesteps = d_stems.shape[2:]
        # The adjoint of the inverse transform (5): what is outside of the signal has no influence.
        signals = len(targets) * nb_channels * nb_samples
        padded = xp.zeros((signals, geometry.nb_samples_of(nb_frames)), np.float32)
        lo = geometry.pad
        hi = min(lo + nb_timesteps, padded.shape[1])
        arranged = xp.ascontiguousarray(d_stems.transpose(1, 2, 0, 3)).reshape(signals, -1)
        padded[:, lo:hi] = arranged[:, : hi - lo] * self._envelope(lo, hi, nb_frames)
        d_y = self._stems.forward(padded, first=0, nb_frames=nb_frames, padded=True)
        # The envelope has the weight of the others (3).
        d_y[..., 0] *= np.float32(0.5)
        if geometry.n_fft % 2 == 0:
            d_y[..., -1] *= np.float32(0.5)
        d_y = d_y.reshape(len(targets), nb_channels, nb_samples * nb_frames, nb_bins)
        sizes = self._sizes(kept[0].mix, kept[0].mags)
        gradient = WienerGradient(self.device, DEFAULT_EPS, **sizes)
        parts = []
        for (frames, _), group in zip(self._groups(nb_samples, nb_frames), kept, strict=True):
            part = gradient(
                group.mix,
                group.mags,
                xp.ascontiguousarray(d_y[:, :, frames]),
                group.scales,
                group.statistics,
                window=group.window,
            )
            parts.append(part)
        d_mags = parts[0] if len(parts) == 1 else xp.concatenate(parts, axis=1)
        d_mags = d_mags.reshape(len(targets), nb_samples, nb_frames, mag_channels, nb_bins)
        return [xp.ascontiguousarray(d.transpose(1, 0, 2, 3)) for d in d_mags]

    def audio_gradient(self, d_stems: Array, audio: None, targets: list[Array]) -> Array:
        """See `Chain`."""
        raise ConfigError(
            "on a CUDA device there is no gradient of the mixtures; use backend='numba'"
        )

    def _groups(self, nb_samples: int, nb_frames: int) -> list[tuple[slice, int]]:
        """Frames of the batch that are filtered by one launch, and the length of their windows.

        Windows of all samples have the same length if there is one for each.
        """
        length = self.config.wiener_win_len or nb_frames
        if nb_frames <= length:
            return [(slice(0, nb_samples * nb_frames), nb_frames)]
        starts = range(0, nb_samples * nb_frames, nb_frames)
        return [(slice(start, start + nb_frames), length) for start in starts]

    def _filtered(self, wiener: WienerFilter, mix: Array, mags: Array, window: int) -> Filtered:
        """Make the statistics of the filter's iteration."""
        spectra, nb_frames = self._mixtures.spectra, mix.shape[1]
        peaks = self.device.xp.empty(nb_frames, np.float32)
        spectra.frame_peaks(mix, peaks)
        scales = spectra.window_scales(peaks, window)
        statistics = wiener.statistics(len(scales), 1, mix.shape[2])
        wiener.accumulate(mix, mags, scales, statistics, level=0, window=window)
        return Filtered(mix, mags, scales, statistics, window)

    def _sizes(self, mix: Array, mags: Array) -> dict[str, int]:
        return {
            "nb_targets": self._nb_targets,
            "nb_channels": len(mix),
            "mag_channels": mags.shape[2],
        }

    def _envelope(self, lo: int, hi: int, nb_frames: int) -> Array:
        """Factors of the gradient of samples [lo, hi) of the padded signal."""
        key = lo, hi, nb_frames
        if self._envelope_of != key:
            envelope = self._geometry.inverse_envelope(*key) * (2.0 / self._geometry.n_fft)
            self._inverse_envelope = upload(self.device, envelope, np.float32)
            self._envelope_of = key
        return self._inverse_envelope
