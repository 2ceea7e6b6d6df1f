"""Results are those of an earlier version, and what it wrote is read; see data/make_earlier.py."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers import earlier

import umx_np
from umx_np.training.checkpoint import read_checkpoint
from umx_np.weights import load_folder

DATA = Path(__file__).parents[1] / "golden" / "earlier"
KNOWN = json.loads((DATA / "stems.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def some_stems():
    return dict(np.load(DATA / "stems.npz"))


@pytest.mark.parametrize("level", earlier.levels())
def test_stems(level, some_stems):
    # BLAS, which only the reference uses, has other bits on other processors.
    is_exact = level != "reference" and earlier.environment() == KNOWN["environment"]
    made = earlier.stems(level)
    assert {f"{level}/{name}" for name in made} == {
        name for name in KNOWN["digests"] if name.startswith(f"{level}/")
    }
    for name, stem in made.items():
        np.testing.assert_allclose(
            earlier.some(stem), some_stems[f"{level}/{name}"], rtol=0, atol=1e-5, err_msg=name
        )
        if is_exact:
            assert earlier.digest(stem) == KNOWN["digests"][f"{level}/{name}"], name


def test_model_folder():
    loaded = load_folder(DATA / "model")
    known = earlier.bundle(umx_np.config.ModelConfig(nb_bins=65, hidden_size=8))
    assert list(loaded.targets) == list(known.targets)
    for name, weights in known.targets.items():
        assert loaded.targets[name].config.hidden_size == weights.config.hidden_size
        for tensor, values in weights.state.items():
            np.testing.assert_array_equal(loaded.targets[name].state[tensor], values)


def test_training_goes_on(tmp_path):
    begun, whole = tmp_path / "begun", tmp_path / "whole"
    shutil.copytree(DATA / "run", begun)
    earlier.train(begun, epochs=2)
    earlier.train(whole, epochs=2)
    states = [read_checkpoint(folder / "tone.chkpnt")["network"] for folder in (begun, whole)]
    for name, values in states[1].items():
        np.testing.assert_allclose(states[0][name], values, rtol=1e-4, atol=1e-6)
