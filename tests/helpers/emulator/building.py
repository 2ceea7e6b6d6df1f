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
_COMMON = ("-std=c++17", "-O1", "-fPIC", "-shared", "-Wl,-Bsymbolic", "-U_FORTIFY_SOURCE")
_RUNTIME = (*_COMMON, f"-I{HERE}")
# Sums are as written; memory may be read as any type, as on the card, but only where it is aligned.
_KERNELS = (
    *_COMMON,
    f"-I{HERE}",
    "-include",
    "cuda.h",
    "-g1",
    "-Wno-unknown-pragmas",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-fsanitize=alignment",
    "-fsanitize-undefined-trap-on-error",
)


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
    key = hashlib.sha256(_environment() + repr(flags).encode() + source.encode()).hexdigest()[:32]
    library = cache_folder() / f"{key}.so"
    with _locked(library.with_suffix(".lock")):
        if not library.exists():
            _compile(source, flags, library)
    return ctypes.CDLL(str(library), mode=mode)


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
        done = subprocess.run(
            [str(compiler()), *flags, "-x", "c++", "-", "-o", str(made)],
            input=source.encode(),
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise BuildError(done.stderr.decode(errors="replace"))
        os.replace(made, library)


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
    return _build(f"{source}\n{''.join(exports)}", (*_KERNELS, *defines), ctypes.RTLD_LOCAL)


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
