"""Batches for a device: mixed there from clips in its memory, or made ahead and copied."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Any, cast

import numpy as np

from .._support.progress import reporting
from .._support.threads import Ahead
from ..backends.training import Clips, Offload, PlannedBatch, Slot
from ..config import ModelConfig
from ..data import Loader, item_rng
from ..data.files import FULL_SCALE, Clip
from ..data.plans import PlannedItem, PlanningDataset
from ..data.trackfolder import FAINT
from ..errors import ConfigError, DataError, DeviceError
from ..framing.geometry import StftGeometry
from .config import TrainConfig

logger = logging.getLogger(__name__)

DeviceBatches = Generator[tuple[Any, Any], None, None]

# Clips that are decoded side by side.
_DECODERS = 4
# Length of a validation item that memory is kept for: ten minutes at 1024 samples a frame.
_LONGEST_FRAMES = 26_000
# What CUDA, its libraries and the gaps of the allocator take besides.
_OVERHEAD = 1 << 30
# What to do where the memory of the device does not suffice.
REMEDY = "use a smaller batch_size=... or seq_dur=..., or resident='no'"
# Batches that are made and copied ahead, the one in use not counted.
_AHEAD = 2


def memory_of_step(config: ModelConfig, nb_rows: int, *, training: bool) -> int:
    """Estimate what a batch takes in the memory of the device.

    Parameters
    ----------
    config : ModelConfig
        Architecture.
    nb_rows : int
        Frames of all samples of the batch.
    training : bool
        Whether there is a backward pass.

    Returns
    -------
    int
        Bytes, without parameters and data.
    """
    hidden, outputs = config.hidden_size, config.nb_channels * config.nb_bins
    inputs = config.nb_channels * config.nb_input_bins
    layers = config.nb_layers if training else 1
    # Magnitudes of mixture, target and estimate, and before the last batch norm; of a layer of the
    # LSTM gates, cells, input and output; the gates once more; what is left is between the layers.
    features = 4 * outputs + inputs + hidden * (7 * layers + 4 + 9)
    return 4 * nb_rows * features


def memory_of_training(config: TrainConfig, model: ModelConfig, sample_rate: float) -> int:
    """Estimate what a run takes in the memory of the device, besides data that stays there."""
    geometry = StftGeometry(config.n_fft, config.n_hop, center=False)
    nb_timesteps = round(config.seq_dur * sample_rate)
    rows = config.batch_size * geometry.nb_frames(max(nb_timesteps, config.n_fft))
    batches = 2 * (_AHEAD + 1) * config.batch_size * 2 * 4 * nb_timesteps
    step = memory_of_step(model, rows, training=True) + batches
    return max(step, memory_of_step(model, _LONGEST_FRAMES, training=False)) + _OVERHEAD


class ResidentBatches:
    """Batches that the device mixes from clips in its memory.

    The plan of an item is drawn by the dataset, as for the processor: the batches are the same but
    for rounding.

    Parameters
    ----------
    loader : Loader
        Says which items are in a batch.
    dataset : PlanningDataset
        Its dataset.
    backend : Offload
        The device.
    reserved : int
        Bytes of its memory that are wanted for other things.
    progress : bool
        Draw a bar while the clips are decoded.

    Raises
    ------
    DataError
        If a clip cannot be read, or holds NaN or infinity.
    DeviceError
        If the clips need more than 16 bits, and there is too little memory for that.
    """

    def __init__(
        self,
        loader: Loader,
        dataset: PlanningDataset,
        backend: Offload,
        *,
        reserved: int = 0,
        progress: bool = False,
    ) -> None:
        self._loader, self._dataset = loader, dataset
        clips = sorted(dataset.clips)
        self._numbers = {clip: number for number, clip in enumerate(clips)}
        self._widest = max(dataset.files.info(clip).nb_channels for clip in clips)
        self._backend = backend
        store: Clips | None = None
        with suppress(_NotIntegersError):
            store = self._filled(clips, np.int16, FULL_SCALE, backend, progress)
        # Not while the error is known, which keeps the memory of the first attempt.
        if store is None:
            _check_room(dataset, clips, 4, reserved, backend)
            store = self._filled(clips, np.float32, 1.0, backend, progress)
        self._store = store

    @property
    def nb_bytes(self) -> int:
        """Memory that the clips take."""
        return self._store.nb_bytes

    def _filled(
        self, clips: Sequence[Clip], dtype: Any, full_scale: float, backend: Offload, progress: bool
    ) -> Clips:
        files = self._dataset.files
        infos = [files.info(clip) for clip in clips]
        shapes = [(info.nb_channels, info.nb_timesteps) for info in infos]
        store = backend.clips(shapes, dtype, full_scale)
        with (
            reporting(progress, label="data to the device") as report,
            Ahead(_DECODERS, "umx-np-files", files.read_all, clips, _DECODERS) as decoded,
        ):
            for done, (clip, samples) in enumerate(zip(clips, decoded, strict=True), start=1):
                store.put(self._numbers[clip], _converted(clip, samples, dtype))
                if report is not None:
                    report(done / len(clips))
        return store

    def epoch(self, n: int, start_batch: int = 0) -> DeviceBatches:
        """Batches of one epoch; see `umx_np.data.Loader.epoch`."""
        loader, dataset = self._loader, self._dataset
        for indices in loader.indices(n)[start_batch:]:
            yield self._mixed(
                [dataset.plan(int(i), item_rng(loader.seed, n, int(i))) for i in indices]
            )

    def _mixed(self, items: Sequence[PlannedItem]) -> tuple[Any, Any]:
        nb_sources, nb_channels = len(items[0].sources), len(items[0].sources[0].channels)
        shape = (len(items), nb_sources)
        clips, firsts = np.empty(shape, np.int64), np.empty(shape, np.int64)
        channels = np.zeros((*shape, nb_channels, self._widest), np.float32)
        for i, item in enumerate(items):
            for j, source in enumerate(item.sources):
                clips[i, j], firsts[i, j] = self._numbers[source.clip], source.first
                channels[i, j, :, : source.channels.shape[1]] = source.channels
        in_target = np.zeros(nb_sources, bool)
        in_target[list(items[0].target)] = True
        levels = None
        if items[0].level is not None:
            levels = 10.0 ** (np.array([item.level for item in items], np.float64) / 20.0)
        nb_timesteps = self._dataset.nb_timesteps
        assert nb_timesteps is not None
        with self._backend.computing("a batch", REMEDY):
            batch = PlannedBatch(clips, firsts, channels, in_target, levels)
            return self._store.mix(batch, nb_timesteps, FAINT)


class _NotIntegersError(Exception):
    pass


def _converted(clip: Clip, samples: np.ndarray, dtype: Any) -> np.ndarray:
    """Samples in the dtype of all clips; raise `_NotIntegersError` if 16 bits are too few."""
    if samples.dtype == np.float32 and not np.isfinite(samples.sum()):
        raise DataError(f"{clip} holds NaN or infinity")
    if samples.dtype == dtype:
        return samples
    if dtype == np.int16:
        raise _NotIntegersError
    return samples.astype(np.float32) * np.float32(1.0 / FULL_SCALE)


class UploadedBatches:
    """Batches of a loader, copied to the device while it computes.

    Parameters
    ----------
    loader : Loader
        Makes the batches.
    backend : Offload
        The device.
    """

    def __init__(self, loader: Loader, backend: Offload) -> None:
        self._loader, self._backend = loader, backend

    def epoch(self, n: int, start_batch: int = 0) -> DeviceBatches:
        """Batches of one epoch; see `umx_np.data.Loader.epoch`.

        An array that is yielded is written to again after the next two were asked for.
        """
        batches = cast(DeviceBatches, self._loader.epoch(n, start_batch=start_batch))
        slots = deque(self._backend.slot() for _ in range(_AHEAD + 1))

        def free_slots() -> Iterator[Slot]:
            yield from list(slots)[:_AHEAD]
            while True:
                # What was yielded before is in use until the next is asked for.
                slots[0].used()
                slots.rotate(-1)
                yield slots[_AHEAD - 1]

        def load(slot: Slot) -> tuple[Any, Any] | None:
            batch = next(batches, None)
            if batch is None:
                return None
            with self._backend.computing("a batch", REMEDY):
                return slot.fill(*batch)

        # The one thread also asks the loader, which may make batches when it is asked.
        with closing(batches), Ahead(1, "umx-np-upload", load, free_slots(), _AHEAD) as uploads:
            for batch in uploads:
                if batch is None:
                    return
                yield batch


def device_batches(
    config: TrainConfig,
    model: ModelConfig,
    loader: Loader,
    backend: Offload,
    *,
    progress: bool = False,
) -> ResidentBatches | UploadedBatches:
    """Choose where the training batches are made, and log the choice.

    Parameters
    ----------
    config : TrainConfig
        Its `resident` may leave no choice.
    model : ModelConfig
        Architecture of the network.
    loader : Loader
        Of the training set.
    backend : Offload
        The device.
    progress : bool
        Draw a bar while data is copied.

    Raises
    ------
    ConfigError
        If the data shall stay on the device but its items cannot be planned.
    DeviceError
        If it shall but does not fit.
    """
    if config.resident == "no":
        return UploadedBatches(loader, backend)
    reserved = memory_of_training(config, model, loader.dataset.sample_rate)
    reason = _why_not_resident(config, reserved, loader, backend)
    dataset = loader.dataset
    if reason and config.resident == "yes":
        raise reason
    if reason:
        logger.info("the processor makes the batches: %s", reason)
        return UploadedBatches(loader, backend)
    assert isinstance(dataset, PlanningDataset)
    try:
        batches = ResidentBatches(loader, dataset, backend, reserved=reserved, progress=progress)
    except (backend.out_of_memory, _NoRoomError) as error:
        if config.resident == "yes":
            raise DeviceError(f"the training data does not fit on the device: {error}") from error
        logger.info("the processor makes the batches: %s", error)
        return UploadedBatches(loader, backend)
    logger.info("the training data stays on the device: %.2f GB", batches.nb_bytes / 1e9)
    return batches


def _why_not_resident(
    config: TrainConfig, reserved: int, loader: Loader, backend: Offload
) -> ConfigError | DeviceError | None:
    dataset = loader.dataset
    if not isinstance(dataset, PlanningDataset):
        kind = type(dataset).__name__
        return ConfigError(f"resident={config.resident!r}: {kind} does not plan its items")
    if dataset.why_no_plans:
        return ConfigError(
            f"resident={config.resident!r}: the data cannot stay on the device, as "
            f"{dataset.why_no_plans}"
        )
    try:
        # As 16-bit integers; if they are not, it shows.
        _check_room(dataset, dataset.clips, 2, reserved, backend)
    except _NoRoomError as error:
        return error
    return None


class _NoRoomError(DeviceError):
    pass


def _check_room(
    dataset: PlanningDataset,
    clips: Iterable[Clip],
    bytes_per_sample: int,
    reserved: int,
    backend: Offload,
) -> None:
    infos = [dataset.files.info(clip) for clip in clips]
    needed = bytes_per_sample * sum(info.nb_channels * info.nb_timesteps for info in infos)
    free = backend.free_memory()
    if needed + reserved > free:
        raise _NoRoomError(
            f"the training data takes {needed / 1e9:.2f} GB, of {free / 1e9:.2f} GB free on the "
            f"device, of which a step takes {reserved / 1e9:.2f} GB"
        )
