"""The oracle of the parity tests and a real recording, each loaded once."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable

import numpy as np
import pytest
from helpers.upstream import Upstream


@pytest.fixture(scope="session")
def openunmix() -> Upstream:
    """PyTorch's Open-Unmix; the test is skipped where torch or openunmix is missing."""
    try:
        return Upstream()
    except ImportError as error:
        pytest.skip(f"needs torch and openunmix ({error}); see CONTRIBUTING.md")


@pytest.fixture(scope="session")
def excerpt() -> Callable[[int, float], np.ndarray]:
    """Read the music that stempeg ships: ``excerpt(rate, seconds)`` [shape=(1, 2, nb_timesteps)].

    A produced stereo mix; its side signal lies about 12 dB below its mid signal. It begins after
    the digital silence of the file, where upstream's residual is wrong.
    """
    stempeg = pytest.importorskip("stempeg", reason="needs stempeg's example song")
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg to decode stempeg's example song")

    def read(rate: int, seconds: float) -> np.ndarray:
        path = stempeg.example_stem_path()
        command = [
            "ffmpeg",
            "-v",
            "error",
            "-i",
            path,
            "-map",
            "0:0",
            "-ss",
            "0.5",
            "-t",
            str(seconds),
        ]
        command += ["-ac", "2", "-ar", str(rate), "-f", "f32le", "-"]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
        return np.frombuffer(raw, dtype="<f4").reshape(-1, 2).T[None]

    return read
