"""Model folders as Open-Unmix's trainer writes them.

A folder holds for each target ``<target>.json`` (arguments and history of the training) and
``<target>.pth`` (weights), and for all of them ``separator.json`` (STFT parameters). Open-Unmix
does not restore `unidirectional` and `nb_layers`; here the shapes of the weights tell them. Weights
may also be ``<target>.safetensors``, which say their architecture themselves.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from .._support.atomic import atomic_write
from .._support.inputs import why_unreadable
from ..config import in_usual_order, is_file_name
from ..errors import ConfigError, ModelNotFoundError, WeightsError, shortened
from .bundle import ModelBundle, StateDict, TargetWeights
from .documents import ARGUMENTS, SEPARATOR_FILE, check_described, load_arguments, load_settings
from .quantization import check_quantized, dequantize, stored_dtype, stored_state
from .replacing import finish_replacements
from .safetensors_files import (
    load_safetensors,
    load_safetensors_config,
    save_safetensors,
)
from .state import check_state, infer_config, same_architecture
from .torch_files import load_torch
from .torch_writer import save_torch

logger = logging.getLogger(__name__)

_SUFFIXES = {"pth": ".pth", "safetensors": ".safetensors"}
# What is read where none of these is there, if it is the only one.
_OTHERS = (".pt", ".ckpt")


def is_model_folder(path: str | os.PathLike[str]) -> bool:
    """Whether a folder holds a model, judged by the names of its files.

    Parameters
    ----------
    path : path-like
        Any path.

    Returns
    -------
    bool
        True if there are weights with a ``<target>.json`` beside them, weights beside a
        ``separator.json``, or safetensors files.
    """
    # Of "~somebody" who does not exist `Path.expanduser` would make an error.
    folder = Path(os.path.expanduser(path))
    try:
        names = [entry.name for entry in folder.iterdir()]
    except (OSError, ValueError):  # ValueError: a null character in the name
        return False
    weights = [name for name in names if name.endswith((*_SUFFIXES.values(), *_OTHERS))]
    if any(name.endswith(".safetensors") for name in weights):
        return True
    return any(
        name == SEPARATOR_FILE or _candidates(folder, name[: -len(".json")], names)
        for name in names
        if weights and name.endswith(".json")
    )


def load_folder(
    path: str | os.PathLike[str],
    targets: Iterable[str] | str | None = None,
    *,
    dtype: object = np.float32,
) -> ModelBundle:
    """Read a model folder.

    Parameters
    ----------
    path : path-like
        Folder written by Open-Unmix's trainer or by `save_folder`.
    targets : iterable of str, optional
        Targets to load, in this order. Without it all that the folder holds: vocals, drums, bass
        and other first, then the rest by name.
    dtype : dtype or None
        Floating dtype of the weights; None keeps that of the files. int8 gives matrices of eight
        bits with scales, as `umx_np.weights.quantization.check_quantized` does: those that are
        stored so are never expanded, and one target after the other is rounded.

    Returns
    -------
    ModelBundle
        Named like the folder.

    Raises
    ------
    ModelNotFoundError
        If the folder does not exist or holds no model.
    ConfigError
        If a target is not in the folder, or is asked for twice.
    WeightsError
        If a file is damaged or contradicts another.

    Notes
    -----
    The weights of a target are ``<target>.pth``, else ``<target>.safetensors``, else the only file
    named ``<target>.pt``, ``<target>.ckpt``, ``<target>-*.pth`` or ``<target>_*.pth``. Without
    ``separator.json`` the STFT parameters are taken from ``<target>.json`` and the rate is taken to
    be 44100 Hz, with a note in the log.
    """
    folder = Path(os.path.expanduser(path))
    finish_replacements(folder)
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(
            f"path={str(folder)!r} is no folder that can be read: "
            f"{why_unreadable(str(folder), error if isinstance(error, OSError) else None)}"
        ) from error
    available = _find_targets(folder, names)
    chosen = check_targets(targets, available, str(folder), known_only=False)
    if not chosen:
        raise ModelNotFoundError(
            f"path={str(folder)!r} holds no model: expected <target>.json and <target>.pth"
        )
    weights: dict[str, TargetWeights] = {}
    arguments: dict[str, dict[str, Any]] = {}
    for target in chosen:
        file = _find_weights(folder, target, names, available)
        weights[target], arguments[target] = _load_target(folder, target, file, dtype)
    settings = load_settings(folder, weights, arguments)
    return ModelBundle(name=folder.resolve().name, targets=weights, **settings)


def check_targets(
    targets: Iterable[str] | str | None,
    available: Iterable[str],
    model: str,
    *,
    known_only: bool = True,
) -> list[str]:
    """Return the targets to load, or say which ones a model has.

    Parameters
    ----------
    targets : iterable of str, str or None
        What was asked for; None means all.
    available : iterable of str
        Targets of the model.
    model : str
        Its name, for the message.
    known_only : bool
        Whether a target that is not in `available` is an error.

    Returns
    -------
    list of str
        In the order asked for.

    Raises
    ------
    ConfigError
        If a target is unknown, named twice, or no target is left.
    """
    available = list(available)
    if targets is None:
        return available
    try:
        chosen = [targets] if isinstance(targets, str) else list(targets)
    except TypeError as error:
        raise ConfigError(f"targets={shortened(targets)} must be names of targets") from error
    valid = f"valid targets of model={model!r}: {', '.join(available) or 'none'}"
    if not chosen:
        raise ConfigError(f"targets={chosen!r} is empty; {valid}")
    for index, target in enumerate(chosen):
        if not is_file_name(target):
            raise ConfigError(f"target={target!r} is no name of a target; {valid}")
        if known_only and target not in available:
            raise ConfigError(f"target={target!r} is not known; {valid}")
        if target in chosen[:index]:
            raise ConfigError(f"target={target!r} is named twice; {valid}")
    return chosen


def _candidates(folder: Path, target: str, names: Iterable[str]) -> list[Path]:
    """Files that may hold the weights of a target, the best kind only."""
    names = list(names)
    for suffix in _SUFFIXES.values():
        if target + suffix in names:
            return [folder / (target + suffix)]
    starts = (f"{target}-", f"{target}_")
    others = [target + suffix for suffix in _OTHERS if target + suffix in names]
    others += [name for name in names if name.startswith(starts) and name.endswith(".pth")]
    return [folder / name for name in others]


def _find_targets(folder: Path, names: list[str]) -> list[str]:
    """Targets whose weights and description are in the folder."""
    found = {Path(name).stem for name in names if name.endswith(".safetensors")}
    for name in names:
        target = name[: -len(".json")]
        if name.endswith(".json") and name != SEPARATOR_FILE and _candidates(folder, target, names):
            found.add(target)
    return in_usual_order(found)


def _find_weights(folder: Path, target: str, names: list[str], available: list[str]) -> Path:
    # "drums_2.pth" is no file of the target "drums" when there is a target "drums_2".
    others = {f"{other}.pth" for other in available if other != target}
    files = [file for file in _candidates(folder, target, names) if file.name not in others]
    if len(files) == 1:
        return files[0]
    if files:
        listed = ", ".join(file.name for file in files)
        raise WeightsError(
            f"path={str(folder)!r} holds several weights of target={target!r}: {listed}; "
            f"keep one, or name it {target}.pth"
        )
    raise ConfigError(
        f"target={target!r} is not in path={str(folder)!r}: no {target}.pth, "
        f"{target}.safetensors, {target}.pt, {target}.ckpt or {target}-<hash>.pth; "
        f"valid targets: {', '.join(available) or 'none'}"
    )


def _load_target(
    folder: Path, target: str, file: Path, dtype: object
) -> tuple[TargetWeights, dict[str, Any]]:
    """Return the weights of a target and the arguments it was trained with."""
    embedded = None
    raw: StateDict
    in_eight_bits = dtype is not None and np.dtype(dtype) == np.int8  # type: ignore[call-overload]
    if file.suffix == ".safetensors":
        raw = load_safetensors(file, quantized=in_eight_bits)
        embedded, _ = load_safetensors_config(file)
    else:
        raw = load_torch(file)
    description = folder / f"{target}.json"
    arguments = load_arguments(description)
    try:
        config = infer_config(raw)
        if embedded is not None and not same_architecture(embedded, config):
            raise WeightsError(f"the weights fit {config}, but the file says {embedded}")
        check_described(description, arguments, config)
        if in_eight_bits:
            state = check_quantized(raw, config)
        else:
            state = check_state(raw, config, dtype=dtype)
    except WeightsError as error:
        raise WeightsError(f"path={str(file)!r}: {error}") from error
    return TargetWeights(config, state), arguments


def save_folder(
    bundle: ModelBundle,
    path: str | os.PathLike[str],
    format: Literal["pth", "safetensors"] = "pth",
    *,
    dtype: object = None,
    overwrite: bool = True,
    descriptions: dict[str, dict[str, Any]] | None = None,
) -> list[Path]:
    """Write a model folder that Open-Unmix's ``load_separator`` reads.

    Parameters
    ----------
    bundle : ModelBundle
        The model.
    path : path-like
        Folder; made if needed. Each file is written completely before it takes its name.
    format : {'pth', 'safetensors'}
        Kind of the weights. Open-Unmix reads ``pth`` only.
    dtype : dtype, optional
        What to store the weights in, as for `save_safetensors`; int8 in safetensors only.
    overwrite : bool
        Whether files of the same names may be replaced.
    descriptions : dict of str to dict, optional
        Contents of ``<target>.json`` to keep, such as the history of the training. The arguments
        that describe the architecture are added to their ``"args"``.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ConfigError
        If the folder holds weights of a target in another form, which would win over these or be
        ambiguous, or files to be kept; or if `dtype` cannot be stored in `format`.
    WeightsError
        If the weights do not fit their configuration or cannot be stored.

    Notes
    -----
    Open-Unmix cannot read unidirectional networks or ones with another number of layers than 3.
    """
    if format not in _SUFFIXES:
        raise ConfigError(f"format={format!r} must be 'pth' or 'safetensors'")
    folder = Path(os.path.expanduser(path))
    check_targets(list(bundle.targets), bundle.targets, bundle.name)
    target_dtype = None if dtype is None else stored_dtype(dtype)
    check_format(format, target_dtype)
    files = {target: folder / (target + _SUFFIXES[format]) for target in bundle.targets}
    _check_folder(folder, files, overwrite)
    # All is checked before the first file is touched.
    states = {
        target: stored_state(
            check_state(dequantize(weights.state), weights.config, dtype=None), target_dtype
        )
        for target, weights in bundle.targets.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for target, weights in bundle.targets.items():
        if format == "safetensors":
            save_safetensors(states[target], files[target], weights.config)
        else:
            save_torch(states[target], files[target])
        document = dict((descriptions or {}).get(target, {}))
        known = document.get("args")
        document["args"] = {
            "target": target,
            **(known if isinstance(known, dict) else {}),
            **architecture_arguments(bundle, target),
        }
        written += [files[target], write_json(folder / f"{target}.json", document)]
    if bundle.input_level is not None and format == "pth":
        logger.warning(
            "%s: Open-Unmix does not know input_level=%g dB, so that it separates loud music "
            "only with this model; umx_np goes on bringing mixtures to this level",
            folder,
            bundle.input_level,
        )
    written.append(write_json(folder / SEPARATOR_FILE, separator_document(bundle)))
    return written


def check_format(format: str, dtype: np.dtype | None) -> None:
    """Make sure that a format can hold a dtype.

    Raises
    ------
    ConfigError
        For matrices of eight bits in PyTorch's files, whose readers would not know the scales.
    """
    if format != "safetensors" and dtype == np.int8:
        raise ConfigError(f"dtype='int8' is for safetensors only, not for format={format!r}")


def _check_folder(folder: Path, files: dict[str, Path], overwrite: bool) -> None:
    names = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    for target, file in files.items():
        rivals = {target + suffix for suffix in _SUFFIXES.values()} - {file.name}
        clash = sorted(rivals.intersection(names))
        if clash:
            raise ConfigError(
                f"path={str(folder)!r} already holds {clash[0]}; remove it or use another folder, "
                "so that it is clear which weights count"
            )
    if not overwrite:
        planned = {file.name for file in files.values()} | {f"{target}.json" for target in files}
        existing = sorted((planned | {SEPARATOR_FILE}).intersection(names))
        if existing:
            raise ConfigError(
                f"path={str(folder)!r} already holds {', '.join(existing)}; "
                "use overwrite=True to replace them"
            )


def write_json(path: Path, document: Mapping[str, Any]) -> Path:
    """Write a document in the layout of Open-Unmix's trainer, complete or not at all."""
    # What JSON does not know, such as paths, is written as text.
    text = json.dumps(document, indent=4, sort_keys=True, default=str)
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))
    return path


def architecture_arguments(bundle: ModelBundle, target: str) -> dict[str, Any]:
    """Return the ``"args"`` of ``<target>.json`` that describe network and STFT."""
    config = bundle.targets[target].config
    described = {key: getattr(config, key) for key in ARGUMENTS}
    return {"nfft": bundle.n_fft, "nhop": bundle.n_hop, **described}


def separator_document(bundle: ModelBundle) -> dict[str, Any]:
    """Return the content of ``separator.json`` as Open-Unmix's trainer writes it, and what we add.

    That are the licence, the level and the precision of the model, where it has them.
    """
    document = {
        "nfft": bundle.n_fft,
        "nhop": bundle.n_hop,
        "sample_rate": float(bundle.sample_rate),
        "nb_channels": bundle.nb_channels,
        "license": bundle.license,
        "input_level": bundle.input_level,
        "precision": bundle.precision,
    }
    return {key: value for key, value in document.items() if value is not None}
