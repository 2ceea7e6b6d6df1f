"""Torch files as this package writes them."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from umx_np._support.atomic import atomic_write
from umx_np.errors import WeightsError
from umx_np.weights import load_torch, save_torch

STATE = {
    "matrix": np.arange(12, dtype=np.float32).reshape(3, 4),
    "transposed": np.arange(12, dtype=np.float64).reshape(3, 4).T,
    "reversed": np.arange(5, dtype=np.float16)[::-1],
    "big endian": np.arange(5, dtype=">f4"),
    "scalar": np.array(7),
    "empty": np.zeros((0, 3), np.float32),
    "bool": np.array([True, False]),
    "int8": np.arange(-3, 3, dtype=np.int8),
    "complex": np.array([1 + 2j, 3], np.complex64),
}


@pytest.mark.parametrize("legacy", [False, True])
def test_round_trip(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "x.pth"
    save_torch(STATE, path, legacy=legacy)
    state = load_torch(path)
    assert list(state) == list(STATE)
    for name, array in STATE.items():
        native = array.astype(array.dtype.newbyteorder("="))
        np.testing.assert_array_equal(state[name], native, strict=True)


@pytest.mark.parametrize("legacy", [False, True])
def test_bytes_are_deterministic(tmp_path: Path, legacy: bool) -> None:
    paths = [tmp_path / name for name in ("a.pth", "b.pth")]
    for path in paths:
        save_torch(STATE, path, legacy=legacy)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_storages_are_aligned(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    save_torch(STATE, path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        for info in archive.infolist():
            extra = int.from_bytes(
                data[info.header_offset + 28 : info.header_offset + 30], "little"
            )
            assert (info.header_offset + 30 + len(info.filename) + extra) % 64 == 0


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"x": np.zeros(2, np.uint16)}, "'x' has dtype=uint16"),
        ({"x": np.array(["a"])}, "dtype=<U1"),
        ({"x": np.array([None])}, "dtype=object"),
        ({3: np.zeros(2)}, "name=3"),
    ],
)
def test_unusable_states(tmp_path: Path, state: dict, message: str) -> None:
    path = tmp_path / "x.pth"
    with pytest.raises(WeightsError, match=message):
        save_torch(state, path)
    assert list(tmp_path.iterdir()) == []


def test_failure_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.pth"
    save_torch({"x": np.zeros(2, np.float32)}, path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        save_torch(STATE, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_follows_links_and_the_umask(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_bytes(b"old")
    link = tmp_path / "link"
    try:
        link.symlink_to(real)
    except OSError:
        pytest.skip("needs symbolic links")
    with atomic_write(link) as file:
        file.write(b"new")
        assert real.read_bytes() == b"old"
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    if os.name == "posix":
        plain = tmp_path / "plain"
        plain.touch()
        assert real.stat().st_mode == plain.stat().st_mode


def test_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        save_torch(STATE, tmp_path / "no" / "x.pth")
