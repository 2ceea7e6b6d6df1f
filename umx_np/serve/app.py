"""What is answered to each request; ``openapi.json`` describes it."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from .. import __version__
from .._support.atomic import atomic_write
from ..audio import written_suffixes
from ..audio.stem_files import STEM_FILE_STEMS, STEM_FILE_SUFFIX
from ..config import DEFAULT_MODEL
from ..errors import ConfigError, DownloadError, ModelNotFoundError, UmxError, shortened
from ..pretrained import download, registry
from ..separation.records import Record
from . import sounds
from .guard import error_response
from .runner import Runner
from .store import MIXTURE, Choice, Job, RefusedError

HERE = Path(__file__).parent
STATIC = HERE / "static"

# Seconds without a byte of a song after which it is not waited for.
_PATIENCE = 60.0
_WRITE_BYTES = 1 << 18  # held twice for each song that is on its way
_MOST_GAIN = 4.0
_REMOVED = "the song was removed meanwhile"
_MISTAKE = "a mistake of the server; its log says more"


def make_app(runner: Runner) -> Starlette:
    """Make what answers, and separates while it does.

    Parameters
    ----------
    runner : Runner
        The queue, which runs as long as the application.

    Returns
    -------
    Starlette
        To be put behind a `Guard`.
    """
    answers = _Answers(runner)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        work = asyncio.create_task(runner.run())
        try:
            yield
        finally:
            work.cancel()
            with suppress(asyncio.CancelledError):
                await work

    one = "/api/jobs/{id}"
    routes = [
        Route("/", answers.page),
        Route("/api/about", answers.about),
        Route("/api/openapi.json", answers.openapi),
        Route("/api/models", answers.models),
        Route("/api/events", answers.events),
        Route("/api/jobs", answers.jobs),
        Route("/api/jobs", answers.upload, methods=["POST"]),
        Route("/api/jobs/example", answers.example, methods=["POST"]),
        Route(one, answers.job),
        Route(one, answers.remove, methods=["DELETE"]),
        Route(one + "/peaks", answers.peaks),
        Route(one + "/mix", answers.mix),
        Route(one + "/zip", answers.zip),
        Route(one + "/stem-file", answers.stem_file),
        Route(one + "/lanes/{lane}", answers.lane),
        Route(one + "/lanes/{lane}/spectrogram", answers.spectrogram),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    errors: Mapping[Any, Callable[..., Any]] = {
        RefusedError: lambda request, error: error_response(
            error.status, "RefusedError", str(error)
        ),
        UmxError: lambda request, error: error_response(400, type(error).__name__, str(error)),
        HTTPException: lambda request, error: error_response(
            error.status_code, "RefusedError", str(error.detail)
        ),
        FileNotFoundError: lambda request, error: error_response(404, "RefusedError", _REMOVED),
        OSError: lambda request, error: error_response(507, "OSError", _of_system(error)),
        # uvicorn writes it to the log.
        Exception: lambda request, error: error_response(500, type(error).__name__, _MISTAKE),
    }
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers=errors)


class _Answers:
    """The answers, one method a route."""

    def __init__(self, runner: Runner) -> None:
        self._runner, self._store = runner, runner.store
        # Of what computes for an answer, one at a time: the songs have the other cores.
        self._turn = asyncio.Lock()

    async def page(self, request: Request) -> Response:
        return FileResponse(STATIC / "index.html")

    async def about(self, request: Request) -> Response:
        settings = self._runner.settings
        return JSONResponse(
            {
                "umx_np": __version__,
                "formats": [suffix[1:] for suffix in written_suffixes()],
                "stem_file": list(STEM_FILE_STEMS) if shutil.which("ffmpeg") else [],
                "max_upload": settings.max_upload,
                "max_disk": settings.max_disk,
                "max_queue": settings.max_queue,
                "used_disk": self._store.nb_bytes,
            }
        )

    async def openapi(self, request: Request) -> Response:
        return FileResponse(HERE / "openapi.json")

    async def models(self, request: Request) -> Response:
        return JSONResponse({"models": await asyncio.to_thread(_models)})

    async def events(self, request: Request) -> Response:
        async def lines() -> AsyncIterator[bytes]:
            async for change in self._runner.changes():
                yield b":\n\n" if change is None else b"data: %s\n\n" % json.dumps(change).encode()

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def jobs(self, request: Request) -> Response:
        return JSONResponse(self._runner.describe_all())

    async def job(self, request: Request) -> Response:
        job = self._store.get(request.path_params["id"])
        record = await asyncio.to_thread(_record, self._store.results(job))
        return JSONResponse({**self._runner.describe(job), "record": record})

    async def remove(self, request: Request) -> Response:
        await self._runner.remove(self._store.get(request.path_params["id"]))
        return Response(status_code=204)

    async def upload(self, request: Request) -> Response:
        fields = _fields(request, "name", *_CHOICE)
        if not fields.get("name"):
            raise ConfigError("name is missing; say what the file is called, as ?name=song.mp3")
        most = self._runner.settings.max_upload
        announced = request.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > most:
            raise RefusedError(413, _too_large(most))
        return await self._take(fields["name"], _choice(fields), functools.partial(_save, request))

    async def example(self, request: Request) -> Response:
        choice = _choice(_fields(request, *_CHOICE))
        song = await asyncio.to_thread(example_song)

        async def copy(path: Path, most: int) -> None:
            await asyncio.to_thread(shutil.copyfile, song, path)

        return await self._take("Example song.ogg", choice, copy)

    async def _take(self, name: str, choice: Choice, fill: Callable[[Path, int], Any]) -> Response:
        """Take in a song; if anything goes wrong, nothing is left of it."""
        self._runner.check_room()
        self._runner.uploads += 1
        try:
            job, path = self._store.begin(name, choice.check())
            try:
                await fill(path, self._runner.settings.max_upload)
                job = await self._runner.add(job)
            except BaseException:
                shutil.rmtree(self._store.take_out(job), ignore_errors=True)
                raise
        finally:
            self._runner.uploads -= 1
        return JSONResponse(self._runner.describe(job), 201)

    async def peaks(self, request: Request) -> Response:
        job, _ = self._done(request)
        return _file(self._store.results(job) / sounds.PEAKS)

    async def lane(self, request: Request) -> Response:
        job, lane = self._done(request)
        suffix = _suffix(_fields(request, "format"))
        source = self._store.results(job) / f"{lane}.wav"
        name = f"{job.title} - {lane}{suffix}"
        if suffix == ".wav":
            return _file(source, media_type="audio/wav", filename=name)
        return await self._rendered({source: 1.0}, name, suffix)

    async def mix(self, request: Request) -> Response:
        job, _ = self._done(request)
        fields = _fields(request, "format", "gains")
        lanes = _gains(fields.get("gains", ""), job)
        folder = self._store.results(job)
        suffix = _suffix(fields)
        paths = {folder / f"{lane}.wav": gain for lane, gain in lanes.items()}
        return await self._rendered(paths, f"{job.title} - mix{suffix}", suffix)

    async def stem_file(self, request: Request) -> Response:
        job, _ = self._done(request)
        _fields(request)
        assert job.sound is not None
        folder = self._store.results(job)
        lanes = {lane: folder / f"{lane}.wav" for lane in job.sound.lanes}
        name = f"{job.title}{STEM_FILE_SUFFIX}"
        return await self._rendered(lanes, name, STEM_FILE_SUFFIX, sounds.render_stem_file)

    async def _rendered(
        self,
        lanes: Any,
        name: str,
        suffix: str,
        render: Callable[[Any, Path], None] = sounds.render,
    ) -> Response:
        target = self._store.renders / f"{secrets.token_hex(8)}{suffix}"
        try:
            async with self._turn:
                await asyncio.to_thread(render, lanes, target)
            return _Passing(target, filename=name)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    async def zip(self, request: Request) -> Response:
        job, _ = self._done(request)
        suffix = _suffix(_fields(request, "format"))
        assert job.sound is not None
        folder = self._store.results(job)
        files = {lane: folder / f"{lane}.wav" for lane in job.sound.lanes if lane != MIXTURE}
        named = FileResponse(folder, filename=f"{job.title} - stems.zip")
        return StreamingResponse(
            sounds.archive(files, suffix, self._store.renders),
            media_type="application/zip",
            headers={"content-disposition": named.headers["content-disposition"]},
        )

    async def spectrogram(self, request: Request) -> Response:
        job, lane = self._done(request)
        folder = self._store.results(job)
        kept = folder / f"spectrogram-{lane}.json"
        async with self._turn:
            if not kept.exists():
                await asyncio.to_thread(_draw, folder, lane, kept)
        return _file(kept)

    def _done(self, request: Request) -> tuple[Job, str]:
        """Return the job that a request names, and the lane if it names one."""
        job = self._store.get(request.path_params["id"])
        if job.sound is None:
            raise RefusedError(
                409, f"{shortened(job.name)} is {job.state}; there are no results yet"
            )
        lane = request.path_params.get("lane", MIXTURE)
        if lane not in job.sound.lanes:
            raise RefusedError(
                404, f"lane={shortened(lane)} is none of {', '.join(job.sound.lanes)}"
            )
        return job, lane


def _file(path: Path, **options: Any) -> FileResponse:
    """Answer with a file; `FileNotFoundError` if the song was removed meanwhile."""
    return FileResponse(path, stat_result=path.stat(), **options)


class _Passing(FileResponse):
    """A file that is removed when it was sent, or could not be."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            Path(self.path).unlink(missing_ok=True)


_CHOICE = ("model", "targets", "two_stems", "niter", "precision")


def _fields(request: Request, *known: str) -> dict[str, str]:
    """Return what stands behind the question mark, and nothing else."""
    fields = dict(request.query_params)
    if unknown := sorted(set(fields) - set(known)):
        expected = ", ".join(known) or "nothing"
        raise ConfigError(f"{shortened(unknown[0])} is not known here; there is {expected}")
    return fields


def _choice(fields: Mapping[str, str]) -> Choice:
    choice = Choice()
    if "model" in fields:
        choice = replace(choice, model=fields["model"])
    if "targets" in fields:
        choice = replace(choice, targets=tuple(fields["targets"].split(",")))
    if "two_stems" in fields:
        choice = replace(choice, two_stems=fields["two_stems"])
    if "precision" in fields:
        choice = replace(choice, precision=fields["precision"])
    if "niter" in fields:
        if not (fields["niter"].isascii() and fields["niter"].isdecimal()):
            raise ConfigError(f"niter={shortened(fields['niter'])} must be a whole number")
        # More digits than the greatest has are not made a number of.
        choice = replace(choice, niter=int(fields["niter"][:9]))
    return choice.check()


def _suffix(fields: Mapping[str, str]) -> str:
    suffix = "." + fields.get("format", "wav")
    if suffix not in written_suffixes():
        known = ", ".join(known[1:] for known in written_suffixes())
        raise ConfigError(f"format={shortened(suffix[1:])} cannot be written; there is {known}")
    return suffix


def _gains(text: str, job: Job) -> dict[str, float]:
    """Read ``vocals:0.5,drums:1``."""
    assert job.sound is not None
    gains = {}
    for part in filter(None, text.split(",")):
        lane, _, number = part.partition(":")
        if lane not in job.sound.lanes or lane in gains:
            lanes = ", ".join(job.sound.lanes)
            raise ConfigError(f"gains: {shortened(lane)} must be one of {lanes}, and only once")
        try:
            gain = float(number)
        except ValueError:
            gain = -1.0
        if not 0 <= gain <= _MOST_GAIN:
            raise ConfigError(
                f"gains: {shortened(part)} must be a lane, a colon and a number from 0 to "
                f"{_MOST_GAIN:g}"
            )
        gains[lane] = gain
    heard = {lane: gain for lane, gain in gains.items() if gain}
    if not heard:
        raise ConfigError("gains leave nothing to be heard; name a lane, as in gains=vocals:1")
    return heard


async def _save(request: Request, path: Path, most: int) -> None:
    """Write the body of a request to a file, bit by bit."""
    size, held, chunks = 0, bytearray(), request.stream()
    with path.open("xb") as file:
        while True:
            try:
                async with asyncio.timeout(_PATIENCE):
                    chunk = await anext(chunks, None)
            except TimeoutError:
                raise RefusedError(
                    408, f"nothing came for {_PATIENCE:.0f} s; send the song again"
                ) from None
            except ClientDisconnect:
                raise RefusedError(400, "the song did not come to its end; send it again") from None
            held += chunk or b""
            size += len(chunk or b"")
            if size > most:
                raise RefusedError(413, _too_large(most))
            if chunk is None or len(held) >= _WRITE_BYTES:
                await asyncio.to_thread(file.write, bytes(held))
                held.clear()
            if chunk is None:
                break
        if not size:
            raise ConfigError("the song is empty; send the bytes of a file as the body")
        file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())


def _too_large(most: int) -> str:
    return f"the song is larger than {most / 1e6:.0f} MB; `umx-np serve --max-upload` sets how much"


def _of_system(error: OSError) -> str:
    # Not the name of the file: it is none of the client's.
    return f"the server's disk: {error.strerror or type(error).__name__}"


def _models() -> list[dict[str, Any]]:
    return [
        {
            "name": info.name,
            "description": info.description,
            "advice": info.advice,
            "targets": list(info.targets),
            "license": info.license,
            "non_commercial": info.non_commercial,
            "bytes": info.nb_bytes,
            "bundled": info.is_bundled,
            "here": info.is_bundled or _is_here(info.name),
            "default": info.name == DEFAULT_MODEL,
            "sdr": dict(info.sdr),
            "sdr_source": info.sdr_source,
        }
        for info in registry().values()
    ]


def _is_here(name: str) -> bool:
    try:
        download(name, offline=True)
    except (DownloadError, ModelNotFoundError):
        return False
    return True


def _record(results: Path) -> dict[str, Any] | None:
    """Return the record of the stems, as it is beside them; None if there is none."""
    for path in results.glob(".*.json"):
        if Record.read(path) is not None:
            document: dict[str, Any] = json.loads(path.read_bytes())
            return document
    return None


def _draw(folder: Path, lane: str, kept: Path) -> None:
    loudest = sounds.loudest_spot(folder / f"{MIXTURE}.wav")
    document = sounds.levels(folder / f"{lane}.wav", loudest)
    with atomic_write(kept, follow_links=False) as file:
        file.write(json.dumps(document).encode())


def example_song() -> Path:
    """Return the file of the example song: in the package, or beside it in its source.

    Raises
    ------
    RefusedError
        If it is at neither place.
    """
    for path in (HERE / "example.ogg", HERE.parents[1] / "examples" / "song.ogg"):
        if path.is_file():
            return path
    raise RefusedError(
        404, "the example song is not part of this installation; drop a song of yours"
    )
