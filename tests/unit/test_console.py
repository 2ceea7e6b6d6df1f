"""What the commands print, and how they end."""

from __future__ import annotations

import io
import logging
import signal
import sys

import pytest

from umx_np.console import cleaning_up_when_terminated, logging_to_stderr, print_any_name, say


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_name_can_be_printed(monkeypatch, encoding):
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    print_any_name()
    print("夜\udcf6.wav")
    out.flush()
    shown = out.buffer.getvalue().decode(encoding)
    assert shown == ("夜" if encoding == "utf-8" else "\\u591c") + "\\udcf6.wav\n"


@pytest.mark.parametrize("stdout", [None, io.StringIO()])
def test_other_kinds_of_stdout_are_left_alone(monkeypatch, stdout):
    monkeypatch.setattr(sys, "stdout", stdout)
    print_any_name()
    assert sys.stdout is stdout


def test_no_stderr(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    say("nobody hears it")


def test_logging_is_as_before_afterwards(capsys):
    logger = logging.getLogger("umx_np")
    before = (logger.level, logger.propagate, list(logger.handlers))
    with logging_to_stderr(logging.INFO, "prefix: "):
        logging.getLogger("umx_np.some.module").info("shown")
        logging.getLogger("umx_np.some.module").debug("not shown")
    assert capsys.readouterr().err == "prefix: shown\n"
    assert before == (logger.level, logger.propagate, logger.handlers)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
class TestSignals:
    @pytest.mark.parametrize("number", [signal.SIGTERM, getattr(signal, "SIGHUP", None)])
    def test_unwind_the_program(self, number):
        cleaned = []

        def work():
            with cleaning_up_when_terminated():
                try:
                    signal.raise_signal(number)
                finally:
                    cleaned.append(number)

        # These tests may have been started with nohup.
        inherited = signal.signal(number, signal.SIG_DFL)
        try:
            with pytest.raises(SystemExit) as end:
                work()
            assert signal.getsignal(number) is signal.SIG_DFL
        finally:
            signal.signal(number, inherited)
        assert end.value.code == 128 + number
        assert cleaned == [number]

    def test_stay_ignored(self):
        """As with nohup."""
        before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            with cleaning_up_when_terminated():
                signal.raise_signal(signal.SIGHUP)
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        finally:
            signal.signal(signal.SIGHUP, before)
