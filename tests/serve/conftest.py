"""A server in a process of its own, as people start it, and songs that are done already."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import requests
import soundfile as sf

pytest.importorskip("starlette", reason="needs the extra 'web'")
pytest.importorskip("uvicorn", reason="needs the extra 'web'")

from umx_np.serve.sounds import add_mixture
from umx_np.serve.store import _MARK, LOCK, Choice, Job, Store

RATE = 44100


class Server:
    """A running ``umx-np serve``.

    Parameters
    ----------
    folder : Path
        Of songs and results.
    *options : str
        Of the command.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "umx_np", "serve", "--no-browser", "--port", "0"]
        self.log = folder.with_suffix(".log")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--offline", "--folder", str(folder), *options],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address, self.log.read_text()
        self.url, _, self.token = self.address.partition("?token=")
        self.port = int(self.url.rsplit(":", 1)[1].strip("/"))
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {self.token}"
        self.wait_until_open()

    def wait_until_open(self) -> None:
        deadline = time.monotonic() + 30
        while True:
            try:
                self.get("api/about").raise_for_status()
                return
            except requests.ConnectionError:
                assert time.monotonic() < deadline, self.log.read_text()
                time.sleep(0.05)

    def get(self, path: str, **options: object) -> requests.Response:
        return self.session.get(self.url + path, timeout=300, **options)  # type: ignore[arg-type]

    def post(self, path: str, **options: object) -> requests.Response:
        return self.session.post(self.url + path, timeout=300, **options)  # type: ignore[arg-type]

    def delete(self, path: str) -> requests.Response:
        return self.session.delete(self.url + path, timeout=300)

    def jobs(self) -> list[dict]:
        return self.get("api/jobs").json()["jobs"]

    def wait(self, name: str, *states: str, seconds: float = 120) -> dict:
        """Wait until a song is in one of some states."""
        deadline = time.monotonic() + seconds
        while True:
            job = self.get(f"api/jobs/{name}").json()
            if job.get("state") in states:
                return job
            assert time.monotonic() < deadline, (job, self.log.read_text())
            time.sleep(0.1)

    def files(self) -> list[str]:
        """All files of songs and downloads, relative to the folder."""
        return sorted(
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            if path.is_file() and path.name not in (LOCK, _MARK)
        )

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal; return its status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(30)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.session.close()
        return status


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start servers, all with one folder, and end them."""
    started: list[Server] = []

    def start(*options: str) -> Server:
        started.append(Server(tmp_path / "data", *options))
        return started[-1]

    yield start
    for server in started:
        server.stop(signal.SIGKILL)


def lanes_of(seconds: float, nb_channels: int = 2) -> dict[str, np.ndarray]:
    """Stems that are told apart by their frequencies, as int16 [shape=(nb_timesteps, channels)]."""
    time_s = np.arange(round(seconds * RATE)) / RATE
    return {
        name: np.stack(
            [np.round(3000 * np.sin(2 * np.pi * hertz * time_s + phase)) for phase in range(9)][
                :nb_channels
            ],
            axis=1,
        ).astype(np.int16)
        for name, hertz in (("vocals", 440.0), ("drums", 1000.0), ("bass", 100.0))
    }


def add_done(folder: Path, stems: dict[str, np.ndarray], name: str = "Sines.wav") -> Job:
    """Put a song that is separated into the folder of a server that does not run."""
    store = Store(folder)
    job, path = store.begin(name, Choice())
    mixture = sum(stem.astype(np.int32) for stem in stems.values())
    sf.write(path, np.asarray(mixture, np.int16), RATE, format="WAV", subtype="PCM_16")
    results = store.results(job)
    results.mkdir()
    for lane, stem in stems.items():
        sf.write(results / f"{lane}.wav", stem, RATE, subtype="PCM_16")
    sound = add_mixture(path, {lane: results / f"{lane}.wav" for lane in stems}, results)
    return store.add(replace(job, state="done", sound=sound))


def noise_file(path: Path, seconds: float, seed: int = 0) -> Path:
    """Write a song of noise."""
    audio = np.random.default_rng(seed).uniform(-0.3, 0.3, (round(seconds * RATE), 2))
    sf.write(path, audio, RATE, subtype="PCM_16")
    return path


def document() -> dict:
    """Return the project's own description of the interface."""
    from umx_np.serve import app

    return json.loads((app.HERE / "openapi.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def browser() -> Iterator[object]:
    """Debian's Chromium, driven by Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    from .browsing import ARGUMENTS, CHROMIUM

    if CHROMIUM is None:
        pytest.skip("needs chromium")
    with playwright.sync_playwright() as program:
        browser = program.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()
