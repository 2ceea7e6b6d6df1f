"""What scores were made with, kept beside them, so that no two kinds are mixed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .._version import __version__
from ..errors import ConfigError
from ..weights._files import atomic_write

# For the reader only: the digest of the weights tells models apart, whatever they are called.
_NOT_COMPARED = ("model", "umx_np")


def scores_path(evaldir: Path, subset: str, track: str) -> Path:
    """Where the scores of a track are: the place where museval has them."""
    return evaldir / subset / f"{track}.json"


def settings_path(evaldir: Path, subset: str) -> Path:
    """Where the settings are: not in the folder of the scores, in which every JSON is a track."""
    return evaldir / f"{subset}_settings.json"


def claim_folder(
    evaldir: Path,
    subset: str,
    tracks: Sequence[str],
    settings: Mapping[str, Any],
    *,
    overwrite: bool,
) -> None:
    """Make sure that all scores in a folder are of the same settings, and write these down.

    Parameters
    ----------
    evaldir : Path
        Folder for scores; made if needed.
    subset : str
        Folder in it.
    tracks : sequence of str
        Names of the tracks that will be evaluated.
    settings : mapping
        What the scores depend on; must be JSON.
    overwrite : bool
        Remove earlier scores of these tracks. Those of other tracks must still be of the same
        settings.

    Raises
    ------
    ConfigError
        If there are scores made with other settings, or by an unknown hand, or the folder cannot
        be written to.
    """
    path = settings_path(evaldir, subset)
    renewed = {scores_path(evaldir, subset, name) for name in tracks} if overwrite else set()
    # Also of tracks that are not looked at now: a later run would take them for its own.
    kept = {file for file in (evaldir / subset).glob("*.json") if file.is_file()} - renewed
    if kept:
        stored = _read(path)
        others, what_to_do = "", "use another evaldir, or overwrite to make them anew"
        if overwrite:
            others, what_to_do = "other ", "use another evaldir"
        there = f"evaldir={str(evaldir)!r} has scores of {len(kept)} {others}tracks"
        if stored is None:
            raise ConfigError(
                f"{there}, but not what they were made with ({path.name}); {what_to_do}"
            )
        different = [
            f"{key}: {_shown(stored.get(key))} there, {_shown(settings.get(key))} now"
            for key in sorted({*stored, *settings} - {*_NOT_COMPARED})
            if stored.get(key) != settings.get(key)
        ]
        if different:
            raise ConfigError(
                f"{there} that were made with other settings ({'; '.join(different)}); {what_to_do}"
            )
    try:
        # Now, because an interrupted run would leave some of the old ones beside the new settings.
        for scores in renewed:
            scores.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(json.dumps({**settings, "umx_np": __version__}, indent=2).encode())
    except OSError as error:
        raise ConfigError(
            f"evaldir={str(evaldir)!r} cannot be written to: {error.strerror or error}"
        ) from error


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _shown(value: object) -> str:
    return json.dumps(value)
