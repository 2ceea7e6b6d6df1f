"""The chain around the networks of a `WaveformSeparator`: transforms and filter, both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from .._support.threads import parallel_map, resolve_threads
from ..backends.contracts import Backend
from ..backends.training import check_finite
from ..config import SeparatorConfig
from ..devices import get_backend
from ..dsp.gradients import (
    istft_backward,
    stft_backward,
    wiener_backward,
    wiener_magnitudes_backward,
)
from ..dsp.stft import istft, stft
from ..dsp.wiener import wiener
from ..framing.geometry import StftGeometry


class HostChain:
    """Chain of the processor, see `umx_np.backends.training.Chain`; backward it filters again.

    Parameters
    ----------
    config : SeparatorConfig
        STFT and filter.
    dtype : dtype
        float32 or float64.
    nb_targets : int
        Networks.
    threads : int or None
        None means all cores.
    """

    def __init__(
        self, config: SeparatorConfig, dtype: np.dtype, nb_targets: int, threads: int | None
    ) -> None:
        self.config, self.dtype = config, dtype
        self._geometry = StftGeometry(config.n_fft, config.n_hop, center=True)
        self._residual = config.residual_takes_part(nb_targets)
        self._nb_stems = nb_targets + config.residual
        self._threads = resolve_threads(threads)
        self._ops = get_backend("cpu", self._threads)

    def computing(self, what: str) -> AbstractContextManager[None]:
        """See `Chain`."""
        return nullcontext()

    def asarray(self, array: Any) -> np.ndarray:
        """See `Chain`."""
        return np.asarray(array, dtype=self.dtype)

    def checked(self, audio: Any) -> np.ndarray:
        """See `Chain`."""
        x = self.asarray(audio)
        check_finite(x)
        return x

    def mixture(self, audio: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See `Chain`; a copy of the audio is kept."""
        x = np.array(audio, dtype=self.dtype)
        mix = self._stft(x, self._ops)
        mags = np.abs(mix)
        if self.config.nb_channels == 1:
            mags = mags.mean(axis=1, keepdims=True, dtype=mags.dtype)
        return x, mix, np.ascontiguousarray(mags.transpose(3, 0, 1, 2))

    def stems(
        self, spectra: np.ndarray, targets: list[np.ndarray], nb_timesteps: int
    ) -> tuple[np.ndarray, None]:
        """See `Chain`."""
        shape = (len(spectra), self._nb_stems, spectra.shape[1], nb_timesteps)
        stems = np.empty(shape, self.dtype)

        def separate(sample: int, ops: Backend) -> None:
            stems[sample] = self._filter(spectra[sample], targets, sample, nb_timesteps, ops)

        self._each_sample(len(spectra), separate)
        return stems, None

    def backward(
        self, d_stems: np.ndarray, audio: np.ndarray, targets: list[np.ndarray], kept: None
    ) -> list[np.ndarray]:
        """See `Chain`."""
        d_targets = [np.empty_like(y) for y in targets]

        def filter_backward(sample: int, ops: Backend) -> None:
            for window, arguments in self._windows_backward(d_stems, audio, targets, sample, ops):
                d_mags = wiener_magnitudes_backward(
                    *arguments, **self._filter_options(), device=ops
                )
                for j, d_target in enumerate(d_targets):
                    d_target[window, sample] = d_mags[..., j].transpose(0, 2, 1)

        self._each_sample(len(audio), filter_backward)
        return d_targets

    def audio_gradient(
        self, d_stems: np.ndarray, audio: np.ndarray, targets: list[np.ndarray]
    ) -> np.ndarray:
        """Gradient of the mixtures; see `WaveformSeparator.audio_gradient`."""
        geometry = self._geometry
        shape = (*audio.shape[:2], geometry.nb_bins, len(targets[0]))
        d_mix = np.empty(shape, np.result_type(self.dtype, np.complex64))

        def filter_backward(sample: int, ops: Backend) -> None:
            for window, arguments in self._windows_backward(d_stems, audio, targets, sample, ops):
                _, d_part = wiener_backward(*arguments, **self._filter_options(), device=ops)
                d_mix[sample, ..., window] = d_part.transpose(2, 1, 0)

        self._each_sample(len(audio), filter_backward)
        return stft_backward(
            d_mix, audio.shape[-1], geometry.n_fft, geometry.n_hop, device=self._ops
        )

    def _each_sample(self, count: int, function: Callable[[int, Backend], None]) -> None:
        """Call ``function(sample, ops)`` for all samples of a batch.

        With enough samples each thread takes some of them: much of the work is NumPy's, on one
        thread, and so is done side by side.
        """
        if count < self._threads:
            for sample in range(count):
                function(sample, self._ops)
            return
        ops = get_backend("cpu", 1)
        parallel_map(self._threads, lambda sample: function(sample, ops), range(count))

    def _stft(self, audio: np.ndarray, ops: Backend) -> np.ndarray:
        """Spectra [shape=(..., nb_channels, nb_bins, nb_frames)]."""
        return stft(audio, self._geometry.n_fft, self._geometry.n_hop, device=ops)

    def _windows(self, nb_frames: int) -> list[slice]:
        """Frames that are filtered together."""
        length = self.config.wiener_win_len or nb_frames
        return [slice(start, start + length) for start in range(0, nb_frames, length)]

    def _filter_options(self) -> dict[str, Any]:
        return {
            "iterations": self.config.niter,
            "softmask": self.config.softmask,
            "residual": self._residual,
        }

    def _filter(
        self, mix: np.ndarray, targets: list[np.ndarray], sample: int, length: int, ops: Backend
    ) -> np.ndarray:
        """Stems [shape=(nb_stems, nb_channels, length)] of one sample.

        The mixture has shape (nb_channels, nb_bins, nb_frames).
        """
        mix = mix.transpose(2, 1, 0)
        # The compiled filter takes one or two channels in single precision.
        compiled = self.dtype == np.float32 and mix.shape[2] <= 2
        estimates = [
            wiener(
                _magnitudes(targets, window, sample),
                mix[window],
                **self._filter_options(),
                device=ops if compiled else "reference",
            )
            for window in self._windows(len(mix))
        ]
        # (nb_sources, nb_channels, nb_bins, nb_frames)
        spectra = np.concatenate(estimates).transpose(3, 2, 1, 0)[: self._nb_stems]
        return istft(
            spectra, self._geometry.n_hop, length=length, n_fft=self._geometry.n_fft, device=ops
        )

    def _windows_backward(
        self,
        d_stems: np.ndarray,
        audio: np.ndarray,
        targets: list[np.ndarray],
        sample: int,
        ops: Backend,
    ) -> Iterator[tuple[slice, tuple[np.ndarray, np.ndarray, np.ndarray]]]:
        """For each window of a sample the gradient of the filter's result, and its arguments."""
        n_fft, n_hop, nb_frames = self._geometry.n_fft, self._geometry.n_hop, len(targets[0])
        mix = self._stft(audio[sample], ops).transpose(2, 1, 0)
        d_spectra = istft_backward(d_stems[sample], nb_frames, n_fft, n_hop, device=ops)
        d_spectra = d_spectra.transpose(3, 2, 1, 0)
        if len(targets) + self._residual > self._nb_stems:
            # The residual is dropped after the filter.
            d_spectra = np.concatenate([d_spectra, np.zeros_like(d_spectra[..., :1])], axis=-1)
        for window in self._windows(nb_frames):
            mags = _magnitudes(targets, window, sample)
            yield window, (d_spectra[window], mags, mix[window])


def _magnitudes(targets: list[np.ndarray], window: slice, sample: int) -> np.ndarray:
    """Magnitudes [shape=(nb_frames, nb_bins, nb_channels or 1, nb_targets)] for the filter."""
    return np.stack([y[window, sample] for y in targets], axis=-1).transpose(0, 2, 1, 3)
