"""Compile CUDA C++ with g++, once for each content."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from umx_np.cuda.compiling import kernels

HERE = Path(__file__).parent

# Leaving a stack by longjmp is meant.
_COMMON = ("-std=c++17", "-O1", "-fPIC", "-U_FORTIFY_SOURCE")
_RUNTIME = (*_COMMON, f"-I{HERE}")
# Sums are as written; memory may be read as any type, as on the card, but only where it is aligned.
_HEADER = (
    *_COMMON,
    "-g1",
    "-Wno-unknown-pragmas",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-fsanitize=alignment",
    "-fsanitize-undefined-trap-on-error",
)
_KERNELS = (*_HEADER, "-include", "cuda.h")


class BuildError(Exception):
    """The compiler's messages."""


def compiler() -> str | None:
    """Path of g++, or None where the emulator cannot run: it counts on Linux and on small pages."""
    if sys.platform != "linux" or mmap.PAGESIZE != 4096:
        return None
    return shutil.which("g++")


@cache
def cache_folder() -> Path:
    """Folder of this user for compiled sources."""
    folder = Path(tempfile.gettempdir()) / f"umx_np_emulator_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    # What lies there is loaded, so nobody else may have put it there.
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        folder = Path(tempfile.mkdtemp(prefix="umx_np_emulator_"))
    return folder


@cache
def _environment() -> bytes:
    version = subprocess.run([str(compiler()), "--version"], capture_output=True, check=True)
    return version.stdout + b"".join(file.read_bytes() for file in sorted(HERE.glob("*.h")))


def _build(source: str, flags: tuple[str, ...], mode: int) -> ctypes.CDLL:
    library = cache_folder() / f"{_key(source, flags)}.so"
    with _locked(library.with_suffix(".lock")):
        if not library.exists():
            _compile(source, flags, library)
    return ctypes.CDLL(str(library), mode=mode)


def _key(source: str, flags: tuple[str, ...]) -> str:
    return hashlib.sha256(_environment() + repr(flags).encode() + source.encode()).hexdigest()[:32]


@cache
def _header() -> Path:
    """Folder with cuda.h, compiled: to read it takes longer than most kernels."""
    folder = cache_folder() / _key("cuda.h", _HEADER)
    with _locked(folder.with_suffix(".lock")):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=cache_folder()) as made:
                shutil.copy(HERE / "cuda.h", made)
                _run(*_HEADER, "-x", "c++-header", str(HERE / "cuda.h"), "-o", f"{made}/cuda.h.gch")
                shutil.copytree(made, folder)
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time compile a source: the others find its library."""
    import fcntl

    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _compile(source: str, flags: tuple[str, ...], library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        made = Path(folder) / "made.so"
        _run(*flags, "-shared", "-Wl,-Bsymbolic", "-x", "c++", "-", "-o", str(made), source=source)
        os.replace(made, library)


def _run(*arguments: str, source: str = "") -> None:
    done = subprocess.run(
        [str(compiler()), *arguments], input=source.encode(), capture_output=True, check=False
    )
    if done.returncode:
        raise BuildError(done.stderr.decode(errors="replace"))


@cache
def runtime() -> ctypes.CDLL:
    """What runs the launches; kernels are linked against it when they are loaded."""
    return _build((HERE / "runtime.cpp").read_text(), _RUNTIME, ctypes.RTLD_GLOBAL)


def build_kernels(source: str, defines: tuple[str, ...]) -> ctypes.CDLL:
    """Compile and load the kernels of a source.

    Parameters
    ----------
    source : str
        With all its includes expanded.
    defines : tuple of str
        Options such as ``-DNAME=VALUE``.

    Returns
    -------
    ctypes.CDLL
        With functions ``umx_call_NAME`` and others for each kernel, see cuda.h.

    Raises
    ------
    BuildError
        With the compiler's messages.
    """
    runtime()
    exports = (f"UMX_EXPORT({name}, ({threads}))\n" for name, threads in kernels(source).items())
    flags = (f"-I{_header()}", *_KERNELS, *defines)
    return _build(f"{source}\n{''.join(exports)}", flags, ctypes.RTLD_LOCAL)


def line_of(library: str, offset: str) -> str:
    """Where in the source an instruction comes from, the innermost function first; or nothing."""
    tool = shutil.which("addr2line")
    if tool is None:
        return ""
    done = subprocess.run(
        [tool, "-i", "-e", library, offset], capture_output=True, text=True, check=False
    )
    places = [line.rsplit("/", 1)[-1].split(" ")[0] for line in done.stdout.splitlines()]
    return ", called from ".join(place for place in places if not place.startswith(("?", "cuda.h")))
