"""Songs and a model for catalogues: many, short, and quickly separated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from umx_np.config import ModelConfig
from umx_np.testing import random_bundle_of
from umx_np.weights import save_folder

RATE = 8000


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("model") / "small"
    config = ModelConfig(nb_bins=129, hidden_size=8, max_bin=100)
    save_folder(random_bundle_of(config, ("vocals", "rest"), sample_rate=float(RATE)), place)
    return place


@pytest.fixture
def make_songs(tmp_path: Path) -> Callable[[int], Path]:
    def make(count: int, seconds: float = 0.1) -> Path:
        rng = np.random.default_rng(1)
        folder = tmp_path / "songs"
        for number in range(count):
            place = folder / f"album {number % 3}" / f"söng {number}.wav"
            place.parent.mkdir(parents=True, exist_ok=True)
            length = int(seconds * RATE) + number
            sf.write(place, 0.1 * rng.standard_normal((length, 2)), RATE)
        return folder

    return make
