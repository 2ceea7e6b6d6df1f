"""A run on music that takes a while: half a minute on two cores."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers.recording import read_example

from umx_np.train import main

RATE = 44100
STEMS = ("drums", "bass", "other", "vocals")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "make_example.py"


def render_song() -> dict[str, np.ndarray]:
    """Stems of the synthesised song of the examples."""
    spec = importlib.util.spec_from_file_location("make_example", EXAMPLES)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: stem.T for name, stem in module.render().items()}


def write_tracks(root: Path) -> None:
    """Make a training set of both songs, and the same as validation set: the aim is to overfit."""
    excerpt = {name: read_example(name, RATE) for name in STEMS}
    for title, stems in (("excerpt", excerpt), ("rendered", render_song())):
        for split in ("train", "valid"):
            folder = root / split / title
            folder.mkdir(parents=True)
            for name, stem in stems.items():
                soundfile.write(folder / f"{name}.wav", stem, RATE, subtype="PCM_16")


def train(root: Path, output: Path) -> None:
    """Overfit a small network to the two songs."""
    pytest.importorskip("numba", reason="needs the extra umx-np[train]")
    write_tracks(root)
    arguments = (
        "--dataset trackfolder_var --target-file vocals.wav --hidden-size 64 --seq-dur 3 "
        "--batch-size 2 --epochs 100 --lr 0.005 --patience 0 --no-plot --quiet"
    )
    assert main([*arguments.split(), "--root", str(root), "--output", str(output)]) == 0


def read_mixture(root: Path, title: str) -> tuple[np.ndarray, np.ndarray]:
    """Mixture and vocals [shape=(2, nb_timesteps)] of a track, float32."""
    stems = {
        name: soundfile.read(root / "train" / title / f"{name}.wav", dtype="float32")[0].T
        for name in STEMS
    }
    return np.sum(list(stems.values()), axis=0), stems["vocals"]
