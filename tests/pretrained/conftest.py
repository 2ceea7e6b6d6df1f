"""The server, and a model in place of the published ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.download_server import DATA, NAME, SIZE, Server, serving

from umx_np.pretrained import transfer as _transfer
from umx_np.pretrained.models import PUBLISHED, ModelInfo, PublishedFile


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as state:
        yield state


@pytest.fixture
def model(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModelInfo:
    """Put a model of one file in place of the published ones."""
    file = PublishedFile(
        target="vocals",
        filename=NAME,
        url=f"{server.url}/records/1/files/{NAME}",
        sha256=hashlib.sha256(DATA).hexdigest(),
        size=SIZE,
    )
    info = replace(PUBLISHED["umxl"], name="tiny", files={"vocals": file}, nb_parameters=75_000)
    monkeypatch.setattr("umx_np.pretrained.models.PUBLISHED", {"tiny": info})
    monkeypatch.setattr(_transfer, "FIRST_PAUSE", 0.001)
    # So that the part is as long as what the server gave before it stopped.
    monkeypatch.setattr(_transfer, "_CHUNK_BYTES", 10_000)
    monkeypatch.setenv("UMX_NP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("UMX_NP_OFFLINE", "UMX_NP_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    return info
