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
from typing import TYPE_CHECKING, Any

from .. import __version__
from .._support.atomic import atomic_write, claimed, open_kept
from .._support.inputs import read_json, shortened_error
from ..errors import DownloadError, shortened

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
# An attempt fails when a server gives fewer bytes a second, on average over this time in seconds.
SLOW_AFTER = 60.0
SLOWEST_RATE = 200.0
_MAX_REDIRECTS = 10
_REASON_LENGTH = 200
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
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
    failures, furthest = 0, _size(part)
    with _session() as session:
        while True:
            try:
                _attempt(session, url, part, max_bytes, report)
                return
            except _RetryError as error:
                reason, pause = str(error), error.pause
            size = _size(part)
            failures = 0 if size >= furthest + _PROGRESS_BYTES else failures + 1
            furthest = max(furthest, size)
            if failures > retries:
                raise DownloadError(f"url={url!r}: {reason}")
            pause = max(pause, min(FIRST_PAUSE * 2 ** max(failures - 1, 0), LONGEST_PAUSE))
            logger.info("%s: %s; trying again in %.1f s", url, reason, pause)
            time.sleep(pause)


def _session() -> requests.Session:
    """Return a session that leaves it to `_answer` to follow an answer that leads elsewhere.

    Even when told not to follow, requests reads the whole body of such an answer.
    """
    import requests

    class Session(requests.Session):
        def get_redirect_target(self, resp: requests.Response) -> None:
            return None

    return Session()


def _following(session: requests.Session, address: str, response: requests.Response) -> str | None:
    """Where an answer leads, None if it is the one that was asked for."""
    import requests

    target = requests.Session.get_redirect_target(session, response)
    return None if target is None else requests.compat.urljoin(address, target)


@contextmanager
def _network_errors() -> Iterator[None]:
    """Turn what goes wrong on the way into a reason to try again."""
    import requests
    import urllib3

    try:
        yield
    # Some of urllib3's errors pass through requests as they are.
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        reason = shortened_error(error, _REASON_LENGTH)
        raise _RetryError(f"{type(error).__name__}: {reason}") from error


@contextmanager
def _answer(session: requests.Session, url: str, headers: dict[str, str]) -> Iterator[Any]:
    """Ask for an address and follow where it leads, over HTTP and HTTPS only."""
    address = url
    for _ in range(_MAX_REDIRECTS + 1):
        with _network_errors():
            try:
                response = session.get(
                    address,
                    headers=headers,
                    stream=True,
                    timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
                )
                following = _following(session, address, response)
            # All of requests' errors about addresses and headers are also of this kind, and so are
            # those about text that cannot be sent.
            except ValueError as error:
                raise DownloadError(
                    f"url={shortened(address, 200)} is not a web address, or what it answers is "
                    f"not HTTP: {shortened_error(error, _REASON_LENGTH)}"
                ) from error
        with response:
            if following is None:
                yield response
                return
            address = following
            if not address.lower().startswith(("http://", "https://")):
                raise DownloadError(
                    f"url={url!r} leads to {shortened(address, 200)}, which is not a web address"
                )
    raise DownloadError(f"url={url!r} leads from address to address without an end")


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
    with _answer(session, url, headers) as response:
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
            match = re.fullmatch(r"bytes \*/(\S+)", response.headers.get("Content-Range", ""))
            if match and _count(match[1]) == begin:
                return
            part.unlink()
            raise _RetryError("the part that is here does not fit; starting again")
        elif response.status_code in _TRANSIENT:
            raise _RetryError(f"status={response.status_code}", _retry_after(response))
        else:
            reason = shortened(response.reason or "", _REASON_LENGTH)[1:-1]
            raise DownloadError(f"url={url!r}: status={response.status_code} {reason}")
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if encoding not in ("", "identity"):
            # It was asked for as it is; a few bytes can be compressed gigabytes.
            raise DownloadError(
                f"url={url!r} gives the file in encoding={shortened(encoding)}; use another mirror"
            )
        if total is not None and total > max_bytes:
            raise DownloadError(
                f"url={url!r} has {shortened(total)} bytes, more than the {max_bytes} the file "
                "can have"
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
        for chunk in _chunks(response):
            done += len(chunk)
            if done > max_bytes:
                raise DownloadError(
                    f"url={shortened(response.url, 200)} gives more than the {max_bytes} bytes the "
                    "file can have"
                )
            file.write(chunk)
            if report:
                report(done, total)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done < total:
        raise _RetryError(f"the connection ended after {done} of {total} bytes")


def _chunks(response: requests.Response) -> Iterator[bytes]:
    """Yield the body as it comes; give up on a server that keeps the connection but hardly sends.

    The timeout of the connection begins again with every byte.
    """
    begin, nb_bytes = time.monotonic(), 0
    # `read1` returns what is there, of which older versions of urllib3 know nothing.
    read = getattr(response.raw, "read1", response.raw.read)
    while True:
        with _network_errors():
            chunk = read(_CHUNK_BYTES)
        if not chunk:
            return
        yield chunk
        nb_bytes += len(chunk)
        if (passed := time.monotonic() - begin) > SLOW_AFTER:
            if nb_bytes < SLOWEST_RATE * passed:
                raise _RetryError(f"the server gave {nb_bytes} bytes in {passed:.0f} s")
            begin, nb_bytes = time.monotonic(), 0


def _count(text: str) -> int | None:
    """Read a number of a header; None if it is no plain one of at most 18 digits."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def _continued_total(response: requests.Response, begin: int) -> int | None:
    """Size of the whole file if the answer really continues at `begin`."""
    value = response.headers.get("Content-Range", "")
    match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", value, re.ASCII)
    if match is None:
        return None
    first, last, total = (int(number) for number in match.groups())
    return total if first == begin <= last == total - 1 else None


def _content_length(response: requests.Response) -> int | None:
    return _count(response.headers.get("Content-Length", ""))


def _retry_after(response: requests.Response) -> float:
    return min(float(_count(response.headers.get("Retry-After", "")) or 0), LONGEST_PAUSE)


def _read_validator(notes: Path, url: str) -> str | None:
    """Return what identifies the version of the file that the part is from."""
    try:
        known = read_json(notes, DownloadError)
    except DownloadError:
        return None
    validator = known.get("validator")
    return validator if known.get("url") == url and _can_be_sent(validator) else None


def _can_be_sent(validator: object) -> bool:
    """Whether a text can stand in a header; what came in one may span several lines."""
    return isinstance(validator, str) and bool(re.fullmatch(r"[\x20-\x7e]{1,200}", validator))


def _write_validator(notes: Path, url: str, response: requests.Response) -> None:
    validator = response.headers.get("ETag", "")
    if not validator or validator.startswith("W/"):
        # A weak tag does not promise equal bytes.
        validator = response.headers.get("Last-Modified", "")
    if _can_be_sent(validator):
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
        File that stands for what is locked, as for `claimed`.

    Raises
    ------
    DownloadError
        If another process holds the lock for an hour.
    """
    with claimed(path, wait=True, timeout=_LOCK_TIMEOUT) as held:
        if not held:
            raise DownloadError(
                f"path={str(path)!r} is locked by another download; end it and try again"
            )
        yield
