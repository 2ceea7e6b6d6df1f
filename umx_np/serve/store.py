"""Songs and their results as plain files: a folder for each, which is whole or not there.

::

    <folder>/umx-np-serve.json         that this is such a folder, and its version
    <folder>/songs/<id>/job.json       what is wanted, and what became of it
    <folder>/songs/<id>/song.mp3       what was uploaded, under a name of ours
    <folder>/songs/<id>/results/       stems, mixture and peaks, when all of them are there
    <folder>/songs/<id>/attempt-*/     results of a separation that is running
    <folder>/renders/                  what is made for a download, and removed after it

A song whose ``job.json`` is not there was never uploaded whole, and one that was running when the
server ended, however it ended, is queued again; `Store` sees to both when it is opened.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .._support.atomic import atomic_write
from ..audio.suffixes import SOUND_SUFFIXES, VIDEO_SUFFIXES
from ..config import DEFAULT_MODEL
from ..errors import ConfigError, UmxError, shortened
from ..pretrained import get_model_info

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
MIXTURE = "mixture"
MOST_ITERATIONS = 10

_LONGEST_NAME = 120
_ID = re.compile(r"[0-9a-f]{16}")
_GONE = "gone-"
_MARK = "umx-np-serve.json"
LOCK = ".lock"


class RefusedError(UmxError):
    """A request that is not granted.

    Parameters
    ----------
    status : int
        Status of the answer, as HTTP has them.
    message : str
        Why, and what to do about it.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Choice:
    """How a song is to be separated.

    Attributes
    ----------
    model : str
        Name of a pretrained model.
    targets : tuple of str or None
        Stems to estimate; None takes all the model has.
    two_stems : str or None
        The only stem to estimate, beside everything else.
    niter : int
        Iterations of the Wiener filter.
    precision : {'full', 'fast'}
        As for `umx_np.Separator`.
    """

    model: str = DEFAULT_MODEL
    targets: tuple[str, ...] | None = None
    two_stems: str | None = None
    niter: int = 1
    precision: str = "full"

    def check(self) -> Choice:
        """Raise `ModelNotFoundError` or `ConfigError` if this cannot be; return it if it can."""
        known = get_model_info(self.model).targets
        for target in (*(self.targets or ()), *filter(None, [self.two_stems])):
            if target not in known:
                raise ConfigError(
                    f"stem={shortened(target)} is none of {self.model}; "
                    f"choose of {', '.join(known)}"
                )
        if self.targets is not None and self.two_stems is not None:
            raise ConfigError("targets and two_stems exclude each other; leave one out")
        if self.targets is not None and not 0 < len(self.targets) == len(set(self.targets)):
            raise ConfigError("targets must name at least one stem, and each only once")
        if not 0 <= self.niter <= MOST_ITERATIONS:
            raise ConfigError(f"niter={self.niter} must be from 0 to {MOST_ITERATIONS}")
        if self.precision not in ("full", "fast"):
            raise ConfigError(f"precision={shortened(self.precision)} must be 'full' or 'fast'")
        return self


@dataclass(frozen=True)
class Sound:
    """What a player has to know of results.

    Attributes
    ----------
    lanes : tuple of str
        The mixture, then the stems; each is a WAV file of 16 bits.
    rate, nb_channels, nb_timesteps : int
        Of all of them.
    first_byte : int
        Where the samples begin in each file.
    """

    lanes: tuple[str, ...]
    rate: int
    nb_channels: int
    nb_timesteps: int
    first_byte: int


@dataclass(frozen=True)
class Job:
    """A song and what becomes of it.

    Attributes
    ----------
    id : str
        Its name here.
    name : str
        What the file was called, without folders; shown, and never a path.
    choice : Choice
        How it is to be separated.
    created : float
        When it was uploaded, in seconds since 1970.
    state : {'queued', 'running', 'done', 'failed'}
        What became of it.
    error : dict or None
        ``type`` and ``message`` of what went wrong.
    sound : Sound or None
        The results, once they are there.
    nb_bytes : int
        What it takes on disk.
    """

    id: str
    name: str
    choice: Choice
    created: float
    state: str = "queued"
    error: dict[str, str] | None = None
    sound: Sound | None = None
    nb_bytes: int = 0

    @property
    def title(self) -> str:
        """The name without its extension."""
        return Path(self.name).stem or self.name


@dataclass
class Store:
    """The folder of all songs; only one thread of one program may use it at a time.

    Parameters
    ----------
    folder : Path
        Made if needed, for this user alone.

    Raises
    ------
    ConfigError
        If it holds something else, which would be in danger here, or is of another version.
    OSError
        If it cannot be made or read.
    """

    folder: Path
    jobs: dict[str, Job] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._claim()
        for folder in (self._songs, self.renders):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in self.renders.iterdir():
            path.unlink(missing_ok=True)
        found = []
        for path in self._songs.iterdir():
            job = _read(path)
            if job is None:
                logger.info("removed %s, which is not whole", path)
                shutil.rmtree(path, ignore_errors=True)
                continue
            for attempt in path.glob("attempt-*"):
                shutil.rmtree(attempt, ignore_errors=True)
            found.append(replace(job, state="queued") if job.state == "running" else job)
        self.jobs = {job.id: job for job in sorted(found, key=lambda job: job.created)}

    def _claim(self) -> None:
        """Mark an empty folder as ours; what is not whole is removed in such folders only."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        mark = self.folder / _MARK
        wanted = {"format": "umx_np serve", "format_version": FORMAT_VERSION}
        if mark.is_file():
            try:
                is_ours = json.loads(mark.read_bytes()) == wanted
            except ValueError:
                is_ours = False
            if not is_ours:
                raise ConfigError(
                    f"folder={str(self.folder)!r} is of another version of umx_np; give another one"
                )
        elif not all(path.name.startswith(".") for path in self.folder.iterdir()):
            raise ConfigError(
                f"folder={str(self.folder)!r} holds other files; give one that is empty or new"
            )
        else:
            with atomic_write(mark, follow_links=False) as file:
                file.write(json.dumps(wanted).encode("ascii"))

    @property
    def _songs(self) -> Path:
        return self.folder / "songs"

    @property
    def renders(self) -> Path:
        """Folder of what is made for a download."""
        return self.folder / "renders"

    @property
    def nb_bytes(self) -> int:
        """What all songs take on disk."""
        return sum(job.nb_bytes for job in self.jobs.values())

    def of(self, job: Job) -> Path:
        """Return the folder of a song."""
        return self._songs / job.id

    def song(self, job: Job) -> Path:
        """Return the file that was uploaded."""
        return next(self.of(job).glob("song*"))

    def results(self, job: Job) -> Path:
        """Return the folder of the results, which is there when they are."""
        return self.of(job) / "results"

    def get(self, name: str) -> Job:
        """Return a job by its id.

        Raises
        ------
        RefusedError
            If there is none.
        """
        try:
            return self.jobs[name]
        except KeyError:
            raise RefusedError(404, f"id={shortened(name)} is no song that is here") from None

    def begin(self, name: str, choice: Choice) -> tuple[Job, Path]:
        """Make room for a song that is about to be uploaded, or copied.

        Parameters
        ----------
        name : str
            What the file is called where it comes from.
        choice : Choice
            How it is to be separated.

        Returns
        -------
        job : Job
            For `add`, once the file is whole, or `remove`.
        path : Path
            Where to write the file.
        """
        name = _plain(name)
        job = Job(secrets.token_hex(8), name, choice, time.time())
        self.of(job).mkdir(mode=0o700)
        # Some formats are known by their name only; no other part of it becomes part of a path.
        suffix = Path(name).suffix.lower()
        return job, self.of(job) / (
            f"song{suffix}" if suffix in SOUND_SUFFIXES | VIDEO_SUFFIXES else "song"
        )

    def add(self, job: Job) -> Job:
        """Take in a song whose file is whole."""
        # Two that come at the same time keep the order in which they are here.
        last = max((other.created for other in self.jobs.values()), default=0.0)
        return self.save(replace(job, created=max(job.created, math.nextafter(last, math.inf))))

    def save(self, job: Job) -> Job:
        """Write down what became of a song; return it with what it takes on disk now."""
        job = replace(job, nb_bytes=sum(_sizes(self.of(job))))
        document = {"format": "umx_np job", "format_version": FORMAT_VERSION, **asdict(job)}
        with atomic_write(self.of(job) / "job.json", follow_links=False) as file:
            file.write(json.dumps(document).encode("ascii"))
        self.jobs[job.id] = job
        return job

    def take_out(self, job: Job) -> Path:
        """Let a song and its results be gone, from one moment to the next.

        Returns
        -------
        Path
            What is left to be deleted, which may take a while; the next server does it too.
        """
        self.jobs.pop(job.id, None)
        gone = self._songs / f"{_GONE}{secrets.token_hex(4)}"
        with suppress(FileNotFoundError):
            # Of a folder whose name has changed, nobody finds half.
            self.of(job).rename(gone)
        return gone

    def oldest_done(self) -> Job | None:
        """Return the song that goes first when there is no room; never the only one."""
        finished = [job for job in self.jobs.values() if job.state in ("done", "failed")]
        return finished[0] if len(finished) > 1 else None


def _read(folder: Path) -> Job | None:
    """Read a job; None if it is not whole, or of another version."""
    if not _ID.fullmatch(folder.name):
        return None
    try:
        document: dict[str, Any] = json.loads((folder / "job.json").read_bytes())
        if (document.pop("format"), document.pop("format_version")) != ("umx_np job", 1):
            return None
        choice = document.pop("choice")
        if choice["targets"] is not None:
            choice["targets"] = tuple(choice["targets"])
        sound = document.pop("sound")
        if sound is not None:
            sound = Sound(**{**sound, "lanes": tuple(sound["lanes"])})
        job = Job(**document, choice=Choice(**choice), sound=sound)
        return job if job.id == folder.name and next(folder.glob("song*"), None) else None
    except (OSError, ValueError, TypeError, LookupError):
        return None


def _plain(name: str) -> str:
    """Return the last part of a name, without what is no letter to be shown."""
    last = re.split(r"[/\\]", name)[-1]
    shown = "".join(letter for letter in last if letter.isprintable()).strip()
    stem, suffix = os.path.splitext(shown)
    return (stem[:_LONGEST_NAME] + suffix[:20]) or "song"


def _sizes(folder: Path) -> Iterator[int]:
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file():
                yield path.stat().st_size
