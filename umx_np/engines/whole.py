"""The definition of a separation: every step on the whole track, in the dtype of its samples."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .._support.progress import Progress
from ..backends.contracts import FilterInput, scale_of
from .bottleneck import StoreFactory, all_stages, initial_states
from .job import Job
from .sources import SOURCE_BLOCK, Source, check_length


class WholeTrackEngine:
    """The oracle of the other engines; see `umx_np.engines.job.SeparationEngine`."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def separate(
        self, source: Source, progress: Progress | None, new_store: StoreFactory
    ) -> Iterator[tuple[int, np.ndarray]]:
        """See `SeparationEngine.separate`; there is one block."""
        audio = np.concatenate(list(source.blocks(SOURCE_BLOCK)), axis=1)
        check_length(audio.shape[1], source.nb_timesteps)
        mix = self._spectra(audio)
        mags = np.abs(mix)
        if self.job.mono:
            mags = mags.mean(axis=0, keepdims=True, dtype=mags.dtype)
        mags = mags.transpose(1, 0, 2)  # (nb_frames, nb_channels, nb_bins)
        networks = [network.in_dtype(audio.dtype) for network in self.job.networks.values()]
        targets = np.stack(
            [all_stages(network, mags, initial_states(network)) for network in networks]
        )
        length = self.job.config.wiener_win_len or len(mags)
        estimates = [
            self._filtered(mix[:, start : start + length], targets[:, start : start + length])
            for start in range(0, len(mags), length)
        ]
        spectra = np.concatenate(estimates, axis=2)[: len(self.job.stem_names)]
        yield 0, self._signals(spectra, audio.shape[1])

    def _spectra(self, audio: np.ndarray) -> np.ndarray:
        """Spectra [shape=(nb_channels, nb_frames, nb_bins)]."""
        geometry, transform = self.job.geometry, self.job.transform(audio.dtype)
        nb_frames = geometry.nb_frames(audio.shape[1])
        return transform.forward(geometry.pad_signal(audio), nb_frames)

    def _filtered(self, mix: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Spectra of the sources [shape=(nb_sources, nb_channels, nb_frames, nb_bins)]."""
        given = FilterInput(
            np.ascontiguousarray(mix),
            np.ascontiguousarray(targets),
            scale_of(np.abs(mix).max(initial=0.0)),
        )
        return self.job.ops.wiener(self.job.wiener_options).window(given, self.job.config.niter)

    def _signals(self, spectra: np.ndarray, nb_timesteps: int) -> np.ndarray:
        """Inverse of spectra [shape=(nb_stems, nb_channels, nb_frames, nb_bins)]."""
        geometry = self.job.geometry
        nb_stems, nb_channels, nb_frames, nb_bins = spectra.shape
        transform = self.job.transform(spectra.real.dtype)
        rows = (nb_stems * nb_channels, geometry.nb_samples_of(nb_frames))
        padded = np.zeros(rows, transform.dtype)
        transform.inverse(spectra.reshape(-1, nb_frames, nb_bins), padded)
        padded *= geometry.inverse_envelope(0, padded.shape[1], nb_frames).astype(transform.dtype)
        signals = padded[:, geometry.pad : geometry.pad + nb_timesteps]
        return signals.reshape(nb_stems, nb_channels, nb_timesteps)
