"""Checkpoints: everything a run needs to go on, to the last bit, in one file without pickle.

A checkpoint is a tree of dicts, lists, numbers, text and arrays. The arrays become the tensors of a
safetensors file, and the rest JSON in its metadata; Python writes and reads the digits of a float
such that the same float comes back.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from .._support.inputs import open_input, parse_json
from ..errors import TrainingError, WeightsError, shortened
from ..weights import (
    StateDict,
    load_safetensors,
    load_safetensors_config,
    load_torch,
    save_safetensors,
)
from ..weights.replacing import finish_replacements

logger = logging.getLogger(__name__)

SUFFIX = ".chkpnt"
# Raised when a checkpoint of an older version could no longer be continued.
FORMAT_VERSION = 1
_METADATA_KEY = "checkpoint"
_TENSOR = "$tensor"
_TORCH_STARTS = (b"PK\x03\x04", b"\x80")


def checkpoint_path(folder: str | os.PathLike[str], target: str) -> Path:
    """Where the checkpoint of a target is kept."""
    return Path(os.path.expanduser(folder)) / (target + SUFFIX)


def find_checkpoint(folder: str | os.PathLike[str], target: str | None = None) -> tuple[Path, str]:
    """Find the checkpoint in a folder.

    Parameters
    ----------
    folder : path-like
        Output folder of a run.
    target : str or None
        Whose checkpoint; None takes the only one.

    Returns
    -------
    Path
        The file.
    str
        Its target.

    Raises
    ------
    TrainingError
        If there is none, or several to choose from.
    """
    folder = Path(os.path.expanduser(folder))
    finish_replacements(folder)
    targets = sorted(path.stem for path in folder.glob(f"*{SUFFIX}"))
    if target is None and len(targets) == 1:
        target = targets[0]
    if target is None and targets:
        raise TrainingError(
            f"checkpoint={str(folder)!r} holds several runs ({', '.join(targets)}); add target=..."
        )
    if target not in targets:
        wanted = "" if target is None else f" of target={target!r}"
        others = f"; there is {', '.join(targets)}" if targets else ""
        raise TrainingError(f"checkpoint={str(folder)!r} holds no checkpoint{wanted}{others}")
    assert target is not None
    return checkpoint_path(folder, target), target


def is_torch_checkpoint(path: Path) -> bool:
    """Whether Open-Unmix wrote the file, judged by its first bytes."""
    with open_input(path, TrainingError) as (file, _):
        start = file.read(9)
    # Ours begins with the length of the JSON that follows, which may look like anything.
    return start.startswith(_TORCH_STARTS) and start[8:] != b"{"


def write_checkpoint(path: Path, tree: dict[str, Any]) -> None:
    """Write a checkpoint; it takes its name when it is complete and on disk.

    Parameters
    ----------
    path : Path
        File to write or replace.
    tree : dict
        Nested dicts with text as keys, lists, tuples (which come back as lists), arrays, and what
        JSON knows.

    Raises
    ------
    TrainingError
        If the file cannot be written; an earlier one is then left as it was.
    """
    tensors: StateDict = {}
    document = {"version": FORMAT_VERSION, "content": _without_arrays(tree, "", tensors)}
    try:
        save_safetensors(tensors, path, metadata={_METADATA_KEY: json.dumps(document)})
    except OSError as error:
        raise not_written(path, error) from error


def not_written(path: Path, error: OSError) -> TrainingError:
    """Describe a file that could not be written."""
    return TrainingError(
        f"{path} cannot be written: {error.strerror or error}. What was saved before is still "
        "there, and the run can go on from it once there is room"
    )


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `write_checkpoint` wrote.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    dict
        With the values that were written, bit for bit.

    Raises
    ------
    TrainingError
        If the file is missing, damaged or of another version.
    """
    try:
        _, metadata = load_safetensors_config(path)
        if not isinstance(text := metadata.get(_METADATA_KEY), str):
            raise WeightsError(f"path={str(path)!r} holds weights only")
        document = parse_json(text, str(path))
        version = document.get("version")
        if version == FORMAT_VERSION:
            return _read_content(document.get("content"), load_safetensors(path))
    except WeightsError as error:
        raise TrainingError(f"path={str(path)!r} is no checkpoint: {error}") from error
    raise TrainingError(
        f"path={str(path)!r} has version={shortened(version)}; this version of umx_np continues "
        f"version={FORMAT_VERSION}. Begin a new run from its weights with model=..."
    )


def _read_content(content: object, tensors: StateDict) -> dict[str, Any]:
    """Put the arrays back into the tree; each belongs to one place."""
    left = dict(tensors)
    try:
        tree = _with_arrays(content, left)
    # RecursionError: deeper than what Python itself reads without one.
    except (KeyError, TypeError, RecursionError) as error:
        raise WeightsError(f"its tree does not fit its tensors ({type(error).__name__})") from error
    if left or not isinstance(tree, dict):
        raise WeightsError("its tree does not fit its tensors")
    return tree


def read_torch_weights(path: Path) -> StateDict:
    """Read the weights in a checkpoint of Open-Unmix; the state of its optimiser is left."""
    logger.warning(
        "%s was written by Open-Unmix: its weights are taken over, the optimiser starts again", path
    )
    return load_torch(path)


def _without_arrays(value: Any, name: str, tensors: StateDict) -> Any:
    """Move the arrays of a tree to `tensors`, named by the path to them."""
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"{name or 'the checkpoint'} has keys that are no text")
        return {key: _without_arrays(v, f"{name}/{key}", tensors) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_arrays(v, f"{name}/{i}", tensors) for i, v in enumerate(value)]
    if isinstance(value, np.ndarray):
        key = name.lstrip("/")
        tensors[key] = value
        return {_TENSOR: key}
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{name} is a {type(value).__name__}, which a checkpoint does not hold")


def _with_arrays(value: Any, tensors: StateDict) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors.pop(value[_TENSOR])
        return {key: _with_arrays(v, tensors) for key, v in value.items()}
    if isinstance(value, list):
        return [_with_arrays(v, tensors) for v in value]
    return value
