"""Streams that are watched: who may rely on whose work being done.

Everything runs at once when it is started, so a missing wait would do no harm here. Instead every
operation is checked: each stream counts its operations, and knows up to which one of the others it
is ordered after (a vector clock; waiting for an event, or the host's waiting, passes that on). What
reads an array must be ordered after its last write, what writes it after all uses. Copies to the
host are the exception: they take place when the host waits for them, and leave NaN until then.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

lock = threading.RLock()


class EmulatorError(Exception):
    """A program did what it must not do; the message says what."""


class Clock(dict[int, int]):
    """How many operations of each stream are known to be done before."""

    def merge(self, other: Clock) -> None:
        for stream, count in other.items():
            self[stream] = max(self.get(stream, 0), count)

    def follows(self, use: tuple[int, int]) -> bool:
        stream, count = use
        return self.get(stream, 0) >= count


class Use:
    """Who has used an allocation; outlives it."""

    def __init__(self, nb_bytes: int) -> None:
        self.nb_bytes = nb_bytes
        self.written: tuple[int, int] = (0, 0)
        self.read = Clock()

    def unordered(self, clock: Clock, *, write: bool) -> int | None:
        """The stream whose use may still be under way, or None."""
        uses = [self.written, *(self.read.items() if write else ())]
        return next((use[0] for use in uses if not clock.follows(use)), None)


_host = Clock()
_streams: weakref.WeakSet[Stream] = weakref.WeakSet()
# What has to happen when the host has waited, by stream and time; in the order it was started.
_pending: list[tuple[tuple[int, int], Callable[[], None]]] = []
# Memory given back while other streams may use it; by the stream it was allocated on.
_freed: dict[int, list[Use]] = {}
_local = threading.local()


class Stream:
    """As in CuPy."""

    null: Stream
    _numbers = itertools.count()

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.number = next(self._numbers)
        self.ptr = 0 if null else self.number
        self._waits_for_null = not (null or non_blocking)
        self.clock = Clock()
        _streams.add(self)

    def advance(self) -> tuple[int, int]:
        """Start an operation; returns the stream and the number of the operation."""
        self.clock.merge(_host)
        if self is Stream.null:
            for other in _streams:
                if other._waits_for_null:
                    self.clock.merge(other.clock)
        elif self._waits_for_null:
            self.clock.merge(Stream.null.clock)
        count = self.clock.get(self.number, 0) + 1
        self.clock[self.number] = count
        return self.number, count

    def __enter__(self) -> Stream:
        _stack().append(self)
        return self

    def __exit__(self, *error: object) -> None:
        _stack().pop()

    def use(self) -> Stream:
        _stack()[-1] = self
        return self

    def synchronize(self) -> None:
        host_waits(self.clock)

    @property
    def done(self) -> bool:
        self.synchronize()
        return True

    def record(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        with lock:
            self.clock.merge(event.clock)


Stream.null = Stream(null=True)


class Event:
    """As in CuPy."""

    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ) -> None:
        self.clock = Clock()

    def record(self, stream: Stream | None = None) -> None:
        with lock:
            stream = stream or current()
            stream.advance()
            self.clock = Clock(stream.clock)

    def synchronize(self) -> None:
        host_waits(self.clock)

    @property
    def done(self) -> bool:
        self.synchronize()
        return True


def _stack() -> list[Stream]:
    if not hasattr(_local, "stack"):
        _local.stack = [Stream.null]
    return _local.stack


def current() -> Stream:
    """The current stream of this thread."""
    return _stack()[-1]


def host_waits(clock: Clock) -> None:
    """Let the host know that all of this is done."""
    with lock:
        _host.merge(clock)
        due = [entry for entry in _pending if _host.follows(entry[0])]
        _pending[:] = [entry for entry in _pending if not _host.follows(entry[0])]
        for _, happen in due:
            happen()


def host_waits_for_all() -> None:
    """Let the host wait for all streams."""
    for stream in list(_streams):
        host_waits(stream.clock)


def operate(
    what: str,
    reads: Iterable[Use | None] = (),
    writes: Iterable[Use | None] = (),
    stream: Stream | None = None,
    later: Callable[[], None] | None = None,
) -> None:
    """Note an operation on a stream.

    Parameters
    ----------
    what : str
        Name for messages.
    reads, writes : iterable of Use or None
        Allocations; None is ignored.
    stream : Stream or None
        None is the current one.
    later : callable
        What happens when the host has waited for this operation.

    Raises
    ------
    EmulatorError
        If another stream may still be at one of them.
    """
    with lock:
        stream = stream or current()
        now = stream.advance()
        for use, write in [*((use, False) for use in reads), *((use, True) for use in writes)]:
            if use is None:
                continue
            other = use.unordered(stream.clock, write=write)
            if other is not None:
                raise EmulatorError(
                    f"{what}: stream {now[0]} {'writes' if write else 'reads'} an array of "
                    f"{use.nb_bytes} bytes that stream {other} may still be using; "
                    "no event and no waiting orders them"
                )
            if write:
                use.written, use.read = now, Clock()
            else:
                use.read[now[0]] = now[1]
        if later is not None:
            _pending.append((now, later))


def allocated(nb_bytes: int) -> int:
    """Note an allocation on the current stream; returns the number of the stream.

    CuPy gives memory that was freed to the next who asks on the same stream, without waiting for
    others that may still be using it.
    """
    with lock:
        stream = current()
        stream.clock.merge(_host)
        kept = []
        for use in _freed.get(stream.number, ()):
            other = use.unordered(stream.clock, write=True)
            if other is None:
                continue
            if nb_bytes <= use.nb_bytes:
                raise EmulatorError(
                    f"an allocation of {nb_bytes} bytes on stream {stream.number} may get memory "
                    f"that was freed while stream {other} may still be using it"
                )
            kept.append(use)
        _freed[stream.number] = kept
        return stream.number


def freed(use: Use, stream: int) -> None:
    """Note that memory allocated on a stream was given back."""
    with lock:
        _freed.setdefault(stream, []).append(use)


def forget() -> None:
    """Begin anew: drop what earlier tests have left."""
    with lock:
        host_waits_for_all()
        _freed.clear()
        _pending.clear()


def elapsed(first: Any, last: Any) -> float:
    """Time between events; there is none."""
    return 0.0
