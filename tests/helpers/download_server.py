"""A server on this machine that can misbehave in many ways."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from umx_np.pretrained import loading as pretrained
from umx_np.pretrained.models import ModelInfo, PublishedFile
from umx_np.weights import StateDict, save_torch

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
    # Other files than `NAME`, with their contents.
    files: dict[str, bytes] = field(default_factory=dict)


@contextmanager
def serving() -> Iterator[Server]:
    """Run a server on this machine while the block lasts."""
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
        other = state.files.get(self.path.rpartition("/")[2])
        if other is not None:
            self.send_response(200)
            self.give(other)
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


def publish(
    server: Server, like: ModelInfo, states: dict[str, StateDict], tmp_path: Path, bits: int = 256
) -> ModelInfo:
    """Let a server have files under the names of published ones; return their description."""
    files = {}
    for target, state in states.items():
        path = tmp_path / "made.pth"
        save_torch(state, path)
        data = path.read_bytes()
        path.unlink()
        name = like.files[target].filename
        server.files[name] = data
        files[target] = PublishedFile(
            target, name, f"{server.url}/records/1/files/{name}",
            hashlib.sha256(data).hexdigest()[: bits // 4],
        )  # fmt: skip
    return replace(like, files=files)


def download_to(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let models of ours and of torch be kept in a folder, and nothing else say where they are."""
    monkeypatch.setenv("UMX_NP_HOME", str(folder / "home"))
    monkeypatch.setenv("TORCH_HOME", str(folder / "torch"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name in ("UMX_NP_OFFLINE", "UMX_NP_MIRROR"):
        monkeypatch.delenv(name, raising=False)
