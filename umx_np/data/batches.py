"""Items of a data set, checked and put together to batches."""

from __future__ import annotations

import numpy as np

from .._support.threads import Stop
from ..errors import DataError, ShapeError
from .base import Sample, UnmixDataset, item_rng

Batch = tuple[np.ndarray, np.ndarray]


def keep_freed_memory() -> None:
    """Make glibc reuse memory in place of giving it back to the system each time.

    It keeps blocks up to the size of the largest that was freed so far, at most 32 MB. Items are a
    few arrays of 2 MB, and without this every one of their pages is asked for again: 5.0 ms of
    system time an item of four stems of 6 s, against 0.8 ms (measured on a virtual machine, where
    page faults are slow). Other allocators take no notice.
    """
    np.empty(31 << 20, np.uint8)


def make_batch(
    dataset: UnmixDataset, indices: np.ndarray, seed: int, epoch: int, stop: Stop | None = None
) -> Batch:
    """Make items and put them together.

    Parameters
    ----------
    dataset : UnmixDataset
        Where the items come from.
    indices : ndarray, int
        Their numbers.
    seed, epoch : int
        See `item_rng`.
    stop : Stop or None
        Once it is asked for, nobody wants the batch any more.

    Returns
    -------
    x, y : ndarray [shape=(len(indices), nb_channels, nb_timesteps)], float32

    Raises
    ------
    DataError
        If an item cannot be made, or does not fit the others.
    """
    batch: Batch | None = None
    for position, index in enumerate(map(int, indices)):
        if stop is not None and stop.asked:
            raise DataError("the loader was stopped")
        x, y = checked_sample(dataset, index, item_rng(seed, epoch, index))
        if batch is None:
            shape = (len(indices), *x.shape)
            batch = np.empty(shape, np.float32), np.empty(shape, np.float32)
        if x.shape != batch[0].shape[1:]:
            reason = (
                f"its (nb_channels, nb_timesteps)={x.shape} differs from {batch[0].shape[1:]} of "
                f"item {indices[0]} in the same batch; use batch_size=1, or excerpts of one length "
                "and force_stereo"
            )
            raise _item_error(dataset, index, reason)
        batch[0][position], batch[1][position] = x, y
    if batch is None:
        raise ShapeError("a batch needs at least one item")
    return batch


def checked_sample(dataset: UnmixDataset, index: int, rng: np.random.Generator) -> Sample:
    """Make one item and see that it is what `UnmixDataset.sample` promises.

    Parameters
    ----------
    dataset : UnmixDataset
        Where the item comes from.
    index : int
        Its number.
    rng : Generator
        Its random numbers.

    Returns
    -------
    x, y : ndarray [shape=(nb_channels, nb_timesteps)], float32

    Raises
    ------
    DataError
        Naming the item; the error of the dataset is its cause.
    """
    try:
        x, y = dataset.sample(index, rng)
    except Exception as error:
        raise _item_error(dataset, index, f"{type(error).__name__}: {error}") from error
    for name, array in (("x", x), ("y", y)):
        if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype != np.float32:
            raise _item_error(
                dataset, index, f"{name} must be a float32 array (nb_channels, nb_timesteps)"
            )
    if x.shape != y.shape or 0 in x.shape:
        raise _item_error(dataset, index, f"x has shape={x.shape} and y has shape={y.shape}")
    # A sum holds NaN or infinity if any sample does, and is quicker than looking at each.
    if not (np.isfinite(x.sum()) and np.isfinite(y.sum())):
        raise _item_error(dataset, index, "it holds NaN or infinity")
    return x, y


def _item_error(dataset: UnmixDataset, index: int, reason: str) -> DataError:
    name = dataset.describe(index)
    error = DataError(f"item {index}{f' ({name})' if name else ''}: {reason}")
    error.index = index
    return error
