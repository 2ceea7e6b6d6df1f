"""Whole tracks that stay on a CUDA device from samples to stems.

The same three passes as in `umx_np.engines.host`, with thousands of frames at a time:

1. encode: STFT and the bottleneck activations of every target;
2. recurrent layers: all targets and both directions side by side, in chunks of frames that the
   backward direction takes from the end;
3. decode: STFT again, masks, Wiener filter of some windows at once, inverse STFT. The samples leave
   through two buffers in page-locked memory, each filled while the other is in the hands of the
   caller and the card computes the next block.

What grows with the track is placed by `umx_np.cuda.memory`: on the card as long as it
fits, then the samples are sent again for every pass, then the activations are kept by the host.

A call allocates what it works on and computes in the card's default stream, whatever stream the
caller has made current, so that any number of calls, from any number of threads or in turns from
one, share the weights and the card: their steps follow each other. Only copies to the host have a
stream of their own, each call one. A call plans with the memory that is free when it begins.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import cast

import numpy as np

from .._support.progress import Progress
from ..engines.bottleneck import StoreFactory
from ..engines.job import Job
from ..engines.sources import Source, check_length, segments
from ..errors import DeviceError
from ..framing.geometry import fourier_matrices
from .activations import Activations, on_card, on_host, spans_of
from .backend import CudaBackend
from .host_network import CudaNetwork, stacks_of
from .layers import run_layers
from .memory import MemoryPlan, Work, plan_memory, smallest
from .ops import MEMORY_REMEDY, Array, Statistics, WienerFilter, computing
from .outlet import Outlet, Pace
from .transform import DeviceTransform, make_tables, upload

logger = logging.getLogger(__name__)

# Samples asked of a source at a time.
_SOURCE_BLOCK = 1 << 19
# Shares of the three passes in the time, for the progress report.
_SHARES = (0.1, 0.6, 0.3)


class Engine:
    """The networks and constants of a job on the card, shared by its calls.

    Parameters
    ----------
    job : Job
        Networks and options, on a CUDA device.

    Raises
    ------
    DeviceError
        If the card has no memory for the weights.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.device = job, cast("CudaBackend", job.ops).device
        self.config, self.geometry = job.config, job.geometry
        self.nb_stems = len(job.stem_names)
        self.options = job.wiener_options
        networks = cast("list[CudaNetwork]", list(job.networks.values()))
        self.nb_targets = len(networks)
        with computing(self.device, "the weights"):
            self.stacks = stacks_of(networks)
            asteroid = self.config.filterbank == "asteroid"
            matrices = fourier_matrices(self.geometry) if asteroid else None
            self.tables = make_tables(self.device, self.geometry, matrices)

    def filter(self, nb_channels: int) -> WienerFilter:
        """Return the filter for audio of so many channels."""
        return WienerFilter(
            self.device,
            self.options,
            nb_targets=self.nb_targets,
            nb_channels=nb_channels,
            mag_channels=1 if self.config.nb_channels == 1 else nb_channels,
        )

    def work(self, nb_channels: int, nb_timesteps: int) -> Work:
        """Numbers for the memory plan."""
        return Work(
            nb_timesteps=nb_timesteps,
            nb_frames=self.geometry.nb_frames(nb_timesteps),
            nb_channels=nb_channels,
            mag_channels=1 if self.config.nb_channels == 1 else nb_channels,
            n_fft=self.geometry.n_fft,
            n_hop=self.geometry.n_hop,
            nb_sources=self.nb_targets + self.options.residual,
            nb_stems=self.nb_stems,
            iterations=self.config.niter,
            window=self.config.wiener_win_len,
            stacks=tuple(stack.size for stack in self.stacks),
        )

    def plan(self, work: Work) -> MemoryPlan:
        """Place a separation in the memory that is free now.

        Raises
        ------
        DeviceError
            If it does not fit; the message says how much it needs.
        """
        free = self.device.free_memory()
        plan = plan_memory(work, free)
        if plan is None:
            window = "" if work.window is None else f" with filter windows of {work.window} frames"
            raise DeviceError(
                f"{self.device.name} has {free / 1e6:.0f} MB of memory free, but the separation of "
                f"{work.nb_frames} frames{window} needs {smallest(work) / 1e6:.0f} MB; "
                + MEMORY_REMEDY
            )
        logger.debug("%s, %.0f MB free: %s", self.device.name, free / 1e6, plan)
        return plan

    def separate(
        self, source: Source, progress: Progress | None, new_store: StoreFactory
    ) -> Iterator[tuple[int, np.ndarray]]:
        """See `umx_np.engines.job.SeparationEngine.separate`.

        The source is read once if the card can hold its samples.
        """
        nb_channels = source.nb_channels
        with computing(self.device, "this track"):
            wiener = self.filter(nb_channels)
            plan = self.plan(self.work(nb_channels, source.nb_timesteps))
            track = _Track(self, source, plan, wiener, new_store, progress)
            track.encode()
            track.recur()
        blocks = track.decode()
        try:
            while True:
                # Between two blocks the caller's thread has its own card and stream.
                with computing(self.device, "this track"):
                    block = next(blocks, None)
                if block is None:
                    return
                yield block
        finally:
            track.close()


class _Track:
    """One track on its way through the three passes."""

    def __init__(
        self,
        engine: Engine,
        source: Source,
        plan: MemoryPlan,
        wiener: WienerFilter,
        new_store: StoreFactory,
        progress: Progress | None,
    ) -> None:
        self.engine, self.source, self.plan, self.wiener = engine, source, plan, wiener
        self.device, self.config = engine.device, engine.config
        self.geometry = engine.geometry
        self.transform = DeviceTransform(engine.device, engine.geometry, engine.tables)
        self.nb_frames = engine.geometry.nb_frames(source.nb_timesteps)
        self.mono = engine.job.mono
        # Its level has to be known before the third pass.
        self.whole = engine.job.needs_whole_track
        self.scales: Array = None
        self.pace = Pace(engine.device, progress)
        self.outlet = Outlet(engine.device)
        self.new_store = new_store
        self.stores = [
            self._activations(stack.nb_targets, 1, stack.config.hidden_size)
            for stack in engine.stacks
        ]
        self.audio = self._samples() if plan.audio_on_card else None

    def close(self) -> None:
        """Wait for copies that are under way."""
        self.outlet.close()

    def _activations(self, nb_targets: int, nb_parts: int, width: int) -> Activations:
        if self.plan.activations_on_card:
            return on_card(self.device, nb_targets, self.nb_frames, nb_parts, width)
        return on_host(self.device, self.new_store, nb_targets, nb_parts, width)

    def _samples(self) -> Array:
        """Copy the whole track to the card."""
        audio: Array = None
        start, length = 0, self.source.nb_timesteps
        for block in self.source.blocks(_SOURCE_BLOCK):
            if audio is None:
                audio = self.device.xp.empty((len(block), length), np.float32)
            count = block.shape[1]
            if start + count <= length:
                for row, samples in zip(audio, block, strict=True):
                    row[start : start + count].set(np.ascontiguousarray(samples, np.float32))
            start += count
            if start > length:
                break
        check_length(start, length)
        return audio

    def _spectra(self, group: int) -> Iterator[tuple[int, Array]]:
        """Spectra of the track, some frames at a time, with the number of their first frame."""
        if self.audio is not None:
            for start, stop in spans_of(self.nb_frames, group):
                yield (
                    start,
                    self.transform.forward(self.audio, first=start, nb_frames=stop - start),
                )
            return
        blocks, length = self.source.blocks(_SOURCE_BLOCK), self.source.nb_timesteps
        for first, count, segment in segments(blocks, self.geometry, length, group):
            samples = upload(self.device, segment, np.float32)
            yield first, self.transform.forward(samples, first=0, nb_frames=count, padded=True)

    # -- pass 1 ------------------------------------------------------------------------------

    def encode(self) -> None:
        spectra = self.transform.spectra
        peaks = self.device.xp.empty(self.nb_frames, np.float32) if self.whole else None
        nb_read = max(stack.nb_read for stack in self.engine.stacks)
        for first, mix in self._spectra(self.plan.encode_frames):
            stop = first + mix.shape[1]
            mags = spectra.magnitude(mix, nb_bins=nb_read, mono=self.mono)
            for stack, store in zip(self.engine.stacks, self.stores, strict=True):
                with store.writing(slice(None), first, stop) as out:
                    stack.encode(mags, out)
            if peaks is not None:
                spectra.frame_peaks(mix, peaks[first:stop])
            self.pace.step(_SHARES[0] * mix.shape[1] / self.nb_frames)
        if peaks is not None:
            self.scales = spectra.window_scales(peaks, self.nb_frames)

    # -- pass 2 ------------------------------------------------------------------------------

    def recur(self) -> None:
        for stack, store in zip(self.engine.stacks, self.stores, strict=True):
            for start, stop in spans_of(stack.nb_targets, self.plan.together):
                share = _SHARES[1] * (stop - start) / self.engine.nb_targets

                def tick(part: float, share: float = share) -> None:
                    self.pace.step(share * part)

                run_layers(
                    stack,
                    store,
                    slice(start, stop),
                    nb_frames=self.nb_frames,
                    chunk=self.plan.scan_frames,
                    new_activations=self._activations,
                    tick=tick,
                )

    # -- pass 3 ------------------------------------------------------------------------------

    def decode(self) -> Iterator[tuple[int, np.ndarray]]:
        """Yield ``(start, stems [shape=(nb_stems, nb_channels, n)])`` from start to end."""
        statistics = self._statistics() if self.whole else None
        adder = self.transform.adder(self.source.nb_timesteps)
        nb_passes = self.config.niter + 1 if self.whole else 1
        for first, mix in self._spectra(self.plan.decode_frames):
            estimates = self._estimates(first, mix, statistics)
            start, signals = adder.add(first, self.transform.inverse(estimates))
            del estimates
            if signals.shape[1]:
                self.outlet.send(start, signals.reshape(self.engine.nb_stems, -1, signals.shape[1]))
            self.pace.step(_SHARES[2] / nb_passes * mix.shape[1] / self.nb_frames)
            # While the card computes this block, the caller gets the one before.
            if self.outlet.under_way > 1:
                yield self.outlet.receive()
        self.pace.finish()
        while self.outlet.under_way:
            yield self.outlet.receive()

    def _masked(self, first: int, mix: Array) -> Array:
        """Magnitudes of the targets [shape=(nb_targets, nb_frames, mag_channels, nb_bins)]."""
        nb_bins = self.geometry.nb_bins
        mix_mags = self.transform.spectra.magnitude(mix, nb_bins=nb_bins, mono=self.mono)
        mags = self.device.xp.empty((self.engine.nb_targets, *mix_mags.shape), np.float32)
        target = 0
        for stack, store in zip(self.engine.stacks, self.stores, strict=True):
            z = store.read(slice(None), first, first + len(mix_mags))
            stack.decode(z, mix_mags, mags[target : target + stack.nb_targets])
            target += stack.nb_targets
        return mags

    def _estimates(self, first: int, mix: Array, statistics: Statistics | None) -> Array:
        """Spectra of the stems [shape=(nb_stems, nb_channels, nb_frames, nb_bins)]."""
        mags, nb_frames, nb_stems = self._masked(first, mix), mix.shape[1], self.engine.nb_stems
        if self.whole:
            return self.wiener.apply(
                mix, mags, self.scales, statistics, window=nb_frames, nb_written=nb_stems
            )
        iterations = self.config.niter
        window, scales = nb_frames, self.device.xp.ones(1, np.float64)
        if iterations:
            window = min(self.config.wiener_win_len or nb_frames, nb_frames)
            peaks = self.device.xp.empty(nb_frames, np.float32)
            self.transform.spectra.frame_peaks(mix, peaks)
            scales = self.transform.spectra.window_scales(peaks, window)
        return self.wiener.windows(
            mix, mags, scales, window=window, iterations=iterations, nb_written=nb_stems
        )

    def _statistics(self) -> Statistics:
        """Statistics of all iterations over the whole track, a pass for each."""
        niter = self.config.niter
        statistics = self.wiener.statistics(1, niter, self.geometry.nb_bins)
        for level in range(niter):
            for first, mix in self._spectra(self.plan.decode_frames):
                self.wiener.accumulate(
                    mix,
                    self._masked(first, mix),
                    self.scales,
                    statistics,
                    level=level,
                    window=mix.shape[1],
                )
                self.pace.step(_SHARES[2] / (niter + 1) * mix.shape[1] / self.nb_frames)
        return statistics
