"""`umx-np models --verify` against Open-Unmix's own functions of models."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers.documents import ROOT
from helpers.download_server import Server, download_to, publish, serving

from umx_np.commands import main, verifying
from umx_np.pretrained.models import PUBLISHED
from umx_np.testing import random_state

pytestmark = pytest.mark.parity


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    download_to(tmp_path, monkeypatch)
    monkeypatch.setattr(verifying, "SECONDS", 0.5)
    with serving() as state:
        yield state


@pytest.mark.slow
@pytest.mark.parametrize("name", ["umxse", "umxhq"])
def test_stems_of_their_functions(openunmix, server, capsys, monkeypatch, tmp_path, name):
    """Open-Unmix's own functions, with random weights under the names of the published files."""
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
    song = str(ROOT / "examples" / "song.ogg")
    assert main(["models", "--quiet", "--json", "--song", song, "--verify", name]) == 0
    agreement = json.loads(capsys.readouterr().out)["models"][name]["agreement_db"]
    assert list(agreement) == list(like.targets)
    assert min(agreement.values()) > 100
