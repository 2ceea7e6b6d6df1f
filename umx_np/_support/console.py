"""The console of all commands: messages, a terminal's encoding, and how they end."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from ..errors import UmxError, printable

_BROKEN_PIPE = 128 + 13  # as if ended by SIGPIPE


def say(text: str) -> None:
    """Print a line to stderr, above a progress bar that may be there.

    Control characters, which names of files may have, are escaped.
    """
    _to_stderr(printable(text))


def _to_stderr(text: str) -> None:
    if sys.stderr is None:  # closed, or a program without a console
        return
    # Nothing is imported here: the handler of a signal, which also speaks, may have interrupted the
    # import of the very same module. Without it there is no bar yet.
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    if tqdm is not None:
        tqdm.write(text, file=sys.stderr)
    else:
        print(text, file=sys.stderr)


def show(text: str) -> None:
    """Print lines of results to stdout; on a terminal, control characters are escaped.

    Programs that read the output get names of files as they are.
    """
    if sys.stdout is not None and sys.stdout.isatty():
        text = "\n".join(map(printable, text.split("\n")))
    print(text)


class _Formatter(logging.Formatter):
    def __init__(self, prefix: str, words: Callable[[str], str]) -> None:
        super().__init__()
        self._prefix, self._words = prefix, words

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - of logging
        prefix = self._prefix if record.levelno >= logging.WARNING else ""
        return printable(prefix + self._words(record.message))


class _Handler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # The lines of a traceback stay lines.
        _to_stderr("\n".join(map(printable, self.format(record).split("\n"))))


@contextmanager
def logging_to_stderr(
    level: int, prefix: str = "", words: Callable[[str], str] = lambda message: message
) -> Iterator[None]:
    """Print what the package logs.

    Parameters
    ----------
    level : int
        The least that is printed, such as ``logging.INFO``.
    prefix : str
        Text before warnings and errors, which say what speaks; news goes without.
    words : callable
        Gives a message the words of the command.
    """
    logger = logging.getLogger("umx_np")
    handler = _Handler()
    handler.setFormatter(_Formatter(prefix, words))
    before, propagate = logger.level, logger.propagate
    # Warnings are collected also where they are not printed.
    handler.setLevel(level)
    logger.setLevel(min(level, logging.WARNING))
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
        logger.propagate = propagate


@contextmanager
def collecting_warnings(
    words: Callable[[str], str] = lambda message: message,
) -> Iterator[list[str]]:
    """Collect the warnings of the package that are logged meanwhile, as they are printed or not.

    Parameters
    ----------
    words : callable
        Gives a message the words of the command.

    Yields
    ------
    list of str
        Grows with each of them.
    """
    collected: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno == logging.WARNING:
                collected.append(words(record.getMessage()))

    handler = Collector()
    logger = logging.getLogger("umx_np")
    logger.addHandler(handler)
    try:
        yield collected
    finally:
        logger.removeHandler(handler)


def print_any_name() -> None:
    """Let stdout escape what its encoding does not have, as stderr does.

    File names may hold anything; results must not be lost for the want of a letter.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def exit_status(program: str, run: Callable[[], int]) -> int:
    """Run a command, from parsing its arguments to the last line of its output.

    Parameters
    ----------
    program : str
        Its name, for messages.
    run : callable
        Returns an exit status.

    Returns
    -------
    int
        What `run` returned; 1 after an error that is no mistake of ours, 130 after an
        interruption, 141 when the reader of the output went away.
    """
    try:
        try:
            return run()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()  # so that an error in writing is met here, also that of --help
    except KeyboardInterrupt:
        say(f"{program}: interrupted")
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read the output, such as `head`, has seen enough. Python would complain when it
        # flushes the rest at the end.
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, AttributeError, ValueError):
                try:
                    stream.flush()
                except BrokenPipeError:
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        return _BROKEN_PIPE
    except (UmxError, OSError) as error:
        # Of the system: a full disk, a folder without permission.
        say(f"{program}: error: {error}")
        return 1


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
