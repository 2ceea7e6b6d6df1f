"""Ctrl-C and SIGTERM: first finish the batch and save, then, if asked again, leave at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stopping_on_signals(stop: Callable[[int], bool]) -> Iterator[None]:
    """Let signals ask for an orderly end.

    Parameters
    ----------
    stop : callable
        Gets the number of the signal. It returns whether the work will end by itself soon;
        otherwise, and at the second signal, the program is left as usual.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if not asked and stop(number):
            asked = True
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(128 + number)

    previous = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
