"""Writing state dicts as PyTorch files, without PyTorch.

The pickle is put together by hand: it names the same few globals that the reader knows, so that
``torch.load(..., weights_only=True)`` accepts it. The same state gives the same bytes, always.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from typing import BinaryIO

import numpy as np

from .._support.atomic import atomic_write
from ..errors import WeightsError
from ._torch_records import STORAGE_NAMES
from .torch_files import LEGACY_MAGIC, LEGACY_PROTOCOL

_ROOT = "archive"
# torch aligns storages to 64 bytes, so that they can be mapped into memory.
_ALIGNMENT = 64
_PROTOCOL_2 = b"\x80\x02"
_STOP = b"."


def save_torch(
    state: Mapping[str, np.ndarray], path: str | os.PathLike[str], legacy: bool = False
) -> None:
    """Write a state dict that ``torch.load`` and Open-Unmix read.

    Parameters
    ----------
    state : mapping of str to ndarray
        float16, float32, float64, complex64, complex128, bool, uint8 or int8 to int64 arrays of
        any layout.
    path : path-like
        File to write. It appears under this name only when it is complete.
    legacy : bool
        Write the format of torch before 1.6 instead of the zip format.

    Raises
    ------
    WeightsError
        If a name is no string or a dtype has no counterpart in torch.
    OSError
        If the file cannot be written; an existing file is then left as it was.

    Notes
    -----
    The bytes depend on `state` and `legacy` only.
    """
    arrays = {_checked_name(name): _checked_array(name, array) for name, array in state.items()}
    with atomic_write(path) as file:
        if legacy:
            _write_legacy(file, arrays)
        else:
            _write_zip(file, arrays)


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise WeightsError(f"name={name!r} of the state dict must be a string")
    return name


def _checked_array(name: str, value: object) -> np.ndarray:
    array = np.asarray(value)
    dtype = array.dtype.newbyteorder("=")
    if dtype not in STORAGE_NAMES:
        raise WeightsError(
            f"{name!r} has dtype={array.dtype}, which torch files do not hold; convert it, "
            "for example with .astype('float32')"
        )
    return array


def _raw(array: np.ndarray) -> memoryview:
    """Return the elements in C order, little-endian."""
    flat = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False).reshape(-1)
    return flat.view(np.uint8).data


# Pickle


def _text(value: str) -> bytes:
    raw = value.encode("utf-8")
    return b"X" + len(raw).to_bytes(4, "little") + raw


def _integer(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + value.to_bytes(4, "little", signed=True)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def _global(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


_EMPTY_ORDERED_DICT = _global("collections", "OrderedDict") + b")R"


def _pickle_tensor(key: str, array: np.ndarray, legacy: bool) -> bytes:
    storage_type = STORAGE_NAMES[array.dtype.newbyteorder("=")]
    identity = [
        _text("storage"),
        _global("torch", storage_type),
        _text(key),
        _text("cpu"),
        _integer(array.size),
    ]
    if legacy:
        identity.append(b"N")
    strides, step = [], 1
    for size in reversed(array.shape):
        strides.append(step)
        step *= max(size, 1)
    arguments = _tuple(
        _tuple(*identity) + b"Q",
        _integer(0),
        _tuple(*map(_integer, array.shape)),
        _tuple(*map(_integer, reversed(strides))),
        b"\x89",
        _EMPTY_ORDERED_DICT,
    )
    return _global("torch._utils", "_rebuild_tensor_v2") + arguments + b"R"


def _pickle_state(arrays: dict[str, np.ndarray], legacy: bool) -> bytes:
    items = [
        _text(name) + _pickle_tensor(str(index), array, legacy)
        for index, (name, array) in enumerate(arrays.items())
    ]
    return _PROTOCOL_2 + _EMPTY_ORDERED_DICT + b"(" + b"".join(items) + b"u" + _STOP


# Containers


def _write_zip(file: BinaryIO, arrays: dict[str, np.ndarray]) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:

        def add(name: str, data: bytes | memoryview) -> None:
            # A fixed time and system, so that the bytes are the same on every day and machine.
            info = zipfile.ZipInfo(f"{_ROOT}/{name}", date_time=(1980, 1, 1, 0, 0, 0))
            info.create_system = 0
            begin = file.tell() + 30 + len(info.filename.encode()) + 4
            padding = -begin % _ALIGNMENT
            # An extra field of the private kind "FB", as torch itself uses for the purpose.
            info.extra = b"FB" + padding.to_bytes(2, "little") + b"Z" * padding
            archive.writestr(info, data)

        add("data.pkl", _pickle_state(arrays, legacy=False))
        add("byteorder", b"little")
        for index, array in enumerate(arrays.values()):
            add(f"data/{index}", _raw(array))
        add("version", b"3\n")


def _write_legacy(file: BinaryIO, arrays: dict[str, np.ndarray]) -> None:
    magic = LEGACY_MAGIC.to_bytes(10, "little")
    file.write(_PROTOCOL_2 + b"\x8a\x0a" + magic + _STOP)
    file.write(_PROTOCOL_2 + _integer(LEGACY_PROTOCOL) + _STOP)
    type_sizes = b"".join(
        _text(name) + _integer(size) for name, size in (("short", 2), ("int", 4), ("long", 4))
    )
    system = (
        _text("protocol_version")
        + _integer(LEGACY_PROTOCOL)
        + _text("little_endian")
        + b"\x88"
        + _text("type_sizes")
        + b"}("
        + type_sizes
        + b"u"
    )
    file.write(_PROTOCOL_2 + b"}(" + system + b"u" + _STOP)
    file.write(_pickle_state(arrays, legacy=True))
    keys = b"".join(_text(str(index)) for index in range(len(arrays)))
    file.write(_PROTOCOL_2 + b"](" + keys + b"e" + _STOP)
    for array in arrays.values():
        file.write(array.size.to_bytes(8, "little"))
        file.write(_raw(array))
