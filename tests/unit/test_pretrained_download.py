"""Downloads, against a server on this machine that can misbehave in many ways."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from umx_np import pretrained
from umx_np.errors import ConfigError, DownloadError
from umx_np.weights import _transfer
from umx_np.weights.published import PUBLISHED, ModelInfo, PublishedFile

SIZE = 300_000
NAME = "vocals-00000000.pth"
DATA = np.random.default_rng(0).bytes(SIZE)


@dataclass
class Server:
    """What the server gives, and what it was asked."""

    url: str = ""
    data: bytes = DATA
    etag: str = '"one"'
    # Each answers one request and is then forgotten; afterwards all goes well.
    faults: list[Callable[[Handler], None]] = field(default_factory=list)
    honours_range: bool = True
    requests: list[tuple[str, str | None, str | None]] = field(default_factory=list)


class Handler(BaseHTTPRequestHandler):
    state: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        state = self.state
        wanted = self.headers.get("Range")
        condition = self.headers.get("If-Range")
        state.requests.append((self.path, wanted, condition))
        if state.faults:
            state.faults.pop(0)(self)
            return
        if not self.path.endswith(NAME):
            self.send_error(404)
            return
        begin = 0
        if wanted and state.honours_range and condition in (None, state.etag):
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
            if begin >= len(state.data):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(state.data)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            last = len(state.data) - 1
            self.send_header("Content-Range", f"bytes {begin}-{last}/{len(state.data)}")
        else:
            self.send_response(200)
        self.give(state.data[begin:])

    def give(self, body: bytes, announced: int | None = None) -> None:
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        if self.state.etag:
            self.send_header("ETag", self.state.etag)
        self.end_headers()
        self.wfile.write(body)


def status(code: int, **headers: str) -> Callable[[Handler], None]:
    def answer(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def cut(count: int) -> Callable[[Handler], None]:
    """Announce the whole file, give `count` bytes of it, and close the connection."""

    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.give(handler.state.data[:count], announced=len(handler.state.data))
        handler.close_connection = True

    return answer


def wrong_range(handler: Handler) -> None:
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 5-{SIZE - 1}/{SIZE}")
    handler.give(handler.state.data[5:])


@pytest.fixture
def server() -> Iterator[Server]:
    state = Server()
    handler = type("BoundHandler", (Handler,), {"state": state})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    http.daemon_threads = False  # so that closing waits for the answers under way
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_address[1]}"
    try:
        yield state
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture
def model(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModelInfo:
    """Put a model of one file in place of the published ones."""
    file = PublishedFile(
        target="vocals",
        filename=NAME,
        url=f"{server.url}/records/1/files/{NAME}",
        sha256=hashlib.sha256(DATA).hexdigest(),
        size=SIZE,
    )
    info = replace(PUBLISHED["umxl"], name="tiny", files={"vocals": file}, nb_parameters=75_000)
    monkeypatch.setattr(pretrained, "PUBLISHED", {"tiny": info})
    monkeypatch.setattr(_transfer, "FIRST_PAUSE", 0.001)
    # So that the part is as long as what the server gave before it stopped.
    monkeypatch.setattr(_transfer, "_CHUNK_BYTES", 10_000)
    monkeypatch.setenv("UMX_NP_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("UMX_NP_OFFLINE", "UMX_NP_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    return info


def part_of(tmp_path: Path) -> Path:
    path = tmp_path / "home" / "tiny" / f"{NAME}.part"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def fetch_it(**options: object) -> Path:
    path = pretrained.download("tiny", **options)["vocals"]  # type: ignore[arg-type]
    assert path.read_bytes() == DATA
    visible = [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")]
    assert visible == [NAME]  # neither the part nor the notes about it remain
    return path


def ranges(server: Server) -> list[str | None]:
    return [wanted for _, wanted, _ in server.requests]


def test_success(model: ModelInfo, server: Server, tmp_path: Path) -> None:
    assert fetch_it() == tmp_path / "home" / "tiny" / NAME
    assert server.requests == [(f"/records/1/files/{NAME}", None, None)]
    fetch_it()
    assert len(server.requests) == 1


def test_licence_is_named(
    model: ModelInfo,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    fetch_it()
    assert "non-commercial use only (CC BY-NC-SA 4.0)" in caplog.text
    caplog.clear()
    fetch_it()
    assert not caplog.text
    monkeypatch.setenv("UMX_NP_HOME", str(tmp_path / "other"))
    free = replace(model, license="MIT", non_commercial=False)
    monkeypatch.setattr(pretrained, "PUBLISHED", {"tiny": free})
    with caplog.at_level(logging.INFO):
        fetch_it()
    assert "licence of the weights of tiny: MIT" in caplog.text


@pytest.mark.parametrize("known_size", [True, False])
def test_resume_of_an_earlier_download(
    model: ModelInfo,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    known_size: bool,
) -> None:
    if not known_size:
        file = replace(model.files["vocals"], size=None, sha256=model.files["vocals"].sha256[:8])
        monkeypatch.setattr(
            pretrained, "PUBLISHED", {"tiny": replace(model, files={"vocals": file})}
        )
    server.faults = [cut(100_000)]
    with pytest.raises(DownloadError, match="could not be downloaded"):
        pretrained.download("tiny", retries=0)
    assert part_of(tmp_path).stat().st_size == 100_000
    fetch_it()
    assert server.requests[-1][1:] == ("bytes=100000-", '"one"')


def test_cut_connections_are_continued(model: ModelInfo, server: Server) -> None:
    server.faults = [cut(70_000)]
    fetch_it()
    assert ranges(server) == [None, "bytes=70000-"]


def test_progress_renews_patience(
    model: ModelInfo, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every connection ends after 50 kB: more failures than retries, but each brings something.
    monkeypatch.setattr(_transfer, "_PROGRESS_BYTES", 40_000)

    def short(handler: Handler) -> None:
        wanted = handler.headers.get("Range")
        begin = int(wanted[6:-1]) if wanted else 0
        handler.send_response(206 if wanted else 200)
        if wanted:
            handler.send_header("Content-Range", f"bytes {begin}-{SIZE - 1}/{SIZE}")
        handler.give(DATA[begin : begin + 50_000], announced=SIZE - begin)
        handler.close_connection = True

    server.faults = [short] * 5
    fetch_it(retries=1)
    assert len(server.requests) == 6


def test_server_that_ignores_ranges(model: ModelInfo, server: Server) -> None:
    server.honours_range = False
    server.faults = [cut(70_000)]
    fetch_it()
    assert ranges(server) == [None, "bytes=70000-"]


def test_server_that_ignores_ranges_and_always_cuts(model: ModelInfo, server: Server) -> None:
    # It begins again each time, which is no progress: there must be an end.
    server.faults = [cut(70_000)] * 50
    with pytest.raises(DownloadError, match="could not be downloaded"):
        pretrained.download("tiny", retries=3)
    assert len(server.requests) <= 5


def test_file_that_changed_in_between(model: ModelInfo, server: Server, tmp_path: Path) -> None:
    server.data, server.etag = bytes(SIZE), '"old"'
    server.faults = [cut(70_000)]
    with pytest.raises(DownloadError):
        pretrained.download("tiny", retries=0)
    server.data, server.etag = DATA, '"one"'
    fetch_it()
    # If-Range made the server give the whole new file.
    assert server.requests[-1][1:] == ("bytes=70000-", '"old"')


def test_part_of_another_file_without_tags(
    model: ModelInfo, server: Server, tmp_path: Path
) -> None:
    server.etag = ""
    part_of(tmp_path).write_bytes(b"something else")
    fetch_it()
    assert ranges(server) == ["bytes=14-", None]


@pytest.mark.parametrize("content", [DATA, DATA[:-1], DATA + b"x", bytes(SIZE), b""])
def test_any_part_ends_well(
    model: ModelInfo, server: Server, tmp_path: Path, content: bytes
) -> None:
    part_of(tmp_path).write_bytes(content)
    fetch_it()
    if content == DATA:
        assert not server.requests


def test_complete_part_of_unknown_size(
    model: ModelInfo, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = replace(model.files["vocals"], size=None)
    monkeypatch.setattr(pretrained, "PUBLISHED", {"tiny": replace(model, files={"vocals": file})})
    # All bytes are there, but wrong: the server answers 416.
    part_of(tmp_path).write_bytes(bytes(SIZE))
    fetch_it()
    assert ranges(server) == [f"bytes={SIZE}-", None]
    server.requests.clear()
    (tmp_path / "home" / "tiny" / NAME).unlink()
    part_of(tmp_path).write_bytes(bytes(SIZE + 5))
    fetch_it()
    assert ranges(server) == [f"bytes={SIZE + 5}-", None]


def test_answer_for_another_range(model: ModelInfo, server: Server, tmp_path: Path) -> None:
    part_of(tmp_path).write_bytes(DATA[:1000])
    server.faults = [wrong_range]
    fetch_it()
    assert ranges(server) == ["bytes=1000-", None]


def test_truncated_body(model: ModelInfo, server: Server) -> None:
    # The server believes that the file is shorter, so that nothing but the hash tells.
    server.data = DATA[:-10]
    with pytest.raises(DownloadError, match=f"size={SIZE - 10} instead of {SIZE}"):
        pretrained.download("tiny", retries=1)


def test_wrong_hash(model: ModelInfo, server: Server, tmp_path: Path) -> None:
    server.data = bytes(SIZE)
    with pytest.raises(DownloadError) as caught:
        pretrained.download("tiny")
    message = str(caught.value)
    file = model.files["vocals"]
    assert f"sha256={hashlib.sha256(bytes(SIZE)).hexdigest()} instead of {file.sha256}" in message
    assert f"Get it from {file.url}" in message
    assert "model='umxm' comes with the package" in message
    assert len(server.requests) == 1
    assert not part_of(tmp_path).exists()
    assert not (tmp_path / "home" / "tiny" / NAME).exists()


@pytest.mark.parametrize("code", [403, 404, 410])
def test_refusal_is_final(model: ModelInfo, server: Server, code: int) -> None:
    server.faults = [status(code)] * 9
    with pytest.raises(DownloadError, match=f"status={code}"):
        pretrained.download("tiny")
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_busy_server_is_asked_again(model: ModelInfo, server: Server, code: int) -> None:
    server.faults = [status(code), status(code, Retry_After="0")]
    fetch_it()
    assert len(server.requests) == 3


def test_retries_are_bounded(model: ModelInfo, server: Server) -> None:
    server.faults = [status(500)] * 99
    with pytest.raises(DownloadError, match="status=500"):
        pretrained.download("tiny", retries=3)
    assert len(server.requests) == 4


def test_retry_after_is_bounded(
    model: ModelInfo, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(_transfer.time, "sleep", pauses.append)
    server.faults = [status(503, Retry_After="86400"), status(503, Retry_After="soon")]
    fetch_it()
    assert pauses[0] == _transfer.LONGEST_PAUSE
    assert pauses[1] < 1


def test_unreachable_server(model: ModelInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DownloadError, match="ConnectionError"):
        pretrained.download("tiny", base_url="http://127.0.0.1:9", retries=1)
    with pytest.raises(DownloadError, match="is not a web address"):
        pretrained.download("tiny", base_url="file:///tmp")
    with pytest.raises(ConfigError, match="base_url=''"):
        pretrained.download("tiny", base_url="")


@pytest.mark.parametrize("announced", [True, False])
def test_endless_body(
    model: ModelInfo, server: Server, monkeypatch: pytest.MonkeyPatch, announced: bool
) -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        if announced:
            handler.send_header("Content-Length", str(1 << 50))
        handler.end_headers()
        handler.wfile.write(bytes(SIZE + 1))
        handler.close_connection = True

    server.faults = [answer]
    with pytest.raises(DownloadError, match="more than the 300000"):
        pretrained.download("tiny")


def test_mirrors_in_order(
    model: ModelInfo, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirrors = f" http://127.0.0.1:9/a , {server.url}/missing/, {server.url}/good ,"
    monkeypatch.setenv("UMX_NP_MIRROR", mirrors)
    server.faults = [status(404)]
    fetch_it(retries=0)
    assert [path for path, _, _ in server.requests] == [f"/missing/{NAME}", f"/good/{NAME}"]


def test_wrong_mirror_does_not_spoil_the_original(
    model: ModelInfo, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMX_NP_MIRROR", f"{server.url}/bad")

    def other(handler: Handler) -> None:
        handler.send_response(200)
        handler.give(b"a web page")

    server.faults = [other]
    fetch_it()
    assert [path for path, _, _ in server.requests] == [f"/bad/{NAME}", f"/records/1/files/{NAME}"]


def test_base_url_is_the_only_address(
    model: ModelInfo, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UMX_NP_MIRROR", f"{server.url}/mirror")
    fetch_it(base_url=f"{server.url}/base/")
    assert [path for path, _, _ in server.requests] == [f"/base/{NAME}"]


def test_damaged_cache_is_replaced(model: ModelInfo, tmp_path: Path) -> None:
    part_of(tmp_path).with_suffix("").write_bytes(b"damaged")
    fetch_it()


def test_progress(model: ModelInfo, server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[str, int, int | None]] = []
    server.faults = [cut(70_000)]
    fetch_it(progress=lambda *call: calls.append(call))
    assert calls[0] == (NAME, 0, SIZE)
    assert calls[-1] == (NAME, SIZE, SIZE)
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
    assert capsys.readouterr().err == ""


def test_progress_bar(model: ModelInfo, capsys: pytest.CaptureFixture[str]) -> None:
    fetch_it(progress=True)
    assert NAME in capsys.readouterr().err


def test_cancelled_download_continues_later(
    model: ModelInfo, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transfer, "_CHUNK_BYTES", 50_000)

    told = []

    def stop(_: str, done: int, __: int | None) -> None:
        told.append(done)
        if done >= 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrained.download("tiny", progress=stop)
    assert part_of(tmp_path).stat().st_size == told[-1] < SIZE
    fetch_it()
    assert ranges(server)[-1] == f"bytes={told[-1]}-"


def test_concurrent_downloads(model: ModelInfo, server: Server) -> None:
    barrier = threading.Barrier(4)
    results: list[object] = []

    def work() -> None:
        barrier.wait()
        try:
            results.append(pretrained.download("tiny")["vocals"].read_bytes() == DATA)
        except BaseException as error:
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [True] * 4
    assert len(server.requests) == 1


def test_cache_that_cannot_be_written(
    model: ModelInfo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocker = tmp_path / "file"
    blocker.touch()
    monkeypatch.setenv("UMX_NP_HOME", str(blocker))
    with pytest.raises(DownloadError, match="set UMX_NP_HOME"):
        pretrained.download("tiny")


def test_lock_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_transfer, "_LOCK_TIMEOUT", 0.0)
    monkeypatch.setattr(_transfer, "_LOCK_PAUSE", 0.001)
    path = tmp_path / "lock"
    with (
        _transfer.file_lock(path),
        pytest.raises(DownloadError, match="locked by another"),
        _transfer.file_lock(path),
    ):
        pass
    with _transfer.file_lock(path):
        pass


# Servers that lie


def headers(code: int, body: bytes = b"", **fields: str) -> Callable[[Handler], None]:
    """Answer with these headers and no others."""

    def answer(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in fields.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return answer


@pytest.mark.parametrize(
    "length", ["-1", "²", "9" * 5000, "1e400", "0x10", " 7 ", "12, 13", "", "+5", "١٢"]
)
def test_content_lengths_that_are_no_numbers(model: ModelInfo, server: Server, length: str) -> None:
    shown = length.encode().decode("latin-1")
    server.faults = [headers(200, b"abc", Content_Length=shown)] * 2
    with pytest.raises(DownloadError) as caught:
        pretrained.download("tiny", retries=0)
    assert len(str(caught.value)) < 1500
    server.faults = []
    fetch_it()


@pytest.mark.parametrize(
    "value",
    [
        "bytes 0-²/9",
        f"bytes 100000-{SIZE - 1}/{'9' * 5000}",
        f"bytes {'0' * 5000}100000-{SIZE - 1}/{SIZE}",
        "bytes 100000-99999/100000",
        "bytes -1-2/3",
        "bytes 100000-5/6",
        "text",
        "\x1b[31m",
    ],
)
@pytest.mark.parametrize("code", [206, 416])
def test_content_ranges_that_lie(
    model: ModelInfo, server: Server, tmp_path: Path, value: str, code: int
) -> None:
    part_of(tmp_path).write_bytes(DATA[:100_000])
    shown = value.encode().decode("latin-1")
    server.faults = [headers(code, b"abc", Content_Range=shown, Content_Length="3")]
    fetch_it()


@pytest.mark.parametrize("value", ["²", "-1", "9" * 5000, "soon", "nan", "inf"])
def test_waits_that_are_no_numbers(model: ModelInfo, server: Server, value: str) -> None:
    server.faults = [headers(503, Retry_After=value.encode().decode("latin-1"))]
    _transfer.LONGEST_PAUSE, longest = 0.01, _transfer.LONGEST_PAUSE
    try:
        fetch_it()
    finally:
        _transfer.LONGEST_PAUSE = longest


@pytest.mark.parametrize("encoding", ["gzip", "gzip, gzip, gzip", "br", "\x1b[31m", "x" * 9999])
def test_compressed_answers_are_refused(model: ModelInfo, server: Server, encoding: str) -> None:
    bomb = gzip.compress(bytes(50 << 20))
    server.faults = [headers(200, bomb, Content_Encoding=encoding)]
    with pytest.raises(DownloadError, match="in encoding=") as caught:
        pretrained.download("tiny", retries=0)
    assert len(str(caught.value)) < 1000
    assert "\x1b" not in str(caught.value)


def redirect(target: str, code: int = 302, body: bytes = b"") -> Callable[[Handler], None]:
    return headers(code, body, Location=target)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("file:///etc/passwd", "leads to 'file:///etc/passwd', which is not a web address"),
        ("ftp://127.0.0.1/x", "not a web address"),
        ("data:text/plain,abc", "not a web address"),
        ("gopher://127.0.0.1/", "not a web address"),
        ("http://[::", "is not a web address"),
        ("http://127.0.0.1:99999999/", "is not a web address"),
        ("\xff\xfe", "is not a web address"),
        ("file:///" + "a" * 5000, "not a web address"),
    ],
)
def test_redirects_to_other_schemes(
    model: ModelInfo, server: Server, target: str, message: str
) -> None:
    server.faults = [redirect(target)]
    with pytest.raises(DownloadError, match=message.replace("[", r"\[")) as caught:
        pretrained.download("tiny", retries=0)
    assert len(str(caught.value)) < 1200


def test_redirects_are_followed(model: ModelInfo, server: Server) -> None:
    server.faults = [redirect(f"/elsewhere/{NAME}", code) for code in (301, 302, 303, 307, 308)]
    fetch_it()
    assert server.requests[-1][0] == f"/elsewhere/{NAME}"


def test_redirects_without_an_end(model: ModelInfo, server: Server) -> None:
    server.faults = [redirect(f"/again/{NAME}")] * 100
    with pytest.raises(DownloadError, match="from address to address"):
        pretrained.download("tiny", retries=3)
    assert len(server.requests) < 20


def test_the_body_of_a_redirect_is_not_read(model: ModelInfo, server: Server) -> None:
    sent = []

    def endless(handler: Handler) -> None:
        handler.send_response(302)
        handler.send_header("Location", f"/elsewhere/{NAME}")
        handler.end_headers()
        handler.close_connection = True
        with contextlib.suppress(OSError):
            for _ in range(1000):
                handler.wfile.write(bytes(1 << 20))
                sent.append(1)

    server.faults = [endless]
    fetch_it()
    assert len(sent) < 100


def test_a_server_that_hardly_sends(
    model: ModelInfo, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transfer, "SLOW_AFTER", 0.2)

    def drip(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(SIZE))
        handler.end_headers()
        handler.close_connection = True
        with contextlib.suppress(OSError):
            for byte in DATA[:1000]:
                handler.wfile.write(bytes([byte]))
                time.sleep(0.02)

    server.faults = [drip]
    begin = time.monotonic()
    with pytest.raises(DownloadError, match=r"the server gave \d+ bytes in 0 s"):
        pretrained.download("tiny", retries=0)
    assert time.monotonic() - begin < 5
    fetch_it()


@pytest.mark.parametrize("tag", ["\x80", "x" * 5000])
def test_tags_that_could_not_be_sent_back(
    model: ModelInfo, server: Server, tag: str, tmp_path: Path
) -> None:
    def answer(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("ETag", tag)
        handler.send_header("Content-Length", str(SIZE))
        handler.end_headers()
        handler.wfile.write(DATA[:100_000])
        handler.close_connection = True

    server.faults = [answer]
    fetch_it()
    assert server.requests[-1][1:] == ("bytes=100000-", None)


@pytest.mark.parametrize("notes", [b"[" * 100_000, b'{"url": 3}', b"\xff", b"[]"])
def test_notes_that_are_damaged(
    model: ModelInfo, server: Server, tmp_path: Path, notes: bytes
) -> None:
    part = part_of(tmp_path)
    part.write_bytes(DATA[:100_000])
    part.with_name(part.name + ".json").write_bytes(notes)
    fetch_it()


def test_bases_that_are_no_addresses(model: ModelInfo) -> None:
    for base in ("file:///etc", "x://y", "http://\ud800", "http://[", "no scheme", "http://a b\n"):
        with pytest.raises(DownloadError) as caught:
            pretrained.download("tiny", base_url=base, retries=0)
        assert "\n" not in str(caught.value)
