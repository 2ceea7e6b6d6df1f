"""Torch files of both formats, read without torch."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import torch_bytes as tb

from umx_np.errors import WeightsError
from umx_np.weights import load_torch, save_torch

GOLDEN = Path(__file__).parents[1] / "golden" / "torch_files"
VALUES = np.arange(6, dtype="<f4")


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "file.pth"
    path.write_bytes(data)
    return path


def make(layout: str, *, values: np.ndarray = VALUES, **options: object) -> bytes:
    """One tensor `x`, in either format."""
    legacy = layout == "legacy"
    keywords = {key: options.pop(key) for key in ("kind", "total", "view") if key in options}
    stored = tb.storage(legacy=legacy, **keywords)  # type: ignore[arg-type]
    pickle = tb.state_pickle(x=tb.tensor(stored, **options))  # type: ignore[arg-type]
    raw = values.tobytes()
    if legacy:
        return tb.legacy_file(pickle, {"0": (values.size, raw)})
    return tb.zip_file(pickle, {"0": raw})


# Files made by torch (tests/golden/make_torch_files.py)


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_golden_tensors(layout: str) -> None:
    state = load_torch(GOLDEN / f"tensors_{layout}.pth")
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4) / 8
    expected = {
        "float32": base,
        "float64": base.astype(np.float64),
        "float16": base.astype(np.float16),
        "bfloat16": base,  # these values need few bits, so that bfloat16 holds them exactly
        "int64": np.array(7),
        "int32": np.arange(5, dtype=np.int32) - 2,
        "uint8": np.arange(4, dtype=np.uint8),
        "bool": np.array([True, False, True]),
        "empty": np.zeros((0, 3), np.float32),
        "parameter": base[0],
        "transposed": base.transpose(2, 0, 1),
        "sliced": base[1, :, 1:3],
        "shared": base,
    }
    assert list(state) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(state[name], array, err_msg=name, strict=True)
        assert state[name].flags.c_contiguous
        assert state[name].flags.writeable
    # Tensors that share a storage in the file do not share memory here.
    state["shared"][...] = -1
    np.testing.assert_array_equal(state["float32"], base)


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_golden_checkpoint(layout: str) -> None:
    state = load_torch(GOLDEN / f"checkpoint_{layout}.pth")
    np.testing.assert_array_equal(state["0.weight"], np.arange(6, dtype=np.float32).reshape(2, 3))
    assert state["1.num_batches_tracked"] == 1
    assert set(state) == {"0.weight"} | {
        f"1.{part}"
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }


def test_golden_files_are_small() -> None:
    assert sum(path.stat().st_size for path in GOLDEN.iterdir()) < 60_000


# Hand-made files


@pytest.mark.parametrize("layout", ["zip", "legacy"])
@pytest.mark.parametrize("function", ["_rebuild_tensor_v2", "_rebuild_tensor"])
def test_plain_tensor(tmp_path: Path, layout: str, function: str) -> None:
    state = load_torch(write(tmp_path, make(layout, function=function)))
    np.testing.assert_array_equal(state["x"], VALUES.reshape(2, 3), strict=True)


@pytest.mark.parametrize("layout", ["zip", "legacy"])
@pytest.mark.parametrize("mark", ["neg", "conj"])
def test_views_whose_numbers_are_others(tmp_path: Path, layout: str, mark: str) -> None:
    # What torch writes of a view such as that of `-x.conj().imag`, whose storage has other signs.
    with pytest.raises(WeightsError, match=f"marked as {{'{mark}': True}}"):
        load_torch(write(tmp_path, make(layout, mark=mark)))


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_strides_and_offset(tmp_path: Path, layout: str) -> None:
    data = make(layout, offset=1, shape=(2, 2), strides=(1, 3))
    np.testing.assert_array_equal(load_torch(write(tmp_path, data))["x"], [[1, 4], [2, 5]])


def test_legacy_view_of_a_storage(tmp_path: Path) -> None:
    view = b"(" + tb.text("7") + tb.number(2) + tb.number(3) + b"t"
    data = make("legacy", view=view, shape=(2,), strides=(2,))
    np.testing.assert_array_equal(load_torch(write(tmp_path, data))["x"], [2, 4])


def test_legacy_view_beyond_its_part(tmp_path: Path) -> None:
    view = b"(" + tb.text("7") + tb.number(2) + tb.number(3) + b"t"
    data = make("legacy", view=view, shape=(4,), strides=(1,))
    with pytest.raises(WeightsError, match="reaches beyond the 3 elements"):
        load_torch(write(tmp_path, data))
    view = b"(" + tb.text("7") + tb.number(4) + tb.number(3) + b"t"
    with pytest.raises(WeightsError, match="malformed view"):
        load_torch(write(tmp_path, make("legacy", view=view, shape=(1,), strides=(1,))))


@pytest.mark.parametrize("module", ["torch", "torch.cuda"])
def test_storage_types_of_either_device(tmp_path: Path, module: str) -> None:
    pickle = tb.state_pickle(x=tb.tensor(tb.storage(module=module)))
    path = write(tmp_path, tb.zip_file(pickle, {"0": VALUES.tobytes()}))
    assert load_torch(path)["x"].shape == (2, 3)


def test_big_endian(tmp_path: Path) -> None:
    pickle = tb.state_pickle(x=tb.tensor(tb.storage()))
    storages = {"0": VALUES.astype(">f4").tobytes()}
    path = write(tmp_path, tb.zip_file(pickle, storages, byteorder=b"big"))
    np.testing.assert_array_equal(load_torch(path)["x"], VALUES.reshape(2, 3), strict=True)
    path = write(tmp_path, tb.zip_file(pickle, storages, byteorder=b"middle"))
    with pytest.raises(WeightsError, match="byteorder=b'middle'"):
        load_torch(path)


def test_unusual_archive_name(tmp_path: Path) -> None:
    pickle = tb.state_pickle(x=tb.tensor(tb.storage()))
    data = tb.zip_file(pickle, {"0": VALUES.tobytes()}, root="modèle 1")
    assert load_torch(write(tmp_path, data))["x"].shape == (2, 3)


def test_plain_dict_and_protocol_4(tmp_path: Path) -> None:
    # The instructions of newer pickle protocols: short strings, MEMOIZE, STACK_GLOBAL, FRAME.
    short = lambda value: b"\x8c" + bytes([len(value)]) + value.encode()  # noqa: E731
    one = b"\x94" + short("torch._utils") + short("_rebuild_tensor_v2") + b"\x93("
    one += tb.storage() + tb.number(0) + tb.numbers((6,)) + tb.numbers((1,))
    one += b"\x89" + tb.ORDERED_DICT + b"tR"
    body = b"}" + short("x") + one + b"s."
    pickle = b"\x80\x04\x95" + len(body).to_bytes(8, "little") + body
    path = write(tmp_path, tb.zip_file(pickle, {"0": VALUES.tobytes()}))
    np.testing.assert_array_equal(load_torch(path)["x"], VALUES)


@pytest.mark.parametrize("layout", ["zip", "legacy"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offset": 1}, "reaches beyond the 6 elements"),
        ({"shape": (3, 3)}, "reaches beyond"),
        ({"strides": (4, 1)}, "reaches beyond"),
        ({"shape": (1 << 60, 1 << 60)}, "impossible shape"),
        ({"shape": (0, 1 << 60)}, "impossible shape"),
        ({"shape": (1 << 20, 3), "strides": (0, 1)}, "repeats elements"),
        ({"shape": (1 << 62, 1)}, "impossible shape"),
        ({"strides": (1 << 62, 1)}, "reaches beyond"),
        ({"offset": -1}, "no count"),
        ({"shape": (-2, 3)}, "no count"),
        ({"strides": (-3, 1)}, "no count"),
        ({"strides": (3,)}, "2 sizes and 1 strides"),
        ({"shape": (1,) * 17, "strides": (1,) * 17}, "17 sizes"),
        ({"total": 1 << 62}, "elements"),
        ({"total": 7}, "elements"),
        ({"total": 5}, "elements"),
        ({"total": -1}, "malformed reference"),
        ({"kind": "DoubleStorage"}, "bytes|truncated"),
        ({"kind": "UntypedStorage"}, "global='torch.UntypedStorage'"),
    ],
)
def test_lying_headers(
    tmp_path: Path, layout: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        load_torch(write(tmp_path, make(layout, **options)))


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_sharing_is_bounded(tmp_path: Path, layout: str) -> None:
    # 40 tensors that are each the whole storage: a small file, a large result.
    total = 1 << 19
    stored = tb.storage(total=total, legacy=layout == "legacy")
    one = tb.tensor(stored, shape=(total,), strides=(1,))
    raw = bytes(4 * total)

    def data(count: int) -> bytes:
        pickle = tb.state_pickle(**{f"x{index}": one for index in range(count)})
        if layout == "legacy":
            return tb.legacy_file(pickle, {"0": (total, raw)})
        return tb.zip_file(pickle, {"0": raw})

    with pytest.raises(WeightsError, match="share their storages so often that 83886080 bytes"):
        load_torch(write(tmp_path, data(40)))
    assert len(load_torch(write(tmp_path, data(3)))) == 3


@pytest.mark.parametrize("layout", ["zip", "legacy"])
def test_one_storage_of_two_types(tmp_path: Path, layout: str) -> None:
    legacy = layout == "legacy"
    pickle = tb.state_pickle(
        x=tb.tensor(tb.storage(legacy=legacy)),
        y=tb.tensor(tb.storage(legacy=legacy, kind="IntStorage")),
    )
    raw = VALUES.tobytes()
    data = tb.legacy_file(pickle, {"0": (6, raw)}) if legacy else tb.zip_file(pickle, {"0": raw})
    with pytest.raises(WeightsError, match="two ways"):
        load_torch(write(tmp_path, data))


RAW = {"0": VALUES.tobytes()}
GOOD = tb.state_pickle(x=tb.tensor(tb.storage()))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (tb.zip_file(GOOD, {}), "storage='0' is not in the archive"),
        (tb.zip_file(GOOD, RAW, version=None), "does not say its version"),
        (tb.zip_file(GOOD, RAW, version=b"99"), "version=b'99'"),
        (tb.zip_file(GOOD, RAW, **{"constants.pkl": b""}), "TorchScript"),
        (tb.zip_file(GOOD, RAW, compression=zipfile.ZIP_DEFLATED), "compressed"),
        (tb.zip_file(GOOD, RAW, **{"x/../data.pkl": b""}), None),
        (tb.zip_file(GOOD, RAW)[:-30], "truncated or damaged"),
        (tb.zip_file(GOOD, RAW, root="a/b"), "no data.pkl"),
        (b"", "empty"),
        (b"  <!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"\x93NUMPY", "neither zip nor legacy"),
        (tb.PROTOCOL + b"K\x01.", "torch.save did not write it"),
    ],
)
def test_damaged_containers(tmp_path: Path, data: bytes, message: str | None) -> None:
    path = write(tmp_path, data)
    if message is None:
        # An entry with an odd name that nothing refers to does no harm.
        assert list(load_torch(path)) == ["x"]
        return
    with pytest.raises(WeightsError, match=message):
        load_torch(path)


LEGACY_GOOD = tb.state_pickle(x=tb.tensor(tb.storage(legacy=True)))
LEGACY_RAW = {"0": (6, VALUES.tobytes())}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"version": tb.PROTOCOL + b"M\xea\x03."}, "protocol=1002"),
        ({"system": tb.PROTOCOL + b"}."}, "system information"),
        ({"system": tb.PROTOCOL + b"N."}, "system information"),
        ({"keys": tb.PROTOCOL + b"]."}, "list of storages"),
        ({"keys": tb.PROTOCOL + b"](" + tb.text("0") * 2 + b"e."}, "list of storages"),
        ({"keys": tb.PROTOCOL + b"](K\x00e."}, "list of storages"),
        ({"keys": tb.PROTOCOL + b"](" + tb.text("1") + b"e."}, "list of storages"),
        ({"trailing": b"\x00"}, "1 bytes too many"),
    ],
)
def test_damaged_legacy(tmp_path: Path, options: dict[str, bytes], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_torch(write(tmp_path, tb.legacy_file(LEGACY_GOOD, LEGACY_RAW, **options)))


def test_legacy_count_and_bytes_must_agree(tmp_path: Path) -> None:
    data = tb.legacy_file(LEGACY_GOOD, {"0": (5, VALUES.tobytes())})
    with pytest.raises(WeightsError, match="does not hold the 6 elements"):
        load_torch(write(tmp_path, data))
    data = tb.legacy_file(LEGACY_GOOD, {"0": (6, VALUES.tobytes()[:-1])})
    with pytest.raises(WeightsError, match="truncated"):
        load_torch(write(tmp_path, data))


@pytest.mark.parametrize(
    ("pickle", "message"),
    [
        (tb.PROTOCOL + b"K\x01.", "holds a int instead of a state dict"),
        (tb.PROTOCOL + tb.tensor(tb.storage()) + b".", "holds a tensor instead"),
        (tb.PROTOCOL + b"}" + tb.text("a") + b"K\x01s.", "entry='a' .* is a int"),
        (tb.PROTOCOL + b"}K\x01" + tb.tensor(tb.storage()) + b"s.", "entry=1 "),
        (tb.PROTOCOL + tb.storage(word="module") + b".", "whole pickled module"),
        (tb.PROTOCOL + tb.storage(word="other") + b".", "malformed reference"),
    ],
)
def test_content_that_is_no_state_dict(tmp_path: Path, pickle: bytes, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        load_torch(write(tmp_path, tb.zip_file(pickle, RAW)))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        load_torch(tmp_path / "nothing.pth")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_torch(tmp_path)


def test_entry_under_the_name_of_another(tmp_path: Path) -> None:
    # The central directory swaps two storages of equal size and checksum-valid content.
    pickle = tb.state_pickle(x=tb.tensor(tb.storage()), y=tb.tensor(tb.storage(key="1")))
    data = tb.zip_file(pickle, {"0": VALUES.tobytes(), "1": (-VALUES).tobytes()})
    directory = data.index(b"PK\x01\x02")
    swapped = data[directory:].replace(b"data/0", b"data/#").replace(b"data/1", b"data/0")
    data = data[:directory] + swapped.replace(b"data/#", b"data/1")
    with pytest.raises(WeightsError, match="another name"):
        load_torch(write(tmp_path, data))


def test_entry_at_an_impossible_offset(tmp_path: Path) -> None:
    # A zip64 field may place an entry at any 64-bit offset.
    data = bytearray(tb.zip_file(GOOD, RAW))
    directory = data.rindex(b"PK\x01\x02")
    name_length = struct.unpack_from("<H", data, directory + 28)[0]
    struct.pack_into("<H", data, directory + 30, 12)
    struct.pack_into("<I", data, directory + 42, 0xFFFFFFFF)
    field = struct.pack("<HHQ", 1, 8, (1 << 64) - 1)
    data[directory + 46 + name_length : directory + 46 + name_length] = field
    end = data.rindex(b"PK\x05\x06")
    length = struct.unpack_from("<I", data, end + 12)[0]
    struct.pack_into("<I", data, end + 12, length + 12)
    with pytest.raises(WeightsError, match="is not where the archive says"):
        load_torch(write(tmp_path, bytes(data)))


# Damage

LAYOUTS = ["zip", "legacy"]


def small_file(tmp_path: Path, layout: str) -> tuple[bytes, dict[str, np.ndarray]]:
    state = {
        "fc1.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
        "bn1.num_batches_tracked": np.array(5),
        "bn1.bias": np.linspace(-1, 1, 7).astype(np.float16),
    }
    path = tmp_path / "whole.pth"
    save_torch(state, path, legacy=layout == "legacy")
    return path.read_bytes(), state


@pytest.mark.parametrize("layout", LAYOUTS)
def test_truncation_anywhere(tmp_path: Path, layout: str) -> None:
    data, _ = small_file(tmp_path, layout)
    path = tmp_path / "cut.pth"
    for length in range(0, len(data), 3):
        path.write_bytes(data[:length])
        with pytest.raises(WeightsError):
            load_torch(path)


def is_refused(path: Path, expected: dict[str, np.ndarray], layout: str) -> bool:
    """Read a damaged file: it is refused, or the result is right (zip) or well-formed (legacy).

    The legacy format has no checksum: a bit of a number, a name or a stride may change without any
    contradiction in the file. What can be promised is that the result is a dict of arrays no larger
    than the file.
    """
    try:
        state = load_torch(path)
    except WeightsError:
        return True
    if layout == "zip":
        assert list(state) == list(expected)
        for name, array in expected.items():
            np.testing.assert_array_equal(state[name], array, strict=True)
    else:
        assert all(isinstance(name, str) for name in state)
        assert all(isinstance(array, np.ndarray) for array in state.values())
        assert sum(array.nbytes for array in state.values()) <= 2 * path.stat().st_size
    return False


@pytest.mark.parametrize("source", ["own", "torch"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_flipped_bits(tmp_path: Path, layout: str, source: str) -> None:
    if source == "own":
        data, expected = small_file(tmp_path, layout)
    else:
        data = (GOLDEN / f"tensors_{layout}.pth").read_bytes()
        expected = load_torch(GOLDEN / f"tensors_{layout}.pth")
    rng = np.random.default_rng(1)
    path = tmp_path / "flipped.pth"
    positions = rng.choice(len(data), min(len(data), 700), replace=False)
    refused = 0
    for position in positions:
        damaged = bytearray(data)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        refused += is_refused(path, expected, layout)
    assert 50 < refused < len(positions) - 50


@pytest.mark.parametrize("layout", LAYOUTS)
def test_overwritten_runs(tmp_path: Path, layout: str) -> None:
    data, expected = small_file(tmp_path, layout)
    rng = np.random.default_rng(2)
    path = tmp_path / "noise.pth"
    refused = 0
    for _ in range(200):
        damaged = bytearray(data)
        begin = int(rng.integers(len(data)))
        run = rng.integers(0, 256, int(rng.integers(1, 40)), dtype=np.uint8).tobytes()
        damaged[begin : begin + len(run)] = run
        path.write_bytes(damaged)
        refused += is_refused(path, expected, layout)
    # A few runs hit nothing but numbers (legacy) or what nobody reads.
    assert 100 < refused < 200
