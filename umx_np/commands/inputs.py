"""Songs that ``umx-np separate`` is given: files, folders, patterns, and standard input."""

from __future__ import annotations

import glob
import logging
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import AudioError, ConfigError

logger = logging.getLogger(__name__)

# Standard input among the songs, and standard output in place of a folder.
STANDARD = "-"

# Types of files in a message.
_MAX_NAMES = 8


@dataclass(frozen=True)
class Song:
    """A song that was named or found.

    Attributes
    ----------
    path : Path
        What its results are named after.
    base : Path or None
        Folder that was named and searched, in which it was found.
    source : Path
        The file to read; another one than `path` for what came from standard input.
    """

    path: Path
    base: Path | None
    source: Path

    @property
    def name(self) -> str:
        """What it was called by the user: its path, or ``-``."""
        return str(self.path) if self.path is self.source else STANDARD


def is_song(word: str) -> bool:
    """Whether a word can only be a song and not the name of a stem.

    Examples
    --------
    >>> [is_song(word) for word in ("vocals", "lead.voice", "song.mp3", "album/", "-")]
    [False, False, True, True, True]
    """
    from ..audio.suffixes import SOUND_SUFFIXES, VIDEO_SUFFIXES

    if word == STANDARD or word.startswith("~") or any(mark in word for mark in "/\\*?"):
        return True
    suffix = os.path.splitext(word)[1].lower()
    return bool(suffix) and (suffix in SOUND_SUFFIXES | VIDEO_SUFFIXES or os.path.exists(word))


def find_songs(
    arguments: list[str], *, recursive: bool = False, outdir: str | None = None
) -> list[Song]:
    """Replace folders by the sound files in them, and drop repetitions.

    Parameters
    ----------
    arguments : list of str
        Files, folders, patterns that the shell did not expand, and ``-``.
    recursive : bool
        Whether to search the folders in them as well.
    outdir : str or None
        Folder for the results, which is not searched if it lies in one of them.

    Returns
    -------
    list of Song
        In order; the files of a folder are sorted by name. Files that do not exist stay, to be
        reported in their turn. Standard input has no `source` yet but ``-``.

    Raises
    ------
    AudioError
        If a folder holds no sound files.
    ConfigError
        If one is an address.
    """
    from ..separation.naming import existing_or_expanded

    found: dict[str, Song] = {}
    for argument in arguments:
        if argument == STANDARD:
            found[STANDARD] = Song(Path("stdin"), None, Path(STANDARD))
            continue
        path = existing_or_expanded(argument)
        if "://" in argument and not os.path.lexists(path):
            raise ConfigError(f"input={argument!r} is an address; download the file first")
        base = path if os.path.isdir(path) else None
        if base is not None:
            paths = _Search(argument, base, recursive, outdir).result()
        elif not os.path.exists(path) and glob.has_magic(str(path)):
            paths = sorted(map(Path, glob.glob(str(path)))) or [path]
        else:
            paths = [path]
        for file in paths:
            found.setdefault(os.path.realpath(file), Song(file, base, file))
    return list(found.values())


def check_songs(songs: list[Song]) -> None:
    """Raise `AudioError` if none of the songs can be reached, which says why of the first."""
    reasons = []
    for song in songs:
        try:
            if song.name != STANDARD:
                os.stat(song.path)
            return
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            reasons.append(getattr(error, "strerror", None) or str(error))
    raise AudioError(
        f"input={songs[0].name!r} cannot be opened: {reasons[0]}; give sound files or folders"
    )


def with_standard_input(songs: list[Song], opened: ExitStack) -> list[Song]:
    """Store what comes from standard input in a temporary file, since songs are read twice.

    Parameters
    ----------
    songs : list of Song
        From `find_songs`.
    opened : ExitStack
        Removes the file when it ends.

    Raises
    ------
    ConfigError
        If nothing is piped into the program.
    AudioError
        If the file cannot be written.
    """
    if all(song.name != STANDARD for song in songs):
        return songs
    if sys.stdin is None or sys.stdin.isatty():
        raise ConfigError("input='-' reads standard input, and nothing is piped into it")
    try:
        folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="umx-np-"))
        source = Path(folder, "stdin")
        with source.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file, 1 << 20)
    except OSError as error:
        raise AudioError(f"input='-' cannot be stored: {error}; set TMPDIR") from error
    return [replace(s, source=source) if s.name == STANDARD else s for s in songs]


@dataclass
class _Search:
    """Looks through a folder for songs, and counts what it does not take."""

    argument: str
    folder: Path
    recursive: bool
    outdir: str | None
    others: Counter[str] = field(default_factory=Counter)
    # What is left out, in words, and how often.
    left_out: Counter[str] = field(default_factory=Counter)

    def result(self) -> list[Path]:
        from ..audio.suffixes import SOUND_SUFFIXES, VIDEO_SUFFIXES
        from ..separation.naming import name_on_disk

        suffixes = SOUND_SUFFIXES | VIDEO_SUFFIXES
        songs: list[Path] = []
        stems: set[str] = set()
        for place, folders, files in os.walk(self.folder, onerror=self._unreadable):
            folders[:] = self._searched(Path(place), folders, stems)
            for name in sorted(files):
                path = Path(place, name)
                is_sound = path.suffix.lower() in suffixes
                if name.startswith("."):
                    if "umx-np" in name and name.endswith(".json"):
                        stems.update(_stems_of(path))
                    self.left_out["hidden sound files"] += is_sound
                elif not os.path.isfile(path):
                    self.left_out["links, pipes or devices that are no files"] += 1
                elif is_sound:
                    songs.append(path)
                else:
                    self.others[path.suffix.lower() or "none"] += 1
        taken = [path for path in songs if name_on_disk(path) not in stems]
        self.left_out["stems that were written here"] += len(songs) - len(taken)
        self._tell(bool(taken))
        return taken

    def _searched(self, place: Path, folders: list[str], stems: set[str]) -> list[str]:
        """Sub-folders to go on with."""
        searched = []
        for name in sorted(folders):
            path = place / name
            if name.startswith("."):
                if "umx-np" in name:
                    for record in path.rglob("*.json"):
                        stems.update(_stems_of(record))
            elif not self.recursive:
                self.left_out["sub-folders (--recursive searches them)"] += 1
            elif os.path.islink(path):
                self.left_out["links to folders"] += 1
            elif self.outdir is not None and _is_same(path, Path(self.outdir)):
                self.left_out["folders for the results"] += 1
            else:
                searched.append(name)
        return searched

    def _unreadable(self, error: OSError) -> None:
        if Path(error.filename) == self.folder:
            raise AudioError(
                f"input={self.argument!r} is a folder that cannot be read: {error.strerror}"
            ) from error
        logger.warning("%s: not searched: %s", error.filename, error.strerror)

    def _tell(self, any_taken: bool) -> None:
        """Say in one line what is not taken; raise `AudioError` if nothing is."""
        parts = []
        if self.others:
            types = sorted(self.others)
            shown = " ".join(types[:_MAX_NAMES]) + (" ..." if len(types) > _MAX_NAMES else "")
            parts.append(
                f"{self.others.total()} files of other types are left out ({shown}); name them to "
                "have them read"
            )
        counts = [f"{count} {what}" for what, count in self.left_out.items() if count]
        if counts:
            parts.append(f"left out: {', '.join(counts)}")
        if not any_taken:
            why = f" ({'; '.join(parts)})" if parts else ""
            raise AudioError(
                f"input={self.argument!r}: the folder holds no sound files{why}; name files, or "
                "another folder"
            )
        if parts:
            logger.warning("%s: %s", self.argument, "; ".join(parts))


def _stems_of(record: Path) -> Iterable[str]:
    """Files that a record says were written, which are no songs."""
    from ..separation.naming import name_on_disk
    from ..separation.records import Record

    known = Record.read(record)
    outputs = [] if known is None else known.outputs.values()
    return [name_on_disk(record.parent / output.name) for output in outputs]


def _is_same(path: Path, other: Path) -> bool:
    try:
        return os.path.samefile(path, os.path.expanduser(other))
    except OSError:
        return False
