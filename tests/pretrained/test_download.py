"""Downloads, against a server on this machine that can misbehave in many ways."""

from __future__ import annotations

import hashlib
import logging
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.download_server import (
    DATA,
    NAME,
    SIZE,
    Handler,
    Server,
    cut,
    fetch_it,
    part_of,
    ranges,
    status,
    wrong_range,
)

from umx_np.errors import ConfigError, DownloadError
from umx_np.pretrained import loading as pretrained
from umx_np.pretrained import transfer as _transfer
from umx_np.pretrained.models import ModelInfo


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
    monkeypatch.setattr("umx_np.pretrained.models.PUBLISHED", {"tiny": free})
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
            "umx_np.pretrained.models.PUBLISHED", {"tiny": replace(model, files={"vocals": file})}
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
    monkeypatch.setattr(
        "umx_np.pretrained.models.PUBLISHED", {"tiny": replace(model, files={"vocals": file})}
    )
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
    path = tmp_path / "lock"
    with (
        _transfer.file_lock(path),
        pytest.raises(DownloadError, match="locked by another"),
        _transfer.file_lock(path),
    ):
        pass
    with _transfer.file_lock(path):
        pass
