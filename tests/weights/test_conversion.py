"""`convert`: files and folders, formats and dtypes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.torch_bytes import TINY, tiny_state

from umx_np.errors import ConfigError, ModelNotFoundError, WeightsError
from umx_np.weights import (
    ModelBundle,
    TargetWeights,
    convert,
    load_folder,
    load_safetensors,
    load_safetensors_config,
    load_torch,
    save_folder,
    save_torch,
)


@pytest.fixture
def pth(tmp_path: Path) -> Path:
    path = tmp_path / "vocals.pth"
    extra = {"module.stft.window": np.zeros(8, np.float32)}
    save_torch({f"module.{k}": v for k, v in tiny_state().items()} | extra, path)
    return path


def assert_same(actual: dict[str, np.ndarray]) -> None:
    expected = tiny_state()
    assert set(actual) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(actual[name], array, strict=True)


def test_file_there_and_back(pth: Path, tmp_path: Path) -> None:
    there, back = tmp_path / "new" / "vocals.safetensors", tmp_path / "back.pth"
    assert convert(pth, there) == [there]
    assert_same(load_safetensors(there))
    assert load_safetensors_config(there)[0] == TINY
    assert convert(str(there), str(back)) == [back]
    assert_same(load_torch(back))


def test_checkpoint(tmp_path: Path) -> None:
    # A legacy file under the name of a checkpoint; the content decides.
    source = tmp_path / "vocals.chkpnt"
    save_torch(tiny_state(), source, legacy=True)
    convert(source, tmp_path / "vocals.pt")
    assert_same(load_torch(tmp_path / "vocals.pt"))


def test_dtypes(pth: Path, tmp_path: Path) -> None:
    half, single = tmp_path / "half.safetensors", tmp_path / "single.pth"
    convert(pth, half, dtype="float16")
    assert half.stat().st_size < 0.8 * pth.stat().st_size
    assert load_safetensors(half)["fc1.weight"].dtype == np.float16
    convert(half, single, dtype=np.float32)
    assert load_torch(single)["fc1.weight"].dtype == np.float32
    convert(half, single, overwrite=True)
    assert load_torch(single)["fc1.weight"].dtype == np.float16
    with pytest.raises(ConfigError, match="dtype='int8' is for safetensors only"):
        convert(pth, tmp_path / "x.pth", dtype="int8")
    with pytest.raises(ConfigError, match="dtype='int4' must be 'int8', 'float16'"):
        convert(pth, tmp_path / "x.safetensors", dtype="int4")


def test_eight_bits_and_back(pth: Path, tmp_path: Path) -> None:
    plain, small, back = (tmp_path / name for name in ("a.pth", "b.safetensors", "c.pth"))
    convert(pth, plain)
    convert(plain, small, dtype="int8")
    convert(small, back)
    before, after = (load_torch(path)["fc1.weight"] for path in (plain, back))
    assert after.dtype == np.float32
    np.testing.assert_allclose(after, before, rtol=0, atol=1.001 * np.abs(before).max() / 254)


def test_existing_files_are_kept(pth: Path, tmp_path: Path) -> None:
    target = tmp_path / "x.safetensors"
    target.write_text("mine")
    with pytest.raises(ConfigError, match="exists; use overwrite=True"):
        convert(pth, target)
    assert target.read_text() == "mine"
    convert(pth, target, overwrite=True)
    assert_same(load_safetensors(target))
    with pytest.raises(ConfigError, match="are the same"):
        convert(pth, pth, overwrite=True)


@pytest.mark.parametrize(
    ("destination", "options", "message"),
    [
        ("x.npz", {}, "must end in"),
        ("x", {}, "must end in"),
        ("x.pth", {"format": "safetensors"}, "contradicts the suffix"),
        ("x.pth", {"format": "zip"}, "format='zip'"),
        ("folder.pth", {}, "is a folder"),
    ],
)
def test_bad_destinations(
    pth: Path, tmp_path: Path, destination: str, options: dict, message: str
) -> None:
    (tmp_path / "folder.pth").mkdir()
    with pytest.raises(ConfigError, match=message):
        convert(pth, tmp_path / destination, **options)


def test_bad_sources(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        convert(tmp_path / "no.pth", tmp_path / "x.pth")
    text = tmp_path / "x.txt"
    text.touch()
    with pytest.raises(ConfigError, match="must end in"):
        convert(text, tmp_path / "x.pth")
    other = tmp_path / "other.pth"
    save_torch({"weight": np.zeros(2)}, other)
    with pytest.raises(WeightsError, match=r"other\.pth.*no|other\.pth.*missing"):
        convert(other, tmp_path / "x.pth")
    assert not (tmp_path / "x.pth").exists()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    weights = TargetWeights(TINY, tiny_state())
    bundle = ModelBundle("m", {"vocals": weights, "kazoo": weights}, 8000.0, 8, 2, 2, "CC0")
    history = {"vocals": {"best_loss": 0.25, "args": {"lr": 0.001}}}
    save_folder(bundle, path, descriptions=history)
    return path


def test_folder_there_and_back(folder: Path, tmp_path: Path) -> None:
    there, back = tmp_path / "there", tmp_path / "back"
    written = convert(folder, there, dtype="float16")
    assert sorted(path.name for path in written) == [
        "kazoo.json", "kazoo.safetensors", "separator.json", "vocals.json", "vocals.safetensors",
    ]  # fmt: skip
    document = json.loads((there / "vocals.json").read_text())
    assert document["best_loss"] == 0.25
    assert document["args"]["lr"] == 0.001
    bundle = load_folder(there)
    assert list(bundle.targets) == ["vocals", "kazoo"]
    assert (bundle.license, bundle.n_hop) == ("CC0", 2)
    convert(there, back, format="pth", dtype="float32")
    np.testing.assert_allclose(
        load_torch(back / "vocals.pth")["fc1.weight"], tiny_state()["fc1.weight"], rtol=2**-11
    )


def test_folder_onto_others(folder: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    convert(folder, there)
    with pytest.raises(ConfigError, match="already holds"):
        convert(folder, there)
    convert(folder, there, overwrite=True)
    with pytest.raises(ConfigError, match="is a file"):
        convert(folder, there / "vocals.json")
    with pytest.raises(ConfigError, match="are the same"):
        convert(folder, folder)
    with pytest.raises(ModelNotFoundError):
        convert(tmp_path / "nothing", there)
