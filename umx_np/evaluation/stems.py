"""Files of stems: folders in which every sound file is a stem, named like it."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path

from ..audio.suffixes import SOUND_SUFFIXES
from ..config import in_usual_order
from ..errors import ConfigError


def stem_files(folder: Path, names: Container[str] | None = None) -> dict[str, Path]:
    """Sound files of a folder by their names without the extension, in the order of tables.

    Other files in the folder of a song, videos for instance, are no stems.

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
        if (
            path.name.startswith(".")
            or path.suffix.lower() not in SOUND_SUFFIXES
            or not path.is_file()
        ):
            continue
        if names is not None and path.stem not in names:
            continue
        if path.stem in found:
            raise ConfigError(
                f"path={str(folder)!r} has {found[path.stem].name} and {path.name}; keep one"
            )
        found[path.stem] = path
    return {name: found[name] for name in in_usual_order(found)}
