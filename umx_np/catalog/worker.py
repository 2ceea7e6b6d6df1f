"""A worker of a catalogue: takes songs, has them computed, and publishes the results."""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from .._support.limits import available_cores
from ..errors import CatalogError
from .ledger import Failure, Ledger
from .plan import Item, Plan
from .stores import open_store

logger = logging.getLogger(__name__)

# Seconds that an item may take: so many, and for each megabyte. A megabyte of the densest lossy
# formats is a minute or more, which takes seconds.
_LEAST_SECONDS = 600.0
_SECONDS_A_MEGABYTE = 120.0

# Starts of the process that computes, whatever ends it before it is ready.
_MOST_STARTS = 10

DONE, FAILED, LEFT, ENDED = "done", "failed", "left", "ended before"


class Worker:
    """Works on songs of a plan, one after the other, in one process beside this one.

    Parameters
    ----------
    plan : Plan
        The plan.
    threads : int or None
        Threads for the computing; None takes all cores.
    scratch : path-like or None
        Folder for files of object stores on their way; None is the system's.
    """

    def __init__(
        self, plan: Plan, threads: int | None = None, scratch: str | os.PathLike[str] | None = None
    ) -> None:
        self.plan = plan
        self.ledger = Ledger(plan)
        self._source = open_store(plan.source)
        self._destination = open_store(plan.destination)
        self._threads = threads or available_cores()
        self._scratch = Path(tempfile.gettempdir() if scratch is None else scratch)
        self._child: _Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process that computes."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def work_through(self, items: Iterable[Item]) -> dict[str, int]:
        """Work on items; return how many came to which end: done, failed, left, ended before."""
        return dict(Counter(map(self.work, items)))

    def work(self, item: Item) -> str:
        """Work on an item, unless it is done or given up.

        Returns
        -------
        str
            ``"done"``, ``"failed"`` (given up), ``"left"`` (to be tried again), or
            ``"ended before"``.

        Raises
        ------
        CatalogError
            If nothing can be done here, such as without the model of the plan.
        OSError
            If the ledger cannot be read or written.
        """
        child = self._ready_child()
        attempt = self.ledger.begin(item)
        if attempt is None:
            return ENDED
        place = f"{item.path}/{attempt}"
        try:
            answer = self._answer(child, item, place)
        except OSError as error:  # of the places of songs and stems, not of the ledger
            answer = Failure.of(error)
        if isinstance(answer, Failure):
            is_final = self.ledger.fail(item, attempt, answer)
            with suppress(OSError):
                self._destination.delete_all(place)
            logger.warning("%s: %s: %s", item.path, answer.name, answer.message)
            return FAILED if is_final else LEFT
        if not self.ledger.publish(item, attempt, {"folder": place, **answer}):
            self._destination.delete_all(place)
            return ENDED
        return DONE

    def remove_abandoned(self, items: Iterable[Item]) -> None:
        """Remove what attempts have left of songs that are done or given up without them."""
        abandoned = self.ledger.abandoned()
        if not abandoned:
            return
        by_id = {item.id: item for item in items}
        for name, attempt in abandoned:
            if name in by_id:
                self._destination.delete_all(f"{by_id[name].path}/{attempt}")
                self.ledger.forget(by_id[name], attempt)

    def _ready_child(self) -> _Child:
        """Return the process that computes, started if it is not there or has ended."""
        for _ in range(_MOST_STARTS):
            if self._child is None:
                self._child = _Child(self.plan, self._threads)
            if self._child.is_ready():
                return self._child
            self.close()
        raise CatalogError(
            f"{self.plan.place}: the process that computes ended {_MOST_STARTS} times before its "
            "first song; `umx-np separate` on one of the songs says more"
        )

    def _answer(self, child: _Child, item: Item, place: str) -> dict[str, Any] | Failure:
        if self.plan.work == "nothing":
            return self._asked(child, item, Path(), Path())
        with (
            self._source.reading(item.path, self._scratch) as song,
            self._destination.writing(place, self._scratch) as folder,
        ):
            return self._asked(child, item, song, folder)

    def _asked(
        self, child: _Child, item: Item, song: Path, folder: Path
    ) -> dict[str, Any] | Failure:
        seconds = _LEAST_SECONDS + _SECONDS_A_MEGABYTE * item.size / 1e6
        answer = child.ask({"song": str(song), "folder": str(folder)}, seconds)
        if isinstance(answer, Failure):  # the process is gone
            self.close()
            return answer
        if "failure" in answer:
            return Failure(**answer["failure"])
        result: dict[str, Any] = answer["result"]
        return result


class _Child:
    """The process that computes."""

    def __init__(self, plan: Plan, threads: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "umx_np.catalog.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Not interrupted by the keyboard before the worker is: it ends with the worker's pipe.
            start_new_session=True,
        )
        self._place, self._is_ready = plan.place, False
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()
        self._send(
            {
                "work": plan.work,
                "settings": plan.settings,
                "model": plan.model,
                "threads": threads,
            }
        )

    def is_ready(self) -> bool:
        """Wait until it can work; False if it has ended before, or since.

        Raises
        ------
        CatalogError
            If it cannot work here, such as without the model of the plan.
        """
        if not self._is_ready:
            try:
                line = self._lines.get(timeout=_LEAST_SECONDS)
            except queue.Empty:
                return False
            if not line.endswith(b"\n"):
                return False
            answer = json.loads(line)
            if "failure" in answer:
                raise CatalogError(f"{self._place}: {answer['failure']}")
            self._is_ready = True
        return self._process.poll() is None

    def ask(self, item: dict[str, Any], seconds: float) -> dict[str, Any] | Failure:
        self._send(item)
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            return Failure("killed", "TimeoutError", f"it took more than {seconds:.0f} seconds")
        if not line.endswith(b"\n"):
            status = self._process.wait()
            how = f"signal {-status}" if status < 0 else f"status {status}"
            return Failure("killed", "WorkerKilled", f"it ended the process that computes: {how}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        with suppress(OSError):  # what was not sent to it
            self._process.stdin.close()  # type: ignore[union-attr]

    def _listen(self) -> None:
        """Keep its answers; an empty line is its end."""
        output: IO[bytes] = self._process.stdout  # type: ignore[assignment]
        with output:
            for line in output:
                self._lines.put(line)
        self._lines.put(b"")

    def _send(self, document: dict[str, Any]) -> None:
        with suppress(BrokenPipeError):  # met when there is no answer
            pipe: IO[bytes] = self._process.stdin  # type: ignore[assignment]
            pipe.write(json.dumps(document).encode("ascii") + b"\n")
            pipe.flush()
