"""Settings that scores were made with, kept beside them, so that no two kinds are mixed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from .. import __version__
from .._support import atomic as _atomic
from .._support.atomic import atomic_write
from .._support.inputs import read_json
from ..errors import ConfigError, ScoresError

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
        others, what_to_do = "", "use another evaldir, or overwrite to make them again"
        if overwrite:
            others, what_to_do = "other ", "use another evaldir"
        there = f"evaldir={str(evaldir)!r} has scores of {len(kept)} {others}tracks"
        if stored is None:
            raise ConfigError(
                f"{there}, but not what they were made with ({path.name}); {what_to_do}"
            )
        different = [
            f"{key}: {_shown(stored.get(key))} there, {_shown(settings.get(key))} now"
            for key in _different(stored, settings)
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
        _write(path, settings)
    except OSError as error:
        raise ConfigError(
            f"evaldir={str(evaldir)!r} cannot be written to: {error.strerror or error}"
        ) from error


def check_still_claimed(evaldir: Path, subset: str, settings: Mapping[str, Any]) -> None:
    """Raise `ConfigError` if another evaluation has taken over the folder in the meantime.

    Parameters
    ----------
    evaldir, subset, settings
        As for `claim_folder`.
    """
    path = settings_path(evaldir, subset)
    stored = _read(path)
    if stored is None or _different(stored, settings):
        raise ConfigError(
            f"evaldir={str(evaldir)!r} was taken over by an evaluation with other settings while "
            f"this one ran ({path.name} is not what it was); use a folder for each"
        )


def claimed(evaldir: Path, subset: str, track: str, *, wait: bool) -> AbstractContextManager[bool]:
    """Hold the claim on a track, so that of several evaluations only one works on it.

    Parameters
    ----------
    evaldir, subset, track
        As for `scores_path`.
    wait : bool
        Wait for another evaluation that has the claim.

    Returns
    -------
    context manager
        As of `umx_np._support.atomic.claimed`.
    """
    # Of two that have a claim in spite of it, both find the scores there; at worst, both try again
    # what has failed.
    return _atomic.claimed(_claim_path(evaldir, subset, track), wait=wait)


def clear_claim(evaldir: Path, subset: str, track: str) -> None:
    """Remove the claim on a track with scores that an evaluation, killed then, left behind."""
    path = _claim_path(evaldir, subset, track)
    if path.exists():
        with _atomic.claimed(path, wait=False):
            pass


def _claim_path(evaldir: Path, subset: str, track: str) -> Path:
    # Any name of a track makes a name of a file of a usual length.
    digest = hashlib.blake2b(os.fsencode(track), digest_size=12).hexdigest()
    return evaldir / f".{subset}_{digest}.claim"


@contextmanager
def marked(folder: Path, settings: Mapping[str, Any]) -> Iterator[None]:
    """Write the settings of stems beside their folder, after all of them.

    Parameters
    ----------
    folder : Path
        Where the stems of a track are written within the ``with`` statement; made if needed.
    settings : mapping
        What the stems depend on; must be JSON.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = _marker(folder)
    # At first: an interrupted run would leave some of the old stems beside the new ones.
    path.unlink(missing_ok=True)
    yield
    _write(path, settings)


def is_marked(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Tell whether all stems in a folder were made with these settings."""
    stored = _read(_marker(folder))
    return stored is not None and not _different(stored, settings)


def _marker(folder: Path) -> Path:
    """Not in the folder, in which every file is a stem, nor JSON, which are scores in `evaldir`."""
    return folder.with_name(f"{folder.name}.settings")


def _different(stored: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """Names of what differs and matters."""
    names = sorted({*stored, *settings} - {*_NOT_COMPARED})
    return [name for name in names if stored.get(name) != settings.get(name)]


def _write(path: Path, settings: Mapping[str, Any]) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps({**settings, "umx_np": __version__}, indent=2).encode())


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return read_json(path, ScoresError)
    except ScoresError:
        return None


def _shown(value: object) -> str:
    return json.dumps(value)
