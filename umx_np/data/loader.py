"""Batches of a dataset, made ahead of time by threads or processes, the same for any number."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import ref

import numpy as np

from .._support.threads import Ahead, Stop
from ..config import check_int
from ..errors import ConfigError
from ._processes import ProcessPool
from .base import UnmixDataset, epoch_order
from .batches import Batch, keep_freed_memory, make_batch

MODES = ("threads", "processes")


class Loader:
    """The batches of each epoch of a dataset.

    What an item looks like depends on `seed`, the epoch and the item alone, and what is in a batch
    on `seed` and the epoch: the batches are the same for any number of workers, in either mode, and
    when an epoch is taken up in the middle.

    Parameters
    ----------
    dataset : UnmixDataset
        What to load.
    batch_size : int
        Items a batch. Items of different lengths, like whole tracks, need 1.
    seed : int
        Where all random numbers come from.
    shuffle : bool
        Visit the items in a new random order in each epoch.
    drop_last : bool
        Leave the last batch out if it is smaller than the others.
    workers : int
        Threads or processes that make batches ahead of time; 0 makes each when it is asked for.
    mode : {'threads', 'processes'}
        Threads are the right choice for the datasets here: reading and adding waveforms does not
        hold Python's lock. Processes help datasets that compute in Python. They are started afresh
        ("spawn"), which asks for an ``if __name__ == "__main__":`` around the main program.
    prefetch : int
        Batches made ahead of the one in use; at least one a worker.

    Examples
    --------
    >>> import numpy as np
    >>> class Noise(UnmixDataset):
    ...     def __len__(self):
    ...         return 5
    ...     def sample(self, index, rng):
    ...         y = rng.standard_normal((2, 100), np.float32)
    ...         return 2 * y, y
    >>> with Loader(Noise(), batch_size=2, seed=0, shuffle=True, workers=2) as loader:
    ...     [x.shape for x, y in loader.epoch(0)]
    [(2, 2, 100), (2, 2, 100), (1, 2, 100)]
    """

    def __init__(
        self,
        dataset: UnmixDataset,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        drop_last: bool = False,
        workers: int = 0,
        mode: str = "threads",
        prefetch: int = 2,
    ) -> None:
        self.dataset = dataset
        self.batch_size = check_int("batch_size", batch_size, 1)
        self.seed = check_int("seed", seed, 0)
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.workers = check_int("workers", workers, 0)
        self.prefetch = check_int("prefetch", prefetch, 1)
        if mode not in MODES:
            raise ConfigError(f"mode={mode!r} must be one of {', '.join(MODES)}")
        self.mode = mode
        self._pool: ProcessPool | None = None
        self._running: list[ref[Ahead[Batch]]] = []

    def __len__(self) -> int:
        """Batches of an epoch."""
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def indices(self, epoch: int) -> list[np.ndarray]:
        """Items of each batch of an epoch.

        Parameters
        ----------
        epoch : int
            Number of the epoch, from 0.

        Returns
        -------
        list of ndarray
            One array of item numbers for each batch.
        """
        nb_items = len(self.dataset)
        order = epoch_order(self.seed, epoch, nb_items) if self.shuffle else np.arange(nb_items)
        return [order[k * self.batch_size : (k + 1) * self.batch_size] for k in range(len(self))]

    def epoch(self, n: int, start_batch: int = 0) -> Iterator[Batch]:
        """Batches of one epoch.

        Parameters
        ----------
        n : int
            Number of the epoch, from 0.
        start_batch : int
            Where to begin; the batches before it are not made.

        Yields
        ------
        x, y : ndarray [shape=(nb_samples, nb_channels, nb_timesteps)], float32
            Mixtures and targets, new arrays for each batch.

        Raises
        ------
        DataError
            If an item cannot be made, or does not fit the others of its batch.
        """
        n = check_int("epoch", n, 0)
        start_batch = check_int("start_batch", start_batch, 0)
        batches = self.indices(n)
        if start_batch > len(batches):
            raise ConfigError(
                f"start_batch={start_batch} is beyond the {len(batches)} batches of an epoch"
            )
        todo = batches[start_batch:]
        keep_freed_memory()
        return self._ahead(todo, n) if self.workers and todo else self._at_once(todo, n)

    def _at_once(self, todo: list[np.ndarray], epoch: int) -> Iterator[Batch]:
        for indices in todo:
            yield make_batch(self.dataset, indices, self.seed, epoch)

    def _ahead(self, todo: list[np.ndarray], epoch: int) -> Iterator[Batch]:
        """Keep some batches in the making while the caller uses another.

        In either mode threads of this process wait for the batches; of another process, each thread
        asks for one at a time.
        """
        pool = self._process_pool() if self.mode == "processes" else None
        # What is begun when the caller leaves early stops at the next item.
        stop = Stop()

        def make(indices: np.ndarray) -> Batch:
            if pool is not None:
                return pool.make_batch(indices, self.seed, epoch, stop)
            return make_batch(self.dataset, indices, self.seed, epoch, stop)

        def close_broken() -> None:
            if pool is not None and pool.broken:
                self._end_processes()

        ahead = max(self.prefetch, self.workers) + 1
        batches = Ahead(self.workers, "umx-np-loader", make, todo, ahead, close_broken, stop)
        self._running = [known for known in self._running if known() is not None] + [ref(batches)]
        return batches

    def _process_pool(self) -> ProcessPool:
        if self._pool is None or self._pool.closed:
            self._pool = ProcessPool(self.dataset, self.workers)
        return self._pool

    def close(self) -> None:
        """Stop what is running and end the processes; the next epoch starts new ones."""
        for reference in self._running:
            batches = reference()
            if batches is not None:
                batches.close()
        self._end_processes()

    def _end_processes(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
