"""Work on a part of a plan by one process alone, for queues that start programs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

from ..errors import CatalogError
from .ledger import MAX_ERRORS, Status
from .plan import Item, Plan
from .worker import LEFT, Worker

logger = logging.getLogger(__name__)

# Seconds before what failed by no fault of its own is tried again; then twice as many, and so on.
FIRST_PAUSE = 1.0


def run_shard(
    plan: Plan,
    index: int = 1,
    count: int = 1,
    *,
    threads: int | None = None,
    on_item: Callable[[Item, str], None] | None = None,
) -> Status:
    """Work on one of `count` parts of a plan.

    Any number of processes may work on any parts, also on the same one: each song is published
    once. To go on after an interruption is to call this again.

    Parameters
    ----------
    plan : Plan
        The plan.
    index, count : int
        Which part of how many, from 1 on.
    threads : int or None
        Threads for the computing; None takes all cores.
    on_item : callable or None
        Gets each item that was worked on, and ``"done"``, ``"failed"``, ``"left"`` (for now) or
        ``"ended before"``.

    Returns
    -------
    Status
        Of the whole plan.

    Raises
    ------
    CatalogError
        If there is no such part, or nothing can be done here.
    OSError
        If the ledger cannot be read or written.
    """
    if not 1 <= index <= count:
        raise CatalogError(f"there is no part {index} of {count}; parts are 1 to {count}")
    items = list(plan.items())
    with Worker(plan, threads) as worker:
        worker.remove_abandoned(items)
        left = worker.ledger.left(items[index - 1 :: count])
        for number in range(MAX_ERRORS + 1):
            left = _worked_through(worker, left, on_item)
            if not left:
                break
            time.sleep(FIRST_PAUSE * 2**number)
        return worker.ledger.status()


def _worked_through(
    worker: Worker, items: Sequence[Item], on_item: Callable[[Item, str], None] | None
) -> list[Item]:
    """Work on items; return those that are left."""
    left = []
    for item in items:
        outcome = worker.work(item)
        if on_item is not None:
            on_item(item, outcome)
        if outcome == LEFT:
            left.append(item)
    return left
