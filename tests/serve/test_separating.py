"""From an upload to stems: the same as of the command, in the order of the queue, whatever ends."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import soundfile as sf
from helpers.documents import blocks_of

import umx_np
from umx_np.commands import main
from umx_np.serve.app import HERE

from .conftest import RATE, add_done, lanes_of, noise_file

EXAMPLE = HERE.parents[1] / "examples" / "song.ogg"


def test_stems_are_those_of_the_library_and_the_record_is_that_of_the_command(serve, tmp_path):
    server = serve("--threads", "1")
    song = noise_file(tmp_path / "noise.wav", 1.5)
    answer = server.post("api/jobs?name=noise.wav&niter=0&two_stems=vocals", data=song.read_bytes())
    assert answer.status_code == 201, answer.text
    job = server.wait(answer.json()["id"], "done", "failed")
    assert job["state"] == "done", job
    assert job["sound"]["lanes"] == ["mixture", "vocals", "no_vocals"]
    paths = umx_np.separate_file(song, tmp_path / "out", two_stems="vocals", niter=0, threads=1)
    one = f"api/jobs/{job['id']}"
    for lane, path in {"mixture": song, **paths}.items():
        found = sf.read(io.BytesIO(server.get(f"{one}/lanes/{lane}").content), dtype="int16")[0]
        np.testing.assert_array_equal(found, sf.read(path, dtype="int16")[0])
    record = job["record"]
    assert record["format"] == "umx_np record"
    assert record["model"]["name"] == "umxm"
    assert set(record["outputs"]) == {"vocals", "no_vocals"}
    assert not [name for name in server.files() if "attempt" in name]
    assert server.delete(one).status_code == 204
    assert server.files() == []


@pytest.mark.slow
def test_a_file_that_is_no_song_fails_in_words_and_the_next_goes_on(serve, tmp_path):
    server = serve()
    broken = server.post("api/jobs?name=Broken.mp3", data=b"no sound at all" * 100).json()
    song = noise_file(tmp_path / "noise.wav", 0.5).read_bytes()
    fine = server.post("api/jobs?name=fine.wav&niter=0&targets=vocals", data=song).json()
    assert server.post("api/jobs?name=b.wav&model=umxhq", data=song).status_code == 201
    job = server.wait(broken["id"], "failed")
    assert job["error"]["type"] == "AudioError"
    assert "Broken.mp3" in job["error"]["message"]
    assert str(server.folder) not in job["error"]["message"]
    assert server.wait(fine["id"], "done")["sound"]["lanes"] == ["mixture", "vocals"]
    # Offline, a model that is not here is none.
    third = server.wait(server.jobs()[0]["id"], "failed")
    assert third["error"]["type"] == "DownloadError"


def started(server, seconds=60):
    """Queue a song that takes long; wait until it is being separated."""
    long = np.zeros((RATE * 900, 2), np.int16)
    path = server.folder.parent / "long.flac"
    sf.write(path, long, RATE)
    with path.open("rb") as file:
        job = server.post("api/jobs?name=long.flac", data=file).json()
    deadline = time.monotonic() + seconds
    while True:
        now = server.get(f"api/jobs/{job['id']}").json()
        if now["step"] == "separating" and now["progress"]:
            return job["id"]
        assert time.monotonic() < deadline, now
        time.sleep(0.05)


def children(server) -> list[int]:
    """Processes whose parent is the server."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(server.process.pid)], capture_output=True, text=True
    )
    return [int(word) for word in found.stdout.split()]


def wait_until_gone(pid: int, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while os.path.exists(f"/proc/{pid}"):
        with open(f"/proc/{pid}/stat") as file:
            if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                return
        assert time.monotonic() < deadline
        time.sleep(0.05)


linux = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="looks at /proc")


@linux
@pytest.mark.slow
def test_a_song_that_is_cancelled_ends_at_once_and_leaves_nothing(serve):
    server = serve()
    job = started(server)
    (worker,) = children(server)
    waiting = server.post("api/jobs/example?targets=vocals&niter=0").json()["id"]
    assert server.delete(f"api/jobs/{waiting}").status_code == 204
    begin = time.monotonic()
    assert server.delete(f"api/jobs/{job}").status_code == 204
    assert time.monotonic() - begin < 5
    wait_until_gone(worker)
    assert server.files() == []
    assert server.jobs() == []
    # And the next is separated.
    job = server.post("api/jobs/example?targets=vocals&niter=0").json()["id"]
    assert server.wait(job, "done")["sound"]["lanes"] == ["mixture", "vocals"]


@linux
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_queue_goes_on_after_the_server_was_ended(serve, tmp_path, number):
    """Nothing is lost, and nothing half-written stays; the one that was running begins again."""
    kept = add_done(tmp_path / "data", lanes_of(0.5))
    server = serve()
    job = started(server)
    waiting = server.post("api/jobs/example?targets=vocals&niter=0").json()["id"]
    (worker,) = children(server)
    status = server.stop(number)
    assert (
        status in {signal.SIGKILL: (-9,), signal.SIGTERM: (143, -15), signal.SIGINT: (130,)}[number]
    )
    wait_until_gone(worker)
    again = serve()
    assert {job["id"] for job in again.jobs()} == {kept.id, job, waiting}
    assert again.get(f"api/jobs/{kept.id}/lanes/vocals").status_code == 200
    again.wait(job, "running")
    assert again.delete(f"api/jobs/{job}").status_code == 204
    assert again.wait(waiting, "done")["sound"]["lanes"] == ["mixture", "vocals"]
    assert not [name for name in again.files() if "attempt" in name]


@linux
@pytest.mark.slow
def test_a_process_that_is_ended_by_the_system_is_said_to_be(serve):
    server = serve()
    job = started(server)
    os.kill(children(server)[0], signal.SIGKILL)
    found = server.wait(job, "failed")
    assert "SIGKILL" in found["error"]["message"]
    assert not [name for name in server.files() if "attempt" in name]


def test_a_folder_has_one_server(serve, capsys):
    server = serve()
    assert main(["serve", "--no-browser", "--port", "0", "--folder", str(server.folder)]) == 1
    assert "used by another server" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said_to_be(serve, tmp_path, capsys):
    server = serve()
    arguments = ["serve", "--no-browser", "--port", str(server.port)]
    assert main([*arguments, "--folder", str(tmp_path / "other")]) == 1
    assert "--port 0" in capsys.readouterr().err


@pytest.mark.slow
def test_the_oldest_results_make_room(serve, tmp_path):
    first = add_done(tmp_path / "data", lanes_of(2.0), "first.wav")
    second = add_done(tmp_path / "data", lanes_of(2.0), "second.wav")
    server = serve("--max-disk", "3")
    assert [job["id"] for job in server.jobs()] == [second.id, first.id]
    broken = server.post("api/jobs?name=x.wav", data=b"RIFF" * 200_000).json()["id"]
    assert server.wait(broken, "failed")
    assert [job["id"] for job in server.jobs()] == [broken, second.id]


@pytest.mark.slow
def test_a_full_queue_refuses_more(serve):
    server = serve("--max-queue", "2")
    statuses = [server.post("api/jobs?name=x.wav", data=b"x").status_code for _ in range(2)]
    assert statuses == [201, 201]
    lines = [server.post("api/jobs/example?targets=vocals&niter=0").status_code for _ in range(5)]
    assert lines[-1] == 429


def test_the_command_says_what_is_missing(monkeypatch, capsys):
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else found(name)
    )
    assert main(["serve"]) == 1
    assert "needs uvicorn; install the extra 'web'" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_examples_of_the_document_work(serve, tmp_path):
    """One after the other in one shell, with the address and the token that it begins with."""
    blocks = [block for block in blocks_of("sh", "docs/serve.md") if "curl" in block]
    assert len(blocks) >= 5
    server = serve()
    shutil.copy(EXAMPLE, tmp_path / "song.ogg")
    listed = """curl -fs -H "$AUTH" "$URL/api/jobs" """
    wait = f'until {listed} | grep -q \'"state":"done"\'; do sleep 0.3; done\n'
    given = {
        "URL": server.url.rstrip("/"),
        "TOKEN": server.token,
        "JOB": f"""$({listed} | sed 's/.*"id":"\\([0-9a-f]*\\)".*/\\1/')""",
    }
    script = "set -euo pipefail\n"
    for block in blocks:
        lines = [
            f"{name}={given[name.removeprefix('export ')]}"
            if (name := line.partition("=")[0]).removeprefix("export ") in given
            else line
            for line in block.splitlines()
        ]
        script += "\n".join(lines) + "\n" + (wait if "-T " in block else "")
    ran = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert sf.info(tmp_path / "karaoke.mp3").duration == pytest.approx(12.0, abs=0.2)
    assert (tmp_path / "stems.zip").read_bytes()[:2] == b"PK"
    assert sf.info(tmp_path / "vocals.flac").channels == 2
    assert server.jobs() == []
