"""``umx-np evaluate --reproduce``: with the settings of published scores, and beside them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._support.console import show
from ..errors import ConfigError
from .frame import table

if TYPE_CHECKING:
    from ..evaluation import Evaluation

# What the published scores were made with.
_SETTINGS: dict[str, Any] = {
    "niter": 1,
    "wiener_win_len": None,
    "softmask": False,
    "residual": None,
    "aggregate": None,
    "targets": None,
    "estimates": None,
    "subset": "test",
    "precision": "full",
}


def add_option(group: argparse._ArgumentGroup) -> None:
    """Add the option to a group of those of ``umx-np evaluate``."""
    group.add_argument(
        "--reproduce",
        metavar="NAME",
        help="evaluate this published model as its authors did, on the MUSDB18 in --root, and show "
        "their scores beside (umx, umxhq or umxl)",
    )


def settle(args: argparse.Namespace) -> None:
    """Set the model; make sure that nothing else is asked for than what the scores were made with.

    Raises
    ------
    ConfigError
        If nothing is published of the model, or an option says something else.
    """
    from ..evaluation.published import published_scores

    name = args.reproduce
    published_scores(name)
    if args.root is None:
        raise ConfigError(f"--reproduce {name}: name the folder of MUSDB18 with --root")
    if args.model not in (None, name):
        raise _contradiction(name, "model", args.model, name)
    for option, wanted in _SETTINGS.items():
        given = getattr(args, option)
        # None, False, 0 and an empty text all say that there is none.
        if (given or None) != (wanted or None):
            raise _contradiction(name, option, given, wanted)
    args.model = name


def _contradiction(name: str, option: str, given: object, wanted: object) -> ConfigError:
    flag = "--" + option.replace("_", "-")
    return ConfigError(
        f"--reproduce {name} contradicts {flag} {given}: the published scores were made with "
        f"{wanted or 'none'}; leave one out"
    )


def report(result: Evaluation, args: argparse.Namespace) -> None:
    """Show the published scores beside ours, and write both where scores are written."""
    from .._support.atomic import atomic_write
    from ..evaluation.published import Reproduction

    both = Reproduction.of(result, args.reproduce)
    show("")
    show(f"{args.reproduce}: published and here, median of frames and then of tracks, in dB")
    show(table(both.rows()))
    show(f"published: {both.published.source}")
    for line in both.reservations:
        show(f"not comparable: {line}")
    if args.evaldir is not None:
        path = Path(args.evaldir).expanduser() / f"{args.subset}_published.json"
        with atomic_write(path) as file:
            file.write((both.to_json() + "\n").encode())
