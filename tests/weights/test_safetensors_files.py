"""Weights as safetensors files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from helpers.torch_bytes import TINY, tiny_state

from umx_np.config import ModelConfig
from umx_np.errors import ConfigError, WeightsError
from umx_np.weights import load_safetensors, load_safetensors_config, save_safetensors


def test_round_trip_with_configuration(tmp_path: Path) -> None:
    state = tiny_state()
    state["fc1.weight"] = np.asfortranarray(state["fc1.weight"])
    state["input_mean"] = state["input_mean"].astype(">f4")
    path = tmp_path / "x.safetensors"
    save_safetensors(state, path, TINY, {"target": "vocals", "a": "b"})
    loaded = load_safetensors(path)
    assert set(loaded) == set(state)
    for name, array in state.items():
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].dtype == array.dtype.newbyteorder("=")
        assert loaded[name].flags.writeable
    assert load_safetensors_config(path) == (TINY, {"target": "vocals", "a": "b"})


def test_bytes_are_deterministic(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.safetensors" for index in range(4)]
    for path in paths:
        save_safetensors(tiny_state(), path, TINY, {str(index): "x" for index in range(9)})
    assert len({path.read_bytes() for path in paths}) == 1


def test_without_configuration(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_safetensors({"x": np.zeros(2)}, path)
    assert load_safetensors_config(path) == (None, {})


def test_float16(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    state = tiny_state()
    save_safetensors(state, path, TINY, dtype="float16")
    loaded = load_safetensors(path)
    assert loaded["fc1.weight"].dtype == np.float16
    assert loaded["bn1.num_batches_tracked"].dtype == np.int64
    np.testing.assert_allclose(loaded["fc1.weight"], state["fc1.weight"], rtol=2**-11)
    with pytest.raises(WeightsError, match="'x' holds numbers too large for dtype=float16"):
        save_safetensors({"x": np.array([7e4])}, path, dtype="float16")
    for dtype in ("int16", "nonsense", "complex64"):
        with pytest.raises(ConfigError, match=f"dtype='{dtype}'"):
            save_safetensors(state, path, dtype=dtype)


def test_int8(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    state = tiny_state()
    save_safetensors(state, path, TINY, dtype="int8")
    loaded = load_safetensors(path)
    assert set(loaded) == set(state)
    for name, array in state.items():
        assert loaded[name].dtype == array.dtype
        assert loaded[name].shape == array.shape
        if array.ndim == 2:
            bound = np.abs(array).max(axis=1, keepdims=True) / 254
            assert (np.abs(loaded[name] - array) <= 1.001 * bound).all()
            assert (loaded[name] != array).any()
        else:
            np.testing.assert_array_equal(loaded[name], array)
    # What is stored is not changed by storing it once more.
    save_safetensors(loaded, tmp_path / "again.safetensors", TINY, dtype="int8")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_int8_that_are_just_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    state = {"a": np.array([[1, -2]], np.int8), "b_scale": np.ones(1, np.float32)}
    save_safetensors(state, path)
    loaded = load_safetensors(path)
    assert set(loaded) == set(state)
    for name, array in state.items():
        np.testing.assert_array_equal(loaded[name], array, strict=True)


def test_scales_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for scale in (np.ones(3, np.float32), np.ones((2, 2), np.float32), np.ones(2, np.int64)):
        save_safetensors({"a": np.ones((2, 2), np.int8), "a_scale": scale}, path)
        with pytest.raises(WeightsError, match=r"'a_scale' with dtype=.* the file is damaged"):
            load_safetensors(path)


def test_unusable_dtype(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot hold"):
        save_safetensors({"x": np.array(["a"])}, tmp_path / "x.safetensors")
    assert list(tmp_path.iterdir()) == []


def raw_file(header: object, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def test_bfloat16_becomes_float32(tmp_path: Path) -> None:
    values = np.array([1.0, -2.5], np.float32)
    body = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw_file({"x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}, body))
    np.testing.assert_array_equal(load_safetensors(path)["x"], values, strict=True)


def test_dtype_that_numpy_lacks(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    entry = {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}
    path.write_bytes(raw_file({"x": entry}, b"ab"))
    with pytest.raises(WeightsError, match="dtype='F8_E4M3'"):
        load_safetensors(path)


def test_truncation(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_safetensors(tiny_state(), path, TINY)
    data = path.read_bytes()
    for length in range(0, len(data), 97):
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError):
            load_safetensors(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is truncated"),
        (bytes(8), "no valid JSON"),
        (b"\xff" * 20, "no safetensors file or is truncated"),
        (raw_file([1]), "holds a list"),
        (b"\x02" + bytes(7) + b"{{", "no valid JSON"),
        (raw_file({"__metadata__": {"umx_np": "{"}}), "no valid JSON"),
        (raw_file({"__metadata__": {"umx_np": "[]"}}), "holds a list"),
        (raw_file({"__metadata__": {"umx_np": '{"version": 2}'}}), "version=2"),
        (
            raw_file({"__metadata__": {"umx_np": '{"version": 1, "config": {"nb_bins": 0}}'}}),
            "damaged configuration",
        ),
        (
            raw_file({"__metadata__": {"umx_np": '{"version": 1, "config": {"x": 0}}'}}),
            "damaged configuration",
        ),
        (
            raw_file({"__metadata__": {"umx_np": '{"version": 1, "metadata": 3}'}}),
            "damaged metadata",
        ),
    ],
)
def test_damaged_metadata(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=message):
        load_safetensors_config(path)


def test_metadata_of_others(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw_file({"__metadata__": {"format": "pt"}}))
    assert load_safetensors_config(path) == (None, {})


def test_missing_file(tmp_path: Path) -> None:
    for function in (load_safetensors, load_safetensors_config):
        with pytest.raises(WeightsError, match="cannot be read"):
            function(tmp_path / "none.safetensors")


def test_deeply_nested_header(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    text = b'{"__metadata__":' + b"[" * 100_000
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    for function in (load_safetensors, load_safetensors_config):
        with pytest.raises(WeightsError):
            function(path)


def test_default_configuration_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    config = ModelConfig()
    save_safetensors({}, path, config)
    assert load_safetensors_config(path)[0] == config
