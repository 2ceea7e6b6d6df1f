"""`umx-np models --verify`, with small models on a server of this machine."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.documents import ROOT, commands_in
from helpers.download_server import Server, download_to, publish, serving

from umx_np.commands import build_parser, verifying
from umx_np.config import ModelConfig
from umx_np.pretrained import transfer
from umx_np.pretrained.models import PUBLISHED, ModelInfo
from umx_np.testing import random_state

CONFIG = ModelConfig(nb_bins=129, hidden_size=16, max_bin=90)
DOUBLE = Path(__file__).parents[1] / "helpers" / "upstream_double"
SONG = str(ROOT / "examples" / "song.ogg")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    download_to(tmp_path, monkeypatch)
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
    assert (document["format"], document["format_version"]) == ("umx_np verification", 1)
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


# What is said of it


def test_the_workflow_verifies_every_published_model():
    workflow = ROOT / ".github" / "workflows" / "published.yml"
    if not workflow.exists():
        pytest.skip("a source archive has no workflows")
    text = workflow.read_text(encoding="utf-8").split("run: >\n")[1].split("- uses")[0]
    shown = [words for _, words in commands_in("docs/guide.md", "umx-np") if "--verify" in words]
    assert shown == [shlex.split(text)[1:]]
    args = build_parser("models").parse_args(shown[0])
    assert args.verify == list(PUBLISHED)
    assert args.song == verifying.SONG


def test_the_readme_says_whether_it_has_run():
    """As long as a hash of a published file is not known whole, nobody has looked at them all."""
    whole = all(
        len(file.sha256) == 64 for info in PUBLISHED.values() for file in info.files.values()
    )
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert ("**Not verified on the published files**" in readme) != whole
