"""Tracks of any length through the engine of a model, at its level and with its channels."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import numpy as np

from .._support.limits import memory_limit
from .._support.progress import Progress
from ..config import check_aggregate
from ..engines.bottleneck import (
    DiskStore,
    FrameStore,
    MemoryStore,
    RoundedStore,
    StoreFactory,
    groups_of,
)
from ..engines.job import Job, SeparationEngine
from ..engines.sources import (
    FirstChannels,
    LevelledSource,
    Sink,
    Source,
    TwiceOneChannel,
    check_channels,
)
from ..errors import ConfigError

logger = logging.getLogger(__name__)

_FLOAT = np.dtype(np.float32)


def separate_blocks(
    engine: SeparationEngine,
    source: Source,
    progress: Progress | None = None,
    new_store: StoreFactory | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Separate a source and yield its stems from start to end.

    Parameters
    ----------
    engine : SeparationEngine
        From `umx_np.devices.separation_engine`.
    source : Source
        The mixture at the rate of the model, with its channels; one channel is taken for two.
    progress : callable or None
        Gets the fraction that is done, from 0 to 1.
    new_store : callable or None
        As for `SeparationEngine.separate`; None keeps activations in memory.

    Yields
    ------
    start : int
        Position of the block in the track, in samples.
    stems : ndarray [shape=(nb_stems, nb_channels, n)]
        In the order of the job's `stem_names`; valid until the next block is asked for.
    """
    job = engine.job
    if new_store is None:
        nb_frames = job.geometry.nb_frames(source.nb_timesteps)

        new_store = _rounding(job, lambda width, dtype: MemoryStore(nb_frames, width, dtype))

    follower = job.level_follower()
    if follower is not None:
        source = LevelledSource(source, follower)
    if source.nb_channels == 1 and job.config.nb_channels == 2:
        source = TwiceOneChannel(source)
    for start, stems in engine.separate(source, progress, new_store):
        if follower is not None:
            follower.restore(start, stems)
        yield start, stems


def stem_blocks(
    engine: SeparationEngine,
    source: Source,
    progress: Progress | None = None,
    max_memory: int | None = None,
) -> Iterator[tuple[int, np.ndarray]]:
    """Separate a source, with the channels that it has.

    Parameters
    ----------
    engine, source, progress
        As for `separate_blocks`; of more channels than the model has, the first ones are taken, at
        least two.
    max_memory : int or None
        As for `separate_stream`.

    Yields
    ------
    start : int
        Position of the block in the track, in samples.
    stems : ndarray [shape=(nb_stems, nb_channels, n)]
        One channel if the source has one. Valid until the next block is asked for.
    """
    check_channels(source, engine.job.config.nb_channels)
    used = FirstChannels(source, max(2, engine.job.config.nb_channels))
    with ExitStack() as resources:
        new_store = _store_factory(engine.job, source.nb_timesteps, max_memory, resources)
        for start, stems in separate_blocks(engine, used, progress, new_store):
            if source.nb_channels == 1 and stems.shape[1] > 1:
                stems = stems.mean(axis=1, keepdims=True)
            yield start, stems
    if progress is not None:
        progress(1.0)


def separate_stream(
    engine: SeparationEngine,
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
    engine : SeparationEngine
        As for `separate_blocks`.
    reader : Source
        The mixture at the rate of the model.
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
        check_aggregate(aggregate, engine.job.stem_names)
    parts = aggregate or {name: [name] for name in engine.job.stem_names}
    if set(writers) != set(parts):
        raise ConfigError(f"writers={sorted(writers)} must be the stems {sorted(parts)}")
    index = {name: k for k, name in enumerate(engine.job.stem_names)}
    for _, stems in stem_blocks(engine, reader, progress, max_memory):
        for name, some in parts.items():
            first, *others = (stems[index[part]] for part in some)
            writers[name].write(sum(others, first))


def _rounding(job: Job, new_store: Callable[[int, np.dtype], FrameStore]) -> StoreFactory:
    """Make stores of a dtype to stores of what the networks of a job read."""
    if job.ops.precision == "int8":
        return lambda width: RoundedStore(new_store, width)
    return lambda width: new_store(width, _FLOAT)


def _bytes_of_floats(width: int) -> int:
    return width * _FLOAT.itemsize


def _store_factory(
    job: Job, nb_timesteps: int, max_memory: int | None, resources: ExitStack
) -> StoreFactory:
    """Choose between memory and disk for the activations of a track."""
    nb_frames = job.geometry.nb_frames(nb_timesteps)
    configs = {name: network.config for name, network in job.networks.items()}
    nb_bytes = RoundedStore.nb_bytes if job.ops.precision == "int8" else _bytes_of_floats
    # Of each target the encoded track, and two sets of layer outputs of those that run together.
    of_a_frame = sum(nb_bytes(c.hidden_size) for c in configs.values())
    of_a_frame += 2 * max(
        sum(
            nb_bytes(configs[name].lstm_hidden_size) * configs[name].nb_directions for name in names
        )
        for names in groups_of(job.networks, job.ops.threads)
    )
    need = nb_frames * of_a_frame
    if max_memory is None:
        limit = memory_limit()
        # In a container half is left for the weights, the windows, and what else runs there.
        max_memory = need if limit is None else limit // 2
    if need <= max_memory:
        return _rounding(job, lambda width, dtype: MemoryStore(nb_frames, width, dtype))
    is_told = False

    def on_disk(width: int, dtype: np.dtype) -> FrameStore:
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

    return _rounding(job, on_disk)
