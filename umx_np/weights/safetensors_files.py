"""Weights as safetensors files, the package's own format.

The architecture travels in the metadata, so that one file is enough to build a network. All of it
sits under one key as JSON, because the order of several keys is not fixed and equal weights should
give equal bytes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from .._atomic import atomic_write
from ..config import ModelConfig
from ..errors import ConfigError, WeightsError
from .bundle import StateDict
from .quantization import dequantize, stored_dtype, stored_state

_METADATA_KEY = "umx_np"
_FORMAT_VERSION = 1
_MAX_HEADER_BYTES = 100 << 20
_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1", "BOOL": "?",
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
    with atomic_write(path) as file:
        file.write(data)


def load_safetensors(path: str | os.PathLike[str]) -> StateDict:
    """Read the tensors of a safetensors file.

    Parameters
    ----------
    path : path-like
        A file written by this package or any other.

    Returns
    -------
    dict of str to ndarray
        Writable arrays with the dtype they are stored in (bfloat16, and matrices of int8 with
        scales, come back as float32), sorted by name.

    Raises
    ------
    WeightsError
        If the file is missing, damaged or holds a dtype that NumPy does not have.
    """
    from safetensors import SafetensorError, deserialize

    data = _read(path)
    try:
        tensors = deserialize(data)
    except SafetensorError as error:
        raise WeightsError(f"path={os.fspath(path)!r} is damaged: {error}") from error
    state: StateDict = {}
    for name, tensor in sorted(tensors, key=lambda item: item[0]):
        code = _DTYPES.get(tensor["dtype"])
        if code is None:
            raise WeightsError(
                f"path={os.fspath(path)!r}: {name!r} has dtype={tensor['dtype']}, which is not "
                "supported; store float32 or float16"
            )
        stored = np.frombuffer(tensor["data"], code)
        if tensor["dtype"] == "BF16":
            array = (stored.astype(np.uint32) << 16).view(np.float32)
        else:
            array = stored.astype(stored.dtype.newbyteorder("="))
        state[name] = array.reshape(tensor["shape"])
    try:
        return dequantize(state)
    except WeightsError as error:
        raise WeightsError(f"path={os.fspath(path)!r}: {error}") from error


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
    try:
        with open(name, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > min(_MAX_HEADER_BYTES, os.fstat(file.fileno()).st_size):
                raise WeightsError(f"path={name!r} is no safetensors file or is truncated")
            header = parse_json(file.read(size), name)
    except OSError as error:
        raise WeightsError(f"path={name!r} cannot be read: {error.strerror or error}") from error
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict) or not isinstance(metadata.get(_METADATA_KEY), str):
        return None, {}
    document = parse_json(metadata[_METADATA_KEY], name)
    if document.get("version") != _FORMAT_VERSION:
        raise WeightsError(
            f"path={name!r} has version={document.get('version')!r} of the metadata, which this "
            "version of umx_np does not know; update umx_np"
        )
    values, extra = document.get("config"), document.get("metadata", {})
    if not isinstance(extra, dict):
        raise WeightsError(f"path={name!r} has damaged metadata")
    if values is None:
        return None, extra
    try:
        return ModelConfig(**values), extra
    except (TypeError, ConfigError) as error:
        raise WeightsError(f"path={name!r} has a damaged configuration: {error}") from error


def parse_json(text: str | bytes, name: str) -> dict[str, Any]:
    """Parse a JSON object that came from a file.

    Parameters
    ----------
    text : str or bytes
        The document.
    name : str
        File name for the message.

    Returns
    -------
    dict
        The object.

    Raises
    ------
    WeightsError
        If it is no valid JSON, or something else than an object.
    """
    try:
        document = json.loads(text)
    # RecursionError: brackets nested thousands deep.
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"path={name!r} holds no valid JSON: {error}") from error
    if not isinstance(document, dict):
        raise WeightsError(f"path={name!r} holds a {type(document).__name__}, not a JSON object")
    return document


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise WeightsError(
            f"path={os.fspath(path)!r} cannot be read: {error.strerror or error}"
        ) from error
