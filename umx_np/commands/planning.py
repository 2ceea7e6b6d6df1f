"""Inputs and outputs of ``umx-np separate``, settled before anything is computed."""

from __future__ import annotations

import argparse
import glob
import logging
import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import AudioError, ConfigError

logger = logging.getLogger(__name__)

# Types of files in a message.
_MAX_NAMES = 8


def find_inputs(arguments: list[str]) -> list[Path]:
    """Replace folders by the sound files in them, and drop repetitions.

    Parameters
    ----------
    arguments : list of str
        Files, folders, and patterns that the shell did not expand.

    Returns
    -------
    list of Path
        In order; the files of a folder are sorted by name. Files that do not exist stay, to be
        reported in their turn.

    Raises
    ------
    AudioError
        If a folder holds no sound files.
    """
    from ..audio.suffixes import SOUND_SUFFIXES, VIDEO_SUFFIXES
    from ..separation.naming import existing_or_expanded

    suffixes = SOUND_SUFFIXES | VIDEO_SUFFIXES
    found: dict[str, Path] = {}
    for argument in arguments:
        path = existing_or_expanded(argument)
        if os.path.isdir(path):
            try:
                entries = list(path.iterdir())
            except OSError as error:
                raise AudioError(
                    f"input={argument!r} is a folder that cannot be read: {error.strerror}"
                ) from error
            shown = sorted(
                file for file in entries if os.path.isfile(file) and not file.name.startswith(".")
            )
            paths = [file for file in shown if file.suffix.lower() in suffixes]
            others = sorted({file.suffix.lower() or "none" for file in shown if file not in paths})
            if paths and others:
                logger.warning(
                    "%s: %d files of other types are left out (%s); name them to have them read",
                    argument,
                    len(shown) - len(paths),
                    " ".join(others[:_MAX_NAMES]) + (" ..." if len(others) > _MAX_NAMES else ""),
                )
            if not paths:
                raise AudioError(
                    f"input={argument!r}: the folder holds no sound files (its subfolders are not "
                    "searched); name files, or another folder"
                )
        elif not os.path.exists(path) and glob.has_magic(str(path)):
            paths = sorted(map(Path, glob.glob(str(path)))) or [path]
        else:
            paths = [path]
        for file in paths:
            found.setdefault(os.path.realpath(file), file)
    return list(found.values())


def plan_outputs(
    inputs: list[Path], names: list[str], args: argparse.Namespace, model: str
) -> dict[Path, dict[str, Path]]:
    """Say where the stems of every input go, before anything is computed.

    Parameters
    ----------
    inputs : list of Path
        Files to separate.
    names : list of str
        Names of the stems.
    args : Namespace
        With `outdir`, `ext`, `filename`.
    model : str
        Name of the model.

    Returns
    -------
    dict of Path to dict of str to Path

    Raises
    ------
    ConfigError
        If two inputs would be written to the same files, or an input would be replaced.
    """
    from ..separation.naming import output_paths

    outputs: dict[Path, dict[str, Path]] = {}
    sources = set(filter(None, map(_identity, inputs)))
    for path in inputs:
        outputs[path] = output_paths(
            path, names, args.outdir, model=model, ext=args.ext, filename=args.filename
        )
        for target in outputs[path].values():
            if _identity(target) in sources:
                raise ConfigError(
                    f"the stems of {str(path)!r} would replace {str(target)!r}, which is to be "
                    "separated, too; choose another --outdir or --filename, or leave it out"
                )
    _check_one_owner(
        ((path, target) for path, targets in outputs.items() for target in targets.values()),
        "stems",
        'tell them apart with --filename "{parent}/{track}/{stem}{ext}", or {name} instead of '
        "{track}",
    )
    return outputs


def plan_pictures(inputs: list[Path], plot: str | None, model: str) -> dict[Path, Path]:
    """Say where the picture of every input goes, before anything is computed.

    Parameters
    ----------
    inputs : list of Path
        Files to separate.
    plot : str or None
        As for `separate_file`.
    model : str
        Name of the model.

    Returns
    -------
    dict of Path to Path
        Empty if no pictures are wanted.

    Raises
    ------
    ConfigError
        If two inputs would have the same picture.
    """
    from ..separation.naming import plot_path

    if plot is None:
        return {}
    pictures = {path: plot_path(path, plot, model=model) for path in inputs}
    _check_one_owner(
        pictures.items(),
        "pictures",
        'give --plot a folder ("plots/") or tell them apart with {track}, {name} or {parent}',
    )
    return pictures


def plan_references(
    inputs: list[Path], names: list[str], reference: str | None, model: str
) -> dict[Path, dict[str, Path]]:
    """Find the true stems of every input, before anything is computed.

    Parameters
    ----------
    inputs : list of Path
        Files to separate.
    names : list of str
        Names of the stems.
    reference : str or None
        Folder of the true stems of a song, with placeholders.
    model : str
        Name of the model.

    Returns
    -------
    dict of Path to dict of str to Path
        Empty if no scores are wanted.

    Raises
    ------
    ConfigError
        If a song has none, or all songs would have the same.
    """
    if reference is None:
        return {}
    from ..evaluation.sdr import find_references
    from ..separation.naming import song_path

    if len(inputs) > 1 and len({song_path("reference", reference, p, model) for p in inputs}) == 1:
        raise ConfigError(
            f"reference={reference!r} is one folder for {len(inputs)} songs; name one for each "
            "with {track}, {name} or {parent}"
        )
    return {
        path: find_references(song_path("reference", reference, path, model), names)
        for path in inputs
    }


def check_inputs(inputs: list[Path]) -> None:
    """Raise `AudioError` if none of the inputs can be reached, which says why of the first."""
    reasons = []
    for path in inputs:
        try:
            os.stat(path)
            return
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            reasons.append(getattr(error, "strerror", None) or str(error))
    raise AudioError(
        f"input={str(inputs[0])!r} cannot be opened: {reasons[0]}; give sound files or folders"
    )


def _identity(path: Path) -> tuple[int, int] | None:
    """Identity of a file, whatever names it has; None if it is not there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def _check_one_owner(results: Iterable[tuple[Path, Path]], what: str, remedy: str) -> None:
    """Raise `ConfigError` if two inputs, the first of each pair, would be written to one file."""
    from ..separation.naming import name_on_disk

    owners: dict[str, Path] = {}
    for path, result in results:
        owner = owners.setdefault(name_on_disk(result), path)
        if owner != path:
            raise ConfigError(
                f"the {what} of {str(owner)!r} and {str(path)!r} would both be {str(result)!r}; "
                f"{remedy}"
            )
