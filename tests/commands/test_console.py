"""What the commands print, and how they end."""

from __future__ import annotations

import argparse
import io
import logging
import signal
import subprocess
import sys
from types import ModuleType

import pytest

import umx_np.commands
import umx_np.evaluate
import umx_np.train
from umx_np._support.console import (
    cleaning_up_when_terminated,
    exit_status,
    logging_to_stderr,
    print_any_name,
    say,
    show,
)
from umx_np._support.progress import reporting
from umx_np.commands.common import option_words
from umx_np.errors import ConfigError, printable


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


HOSTILE = "a\x1b]0;title\x07\x9b2Jb\r\n\u202ec\udcf6"
SHOWN = "a\\x1b]0;title\\x07\\x9b2Jb\\r\\n\\u202ec\\udcf6"


class TestControlCharacters:
    """Names of files hold anything, and a terminal obeys."""

    def test_are_escaped(self):
        assert printable(HOSTILE) == SHOWN
        assert printable("Señor 夜 \U0001f3b5 -- 'quoted'") == "Señor 夜 \U0001f3b5 -- 'quoted'"

    def test_in_messages(self, capsys):
        say(HOSTILE)
        assert capsys.readouterr().err == SHOWN + "\n"

    def test_in_the_log(self, capsys):
        def fail():
            raise ConfigError(HOSTILE)

        logger = logging.getLogger("umx_np.some.module")
        with logging_to_stderr(logging.INFO, "umx-np: "):
            logger.warning("%s: bad", HOSTILE)
            try:
                fail()
            except ConfigError:
                logger.exception("failed")
        err = capsys.readouterr().err
        assert f"umx-np: {SHOWN}: bad\n" in err
        assert "\nTraceback (most recent call last):\n" in err
        assert not set("\x1b\x07\x9b\u202e\udcf6") & set(err)

    def test_on_stdout_only_where_people_look(self, monkeypatch):
        for is_terminal, expected in ((True, "x\\x1b\ny\n"), (False, "x\x1b\ny\n")):
            out = io.StringIO()
            out.isatty = lambda is_terminal=is_terminal: is_terminal
            monkeypatch.setattr(sys, "stdout", out)
            show("x\x1b\ny")
            assert out.getvalue() == expected

    def test_beside_a_bar(self, monkeypatch):
        err = io.StringIO()
        err.isatty = lambda: True
        monkeypatch.setattr(sys, "stderr", err)
        with reporting(True, label=HOSTILE):
            pass
        assert SHOWN in err.getvalue()
        assert "title\x07" not in err.getvalue()


class TestExitStatus:
    @pytest.mark.parametrize(
        ("error", "status", "message"),
        [
            (ConfigError("x=1 is wrong"), 1, "p: error: x=1 is wrong\n"),
            (OSError(28, "No space left on device"), 1, "p: error: [Errno 28] No space left"),
            (KeyboardInterrupt(), 130, "p: interrupted\n"),
            (BrokenPipeError(), 141, ""),
        ],
    )
    def test_of_errors(self, capsys, error, status, message):
        def run():
            raise error

        assert exit_status("p", run) == status
        assert capsys.readouterr().err.startswith(message)

    @pytest.mark.parametrize("command", ["commands", "train", "evaluate", "data.__main__"])
    def test_of_an_interruption_while_arguments_are_parsed(self, command, monkeypatch, capsys):
        def interrupted(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", interrupted)
        module = __import__(f"umx_np.{command}", fromlist=["main"])
        assert module.main(["separate", "x.wav"]) == 130
        assert capsys.readouterr().err.endswith(": interrupted\n")

    def test_of_an_interruption_while_modules_are_imported(self, monkeypatch, capsys):
        import umx_np.__main__

        class Interrupting:
            def find_spec(self, name, path=None, target=None):
                if name == "umx_np.commands":
                    raise KeyboardInterrupt

        monkeypatch.delitem(sys.modules, "umx_np.commands")
        monkeypatch.delattr(umx_np, "commands")
        monkeypatch.setattr(sys, "meta_path", [Interrupting(), *sys.meta_path])
        assert umx_np.__main__.main() == 130
        assert capsys.readouterr().err == "umx-np: interrupted\n"

    @pytest.mark.skipif(sys.platform == "win32", reason="pipes end differently there")
    @pytest.mark.parametrize("argument", ["--help", "--version", "models"])
    def test_of_a_closed_pipe(self, argument):
        program = [sys.executable, "-m", "umx_np", argument]
        process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        # Without a buffer, argparse itself takes no notice.
        assert process.wait() in ((141,) if argument == "models" else (0, 141))

    @pytest.mark.skipif(sys.platform == "win32", reason="pipes end differently there")
    def test_of_closed_messages(self):
        program = [sys.executable, "-m", "umx_np", "separate", "missing.wav"]
        process = subprocess.Popen(program, stderr=subprocess.PIPE)
        process.stderr.close()
        assert process.wait() == 141


class TestOptionWords:
    @pytest.fixture
    def words(self):
        parser = umx_np.commands.build_parser()
        return option_words(parser.parse_args(["separate", "x.wav"]).parser)

    @pytest.mark.parametrize(
        ("message", "expected"),
        [
            ("max_memory=100 MB is small", "--max-memory 100 MB is small"),
            ("exceed max_memory=100 MB", "exceed --max-memory 100 MB"),
            ("model='x' is unknown", "--model 'x' is unknown"),
            ('plot="it\'s" must end', '--plot "it\'s" must end'),
            ("start=-1.5 must be", "--start -1.5 must be"),
            ("clip_mode='rescale' or bits='float'", "--clip-mode rescale or --bits float"),
            ("take wiener_win_len=None", "take --wiener-win-len None"),
            ("offline=True forbids it", "--offline forbids it"),
            ("filename='{stem' is not usable", "--filename '{stem' is not usable"),
            # Other things of the same name.
            ("path='a.wav' has nb_channels=0 and rate=0", None),
            ("'x' with dtype=float64, shape=(1,)", None),
            ("softmask=False does nothing", None),
            ("path='start=1'", None),
            ("url='http://x/?model=1'", None),
        ],
    )
    def test_are_those_of_the_command(self, words, message, expected):
        assert words(message) == (message if expected is None else expected)

    def test_are_used_in_the_log_as_well(self, words, capsys):
        with logging_to_stderr(logging.INFO, "umx-np: ", words):
            logging.getLogger("umx_np.x").warning("clip_mode=%r keeps them", "rescale")
        assert capsys.readouterr().err == "umx-np: --clip-mode rescale keeps them\n"


def test_a_handler_speaks_while_tqdm_is_imported(monkeypatch, capsys):
    """A signal may come in the midst of the import, which must not be begun again then."""
    monkeypatch.setitem(sys.modules, "tqdm", ModuleType("tqdm"))
    say("stopping")
    assert capsys.readouterr().err == "stopping\n"
