"""The section ``build``: all CUDA sources compiled for this card, and what each kernel needs."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

from umx_np.cuda.compiling import SOURCES, kernels, read_source

from . import scans, training_scans
from .context import Context
from .record import Case, Recorder, Skip

# Units of one direction of umxhq, umxl and umxm; targets times directions, and samples of a batch.
_UNITS, _NB_SEQUENCES, _NB_SAMPLES = (256, 512, 128), 8, 16


class Build(NamedTuple):
    """A kernel to compile.

    Attributes
    ----------
    name : str
    defines : mapping
        Values of macros.
    """

    name: str
    defines: Mapping[str, Any]


def cases(context: Context) -> list[Case]:
    """One for each source."""
    return [
        Case(path.name, partial(_compile, context, path.name), 120.0)
        for path in sorted(SOURCES.glob("*.cu"))
    ]


def builds(context: Context, source: str) -> list[Build]:
    """Kernels of a source as this card uses them: recurrent ones in the sizes of the models."""
    if source.startswith("scan_"):
        return _recurrent(context).get(source, [])
    names = kernels(read_source(source))
    return [Build(name, defines) for defines in variants(source) for name in names]


@lru_cache(maxsize=1)
def _recurrent(context: Context) -> dict[str, list[Build]]:
    """Kernels of all plans, by source."""
    found: dict[str, list[Build]] = {}
    for hidden in context.size(_UNITS, (16,)):
        used = [v.plan for v in scans.variants(context, hidden, _NB_SEQUENCES)]
        used += [v.plan for v in training_scans.variants(context, hidden, _NB_SAMPLES)]
        for plan in used:
            for backward in plan.passes:
                source, name = plan.kernel(backward=backward)
                found.setdefault(source, []).append(Build(name, plan.defines))
    return {
        source: list({str(build): build for build in listed}.values())
        for source, listed in found.items()
    }


def variants(name: str) -> list[dict[str, str]]:
    """Definitions that the header of a source asks to be compiled with; at least one set."""
    text = (SOURCES / name).read_text(encoding="utf-8")
    found = []
    for line in re.findall(r"^// variants:(.*)$", text, re.MULTILINE):
        for variant in filter(None, map(str.strip, line.split(";"))):
            found.append(dict(part.strip().split("=", 1) for part in variant.split(",")))
    return found or [{}]


def may_spill(name: str) -> set[str]:
    """Kernels that the header of a source allows to spill registers."""
    text = (SOURCES / name).read_text(encoding="utf-8")
    listed = re.findall(r"^// spills:(.*)$", text, re.MULTILINE)
    return set(" ".join(listed).replace(",", " ").split())


def _compile(context: Context, source: str, recorder: Recorder) -> None:
    wanted = builds(context, source)
    if not wanted:
        raise Skip("this card does not use it for the sizes of the published models")
    rows: list[dict[str, Any]] = []
    begin = time.perf_counter()
    for name, defines in wanted:
        kernel = context.device.kernel(source, name, defines=defines)
        rows.append(
            {
                "kernel": name,
                "defines": dict(defines),
                "registers": kernel.registers,
                "spilled_bytes": kernel.local_bytes,
                "static_shared": kernel.static_shared,
                "max_threads": kernel.max_threads,
            }
        )
    seconds = round(time.perf_counter() - begin, 2)
    recorder.detail(source, {"seconds": seconds, "kernels": rows})
    allowed = may_spill(source)
    for row in rows:
        if row["spilled_bytes"] and row["kernel"] not in allowed:
            named = ", ".join(f"{k}={v}" for k, v in row["defines"].items())
            recorder.note(f"{row['kernel']} {named}: {row['spilled_bytes']} bytes are spilled")
