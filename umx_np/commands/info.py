"""``umx-np info``: what a report of a problem should contain."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from .. import __version__
from .._support.console import show
from .._support.programs import run_program
from ..errors import UmxError
from .frame import Command, format_size

_REQUIRED = (
    "numpy",
    "soundfile",
    "soxr",
    "safetensors",
    "platformdirs",
    "requests",
    "tqdm",
    "threadpoolctl",
    "filelock",
    "lazy_loader",
)
_OPTIONAL = (
    "numba",
    "scipy",
    "cupy-cuda12x",
    "cupy-cuda13x",
    "musdb",
    "museval",
    "matplotlib",
    "starlette",
    "uvicorn",
    "torch",
    "openunmix",
)
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser."""
    parser.add_argument("--json", action="store_true", help="write JSON")
    parser.add_argument(
        "--check", action="store_true", help="check CUDA devices against the processor now"
    )


def run(args: argparse.Namespace) -> int:
    """Print the report."""
    report = collect(check=args.check)
    if args.json:
        print(json.dumps(report, indent=2))
    else:
        show(_as_text(report))
    return 0


def collect(*, check: bool = False) -> dict[str, Any]:
    """Gather the report.

    Parameters
    ----------
    check : bool
        Whether to check CUDA devices now.

    Returns
    -------
    dict
        Only types that JSON knows.
    """
    import numpy  # noqa: F401 - loads the BLAS that threadpoolctl reports
    import soundfile
    import soxr
    import threadpoolctl

    from .. import pretrained
    from .._support.threads import available_cores
    from ..devices import devices

    cache = Path(pretrained.cache_dir())
    files = [file for file in cache.rglob("*") if file.is_file()] if cache.is_dir() else []
    return {
        "umx_np": __version__,
        "location": str(Path(__file__).resolve().parents[1]),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "executable": sys.executable,
        "system": platform.platform(),
        "packages": {name: _version(name) for name in _REQUIRED},
        "optional_packages": {name: _version(name) for name in _OPTIONAL},
        "libsndfile": soundfile.__libsndfile_version__,
        "libsoxr": soxr.__libsoxr_version__,
        "ffmpeg": _ffmpeg(),
        "cpu": {
            "name": _cpu_name(),
            "cores": os.cpu_count(),
            "usable_cores": available_cores(),
            "features": _cpu_features(),
        },
        "kernels": _describe_kernels(),
        "blas": [
            {key: library.get(key) for key in ("internal_api", "version", "num_threads")}
            for library in threadpoolctl.threadpool_info()
            if library.get("user_api") == "blas"
        ],
        "environment": {
            name: value
            for name, value in sorted(os.environ.items())
            if name in _THREAD_VARIABLES or name.startswith("UMX_NP_")
        },
        "defaults": _defaults(),
        "devices": [dict(device) for device in devices(check=check)],
        "bundled_models": _bundled_models(),
        "model_cache": {
            "folder": str(cache),
            "files": len(files),
            "bytes": sum(file.stat().st_size for file in files),
        },
    }


def _defaults() -> dict[str, Any]:
    """Where the user's defaults are, and what they are."""
    from .._support.folders import user_config
    from .defaults import check_defaults

    path, _ = user_config()
    found: dict[str, Any] = {"file": None if path is None else str(path)}
    try:
        return {**found, "values": check_defaults(), "error": None}
    except UmxError as error:
        # As below: a report of what is wrong is what this command is for.
        return {**found, "values": {}, "error": str(error)}


def _bundled_models() -> list[dict[str, Any]]:
    """List what came with the package, and whether it is really there."""
    from ..pretrained import bundled_folder, registry

    models: list[dict[str, Any]] = []
    for info in registry().values():
        if not info.is_bundled:
            continue
        try:
            folder = bundled_folder(info.name)
        except UmxError as error:
            # A report of a broken installation is what this command is for.
            models.append({"name": info.name, "error": str(error)})
            continue
        size = sum(file.stat().st_size for file in folder.iterdir() if file.is_file())
        models.append({"name": info.name, "folder": str(folder), "bytes": size})
    return models


def _version(name: str) -> str | None:
    """Version of an installed package, without importing it."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _ffmpeg() -> str | None:
    path = shutil.which("ffmpeg")
    if path is None:
        return None
    try:
        run = run_program([path, "-version"], 10.0)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{path} (does not run: {error})"
    words = run.stdout.decode(errors="replace").split()
    return f"{path} ({words[2] if len(words) > 2 else 'unknown version'})"


def _cpu_name() -> str:
    if sys.platform == "linux":
        try:
            lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        for line in lines:
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    if sys.platform == "darwin":
        query = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            return run_program(query, 10.0).stdout.decode(errors="replace").strip()
        except (OSError, subprocess.TimeoutExpired):
            pass
    return platform.processor() or platform.machine()


def _cpu_features() -> list[str]:
    try:
        # NumPy has no public name for what it found out about the processor.
        found = importlib.import_module("numpy._core._multiarray_umath").__cpu_features__
    except (ImportError, AttributeError):
        return []
    return sorted(name for name, present in found.items() if present)


def _kernels(kernels: dict[str, Any]) -> str:
    if "error" in kernels:
        return f"not usable: {kernels['error']}"
    runs = " ".join(level for level, usable in kernels["levels"].items() if usable)
    return f"{kernels['level']} ({kernels['lanes']} lanes); this processor runs {runs}"


def _precisions(kernels: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines about what multiplies in each precision."""
    if "error" in kernels:
        return []
    bf16 = (
        "AVX512_BF16"
        if kernels["bf16_products"]
        else "float32, weights of the recurrence in bfloat16"
    )
    int8 = kernels["int8_products"]
    return [
        ("  full", "float32"),
        ("  fast", bf16),
        ("  int8", "plain C, which saves memory, not time" if int8 == "none" else int8),
    ]


def _describe_kernels() -> dict[str, Any]:
    try:
        from ..backends import cpu

        return dict(cpu.describe())
    except (ImportError, UmxError) as error:
        # A report of a broken installation is what this command is for.
        return {"error": str(error)}


def _card(device: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines about a CUDA device."""
    memory = f"{format_size(device['memory'])} of memory, {format_size(device['free_memory'])} free"
    rows = [
        (
            "  card",
            f"{device['card']}, compute capability {device['compute_capability']}, "
            f"{device['multiprocessors']} multiprocessors, CUDA {device['cuda']}, {memory}",
        )
    ]
    rows += [(f"  {model}", plan) for model, plan in device["recurrence"].items()]
    if device["experimental"]:
        rows.append(("  state", "experimental: --device auto does not take it"))
    rows.append(("  check", device["check"]))
    return rows


def _defaults_text(defaults: dict[str, Any]) -> str:
    if defaults["error"] is not None:
        return f"not usable: {defaults['error']}"
    if defaults["file"] is None:
        return "none, since UMX_NP_CONFIG is empty"
    values = [
        f"{command} {key}={value!r}"
        for command, table in defaults["values"].items()
        for key, value in table.items()
    ]
    return f"{defaults['file']} ({', '.join(values) or 'none'})"


def _as_text(report: dict[str, Any]) -> str:
    def versions(packages: dict[str, str | None]) -> str:
        return ", ".join(f"{name} {version}" for name, version in packages.items() if version)

    cpu, cache = report["cpu"], report["model_cache"]
    missing = ", ".join(
        name
        for packages in (report["packages"], report["optional_packages"])
        for name, version in packages.items()
        if version is None
    )
    rows = [
        ("umx_np", f"{report['umx_np']} in {report['location']}"),
        ("python", f"{report['python']} ({report['executable']})"),
        ("system", report["system"]),
        ("packages", versions(report["packages"])),
        ("optional", versions(report["optional_packages"]) or "none"),
        ("not installed", missing or "none"),
        ("sound", f"libsndfile {report['libsndfile']}, libsoxr {report['libsoxr']}"),
        ("ffmpeg", report["ffmpeg"] or "not found; m4a, mp4 and aac files cannot be read"),
        ("processor", f"{cpu['name']}, {cpu['usable_cores']} of {cpu['cores']} cores usable"),
        ("features", " ".join(cpu["features"])),
        ("kernels", _kernels(report["kernels"])),
        *_precisions(report["kernels"]),
    ]
    for library in report["blas"]:
        text = f"{library['internal_api']} {library['version']}, {library['num_threads']} threads"
        rows.append(("blas", text))
    rows += [(name, value) for name, value in report["environment"].items()]
    rows.append(("defaults", _defaults_text(report["defaults"])))
    for device in report["devices"]:
        state = "available" if device["available"] else "not available"
        reason = f": {device['reason']}" if device.get("reason") else ""
        rows.append((f"device {device['name']}", state + reason))
        if "card" in device:
            rows += _card(device)
    for model in report["bundled_models"]:
        if "error" in model:
            rows.append((f"model {model['name']}", f"not there: {model['error']}"))
        else:
            size = format_size(model["bytes"])
            rows.append((f"model {model['name']}", f"{model['folder']} ({size})"))
    rows.append(
        ("models", f"{cache['folder']} ({cache['files']} files, {format_size(cache['bytes'])})")
    )
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


COMMAND = Command("info", run, add_options, help="show versions, processor, devices and folders")
