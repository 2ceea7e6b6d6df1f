"""Which files of a folder are sources, and which are there for something else."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..audio.suffixes import SOUND_SUFFIXES, VIDEO_SUFFIXES
from ..errors import ConfigError, shortened
from .folders import visible

# Files that are most likely sound. Those that are not looked for may not vanish without a word.
_SUFFIXES = SOUND_SUFFIXES | VIDEO_SUFFIXES
# What the sum of all sources is called.
MIXTURES = frozenset(["mixture", "mix", "mixdown", "fullmix", "full_mix", "full mix", "master"])
# What the sum of all but one is called.
SUMS = frozenset(["accompaniment", "instrumental", "instrumentals", "no_vocals", "karaoke"])

# The longest that the parts of a path can be on any system, in characters.
_LONGEST = 255


@dataclass(frozen=True)
class Sources:
    """Files that `find_sources` finds in the folder of a track.

    Attributes
    ----------
    target : Path or None
        The target; None if it is not there.
    interferers : tuple of Path
        What is mixed with it.
    mixtures : tuple of Path
        Files that would be, but for their names: they seem to be the mixture itself.
    doubles : tuple of Path
        Links to another of the files.
    others : tuple of Path
        Sound that ends differently, and folders of sound.
    """

    target: Path | None
    interferers: tuple[Path, ...]
    mixtures: tuple[Path, ...]
    doubles: tuple[Path, ...]
    others: tuple[Path, ...]

    @property
    def is_in_doubt(self) -> bool:
        """Whether one of several interferers may be the sum of the others."""
        stems = {path.stem.casefold() for path in (self.target, *self.interferers) if path}
        return len(stems) > 2 and not stems.isdisjoint(SUMS)


def find_sources(folder: Path, target_file: str, ext: str) -> Sources:
    """Find the target and what is to be mixed with it.

    Parameters
    ----------
    folder : Path
        Folder of a track.
    target_file : str
        Name of the target, in upper or lower case.
    ext : str
        How the names of the others end, in upper or lower case.

    Returns
    -------
    Sources

    Raises
    ------
    ConfigError
        If there are several files that may be the target, or it would be mixed with itself.
    """
    found, others = sound_files(folder, ext)
    target = _find_target(folder, target_file)
    interferers: list[Path] = []
    mixtures, doubles = [], []
    for path in found:
        if path == target:
            continue
        if _equal(path.stem, Path(target_file).stem):
            raise ConfigError(
                f"the track at path={str(folder)!r} has {path.name}, which would be mixed with "
                f"target_file={target_file!r} as if it were something else; keep one of them, or "
                "name the one that is meant"
            )
        if any(same_file(path, other) for other in (target, *interferers) if other):
            doubles.append(path)
        elif path.stem.casefold() in MIXTURES:
            mixtures.append(path)
        else:
            interferers.append(path)
    others = [path for path in others if path != target]
    unused = [path.name for path in (*others, *mixtures, *doubles)]
    if target is not None and not interferers and unused:
        raise ConfigError(
            f"the track at path={str(folder)!r} has nothing to mix with {target.name}: ext={ext!r} "
            f"passes over {', '.join(unused[:5])}; give the ext of the other sources, or use "
            "dataset='aligned' if the mixture is there already"
        )
    return Sources(target, tuple(interferers), tuple(mixtures), tuple(doubles), tuple(others))


def sound_files(folder: Path, ext: str) -> tuple[list[Path], list[Path]]:
    """Find the files of a folder whose names end in `ext`, and other sound.

    Parameters
    ----------
    folder : Path
        The folder.
    ext : str
        In upper or lower case.

    Returns
    -------
    found, others : list of Path
        Files that end so; files of other formats, and folders that hold sound.
    """
    found, others = [], []
    for path in _entries(folder):
        if path.is_dir():
            with suppress(OSError):  # what cannot be listed cannot be told to hold sound
                if any(inner.suffix.lower() in _SUFFIXES for inner in path.iterdir()):
                    others.append(path)
        elif path.name.lower().endswith(ext.lower()):
            found.append(path)
        elif path.suffix.lower() in _SUFFIXES:
            others.append(path)
    return found, others


def check_text(option: str, value: object) -> None:
    """Raise `ConfigError` unless an option is text that paths can hold."""
    if not isinstance(value, str) or "\0" in value or len(value) > _LONGEST:
        raise ConfigError(f"{option}={shortened(value)} must be a text as names of files have it")


def check_inside(option: str, name: object) -> None:
    """Raise `ConfigError` unless a name leads to something within the folder it is meant for.

    What lies elsewhere would be the same for all tracks, or for training and validation.
    """
    check_text(option, name)
    path = os.path.normpath(str(name))
    parts = Path(path).parts
    if not name or os.path.isabs(path) or Path(path).drive or not parts or ".." in parts:
        raise ConfigError(
            f"{option}={shortened(name)} must be a name within each folder, not a path from "
            "elsewhere"
        )


def check_names(option: str, names: object) -> list[str]:
    """Return several names as a list, or raise `ConfigError`; see `check_inside`."""
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise ConfigError(f"{option}={shortened(names)} must be a list of names")
    for name in names:
        check_inside(option, name)
    return list(names)


def same_file(path: Path, other: Path) -> bool:
    """Whether two paths lead to one file or folder, by links or by another spelling.

    Hard links are two files: programs that save space make them of equal ones, such as stems that
    are both silent.
    """
    if os.path.realpath(path) == os.path.realpath(other):
        return True
    try:
        return os.path.samefile(path, other) and (path.is_dir() or path.stat().st_nlink == 1)
    except OSError:
        return False


def _find_target(folder: Path, target_file: str) -> Path | None:
    exact = folder / target_file
    if exact.exists():
        return exact
    alike = [path for path in _entries(folder) if _equal(path.name, target_file)]
    if len(alike) > 1:
        raise ConfigError(
            f"the track at path={str(folder)!r} has {' and '.join(path.name for path in alike)}, "
            f"either of which may be target_file={target_file!r}"
        )
    return alike[0] if alike else None


def _entries(folder: Path) -> list[Path]:
    try:
        return visible(folder.iterdir())
    except OSError as error:
        raise ConfigError(
            f"path={str(folder)!r} cannot be listed: {error.strerror or error}"
        ) from error


def _equal(name: str, other: str) -> bool:
    return name.casefold() == other.casefold()
