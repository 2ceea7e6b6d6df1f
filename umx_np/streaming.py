"""Whole tracks in bounded memory: blocks of audio in, blocks of stems out.

The result is that of the whole-track computation, not of overlapping excerpts. Three passes:

1. encode: STFT in blocks, each network's bottleneck activations kept (`umx_np.bottleneck`);
2. recurrent layers over the whole track;
3. decode: STFT again, masks, Wiener filter and inverse STFT, one filter window at a time.

Only the activations grow with the length of the track: 2 kB a frame and target for 512 units.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ._limits import memory_limit
from .backends import on_cuda
from .bottleneck import (
    DiskStore,
    FrameStore,
    MemoryStore,
    StoreFactory,
    groups_of,
    run_bottleneck,
    shared_blocks,
)
from .config import check_aggregate
from .dsp.blocks import SLICE_FRAMES, Framer, OverlapAdder, Segment
from .dsp.levels import LevelFollower
from .dsp.stft import StftGeometry
from .dsp.wiener import scale_of
from .errors import ConfigError, ShapeError
from .progress import Progress

if TYPE_CHECKING:
    from .separator import Separator

logger = logging.getLogger(__name__)

# Frames decoded together where no filter window says how many.
_DECODE_FRAMES = 300
# Samples asked of a source at a time.
_SOURCE_BLOCK = 1 << 17
# Shares of the three passes in the time, for the progress report.
_SHARES = (0.3, 0.35, 0.35)


class Source(Protocol):
    """Audio that can be read more than once, such as `umx_np.audio.AudioReader`."""

    nb_channels: int
    nb_timesteps: int

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Yield float32 blocks [shape=(nb_channels, <= size)] from the beginning."""
        ...


class Sink(Protocol):
    """Something that takes a stem block by block, such as `umx_np.audio.StemWriter`."""

    def write(self, block: np.ndarray) -> None:
        """Append a block [shape=(nb_channels, n)]."""
        ...


class ArraySource:
    """A `Source` over an array [shape=(nb_channels, nb_timesteps)]."""

    def __init__(self, audio: np.ndarray) -> None:
        self._audio = audio
        self.nb_channels, self.nb_timesteps = audio.shape

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        for start in range(0, self.nb_timesteps, size):
            yield self._audio[:, start : start + size]


class LevelledSource:
    """A `Source` over another one, brought to the level of a model.

    Parameters
    ----------
    source : Source
        The mixture.
    follower : LevelFollower
        Finds the levels when the source is read first; they hold for the passes after that.
    nb_used : int
        Channels that are separated, and tell the level, if there are more.
    """

    def __init__(self, source: Source, follower: LevelFollower, nb_used: int) -> None:
        self._source, self._follower, self._nb_used = source, follower, nb_used
        self._is_known = False
        self.nb_channels, self.nb_timesteps = source.nb_channels, source.nb_timesteps

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        used = (block[: self._nb_used] for block in self._source.blocks(size))
        if self._is_known:
            start = 0
            for block in used:
                yield self._follower.divide(start, block)
                start += block.shape[1]
            return
        for block in used:
            yield self._follower.push(block)
        yield self._follower.finish()
        self._is_known = True


class CheckedSource:
    """A `Source` over another one, of which nothing is taken for granted.

    Parameters
    ----------
    source : Source
        Its blocks may be of any real dtype.
    n_fft : int
        Size of the STFT that the samples are meant for.
    """

    def __init__(self, source: Source, n_fft: int) -> None:
        self._source, self._n_fft = source, n_fft
        self.nb_channels, self.nb_timesteps = source.nb_channels, source.nb_timesteps
        if self.nb_channels < 1 or self.nb_timesteps < 1:
            raise ShapeError(
                f"source has nb_channels={self.nb_channels}, nb_timesteps={self.nb_timesteps}; "
                "there is nothing to separate"
            )

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        for given in self._source.blocks(size):
            block = np.asarray(given)
            if block.ndim != 2 or len(block) != self.nb_channels:
                raise ShapeError(
                    f"source gave a block with shape={block.shape}; it must be "
                    f"({self.nb_channels}, nb_timesteps)"
                )
            if block.dtype.kind not in "fiu":
                raise ShapeError(f"source gave a block with dtype={block.dtype}; it must be real")
            if block.size and not is_finite_as(block, np.dtype(np.float32), self._n_fft):
                raise ShapeError(
                    "source gave a block with NaN, infinity or numbers too large for float32; "
                    "remove them before separating"
                )
            yield block.astype(np.float32, copy=False)


def is_finite_as(x: np.ndarray, dtype: np.dtype, n_fft: int) -> bool:
    """Whether all numbers are finite, and stay so in an STFT that is computed in a dtype."""
    # Frames are multiplied by a window times n_fft, and their n_fft samples summed.
    largest = np.finfo(dtype).max / n_fft**2
    return bool(-largest <= x.min() and x.max() <= largest)  # NaN is neither


def segments(
    blocks: Iterable[np.ndarray], geometry: StftGeometry, nb_timesteps: int, group: int
) -> Iterator[Segment]:
    """Cut blocks of a signal of known length to overlapping segments of whole frames.

    Parameters
    ----------
    blocks : iterable of ndarray [shape=(nb_channels, any)]
        The signal.
    geometry : StftGeometry
        Where the frames lie.
    nb_timesteps : int
        Length of the signal.
    group : int
        Frames of a segment; the last one may be shorter.

    Yields
    ------
    Segment
        As `Framer.push` yields them.

    Raises
    ------
    ShapeError
        If the blocks have another length than `nb_timesteps`.
    """
    framer = Framer(geometry, group)
    for block in blocks:
        yield from framer.push(block)
        if framer.nb_timesteps > nb_timesteps:
            break
    check_length(framer.nb_timesteps, nb_timesteps)
    yield from framer.finish()


def check_length(delivered: int, announced: int) -> None:
    """Raise `ShapeError` unless a source has delivered the samples it announced."""
    if delivered != announced:
        raise ShapeError(
            f"the source announced nb_timesteps={announced} samples but delivered "
            f"{'more' if delivered > announced else delivered}"
        )


def _batched(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while batch := list(itertools.islice(items, size)):
        yield batch


class _Track:
    """One track on its way through the three passes."""

    def __init__(self, separator: Separator, source: Source, new_store: StoreFactory) -> None:
        self.separator = separator
        self.ops = separator.ops
        self.config = separator.config
        self.geometry = separator.geometry
        self.source = source
        self.new_store = new_store
        self.transform = separator.transform(np.float32)
        self.nb_frames = self.geometry.nb_frames(source.nb_timesteps)
        self.mono = self.config.nb_channels == 1
        self.options = separator.wiener_options
        self.nb_sources = len(separator.networks) + self.options.residual
        self.stores: dict[str, FrameStore] = {}
        self.peak = 0.0  # of all bins, for a filter over the whole track
        self._memory: dict[str, np.ndarray] = {}

    def _source_blocks(self) -> Iterator[np.ndarray]:
        """Blocks with the channels that the networks expect."""
        for block in self.source.blocks(_SOURCE_BLOCK):
            yield fit_channels(block, self.config.nb_channels)

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
        return segments(self._source_blocks(), self.geometry, self.source.nb_timesteps, group)

    # -- pass 1 ------------------------------------------------------------------------------

    def encode(self, tick: Callable[[float], None]) -> None:
        networks = self.separator.networks
        for name, network in networks.items():
            self.stores[name] = self.new_store(network.config.hidden_size)
        nb_bins = max(network.config.nb_input_bins for network in networks.values())
        whole = self.config.niter > 0 and self.config.wiener_win_len is None

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

    def recur(self, tick: Callable[[float], None]) -> None:
        run_bottleneck(
            self.ops, self.separator.networks, self.stores, self.nb_frames, self.new_store, tick
        )

    # -- pass 3 ------------------------------------------------------------------------------

    def decode(self, tick: Callable[[float], None]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield ``(start, stems [shape=(nb_stems, nb_channels, n)])`` from start to end."""
        if self.config.niter > 0 and self.config.wiener_win_len is None:
            yield from self._decode_whole_track(tick)
            return
        window = self.config.wiener_win_len if self.config.niter > 0 else _DECODE_FRAMES
        assert window is not None
        yield from self._synthesise((self._window(job) for job in self._segments(window)), tick)

    def _window(self, job: Segment) -> tuple[int, np.ndarray]:
        """Filter one window by itself."""
        first, _, _ = job
        mix, mix_mags, mags = self._estimate(job)
        peak = float(mix_mags.max()) if not self.mono else self._peak(mix)
        estimates = self.ops.wiener(
            mix,
            mags,
            self.options,
            iterations=self.config.niter,
            max_abs=scale_of(peak),
            out=self._estimates(mix),
        )
        return first, estimates

    def _estimates(self, mix: np.ndarray) -> np.ndarray:
        return self._scratch("estimates", (self.nb_sources, *mix.shape), np.complex64)

    def _estimate(self, job: Segment) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Spectra of the mixture, its magnitudes, and the magnitudes of the targets."""
        first, count, segment = job
        geometry, networks = self.geometry, self.separator.networks
        shape = (count, 1 if self.mono else len(segment), geometry.nb_bins)
        mix = self._scratch("mix", (len(segment), count, geometry.nb_bins), np.complex64)
        mix_mags = self._scratch("mix_mags", shape, np.float32)
        mags = self._scratch("mags", (len(networks), *shape), np.float32)
        slices = [slice(i, min(i + SLICE_FRAMES, count)) for i in range(0, count, SLICE_FRAMES)]

        def analyse(part: slice) -> None:
            samples = segment[:, part.start * geometry.n_hop :]
            self.transform.forward(samples, part.stop - part.start, out=mix[:, part])
            self.ops.magnitude(
                mix[:, part], nb_bins=geometry.nb_bins, mono=self.mono, out=mix_mags[part]
            )

        def mask(job: tuple[int, str, slice]) -> None:
            j, name, part = job
            z = self.stores[name].read(first + part.start, first + part.stop)
            networks[name].decode(z, mix_mags[part], out=mags[j, part])

        self.ops.map(analyse, slices)
        self.ops.map(mask, [(j, name, part) for j, name in enumerate(networks) for part in slices])
        return mix, mix_mags, mags

    def _decode_whole_track(
        self, tick: Callable[[float], None]
    ) -> Iterator[tuple[int, np.ndarray]]:
        """One pass for the statistics of each iteration, and one that filters."""
        options, max_abs, niter = self.options, scale_of(self.peak), self.config.niter
        statistics = np.zeros((niter, self.nb_sources, 4, self.geometry.nb_bins))
        share = 1 / (niter + 1)
        for level in range(niter):
            for job in self._segments(_DECODE_FRAMES):
                mix, _, mags = self._estimate(job)
                self.ops.wiener_accumulate(
                    mix, mags, statistics, options, level=level, max_abs=max_abs
                )
                tick(share * job[1] / self.nb_frames)

        def filtered() -> Iterator[tuple[int, np.ndarray]]:
            for job in self._segments(_DECODE_FRAMES):
                mix, _, mags = self._estimate(job)
                estimates = self.ops.wiener_filter(
                    mix, mags, statistics, options, max_abs=max_abs, out=self._estimates(mix)
                )
                yield job[0], estimates

        yield from self._synthesise(filtered(), lambda part: tick(share * part))

    def _synthesise(
        self,
        windows: Iterable[tuple[int, np.ndarray]],
        tick: Callable[[float], None],
    ) -> Iterator[tuple[int, np.ndarray]]:
        """Inverse STFT of consecutive windows of spectra."""
        adder = OverlapAdder(self.transform)
        for first, estimates in windows:
            estimates = estimates[: len(self.separator.stem_names)]
            nb_stems, nb_channels, count, nb_bins = estimates.shape
            start, signals = adder.add(
                first,
                estimates.reshape(-1, count, nb_bins),
                self.source.nb_timesteps,
                last=first + count == self.nb_frames,
            )
            tick(count / self.nb_frames)
            if signals.shape[1]:
                yield start, signals.reshape(nb_stems, nb_channels, signals.shape[1])


def fit_channels(block: np.ndarray, nb_channels: int) -> np.ndarray:
    """Bring a block to the channels that a model of `nb_channels` works on.

    A stereo model gets two channels, a mono one twice. A mono model filters one or two channels
    as they are. Of more channels the first ones are taken, as many as the model has, or two.
    """
    if nb_channels == 2 and len(block) == 1:
        return np.repeat(block, 2, axis=0)
    if nb_channels > 2 and len(block) < nb_channels:
        raise ShapeError(f"nb_channels={len(block)}: this model needs {nb_channels}")
    return block[: max(2, nb_channels)]


def separate_blocks(
    separator: Separator,
    source: Source,
    progress: Progress | None = None,
    new_store: StoreFactory | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Separate a source and yield its stems from start to end.

    Parameters
    ----------
    separator : Separator
        Networks and options, on any device but the reference.
    source : Source
        The mixture at the separator's rate; read twice (with a filter over the whole track,
        ``niter + 2`` times). A CUDA device reads it once if it can hold the samples.
    progress : callable or None
        Gets the fraction that is done, from 0 to 1.
    new_store : callable or None
        Makes a `FrameStore` of a given width for the whole track; None keeps them in memory. A CUDA
        device asks for them only if it cannot hold the activations itself.

    Yields
    ------
    start : int
        Position of the block in the track, in samples.
    stems : ndarray [shape=(nb_stems, nb_channels, n)], float32
        In the order of ``separator.stem_names``; valid until the next block is asked for.
    """
    nb_frames = separator.geometry.nb_frames(source.nb_timesteps)
    if new_store is None:

        def new_store(width: int) -> FrameStore:
            return MemoryStore(nb_frames, width, np.dtype(np.float32))

    follower = separator.level_follower()
    if follower is None:
        yield from _blocks_as_they_are(separator, source, progress, new_store)
        return
    levelled = LevelledSource(source, follower, max(2, separator.nb_channels))
    for start, stems in _blocks_as_they_are(separator, levelled, progress, new_store):
        follower.restore(start, stems)
        yield start, stems


def _blocks_as_they_are(
    separator: Separator,
    source: Source,
    progress: Progress | None,
    new_store: StoreFactory,
) -> Iterator[tuple[int, np.ndarray]]:
    """`separate_blocks` without the level of the model."""
    if on_cuda(separator.ops):
        from .device_streaming import engine_of

        yield from engine_of(separator).separate(source, progress, new_store)
        return
    track = _Track(separator, source, new_store)
    done = 0.0

    def tick(share: float) -> Callable[[float], None]:
        def advance(part: float) -> None:
            nonlocal done
            done += share * part
            if progress is not None:
                progress(min(done, 1.0))

        return advance

    track.encode(tick(_SHARES[0]))
    track.recur(tick(_SHARES[1]))
    yield from track.decode(tick(_SHARES[2]))


def separate_stream(
    separator: Separator,
    reader: Source,
    writers: Mapping[str, Sink],
    *,
    aggregate: Mapping[str, Sequence[str]] | None = None,
    progress: Progress | None = None,
    max_memory: int | None = None,
) -> None:
    """Separate a source into sinks, block by block.

    Parameters
    ----------
    separator : Separator
        Networks and options.
    reader : Source
        The mixture at the separator's rate.
    writers : mapping of str to Sink
        A sink for each stem, or for each name of `aggregate`. They get as many channels as the
        source has, at most two.
    aggregate : mapping of str to sequence of str, or None
        Stems to sum.
    progress : callable or None
        Gets the fraction that is done, from 0 to 1.
    max_memory : int or None
        Bytes of the host that the activations of the whole track may take; more goes to a temporary
        file. None keeps them in memory. A CUDA device takes none of the host as long as they fit
        into its own memory, which this does not limit.

    Raises
    ------
    ConfigError
        If the names of the writers are not those of the stems.
    """
    if aggregate is not None:
        check_aggregate(aggregate, separator.stem_names)
    parts = aggregate or {name: [name] for name in separator.stem_names}
    if set(writers) != set(parts):
        raise ConfigError(f"writers={sorted(writers)} must be the stems {sorted(parts)}")
    index = {name: k for k, name in enumerate(separator.stem_names)}
    for _, stems in stem_blocks(separator, reader, progress, max_memory):
        for name, some in parts.items():
            first, *others = (stems[index[part]] for part in some)
            writers[name].write(sum(others, first))


def stem_blocks(
    separator: Separator,
    source: Source,
    progress: Progress | None = None,
    max_memory: int | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Separate a source on any device, with the channels that it has.

    Parameters
    ----------
    separator, source, progress
        As for `separate_blocks`.
    max_memory : int or None
        As for `separate_stream`.

    Yields
    ------
    start : int
        Position of the block in the track, in samples.
    stems : ndarray [shape=(nb_stems, nb_channels, n)]
        One channel if the source has one. Valid until the next block is asked for.
    """
    with ExitStack() as resources:
        blocks: Iterable[tuple[int, np.ndarray]]
        if separator.ops.name == "reference":
            audio = np.concatenate(
                [fit_channels(b, separator.nb_channels) for b in source.blocks(_SOURCE_BLOCK)], 1
            )
            check_length(audio.shape[1], source.nb_timesteps)
            blocks = [(0, separator(audio[None], progress=progress)[0])]
        else:
            new_store = _store_factory(separator, source, max_memory, resources)
            blocks = separate_blocks(separator, source, progress, new_store)
        for start, stems in blocks:
            if source.nb_channels == 1 and stems.shape[1] > 1:
                stems = stems.mean(axis=1, keepdims=True)
            yield start, stems
    if progress is not None:
        progress(1.0)


def _store_factory(
    separator: Separator, source: Source, max_memory: int | None, resources: ExitStack
) -> StoreFactory:
    """Choose between memory and disk for the activations of a track."""
    nb_frames = separator.geometry.nb_frames(source.nb_timesteps)
    dtype = np.dtype(np.float32)
    configs = {name: network.config for name, network in separator.networks.items()}
    # Of each target the encoded track, and two sets of layer outputs of those that run together.
    width = sum(c.hidden_size for c in configs.values())
    width += 2 * max(
        sum(configs[name].lstm_hidden_size * configs[name].nb_directions for name in names)
        for names in groups_of(separator.networks, separator.ops.threads)
    )
    need = nb_frames * width * dtype.itemsize
    if max_memory is None:
        limit = memory_limit()
        # In a container half is left for the weights, the windows, and what else runs there.
        max_memory = need if limit is None else limit // 2
    if need <= max_memory:
        return lambda width: MemoryStore(nb_frames, width, dtype)
    is_told = False

    def on_disk(width: int) -> FrameStore:
        nonlocal is_told
        if not is_told:
            logger.info(
                "activations of %.0f MB exceed max_memory=%.0f MB: kept in a temporary file",
                need / 1e6,
                max_memory / 1e6,
            )
            is_told = True
        store = DiskStore(nb_frames, width, dtype)
        resources.callback(store.close)
        return store

    return on_disk
