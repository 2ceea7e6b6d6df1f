"""Sound files of tests."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import soundfile as sf

RATE = 44100


needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


def noise(nb_channels=2, nb_timesteps=60000, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 0.5, (nb_channels, nb_timesteps)).astype(np.float32)


def save(path, audio, rate=RATE, **options):
    sf.write(path, audio.T, rate, **options)
    return path
