"""What the commands have in common: messages, a terminal's encoding, and the end by a signal."""

from __future__ import annotations

import io
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


def say(text: str) -> None:
    """Print a line to stderr, above a progress bar that may be there."""
    if sys.stderr is None:  # closed, or a program without a console
        return
    if "tqdm" in sys.modules:
        from tqdm import tqdm

        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


@contextmanager
def logging_to_stderr(level: int, prefix: str = "") -> Iterator[None]:
    """Print what the package logs.

    Parameters
    ----------
    level : int
        The least that is printed, such as ``logging.INFO``.
    prefix : str
        Text before each message.
    """
    logger = logging.getLogger("umx_np")
    handler = _Handler()
    handler.setFormatter(logging.Formatter(f"{prefix}%(message)s"))
    before, propagate = logger.level, logger.propagate
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagate


def print_any_name() -> None:
    """Let stdout escape what its encoding does not have, as stderr does.

    File names may hold anything; results must not be lost for the want of a letter.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def cleaning_up_when_terminated() -> Iterator[None]:
    """Let the signals that end a program unwind it, so that temporary files are removed.

    These are SIGTERM and, where there are terminals that hang up, SIGHUP. A signal that the program
    was told to ignore, as by nohup, stays ignored.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    numbers = [signal.SIGTERM]
    if sys.platform != "win32":
        numbers.append(signal.SIGHUP)
    previous = {
        number: signal.signal(number, leave)
        for number in numbers
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
