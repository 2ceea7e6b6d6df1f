"""Weight files, model JSON and checkpoints made to cost time or memory, each found once."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import torch_bytes as tb

from umx_np.config import ModelConfig, SeparatorConfig
from umx_np.errors import (
    ConfigError,
    ModelNotFoundError,
    TrainingError,
    UmxError,
    WeightsError,
    shortened,
)
from umx_np.testing import random_state
from umx_np.training.checkpoint import read_checkpoint, write_checkpoint
from umx_np.weights import (
    convert,
    load_folder,
    load_safetensors,
    load_safetensors_config,
    load_torch,
    save_safetensors,
    save_torch,
)
from umx_np.weights.finding import strip_wrappers


def _id(value: object) -> str:
    return shortened(value, 30)


def refused(
    function: Callable[[Path], object],
    path: Path,
    error: type[UmxError] = WeightsError,
    # Twice what is promised, for machines slower than those the promise is for.
    seconds: float = 2.0,
) -> str:
    """Return the message with which a file is refused, which must be short and come soon."""
    begin = time.process_time()
    with pytest.raises(error) as caught:
        function(path)
    assert time.process_time() - begin < seconds
    message = str(caught.value)
    assert len(message.replace(str(path), "")) < 500
    assert message.isprintable()
    return message


# Pickles


def test_protocol_that_is_a_tuple_shared_level_by_level(tmp_path: Path) -> None:
    # A hundred bytes that as text are 2**40 brackets.
    nested = tb.PROTOCOL + b")" + b"\x94h\x00\x86q\x00" * 40 + b"."
    path = tmp_path / "x.pth"
    path.write_bytes(tb.legacy_file(tb.state_pickle(), {}, version=nested))
    assert "protocol=((" in refused(load_torch, path)


@pytest.mark.parametrize("layout", ["zip", "legacy"])
@pytest.mark.parametrize(
    "broken",
    [
        {"shape": (1,) * 17, "strides": (1,) * 17},
        {"shape": ((1 << 62),) * 16, "strides": (1,) * 16},
        {"shape": (7,), "strides": (1 << 62,)},
        {"shape": (6, 6), "strides": (0, 0)},
        {"offset": -1},
    ],
    ids=_id,
)
def test_long_keys_of_storages(tmp_path: Path, layout: str, broken: dict) -> None:
    stored = tb.storage(key="\x1b" * 1_000_000, legacy=layout == "legacy")
    pickle = tb.state_pickle(x=tb.tensor(stored, **broken))
    path = tmp_path / "x.pth"
    path.write_bytes(tb.legacy_file(pickle, {}) if layout == "legacy" else tb.zip_file(pickle, {}))
    refused(load_torch, path)


def test_text_is_made_for_wrong_tensors_only(tmp_path: Path) -> None:
    # A key of a megabyte, which 5,000 tensors share.
    stored = tb.storage(key="k" * 1_000_000) + b"q\x01"
    call = b"ctorch._utils\n_rebuild_tensor\nq\x02"
    arguments = b"(h\x01" + tb.number(0) + tb.numbers((1,)) + tb.numbers((1,)) + b"tq\x03"
    body = stored + b"0" + call + b"0" + arguments + b"0" + b"h\x02h\x03R0" * 5000 + b"N."
    path = tmp_path / "x.pth"
    path.write_bytes(tb.zip_file(tb.PROTOCOL + body, {}))
    assert "NoneType instead of a state dict" in refused(load_torch, path)


@pytest.mark.parametrize("call", [b"h\x00Q0", b"h\x02h\x03R0"])
def test_calls_are_bounded(tmp_path: Path, call: bytes) -> None:
    stored = tb.storage()
    function = b"ctorch._utils\n_rebuild_tensor\nq\x020"
    arguments = b"(" + stored + tb.number(0) + tb.numbers((1,)) + tb.numbers((1,)) + b"tq\x030"
    body = stored[:-1] + b"q\x000" + function + arguments + call * 60_000 + b"N."
    path = tmp_path / "x.pth"
    path.write_bytes(tb.zip_file(tb.PROTOCOL + body, {}))
    assert "makes too many tensors" in refused(load_torch, path)


@pytest.mark.parametrize("unit", [b")\x85", b"}K\x01K\x01s", b"]Na", b"}\x94", b"K\x010"])
@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_a_pickle_of_many_instructions(tmp_path: Path, layout: str, unit: bytes) -> None:
    content = tb.PROTOCOL + unit * (4_000_000 // len(unit)) + b"."
    path = tmp_path / "x.pth"
    path.write_bytes(
        tb.legacy_file(content, {}) if layout == "legacy" else tb.zip_file(content, {})
    )
    refused(load_torch, path)


def test_prefixes_without_an_end(tmp_path: Path) -> None:
    name = "module." * 1_000_000
    path = tmp_path / "x.pth"
    path.write_bytes(tb.zip_file(tb.state_pickle(**{name: tb.tensor(tb.storage())}), {"0": b""}))
    assert "too long a name" in refused(load_torch, path)
    begin = time.process_time()
    assert list(strip_wrappers({name + "x": np.zeros(1)})) == ["x"]
    assert time.process_time() - begin < 1


# Archives


def entries(count: int, announced: int | None = None, name: bytes = b"a/data.pkl") -> bytes:
    """Make an archive of nothing but a directory with so many entries."""
    record = struct.pack("<4s6H3L5H2L", b"PK\x01\x02", *[0] * 9, len(name), *[0] * 6) + name
    directory = record * count
    shown = min(count if announced is None else announced, 0xFFFF)
    head = b"PK\x03\x04" + bytes(60)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, shown, shown, len(directory), len(head), 0)
    return head + directory + end


@pytest.mark.parametrize("announced", [None, 1, 0])
def test_a_directory_of_a_million_entries(tmp_path: Path, announced: int | None) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(entries(1_000_000, announced))
    refused(load_torch, path)


def test_more_entries_than_announced_and_fewer(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    good = tb.zip_file(tb.state_pickle(), {})
    changed = bytearray(good)
    place = good.rindex(b"PK\x05\x06")
    for difference in (-1, 1):
        count = struct.unpack_from("<H", good, place + 10)[0] + difference
        struct.pack_into("<HH", changed, place + 8, count, count)
        path.write_bytes(changed)
        refused(load_torch, path)


def test_an_archive_of_64_bits(tmp_path: Path) -> None:
    """Torch writes the records of 64 bits whatever the size."""
    good = tb.zip_file(tb.state_pickle(x=tb.tensor(tb.storage())), {"0": bytes(24)})
    place = good.rindex(b"PK\x05\x06")
    _, _, _, count, _, length, begin, _ = struct.unpack_from("<4s4H2LH", good, place)
    wide = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, length, begin)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, place, 1)
    narrow = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path = tmp_path / "x.pth"
    path.write_bytes(good[:place] + wide + locator + narrow)
    np.testing.assert_array_equal(load_torch(path)["x"], np.zeros((2, 3)))
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == count


# Memory


def peak_bytes(function: Callable[[Path], object], path: Path) -> int:
    """Return the most memory that is held while a file is loaded, its result included."""
    tracemalloc.start()
    try:
        with contextlib.suppress(UmxError):
            function(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files with the weights of a network of umxhq's size, 36 MB."""
    folder = tmp_path_factory.mktemp("large")
    config = ModelConfig(nb_bins=2049, max_bin=1487)
    state = random_state(config, 0)
    paths = {name: folder / f"x{name}" for name in (".pth", ".legacy.pth", ".safetensors")}
    save_torch(state, paths[".pth"])
    save_torch(state, paths[".legacy.pth"], legacy=True)
    save_safetensors(state, paths[".safetensors"], config)
    # One storage of which every tensor is a part: the result, and one copy beside it.
    paths[".slices.pth"] = folder / "x.slices.pth"
    total = 9_000_000
    stored = tb.storage(total=total) + b"q\x00"
    parts = {
        f"x{index}": tb.tensor(
            stored if index == 0 else b"h\x00",
            offset=index * 1_000_000,
            shape=(1_000_000,),
            strides=(1,),
        )
        for index in range(9)
    }
    paths[".slices.pth"].write_bytes(tb.zip_file(tb.state_pickle(**parts), {"0": bytes(4 * total)}))
    return paths


@pytest.mark.parametrize(
    ("kind", "copies"), [(".pth", 1), (".legacy.pth", 1), (".safetensors", 1), (".slices.pth", 2)]
)
def test_weights_are_held_once(large: dict[str, Path], kind: str, copies: int) -> None:
    size = large[kind].stat().st_size
    function = load_safetensors if kind == ".safetensors" else load_torch
    assert peak_bytes(function, large[kind]) < copies * size + (14 << 20)


def test_tensors_that_share_a_large_storage(tmp_path: Path) -> None:
    total = 8_000_000
    stored = tb.storage(total=total) + b"q\x00"
    parts = {
        f"x{index}": tb.tensor(stored if index == 0 else b"h\x00", shape=(total,), strides=(1,))
        for index in range(15)
    }
    path = tmp_path / "x.pth"
    path.write_bytes(tb.zip_file(tb.state_pickle(**parts), {"0": bytes(4 * total)}))
    assert "share their storages so often" in refused(load_torch, path)
    assert peak_bytes(load_torch, path) < 10 << 20


# Safetensors


def with_header(header: object, numbers: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + numbers


def described(shape: object, end: object, dtype: object = "F32", begin: object = 0) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


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
    ids=_id,
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
    ids=_id,
)
def test_configurations_in_metadata(tmp_path: Path, config: object) -> None:
    text = json.dumps({"version": 1, "config": config})
    path = tmp_path / "x.safetensors"
    path.write_bytes(with_header({"__metadata__": {"umx_np": text}}))
    assert "damaged configuration" in refused(load_safetensors_config, path)


# JSON of a model folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    save_safetensors(tb.tiny_state(), path / "vocals.safetensors", tb.TINY)
    settings = {"nfft": 8, "nhop": 4, "sample_rate": 44100.0, "nb_channels": 2}
    (path / "separator.json").write_text(json.dumps(settings))
    return path


_DEEP: list = []
for _ in range(500):
    _DEEP = [_DEEP]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("sample_rate", v) for v in (0, -1, 0.001, 999.9, 1e8, 768_000.5, 1e400, -1e400)],
        *[("sample_rate", v) for v in (float("nan"), 10**400, True, "44100", None, _DEEP, {})],
        *[("nfft", v) for v in (0, 1, 9.0, 1 << 20, 10**400, 1e400, "8", _DEEP)],
        *[("nhop", v) for v in (0, -4, 9, 1 << 40, 4.0, True, _DEEP)],
        *[("nb_channels", v) for v in (0, 65, 1 << 40, float("nan"), "\x1b[31m" * 1000)],
        *[("license", v) for v in ("x" * 10_000, "MIT\x1b[31m", "MIT\nmore")],
    ],
    ids=_id,
)
def test_settings_are_bounded_and_named(folder: Path, name: str, value: object) -> None:
    path = folder / "separator.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))
    assert f"{name}=" in refused(load_folder, folder)


@pytest.mark.parametrize(
    "text",
    [
        '{"nfft": 8, "nfft": 8}',
        "[" * 100_000,
        '{"a":' * 100_000,
        "[" + "[]," * 200_000 + "0]",
        '{"a": ' + "1" * 5000 + "}",
        '{"a": "' + " " * 9_000_000 + '"}',
        "[1]",
        '"text"',
        "\x00",
        "\ud800",
    ],
    ids=_id,
)
@pytest.mark.parametrize("name", ["separator.json", "vocals.json"])
def test_json_that_is_none(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, "utf-8", "surrogatepass")
    refused(load_folder, folder)


def test_descriptions_that_contradict_at_length(folder: Path) -> None:
    for value in ("x" * 100_000, _DEEP, list(range(10_000)), 10**4000):
        arguments = {"nb_channels": value, "hidden_size": value}
        (folder / "vocals.json").write_text(json.dumps({"args": arguments}))
        assert "nb_channels=" in refused(load_folder, folder)
        (folder / "separator.json").unlink()
        (folder / "vocals.json").write_text(json.dumps({"args": {"nfft": 8, "nhop": value}}))
        refused(load_folder, folder)
        (folder / "separator.json").write_text("{}")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sample_rate", 0.001), ("sample_rate", 1e8), ("sample_rate", float("nan")),
        ("sample_rate", "44100"), ("n_fft", 1 << 20), ("n_hop", 5000), ("n_hop", 1),
        ("nb_channels", 65),
    ],
    ids=_id,
)  # fmt: skip
def test_a_separator_is_bounded(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name}="):
        SeparatorConfig(**{name: value})


@pytest.mark.parametrize("rate", [1000.0, 8000, 44100.0, 192_000, 768_000.0, np.float32(48000)])
def test_rates_in_use_are_accepted(rate: float) -> None:
    assert SeparatorConfig(sample_rate=rate).sample_rate == float(rate)


# Checkpoints


def checkpoint(document: object) -> bytes:
    text = document if isinstance(document, str) else json.dumps(document)
    inner = json.dumps({"version": 1, "metadata": {"checkpoint": text}})
    return with_header({"__metadata__": {"umx_np": inner}, "a": described([1], 4)}, b"abcd")


@pytest.mark.parametrize(
    "document",
    [
        {"version": _DEEP, "content": {}},
        {"version": 10**4000, "content": {}},
        {"version": "x" * 100_000, "content": {}},
        {"version": 1},
        {"version": 1, "content": []},
        {"version": 1, "content": {"a": {"$tensor": "b" * 10_000}}},
        {"version": 1, "content": {"a": {"$tensor": ["a"]}}},
        # One array in two places would be changed in both.
        {"version": 1, "content": {"a": {"$tensor": "a"}, "b": {"$tensor": "a"}}},
        # An array that nothing refers to was lost.
        {"version": 1, "content": {}},
        '{"version": 1, "content": ' + '{"a":' * 3000 + "1" + "}" * 3001,
        '{"version": 1, "content": ' + "[" * 990 + "]" * 990 + "}",
        "[" * 100_000,
        "text",
    ],
    ids=_id,
)
def test_documents_of_checkpoints(tmp_path: Path, document: object) -> None:
    path = tmp_path / "x.chkpnt"
    path.write_bytes(checkpoint(document))
    refused(read_checkpoint, path, error=TrainingError)


def test_the_tree_of_a_checkpoint_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.chkpnt"
    write_checkpoint(path, {"a": np.zeros(1), "b": [np.ones(1)]})
    assert read_checkpoint(path) == {"a": np.zeros(1), "b": [np.ones(1)]}


# What is no file

_READERS = [load_torch, load_safetensors, load_safetensors_config]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes of that kind")
def test_pipes_devices_and_sockets(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for function in _READERS:
        assert "it is a pipe, not a file" in refused(function, pipe)
        assert "it is a device, not a file" in refused(function, Path("/dev/zero"))
        assert "it is a folder, not a file" in refused(function, tmp_path)
    assert "it is a pipe" in refused(read_checkpoint, pipe, error=TrainingError)
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the path of a socket is short
        server.bind("s")
        assert "it is a socket, not a file" in refused(load_torch, Path("s"))
    for name in ("separator.json", "vocals.json", "vocals.safetensors"):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)
        assert "it is a pipe" in refused(load_folder, folder)
        (folder / name).unlink()
        if name == "separator.json":
            (folder / name).symlink_to("/dev/zero")
            assert "it is a device" in refused(load_folder, folder)
        (folder / name).unlink(missing_ok=True)
        if name == "vocals.json":
            save_safetensors(tb.tiny_state(), folder / "vocals.safetensors", tb.TINY)


def test_links_to_nothing_and_names_that_are_none(tmp_path: Path, folder: Path) -> None:
    link = tmp_path / "link.pth"
    link.symlink_to("gone")
    assert "a link to 'gone', which does not exist" in refused(load_torch, link)
    assert "a link to 'gone'" in refused(
        lambda path: convert(path, tmp_path / "y.safetensors"), link, error=ModelNotFoundError
    )
    loop = tmp_path / "loop.pth"
    loop.symlink_to(loop)
    refused(load_torch, loop)
    with pytest.raises(WeightsError, match="null character"):
        load_torch("a\0b")
    (folder / "separator.json").unlink()
    (folder / "separator.json").symlink_to("gone")
    assert "separator.json' cannot be read: it is a link to 'gone'" in refused(load_folder, folder)


def test_an_address_keeps_its_slashes(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"src='https://a\.org/x\.pth' .* download"):
        convert("https://a.org/x.pth", tmp_path / "y.safetensors")


# Values in messages


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "'plain'"),
        ("it's", '"it\'s"'),
        (None, "None"),
        (True, "True"),
        (1.5, "1.5"),
        (np.float32(1.5), "1.5"),
        (np.int64(3), "3"),
        (10**5000, "<integer of 16610 bits>"),
        ([], "[]"),
        ((1,), "(1,)"),
        ({"a": [1, {"b": 2}]}, "{'a': [1, {...}]}"),
        (set(), "set()"),
        (Path("a"), "'a'"),
        (int, "<class 'int'>"),
        (object(), "<object>"),
        ("\x1b[31m\u202e\ud800", "'\\x1b[31m\\u202e\\ud800'"),
        (list(range(9)), "[0, 1, 2, 3, 4, 5, ...]"),
    ],
    ids=_id,
)
def test_values_are_shown_as_python_writes_them(value: object, shown: str) -> None:
    assert shortened(value) == shown


def test_any_value_is_shown_at_once() -> None:
    shared: tuple = ()
    for _ in range(1000):
        shared = (shared, shared)
    own: list = []
    own.append(own)
    values = [
        shared, own, _DEEP, "x" * 10**7, b"\0" * 10**7, list(range(10**6)), {own_: own_ for own_ in
        range(10**5)}, ["\x1b" * 1000] * 1000, "\U000e0001" * 1000, -(10**100_000),
    ]  # fmt: skip
    begin = time.process_time()
    for value in values:
        for limit in (10, 20, 100, 300):
            text = shortened(value, limit)
            assert len(text) <= max(limit, 30)
            assert text.isprintable()
    assert time.process_time() - begin < 0.5
