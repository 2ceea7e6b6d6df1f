"""A real recording: the song that stempeg ships."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest

# In the order of the file.
STREAMS = ("mixture", "drums", "bass", "other", "vocals")
# Seconds of digital silence that the file begins with, where upstream's residual is wrong.
SILENCE = 0.5


def read_example(stream: str, rate: int, seconds: float | None = None) -> np.ndarray:
    """Read what follows the first silence [shape=(nb_timesteps, 2)], float32.

    The test is skipped where stempeg or ffmpeg is missing.
    """
    stempeg = pytest.importorskip("stempeg", reason="needs stempeg's example song")
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg to decode stempeg's example song")
    command = ["ffmpeg", "-v", "error", "-i", stempeg.example_stem_path()]
    command += ["-map", f"0:{STREAMS.index(stream)}", "-ss", str(SILENCE)]
    if seconds is not None:
        command += ["-t", str(seconds)]
    command += ["-ac", "2", "-ar", str(rate), "-f", "f32le", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, "<f4").reshape(-1, 2)
