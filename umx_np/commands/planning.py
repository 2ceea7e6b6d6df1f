"""What ``umx-np separate`` reads and writes, settled before anything is computed."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .._support.keywords import pick
from ..errors import ConfigError
from .inputs import STANDARD, Song

if TYPE_CHECKING:
    from ..separation.options import OutputPlan
    from ..separation.plan import Plan
    from ..separation.separator import Separator


@dataclass(frozen=True)
class Task:
    """A song and what is made of it.

    Attributes
    ----------
    song : Song
        The song.
    plan : Plan
        Files and options.
    references : dict of str to Path
        True stems that the results are compared with; empty if they are not.
    """

    song: Song
    plan: Plan
    references: dict[str, Path]


def plan_tasks(
    songs: list[Song], separator: Separator, args: argparse.Namespace, model: str
) -> list[Task]:
    """Say where the results of every song go, before anything is computed.

    Parameters
    ----------
    songs : list of Song
        Songs to separate.
    separator : Separator
        What separates them.
    args : Namespace
        The options.
    model : str
        Name of the model.

    Returns
    -------
    list of Task

    Raises
    ------
    ConfigError
        If two songs would be written to the same files, a song would be replaced, a song has no
        references or all have the same, or an option makes no sense.
    """
    from ..audio.stem_files import is_stem_file
    from ..separation.options import Excerpt, OutputPlan
    from ..separation.plan import plan_separation

    output, excerpt = pick(OutputPlan, vars(args)), pick(Excerpt, vars(args))
    if args.reference is not None and is_stem_file(output.ext):
        raise ConfigError(f"reference={args.reference!r}: stems in a {output.ext} are not scored")
    plans = [
        plan_separation(song.path, separator, output, excerpt, model=model, base=song.base)
        for song in songs
    ]
    for target in plans[0].paths.values():
        _check_type(target, output)
    _check_sources(songs, plans)
    pairs = list(zip(songs, plans, strict=True))
    _check_one_owner(
        ((song, target) for song, plan in pairs for target in plan.paths.values()),
        "stems",
        'tell them apart with --filename "{parent}/{track}/{stem}{ext}", or {name} instead of '
        "{track}",
    )
    _check_one_owner(
        ((song, plan.picture) for song, plan in pairs if plan.picture is not None),
        "pictures",
        'give --plot a folder ("plots/") or tell them apart with {track}, {name}, {parent} or '
        "{relpath}",
    )
    references = _references(songs, list(plans[0].paths), args.reference, model)
    return [
        Task(song, _read_from(song, plan), found)
        for (song, plan), found in zip(pairs, references, strict=True)
    ]


def _check_type(target: Path, output: OutputPlan) -> None:
    """Raise `ConfigError` if files of that type cannot be written."""
    from ..audio import written_suffixes
    from ..audio.stem_files import STEM_FILE_SUFFIX, is_stem_file

    suffixes = written_suffixes()
    if ".m4a" in suffixes:
        suffixes.append(STEM_FILE_SUFFIX)
    if target.suffix.lower() in suffixes or (is_stem_file(target) and ".m4a" in suffixes):
        return
    possible = " ".join(suffixes)
    if target.suffix.lower() == "." + output.ext.lower().removeprefix("."):
        raise ConfigError(f"ext={output.ext!r} cannot be written; possible are {possible}")
    raise ConfigError(
        f"filename={output.filename!r} gives {target.name!r}, whose type cannot be written; let it "
        f"end in {{ext}}, or in one of {possible}"
    )


def _read_from(song: Song, plan: Plan) -> Plan:
    """Return a plan, and where the song is really read from."""
    if song.name != STANDARD:
        return plan
    return replace(plan, source=song.source, name=song.name)


def _references(
    songs: list[Song], names: list[str], reference: str | None, model: str
) -> list[dict[str, Path]]:
    """Find the true stems of every song; raise `ConfigError` if all would have the same."""
    if reference is None:
        return [{} for _ in songs]
    from ..evaluation.sdr import find_references
    from ..separation.naming import song_path

    places = [song_path("reference", reference, s.path, model, s.base) for s in songs]
    if len(songs) > 1 and len(set(places)) == 1:
        raise ConfigError(
            f"reference={reference!r} is one folder for {len(songs)} songs; name one for each "
            "with {track}, {name}, {parent} or {relpath}"
        )
    return [find_references(place, names) for place in places]


def _check_sources(songs: list[Song], plans: list[Plan]) -> None:
    """Raise `ConfigError` if the results of one song would replace another."""
    sources = set(filter(None, (_identity(song.path) for song in songs)))
    for song, plan in zip(songs, plans, strict=True):
        for target in plan.paths.values():
            if _identity(target) in sources:
                raise ConfigError(
                    f"the stems of {song.name!r} would replace {str(target)!r}, which is to be "
                    "separated, too; choose another --outdir or --filename, or leave it out"
                )


def _identity(path: Path) -> tuple[int, int] | None:
    """Identity of a file, whatever names it has; None if it is not there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _check_one_owner(results: Iterable[tuple[Song, Path]], what: str, remedy: str) -> None:
    """Raise `ConfigError` if two songs, the first of each pair, would be written to one file."""
    from ..separation.naming import name_on_disk

    owners: dict[str, Song] = {}
    for song, result in results:
        owner = owners.setdefault(name_on_disk(result), song)
        if owner is not song:
            raise ConfigError(
                f"the {what} of {owner.name!r} and {song.name!r} would both be {str(result)!r}; "
                f"{remedy}"
            )
