"""The oracle of the parity tests and a real recording, each loaded once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from helpers.recording import read_example
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

    A produced stereo mix; its side signal lies about 12 dB below its mid signal.
    """

    def read(rate: int, seconds: float) -> np.ndarray:
        return read_example("mixture", rate, seconds).T[None]

    return read
