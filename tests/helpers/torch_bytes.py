"""Torch files put together byte by byte, so that a test can make any part of one wrong."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np

from umx_np.config import ModelConfig
from umx_np.testing import random_state
from umx_np.weights import StateDict

PROTOCOL = b"\x80\x02"
MAGIC = PROTOCOL + b"\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
VERSION = PROTOCOL + b"M\xe9\x03."
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"

TINY = ModelConfig(nb_bins=5, nb_channels=2, hidden_size=4, nb_layers=2, max_bin=3)


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> bytes:
    raw = value.to_bytes(8, "little", signed=True)
    return b"\x8a\x08" + raw


def numbers(values: tuple[int, ...]) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


SYSTEM = PROTOCOL + b"}(" + text("protocol_version") + b"M\xe9\x03" + b"u."


def storage(
    *,
    kind: str = "FloatStorage",
    key: str = "0",
    total: int = 6,
    legacy: bool = False,
    view: bytes = b"N",
    word: str = "storage",
    module: str = "torch",
) -> bytes:
    """Refer to a storage."""
    fields = text(word) + f"c{module}\n{kind}\n".encode() + text(key) + text("cpu") + number(total)
    return b"(" + fields + (view if legacy else b"") + b"tQ"


def tensor(
    stored: bytes,
    *,
    offset: int = 0,
    shape: tuple[int, ...] = (2, 3),
    strides: tuple[int, ...] = (3, 1),
    function: str = "_rebuild_tensor_v2",
    mark: str | None = None,
) -> bytes:
    """Call that makes a tensor."""
    arguments = stored + number(offset) + numbers(shape) + numbers(strides)
    if function == "_rebuild_tensor_v2":
        arguments += b"\x89" + ORDERED_DICT
    if mark is not None:
        arguments += b"}" + text(mark) + b"\x88s"
    return f"ctorch._utils\n{function}\n(".encode() + arguments + b"tR"


def state_pickle(**tensors: bytes) -> bytes:
    """Pickle of a state dict with these entries."""
    items = b"".join(text(name) + value for name, value in tensors.items())
    return PROTOCOL + ORDERED_DICT + b"(" + items + b"u."


def zip_file(
    pickle: bytes,
    storages: dict[str, bytes],
    *,
    compression: int = zipfile.ZIP_STORED,
    root: str = "archive",
    **entries: bytes | None,
) -> bytes:
    """Put a zip file together; ``version=None`` leaves the entry out."""
    named = {"data.pkl": pickle}
    named |= {f"data/{key}": raw for key, raw in storages.items()}
    named |= {k: v for k, v in ({"version": b"3\n"} | entries).items() if v is not None}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, raw in named.items():
            archive.writestr(zipfile.ZipInfo(f"{root}/{name}"), raw, compression)
    return buffer.getvalue()


def legacy_file(
    pickle: bytes,
    storages: dict[str, tuple[int, bytes]],
    *,
    magic: bytes = MAGIC,
    version: bytes = VERSION,
    system: bytes = SYSTEM,
    keys: bytes | None = None,
    trailing: bytes = b"",
) -> bytes:
    """Put a legacy file together from storages of (element count, bytes)."""
    if keys is None:
        keys = PROTOCOL + b"](" + b"".join(map(text, storages)) + b"e."
    body = b"".join(struct.pack("<q", count) + raw for count, raw in storages.values())
    return magic + version + system + pickle + keys + body + trailing


class _Writer:
    """Turns nested values into a pickle, and the arrays among them into storages."""

    def __init__(self, legacy: bool) -> None:
        self.legacy = legacy
        self.storages: dict[str, tuple[int, bytes]] = {}

    def value(self, content: object) -> bytes:
        match content:
            case bytes():  # instructions as they are
                return content
            case dict():
                items = b"".join(self.value(k) + self.value(v) for k, v in content.items())
                return b"}(" + items + b"u"
            case list() | tuple():
                end = b"e" if isinstance(content, list) else b"t"
                begin = b"](" if isinstance(content, list) else b"("
                return begin + b"".join(map(self.value, content)) + end
            case str():
                return text(content)
            case None:
                return b"N"
            case bool():
                return b"\x88" if content else b"\x89"
            case int():
                return number(content)
            case float():
                return b"G" + struct.pack(">d", content)
            case np.ndarray():
                return self.array(content)
        raise TypeError(type(content))

    def array(self, array: np.ndarray) -> bytes:
        kind = {"f": "FloatStorage", "i": "LongStorage"}[array.dtype.kind]
        raw = np.ascontiguousarray(array, "<f4" if array.dtype.kind == "f" else "<i8").tobytes()
        key = str(len(self.storages))
        self.storages[key] = (array.size, raw)
        strides = tuple(np.cumprod((1, *array.shape[:0:-1]))[::-1].tolist()) if array.ndim else ()
        stored = storage(kind=kind, key=key, total=array.size, legacy=self.legacy)
        return tensor(stored, shape=array.shape, strides=strides)


def torch_file(content: object, *, legacy: bool = False) -> bytes:
    """Put a file together as `torch.save` writes it; arrays become tensors.

    Parameters
    ----------
    content : object
        Dicts, lists, tuples, plain values and arrays of float32 and int64; bytes are instructions
        of the pickle, put in as they are.
    legacy : bool
        In which format.
    """
    writer = _Writer(legacy)
    pickle = PROTOCOL + writer.value(content) + b"."
    if legacy:
        return legacy_file(pickle, writer.storages)
    return zip_file(pickle, {key: raw for key, (_, raw) in writer.storages.items()})


def tiny_state(config: ModelConfig = TINY, seed: int = 0) -> StateDict:
    """Random weights of a very small network."""
    return random_state(config, seed)
