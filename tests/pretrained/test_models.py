"""The registry of models."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from umx_np.errors import ModelNotFoundError
from umx_np.pretrained import loading as pretrained
from umx_np.pretrained.models import PUBLISHED, ModelInfo


def test_names_and_order_of_targets() -> None:
    assert pretrained.model_names() == ("umxm", "umx", "umxhq", "umxl", "umxse")
    for name in ("umxm", "umx", "umxhq", "umxl"):
        assert pretrained.get_model_info(name).targets == ("vocals", "drums", "bass", "other")
    assert pretrained.get_model_info("umxse").targets == ("speech", "noise")


def test_unknown_model() -> None:
    for name in ("UMX", "", None, ["umx"]):
        with pytest.raises(ModelNotFoundError, match="umxm, umx, umxhq, umxl, umxse"):
            pretrained.get_model_info(name)  # type: ignore[arg-type]


@pytest.mark.parametrize("info", PUBLISHED.values(), ids=lambda info: info.name)
def test_registry_is_consistent(info: ModelInfo) -> None:
    lengths = {"sha256": (8, 64), "sha512": (128,), "md5": (32,)}
    record = info.page.rsplit("/", 1)[1]
    assert info.config.nb_bins == info.n_fft // 2 + 1
    assert info.config.nb_channels == info.nb_channels
    for target, file in info.files.items():
        assert file.target == target
        assert file.url == f"https://zenodo.org/records/{record}/files/{file.filename}"
        # The name holds the beginning of the hash.
        assert re.fullmatch(rf"{target}[-_]{file.sha256[:8]}\.pth", file.filename)
        for algorithm, value in file.hashes.items():
            assert len(value) in lengths[algorithm]
            assert re.fullmatch("[0-9a-f]+", value)
        assert file.size is None or file.size <= info.max_file_size
    values = [value for file in info.files.values() for value in file.hashes.values()]
    assert len(set(values)) == len(values)


def test_what_is_known_of_each_model() -> None:
    hq = pretrained.get_model_info("umxhq").files.values()
    assert all(len(file.sha256) == 64 and file.size == 35_637_796 for file in hq)
    assert all(file.md5 and file.sha512 for file in hq)
    assert all(file.sha512 for name in ("umx", "umxse") for file in PUBLISHED[name].files.values())
    large = pretrained.get_model_info("umxl")
    assert large.non_commercial
    assert large.license == "CC BY-NC-SA 4.0"
    assert large.config.hidden_size == 1024
    with pytest.raises(TypeError):
        pretrained.registry()["x"] = large  # type: ignore[index]


def test_import_is_light() -> None:
    code = (
        "import sys, umx_np.pretrained as p; p.get_model_info('umx');"
        "sys.exit(any(m in sys.modules for m in ('requests', 'platformdirs', 'tqdm', 'torch')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cache_dir(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("UMX_NP_HOME", str(tmp_path))
    assert pretrained.cache_dir() == tmp_path
    monkeypatch.setenv("UMX_NP_HOME", "~/models")
    assert pretrained.cache_dir() == Path.home() / "models"
    monkeypatch.delenv("UMX_NP_HOME")
    assert "umx_np" in str(pretrained.cache_dir())
