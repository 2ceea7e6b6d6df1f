"""Records of separations: how the stems in a folder came to be, and whether they still are those.

A record is a hidden file of JSON, written when all stems are in place. docs/guide.md describes it
for other programs.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from .._support.atomic import atomic_write
from ..errors import AudioError, shortened
from ..weights.quantization import plain_tensors

FORMAT_VERSION = 1
SUFFIX = ".umx-np.json"

_HASH_CHUNK_BYTES = 1 << 20
# A record is some kilobytes; what is far larger is something else.
_MAX_BYTES = 1 << 20
# Of what a record says, this many characters and differences are told.
_LONGEST = 200
_MOST_DIFFERENCES = 40


@dataclass(frozen=True)
class KnownFile:
    """A file as it was, to recognise it later.

    Attributes
    ----------
    name : str
        Relative to the folder of the record where there is such a path, with ``/``.
    size : int
        In bytes.
    sha256 : str
        Of its bytes, in hexadecimal digits.
    mtime_ns, ctime_ns : int
        When it and its entry were last changed. The system sets the second at every change, so a
        file for which both are as they were needs no hashing. 0 on Windows, which has none.
    """

    name: str
    size: int
    sha256: str
    mtime_ns: int = 0
    ctime_ns: int = 0

    @classmethod
    def of(cls, path: Path, folder: Path) -> KnownFile:
        """Look at a file, and hash it.

        Parameters
        ----------
        path : Path
            The file.
        folder : Path
            Folder of the record.

        Raises
        ------
        OSError
            If it cannot be read.
        """
        before = _times(os.stat(path))
        size, sha256 = _hashed(path)
        # What was changed meanwhile must not pass for what was hashed.
        times = before if before == _times(os.stat(path)) else (0, 0)
        return cls(_relative(path, folder), size, sha256, *times)

    def renamed(self, path: Path, folder: Path) -> KnownFile:
        """The same file under another name; its times are kept if that is what is there."""
        status = os.stat(path)
        times = _times(status)
        is_same = status.st_size == self.size and times[0] == self.mtime_ns
        return replace(
            self,
            name=_relative(path, folder),
            mtime_ns=times[0] if is_same else 0,
            ctime_ns=times[1] if is_same else 0,
        )

    def is_still(self, path: Path) -> bool:
        """Whether a file, whatever its name, holds the bytes that this one held."""
        try:
            status = os.stat(path)
            if status.st_size != self.size:
                return False
            times = _times(status)
            if times == (self.mtime_ns, self.ctime_ns) and times[1]:
                return True
            return _hashed(path) == (self.size, self.sha256)
        except OSError:
            return False


@dataclass(frozen=True)
class Record:
    """How the stems of a song came to be.

    Attributes
    ----------
    source : KnownFile
        The song.
    model : dict
        ``name`` and ``sha256``, the digest of the weights.
    options : dict
        All that changes the samples of the stems or the form in which they are stored.
    outputs : dict of str to KnownFile
        The files of the stems, by the name of the stem.
    picture : KnownFile or None
        The picture of the song and its stems, if there is one.
    gain : float
        What all stems were scaled by, to stay within full scale.
    umx_np : str
        Version of the package.
    """

    source: KnownFile
    model: dict[str, Any]
    options: dict[str, Any]
    outputs: dict[str, KnownFile]
    picture: KnownFile | None = None
    gain: float = 1.0
    umx_np: str = __version__

    def write(self, path: Path) -> None:
        """Write the record; it appears when it is complete.

        Raises
        ------
        OSError
            If it cannot be written.
        """
        document = {"format": "umx_np record", "format_version": FORMAT_VERSION, **asdict(self)}
        text = json.dumps(document, indent=1, sort_keys=True, allow_nan=False)
        with atomic_write(path, follow_links=False) as file:
            file.write(text.encode("ascii") + b"\n")

    @classmethod
    def read(cls, path: Path) -> Record | None:
        """Read a record; None if there is none of this format that is whole."""
        try:
            if not path.is_file():  # a pipe would be waited for
                return None
            with path.open("rb") as file:
                document = json.loads(file.read(_MAX_BYTES + 1))
            if document.pop("format") != "umx_np record":
                return None
            if document.pop("format_version") != FORMAT_VERSION:
                return None
            document["source"] = KnownFile(**document["source"])
            if document["picture"] is not None:
                document["picture"] = KnownFile(**document["picture"])
            document["outputs"] = {
                name: KnownFile(**known) for name, known in document["outputs"].items()
            }
            record = cls(**document)
            is_whole = isinstance(record.model, dict) and isinstance(record.options, dict)
            return record if is_whole else None
        except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
            return None

    def differences(
        self,
        source: Path,
        model: Mapping[str, Any],
        options: Mapping[str, Any],
        outputs: Mapping[str, Path],
        picture: Path | None = None,
    ) -> list[str]:
        """Say what is not as this record says, in words; nothing if the stems can be kept.

        Parameters
        ----------
        source : Path
            The song as it would be separated now.
        model, options : mapping
            As the record would hold them.
        outputs : mapping of str to Path
            Files that the stems would have.
        picture : Path or None
            File that the picture would have; None if none is wanted.

        Returns
        -------
        list of str
        """
        found = []
        if self.umx_np != __version__:
            found.append(f"umx_np was {_brief(self.umx_np)}, is {__version__}")
        if self.model.get("name") != model["name"]:
            found.append(f"model was {_brief(self.model.get('name'))}, is {model['name']}")
        elif self.model != model or model["sha256"] is None:
            found.append("the weights of the model are others")
        # By way of JSON, as those of the record: tuples have become lists.
        wanted = json.loads(json.dumps(dict(options)))
        for name in sorted(wanted.keys() | self.options.keys()):
            was, now = self.options.get(name), wanted.get(name)
            if was != now:
                was_text, now_text = _brief(json.dumps(was)), _brief(json.dumps(now))
                found.append(f"{_brief(name)} was {was_text}, is {now_text}")
        if self.outputs.keys() != outputs.keys():
            stems = _brief(", ".join(self.outputs))
            found.append(f"the stems were {stems}, are {', '.join(outputs)}")
        else:
            found += [
                f"{path} is not the file that was written"
                for name, path in outputs.items()
                if not self.outputs[name].is_still(path)
            ]
        if picture is not None and not (self.picture and self.picture.is_still(picture)):
            found.append(f"{picture} is not the picture that was drawn with the stems")
        if not found and not self.source.is_still(source):
            found.append("the song is another one, or was changed")
        return found[:_MOST_DIFFERENCES]


def weights_digest(networks: Mapping[str, tuple[object, Mapping[str, np.ndarray]]]) -> str:
    """SHA-256 of the networks of a model, whatever files they came from.

    Parameters
    ----------
    networks : mapping of str to (object, mapping of str to ndarray)
        Architecture and tensors of each target.

    Returns
    -------
    str
        Hexadecimal digits.
    """
    hasher = hashlib.sha256()
    for target, (config, state) in networks.items():
        hasher.update(repr((target, config)).encode("utf-8", "surrogateescape"))
        # What is kept in eight bits is hashed as the numbers that it stands for, one by one.
        for name, values in plain_tensors({name: state[name] for name in sorted(state)}):
            array = np.ascontiguousarray(values)
            hasher.update(repr((name, array.dtype.str, array.shape)).encode())
            hasher.update(array.reshape(-1).view(np.uint8).data)
    return hasher.hexdigest()


def remove(path: Path) -> None:
    """Remove the record of stems that are about to be replaced.

    Raises
    ------
    AudioError
        If it cannot be removed: it would be believed.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise AudioError(
            f"the record at {str(path)!r} cannot be removed: {error.strerror or error}; it would "
            "describe other stems"
        ) from error


def _brief(value: object) -> str:
    """As text that is short whatever a record holds."""
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else value[:_LONGEST] + "..."
    return shortened(value)


def _times(status: os.stat_result) -> tuple[int, int]:
    return (0, 0) if os.name == "nt" else (status.st_mtime_ns, status.st_ctime_ns)


def _hashed(path: Path) -> tuple[int, str]:
    """Size and SHA-256 of a file."""
    hasher, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            hasher.update(chunk)
            size += len(chunk)
    return size, hasher.hexdigest()


def _relative(path: Path, folder: Path) -> str:
    place = os.path.abspath(path)
    with suppress(ValueError):  # another drive
        place = os.path.relpath(place, os.path.abspath(folder))
    return place.replace(os.sep, "/")
