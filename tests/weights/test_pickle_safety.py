"""No file can make the reader run anything or use up the machine."""

from __future__ import annotations

import builtins
import os
import pickle
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import torch_bytes as tb

from umx_np.errors import WeightsError
from umx_np.weights import _pickle, load_torch
from umx_np.weights._pickle import Constructor, read_pickle

LAYOUTS = ["zip", "legacy"]


def write(tmp_path: Path, content: bytes, layout: str) -> Path:
    path = tmp_path / "evil.pth"
    if layout == "legacy":
        path.write_bytes(tb.legacy_file(content, {}))
    else:
        path.write_bytes(tb.zip_file(content, {}))
    return path


class Evil:
    """What the usual attack looks like: pickling this names a function and its arguments."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.function, self.arguments


@pytest.fixture
def witness(tmp_path: Path) -> Path:
    """Name a file that exists if something ran."""
    return tmp_path / "it-ran"


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize(
    ("function", "argument", "name"),
    [
        (os.system, "touch {}", f"{os.name}.system"),
        (builtins.eval, "open({!r}, 'w')", "eval"),
        (builtins.exec, "open({!r}, 'w')", "exec"),
        (subprocess.Popen, "touch {}", "Popen"),
        (os.mkdir, "{}", f"{os.name}.mkdir"),
        (getattr, "{}", "getattr"),
        (__import__, "{}", "__import__"),
    ],
)
def test_calls_are_refused_by_name(
    tmp_path: Path,
    witness: Path,
    layout: str,
    protocol: int,
    function: object,
    argument: str,
    name: str,
) -> None:
    attack = pickle.dumps({"fc1.weight": Evil(function, argument.format(witness))}, protocol)
    with pytest.raises(WeightsError, match=rf"global='[\w.]*{name}'"):
        load_torch(write(tmp_path, attack, layout))
    assert not witness.exists()


def command(witness: Path) -> bytes:
    return tb.text(f"touch {witness}")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        # every way that pickle knows to name or make an object
        (b"cos\nsystem\n", b"\x85R.", "global='os.system'"),
        (b"cposix\nsystem\n", b"\x85R.", "global='posix.system'"),
        (b"cnt\nsystem\n", b"\x85R.", "global='nt.system'"),
        (b"c__builtin__\neval\n", b"\x85R.", "global='__builtin__.eval'"),
        (b"cbuiltins\neval\n", b"\x85R.", "global='builtins.eval'"),
        (b"(", b"ios\nsystem\n.", "global='os.system'"),
        (b"(cos\nsystem\n", b"o.", "global='os.system'"),
        (b"\x8c\x02os\x8c\x06system\x93", b"\x85R.", "global='os.system'"),
        (b"cos\nsystem\n", b"\x85\x81.", "global='os.system'"),
        # names that are known, but not to be used so
        (b"ctorch\nFloatStorage\n", b"\x85R.", "calls a StorageType"),
        (b"ctorch\nFloatStorage\n", b"\x85\x81.", "NEWOBJ"),
        (b"ctorch\nFloatStorage\n", b"\x85}\x92.", "NEWOBJ_EX"),
        (b"(ctorch\nFloatStorage\n", b"o.", "OBJ"),
        (b"\x82\x01", b"\x85R.", "EXT1"),
        (b"\x83\x01\x00", b"\x85R.", "EXT2"),
        (b"\x84\x01\x00\x00\x00", b"\x85R.", "EXT4"),
        # attribute paths, and torch functions that load or import
        (b"\x8c\x0ctorch._utils\x94\x8c\x0dimport_module\x93", b"\x85R.", "import_module"),
        (b"\x8c\x05torch\x8c\x0dserialization\x93", b"\x85R.", "torch.serialization"),
        (b"\x8c\x0ccollections \x8c\x0bOrderedDict\x93", b"\x85R.", "collections .OrderedDict"),
        (b"\x8c\x0bcollections\x8c\x15OrderedDict.__class__\x93", b"\x85R.", "__class__"),
        (b"ctorch._utils\n_rebuild_tensor_v2.__globals__\n", b"\x85R.", "__globals__"),
        (b"ctorch.jit\nload\n", b"\x85R.", "torch.jit.load"),
        (b"ctorch\nload\n", b"\x85R.", "torch.load"),
        (b"ctorch.storage\n_load_from_bytes\n", b"\x85R.", "_load_from_bytes"),
        (b"ccollections\nOrderedDict\n", b"\x85R.", "from arguments"),
        (b"X\x01\x00\x00\x00a", b"\x85R.", "calls a str"),
        # state on things that have attributes
        (b"ctorch\nFloatStorage\n}X\x01\x00\x00\x00a", b"sb.", "sets attributes of a StorageType"),
        (tb.ORDERED_DICT + b"}X\x01\x00\x00\x00a", b"sb.", "sets attributes of a OrderedDict"),
        (b"}}" + tb.text("_metadata"), b"sb.", "sets attributes of a dict"),
        (b"cos\nenviron\n}", b"b.", "global='os.environ'"),
        # persistent ids of other kinds
        (b"", b"Q.", "malformed reference"),
        (b"P0\n", b".", "PERSID"),
    ],
)
def test_every_instruction(
    tmp_path: Path, witness: Path, layout: str, before: bytes, after: bytes, message: str
) -> None:
    attack = tb.PROTOCOL + before + command(witness) + after
    with pytest.raises(WeightsError, match=message):
        load_torch(write(tmp_path, attack, layout))
    assert not witness.exists()


@pytest.mark.parametrize("part", ["magic", "version", "system", "keys"])
def test_other_pickles_of_the_legacy_format(tmp_path: Path, witness: Path, part: str) -> None:
    attack = tb.PROTOCOL + b"cos\nsystem\n" + command(witness) + b"\x85R."
    path = tmp_path / "evil.pth"
    content = tb.state_pickle()
    path.write_bytes(tb.legacy_file(content, {}, **{part: attack}))  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match=r"global='os\.system'"):
        load_torch(path)
    assert not witness.exists()


def test_the_table_holds_nothing_of_torch_or_the_interpreter() -> None:
    from umx_np.weights._torch_records import ALLOWED_GLOBALS, StorageType

    for value in ALLOWED_GLOBALS.values():
        assert isinstance(value, (Constructor, StorageType))
        if isinstance(value, Constructor):
            assert value.build.__module__ == "umx_np.weights._torch_records"


def test_reading_weights_imports_neither_pickle_machinery_nor_torch() -> None:
    source = Path(_pickle.__file__).read_text("utf-8")
    assert "import pickle" not in source
    code = "import sys, umx_np.weights; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# Resources


def read(body: bytes) -> object:
    return read_pickle(tb.PROTOCOL + body, allowed={})[0]


def test_integers_are_bounded() -> None:
    assert read(b"\x8a\x08" + b"\xff" * 7 + b"\x7f.") == (1 << 63) - 1
    with pytest.raises(WeightsError, match="integer of 9 bytes"):
        read(b"\x8a\x09" + bytes(9) + b".")
    with pytest.raises(WeightsError, match="integer of 4294967295 bytes"):
        read(b"\x8b\xff\xff\xff\xff.")


@pytest.mark.parametrize("code", [b"X", b"T", b"\x8d"])
def test_lengths_are_compared_with_the_file(code: bytes) -> None:
    width = 8 if code == b"\x8d" else 4
    with pytest.raises(WeightsError, match="truncated"):
        read(code + b"\xff" * width + b"abc.")


def test_deep_nesting_does_not_exhaust_the_stack(tmp_path: Path) -> None:
    body = b")" + b"\x85" * 200_000
    nested = read(body + b".")
    assert isinstance(nested, tuple)
    del nested
    # As a key its hash would be computed by recursion in C.
    with pytest.raises(WeightsError, match="tuple as a dictionary key"):
        read(b"}" + body + b"Ns.")
    path = write(tmp_path, tb.PROTOCOL + body + b".", "zip")
    with pytest.raises(WeightsError, match="instead of a state dict"):
        load_torch(path)


def test_memo_bomb_stays_small(tmp_path: Path) -> None:
    # Each list holds the one before ten times: 10**300 elements, if anything walked over them.
    levels = b"".join(b"](" + b"h\x00" * 10 + b"eq\x00" for _ in range(300))
    content = tb.PROTOCOL + b"]q\x00" + levels + b"}" + tb.text("x") + b"h\x00s\x85."
    started = time.monotonic()
    for layout in LAYOUTS:
        with pytest.raises(WeightsError):
            load_torch(write(tmp_path, content, layout))
    assert time.monotonic() - started < 5


def test_structure_that_contains_itself(tmp_path: Path) -> None:
    content = tb.PROTOCOL + b"}q\x00" + tb.text("state_dict") + b"h\x00s."
    with pytest.raises(WeightsError, match="entry='state_dict'"):
        load_torch(write(tmp_path, content, "zip"))


def test_number_of_instructions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pickle, "MAX_INSTRUCTIONS", 1000)
    with pytest.raises(WeightsError, match="more than 1000 instructions"):
        read(b"N0" * 1000 + b"N.")


def test_size_of_the_pickle_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pickle, "MAX_PICKLE_BYTES", 1000)
    body = tb.text("a" * 2000) + b"."
    with pytest.raises(WeightsError, match="longer than 1000 bytes"):
        read(body)
    monkeypatch.undo()
    content = tb.PROTOCOL + b"N0" * (5 << 20) + b"N."
    with pytest.raises(WeightsError, match=r"data\.pkl.* bytes \(limit"):
        load_torch(write(tmp_path, content, "zip"))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"0.", "empty stack"),
        (b".", "empty stack"),
        (b"(0.", "empty stack"),
        (b"NN.", "left over"),
        (b"(N.", "left over"),
        (b"N(0.", "empty stack"),
        (b"t.", "mark that was not set"),
        (b"h\x00.", "memo=0"),
        (b"](Ne(.", "empty stack|left over"),
        (b"Na.", "empty stack"),
        (b"NNa.", "appends to a NoneType"),
        (b"NNNs.", "sets items of a NoneType"),
        (b"}(Nu.", "without a value"),
        (b"}NNs.", "NoneType as a dictionary key"),
        (b"NNR.", "calls a NoneType"),
        (b"NQ.", "storage where none is expected"),
        (b"NN\x93.", "other than strings"),
        (b"X\x01\x00\x00\x00\xff.", "not UTF-8"),
        (b"cno newline", "does not end"),
        (b"G\x00", "truncated"),
        (b"\x95" + b"\xff" * 8, "frame"),
        (b"\xff.", "instruction="),
        (b"F1.0\n.", "instruction=b'F'"),
        (b"C\x01a.", "SHORT_BINBYTES"),
        (b"", "truncated"),
    ],
)
def test_malformed_pickles(body: bytes, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        read(body)


@pytest.mark.parametrize("start", [b"", b"K\x01.", b"\x80\x01N.", b"\x80\x06N.", b"\x80"])
def test_protocol_number(start: bytes) -> None:
    with pytest.raises(WeightsError, match=r"protocol|truncated"):
        read_pickle(start, allowed={})


def test_plain_values_are_read_as_pickle_wrote_them() -> None:
    value = {
        "none": None,
        "bools": [True, False],
        "ints": (0, 255, 65535, -1, 1 << 40, -(1 << 62)),
        "floats": [0.5, -1e300],
        "text": "Größe",
        "nested": {"a": {"b": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)]}},
        3: "integer key",
    }
    for protocol in (2, 3, 4, 5):
        data = pickle.dumps(value, protocol)
        result, end = read_pickle(b"junk" + data + b"more", 4, allowed={})
        assert result == value
        assert end == 4 + len(data)


def test_python_2_strings() -> None:
    assert read(b"U\x02ab.") == "ab"
    assert read(b"T" + struct.pack("<i", 2) + b"ab.") == "ab"
