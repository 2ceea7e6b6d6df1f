"""Processes that make batches for a `Loader`."""

from __future__ import annotations

import logging
import multiprocessing
import pickle
import signal
import traceback
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from queue import SimpleQueue

import numpy as np

from .._kernels.calls import Guard, uninterrupted
from .._support.threads import Stop
from ..errors import ConfigError, DataError
from .base import UnmixDataset
from .batches import keep_freed_memory, make_batch

logger = logging.getLogger(__name__)

# Seconds a process has to leave by itself.
_PATIENCE = 5.0


class ProcessPool:
    """Processes with a copy of the dataset each.

    A process ends when its pipe is closed: by `close`, when the loader is forgotten, or when this
    program ends, in whichever way.

    Parameters
    ----------
    dataset : UnmixDataset
        Must be picklable.
    nb_processes : int
        How many to start.

    Attributes
    ----------
    broken : bool
        Whether a process has died.

    Raises
    ------
    ConfigError
        If the dataset cannot be pickled.
    """

    def __init__(self, dataset: UnmixDataset, nb_processes: int) -> None:
        try:
            pickled = pickle.dumps(dataset)
        except Exception as error:
            raise ConfigError(
                f"the dataset cannot be sent to other processes ({error}); use mode='threads', and "
                "functions of a module in place of lambdas"
            ) from error
        self._dataset = dataset
        self.broken = False
        self._idle: SimpleQueue[_Server] = SimpleQueue()
        servers: list[_Server] = []
        self._end = Guard(_end, servers)
        uninterrupted(_start, pickled, nb_processes, servers)
        self._closed = False
        for server in servers:
            self._idle.put(server)

    @property
    def closed(self) -> bool:
        """Whether the processes are gone."""
        return self._closed

    def close(self) -> None:
        """End the processes and wait for them."""
        self._closed = True
        self._end()

    def make_batch(
        self, indices: np.ndarray, seed: int, epoch: int, stop: Stop
    ) -> tuple[np.ndarray, np.ndarray]:
        """Let a process that has nothing to do make a batch; see `loader.make_batch`."""
        if stop.asked:
            raise DataError("the loader was stopped")
        server = self._idle.get()
        try:
            x, y, skipped = server.ask(indices, seed, epoch)
        except _DeadError as death:
            # The others may be in use; who uses the pool closes it.
            self.broken = True
            raise DataError(str(death)) from death.__cause__
        finally:
            self._idle.put(server)
        for name, reason in skipped.items():
            self._dataset.skip(name, reason)
        return x, y


class _DeadError(Exception):
    pass


class _Server:
    """One process and the pipe to it."""

    def __init__(self, pickled: bytes) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, far_end = context.Pipe()
        self._process: BaseProcess = context.Process(
            target=_serve, args=(far_end, pickled), name="umx-np-loader", daemon=True
        )
        self._process.start()
        # Only the process may hold its end, or its death would not close the pipe.
        far_end.close()

    def ask(
        self, indices: np.ndarray, seed: int, epoch: int
    ) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
        try:
            self._pipe.send((indices, seed, epoch))
            kind, content, details = self._pipe.recv()
            if kind == "batch":
                x, y = np.empty(content, np.float32), np.empty(content, np.float32)
                for array in (x, y):
                    self._pipe.recv_bytes_into(array.data.cast("B"))
                return x, y, details
        except (EOFError, OSError) as error:
            self._process.join(_PATIENCE)
            raise _DeadError(
                f"a process of the loader ended with exitcode={self._process.exitcode}; if it did "
                'not get as far as loading, the main program lacks an `if __name__ == "__main__":`,'
                " or the dataset's class cannot be imported; a negative number is the signal that "
                "ended it, -9 often for want of memory"
            ) from error
        index, message = content
        logger.debug("in a process of the loader:\n%s", details)
        failure = DataError(message)
        failure.index = index
        raise failure

    def end(self) -> None:
        self._pipe.close()
        self._process.join(_PATIENCE)
        for finish in (self._process.terminate, self._process.kill):
            if self._process.is_alive():
                finish()
                self._process.join(_PATIENCE)
        self._process.close()


def _start(pickled: bytes, nb_processes: int, servers: list[_Server]) -> None:
    while len(servers) < nb_processes:
        servers.append(_Server(pickled))


def _end(servers: list[_Server]) -> None:
    while servers:
        servers.pop().end()


def _serve(pipe: Connection, pickled: bytes) -> None:
    """Answer questions until the pipe is closed. Runs in the other process."""
    # Ctrl-C reaches every process of a terminal; the one in charge closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What is passed over is logged in the main process.
    logging.getLogger("umx_np").addHandler(logging.NullHandler())
    logging.getLogger("umx_np").propagate = False
    dataset: UnmixDataset = pickle.loads(pickled)
    known = set(dataset.skipped)
    keep_freed_memory()
    while True:
        try:
            indices, seed, epoch = pipe.recv()
        except (EOFError, OSError):
            return
        try:
            x, y = make_batch(dataset, indices, seed, epoch)
        except Exception as error:
            index = getattr(error, "index", None)
            content = index, str(error) or type(error).__name__
            pipe.send(("error", content, traceback.format_exc()))
            continue
        skipped = {name: why for name, why in dataset.skipped.items() if name not in known}
        known.update(skipped)
        try:
            pipe.send(("batch", x.shape, skipped))
            pipe.send_bytes(x.data.cast("B"))
            pipe.send_bytes(y.data.cast("B"))
        except OSError:
            return
