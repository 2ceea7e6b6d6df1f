"""Getting a large file over HTTP although connections break.

A transfer continues where the last one stopped, in this process or an earlier one, as long as the
server confirms that it continues the same file. Whether the result is the right file is not decided
here: the caller verifies its hashes.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .._atomic import atomic_write, open_kept, try_lock, unlock
from .._version import __version__
from ..errors import DownloadError

if TYPE_CHECKING:
    import requests

logger = logging.getLogger(__name__)

Report = Callable[[int, "int | None"], None]

CONNECT_TIMEOUT = 10.0
READ_TIMEOUT = 30.0
# Pause before the first retry, in seconds; it doubles each time up to the limit.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 20.0
# What has arrived of a chunk is lost when the connection breaks, so chunks are small.
_CHUNK_BYTES = 1 << 14
# An attempt that brings this many new bytes does not count as failed, so that a bad connection
# finishes eventually. The size of the file bounds how often that happens.
_PROGRESS_BYTES = 1 << 20
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
_LOCK_PAUSE = 0.05
_LOCK_TIMEOUT = 3600.0


class _RetryError(Exception):
    """An attempt failed in a way that may pass."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


def fetch(
    url: str,
    part: Path,
    *,
    max_bytes: int,
    retries: int,
    report: Report | None = None,
) -> None:
    """Fill `part` with what `url` gives.

    Parameters
    ----------
    url : str
        HTTP or HTTPS address. Proxies are taken from the environment.
    part : Path
        File to fill; what it holds already is continued.
    max_bytes : int
        More than this is refused.
    retries : int
        Attempts after the first one that bring nothing new.
    report : callable, optional
        Called with the bytes there and the size of the file (None if unknown).

    Raises
    ------
    DownloadError
        If the server refuses, or all attempts fail. `part` is kept, to be continued later.
    """
    import requests

    failures, furthest = 0, _size(part)
    with requests.Session() as session:
        while True:
            try:
                _attempt(session, url, part, max_bytes, report)
                return
            except _RetryError as error:
                reason, pause = str(error), error.pause
            except (
                requests.exceptions.InvalidURL,
                requests.exceptions.InvalidSchema,
                requests.exceptions.MissingSchema,
            ) as error:
                raise DownloadError(f"url={url!r} is not a web address: {error}") from error
            except requests.RequestException as error:
                reason, pause = f"{type(error).__name__}: {error}", 0.0
            size = _size(part)
            failures = 0 if size >= furthest + _PROGRESS_BYTES else failures + 1
            furthest = max(furthest, size)
            if failures > retries:
                raise DownloadError(f"url={url!r}: {reason}")
            pause = max(pause, min(FIRST_PAUSE * 2 ** max(failures - 1, 0), LONGEST_PAUSE))
            logger.info("%s: %s; trying again in %.1f s", url, reason, pause)
            time.sleep(pause)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except OSError:
        return 0


def _attempt(
    session: requests.Session, url: str, part: Path, max_bytes: int, report: Report | None
) -> None:
    """Make one request and store its body behind what is there."""
    begin = _size(part)
    notes = part.with_name(part.name + ".json")
    headers = {
        # A body compressed on the way could not be continued.
        "Accept-Encoding": "identity",
        "User-Agent": f"umx_np/{__version__}",
    }
    if begin:
        headers["Range"] = f"bytes={begin}-"
        validator = _read_validator(notes, url)
        if validator:
            headers["If-Range"] = validator
    with session.get(
        url, headers=headers, stream=True, timeout=(CONNECT_TIMEOUT, READ_TIMEOUT)
    ) as response:
        if response.status_code == 206:
            total = _continued_total(response, begin)
            if total is None:
                part.unlink()
                raise _RetryError("the server continued at another place; starting again")
        elif response.status_code == 200:
            # The server does not continue, or the file has changed: from the beginning.
            begin, total = 0, _content_length(response)
        elif response.status_code == 416 and begin:
            # Nothing follows: either all is there or the file has changed.
            match = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
            if match and int(match[1]) == begin:
                return
            part.unlink()
            raise _RetryError("the part that is here does not fit; starting again")
        elif response.status_code in _TRANSIENT:
            raise _RetryError(f"status={response.status_code}", _retry_after(response))
        else:
            raise DownloadError(f"url={url!r}: status={response.status_code} {response.reason}")
        if total is not None and total > max_bytes:
            raise DownloadError(
                f"url={url!r} has {total} bytes, more than the {max_bytes} the file can have"
            )
        _write_validator(notes, url, response)
        _store(response, part, begin, total, max_bytes, report)


def _store(
    response: requests.Response,
    part: Path,
    begin: int,
    total: int | None,
    max_bytes: int,
    report: Report | None,
) -> None:
    done = begin
    with open_kept(part, append=begin > 0) as file:
        if report:
            report(done, total)
        for chunk in response.iter_content(_CHUNK_BYTES):
            done += len(chunk)
            if done > max_bytes:
                raise DownloadError(
                    f"url={response.url!r} gives more than the {max_bytes} bytes the file can have"
                )
            file.write(chunk)
            if report:
                report(done, total)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done < total:
        raise _RetryError(f"the connection ended after {done} of {total} bytes")


def _continued_total(response: requests.Response, begin: int) -> int | None:
    """Size of the whole file if the answer really continues at `begin`."""
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", ""))
    if match is None or int(match[1]) != begin or int(match[2]) + 1 != int(match[3]):
        return None
    return int(match[3])


def _content_length(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    if response.headers.get("Content-Encoding", "identity") != "identity":
        # The length is that of the compressed body.
        return None
    return int(length) if length.isdigit() else None


def _retry_after(response: requests.Response) -> float:
    seconds = response.headers.get("Retry-After", "")
    return min(float(seconds), LONGEST_PAUSE) if seconds.isdigit() else 0.0


def _read_validator(notes: Path, url: str) -> str | None:
    """Return what identifies the version of the file that the part is from."""
    try:
        known = json.loads(notes.read_text("utf-8"))
        return str(known["validator"]) if known["url"] == url else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_validator(notes: Path, url: str, response: requests.Response) -> None:
    validator = response.headers.get("ETag", "")
    if not validator or validator.startswith("W/"):
        # A weak tag does not promise equal bytes.
        validator = response.headers.get("Last-Modified", "")
    if validator:
        with atomic_write(notes, follow_links=False) as file:
            file.write(json.dumps({"url": url, "validator": validator}).encode())
    else:
        notes.unlink(missing_ok=True)


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Let one process (or thread) at a time into the block; the others wait.

    Parameters
    ----------
    path : Path
        File to lock; it is made if needed and stays.

    Raises
    ------
    DownloadError
        If another process holds the lock for an hour.

    Notes
    -----
    The operating system drops the lock when its holder ends in whatever way.
    """
    deadline = time.monotonic() + _LOCK_TIMEOUT
    with open_kept(path, append=True) as file:
        while not _try_lock(file.fileno()):
            if time.monotonic() > deadline:
                raise DownloadError(
                    f"path={str(path)!r} is locked by another download; end it and try again"
                )
            time.sleep(_LOCK_PAUSE)
        try:
            yield
        finally:
            unlock(file.fileno())


def _try_lock(descriptor: int) -> bool:
    try:
        return try_lock(descriptor)
    except OSError:
        # A file system without locks. Two downloads at once then waste work, and the loser's hash
        # check fails; the cache stays right either way.
        logger.debug("no locks on this file system")
        return True
