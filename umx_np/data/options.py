"""The options that describe a dataset, on the command line and as keywords."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .aligned import AlignedDataset, is_pattern
from .augmentations import AUGMENTATIONS, aug_from_str
from .base import UnmixDataset
from .contents import report_contents
from .folders import FileDataset
from .musdb18 import MUSDBDataset, check_preview, named_root
from .sourcefolder import SourceFolderDataset
from .trackfolder import FixedSourcesTrackFolderDataset
from .trackfolder_var import VariableSourcesTrackFolderDataset

logger = logging.getLogger(__name__)

DATASETS = ("musdb", "aligned", "sourcefolder", "trackfolder_var", "trackfolder_fix")

# Options of each dataset and their defaults, by the names they have in a namespace.
_OPTIONS: dict[str, dict[str, Any]] = {
    "musdb": {
        "is_wav": False,
        "samples_per_track": 64,
        "source_augmentations": ["gain", "channelswap"],
    },
    "aligned": {"input_file": None, "output_file": None},
    "sourcefolder": {
        "interferer_dirs": None,
        "target_dir": None,
        "ext": ".wav",
        "nb_train_samples": 1000,
        "nb_valid_samples": 100,
        "source_augmentations": None,
    },
    "trackfolder_var": {
        "ext": ".wav",
        "target_file": None,
        "source_augmentations": None,
        "random_interferer_mix": False,
        "silence_missing": False,
    },
    "trackfolder_fix": {
        "target_file": None,
        "interferer_files": None,
        "random_track_mix": False,
        "coherent_share": 0.0,
        "samples_per_track": 1,
        "mix_level": None,
        "speed": None,
        "source_augmentations": None,
    },
}
# Options without which a dataset makes no sense.
_REQUIRED = {
    *("input_file", "output_file"),
    *("target_dir", "interferer_dirs"),
    *("target_file", "interferer_files"),
}
# What all of them take, with the defaults of training.
_COMMON: dict[str, Any] = {
    "dataset": "musdb",
    "root": None,
    "target": "vocals",
    "seq_dur": 6.0,
    "seed": 42,
    "cache": None,
    "quiet": True,
}


def add_dataset_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of all datasets to a parser.

    Adds ``--dataset``, ``--root``, ``--target``, ``--cache`` and those of each dataset. The caller
    adds what its program has besides: `load_datasets` also knows ``--seq-dur``, ``--seed`` and
    ``--quiet``. Use `parse_dataset_options` to parse.

    Parameters
    ----------
    parser : ArgumentParser
        Where to add them.
    """
    group = parser.add_argument_group("dataset")
    group.add_argument(
        "--dataset", choices=DATASETS, default="musdb", help="kind of dataset (default: musdb)"
    )
    group.add_argument(
        "--root",
        help="folder of the dataset; for musdb, none means MUSDB_PATH, or to download excerpts of "
        "7 s",
    )
    group.add_argument(
        "--target",
        default="vocals",
        help="source to separate, for musdb (default: vocals); the other datasets tell by the name "
        "of a file or folder",
    )
    group.add_argument(
        "--cache",
        metavar="DIR",
        help="keep decoded audio in this folder, so that excerpts are read quickly (not in "
        "Open-Unmix)",
    )
    # Absent from the namespace unless given: so it is known whether they fit the dataset.
    group = parser.add_argument_group("options of some datasets")

    def add(flag: str, help: str, **settings: Any) -> None:
        owners = [name for name in DATASETS if _name(flag) in _OPTIONS[name]]
        text = f"{', '.join(owners)}: {help}"
        group.add_argument(flag, help=text, default=argparse.SUPPRESS, **settings)

    add("--is-wav", "wav files in place of stems (MUSDB18-HQ)", action="store_true")
    add(
        "--samples-per-track",
        "items of each track an epoch (default: 64 for musdb, else 1)",
        type=int,
    )
    add("--input-file", "name of the file to hear, may have wildcards")
    add("--output-file", "name of the file to predict, may have wildcards")
    add("--interferer-dirs", "folders of the other sources", nargs="+")
    add("--target-dir", "folder of the target")
    add("--ext", "how names of sound files end (default: .wav)")
    add("--nb-train-samples", "items of an epoch (default: 1000)", type=int)
    add("--nb-valid-samples", "items to validate with (default: 100)", type=int)
    add("--target-file", "name of the target's file in each folder")
    add("--interferer-files", "names of the files to mix with the target", nargs="+")
    add("--random-track-mix", "interferers from random tracks", action="store_true")
    add(
        "--coherent-share",
        "share of items that keep the interferers of one track in spite of --random-track-mix "
        "(default: 0; not in Open-Unmix)",
        metavar="P",
        type=float,
    )
    add(
        "--mix-level",
        "scale each mixture, and the target with it, to a random level between these, in dB of its "
        "root mean square (not in Open-Unmix)",
        nargs=2,
        metavar=("LOW", "HIGH"),
        type=float,
    )
    add(
        "--speed",
        "play each track at a random speed between these, as a tape: pitch and tempo change alike "
        "(not in Open-Unmix)",
        nargs=2,
        metavar=("LOW", "HIGH"),
        type=float,
    )
    add("--random-interferer-mix", "all interferers from a random track", action="store_true")
    add("--silence-missing", "a missing target is silence", action="store_true")
    add(
        "--source-augmentations",
        "what to do to each source before mixing (default: gain channelswap for musdb, else none)",
        nargs="*",
        choices=sorted(AUGMENTATIONS),
    )


def parse_dataset_options(
    parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> argparse.Namespace:
    """Parse a command line that has the options of `add_dataset_options`.

    Parameters
    ----------
    parser : ArgumentParser
        Parser with these options and others.
    argv : sequence of str or None
        Arguments; None takes those of the program.

    Returns
    -------
    Namespace
        With the options of the chosen dataset and their defaults, and those of no other. `target`
        is what the dataset says it is.

    Raises
    ------
    SystemExit
        With a message of the parser, if an option belongs to another dataset or one is missing.
    """
    args = parser.parse_args(argv)
    try:
        values = _complete(vars(args))
    except ConfigError as error:
        parser.error(str(error))
    return argparse.Namespace(**{**vars(args), **values})


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
    known = set(_COMMON).union(*_OPTIONS.values())
    for name in options:
        if name not in known:
            raise ConfigError(f"{name}={options[name]!r} is no option of a dataset")
    values = _complete({**given, **options})
    shared = {"cache": values["cache"], "progress": not values["quiet"]}
    augmentations = aug_from_str(values.get("source_augmentations"))
    layout = augmentations.without_random()
    root, seq_dur, name = values["root"], values["seq_dur"], values["dataset"]
    if name != "musdb" and root is None:
        raise ConfigError(f"root=None: dataset={name!r} needs a folder")
    train: FileDataset
    valid: FileDataset
    if name == "aligned":
        files = {key: values[key] for key in ("input_file", "output_file")}
        files |= {"seq_duration": seq_dur, **shared}
        train = AlignedDataset(root, "train", random_chunks=True, **files)
        valid = AlignedDataset(root, "valid", **files)
    elif name == "sourcefolder":
        folders = {key: values[key] for key in ("interferer_dirs", "target_dir", "ext")}
        folders |= {"seq_duration": seq_dur, "seed": values["seed"], **shared}
        train = SourceFolderDataset(
            root,
            "train",
            nb_samples=values["nb_train_samples"],
            source_augmentations=augmentations,
            **folders,
        )
        valid = SourceFolderDataset(
            root,
            "valid",
            nb_samples=values["nb_valid_samples"],
            source_augmentations=layout,
            **folders,
        )
    elif name == "trackfolder_fix":
        files = {key: values[key] for key in ("target_file", "interferer_files")} | shared
        train = FixedSourcesTrackFolderDataset(
            root,
            "train",
            seq_duration=seq_dur,
            random_chunks=True,
            random_track_mix=values["random_track_mix"],
            coherent_share=values["coherent_share"],
            mix_level=values["mix_level"],
            speed=values["speed"],
            samples_per_track=values["samples_per_track"],
            source_augmentations=augmentations,
            **files,
        )
        valid = FixedSourcesTrackFolderDataset(root, "valid", source_augmentations=layout, **files)
    elif name == "trackfolder_var":
        files = {key: values[key] for key in ("target_file", "ext")} | shared
        files["silence_missing_targets"] = values["silence_missing"]
        train = VariableSourcesTrackFolderDataset(
            root,
            "train",
            seq_duration=seq_dur,
            random_chunks=True,
            random_interferer_mix=values["random_interferer_mix"],
            source_augmentations=augmentations,
            **files,
        )
        valid = VariableSourcesTrackFolderDataset(
            root, "valid", source_augmentations=layout, **files
        )
    else:
        root = named_root(root)
        files = {"target": values["target"], "root": root, "is_wav": values["is_wav"]}
        files |= {"subsets": "train", "download": root is None, **shared}
        train = MUSDBDataset(
            split="train",
            samples_per_track=values["samples_per_track"],
            seq_duration=seq_dur,
            source_augmentations=augmentations,
            random_track_mix=True,
            **files,
        )
        valid = MUSDBDataset(split="valid", samples_per_track=1, seq_duration=None, **files)
        if root is None:
            check_preview(train.root, "train")
            logger.warning("the excerpts in %s are for trials: name a root to train", train.root)
    report_contents(train, valid)
    return train, valid


def _name(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the chosen dataset with their defaults; complain of others."""
    dataset = given.get("dataset", _COMMON["dataset"])
    if dataset not in DATASETS:
        raise ConfigError(f"dataset={dataset!r} must be one of {', '.join(DATASETS)}")
    own = _OPTIONS[dataset]
    for name in set().union(*_OPTIONS.values()) - set(own):
        if given.get(name) not in (None, False, []):
            raise ConfigError(f"{_flag(name)} is no option of dataset={dataset!r}")
    values = {**_COMMON, **own}
    values.update({name: given[name] for name in values if name in given})
    missing = [name for name in own if name in _REQUIRED and not values[name]]
    if missing:
        flags = ", ".join(map(_flag, missing))
        raise ConfigError(f"dataset={dataset!r} needs {flags}")
    return values | _target(values)


def _target(values: Mapping[str, Any]) -> dict[str, str]:
    """Name of the target where the options of the dataset tell it."""
    if isinstance(values.get("target_dir"), str):
        return {"target": os.path.normpath(values["target_dir"])}
    for name in ("target_file", "output_file"):
        if isinstance(values.get(name), str) and not is_pattern(values[name]):
            return {"target": Path(values[name]).stem}
    return {}
