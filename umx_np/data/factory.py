"""`load_datasets`: the datasets that options describe."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

from ..errors import ConfigError
from .aligned import AlignedDataset
from .augmentations import Compose, aug_from_str
from .base import UnmixDataset
from .contents import report_contents
from .folders import FileDataset
from .musdb18 import MUSDBDataset, check_preview, named_root
from .options import check_names, complete
from .sourcefolder import SourceFolderDataset
from .trackfolder import FixedSourcesTrackFolderDataset
from .trackfolder_var import VariableSourcesTrackFolderDataset

logger = logging.getLogger(__name__)

_Pair: TypeAlias = tuple[FileDataset, FileDataset]

# The class, the options of both sets, and those of the training set alone.
_KINDS: dict[str, tuple[Callable[..., FileDataset], tuple[str, ...], tuple[str, ...]]] = {
    "aligned": (AlignedDataset, ("input_file", "output_file", "seq_dur"), ()),
    "sourcefolder": (
        SourceFolderDataset,
        ("target_dir", "interferer_dirs", "ext", "seed", "seq_dur"),
        (),
    ),
    "trackfolder_fix": (
        FixedSourcesTrackFolderDataset,
        ("target_file", "interferer_files"),
        (
            "seq_dur",
            "random_track_mix",
            "coherent_share",
            "mix_level",
            "speed",
            "samples_per_track",
        ),
    ),
    "trackfolder_var": (
        VariableSourcesTrackFolderDataset,
        ("target_file", "ext", "silence_missing"),
        ("seq_dur", "random_interferer_mix"),
    ),
}
# Options whose argument has another name.
_ARGUMENTS = {"seq_dur": "seq_duration", "silence_missing": "silence_missing_targets"}


def load_datasets(
    args: argparse.Namespace | Mapping[str, Any] | None = None, **options: Any
) -> tuple[UnmixDataset, UnmixDataset]:
    """Make the datasets to train and to validate with.

    Parameters
    ----------
    args : Namespace, mapping or None
        Options by the names they have on the command line (``seq_dur``, ``source_augmentations``);
        what is missing has its default there, and what is none of them is not looked at.
    **options
        More of them.

    Returns
    -------
    train, valid : UnmixDataset
        The ``target`` of both says what is separated. ``musdb`` and the track folders are
        validated on whole tracks, the others on excerpts.

    Raises
    ------
    ConfigError
        If an option is missing, belongs to another dataset, or there is nothing to load.
    AudioError
        If a file cannot be read.
    DownloadError
        If there is no root, and not all excerpts of MUSDB18 can be downloaded.

    Notes
    -----
    Of the augmentations, only ``force_stereo`` is applied to the validation set: without it, mono
    files could be trained with but not validated. Upstream applies none.
    """
    given = {} if args is None else dict(vars(args) if hasattr(args, "__dict__") else args)
    check_names(options, options)
    values = complete({**given, **options})
    if values["dataset"] != "musdb" and values["root"] is None:
        raise ConfigError(f"root=None: dataset={values['dataset']!r} needs a folder")
    shared = {"cache": values["cache"], "progress": not values["quiet"]}
    augmentations = aug_from_str(values.get("source_augmentations"))
    make = _musdb if values["dataset"] == "musdb" else _folders
    train, valid = make(values, augmentations, shared)
    report_contents(train, valid)
    return train, valid


def _folders(values: Mapping[str, Any], augmentations: Compose, shared: dict[str, Any]) -> _Pair:
    kind, of_both, of_training = _KINDS[values["dataset"]]

    def arguments(names: Iterable[str]) -> dict[str, Any]:
        return {_ARGUMENTS.get(name, name): values[name] for name in names}

    both = arguments(("root", *of_both)) | shared
    train, valid = arguments(of_training), {}
    if "source_augmentations" in values:
        train["source_augmentations"] = augmentations
        valid["source_augmentations"] = augmentations.without_random()
    if "nb_train_samples" in values:
        train["nb_samples"] = values["nb_train_samples"]
        valid["nb_samples"] = values["nb_valid_samples"]
    else:
        train["random_chunks"] = True
    return kind(split="train", **both, **train), kind(split="valid", **both, **valid)


def _musdb(values: Mapping[str, Any], augmentations: Compose, shared: dict[str, Any]) -> _Pair:
    root = named_root(values["root"])
    files = {"target": values["target"], "root": root, "is_wav": values["is_wav"]}
    files |= {"subsets": "train", "download": root is None, **shared}
    train = MUSDBDataset(
        split="train",
        samples_per_track=values["samples_per_track"],
        seq_duration=values["seq_dur"],
        source_augmentations=augmentations,
        random_track_mix=True,
        **files,
    )
    valid = MUSDBDataset(split="valid", samples_per_track=1, seq_duration=None, **files)
    if root is None:
        check_preview(train.root, "train")
        logger.warning("the excerpts in %s are for trials: name a root to train", train.root)
    return train, valid
