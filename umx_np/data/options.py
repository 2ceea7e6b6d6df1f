"""The options that describe a dataset, on the command line and as keywords.

Nothing heavy is imported, so that a command line is parsed at once; `factory` makes the datasets.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .._support.option_types import option_words
from ..errors import ConfigError, shortened

DATASETS = ("musdb", "aligned", "sourcefolder", "trackfolder_var", "trackfolder_fix")
# Those of `augmentations`, which needs more to be imported than names.
AUGMENTATIONS = ("channelswap", "force_stereo", "gain", "polarity", "tilt", "width")


class _Option:
    """An option of some datasets: what it does, its default in each, and what argparse needs."""

    def __init__(
        self, help: str, defaults: Mapping[str, Any], *, required: bool = False, **settings: Any
    ) -> None:
        self.help, self.defaults, self.required = help, defaults, required
        self.settings = settings


_BOUNDS: dict[str, Any] = {"nargs": 2, "metavar": ("LOW", "HIGH"), "type": float}
# By the names they have in a namespace.
_OPTIONS = {
    "is_wav": _Option(
        "wav files in place of stems (MUSDB18-HQ)", {"musdb": False}, action="store_true"
    ),
    "samples_per_track": _Option(
        "items of each track an epoch (default: 64 for musdb, else 1)",
        {"musdb": 64, "trackfolder_fix": 1},
        type=int,
    ),
    "input_file": _Option(
        "name of the file to hear, may have wildcards", {"aligned": None}, required=True
    ),
    "output_file": _Option(
        "name of the file to predict, may have wildcards", {"aligned": None}, required=True
    ),
    "interferer_dirs": _Option(
        "folders of the other sources", {"sourcefolder": None}, required=True, nargs="+"
    ),
    "target_dir": _Option("folder of the target", {"sourcefolder": None}, required=True),
    "ext": _Option(
        "how names of sound files end (default: .wav)",
        {"sourcefolder": ".wav", "trackfolder_var": ".wav"},
    ),
    "nb_train_samples": _Option(
        "items of an epoch (default: 1000)", {"sourcefolder": 1000}, type=int
    ),
    "nb_valid_samples": _Option(
        "items to validate with (default: 100)", {"sourcefolder": 100}, type=int
    ),
    "target_file": _Option(
        "name of the target's file in each folder",
        {"trackfolder_var": None, "trackfolder_fix": None},
        required=True,
    ),
    "interferer_files": _Option(
        "names of the files to mix with the target",
        {"trackfolder_fix": None},
        required=True,
        nargs="+",
    ),
    "random_track_mix": _Option(
        "interferers from random tracks", {"trackfolder_fix": False}, action="store_true"
    ),
    "coherent_share": _Option(
        "share of items that keep the interferers of one track in spite of --random-track-mix "
        "(default: 0; not in Open-Unmix)",
        {"trackfolder_fix": 0.0},
        metavar="P",
        type=float,
    ),
    "mix_level": _Option(
        "scale each mixture, and the target with it, to a random level between these, in dB of its "
        "root mean square (not in Open-Unmix)",
        {"trackfolder_fix": None},
        **_BOUNDS,
    ),
    "speed": _Option(
        "play each track at a random speed between these, as a tape: pitch and tempo change alike "
        "(not in Open-Unmix)",
        {"trackfolder_fix": None},
        **_BOUNDS,
    ),
    "random_interferer_mix": _Option(
        "all interferers from a random track", {"trackfolder_var": False}, action="store_true"
    ),
    "silence_missing": _Option(
        "a missing target is silence", {"trackfolder_var": False}, action="store_true"
    ),
    "source_augmentations": _Option(
        "what to do to each source before mixing (default: gain channelswap for musdb, else none)",
        {
            "musdb": ["gain", "channelswap"],
            "sourcefolder": None,
            "trackfolder_var": None,
            "trackfolder_fix": None,
        },
        nargs="*",
        choices=AUGMENTATIONS,
    ),
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
    for name, option in _OPTIONS.items():
        owners = ", ".join(dataset for dataset in DATASETS if dataset in option.defaults)
        group.add_argument(
            "--" + name.replace("_", "-"),
            help=f"{owners}: {option.help}",
            default=argparse.SUPPRESS,
            **option.settings,
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
        values = complete(vars(args))
    except ConfigError as error:
        parser.error(option_words(parser)(str(error)))
    return argparse.Namespace(**{**vars(args), **values})


def complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the chosen dataset with their defaults.

    Parameters
    ----------
    given : mapping of str to object
        Options by their names; what is none of a dataset is not looked at.

    Raises
    ------
    ConfigError
        If an option belongs to another dataset, or one is missing.
    """
    dataset = given.get("dataset", _COMMON["dataset"])
    if dataset not in DATASETS:
        raise ConfigError(f"dataset={dataset!r} must be one of {', '.join(DATASETS)}")
    values = dict(_COMMON)
    for name, option in _OPTIONS.items():
        if dataset in option.defaults:
            values[name] = option.defaults[dataset]
        elif given.get(name) not in (None, False, []):
            raise ConfigError(
                f"{name}={shortened(given[name])} is no option of dataset={dataset!r}"
            )
    values.update({name: given[name] for name in values if name in given})
    missing = [
        name for name, option in _OPTIONS.items() if option.required and not values.get(name, True)
    ]
    if missing:
        listed = ", ".join(f"{name}=..." for name in missing)
        raise ConfigError(f"dataset={dataset!r} needs {listed}")
    return values | _target(values)


def check_names(names: Iterable[str], values: Mapping[str, Any]) -> None:
    """Raise `ConfigError` unless these are names of options of some dataset."""
    for name in names:
        if name not in _COMMON and name not in _OPTIONS:
            raise ConfigError(f"{name}={values[name]!r} is no option of a dataset")


def is_pattern(name: str) -> bool:
    """Whether a name of a file has wildcards."""
    return any(mark in name for mark in "*?[")


def _target(values: Mapping[str, Any]) -> dict[str, str]:
    """Name of the target where the options of the dataset tell it."""
    if isinstance(values.get("target_dir"), str):
        return {"target": os.path.normpath(values["target_dir"])}
    for name in ("target_file", "output_file"):
        if isinstance(values.get(name), str) and not is_pattern(values[name]):
            return {"target": Path(values[name]).stem}
    return {}
