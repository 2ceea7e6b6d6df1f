"""Converting weights between PyTorch files and safetensors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np

from .._support.inputs import read_json, why_unreadable
from ..errors import ConfigError, ModelNotFoundError, WeightsError
from .bundle import TargetWeights
from .folder import SEPARATOR_FILE, check_format, load_folder, save_folder
from .quantization import stored_dtype, stored_state
from .safetensors_files import load_safetensors, save_safetensors
from .state import check_state, infer_config
from .torch_files import is_torch_suffix, load_torch
from .torch_writer import save_torch


def convert(
    src: str | os.PathLike[str],
    dst: str | os.PathLike[str],
    *,
    dtype: object = None,
    overwrite: bool = False,
    format: Literal["pth", "safetensors"] | None = None,
) -> list[Path]:
    """Convert the weights of one target, or a model folder, to another format.

    Parameters
    ----------
    src : path-like
        A ``.pth``, ``.pt``, ``.ckpt`` or ``.safetensors`` file, a ``.chkpnt`` of Open-Unmix's
        trainer, or a model folder. What else a checkpoint holds is left out, see `load_torch`.
    dst : path-like
        A file, whose suffix decides its format (``.pth``, ``.pt`` or ``.safetensors``), or a folder
        when `src` is one.
    dtype : dtype, optional
        What to store: ``"float16"``, ``"float32"``, ``"float64"`` or, in safetensors, ``"int8"``
        for matrices of eight bits. Without it weights keep the dtype they have, and those of eight
        bits become float32.
    overwrite : bool
        Whether existing files may be replaced.
    format : {'pth', 'safetensors'}, optional
        Format of the weights in a folder; safetensors if not given. For a file it must agree with
        the suffix.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ConfigError
        If `dst` exists and `overwrite` is False, or an argument is not usable.
    ModelNotFoundError
        If there is nothing at `src`.
    WeightsError
        If `src` is damaged, holds no Open-Unmix network, or its numbers do not fit `dtype`.

    Notes
    -----
    Wrapper prefixes and buffers that are not part of the network are left out. The descriptions in
    a folder (``<target>.json``) are carried over.
    """
    source, target = Path(os.path.expanduser(src)), Path(os.path.expanduser(dst))
    if format not in (None, "pth", "safetensors"):
        raise ConfigError(f"format={format!r} must be 'pth' or 'safetensors'")
    stored = None if dtype is None else stored_dtype(dtype)
    # As it was given: a path would lose a slash of an address.
    shown = os.path.expanduser(src)
    if not os.path.exists(shown):
        raise ModelNotFoundError(f"src={shown!r} cannot be read: {why_unreadable(shown)}")
    if target.exists() and source.resolve() == target.resolve():
        raise ConfigError(f"src and dst={str(target)!r} are the same; give another dst")
    if source.is_dir():
        return _convert_folder(source, target, stored, overwrite, format or "safetensors")
    return [_convert_file(source, target, stored, overwrite, format)]


def _convert_file(
    source: Path, target: Path, dtype: np.dtype | None, overwrite: bool, format: str | None
) -> Path:
    suffix = target.suffix.lower()
    if suffix not in (".pth", ".pt", ".safetensors"):
        raise ConfigError(f"dst={str(target)!r} must end in .pth, .pt or .safetensors")
    if format is not None and (format == "safetensors") != (suffix == ".safetensors"):
        raise ConfigError(f"format={format!r} contradicts the suffix of dst={str(target)!r}")
    check_format(suffix[1:], dtype)
    if target.is_dir():
        raise ConfigError(f"dst={str(target)!r} is a folder; give the name of a file")
    if target.exists() and not overwrite:
        raise ConfigError(f"dst={str(target)!r} exists; use overwrite=True to replace it")
    network = load_network(source)
    try:
        state = stored_state(network.state, dtype)
    except WeightsError as error:
        raise WeightsError(f"src={str(source)!r}: {error}") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    if suffix == ".safetensors":
        save_safetensors(state, target, network.config)
    else:
        save_torch(state, target)
    return target


def load_network(path: str | os.PathLike[str]) -> TargetWeights:
    """Read one network in the dtype that it has.

    Parameters
    ----------
    path : path-like
        A file of weights; its suffix says how to read it.

    Returns
    -------
    TargetWeights

    Raises
    ------
    ConfigError
        If the suffix is none of weights.
    WeightsError
        If the file is damaged or holds no Open-Unmix network.
    """
    source = Path(path)
    if source.suffix.lower() == ".safetensors":
        raw = load_safetensors(source)
    elif is_torch_suffix(source):
        raw = load_torch(source)
    else:
        raise ConfigError(
            f"src={str(source)!r} must end in .pth, .pt, .ckpt, .chkpnt or .safetensors"
        )
    try:
        config = infer_config(raw)
        return TargetWeights(config, check_state(raw, config, dtype=None))
    except WeightsError as error:
        raise WeightsError(f"src={str(source)!r}: {error}") from error


def _convert_folder(
    source: Path,
    target: Path,
    dtype: np.dtype | None,
    overwrite: bool,
    format: Literal["pth", "safetensors"],
) -> list[Path]:
    if target.is_file():
        raise ConfigError(f"dst={str(target)!r} is a file; a folder is converted to a folder")
    bundle = load_folder(source, dtype=None)
    descriptions = {
        name: read_json(path)
        for name in bundle.targets
        if (path := source / f"{name}.json").is_file() and path.name != SEPARATOR_FILE
    }
    return save_folder(
        bundle,
        target,
        format,
        dtype=dtype,
        overwrite=overwrite,
        descriptions=descriptions,
    )
