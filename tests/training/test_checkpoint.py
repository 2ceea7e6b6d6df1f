"""The checkpoint file: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest

from umx_np.training.checkpoint import (
    TrainingError,
    checkpoint_path,
    find_checkpoint,
    is_torch_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from umx_np.weights import save_safetensors, save_torch

TREE = {
    "arrays": {
        "float32": np.linspace(-1.0, 1.0, 7, dtype=np.float32).reshape(7, 1),
        "int64": np.array(2**62, np.int64),
        "float64": np.array([np.pi, -0.0, 5e-324]),
    },
    "numbers": [1 / 3, 0.1 + 0.2, 1e308, math.inf, -math.inf, 2**100, True, None, "text"],
    "numpy": [np.float64(1 / 3), np.int64(7)],
    "tuple": (1, 2),
    "empty": {},
}


def test_round_trip_is_exact(tmp_path):
    path = tmp_path / "x.chkpnt"
    write_checkpoint(path, TREE)
    tree = read_checkpoint(path)
    for name, array in TREE["arrays"].items():
        assert tree["arrays"][name].dtype == array.dtype
        assert tree["arrays"][name].tobytes() == array.tobytes()
    assert tree["numbers"] == TREE["numbers"]
    assert tree["numpy"] == [1 / 3, 7]
    assert (tree["tuple"], tree["empty"]) == ([1, 2], {})


def test_not_a_number_survives(tmp_path):
    write_checkpoint(tmp_path / "x", {"history": [math.nan, 1.0]})
    assert math.isnan(read_checkpoint(tmp_path / "x")["history"][0])


@pytest.mark.parametrize("value", [object(), {1: 2}, lambda: None])
def test_unknown_things_are_refused(tmp_path, value):
    with pytest.raises(TypeError):
        write_checkpoint(tmp_path / "x", {"value": value})
    assert not list(tmp_path.iterdir())


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x.chkpnt"
    contents = {
        "pickle": pickle.dumps({"content": 1}),
        "text": b"no checkpoint at all",
        "nothing": b"",
        "half": None,
    }
    write_checkpoint(path, TREE)
    contents["half"] = path.read_bytes()[:-5]
    for content in contents.values():
        path.write_bytes(content)
        with pytest.raises(TrainingError, match="is no checkpoint"):
            read_checkpoint(path)
    save_safetensors({"a": np.zeros(3)}, path)
    with pytest.raises(TrainingError, match="is no checkpoint"):
        read_checkpoint(path)
    with pytest.raises(TrainingError, match="is no checkpoint"):
        read_checkpoint(tmp_path / "absent")


def test_later_versions_are_refused(tmp_path):
    path = tmp_path / "x.chkpnt"
    metadata = {"checkpoint": '{"version": 99, "content": {}}'}
    save_safetensors({"a": np.zeros(3)}, path, metadata=metadata)
    with pytest.raises(TrainingError, match=r"version=99.*model=\.\.\."):
        read_checkpoint(path)


def test_a_write_that_fails_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "x.chkpnt"
    write_checkpoint(path, {"n": 1})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TrainingError, match=r"No space left.*still there"):
        write_checkpoint(path, {"n": 2})
    monkeypatch.undo()
    assert read_checkpoint(path) == {"n": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.chkpnt"]


def test_finding(tmp_path):
    with pytest.raises(TrainingError, match="holds no checkpoint"):
        find_checkpoint(tmp_path)
    with pytest.raises(TrainingError, match="holds no checkpoint"):
        find_checkpoint(tmp_path / "absent", "vocals")
    write_checkpoint(checkpoint_path(tmp_path, "vocals"), {})
    assert find_checkpoint(tmp_path) == (tmp_path / "vocals.chkpnt", "vocals")
    with pytest.raises(TrainingError, match="target='bass'; there is vocals"):
        find_checkpoint(tmp_path, "bass")


def test_told_from_torch_files(tmp_path):
    """Whatever the length of its header, with which a file begins."""
    path = tmp_path / "x.chkpnt"
    starts = set()
    for length in range(0, 400, 3):
        write_checkpoint(path, {"text": "x" * length})
        starts.add(path.read_bytes()[:1])
        assert not is_torch_checkpoint(path)
    assert b"\x80" in starts
    for legacy in (False, True):
        save_torch({"a": np.zeros(3)}, path, legacy=legacy)
        assert is_torch_checkpoint(path)
    with pytest.raises(TrainingError, match="cannot be read"):
        is_torch_checkpoint(tmp_path / "absent")
