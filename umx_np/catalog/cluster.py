"""Work on a whole plan by Dask: a cluster of this machine, or any that has a scheduler."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from time import sleep
from typing import TYPE_CHECKING, Any

from .._support.limits import available_cores
from ..errors import CatalogError
from .ledger import MAX_ERRORS, Status
from .plan import Item, Plan, read_plan
from .shards import FIRST_PAUSE
from .worker import Worker

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

# Items of a task: so many at the most, and so many bytes, so that small songs do not wait for the
# scheduler and large ones are shared out; and of tasks so many a worker at the least.
_MOST_ITEMS = 50
_LEAST_TASKS = 8
_MOST_BYTES = 64_000_000
# Tasks of a worker that the scheduler knows of at a time: its memory does not grow with the plan.
_TASKS_AHEAD = 3
# Seconds in which a scheduler has to answer.
_PATIENCE = 30.0

_workers: dict[tuple[str, int | None], Worker] = {}


def run(
    plan: Plan,
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    threads: int | None = None,
    on_batch: Callable[[dict[str, int]], None] | None = None,
) -> Status:
    """Work on a plan until every song is done or given up.

    Dask starts, balances and replaces the workers; the ledger alone says what is done. To go on
    after an interruption, of a worker, of this process or of the scheduler, is to call this again.

    Parameters
    ----------
    plan : Plan
        The plan.
    scheduler : str or None
        Address of a scheduler, such as ``tcp://host:8786``; None starts a cluster on this machine.
    workers : int or None
        Workers of a cluster on this machine; None takes one for each core.
    threads : int or None
        Threads of each worker for the computing; None shares out the cores.
    on_batch : callable or None
        Gets, for each batch of items, how many came to which end, see `Worker.work_through`.

    Returns
    -------
    Status

    Raises
    ------
    CatalogError
        If distributed (the extra ``cluster``) is not installed, the scheduler does not answer, or
        the workers cannot do anything, such as without the model of the plan.
    OSError
        If the ledger cannot be read.
    """
    items = list(plan.items())
    cleaner = Worker(plan)
    ledger = cleaner.ledger
    with ExitStack() as opened:
        client = _connected(opened, scheduler, workers, threads)
        if threads is None:
            counts = client.nthreads()
            threads = None if scheduler else max(1, available_cores() // max(1, len(counts)))
        cleaner.remove_abandoned(items)
        left = ledger.left(items)
        for number in range(MAX_ERRORS + 1):
            _submit_all(client, plan, left, threads, on_batch)
            left = ledger.left(left)
            if not left:
                break
            sleep(FIRST_PAUSE * 2**number)
        cleaner.remove_abandoned(items)
    return ledger.status()


def work_on(place: str, items: Sequence[Item], threads: int | None) -> dict[str, int]:
    """Work on some items of a plan; what a task of Dask is.

    The process that computes, with the model, stays for the next task of the same worker.
    """
    worker = _workers.get((place, threads))
    if worker is None:
        worker = _workers[place, threads] = Worker(read_plan(place), threads)
    return worker.work_through(items)


def _connected(
    opened: ExitStack, scheduler: str | None, workers: int | None, threads: int | None
) -> Client:
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise CatalogError(
            "catalogues on several processes need the extra cluster: pip install "
            "'umx-np[cluster]'; without it, --worker 1/1 works in this process"
        ) from error
    if scheduler is not None:
        try:
            return opened.enter_context(Client(scheduler, timeout=_PATIENCE))
        except (OSError, ValueError) as error:
            raise CatalogError(f"scheduler={scheduler!r} does not answer: {error}") from error
    cores = available_cores()
    # The ledger counts how often a song was lost; Dask must not give up before.
    opened.enter_context(dask.config.set({"distributed.scheduler.allowed-failures": 1_000_000}))
    cluster = LocalCluster(
        n_workers=workers or max(1, cores // (threads or 1)),
        threads_per_worker=1,
        processes=True,
        dashboard_address=None,
        silence_logs=logging.ERROR,
    )
    opened.callback(cluster.close, timeout=10)
    return opened.enter_context(Client(cluster))


def _submit_all(
    client: Client,
    plan: Plan,
    items: Sequence[Item],
    threads: int | None,
    on_batch: Callable[[dict[str, int]], None] | None,
) -> None:
    """Let the workers work on items, a few tasks ahead of what is done."""
    from distributed import KilledWorker, as_completed

    share = len(items) // (_LEAST_TASKS * max(1, len(client.nthreads())))
    waiting = deque(_batches(items, max(1, min(share, _MOST_ITEMS))))
    going: dict[Any, list[Item]] = {}
    results = as_completed()

    def submit() -> None:
        ahead = _TASKS_AHEAD * max(1, len(client.nthreads()))
        while waiting and len(going) < ahead:
            batch = waiting.popleft()
            future = client.submit(work_on, plan.place, batch, threads, pure=False)
            going[future] = batch
            results.add(future)

    submit()
    while going:
        future = next(results)
        batch = going.pop(future)
        error = future.exception()
        if isinstance(error, KilledWorker):
            # Of a scheduler with settings of its own. One of them may be to blame: each by itself.
            if len(batch) > 1:
                waiting.extend([item] for item in batch)
        elif error is not None:
            client.cancel(list(going))
            raise error
        elif on_batch is not None:
            on_batch(future.result())
        del future
        submit()


def _batches(items: Sequence[Item], most: int) -> Iterator[list[Item]]:
    batch: list[Item] = []
    nb_bytes = 0
    for item in items:
        if batch and (len(batch) >= most or nb_bytes + item.size > _MOST_BYTES):
            yield batch
            batch, nb_bytes = [], 0
        batch.append(item)
        nb_bytes += item.size
    if batch:
        yield batch
