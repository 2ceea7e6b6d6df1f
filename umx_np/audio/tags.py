"""Tags and cover of a song, put into the files of its stems by ffmpeg.

ffmpeg copies the encoded samples (``-c copy``) into a new file, which takes the place of the old
one only if libsndfile finds as many samples in it, and the same at its beginning. Of MP3 files the
frames stay where they are, and only the tags before them are taken from ffmpeg. What is not
possible is said in one line of the log, and is no error: the stems are complete.
"""

from __future__ import annotations

import base64
import re
import shutil
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .._support.atomic import TemporaryFile
from .._support.programs import run_program
from ..errors import printable
from .ffmpeg import SILENCE, find_ffmpeg, input_options, look_into
from .library import READ_ERRORS, HeldFile
from .mp3 import end_of_tags

# What ffmpeg calls the formats of stems that hold tags, by libsndfile's names, and what it needs to
# write all it can.
_FORMATS = {
    "WAV": ("wav",),
    "RF64": ("wav", "-rf64", "always"),
    "FLAC": ("flac",),
    "AIFF": ("aiff", "-write_id3v2", "1"),
    "AU": ("au",),
    "CAF": ("caf",),
    "OGG": ("ogg",),
    "MP3": ("mp3",),
}
_WITH_COVER = ("FLAC", "AIFF", "MP3")
# Not of the song but of its file: who encoded it and when, its brands, its handlers, where its
# decoder should begin and end, which channels it has, and what programs keep in it for themselves.
_OF_THE_FILE = re.compile(
    r"id3v2_priv\..*|encoder|tsse|major_brand|minor_version|compatible_brands|creation_time|handler_name|vendor_id"
    r"|itunsmpb|tlen|waveformatextensible_channel_mask|metadata_block_picture|duration",
    re.IGNORECASE,
)
_PICTURE = "METADATA_BLOCK_PICTURE"
_FRONT_COVER = 3
# Samples at the beginning of a stem that are compared.
_COMPARED = 1 << 14
# Seconds that a megabyte of a stem may take, on slow disks.
_PER_MB = 1.0


@dataclass(frozen=True)
class SongTags:
    """Tags of a song, and where its covers are.

    Attributes
    ----------
    source : Path
        The song.
    tags : dict of str to str
        As ffmpeg names them.
    covers : tuple of int
        Numbers of its pictures among its streams.
    """

    source: Path
    tags: dict[str, str]
    covers: tuple[int, ...] = ()

    @classmethod
    def of(cls, path: Path, track: int | None = None) -> SongTags | None:
        """Read the tags of a file; None if ffmpeg is not there or does not know it.

        Parameters
        ----------
        path : Path
            The file.
        track : int or None
            Stream of sound, from 1; None is the first.
        """
        found = look_into(path, track or 1)
        if found is None:
            return None
        with path.open("rb") as file:
            is_ogg = file.read(4) == b"OggS"
        # An Ogg file has its tags in its streams. In others, streams have what is only theirs.
        of_file, of_stream = _parsed(found.tags)
        tags = {
            key: value
            for key, value in (of_stream if is_ogg else of_file).items()
            if not _OF_THE_FILE.fullmatch(key)
        }
        return cls(path, tags, found.covers)

    def for_stem(self, name: str) -> dict[str, str]:
        """Tags of a stem: its name follows the title in parentheses."""
        return {
            key: f"{value} ({name})" if key.lower() == "title" else value
            for key, value in self.tags.items()
        }

    def missing(self, other: SongTags) -> str:
        """Say what of the tags of another file is not here; nothing if all is."""
        here = {key.lower(): value for key, value in self.tags.items()}
        lost = [key for key, value in other.tags.items() if here.get(key.lower()) != value]
        parts = []
        if len(self.covers) < len(other.covers):
            parts.append("cover" if not self.covers else "other pictures")
        if lost:
            parts.append(f"tags {', '.join(lost)}")
        return " and ".join(parts)


def _parsed(text: str) -> tuple[dict[str, str], dict[str, str]]:
    """Tags of a file and of its first stream, from the text format of ffmpeg."""
    sections: list[dict[str, str]] = [{}]
    # Special characters, also the ends of lines within a value, have a backslash before them.
    for match in re.finditer(r"((?:\\.|[^\\\n])*)(?:\n|$)", text, re.DOTALL):
        line = match[1]
        if line.startswith("["):
            sections.append({})
        parts = re.fullmatch(r"((?:\\.|[^\\=])*)=(.*)", line, re.DOTALL)
        if parts and not line.startswith(";"):
            key, value = (re.sub(r"\\(.)", r"\1", part, flags=re.DOTALL) for part in parts.groups())
            sections[-1][key] = value
    return sections[0], sections[1] if len(sections) > 1 else {}


def _written(tags: Mapping[str, str]) -> bytes:
    """In the text format of ffmpeg."""
    lines = [";FFMETADATA1"]
    for pair in tags.items():
        lines.append("=".join(re.sub(r"([=;#\\\n])", r"\\\1", text) for text in pair))
    return ("\n".join(lines) + "\n").encode(errors="surrogateescape")


def put_tags(song: SongTags, name: str, stem: Path, form: str) -> TemporaryFile | str:
    """Make a copy of a stem with the tags of its song.

    Parameters
    ----------
    song : SongTags
        Of the song.
    name : str
        Of the stem.
    stem : Path
        File of the stem, under whatever name.
    form : str
        Its format, as libsndfile calls it.

    Returns
    -------
    TemporaryFile or str
        The copy, in the same folder; or why there is none.
    """
    ffmpeg = find_ffmpeg()
    if form not in _FORMATS or ffmpeg is None:
        return f"{form} files hold none" if ffmpeg else "ffmpeg is gone"
    tags = song.for_stem(name)
    covers = song.covers if form in _WITH_COVER else ()
    if form == "OGG" and song.covers and (picture := _picture_block(song, ffmpeg)):
        tags[_PICTURE] = picture
    command = [ffmpeg, "-nostdin", "-hide_banner", "-v", "error", "-y", *input_options(stem)]
    text: TemporaryFile | None = None
    copy: TemporaryFile | None = None
    try:
        text, copy = TemporaryFile(stem.parent), TemporaryFile(stem.parent)
        with open(text.descriptor, "wb", closefd=False) as file:
            file.write(_written(tags))
        command += ["-protocol_whitelist", "file", "-f", "ffmetadata"]
        command += ["-i", f"file:{text.path.absolute()}"]
        if covers:
            command += input_options(song.source)
        command += ["-map", "0:a", *(word for n in covers for word in ("-map", f"2:{n}"))]
        # Ogg has the tags in its stream; others would have those of the stream besides.
        where = "s:a" if form == "OGG" else "g"
        command += ["-map_chapters", "-1", "-map_metadata", "-1", f"-map_metadata:{where}", "1:g"]
        if covers:
            command += ["-map_metadata:s:v", "2:s:v", "-disposition:v", "attached_pic"]
        # Without the names of ffmpeg's libraries, so that the same song makes the same file.
        command += ["-c", "copy", "-fflags", "+bitexact"]
        muxer, *options = _FORMATS[form]
        command += [*options, "-f", muxer, f"file:{copy.path.absolute()}"]
        seconds = SILENCE + _PER_MB * stem.stat().st_size / 1e6
        done = run_program(command, seconds)
        complaint = printable(done.stderr.decode(errors="replace").strip())[-300:]
        if done.returncode:
            return f"ffmpeg says {complaint!r}"
        if form == "MP3":
            _keep_head(copy.path, stem)
        if not _is_same_sound(stem, copy.path):
            return "ffmpeg would have changed the samples"
        made, copy = copy, None
        return made
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        for temporary in (text, copy):
            if temporary is not None:
                temporary.discard()


def _keep_head(copy: Path, stem: Path) -> None:
    """Replace what follows the tags of an MP3 file by the stem as it was.

    ffmpeg writes a frame of its own in place of that in which LAME says how it has encoded.
    """
    size = end_of_tags(copy)
    with copy.open("r+b") as file, stem.open("rb") as frames:
        file.truncate(size)
        file.seek(size)
        shutil.copyfileobj(frames, file)


def _picture_block(song: SongTags, ffmpeg: str) -> str:
    """First cover as Ogg has it: a picture block of FLAC as text; empty if it cannot be had."""
    command = [ffmpeg, "-nostdin", "-hide_banner", "-v", "error", *input_options(song.source)]
    command += ["-map", f"0:{song.covers[0]}", "-c", "copy", "-f", "image2pipe", "pipe:1"]
    try:
        data = run_program(command, SILENCE).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    kinds = {b"\xff\xd8": b"image/jpeg", b"\x89P": b"image/png", b"GI": b"image/gif"}
    kind = kinds.get(data[:2])
    if kind is None:
        return ""
    head = struct.pack(">II", _FRONT_COVER, len(kind)) + kind
    # No description; and a size and number of colours that are not told.
    return base64.b64encode(head + struct.pack(">6I", 0, 0, 0, 0, 0, len(data)) + data).decode()


def _is_same_sound(one: Path, other: Path) -> bool:
    try:
        with HeldFile(one) as a, HeldFile(other) as b:
            if (a.frames, a.samplerate, a.subtype) != (b.frames, b.samplerate, b.subtype):
                return False
            begins = [file.read(_COMPARED, dtype="float32", always_2d=True) for file in (a, b)]
            return np.array_equal(*begins)
    except READ_ERRORS:
        return False


def has_tags(path: Path) -> bool:
    """Whether libsndfile sees tags in a file, where there is no ffmpeg."""
    try:
        with HeldFile(path) as file:
            found = file.copy_metadata()
    except READ_ERRORS:
        return False
    return bool(found.keys() - {"software"})
