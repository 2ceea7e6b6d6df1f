"""Programs that are started, and ended when nobody holds them any more."""

from __future__ import annotations

import subprocess
from _thread import start_new_thread
from collections import deque
from contextlib import suppress
from functools import partial
from threading import Event
from typing import IO

from .._kernels.calls import Guard, cancellable, uninterrupted
from ..errors import printable

_NB_LINES = 3  # of complaints that are kept


class Program:
    """A running program whose output is read bit by bit.

    Parameters
    ----------
    command : list of str
        What to start; it is given no input.

    Attributes
    ----------
    given_up : bool
        Whether it was ended because it took too long, or an interrupt came.

    Raises
    ------
    OSError
        If it cannot be started.
    """

    def __init__(self, command: list[str]) -> None:
        self.given_up = False
        self._lines: deque[str] = deque(maxlen=_NB_LINES)
        self._listened = Event()
        held: list[_Process] = []
        self._end = Guard(_end, held, self._listened)
        uninterrupted(_start, command, held)
        self._process = held[0]
        assert self._process.stderr is not None
        uninterrupted(_begin_to_listen, self._process.stderr, self._lines, self._listened)

    def read(self, nb_bytes: int, seconds: float) -> bytes:
        """Next bytes of its output; fewer at the end, or when it is ended after some seconds."""
        assert self._process.stdout is not None
        return cancellable(partial(_read, self._process.stdout, nb_bytes), self._give_up, seconds)

    def finish(self, seconds: float) -> int:
        """Wait for the end; what has not been read until then is not wanted."""
        if self._process.stdout is not None:
            # A program that goes on writing must not fill the pipe and wait.
            self._process.stdout.close()
        status = cancellable(self._process.wait, self._give_up, seconds)
        self._listened.wait(seconds)
        return status

    @property
    def complaint(self) -> str:
        """Last lines of what it wrote to its standard error."""
        return " / ".join(line for line in self._lines if line)[:500]

    @property
    def closed(self) -> bool:
        """Whether it has ended, or was ended."""
        return self._process.returncode is not None

    def close(self) -> None:
        """End it."""
        self._end()

    def _give_up(self) -> None:
        self.given_up = True
        self._process.kill()


def run_program(command: list[str], seconds: float) -> subprocess.CompletedProcess[bytes]:
    """As `subprocess.run`, with what the program wrote; an interrupt leaves nothing running.

    Parameters
    ----------
    command : list of str
        What to run.
    seconds : float
        How long it may take.

    Raises
    ------
    OSError
        If it cannot be started.
    subprocess.TimeoutExpired
        If it was ended because it took longer.
    """
    held: list[_Process] = []
    end = Guard(_end, held)
    try:
        uninterrupted(_start, command, held)
        process, given_up = held[0], Event()

        def give_up() -> None:
            given_up.set()
            process.kill()

        output, errors = cancellable(process.communicate, give_up, seconds)
    finally:
        end()
    if given_up.is_set():
        raise subprocess.TimeoutExpired(command, seconds)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


class _Process(subprocess.Popen[bytes]):
    # A `Guard` ends what is forgotten. Popen's own finaliser, in Python's bytecode, would swallow
    # an interrupt; this is compiled and does nothing.
    __del__ = object.__hash__  # type: ignore[assignment]


def _start(command: list[str], held: list[_Process]) -> None:
    held.append(
        _Process(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
    )


def _begin_to_listen(stream: IO[bytes], lines: deque[str], listened: Event) -> None:
    # An object for the thread would hold what it reads from, and must not be forgotten just
    # anywhere: Python has weak references to it with callbacks, which can be interrupted.
    start_new_thread(_listen, (stream, lines, listened))


def _listen(stream: IO[bytes], lines: deque[str], listened: Event) -> None:
    rest = b""
    with suppress(OSError, ValueError):  # closed meanwhile
        while data := stream.read(4096):
            *whole, rest = (rest + data).split(b"\n")
            rest = rest[-4096:]
            lines.extend(map(_shown, whole))
    if rest:
        lines.append(_shown(rest))
    listened.set()


def _shown(line: bytes) -> str:
    return printable(line.decode(errors="replace").strip())[:300]


def _read(stream: IO[bytes], nb_bytes: int) -> bytes:
    found: list[bytes] = []
    with suppress(OSError, ValueError):  # closed meanwhile
        while nb_bytes > 0 and (data := stream.read(nb_bytes)):
            found.append(data)
            nb_bytes -= len(data)
    return b"".join(found)


def _end(held: list[_Process], listened: Event | None = None) -> None:
    for process in held:
        process.kill()
        process.wait()
        if listened is not None:
            listened.wait(1.0)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                with suppress(OSError, ValueError):
                    stream.close()
