"""Downloads from servers that lie, send without an end, or lead elsewhere."""

from __future__ import annotations

import contextlib
import gzip
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.download_server import DATA, NAME, SIZE, Handler, Server, fetch_it, part_of

from umx_np.errors import DownloadError
from umx_np.pretrained import loading as pretrained
from umx_np.pretrained import transfer as _transfer
from umx_np.pretrained.models import ModelInfo


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
