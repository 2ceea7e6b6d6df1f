"""On what the numbers were taken."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from .threads import ROOT

_PACKAGES = (
    "torch",
    "openunmix",
    "norbert",
    "onnxruntime",
    "onnx",
    "scipy",
    "soundfile",
    "threadpoolctl",
)


def environment(threads: int) -> dict[str, Any]:
    """Describe machine, software and source.

    Parameters
    ----------
    threads : int
        Threads that the benchmark uses.

    Returns
    -------
    dict
        Ready for a JSON file. Holds no paths and no names of hosts or users.
    """
    import umx_np
    from umx_np.backends.cpu import describe

    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "threads": threads,
        "machine": {
            "cpu": cpu_name(),
            "architecture": platform.machine(),
            "cores": available_cores(),
            "os": f"{platform.system()} {platform.release()}",
            "libc": " ".join(platform.libc_ver()),
            "memory_gb": _memory_gb(),
            # Anything near the number of cores means that others were at work.
            "load_average": load_average(),
        },
        "versions": {
            "python": platform.python_version(),
            "umx_np": umx_np.__version__,
            "numpy": np.__version__,
            **_versions(),
        },
        "umx_np": {**describe(), "kernels_sha256": _kernels_hash()},
        "blas": _blas(),
        "source": source(),
    }


def available_cores() -> int:
    """Cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float | None:
    """Mean number of running processes over the last minute, where the system tells it."""
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def cpu_name() -> str:
    """Model of the processor."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def source() -> dict[str, Any]:
    """Commit of the source tree, and whether code differs from it."""
    commit = _git("rev-parse", "HEAD")
    # Results and the documents made of them change while benchmarks run.
    others = ("--", ".", ":!benchmarks/results", ":!*.md")
    changes = _git("status", "--porcelain", "--untracked-files=no", *others)
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _blas() -> list[dict[str, Any]]:
    from threadpoolctl import threadpool_info

    keys = ("user_api", "internal_api", "version", "architecture", "threading_layer")
    return [{key: info.get(key) for key in keys} for info in threadpool_info()]


def _kernels_hash() -> str:
    """Tells two builds of the same commit apart."""
    from umx_np._kernels import cpu

    return hashlib.sha256(Path(cpu.__file__).read_bytes()).hexdigest()[:12]


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None
