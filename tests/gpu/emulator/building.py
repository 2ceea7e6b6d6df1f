"""Compile CUDA C++ with g++, once for each content."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from umx_np.backends._cuda.compiling import kernels

HERE = Path(__file__).parent

# Sums are as written, and memory may be read as any type, as on the card.
FLAGS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-fno-strict-aliasing", "-ffp-contract=off")
# Leaving by longjmp from one stack to another is meant.
FLAGS += (
    "-Wl,-Bsymbolic",
    "-U_FORTIFY_SOURCE",
    "-Wno-unknown-pragmas",
    f"-I{HERE}",
    "-include",
    "cuda.h",
)


class BuildError(Exception):
    """The compiler's messages."""


def compiler() -> str | None:
    """Path of g++, or None."""
    return shutil.which("g++")


@lru_cache(maxsize=1)
def cache_folder() -> Path:
    """Folder of this user for compiled sources."""
    folder = Path(tempfile.gettempdir()) / f"umx_np_emulator_{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        folder = Path(tempfile.mkdtemp(prefix="umx_np_emulator_"))
    return folder


@lru_cache(maxsize=1)
def _environment() -> bytes:
    version = subprocess.run([str(compiler()), "--version"], capture_output=True, check=True)
    return version.stdout + (HERE / "cuda.h").read_bytes() + repr(FLAGS).encode()


def build(source: str, defines: tuple[str, ...] = (), mode: int = ctypes.RTLD_LOCAL) -> ctypes.CDLL:
    """Compile and load.

    Parameters
    ----------
    source : str
    defines : tuple of str
        Options such as ``-DNAME=VALUE``.
    """
    key = hashlib.sha256(_environment() + repr(defines).encode() + source.encode()).hexdigest()[:32]
    library = cache_folder() / f"{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
            made = Path(folder) / "made.so"
            done = subprocess.run(
                [str(compiler()), *FLAGS, *defines, "-x", "c++", "-", "-o", str(made)],
                input=source.encode(),
                capture_output=True,
                check=False,
            )
            if done.returncode:
                raise BuildError(done.stderr.decode(errors="replace"))
            os.replace(made, library)
    return ctypes.CDLL(str(library), mode=mode)


@lru_cache(maxsize=1)
def runtime() -> ctypes.CDLL:
    """What runs the launches; kernels are linked against it when they are loaded."""
    return build((HERE / "runtime.cpp").read_text(), mode=ctypes.RTLD_GLOBAL)


def build_kernels(source: str, defines: tuple[str, ...]) -> ctypes.CDLL:
    """Compile a source with all its includes expanded, and make its kernels callable."""
    runtime()
    exports = "".join(
        f"UMX_EXPORT({name}, {cluster})\n" for name, cluster in kernels(source).items()
    )
    return build(f"{source}\n{exports}", defines)
