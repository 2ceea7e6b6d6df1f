"""The models that have names: files, hashes, licences and architectures, from ``models.json``.

`PUBLISHED` are those of Open-Unmix, which are downloaded; `BUNDLED` are part of this package. The
eight hexadecimal digits in the name of a published file are the beginning of its SHA-256. Where the
whole value or other hashes are known they are in ``models.json``, and all of them are verified.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..config import DEFAULT_MODEL, ModelConfig
from ..errors import ModelNotFoundError

logger = logging.getLogger(__name__)

_PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class PublishedFile:
    """One file of weights and how to recognise it.

    Attributes
    ----------
    target : str
        What the network extracts.
    filename : str
        Name of the file, at its source and in the cache.
    url : str
        Where it is published.
    sha256 : str
        SHA-256 in hexadecimal digits, or the beginning of it.
    sha512, md5 : str or None
        Further hashes, where known.
    size : int or None
        Exact size in bytes, where known.
    """

    target: str
    filename: str
    url: str
    sha256: str
    sha512: str | None = None
    md5: str | None = None
    size: int | None = None

    @property
    def hashes(self) -> dict[str, str]:
        """Known hashes by algorithm; each is the beginning of the digest or all of it."""
        known = {"sha256": self.sha256, "sha512": self.sha512, "md5": self.md5}
        return {algorithm: value for algorithm, value in known.items() if value is not None}

    @property
    def nb_verified_bits(self) -> int:
        """Bits of the longest hash that is known; MD5 does not count, since it can be forged."""
        return max(4 * len(value) for name, value in self.hashes.items() if name != "md5")


@dataclass(frozen=True)
class ModelInfo:
    """A model that has a name.

    Attributes
    ----------
    name : str
        Name in the registry.
    description, advice : str
        A line each: what it is, and what for.
    sdr : mapping of str to float
        Median SDR of the stems in dB, as far as there are figures.
    sdr_source : str or None
        Who says so, and of which songs.
    license : str or None
        Licence of the weights; None where the publisher's page has to be asked.
    non_commercial : bool
        Whether the licence forbids commercial use.
    page : str
        Where the model is described.
    files : mapping of str to PublishedFile
        What is downloaded: one per target, in the order in which stems are returned. Empty for a
        model that comes with the package.
    config : ModelConfig
        Architecture of each network.
    sample_rate, n_fft, n_hop, nb_channels
        As in `SeparatorConfig`.
    nb_parameters : int
        Numbers in each network.
    bundled_targets : tuple of str
        Targets of a model that comes with the package.
    bytes_per_number : int
        4 for float32, 1 for matrices of eight bits.
    """

    name: str
    description: str
    advice: str
    sdr: Mapping[str, float]
    sdr_source: str | None
    license: str | None
    non_commercial: bool
    page: str
    files: Mapping[str, PublishedFile]
    config: ModelConfig
    sample_rate: float
    n_fft: int
    n_hop: int
    nb_channels: int
    nb_parameters: int
    bundled_targets: tuple[str, ...] = ()
    bytes_per_number: int = 4

    @property
    def is_bundled(self) -> bool:
        """Whether the model comes with the package, so that nothing is downloaded."""
        return bool(self.bundled_targets)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the targets, in order."""
        return self.bundled_targets or tuple(self.files)

    @property
    def nb_bytes(self) -> int:
        """Size of the numbers of all networks, as they are stored."""
        return self.bytes_per_number * self.nb_parameters * len(self.targets)

    @property
    def max_file_size(self) -> int:
        """Bytes that no file exceeds: its numbers, and room for what describes them."""
        return 4 * self.nb_parameters + (4 << 20)


def _model(name: str, values: dict[str, Any]) -> ModelInfo:
    files = {
        target: PublishedFile(target, file["url"].rpartition("/")[2], **file)
        for target, file in values["files"].items()
    }
    if values["page"].startswith("assets/"):
        values["page"] = str(_PACKAGE / values["page"])
    values["sdr"] = MappingProxyType(values["sdr"])
    values["config"] = ModelConfig(**values["config"])
    values["bundled_targets"] = tuple(values.get("bundled_targets", ()))
    return ModelInfo(name, **{**values, "files": MappingProxyType(files)})


_MODELS = [
    _model(name, values)
    for name, values in json.loads(Path(__file__).with_suffix(".json").read_bytes()).items()
]
BUNDLED = MappingProxyType({model.name: model for model in _MODELS if model.is_bundled})
PUBLISHED = MappingProxyType({model.name: model for model in _MODELS if not model.is_bundled})


def registry() -> Mapping[str, ModelInfo]:
    """Return the models by name: the one that comes with this package, then the published ones.

    Returns
    -------
    mapping of str to ModelInfo
        Read-only.
    """
    return MappingProxyType({**BUNDLED, **PUBLISHED})


def model_names() -> tuple[str, ...]:
    """Return the names of the models.

    Examples
    --------
    >>> model_names()
    ('umxm', 'umx', 'umxhq', 'umxl', 'umxse')
    """
    return tuple(registry())


def get_model_info(name: str) -> ModelInfo:
    """Return what is known about a model.

    Parameters
    ----------
    name : str
        Name in the registry.

    Returns
    -------
    ModelInfo
        Files, hashes, licence, architecture and STFT parameters.

    Raises
    ------
    ModelNotFoundError
        If there is no such model; the message lists those that there are.

    Examples
    --------
    >>> get_model_info("umxl").license
    'CC BY-NC-SA 4.0'
    """
    try:
        return registry()[name]
    except (KeyError, TypeError):
        raise ModelNotFoundError(
            f"model={name!r} is not known; choose one of {', '.join(model_names())}, "
            "or give the path of a folder that holds a model"
        ) from None


def default_model() -> str:
    """Return the name of the model to use where none is named, and log which one that is."""
    notice = default_notice()
    if notice is not None:
        logger.info("%s", notice)
    return DEFAULT_MODEL


def default_notice() -> str | None:
    """Say in a line what the default model is, and how to get better ones.

    Returns
    -------
    str or None
        None if the default is a published model.
    """
    if not get_model_info(DEFAULT_MODEL).is_bundled:
        return None
    return (
        f"using {DEFAULT_MODEL}, the small model that comes with umx_np; larger ones separate "
        "better: `umx-np download umxhq`, then --model umxhq (or umxl, for non-commercial use)"
    )
