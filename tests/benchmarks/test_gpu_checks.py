"""The sections of the benchmark for a card, on the emulator: they run, and they notice."""

from __future__ import annotations

import importlib
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.cuda_training import backend_on
from helpers.emulated import emulated
from helpers.upstream import Upstream

from benchmarks.gpu import check_precision, compiling, peers, record, sanitize, summary
from benchmarks.gpu import run as command
from benchmarks.gpu.context import Context, Options
from benchmarks.gpu.plan import Section
from benchmarks.gpu.record import Recorder
from umx_np.cuda.network import NetworkStack
from umx_np.cuda.ops import Spectra, WienerFilter
from umx_np.cuda.scan import Scan

CHECKS = ["check_operations", "check_scans", "check_separation", "check_precision"]
TIMES = ["ceilings", "time_scans", "time_separation", "time_stages"]


@pytest.fixture
def context() -> Context:
    """A card that is emulated, and sizes for it."""
    return Context(Options(seed=7, small=True, torch=False), emulated())


def run(module: str, context: Context, only: str = "") -> Recorder:
    """Run the cases of a section whose names begin like this, in this process."""
    recorder = Recorder()
    cases = importlib.import_module(f"benchmarks.gpu.{module}").cases(context)
    names = [case.name for case in cases]
    assert len(set(names)) == len(names)
    for case in cases:
        if case.name.startswith(only):
            recorder.run(case)
    assert recorder.cases
    return recorder


def statuses(recorder: Recorder) -> dict[str, str]:
    """How the cases ended; reasons of those that did not pass are shown by the assertion."""
    return {case["name"]: f"{case['status']} {case['reason']}".strip() for case in recorder.cases}


@pytest.mark.parametrize("module", CHECKS)
@pytest.mark.slow
def test_all_checks_pass(module: str, context: Context) -> None:
    recorder = run(module, context)
    assert set(statuses(recorder).values()) == {"passed"}
    names = [check["what"] for check in recorder.checks]
    assert len(names) >= len(recorder.cases)
    for check in recorder.checks:
        # So far below the bound that a card that rounds otherwise will not fail.
        assert check["value"] <= 0.5 * check["bound"], record.describe_check(check)


@pytest.mark.slow
def test_all_checks_of_training_pass(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    backend_on(context.device, monkeypatch)
    recorder = run("check_training", context)
    assert set(statuses(recorder).values()) == {"passed"}
    assert {check["case"] for check in recorder.checks} == set(statuses(recorder))


def test_without_the_package_for_training_the_rest_is_checked(context: Context) -> None:
    """No card is found under its name here, as if a package were missing."""
    recorder = run("check_training", context)
    assert {row["status"] for row in recorder.cases} == {record.PASSED, record.SKIPPED}


@pytest.mark.slow
def test_every_kernel_is_compiled(context: Context) -> None:
    recorder = run("compiling", context)
    assert set(statuses(recorder).values()) == {"passed"}
    sources = {path.name for path in compiling.SOURCES.glob("*.cu")}
    assert set(recorder.as_dict()["details"]) == sources


@pytest.mark.slow
@pytest.mark.parametrize("module", ["time_training", "time_data", "waveforms"])
def test_training_is_timed(module: str, context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    backend_on(context.device, monkeypatch)
    recorder = run(module, context)
    assert set(statuses(recorder).values()) <= {"passed", "skipped --skip-torch"}
    assert all(check["passed"] for check in recorder.checks)
    assert recorder.as_dict()["rows"]


@pytest.mark.parametrize("module", TIMES)
@pytest.mark.slow
def test_everything_is_timed(module: str, context: Context) -> None:
    recorder = run(module, context)
    found = list(statuses(recorder).values())
    assert set(found) <= {"passed", "skipped --skip-torch"}
    assert "passed" in found
    assert summary.table({**recorder.as_dict(), "sections": []})


EMULATED = """
import dataclasses
from benchmarks.gpu import card, ceilings, check_operations
from helpers.emulated import emulated

def cases(context):
    context.options = dataclasses.replace(context.options, small=True)
    context.__dict__["device"] = emulated()
    context.xp.cuda.runtime.deviceGetPCIBusId = lambda index: "0:0"
    return {module}.cases(context)
"""


@pytest.mark.slow
def test_a_run_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Processes, files and tables as on a card."""
    emulated()  # or skip
    sections = []
    for name, module in (
        ("environment", "card"),
        ("operations", "check_operations"),
        ("ceilings", "ceilings"),
    ):
        (tmp_path / f"emulated_{module}.py").write_text(EMULATED.replace("{module}", module))
        sections.append(Section(name, f"emulated_{module}", name, 100.0))
    out = tmp_path / "gpu.json"
    args = command.options(["--out", str(out), "--skip-torch", "--seed", "5", "--minutes", "5"])
    environment = command.child_environment(str(tmp_path / "cache"))
    helpers = Path(__file__).resolve().parents[1]
    environment["PYTHONPATH"] += f"{os.pathsep}{tmp_path}{os.pathsep}{helpers}"
    assert command.Run(args, sections).go(environment) == 0, capsys.readouterr().out
    document = json.loads(out.read_text())
    assert document["environment"]["card"]["name"] == "emulator"
    assert {row["status"] for row in document["sections"]} == {"passed"}
    assert {check["section"] for check in document["checks"]} == {"operations"}
    assert document["ladder"]
    assert document["agreements"]
    text = summary.table(document)
    assert text.startswith("emulator, ")
    assert text.endswith(f"{len(document['checks'])} checks, 0 failed")


# -- what the checks must notice -------------------------------------------------------------------


def wrong_by(monkeypatch: pytest.MonkeyPatch, kind: type, name: str, change: Any) -> None:
    """Let a method return something else."""
    method = getattr(kind, name)
    monkeypatch.setattr(kind, name, lambda *args, **options: change(method(*args, **options)))


def one_nan(array: Any) -> Any:
    array.reshape(-1)[-1] = np.nan
    return array


def a_little_more(array: Any) -> Any:
    return (array * np.float32(1.0001)).astype(array.dtype)


@pytest.mark.parametrize("change", [one_nan, a_little_more])
@pytest.mark.parametrize(
    ("kind", "method", "case"),
    [
        (Spectra, "frame", "frames"),
        (Spectra, "magnitude", "frames"),
        (WienerFilter, "windows", "Wiener filter"),
        (WienerFilter, "apply", "Wiener filter over"),
    ],
)
def test_wrong_operations_fail(
    context: Context,
    monkeypatch: pytest.MonkeyPatch,
    kind: type,
    method: str,
    case: str,
    change: Any,
) -> None:
    wrong_by(monkeypatch, kind, method, change)
    recorder = run("check_operations", context, case)
    assert record.FAILED in {row["status"] for row in recorder.cases}


def test_a_scan_that_forgets_its_direction_fails(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward = Scan.forward

    def forward_only(self: Scan, *args: Any, **kwargs: Any) -> Any:
        self._reverse.fill(0)
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(Scan, "forward", forward_only)
    recorder = run("check_scans", context, "10 units: step")
    assert {row["status"] for row in recorder.cases} == {record.FAILED}


def test_a_separation_with_another_network_fails(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = NetworkStack.decode

    def swapped(self: NetworkStack, z: Any, mags: Any, out: Any) -> None:
        decode(self, z, mags, out)
        out[...] = out[::-1].copy()

    monkeypatch.setattr(NetworkStack, "decode", swapped)
    recorder = run("check_separation", context, "umxhq, niter=1")
    assert {row["status"] for row in recorder.cases} == {record.FAILED}


def test_the_sdr_is_that_of_seconds_with_sound() -> None:
    true = np.zeros((2, 3 * 44100))
    true[:, :88200] = 1.0
    estimate = true.copy()
    estimate[:, :44100] += 0.1
    estimate[:, 44100:] += 0.01
    assert check_precision.sdr(true, estimate) == pytest.approx(30.0)
    assert np.isnan(check_precision.sdr(0 * true, estimate))


# -- under another program -------------------------------------------------------------------------


@pytest.fixture
def sanitizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in place of compute-sanitizer, first on the PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path / "compute-sanitizer"


@pytest.mark.parametrize(
    ("summary_line", "status"),
    [
        ("========= ERROR SUMMARY: 0 errors", "passed"),
        ("========= ERROR SUMMARY: 2 errors", "failed"),
        ("========= RACECHECK SUMMARY: 0 hazards displayed (0 errors, 0 warnings)", "passed"),
        ("========= RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)", "failed"),
        ("no device", "error"),
    ],
)
def test_what_compute_sanitizer_finds(
    context: Context, sanitizer: Path, summary_line: str, status: str
) -> None:
    sanitizer.write_text(f"#!/bin/sh\necho '{summary_line}'\n")
    sanitizer.chmod(0o755)
    recorder = Recorder()
    for case in sanitize.cases(context):
        assert recorder.run(case) == status


def test_without_compute_sanitizer(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sanitize.shutil, "which", lambda program: None)
    recorder = run("sanitize", context)
    assert {row["status"] for row in recorder.cases} == {record.SKIPPED}


# -- beside PyTorch, on the processor in place of a card -------------------------------------------


class HostEvent:
    """Stands for `torch.cuda.Event`."""

    def __init__(self, enable_timing: bool = False) -> None:
        self.time = 0.0

    def record(self) -> None:
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        pass

    def elapsed_time(self, other: HostEvent) -> float:
        return 1e3 * (other.time - self.time)


@pytest.fixture
def torch_context(monkeypatch: pytest.MonkeyPatch) -> Context:
    """Torch may be used, and takes the processor for the card."""
    try:
        torch = Upstream().torch
    except ImportError as error:
        pytest.skip(f"needs torch and openunmix ({error}); see CONTRIBUTING.md")
    for name in ("synchronize", "reset_peak_memory_stats", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda: 1)
    monkeypatch.setattr(torch.cuda, "Event", HostEvent)
    monkeypatch.setattr(peers, "DEVICE", "cpu")
    return Context(Options(seed=7, small=True), emulated())


@pytest.mark.parity
@pytest.mark.parametrize(
    ("module", "case"),
    [("time_scans", "layer"), ("time_separation", "umxhq"), ("time_training", "beside")],
)
@pytest.mark.slow
def test_outputs_beside_torch_are_compared(
    module: str, case: str, torch_context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend_on(torch_context.device, monkeypatch)
    recorder = run(module, torch_context, case)
    assert set(statuses(recorder).values()) == {"passed"}
    assert recorder.checks
    rows = recorder.as_dict()["rows"]
    assert any(row["theirs"] for row in rows)
