"""The section ``build``: all CUDA sources compiled for this card, and what each kernel needs."""

from __future__ import annotations

import re
import time
from functools import partial
from typing import Any

from umx_np.backends._cuda.compiling import SOURCES, kernels, read_source

from .context import Context
from .record import Case, Recorder, Skip


def cases(context: Context) -> list[Case]:
    """One for each source, with all variants that its header names."""
    return [
        Case(path.name, partial(_compile, context, path.name), 120.0)
        for path in sorted(SOURCES.glob("*.cu"))
    ]


def variants(name: str) -> list[dict[str, str]]:
    """Definitions that the header of a source asks to be compiled with; at least one set."""
    text = (SOURCES / name).read_text(encoding="utf-8")
    found = []
    for line in re.findall(r"^// variants:(.*)$", text, re.MULTILINE):
        for variant in filter(None, map(str.strip, line.split(";"))):
            found.append(dict(part.strip().split("=", 1) for part in variant.split(",")))
    return found or [{}]


def first_architecture(name: str) -> int:
    """Least compute capability that a source is for, times ten."""
    text = (SOURCES / name).read_text(encoding="utf-8")
    stated = re.search(r"^// from: sm_(\d+)\s*$", text, re.MULTILINE)
    return max(int(stated[1]) if stated else 0, 90 if "__cluster_dims__" in text else 0)


def may_spill(name: str) -> set[str]:
    """Kernels that the header of a source allows to spill registers."""
    text = (SOURCES / name).read_text(encoding="utf-8")
    listed = re.findall(r"^// spills:(.*)$", text, re.MULTILINE)
    return set(" ".join(listed).replace(",", " ").split())


def _compile(context: Context, source: str, recorder: Recorder) -> None:
    device = context.device
    major, minor = device.compute_capability
    if first_architecture(source) > 10 * major + minor:
        raise Skip(f"it is for compute capability {first_architecture(source) / 10:g} and later")
    rows: list[dict[str, Any]] = []
    begin = time.perf_counter()
    for defines in variants(source):
        for name in kernels(read_source(source)):
            kernel = device.kernel(source, name, defines=defines)
            rows.append(
                {
                    "kernel": name,
                    "defines": defines,
                    "registers": kernel.registers,
                    "spilled_bytes": kernel.local_bytes,
                    "static_shared": kernel.static_shared,
                    "max_threads": kernel.max_threads,
                    "cluster": kernel.cluster,
                }
            )
    seconds = round(time.perf_counter() - begin, 2)
    recorder.detail(source, {"seconds": seconds, "kernels": rows})
    allowed = may_spill(source)
    for row in rows:
        if row["spilled_bytes"] and row["kernel"] not in allowed:
            named = ", ".join(f"{k}={v}" for k, v in row["defines"].items())
            recorder.note(f"{row['kernel']} {named}: {row['spilled_bytes']} bytes are spilled")
