"""Cores and memory that this process may use: of the machine, or less in a container."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

_ROOT = Path("/")


def available_cores() -> int:
    """Cores that this process may run on.

    Those it is bound to (from Python 3.13 on also what ``PYTHON_CPU_COUNT`` says), but no more than
    the CPU time that its control groups allow, rounded up.
    """
    if hasattr(os, "process_cpu_count"):
        cores = os.process_cpu_count() or 1
    elif hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    limit = _own_core_limit()
    return cores if limit is None else max(1, min(cores, limit))


def core_limit(root: Path = _ROOT) -> int | None:
    """Cores that the control groups of this process allow; None without a limit.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` are.
    """
    shares = []
    for folder, version in _folders("cpu", root):
        if version == 2:
            numbers = _words(folder / "cpu.max")
        else:
            numbers = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
        # "max", or -1 in the first version, where there is no limit.
        if len(numbers) == 2 and all(number.isdecimal() for number in numbers):
            quota, period = map(int, numbers)
            if quota and period:
                shares.append(-(-quota // period))
    return min(shares, default=None)


def memory_limit(root: Path = _ROOT) -> int | None:
    """Bytes of memory that the control groups of this process allow; None without a limit.

    Parameters
    ----------
    root : Path
        Where ``proc`` and ``sys`` are.
    """
    limits = []
    for folder, version in _folders("memory", root):
        words = _words(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
        # The first version has a number near 2^63 in place of "max".
        if len(words) == 1 and words[0].isdecimal() and 0 < int(words[0]) < 1 << 60:
            limits.append(int(words[0]))
    return min(limits, default=None)


_own_core_limit = lru_cache(maxsize=1)(core_limit)


def _folders(controller: str, root: Path) -> Iterator[tuple[Path, int]]:
    """Control groups of this process and all that these are in, as far as they can be seen."""
    paths: dict[int, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            paths[2] = path
        elif controller in controllers.split(","):
            paths[1] = path
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) < 5 or not kind or kind[0] not in ("cgroup", "cgroup2"):
            continue
        version = 2 if kind[0] == "cgroup2" else 1
        if version not in paths or (version == 1 and controller not in kind[-1].split(",")):
            continue
        inside, mounted = _unescaped(fields[3]), root / _unescaped(fields[4]).lstrip("/")
        # In a container the path may be that of the host, of which only a part is mounted.
        path = paths[version]
        if inside != "/":
            path = path[len(inside) :] if (path + "/").startswith(inside + "/") else ""
        folder = mounted if ".." in path else mounted / path.lstrip("/")
        while folder != mounted:
            yield folder, version
            folder = folder.parent
        yield mounted, version


def _unescaped(path: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), path)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def _words(path: Path) -> list[str]:
    return [word for line in _lines(path) for word in line.split()]
