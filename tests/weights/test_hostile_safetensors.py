"""Safetensors files made to cost time or memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.refusing import described, refused, short_id, with_header

from umx_np.weights import (
    load_safetensors,
    load_safetensors_config,
)


@pytest.mark.parametrize(
    "header",
    [
        {f"x{i}": described([0], 0) for i in range(30_000)},
        {"x" * 10_000: described([1], 4)},
        {"x": described([1 << 31, 1 << 31, 4], 0)},
        {"x": described([1 << 62, 4], 0)},
        {"x": described([0, 1 << 63, 1 << 63], 0)},
        {"x": described([1] * 1000, 4)},
        {"x": described([-1], -4)},
        {"x": described([True], 4)},
        {"x": described([1.0], 4)},
        {"x": described([10**4000], 4 * 10**4000)},
        {"x": described([1], 8, begin=4)},
        {"x": described([1], 4), "y": described([1], 4)},
        {"x": described([[1]], 4)},
        {"x": described([1], 4, dtype=["F32"])},
        {"x": described([1], 4, dtype="F32" * 10_000)},
        {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}},
        {"x": []},
        {"x": None},
        b'{"x": ' + b"[" * 100_000,
        b'{"x": [' + b"[]," * 1_000_000 + b"0]}",
        b'{"x": 1, "x": 2}',
        b'{"x": ' + b"1" * 100_000 + b"}",
        b'{"x": "' + b" " * 9_000_000 + b'"}',
    ],
    ids=short_id,
)
def test_headers_of_safetensors(tmp_path: Path, header: object) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(with_header(header, b"abcd"))
    refused(load_safetensors, path)


def test_a_length_of_the_header_that_is_all_ones(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for length in (b"\xff" * 8, (1 << 40).to_bytes(8, "little"), (95 << 20).to_bytes(8, "little")):
        path.write_bytes(length + b"{}")
        refused(load_safetensors, path)
    # As long as the library allows, and there.
    with open(path, "wb") as file:
        file.write((95 << 20).to_bytes(8, "little"))
        file.truncate(96 << 20)
    for function in (load_safetensors, load_safetensors_config):
        assert "header of 99614720 bytes" in refused(function, path)


@pytest.mark.parametrize(
    "config",
    [
        {"nb_layers": 10**9},
        {"nb_layers": 10**400},
        {"hidden_size": 1 << 40},
        {"nb_bins": 1e400},
        {"nb_channels": [[[[[[[[0]]]]]]]]},
        {"x" * 10_000: 1},
        {"unidirectional": 1, "hidden_size": float("nan")},
        [1],
        "text",
        10**400,
    ],
    ids=short_id,
)
def test_configurations_in_metadata(tmp_path: Path, config: object) -> None:
    text = json.dumps({"version": 1, "config": config})
    path = tmp_path / "x.safetensors"
    path.write_bytes(with_header({"__metadata__": {"umx_np": text}}))
    assert "damaged configuration" in refused(load_safetensors_config, path)
