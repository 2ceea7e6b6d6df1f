"""Many at once, long ones, and those that never end: the server stays as small as it is."""

from __future__ import annotations

import os
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from .conftest import RATE, Server, add_done

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at /proc"),
]

MB = 1_000_000
# Over what it has when it is open; each test moves more than ten times as much.
MOST = 40 * MB


def peak(server: Server) -> int:
    """Most memory that the server had so far, in bytes."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])


def ask(server: Server, request: str) -> socket.socket:
    """Begin a request, and leave it there."""
    line = socket.create_connection(("127.0.0.1", server.port), 10)
    # What is not read stays with the server.
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    head, _, body = request.partition("\n\n")
    lines = [head, "Host: localhost", f"Authorization: Bearer {server.token}"]
    line.sendall(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
    return line


def seconds_to_answer(server: Server) -> float:
    begin = time.monotonic()
    assert server.get("api/jobs").status_code == 200
    return time.monotonic() - begin


def test_twenty_uploads_at_once_all_arrive_and_take_no_memory(serve):
    server = serve()
    before = peak(server)
    songs = [np.random.default_rng(seed).bytes(25 * MB) for seed in range(2)]

    def send(number: int) -> str:
        song = songs[number % 2]
        parts = (song[first : first + MB] for first in range(0, len(song), MB))
        answer = server.post(f"api/jobs?name=song {number}.bin", data=parts)
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    with ThreadPoolExecutor(20) as pool:
        ids = list(pool.map(send, range(20)))
    grown = peak(server) - before
    print(f"memory grew by {grown / MB:.0f} MB over {before / MB:.0f} MB")
    assert grown < MOST
    jobs = {job["id"]: job for job in server.jobs()}
    assert set(ids) == set(jobs)
    for number, name in enumerate(ids):
        assert jobs[name]["name"] == f"song {number}.bin"
        (path,) = (server.folder / "songs" / name).glob("song*")
        assert path.read_bytes() == songs[number % 2]
    for name in ids:
        assert server.delete(f"api/jobs/{name}").status_code == 204
    assert server.files() == []


def test_those_who_stall_keep_nobody_waiting(serve, tmp_path):
    """Halves of uploads, downloads and events that are not read, headers without an end."""
    noise = np.random.default_rng(0).integers(-9000, 9000, (300 * RATE, 2)).astype(np.int16)
    job = add_done(tmp_path / "data", {"vocals": noise})
    server = serve()
    before = peak(server)
    requests = [
        "POST /api/jobs?name=a HTTP/1.1\r\nContent-Length: 9999999\n\n" + "x" * 100_000,
        f"GET /api/jobs/{job.id}/lanes/vocals HTTP/1.1\n\n",
        f"GET /api/jobs/{job.id}/zip HTTP/1.1\n\n",
        "GET /api/events HTTP/1.1\n\n",
    ]
    stalled = [ask(server, request) for request in requests for _ in range(15)]
    for _ in range(15):
        stalled.append(socket.create_connection(("127.0.0.1", server.port), 10))
        stalled[-1].sendall(b"GET /api/jobs HTTP/1.1\r\nHost: loc")
    time.sleep(1)
    answered = max(seconds_to_answer(server) for _ in range(10))
    name = server.post("api/jobs?name=b.mp3", data=b"x" * 1000).json()["id"]
    assert server.wait(name, "failed")
    assert server.get(f"api/jobs/{job.id}/mix?gains=vocals:1&format=flac").status_code == 200
    grown = peak(server) - before
    print(f"memory grew by {grown / MB:.0f} MB, answers took {answered:.2f} s")
    assert grown < MOST + 20 * MB  # the mix, and what libsndfile brings
    assert answered < 5
    for line in stalled:
        line.close()
    deadline = time.monotonic() + 20
    while len(os.listdir(server.folder / "songs")) > 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_song_of_two_hours_is_played_by_ranges(serve, tmp_path):
    """Its peaks, its ranges and a mix of it take no memory that grows with it."""
    noise = np.random.default_rng(0).integers(-9000, 9000, (120 * RATE, 1)).astype(np.int16)
    job = add_done(tmp_path / "data", {"vocals": np.tile(noise, (60, 1))})
    assert job.sound.nb_timesteps == 2 * 3600 * RATE
    server = serve()
    before = peak(server)
    one = f"api/jobs/{job.id}"
    assert len(server.get(f"{one}/peaks").json()["lanes"]["vocals"]["low"]) <= 2000
    for second in (0, 3600, 7199):
        first = job.sound.first_byte + 2 * RATE * second
        part = server.get(
            f"{one}/lanes/vocals", headers={"range": f"bytes={first}-{first + 2 * RATE - 1}"}
        )
        start = (second * RATE) % len(noise)
        found = np.frombuffer(part.content, "<i2")
        np.testing.assert_array_equal(found, noise[start : start + RATE, 0])
    with server.get(f"{one}/mix?gains=vocals:0.5", stream=True) as answer:
        assert sum(map(len, answer.iter_content(MB))) == 44 + 2 * job.sound.nb_timesteps
    grown = peak(server) - before
    print(f"memory grew by {grown / MB:.0f} MB over {before / MB:.0f} MB")
    assert grown < MOST + 20 * MB
