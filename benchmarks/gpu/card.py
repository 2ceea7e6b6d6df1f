"""The section ``environment``: on what the numbers are taken. Nothing is set, only read."""

from __future__ import annotations

import datetime
import importlib
import importlib.metadata
import platform
import shutil
import subprocess
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.harness.environment import available_cores, cpu_name, load_average, source

from .context import Context
from .record import Case, Recorder

_PACKAGES = ("openunmix", "numba", "threadpoolctl", "stempeg")
# CuPy has a package for every major version of CUDA.
_CUPY = ("cupy-cuda13x", "cupy-cuda12x", "cupy-cuda11x", "cupy")
_ASKED = (
    "driver_version",
    "pstate",
    "clocks.sm",
    "clocks.mem",
    "clocks.max.sm",
    "clocks.max.mem",
    "clocks.applications.graphics",
    "clocks_throttle_reasons.active",
    "power.draw",
    "power.limit",
    "temperature.gpu",
    "utilization.gpu",
    "ecc.mode.current",
    "mig.mode.current",
    "pcie.link.gen.max",
    "pcie.link.width.max",
)
_WHILE_WORKING = (
    "clocks.sm",
    "clocks.mem",
    "clocks_throttle_reasons.active",
    "power.draw",
    "temperature.gpu",
)
# What is imported from the compiled kernels and what the package needs besides NumPy.
_PARTS = {
    "kernels for the processor": ("umx_np._kernels.cpu", "python -m pip install -e ."),
    "sound files": ("soundfile", "python -m pip install -e ."),
    "resampling, data sets": ("soxr", "python -m pip install -e ."),
    "training": ("numba", "python -m pip install -e '.[train]'"),
}


def cases(context: Context) -> list[Case]:
    """Settings that are read."""
    return [
        Case("software", partial(_software, context), 120.0),
        Case("card", partial(_card, context), 60.0),
    ]


def _software(context: Context, recorder: Recorder) -> None:
    import umx_np

    versions = {
        "python": platform.python_version(),
        "umx_np": umx_np.__version__,
        "numpy": np.__version__,
        "cupy": _first_version(_CUPY),
        **{name: _first_version([name]) for name in _PACKAGES},
    }
    if context.options.torch:
        versions.update(_torch_versions())
    recorder.environment.update(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        threads=available_cores(),
        machine={
            "cpu": cpu_name(),
            "architecture": platform.machine(),
            "cores": available_cores(),
            "os": f"{platform.system()} {platform.release()}",
            "load_average": load_average(),
        },
        versions={name: version for name, version in versions.items() if version},
        umx_np=_kernels_of_the_processor(),
        source=source(),
    )
    for what, (module, remedy) in _PARTS.items():
        try:
            importlib.import_module(module)
        except Exception as error:
            recorder.note(f"no {what}: {error}; {remedy}")


def _card(context: Context, recorder: Recorder) -> None:
    device, runtime = context.device, context.xp.cuda.runtime
    with device.active():
        free, total = runtime.memGetInfo()
        bus = runtime.deviceGetPCIBusId(device.index)
    status = query(bus, _ASKED)
    # The name stands in the tables of all benchmarks.
    recorder.environment.setdefault("machine", {})["gpu"] = device.name
    recorder.environment["card"] = {
        "name": device.name,
        "compute_capability": ".".join(map(str, device.compute_capability)),
        "multiprocessors": device.multiprocessors,
        "shared_memory_per_block": device.shared_memory_per_block,
        "memory_gb": round(total / 1e9, 2),
        "free_memory_gb": round(free / 1e9, 2),
        "cuda": version_of(runtime.runtimeGetVersion()),
        "cuda_of_driver": version_of(runtime.driverGetVersion()),
        "driver": status.pop("driver_version", None),
        "as_found": status,
        "others": _other_processes(bus),
    }


def version_of(number: int) -> str:
    """CUDA's numbers as they are spoken: 12090 is 12.9."""
    return f"{number // 1000}.{number % 1000 // 10}"


def working_status(context: Context) -> dict[str, str]:
    """Clocks, power and temperature right after work, to see whether the card held its rate."""
    runtime = context.xp.cuda.runtime
    if not hasattr(runtime, "deviceGetPCIBusId"):
        return {}
    return query(runtime.deviceGetPCIBusId(context.device.index), _WHILE_WORKING)


def query(bus: str, fields: Sequence[str]) -> dict[str, str]:
    """Ask nvidia-smi.

    Parameters
    ----------
    bus : str
        Address of the card on the bus: its numbers need not be those of CUDA.
    fields : sequence of str
        Names as in ``nvidia-smi --help-query-gpu``.

    Returns
    -------
    dict of str to str
        Those that this driver and card know; empty without nvidia-smi.
    """
    answer = _smi(["-i", bus, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"])
    if answer is None:
        if len(fields) == 1:
            return {}
        # One name that the driver does not know spoils the whole question.
        return {k: v for field in fields for k, v in query(bus, [field]).items()}
    values = [value.strip() for value in answer.split(",")]
    if len(values) != len(fields):
        return {}
    return {k: v for k, v in zip(fields, values, strict=True) if v and not v.startswith("[")}


def _smi(arguments: Sequence[str]) -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _other_processes(bus: str) -> int | None:
    """How many programs besides this one compute on the card, where that can be seen."""
    answer = _smi(["-i", bus, "--query-compute-apps=pid", "--format=csv,noheader"])
    # This process is one of them, unless it is in a container that hides it.
    return None if answer is None else max(len(answer.splitlines()) - 1, 0)


def _first_version(packages: Sequence[str]) -> str | None:
    for package in packages:
        try:
            return importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _torch_versions() -> dict[str, str | None]:
    try:
        import torch
    except (ImportError, OSError):
        return {}
    cudnn = torch.backends.cudnn.version() if torch.cuda.is_available() else None
    return {
        "torch": torch.__version__,
        "cuda_of_torch": torch.version.cuda,
        "cudnn": None if cudnn is None else str(cudnn),
    }


def _kernels_of_the_processor() -> dict[str, Any]:
    try:
        from umx_np.backends.cpu import describe

        return describe()
    except Exception:
        return {"level": "not compiled"}
