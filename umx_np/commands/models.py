"""``umx-np models``: what can be given to ``--model``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from .._support.console import show
from ..errors import DownloadError, ModelNotFoundError
from . import verifying
from .frame import Command, format_size, table


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command to a parser."""
    parser.add_argument("--json", action="store_true", help="write JSON")
    verifying.add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Print the registry, or verify some of its models."""
    if args.verify:
        return verifying.run(args)
    models = collect()
    if args.json:
        print(json.dumps(models, indent=2))
        return 0
    rows = [["name", "SDR of its stems in dB", "size", "licence", "for", "here"]]
    notes: list[str] = []
    for model in models:
        rows.append(
            [
                model["name"],
                _scores(model, notes),
                format_size(model["bytes"]),
                model["license"] or f"see {model['page']}",
                model["advice"],
                _where(model),
            ]
        )
    show(table(rows))
    for number, note in enumerate(notes, 1):
        show(f"{number}) {note}")
    return 0


def _scores(model: dict[str, Any], notes: list[str]) -> str:
    """Stems and their scores, with the number of the note that says whose they are."""
    stems = model["targets"]
    if not model["sdr"]:
        return f"{' '.join(stems)}: no figures"
    if model["sdr_source"] not in notes:
        notes.append(model["sdr_source"])
    numbers = ", ".join(f"{stem} {model['sdr'][stem]:.2f}" for stem in stems)
    return f"{numbers} {notes.index(model['sdr_source']) + 1})"


def collect() -> list[dict[str, Any]]:
    """Describe every pretrained model.

    Returns
    -------
    list of dict
        Only types that JSON knows. ``bytes`` is the size of the numbers of all networks as they
        are stored; ``bundled`` says whether the model comes with the package, and
        ``cached_targets`` are those whose weights are here, verified if they were downloaded.
    """
    from ..pretrained import get_model_info, model_names

    models = []
    for name in model_names():
        info = get_model_info(name)
        models.append(
            {
                "name": name,
                "description": info.description,
                "advice": info.advice,
                "sdr": dict(info.sdr),
                "sdr_source": info.sdr_source,
                "targets": list(info.targets),
                "license": info.license,
                "non_commercial": info.non_commercial,
                "page": info.page,
                "bundled": info.is_bundled,
                "bytes": info.nb_bytes,
                "hidden_size": info.config.hidden_size,
                "nb_parameters": info.nb_parameters,
                "sample_rate": info.sample_rate,
                "nb_channels": info.nb_channels,
                "cached_targets": [target for target in info.targets if _is_here(name, target)],
            }
        )
    return models


def _where(model: dict[str, Any]) -> str:
    here = model["cached_targets"]
    if here != model["targets"]:
        return " ".join(here) or "no"
    return "with umx-np" if model["bundled"] else "yes"


def _is_here(name: str, target: str) -> bool:
    from ..pretrained import download

    try:
        download(name, [target], offline=True)
    except (DownloadError, ModelNotFoundError):  # the latter: it should come with the package
        return False
    return True


COMMAND = Command("models", run, add_options, help="list the pretrained models, or verify them")
