"""The example of the README, and a small model."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from umx_np import audio
from umx_np.config import ModelConfig
from umx_np.testing import random_bundle_of
from umx_np.weights import save_folder
from umx_np.weights.bundle import ModelBundle

ROOT = Path(__file__).resolve().parents[2]
STEMS = ("vocals", "drums", "bass", "other")


@pytest.fixture(scope="session")
def example(tmp_path_factory) -> SimpleNamespace:
    """Copy ``examples/`` to a folder that may be written to, and read the true stems.

    Beside it is ``example/``, as examples/make_example.py writes it.
    """
    script = runpy.run_path(str(ROOT / "examples" / "make_example.py"))
    folder = tmp_path_factory.mktemp("readme")
    script["main"](["--outdir", str(folder / "example")])
    shutil.copytree(ROOT / "examples", folder / "examples")
    paths = {name: folder / "examples" / "song" / f"{name}.ogg" for name in STEMS}
    stems = {name: audio.read(path)[0] for name, path in paths.items()}
    return SimpleNamespace(folder=folder, stems=stems, rate=44100)


@pytest.fixture(scope="session")
def bundle() -> ModelBundle:
    """Make a small random model of four targets."""
    return random_bundle_of(ModelConfig(nb_bins=257, hidden_size=16, max_bin=200), seed=91)


@pytest.fixture(scope="session")
def model_folder(bundle, tmp_path_factory) -> Path:
    """Write the same model to a folder."""
    folder = tmp_path_factory.mktemp("models") / "small"
    save_folder(bundle, folder)
    return folder
