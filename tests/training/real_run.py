"""A run on music that takes a while: half a minute on two cores."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from umx_np.train import main

RATE = 44100
STEMS = ("drums", "bass", "other", "vocals")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "make_example.py"


def read_excerpt() -> dict[str, np.ndarray]:
    """Stems [shape=(nb_timesteps, 2)] of the song that stempeg ships, without its first silence."""
    stempeg = pytest.importorskip("stempeg", reason="needs stempeg's example song")
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg to decode stempeg's example song")
    stems = {}
    for number, name in enumerate(STEMS, start=1):
        command = ["ffmpeg", "-v", "error", "-ss", "0.5", "-i", stempeg.example_stem_path()]
        command += ["-map", f"0:{number}", "-ac", "2", "-ar", str(RATE), "-f", "f32le", "-"]
        raw = subprocess.run(command, capture_output=True, check=True).stdout
        stems[name] = np.frombuffer(raw, "<f4").reshape(-1, 2)
    return stems


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
    for title, stems in (("excerpt", read_excerpt()), ("rendered", render_song())):
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
