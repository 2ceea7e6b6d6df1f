"""Files of stems: folders in which every sound file is a stem, named like it."""

from __future__ import annotations

from collections.abc import Container, Mapping
from pathlib import Path

from ..errors import ConfigError

# What is written here and what stems are published as. Other files in the folder of a song, videos
# for instance, are no stems.
SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a"),
    *(".aif", ".aiff", ".aifc", ".w64", ".rf64", ".au", ".caf"),
)
# The order of stems in tables; others follow by name.
_ORDER = ("vocals", "drums", "bass", "other")


def stem_files(folder: Path, names: Container[str] | None = None) -> dict[str, Path]:
    """Sound files of a folder by their names without the extension, in the order of tables.

    Parameters
    ----------
    folder : Path
        The folder of a song.
    names : container of str or None
        Stems to look for; None finds all.

    Returns
    -------
    dict of str to Path

    Raises
    ------
    ConfigError
        If a stem is there in several formats.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        if names is not None and path.stem not in names:
            continue
        if path.stem in found:
            raise ConfigError(
                f"path={str(folder)!r} has {found[path.stem].name} and {path.name}; keep one"
            )
        found[path.stem] = path
    return in_order(found)


def in_order(stems: Mapping[str, Path]) -> dict[str, Path]:
    """Sort stems: vocals, drums, bass, other, then the rest by name.

    Examples
    --------
    >>> list(in_order({"bass": Path("b"), "choir": Path("c"), "vocals": Path("v")}))
    ['vocals', 'bass', 'choir']
    """
    known = [name for name in _ORDER if name in stems]
    return {name: stems[name] for name in (*known, *sorted(set(stems) - set(known)))}
