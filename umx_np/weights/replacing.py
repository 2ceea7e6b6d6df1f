"""Several files of one or more targets that take the place of others together, or not at all.

No file system renames several files at once. So the new ones are first written to a folder of
their own beside the old ones, ``.<target>.replacing`` or ``.<target>+<target>.replacing``, and are
what counts as soon as the file ``complete`` is there: whoever next looks at the folder, also after
a crash, moves them to their places before anything else. Until then the old files are as they were.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from .._support.atomic import _sync_folder, atomic_write
from ..config import is_file_name
from ..errors import WeightsError

_SUFFIX = ".replacing"
_COMPLETE = "complete"
# What a target may have, and no other name is moved or removed; `SEPARATOR_FILE` is last.
_OWN = (".pth", ".safetensors", ".json", ".chkpnt", ".png")
_SHARED = "separator.json"
_AND = "+"
_LIMIT = 4096


def _staging(folder: Path, target: str) -> Path:
    return folder / f".{target}{_SUFFIX}"


def _names(target: str) -> tuple[str, ...]:
    """Files of a target, or of several with `_AND` between them."""
    targets = dict.fromkeys((target, *target.split(_AND)))
    return (*(name + suffix for name in targets for suffix in _OWN), _SHARED)


class Replacement:
    """New files of some targets, which become visible together.

    Parameters
    ----------
    folder : Path
        Folder of the model.
    *targets : str
        Whose files. What an earlier replacement left incomplete is removed.

    Notes
    -----
    Write the files to `staging` under their final names, each completely on disk, then `commit`.
    """

    def __init__(self, folder: Path, *targets: str) -> None:
        self.folder, self.target = folder, _AND.join(targets)
        self.staging = _staging(folder, self.target)
        finish_replacements(folder)
        shutil.rmtree(self.staging, ignore_errors=True)
        self.staging.mkdir(parents=True)

    def commit(self, remove: Iterable[str] = ()) -> None:
        """Let the new files take their places.

        Parameters
        ----------
        remove : iterable of str
            Names of files that are to go at the same time, unless they are replaced.
        """
        # One that is moved already must not be taken for one to remove.
        gone = sorted(name for name in remove if not (self.staging / name).exists())
        with atomic_write(self.staging / _COMPLETE) as file:
            file.write(json.dumps(gone).encode())
        _sync_folder(self.folder)
        _finish(self.folder, self.target)

    def discard(self) -> None:
        """Give up; the old files are as they were. What is complete stays, to be finished."""
        if not (self.staging / _COMPLETE).exists():
            shutil.rmtree(self.staging, ignore_errors=True)


def finish_replacements(folder: Path, names: Iterable[str] | None = None) -> None:
    """Complete the replacements in a folder that a crash interrupted.

    Parameters
    ----------
    folder : Path
        Folder of a model; it need not exist.
    names : iterable of str or None
        Its contents, where they are known.

    Raises
    ------
    WeightsError
        If there is one that cannot be completed.
    """
    if names is None:
        try:
            names = os.listdir(folder)
        except OSError:
            return
    for name in names:
        target = name[1 : -len(_SUFFIX)]
        if not (name.startswith(".") and name.endswith(_SUFFIX) and is_file_name(target)):
            continue
        staging = folder / name
        if staging.is_symlink() or not (staging / _COMPLETE).is_file():
            continue
        try:
            _finish(folder, target)
        except OSError as error:
            raise WeightsError(
                f"path={str(folder)!r}: files of target={target!r} were being replaced and the "
                f"rest cannot be moved: {error.strerror or error}; make the folder writable"
            ) from error


def _finish(folder: Path, target: str) -> None:
    """Move the new files; another process may be doing the same."""
    staging = _staging(folder, target)
    removed = _removed(staging)
    for name in _names(target):
        if (staging / name).exists():
            with suppress(FileNotFoundError):
                os.replace(staging / name, folder / name)
        elif name in removed:
            (folder / name).unlink(missing_ok=True)
    _sync_folder(folder)
    with suppress(FileNotFoundError):
        (staging / _COMPLETE).unlink()
    shutil.rmtree(staging, ignore_errors=True)


def _removed(staging: Path) -> list[str]:
    try:
        with open(staging / _COMPLETE, "rb") as file:
            names = json.loads(file.read(_LIMIT))
    except FileNotFoundError:
        return []
    except ValueError:
        names = None
    if not isinstance(names, list):
        raise WeightsError(f"path={str(staging / _COMPLETE)!r} is damaged; remove {staging.name}")
    return names
