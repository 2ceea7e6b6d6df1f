"""The JSON of a model folder: ``separator.json`` and ``<target>.json``, as they are read.

They have to agree with the weights, whose shapes tell the architecture.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from .._support.inputs import read_json
from ..config import (
    LARGEST,
    ModelConfig,
    check_hop,
    check_input_level,
    check_int,
    check_precision,
    check_rate,
)
from ..errors import ConfigError, UmxError, WeightsError, shortened
from .bundle import TargetWeights

logger = logging.getLogger(__name__)

SEPARATOR_FILE = "separator.json"
# Keys of results["args"], in the spelling of Open-Unmix's trainer, and where they are found.
ARGUMENTS = ("nb_channels", "hidden_size", "nb_layers", "unidirectional")

_DEFAULT_RATE = 44100.0
_OUR_NAMES = {"nfft": "n_fft"}
_MAX_LICENSE_LENGTH = 200
_MAX_LISTED = 6


def read_separator(folder: Path, error: type[UmxError] = WeightsError) -> dict[str, Any] | None:
    """Read ``separator.json`` of a model folder as it is.

    Parameters
    ----------
    folder : Path
        Folder of a model.
    error : type of UmxError
        What to raise where the file cannot be read.

    Returns
    -------
    dict or None
        None if there is no such file; a link to nothing is an error, as in `load_arguments`.
    """
    path = folder / SEPARATOR_FILE
    return read_json(path, error) if os.path.lexists(path) else None


def load_arguments(description: Path) -> dict[str, Any]:
    """Return the arguments that a target was trained with, as far as they are known."""
    # A link to nothing is an error: whoever made it wanted something to be read.
    if not os.path.lexists(description):
        logger.info("%s does not exist; the weights tell the architecture", description)
        return {}
    arguments = read_json(description).get("args")
    if not isinstance(arguments, dict):
        raise WeightsError(
            f"path={str(description)!r} has no 'args' object, so it was not written by a trainer"
        )
    return arguments


def check_described(description: Path, arguments: dict[str, Any], config: ModelConfig) -> None:
    """Make sure that the description of a target and its weights tell the same."""
    for key in ARGUMENTS:
        expected = getattr(config, key)
        if key in arguments and arguments[key] != expected:
            raise WeightsError(
                f"the weights have {key}={expected!r}, but {description.name} says "
                f"{key}={shortened(arguments[key])}; the two files do not belong together"
            )
    if "nfft" in arguments:
        n_fft = _integer(description, arguments, "nfft")
        if n_fft // 2 + 1 != config.nb_bins:
            raise WeightsError(
                f"the weights have nb_bins={config.nb_bins}, but {description.name} says "
                f"nfft={n_fft}; the two files do not belong together"
            )


def _integer(path: Path, values: dict[str, Any], key: str) -> int:
    try:
        # Bounds of our names hold for Open-Unmix's.
        return check_int(key, values.get(key), 1, LARGEST.get(_OUR_NAMES.get(key, key)))
    except ConfigError as error:
        raise WeightsError(f"path={str(path)!r}: {error}") from error


def load_settings(
    folder: Path, weights: dict[str, TargetWeights], arguments: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return what a `ModelBundle` says about the STFT."""
    path = folder / SEPARATOR_FILE
    values = read_separator(folder)
    if values is None:
        values = _infer_separator(folder, arguments)
        logger.warning(
            "%s does not exist; using n_fft=%s, n_hop=%s, sample_rate=%s from the targets",
            path, values["nfft"], values["nhop"], values["sample_rate"],
        )  # fmt: skip
    n_fft, n_hop = _integer(path, values, "nfft"), _integer(path, values, "nhop")
    nb_channels, level = _integer(path, values, "nb_channels"), values.get("input_level")
    try:
        rate = check_rate("sample_rate", values.get("sample_rate"))
        check_hop("nhop", n_hop, "nfft", n_fft)
        level = None if level is None else check_input_level(level)
    except ConfigError as error:
        raise WeightsError(f"path={str(path)!r}: {error}") from error
    for target, weight in weights.items():
        if (weight.config.nb_bins, weight.config.nb_channels) != (n_fft // 2 + 1, nb_channels):
            raise WeightsError(
                f"path={str(path)!r} has nfft={n_fft}, nb_channels={nb_channels}, but the weights "
                f"of target={target!r} have nb_bins={weight.config.nb_bins}, "
                f"nb_channels={weight.config.nb_channels}"
            )
    return {
        "sample_rate": rate,
        "n_fft": n_fft,
        "n_hop": n_hop,
        "nb_channels": nb_channels,
        "license": _license(path, values.get("license")),
        "input_level": level,
        "precision": recommended_precision(folder),
    }


def recommended_precision(folder: Path) -> str | None:
    """Return the precision that a model folder recommends to separate with.

    Parameters
    ----------
    folder : Path
        The folder.

    Returns
    -------
    {'full', 'fast', 'int8'} or None
        None if it recommends none.

    Raises
    ------
    WeightsError
        If its ``separator.json`` is damaged, or names a precision that there is not.
    """
    path = folder / SEPARATOR_FILE
    precision = read_json(path).get("precision") if os.path.lexists(path) else None
    try:
        return None if precision is None else check_precision(precision)
    except ConfigError as error:
        raise WeightsError(f"path={str(path)!r}: {error}; update umx_np") from error


def _license(path: Path, value: object) -> str | None:
    """Return the licence that a file names; it is shown in messages and tables."""
    if not isinstance(value, str):
        return None
    if len(value) > _MAX_LICENSE_LENGTH or not value.isprintable():
        raise WeightsError(
            f"path={str(path)!r} has license={shortened(value)}; give its name in one line"
        )
    return value


def _infer_separator(folder: Path, arguments: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Take the settings from the arguments of the targets, which must agree."""
    values: dict[str, Any] = {}
    for key in ("nfft", "nhop", "nb_channels"):
        found = {shortened(args[key]): args[key] for args in arguments.values() if key in args}
        if len(found) != 1:
            listed = ", ".join(list(found)[:_MAX_LISTED])
            problem = f"disagree on {key} ({listed})" if found else f"do not say {key}"
            raise WeightsError(
                f"path={str(folder)!r} has no {SEPARATOR_FILE}, and its targets {problem}; write "
                'one such as {"nfft": 4096, "nhop": 1024, "sample_rate": 44100.0, "nb_channels": 2}'
            )
        values[key] = next(iter(found.values()))
    rates = [args["sample_rate"] for args in arguments.values() if "sample_rate" in args]
    values["sample_rate"] = rates[0] if rates else _DEFAULT_RATE
    return values
