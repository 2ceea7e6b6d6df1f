"""The check by which a CUDA device proves itself, and the file that keeps its result."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.emulated import emulated

from umx_np import devices
from umx_np.cuda import proof
from umx_np.cuda.device import Device
from umx_np.cuda.engine import CudaEngine
from umx_np.cuda.proof import LIMITS, Proof, known_proof, proof_file, prove
from umx_np.errors import DeviceError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Device:
    """An emulated card with networks that are small enough for it, and an empty cache."""
    monkeypatch.setenv("UMX_NP_HOME", str(tmp_path))
    monkeypatch.setattr(proof, "HIDDEN_SIZE", 16)
    monkeypatch.setattr(proof, "_BINS", 33)
    monkeypatch.setattr(proof, "_HOP", 16)
    monkeypatch.setattr(proof, "_NB_TIMESTEPS", 16 * 40)
    return emulated()


def test_a_card_that_computes_right_passes_and_that_is_kept(device: Device) -> None:
    assert known_proof(device) is None
    found = prove(device)
    assert found.passed
    assert set(found.errors) == set(LIMITS)
    # As it is measured here, a hundredth of what is allowed; exact equality would be no check.
    assert all(0.0 < error < LIMITS[part] / 100 for part, error in found.errors.items())
    assert known_proof(device) == found
    assert str(found).startswith("passed (relative errors: separation ")


def wrong_stems(monkeypatch: pytest.MonkeyPatch) -> None:
    separate = proof.Engine.separate

    def louder(*arguments: Any) -> Any:
        for start, stems in separate(*arguments):
            yield start, stems * np.float32(1.001)

    monkeypatch.setattr(proof.Engine, "separate", louder)


def wrong_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    backward = CudaEngine.backward

    def broken(*arguments: Any, **options: Any) -> Any:
        gradients = backward(*arguments, **options)
        gradients["lstm.weight_hh_l1"][0, 0] = math.nan
        return gradients

    monkeypatch.setattr(CudaEngine, "backward", broken)


@pytest.mark.parametrize("spoil", [wrong_stems, wrong_gradients])
def test_a_card_that_computes_something_else_fails(
    device: Device, monkeypatch: pytest.MonkeyPatch, spoil: Any
) -> None:
    spoil(monkeypatch)
    found = prove(device)
    assert not found.passed
    kept = known_proof(device)
    assert kept is not None
    assert not kept.passed
    assert str(found).startswith("failed")


def test_a_card_that_cannot_compute_is_asked_again(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("an illegal address")

    monkeypatch.setattr(proof, "_separation_error", broken)
    with pytest.raises(DeviceError, match="RuntimeError: an illegal address"):
        prove(device)
    assert known_proof(device) is None
    assert proof.said_of(device, check=True).startswith("failed: <cuda:0 emulator")


class TestFile:
    GOOD = Proof({"separation": 1e-6, "gradients": 2e-6})

    @pytest.fixture
    def path(self, device: Device) -> Path:
        path = proof_file(device)
        path.parent.mkdir()
        content = {"identity": proof.identity(device), "errors": self.GOOD.errors}
        path.write_text(json.dumps(content))
        assert known_proof(device) == self.GOOD
        return path

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{",
            b"[]",
            b"3",
            b"\xff\xfe",
            b'{"errors": {"separation": 1e-6}}',
            b'{"errors": 1}',
        ],
        ids=str,
    )
    def test_damage_is_ignored_and_the_check_made_again(
        self, device: Device, path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path.write_bytes(content)
        assert known_proof(device) is None
        monkeypatch.setattr(proof, "get_device", lambda index: device)
        monkeypatch.setattr(proof, "_separation_error", lambda *_: 1e-6)
        monkeypatch.setattr(proof, "_gradient_error", lambda *_: 2e-6)
        assert proof.proof_of(0) == self.GOOD
        assert known_proof(device) == self.GOOD

    def test_another_version_has_another_file(
        self, device: Device, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(proof, "__version__", "999")
        assert proof_file(device) != path
        assert known_proof(device) is None
        # A file under the wrong name is not believed either.
        path.rename(proof_file(device))
        assert known_proof(device) is None

    def test_a_result_that_cannot_be_kept_is_told(
        self, device: Device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        proof_file(device).parent.write_text("in the way")
        monkeypatch.setattr(proof, "_separation_error", lambda *_: 1e-6)
        monkeypatch.setattr(proof, "_gradient_error", lambda *_: 2e-6)
        with caplog.at_level(logging.WARNING, logger="umx_np"):
            assert prove(device) == self.GOOD
        assert "cannot be kept in" in caplog.text


def test_info_checks(device: Device, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from umx_np.commands import main

    monkeypatch.setattr("umx_np.cuda.backend.get_device", lambda index: device)
    assert main(["info"]) == 0
    assert "not made; umx-np info --check makes it" in capsys.readouterr().out
    assert main(["info", "--check"]) == 0
    assert "passed (relative errors" in capsys.readouterr().out
    assert main(["info", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["devices"][-1]
    assert row["check"].startswith("passed")
    assert row["experimental"] is devices.CUDA_IS_EXPERIMENTAL


def test_cuda_is_experimental_until_a_device_has_run_it() -> None:
    """Results of `benchmarks.gpu.run` have the card in their environment."""
    results = (ROOT / "benchmarks" / "results").rglob("*.json")
    there = [path for path in results if '"card"' in path.read_text(encoding="utf-8")]
    assert (not there) == devices.CUDA_IS_EXPERIMENTAL
    for name in ("README.md", "docs/gpu.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert ("experimental" in text) == devices.CUDA_IS_EXPERIMENTAL, name
