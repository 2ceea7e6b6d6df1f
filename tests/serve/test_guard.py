"""Who is let in: the token, the names of the host, other pages."""

from __future__ import annotations

import re
import socket

import pytest
import requests

from umx_np.serve.app import STATIC
from umx_np.serve.guard import Guard

from .conftest import Server, document


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("guard") / "data")
    yield server
    server.stop()


def bare(server: Server, path: str, method: str = "GET", **headers: str) -> requests.Response:
    """Ask without a token."""
    return requests.request(
        method, server.url + path, headers=headers, timeout=30, allow_redirects=False
    )


def test_nothing_is_answered_without_the_token(server):
    paths = [*document()["paths"], "/static/main.js", "/static/style.css", "/", "/nothing"]
    for path in paths:
        for method in ("GET", "POST", "DELETE", "OPTIONS", "TRACE"):
            answer = bare(server, path[1:], method)
            assert answer.status_code == 401, (method, path)
            assert "token" in answer.text
    assert bare(server, "api/jobs", authorization="Bearer wrong").status_code == 401
    assert bare(server, "api/jobs", authorization=f"Basic {server.token}").status_code == 401
    assert bare(server, "api/jobs?token=" + server.token).status_code == 401
    assert bare(server, "?token=wrong").status_code == 401
    assert bare(server, "api/jobs", cookie="\xff=;;;a").status_code == 401
    assert bare(server, "api/jobs", authorization=f"Bearer {server.token}").status_code == 200


def test_the_address_sets_a_cookie_that_opens(server):
    answer = bare(server, f"?token={server.token}")
    assert answer.status_code == 200
    cookie = answer.headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    held = cookie.split(";")[0]
    assert held.startswith(f"umx-np-{server.port}=")
    assert bare(server, "api/jobs", cookie=held).status_code == 200
    assert bare(server, "api/jobs", cookie=held[:-1]).status_code == 401
    # It is given with the token only.
    assert "set-cookie" not in bare(server, "", cookie=held).headers


def test_what_stands_for_the_token_does_so_once():
    guard = Guard(None, "127.0.0.1", 1)
    query = f"once={guard.once}".encode()
    assert guard._opens(query)
    assert not guard._opens(query)
    assert guard._opens(f"token={guard.token}".encode())
    assert not guard._opens(b"once=")
    assert not guard._opens(b"once=None")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "a@b", "[::1"])
def test_other_names_of_the_host_are_refused(server, host):
    answer = bare(server, "api/jobs", authorization=f"Bearer {server.token}", host=host)
    assert answer.status_code in (400, 403)


@pytest.mark.parametrize("host", ["localhost:1", "LOCALHOST", "127.0.0.1", "[::1]:80"])
def test_names_of_this_machine_are_not(server, host):
    answer = bare(server, "api/jobs", authorization=f"Bearer {server.token}", host=host)
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("listens", "host", "ok"),
    [
        ("127.0.0.1", "192.168.0.7:80", False),
        ("0.0.0.0", "192.168.0.7:80", True),
        ("0.0.0.0", "[fe80::1]:80", True),
        ("0.0.0.0", socket.gethostname(), True),
        ("0.0.0.0", "evil.example", False),
        ("music.example", "Music.example:1", True),
    ],
)
def test_where_others_may_listen_names_that_can_be_made_to_lead_here_are_refused(listens, host, ok):
    assert Guard(None, listens, 1)._is_known(host) is ok


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_other_pages_are_refused(server, headers):
    asked = {"authorization": f"Bearer {server.token}", **headers}
    assert bare(server, "api/jobs/example", "POST", **asked).status_code == 403
    assert not server.jobs()


def test_the_page_itself_is_not(server):
    origin = server.url.rstrip("/")
    asked = {"origin": origin, "sec-fetch-site": "same-origin"}
    asked["authorization"] = f"Bearer {server.token}"
    assert bare(server, "api/jobs/0123456789abcdef", "DELETE", **asked).status_code == 404


def test_every_answer_tells_the_browser_to_be_careful(server):
    for path in ("", "api/jobs", "static/main.js", "api/nothing"):
        for answer in (server.get(path), bare(server, path)):
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert answer.headers["cache-control"] == "no-store"
            assert "server" not in answer.headers


def test_the_page_needs_nothing_inline_and_nothing_from_elsewhere():
    for path in STATIC.iterdir():
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".html":
            assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?![^>]*\ssrc=)", text)
        assert not re.search(r"""(?:src|href|from|url\(|@import)\s*=?\s*["'(]?https?:""", text), (
            path
        )
        assert "innerHTML" not in text


@pytest.mark.parametrize(
    "path", ["static/../app.py", "static/%2e%2e/app.py", "static/..%2fapp.py", "static//etc/passwd"]
)
def test_no_other_file_is_served(server, path):
    with socket.create_connection(("127.0.0.1", server.port), 10) as line:
        line.sendall(
            f"GET /{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            f"Authorization: Bearer {server.token}\r\n\r\n".encode()
        )
        answer = b""
        while data := line.recv(65536):
            answer += data
    assert answer.split()[1] == b"404"
    assert b"starlette" not in answer.lower()
