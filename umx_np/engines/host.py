"""Whole tracks in bounded memory: blocks of audio in, blocks of stems out.

The result is that of the whole-track computation, not of overlapping excerpts. Three passes:

1. encode: STFT in blocks, each network's bottleneck activations kept (`umx_np.engines.bottleneck`);
2. recurrent layers over the whole track;
3. decode: STFT again, masks, Wiener filter and inverse STFT, one filter window at a time.

Only the activations grow with the length of the track: 2 kB a frame and target for 512 units.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .._support.progress import Progress
from ..backends.contracts import FilterInput, scale_of
from ..framing.blocks import SLICE_FRAMES, OverlapAdder, Segment
from .bottleneck import FrameStore, StoreFactory, run_bottleneck, shared_blocks
from .job import Job, Tick
from .sources import SOURCE_BLOCK, Source, segments

logger = logging.getLogger(__name__)

# Frames decoded together where no filter window says how many.
_DECODE_FRAMES = 300
# Shares of the three passes in the time, for the progress report.
_SHARES = (0.3, 0.35, 0.35)


def _batched(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


@dataclass(frozen=True)
class _Slice:
    """Some frames of a window.

    Attributes
    ----------
    first : int
        Number of the first frame.
    mix : complex ndarray [shape=(nb_channels, nb_frames, nb_bins)]
        The mixture.
    mix_mags : ndarray [shape=(nb_frames, nb_channels or 1, nb_bins)]
        Its magnitudes.
    mags : ndarray [shape=(nb_targets, nb_frames, nb_channels or 1, nb_bins)]
        Those of the targets.
    """

    first: int
    mix: np.ndarray
    mix_mags: np.ndarray
    mags: np.ndarray


class HostEngine:
    """Three passes over a track; see `umx_np.engines.job.SeparationEngine`."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def separate(
        self, source: Source, progress: Progress | None, new_store: StoreFactory
    ) -> Iterator[tuple[int, np.ndarray]]:
        """See `SeparationEngine.separate`; the source is read twice.

        With a filter over the whole track it is read ``niter + 2`` times.
        """
        track = _Track(self.job, source, new_store)
        done = 0.0

        def tick(share: float) -> Tick:
            def advance(part: float) -> None:
                nonlocal done
                done += share * part
                if progress is not None:
                    progress(min(done, 1.0))

            return advance

        track.encode(tick(_SHARES[0]))
        track.recur(tick(_SHARES[1]))
        yield from track.decode(tick(_SHARES[2]))


class _Track:
    """One track on its way through the three passes."""

    def __init__(self, job: Job, source: Source, new_store: StoreFactory) -> None:
        self.job, self.ops, self.config = job, job.ops, job.config
        self.geometry = job.geometry
        self.source = source
        self.new_store = new_store
        self.transform = job.transform(np.float32)
        self.nb_frames = self.geometry.nb_frames(source.nb_timesteps)
        self.mono = job.mono
        self.wiener = job.ops.wiener(job.wiener_options)
        self.nb_sources = job.nb_sources
        self.stores: dict[str, FrameStore] = {}
        self.peak = 0.0  # of all bins, for a filter over the whole track
        self._memory: dict[str, np.ndarray] = {}

    def _scratch(self, name: str, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """Return an array that is used again in the next window.

        Fresh memory of this size comes from the system page by page, which costs as much as a tenth
        of the filter.
        """
        size = int(np.prod(shape))
        if name not in self._memory or self._memory[name].size < size:
            self._memory[name] = np.empty(size, dtype)
        return self._memory[name][:size].reshape(shape)

    def _segments(self, group: int) -> Iterator[Segment]:
        return segments(
            self.source.blocks(SOURCE_BLOCK), self.geometry, self.source.nb_timesteps, group
        )

    # -- pass 1 ------------------------------------------------------------------------------

    def encode(self, tick: Tick) -> None:
        networks = self.job.networks
        for name, network in networks.items():
            self.stores[name] = self.new_store(network.config.hidden_size)
        nb_bins = max(network.config.nb_input_bins for network in networks.values())
        whole = self.job.needs_whole_track

        def one_segment(job: Segment) -> float:
            first, count, segment = job
            mix = self.transform.forward(segment, count)
            mags = self.ops.magnitude(mix, nb_bins=nb_bins, mono=self.mono)
            for name, network in networks.items():
                read = mags
                if network.config.nb_input_bins < nb_bins:
                    read = np.ascontiguousarray(mags[:, :, : network.config.nb_input_bins])
                self.stores[name].write(first, network.encode(read))
            return self._peak(mix) if whole else 0.0

        # Of a short track each thread gets a part.
        _, group = shared_blocks(self.nb_frames, self.ops.threads)[0]
        # Several for each thread, so that none waits for the slowest after every segment.
        for batch in _batched(self._segments(group), 4 * self.ops.threads):
            self.peak = max(self.peak, *self.ops.map(one_segment, batch))
            tick(sum(count for _, count, _ in batch) / self.nb_frames)

    def _peak(self, mix: np.ndarray) -> float:
        """Largest magnitude of a spectrum, over the channels one by one."""
        full = self.ops.magnitude(mix, nb_bins=self.geometry.nb_bins, mono=False)
        return float(full.max())

    # -- pass 2 ------------------------------------------------------------------------------

    def recur(self, tick: Tick) -> None:
        run_bottleneck(
            self.ops, self.job.networks, self.stores, self.nb_frames, self.new_store, tick
        )

    # -- pass 3 ------------------------------------------------------------------------------

    def decode(self, tick: Tick) -> Iterator[tuple[int, np.ndarray]]:
        """Yield ``(start, stems [shape=(nb_stems, nb_channels, n)])`` from start to end."""
        if self.job.needs_whole_track:
            yield from self._decode_whole_track(tick)
            return
        window = self.config.wiener_win_len if self.config.niter > 0 else _DECODE_FRAMES
        assert window is not None
        filtered = (some for job in self._segments(window) for some in self._window(job))
        yield from self._synthesise(filtered, tick)

    def _window(self, job: Segment) -> Iterator[tuple[int, np.ndarray]]:
        """Filter one window by itself, and yield its estimates slice by slice."""
        slices, peak = self._estimate(job)
        niter = self.config.niter
        max_abs = scale_of(peak) if niter else 1.0
        statistics = np.zeros((niter, self.nb_sources, 4, self.geometry.nb_bins))
        for level in range(niter):
            self._accumulate(slices, statistics, level, max_abs)
        yield from self._apply(slices, statistics, max_abs)

    def _accumulate(
        self, slices: list[_Slice], statistics: np.ndarray, level: int, max_abs: float
    ) -> None:
        for part in slices:
            given = FilterInput(part.mix, part.mags, max_abs)
            self.wiener.accumulate(given, statistics, level)

    def _apply(
        self, slices: list[_Slice], statistics: np.ndarray, max_abs: float
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Yield estimates, in memory that is used again for the next ones."""
        for part in slices:
            out = self._scratch("estimates", (self.nb_sources, *part.mix.shape), np.complex64)
            given = FilterInput(part.mix, part.mags, max_abs)
            yield part.first, self.wiener.apply(given, statistics, out)

    def _estimate(self, job: Segment) -> tuple[list[_Slice], float]:
        """Return spectra and magnitudes of a segment, in slices of frames, and the largest one.

        Each slice has arrays of its own, so that the filter takes them without a copy, and no
        array of estimates needs to be larger.
        """
        first, count, segment = job
        geometry, networks = self.geometry, self.job.networks

        def scratch(start: int) -> _Slice:
            n, channels = min(SLICE_FRAMES, count - start), 1 if self.mono else len(segment)
            shape = (n, channels, geometry.nb_bins)
            mix = (len(segment), n, geometry.nb_bins)
            return _Slice(
                first + start,
                self._scratch(f"mix {start}", mix, np.complex64),
                self._scratch(f"mix_mags {start}", shape, np.float32),
                self._scratch(f"mags {start}", (len(networks), *shape), np.float32),
            )

        def analyse(part: _Slice) -> float:
            samples = segment[:, (part.first - first) * geometry.n_hop :]
            self.transform.forward(samples, len(part.mix_mags), out=part.mix)
            self.ops.magnitude(
                part.mix, nb_bins=geometry.nb_bins, mono=self.mono, out=part.mix_mags
            )
            return self._peak(part.mix) if self.mono else float(part.mix_mags.max())

        def mask(job: tuple[int, str, _Slice]) -> None:
            j, name, part = job
            z = self.stores[name].read(part.first, part.first + len(part.mix_mags))
            networks[name].decode(z, part.mix_mags, out=part.mags[j])

        slices = [scratch(start) for start in range(0, count, SLICE_FRAMES)]
        peak = max(self.ops.map(analyse, slices))
        self.ops.map(mask, [(j, name, part) for j, name in enumerate(networks) for part in slices])
        return slices, peak

    def _decode_whole_track(self, tick: Tick) -> Iterator[tuple[int, np.ndarray]]:
        """One pass for the statistics of each iteration, and one that filters."""
        max_abs, niter = scale_of(self.peak), self.config.niter
        statistics = np.zeros((niter, self.nb_sources, 4, self.geometry.nb_bins))
        share = 1 / (niter + 1)
        for level in range(niter):
            for job in self._segments(_DECODE_FRAMES):
                self._accumulate(self._estimate(job)[0], statistics, level, max_abs)
                tick(share * job[1] / self.nb_frames)
        filtered = (
            estimates
            for job in self._segments(_DECODE_FRAMES)
            for estimates in self._apply(self._estimate(job)[0], statistics, max_abs)
        )
        yield from self._synthesise(filtered, lambda part: tick(share * part))

    def _synthesise(
        self, windows: Iterable[tuple[int, np.ndarray]], tick: Tick
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Inverse STFT of consecutive windows of spectra."""
        adder = OverlapAdder(self.transform)
        for first, estimates in windows:
            spectra, count = estimates[: len(self.job.stem_names)], estimates.shape[2]
            start, stems = adder.add(
                first, spectra, self.source.nb_timesteps, last=first + count == self.nb_frames
            )
            tick(count / self.nb_frames)
            if stems.shape[2]:
                yield start, stems
