"""Files of stems: folders in which every sound file is a stem, named like it."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from ..config import in_usual_order
from ..errors import ConfigError

# What is written here and what stems are published as. Other files in the folder of a song, videos
# for instance, are no stems.
SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a"),
    *(".aif", ".aiff", ".aifc", ".w64", ".rf64", ".au", ".caf"),
)


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
    return {name: found[name] for name in in_usual_order(found)}
