"""`umx-np models --verify`, with small models on a server of this machine."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.documents import ROOT
from helpers.download_server import Server, serving

from umx_np.commands import verifying
from umx_np.config import ModelConfig
from umx_np.pretrained import transfer
from umx_np.pretrained.models import PUBLISHED, ModelInfo, PublishedFile
from umx_np.testing import random_state
from umx_np.weights import StateDict, save_torch

CONFIG = ModelConfig(nb_bins=129, hidden_size=16, max_bin=90)
DOUBLE = Path(__file__).parents[1] / "helpers" / "upstream_double"
SONG = str(ROOT / "examples" / "song.ogg")


def publish(
    server: Server, like: ModelInfo, states: dict[str, StateDict], tmp_path: Path, bits: int = 256
) -> ModelInfo:
    """Let a server have files under the names of published ones; return their description."""
    files = {}
    for target, state in states.items():
        path = tmp_path / "made.pth"
        save_torch(state, path)
        data = path.read_bytes()
        path.unlink()
        name = like.files[target].filename
        server.files[name] = data
        files[target] = PublishedFile(
            target, name, f"{server.url}/records/1/files/{name}",
            hashlib.sha256(data).hexdigest()[: bits // 4],
        )  # fmt: skip
    return replace(like, files=files)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    monkeypatch.setenv("UMX_NP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("UMX_NP_OFFLINE", "UMX_NP_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(transfer, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(verifying, "SECONDS", 0.5)
    with serving() as state:
        yield state


@pytest.fixture
def models(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, ModelInfo]:
    """Put two small models in place of the published ones; of one, 32 bits are known."""
    settings = {"n_fft": 256, "n_hop": 64, "sample_rate": 8000.0, "config": CONFIG}
    published = {}
    for name, targets, bits in (("umxhq", ("vocals", "drums"), 256), ("umxl", ("bass",), 32)):
        like = replace(PUBLISHED[name], **settings)
        states = {target: random_state(CONFIG, seed) for seed, target in enumerate(targets)}
        published[name] = publish(server, like, states, tmp_path, bits)
    monkeypatch.setattr("umx_np.pretrained.models.PUBLISHED", published)
    return published


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Put a double of PyTorch's Open-Unmix where the other process finds it first."""
    monkeypatch.setenv("PYTHONPATH", f"{DOUBLE}{os.pathsep}{ROOT}")
    return monkeypatch


def verify(run, *arguments, song=SONG):
    return run("models", "--quiet", "--song", song, "--verify", *arguments)


def test_hashes_and_stems(run, models, upstream, server, tmp_path):
    report = tmp_path / "report.json"
    result = verify(run, "umxhq", "umxl", "--report", report)
    assert (result.status, result.err) == (0, "")
    document = json.loads(report.read_text())
    assert document["format"] == 1
    assert list(document["models"]) == ["umxhq", "umxl"]
    hq, large = document["models"].values()
    for target, file in hq["files"].items():
        data = server.files[file["file"]]
        assert file["sha256"] == hashlib.sha256(data).hexdigest()
        assert file["sha512"] == hashlib.sha512(data).hexdigest()
        assert file["bytes"] == len(data)
        assert file["known_bits"] == 256
        assert file["sha256"] in result.out
        assert hq["agreement_db"][target] > 100
        assert f"to {hq['agreement_db'][target]:.1f} dB" in result.out
    assert hq["not_verified"] == []
    assert large["not_verified"] == ["files of bass: only 32 bits of their hashes are published"]
    assert "umxl: not verified: files of bass: only 32 bits" in result.out
    assert hq["error"] is large["error"] is None
    # Of what is here nothing is downloaded again, but all of it is hashed again.
    asked = len(server.requests)
    again = verify(run, "umxhq", "--json", song="none.ogg")
    assert len(server.requests) == asked
    assert json.loads(again.out)["models"]["umxhq"]["files"] == hq["files"]


def test_a_file_that_was_changed(run, models, server, tmp_path):
    assert verify(run, "umxl", song="none.ogg").status == 0
    path = next((tmp_path / "home" / "umxl").glob("bass*.pth"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    server.files[path.name] = bytes(data)
    result = verify(run, "umxl", "umxhq", song="none.ogg")
    assert result.status == 3
    assert "umxl: WRONG: " in result.out
    assert "sha256=" in result.err
    assert verify(run, "umxl", song="none.ogg").status == 1


def test_stems_that_differ(run, models, upstream, tmp_path):
    upstream.setenv("UMX_NP_TEST_UPSTREAM", "differs")
    result = verify(run, "umxhq", "--report", tmp_path / "report.json")
    assert result.status == 1
    assert "umxhq: WRONG: stems of model='umxhq' differ from those of openunmix:" in result.out
    report = json.loads((tmp_path / "report.json").read_text())["models"]["umxhq"]
    assert report["agreement_db"]["drums"] > 100 > 80 > report["agreement_db"]["vocals"]
    assert "vocals" in report["error"]


def test_upstream_that_fails(run, models, upstream):
    upstream.setenv("UMX_NP_TEST_UPSTREAM", "fails")
    result = verify(run, "umxhq")
    assert result.status == 1
    assert "openunmix cannot separate with model='umxhq': RuntimeError: out of luck" in result.err


def test_without_torch(run, models, upstream):
    """What can be verified is, and what was not is said."""
    upstream.setenv("UMX_NP_TEST_UPSTREAM", "absent")
    result = verify(run, "umxhq")
    assert result.status == 0
    assert result.out.count("not compared") == 2
    assert "umxhq: not verified: stems: openunmix is not here" in result.out
    assert "there is no torch in this test" in result.out
    assert not {"torch", "openunmix"} & {name for name in sys.modules if name == "torch"}


def test_without_a_song(run, models, folder):
    result = run("models", "-q", "--verify", "umxhq")
    assert result.status == 0
    assert "not verified: stems: 'examples/song.ogg' is not there; name a song" in result.out


def test_weights_of_another_architecture(run, models, server, monkeypatch, tmp_path):
    other = {"bass": random_state(replace(CONFIG, hidden_size=8), 0)}
    wrong = publish(server, models["umxl"], other, tmp_path)
    monkeypatch.setattr("umx_np.pretrained.models.PUBLISHED", {"umxl": wrong})
    result = verify(run, "umxl")
    assert result.status == 1
    assert "has shape=" in result.out


def test_names(run, models):
    assert "choose one of" in verify(run, "umxhq", "umxx").err
    included = verify(run, "umxm")
    assert included.status == 0
    assert "umxm: not verified: stems: Open-Unmix has no model of this name" in included.out
    assert "included" in included.out


def test_decibels():
    stem = np.full((2, 100), 0.5)
    assert verifying._decibels(stem, stem) == np.inf
    assert verifying._decibels(stem[:1], stem) == -np.inf
    assert abs(verifying._decibels(stem * 1.01, stem) - 40) < 1e-6
    assert not verifying._decibels(stem * np.nan, stem) >= verifying.AGREEMENT_DB


@pytest.mark.parity
@pytest.mark.parametrize("name", ["umxse", pytest.param("umxhq", marks=pytest.mark.slow)])
def test_the_real_one(run, server, monkeypatch, tmp_path, name):
    """Open-Unmix's own functions, with random weights under the names of the published files."""
    if not (importlib.util.find_spec("torch") and importlib.util.find_spec("openunmix")):
        pytest.skip("needs torch and openunmix; see CONTRIBUTING.md")
    standin = tmp_path / "standin"
    standin.mkdir()
    (standin / "torchaudio.py").write_text(
        "import sys\nfrom helpers import torchaudio_standin\n"
        "del sys.modules['torchaudio']\ntorchaudio_standin.install()\n"
    )
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (standin, tests, ROOT))))
    like = PUBLISHED[name]
    states = {target: random_state(like.config, seed) for seed, target in enumerate(like.targets)}
    info = publish(server, like, states, tmp_path)
    monkeypatch.setattr("umx_np.pretrained.models.PUBLISHED", {name: info})
    result = verify(run, name, "--json")
    assert result.status == 0, result.err
    agreement = json.loads(result.out)["models"][name]["agreement_db"]
    assert list(agreement) == list(like.targets)
    assert min(agreement.values()) > 100
