"""Weights as safetensors files, the package's own format.

The architecture travels in the metadata, so that one file is enough to build a network. All of it
sits under one key as JSON, because the order of several keys is not fixed and equal weights should
give equal bytes.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, BinaryIO

import numpy as np

from .._support.atomic import atomic_write
from .._support.inputs import MAX_JSON_BYTES, open_input, parse_json
from ..config import ModelConfig
from ..errors import ConfigError, WeightsError, shortened
from ._archive import fill
from ._torch_records import MAX_DIMENSIONS, MAX_NAME_LENGTH, widen_bfloat16
from .bundle import StateDict
from .quantization import dequantize, stored_dtype, stored_state

_METADATA_KEY = "umx_np"
_FORMAT_VERSION = 1
# As in a torch file.
_MAX_TENSORS = 20_000
_MAX_SIZE = 1 << 40
_DAMAGED = "the file is damaged"
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "u1",
}  # fmt: skip


def save_safetensors(
    state: Mapping[str, np.ndarray],
    path: str | os.PathLike[str],
    config: ModelConfig | None = None,
    metadata: Mapping[str, str] | None = None,
    *,
    dtype: object = None,
) -> None:
    """Write a state dict as a safetensors file.

    Parameters
    ----------
    state : mapping of str to ndarray
        Weights.
    path : path-like
        File to write. It appears under this name only when it is complete.
    config : ModelConfig, optional
        Architecture, stored in the metadata.
    metadata : mapping of str to str, optional
        Anything else to store.
    dtype : dtype, optional
        What to store weights in: a floating dtype, of which ``"float16"`` halves the file, or
        ``"int8"`` for matrices of eight bits, a quarter of it. Integers stay.

    Raises
    ------
    WeightsError
        If a dtype cannot be stored, or a number is too large for `dtype`.
    ConfigError
        If `dtype` is another one.
    OSError
        If the file cannot be written; an existing file is then left as it was.

    Notes
    -----
    float16 keeps 11 significant bits: a relative error of at most 2**-11 for numbers above 6e-5.
    int8 has one scale a row, stored as ``<name>_scale``: an error of at most a 254th of the row's
    largest weight. Vectors are then stored in float32.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save

    tensors = {}
    for name, value in stored_state(state, None if dtype is None else stored_dtype(dtype)).items():
        array = np.asarray(value)
        # safetensors writes the memory as it lies, whatever the strides and the byte order.
        tensors[name] = np.asarray(array, dtype=array.dtype.newbyteorder("="), order="C")
    document = {
        "version": _FORMAT_VERSION,
        "config": None if config is None else asdict(config),
        "metadata": dict(metadata or {}),
    }
    text = json.dumps(document, sort_keys=True)
    try:
        data = save(tensors, metadata={_METADATA_KEY: text})
    except (SafetensorError, KeyError, TypeError) as error:
        raise WeightsError(f"path={os.fspath(path)!r} cannot hold the weights: {error}") from error
    if int.from_bytes(data[:8], "little") > MAX_JSON_BYTES:
        raise WeightsError(
            f"path={os.fspath(path)!r} would have more than {MAX_JSON_BYTES} bytes of metadata, "
            "which could not be read again"
        )
    with atomic_write(path) as file:
        file.write(data)


def load_safetensors(path: str | os.PathLike[str], *, quantized: bool = False) -> StateDict:
    """Read the tensors of a safetensors file.

    Parameters
    ----------
    path : path-like
        A file written by this package or any other.
    quantized : bool
        Whether matrices of int8 with scales stay so; otherwise they come back as float32.

    Returns
    -------
    dict of str to ndarray
        Writable arrays with the dtype they are stored in (bfloat16 comes back as float32), sorted
        by name.

    Raises
    ------
    WeightsError
        If the file is missing, damaged or holds a dtype that NumPy does not have.
    """
    name = os.fspath(path)
    with open_input(name) as (file, size):
        header, begin = _read_header(file, size, name)
        try:
            places = _check_places(header, size - begin)
            file.seek(begin)
            # One after the other as they lie in the file, so that nothing is held twice.
            arrays = {key: _read_tensor(file, header[key]) for key in places}
            state = dict(sorted(arrays.items()))
            return state if quantized else dequantize(state)
        except WeightsError as error:
            raise WeightsError(f"path={name!r}: {error}") from error


def _read_header(file: BinaryIO, size: int, name: str) -> tuple[dict[str, Any], int]:
    """Return the JSON at the beginning of a file, and where the numbers begin."""
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > size - 8:
        raise WeightsError(f"path={name!r} is no safetensors file or is truncated")
    if length > MAX_JSON_BYTES:
        raise WeightsError(
            f"path={name!r} has a header of {length} bytes (limit: {MAX_JSON_BYTES})"
        )
    return parse_json(file.read(length), name), 8 + length


def _check_places(header: dict[str, Any], nb_bytes: int) -> list[str]:
    """Return the names of the tensors in the order of their bytes, which must fill the file."""
    names = [name for name in header if name != "__metadata__"]
    if len(names) > _MAX_TENSORS:
        raise WeightsError(f"the file holds {len(names)} tensors (limit: {_MAX_TENSORS})")
    places = sorted((*_check_tensor(name, header[name]), name) for name in names)
    end = 0
    for begin, stop, name in places:
        if begin != end:
            raise WeightsError(f"{shortened(name)} is not where the one before ends; {_DAMAGED}")
        end = stop
    if end != nb_bytes:
        raise WeightsError(f"the tensors need {end} bytes, but there are {nb_bytes}; {_DAMAGED}")
    return [name for _, _, name in places]


def _check_tensor(name: str, described: Any) -> tuple[int, int]:
    """Return where the bytes of a tensor begin and end."""
    try:
        dtype, shape = described["dtype"], described["shape"]
        begin, end = described["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise WeightsError(f"{shortened(name)} is not described as a tensor; {_DAMAGED}") from None
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise WeightsError(
            f"{shortened(name)} has dtype={shortened(dtype)}, which is not "
            "supported; store float32 or float16"
        )
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or len(name) > MAX_NAME_LENGTH:
        raise WeightsError(f"{shortened(name)} is not described as a tensor; {_DAMAGED}")
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise WeightsError(f"{shortened(name)} has a size or place that is no count; {_DAMAGED}")
    # Python integers do not overflow, so this holds for any number in the file.
    if end - begin != math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize:
        raise WeightsError(
            f"{shortened(name)} has shape={shortened(shape)} in dtype={dtype}, but "
            f"{shortened(end - begin)} bytes; {_DAMAGED}"
        )
    if max(shape, default=0) > _MAX_SIZE:
        raise WeightsError(f"{shortened(name)} has an impossible shape={shortened(shape)}")
    return begin, end


def _read_tensor(file: BinaryIO, described: dict[str, Any]) -> np.ndarray:
    """Read the numbers of a tensor, which are next in the file."""
    stored: np.ndarray = np.empty(math.prod(described["shape"]), _DTYPES[described["dtype"]])
    fill(file, stored)
    if described["dtype"] == "BF16":
        stored = widen_bfloat16(stored)
    elif described["dtype"] == "BOOL":
        stored = stored != 0
    return stored.astype(stored.dtype.newbyteorder("="), copy=False).reshape(described["shape"])


def load_safetensors_config(
    path: str | os.PathLike[str],
) -> tuple[ModelConfig | None, dict[str, str]]:
    """Read what a safetensors file says about its weights, without reading them.

    Parameters
    ----------
    path : path-like
        A safetensors file.

    Returns
    -------
    ModelConfig or None
        Architecture; None if the file was not written by this package or does not say.
    dict of str to str
        Further metadata.

    Raises
    ------
    WeightsError
        If the file is missing or its header is damaged.
    """
    name = os.fspath(path)
    with open_input(name) as (file, size):
        header, _ = _read_header(file, size, name)
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not isinstance(metadata.get(_METADATA_KEY), str):
        return None, {}
    document = parse_json(metadata[_METADATA_KEY], name)
    if document.get("version") != _FORMAT_VERSION:
        raise WeightsError(
            f"path={name!r} has version={shortened(document.get('version'))} of the metadata, "
            "which this version of umx_np does not know; update umx_np"
        )
    values, extra = document.get("config"), document.get("metadata", {})
    if not isinstance(extra, dict):
        raise WeightsError(f"path={name!r} has damaged metadata")
    if values is None:
        return None, extra
    known = {field.name for field in fields(ModelConfig)}
    if not isinstance(values, dict) or not values.keys() <= known:
        raise WeightsError(f"path={name!r} has a damaged configuration: {shortened(values)}")
    try:
        return ModelConfig(**values), extra
    except ConfigError as error:
        raise WeightsError(f"path={name!r} has a damaged configuration: {error}") from error
