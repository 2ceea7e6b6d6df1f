"""The queue: one song after the other, each separated by a process of its own."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import printable
from .store import Job, RefusedError, Sound, Store

logger = logging.getLogger(__name__)

# A worker that was asked to end has this many seconds to do so by itself.
_GRACE = 3.0
# The shortest time between two looks at what changed, and the longest without a sign of life.
_PAUSE, _SIGN = 0.2, 15.0
# Of a song less than this share says nothing about how long the rest takes.
_EARLY = 0.03
_COMPLAINT_BYTES = 4000
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from umx_np.serve.worker import main; sys.exit(main())"
)


@dataclass(frozen=True)
class Settings:
    """What the server was started with.

    Attributes
    ----------
    max_upload, max_disk : int
        Bytes of a song, and of all songs and results.
    max_queue : int
        Songs that may wait.
    offline : bool
        Never download a model.
    device : str
        As for `umx_np.Separator`.
    threads : int or None
        As for `umx_np.Separator`.
    """

    max_upload: int = 2_000_000_000
    max_disk: int = 20_000_000_000
    max_queue: int = 50
    offline: bool = False
    device: str = "auto"
    threads: int | None = None


@dataclass
class _Running:
    """The song that is being separated."""

    job: Job
    process: asyncio.subprocess.Process | None = None
    wanted: bool = True
    step: str = "starting"
    progress: float = 0.0
    began: float = 0.0  # when its first sample was on its way

    @property
    def seconds_left(self) -> float | None:
        if self.step != "separating" or self.progress < _EARLY:
            return None
        return (time.monotonic() - self.began) * (1 - self.progress) / self.progress


class Runner:
    """Separates what is queued, and says what changes.

    Parameters
    ----------
    store : Store
        Songs; those which are queued go on.
    settings : Settings
        Limits, and where to compute.
    """

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store, self.settings = store, settings
        self.uploads = 0  # songs that are on their way
        self.closing = False
        self._running: _Running | None = None
        self._changed = asyncio.Event()

    def describe(self, job: Job) -> dict[str, Any]:
        """Return a job as JSON has it, with how far it is."""
        document = asdict(job)
        document["title"] = job.title
        document["position"] = document["progress"] = document["seconds_left"] = None
        document["step"] = None
        if job.state == "queued":
            document["position"] = 1 + [waiting.id for waiting in self._queued()].index(job.id)
        running = self._running
        if running is not None and running.job.id == job.id and job.state == "running":
            document["step"] = running.step
            document["progress"] = round(running.progress, 4)
            left = running.seconds_left
            document["seconds_left"] = None if left is None else round(left, 1)
        return document

    def describe_all(self) -> dict[str, Any]:
        """Return all jobs as JSON has them, the newest first."""
        return {"jobs": [self.describe(job) for job in reversed(self.store.jobs.values())]}

    def _queued(self) -> list[Job]:
        return [job for job in self.store.jobs.values() if job.state == "queued"]

    def check_room(self) -> None:
        """Raise `RefusedError` if no further song may come."""
        if len(self._queued()) + self.uploads >= self.settings.max_queue:
            raise RefusedError(
                429,
                f"{self.settings.max_queue} songs are waiting already; wait until some are done, "
                "or remove some",
            )

    def notify(self) -> None:
        """Say that something changed."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def changes(self) -> AsyncIterator[dict[str, Any] | None]:
        """Yield all jobs whenever something changed; None as a sign of life.

        Whoever takes it slowly gets fewer, and never old ones.
        """
        while not self.closing:
            changed = self._changed
            yield self.describe_all()
            while not self.closing:
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait(), _SIGN)
                    break
                yield None
            await asyncio.sleep(_PAUSE)

    async def add(self, job: Job) -> Job:
        """Queue a song whose file is whole."""
        job = self.store.add(job)
        await self.make_room()
        self.notify()
        return job

    async def make_room(self) -> None:
        """Remove the oldest results until all fits."""
        while self.store.nb_bytes > self.settings.max_disk:
            oldest = self.store.oldest_done()
            if oldest is None:
                return
            logger.info("%s is removed to make room", oldest.name)
            await asyncio.to_thread(shutil.rmtree, self.store.take_out(oldest), True)

    async def remove(self, job: Job) -> None:
        """Remove a song; if it is being separated, this ends."""
        running = self._running
        if running is not None and running.job.id == job.id:
            running.wanted = False
            if running.process is not None:
                await _end(running.process)
        gone = self.store.take_out(job)
        self.notify()
        await asyncio.to_thread(shutil.rmtree, gone, True)

    async def run(self) -> None:
        """Separate what is queued, until this is cancelled."""
        while True:
            queued = self._queued()
            if not queued:
                await self._changed.wait()
                continue
            await self._separate(queued[0])
            await self.make_room()
            self.notify()

    async def _separate(self, job: Job) -> None:
        running = self._running = _Running(job)
        attempt = self.store.of(job) / f"attempt-{secrets.token_hex(4)}"
        try:
            running.job = job = self.store.save(replace(job, state="running"))
            self.notify()
            attempt.mkdir()
            found = await self._ask(running, attempt)
            if running.wanted and "sound" in found:
                attempt.rename(self.store.results(job))
                sound = found["sound"]
                sound["lanes"] = tuple(sound["lanes"])
                self.store.save(replace(job, state="done", sound=Sound(**sound)))
            elif running.wanted:
                error = {key: printable(str(text)) for key, text in found["error"].items()}
                self.store.save(replace(job, state="failed", error=error))
        except Exception as error:
            # A full disk, or a mistake of ours; the other songs go on. Of one that was removed
            # meanwhile, nobody wants to know.
            if running.wanted:
                logger.exception("%s could not be separated", job.name)
                described = {"type": type(error).__name__, "message": str(error)}
                failed = replace(job, state="failed", error=described)
                self.store.jobs[job.id] = failed
                with suppress(OSError):
                    self.store.save(failed)
        finally:
            self._running = None
            shutil.rmtree(attempt, ignore_errors=True)

    async def _ask(self, running: _Running, attempt: Path) -> dict[str, Any]:
        """Let a process separate a song; return its last line."""
        song = self.store.song(running.job)
        request = {
            "song": str(song),
            "folder": str(attempt),
            "choice": asdict(running.job.choice),
            "offline": self.settings.offline,
            "device": self.settings.device,
            "threads": self.settings.threads,
        }
        process = running.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _START, json.dumps(sys.path)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # An interrupt from the terminal is for the server, which ends the process.
            start_new_session=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        complaint = asyncio.create_task(_last_bytes(process.stderr))
        last: dict[str, Any] = {}
        try:
            with suppress(ConnectionError):
                process.stdin.write(json.dumps(request).encode() + b"\n")
            # It stays open: when it is closed, as by the end of this program, the process ends.
            while line := await process.stdout.readline():
                last = json.loads(line)
                self._follow(running, last)
                if not running.wanted:
                    break
            if not running.wanted:
                await _end(process)
            status = await process.wait()
        finally:
            await _end(process)
            complained = await complaint
        if "sound" in last or "error" in last:
            if error := last.get("error"):
                # In the words of whoever uploaded it, who knows no path here.
                error["message"] = error["message"].replace(str(song), running.job.name)
            return last
        if running.wanted:
            logger.error("the process of %s ended: %s", running.job.name, complained.strip())
        message = f"its process ended with status {status}"
        if status < 0:
            name = signal.Signals(-status).name
            message = f"its process was ended by {name}; perhaps there is not enough memory"
        return {"error": {"type": "OSError", "message": message}}

    def _follow(self, running: _Running, line: dict[str, Any]) -> None:
        running.progress = line.get("progress", running.progress)
        if "step" in line and line["step"] != running.step:
            running.step = line["step"]
            if running.step == "separating":
                running.progress, running.began = 0.0, time.monotonic()
        self.notify()


async def _last_bytes(stream: asyncio.StreamReader) -> str:
    kept = b""
    while data := await stream.read(_COMPLAINT_BYTES):
        kept = (kept + data)[-_COMPLAINT_BYTES:]
    return kept.decode(errors="replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    """End a process: asked first, so that it cleans up, and then not asked."""
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _GRACE)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
