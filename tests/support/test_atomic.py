"""Temporary files: whole or not there, gone after a kill, and never somebody else's."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import textwrap
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import pytest

from umx_np._support import atomic as _atomic
from umx_np._support.atomic import (
    TemporaryFile,
    atomic_write,
    check_writable,
    is_kept,
    open_kept,
    remove_abandoned,
)

posix = pytest.mark.skipif(os.name == "nt", reason="locks, links and signals are those of POSIX")

# How many times each kind of writing is killed; the long form is
# UMX_NP_TEST_KILLS=200 python -m pytest tests/support/test_atomic.py -k killed
KILLS = int(os.environ.get("UMX_NP_TEST_KILLS", "1"))

WRITERS = {
    "any file": """
        from umx_np._support.atomic import atomic_write
        with atomic_write("result") as file:
            file.write(b"half")
            file.flush()
            wait()
        """,
    "stem": """
        import numpy as np
        from umx_np.audio import StemWriter
        with StemWriter("result.wav", nb_channels=2, rate=8000) as writer:
            writer.write(np.zeros((2, 50000), np.float32))
            wait()
        """,
    "weights": """
        import numpy as np
        from umx_np.weights import save_torch, torch_writer
        hold(torch_writer)
        save_torch({"a": np.zeros(1000, np.float32)}, "result.pth")
        """,
    "checkpoint": """
        import numpy as np
        from pathlib import Path
        from umx_np.training import checkpoint
        from umx_np.weights import safetensors_files
        hold(safetensors_files)
        checkpoint.write_checkpoint(Path("result.chkpnt"), {"state": np.zeros(1000, np.float32)})
        """,
}

_BEGIN = """
import contextlib

def wait():
    print("waiting", flush=True)
    input()

def hold(module):
    write = module.atomic_write

    @contextlib.contextmanager
    def held(path):
        with write(path) as file:
            yield file
            file.flush()
            wait()

    module.atomic_write = held
"""


def _start(folder: Path, source: str) -> subprocess.Popen[str]:
    """Run a program until it waits in the middle of writing."""
    environment = os.environ | {"PYTHONPATH": str(Path(_atomic.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", _BEGIN + textwrap.dedent(source)],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.communicate("\n", timeout=60)


def _names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@posix
@pytest.mark.parametrize("kind", WRITERS)
def test_what_a_killed_program_left_goes_with_the_next(tmp_path, kind):
    for _ in range(KILLS):
        process = _start(tmp_path, WRITERS[kind])
        (left,) = _names(tmp_path)
        assert left.startswith(".umx-np-")
        process.send_signal(signal.SIGKILL)
        _end(process)
        assert _names(tmp_path) == [left]
        with atomic_write(tmp_path / "next") as file:
            file.write(b"whole")
        assert _names(tmp_path) == ["next"]
        (tmp_path / "next").unlink()


@posix
@pytest.mark.parametrize("kind", ["any file", "stem"])
def test_what_a_living_program_writes_stays(tmp_path, kind):
    process = _start(tmp_path, WRITERS[kind])
    try:
        (left,) = _names(tmp_path)
        for _ in range(3):
            check_writable(tmp_path, 10)
        assert _names(tmp_path) == [left]
    finally:
        _end(process)
    assert process.returncode == 0
    assert [name.partition(".")[0] for name in _names(tmp_path)] == ["result"]


@posix
def test_nor_what_this_program_writes_elsewhere(tmp_path):
    with atomic_write(tmp_path / "a") as first, atomic_write(tmp_path / "b") as second:
        first.write(b"1")
        second.write(b"2")
    assert _names(tmp_path) == ["a", "b"]


@posix
def test_only_what_is_surely_abandoned_is_removed(tmp_path, monkeypatch):
    host = _atomic._host()
    strangers = [
        ".umx-np-00000000-0123456789abcdef.tmp",  # of another host
        f".umx-np-{host}-0123456789abcdef.json",
        f".umx-np-{host}-0123.tmp",
        ".umx-np.wav.json",
        "song.part",
    ]
    for name in strangers:
        (tmp_path / name).touch()
    (tmp_path / f".umx-np-{host}-{'1' * 16}.tmp").mkdir()
    os.mkfifo(tmp_path / f".umx-np-{host}-{'2' * 16}.tmp")
    (tmp_path / "precious").write_text("x")
    os.symlink("precious", tmp_path / f".umx-np-{host}-{'3' * 16}.tmp")
    before = _names(tmp_path)
    (tmp_path / f".umx-np-{host}-{'4' * 16}.tmp").touch()
    remove_abandoned(tmp_path)
    assert _names(tmp_path) == before
    # Where there are no locks, nobody can tell.
    (tmp_path / f".umx-np-{host}-{'4' * 16}.tmp").touch()

    def no_locks(descriptor):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(_atomic, "try_lock", no_locks)
    with atomic_write(tmp_path / "a") as file:
        file.write(b"1")
    assert f".umx-np-{host}-{'4' * 16}.tmp" in _names(tmp_path)


@posix
def test_one_that_is_removed_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    real, calls = _atomic.try_lock, []

    def beaten(descriptor):
        calls.append(descriptor)
        if len(calls) == 1:
            for path in tmp_path.iterdir():
                path.unlink()
        return real(descriptor)

    monkeypatch.setattr(_atomic, "try_lock", beaten)
    with atomic_write(tmp_path / "a") as file:
        file.write(b"1")
    assert len(calls) == 2
    assert _names(tmp_path) == ["a"]


def _write_many(folder: str, number: int) -> None:
    for k in range(100):
        with atomic_write(os.path.join(folder, f"{number}-{k}")) as file:
            file.write(b"x" * 100)


@posix
def test_many_programs_in_one_folder_lose_nothing(tmp_path):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_write_many, args=(str(tmp_path), k)) for k in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert _names(tmp_path) == sorted(f"{n}-{k}" for n in range(3) for k in range(100))
    assert {path.stat().st_size for path in tmp_path.iterdir()} == {100}


def test_descriptors_are_closed(tmp_path):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("needs /proc")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with atomic_write(tmp_path / "a") as file:
            file.write(b"1")
        TemporaryFile(tmp_path).discard()
        TemporaryFile(tmp_path)  # whoever forgets it loses it
    assert len(os.listdir("/proc/self/fd")) == before
    assert _names(tmp_path) == ["a"]


def test_an_error_leaves_the_old_file(tmp_path):
    (tmp_path / "a").write_text("old")

    def fail():
        with atomic_write(tmp_path / "a") as file:
            file.write(b"new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert (tmp_path / "a").read_text() == "old"
    assert _names(tmp_path) == ["a"]


@posix
def test_modes_are_those_of_any_file(tmp_path):
    mask = os.umask(0o027)
    try:
        with atomic_write(tmp_path / "a") as file:
            file.write(b"1")
    finally:
        os.umask(mask)
    assert stat.S_IMODE(os.stat(tmp_path / "a").st_mode) == 0o640


@posix
class TestLinks:
    def test_are_followed_where_the_user_names_them(self, tmp_path):
        (tmp_path / "real").write_text("old")
        os.symlink("real", tmp_path / "link")
        with atomic_write(tmp_path / "link") as file:
            file.write(b"new")
        assert (tmp_path / "real").read_text() == "new"
        assert (tmp_path / "link").is_symlink()

    def test_are_replaced_where_others_may_have_put_them(self, tmp_path):
        (tmp_path / "precious").write_text("old")
        os.symlink("precious", tmp_path / "link")
        with atomic_write(tmp_path / "link", follow_links=False) as file:
            file.write(b"new")
        assert (tmp_path / "precious").read_text() == "old"
        assert (tmp_path / "link").read_text() == "new"

    @pytest.mark.parametrize("append", [True, False])
    def test_are_not_written_through(self, tmp_path, append):
        (tmp_path / "precious").write_text("old")
        os.symlink("precious", tmp_path / "a.part")
        if append:
            with pytest.raises(OSError, match="link"):
                open_kept(tmp_path / "a.part", append=True)
        else:
            with open_kept(tmp_path / "a.part", append=False) as file:
                file.write(b"new")
        assert (tmp_path / "precious").read_text() == "old"

    def test_are_not_continued(self, tmp_path):
        (tmp_path / "precious").write_text("old")
        (tmp_path / "part").write_text("mine")
        assert is_kept(tmp_path / "part")
        assert not is_kept(tmp_path / "none")
        os.symlink("precious", tmp_path / "symbolic")
        os.link(tmp_path / "precious", tmp_path / "hard")
        assert not is_kept(tmp_path / "symbolic")
        assert not is_kept(tmp_path / "hard")
        assert _names(tmp_path) == ["part", "precious"]


@posix
def test_a_planted_part_is_neither_written_nor_taken(tmp_path, monkeypatch):
    """In a shared folder for models, the name of a part is known beforehand."""
    from umx_np.pretrained import transfer as _transfer

    precious = tmp_path / "precious"
    precious.write_bytes(b"old")
    part = tmp_path / "v.pth.part"
    for name in (part, tmp_path / "v.pth.part.json", tmp_path / ".v.pth.lock"):
        os.symlink("precious", name)
    assert not is_kept(part)

    response = SimpleNamespace(url="u", headers={"ETag": '"1"'}, raw=BytesIO(b"new"))
    _transfer._write_validator(tmp_path / "v.pth.part.json", "u", response)
    _transfer._store(response, part, 0, 3, 3, None)
    with pytest.raises(OSError, match="link"), _transfer.file_lock(tmp_path / ".v.pth.lock"):
        pass
    assert precious.read_bytes() == b"old"
    assert part.read_bytes() == b"new"
    assert json.loads((tmp_path / "v.pth.part.json").read_text())["url"] == "u"


@posix
def test_the_probe_of_a_training_follows_no_link(tmp_path):
    from umx_np.training.config import TrainConfig
    from umx_np.training.files import RunFiles

    (tmp_path / "precious").write_text("old")
    os.symlink("precious", tmp_path / ".vocals.probe")
    config = TrainConfig(target="vocals", output=tmp_path)
    RunFiles(config).check()
    assert (tmp_path / "precious").read_text() == "old"
    assert _names(tmp_path) == [".vocals.probe", "precious"]


@posix
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_file_is_not_replaced(tmp_path, linked):
    """An administrator writing to /dev/null, or to a link to it, must not lose it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    target = pipe
    if linked:
        target = tmp_path / "link"
        target.symlink_to(pipe)
    with pytest.raises(OSError, match="no file"), _atomic.atomic_write(target) as file:
        file.write(b"text")
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".tmp")]
