"""What is compared with an earlier version: separations of many kinds, a model, a training run."""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile

import umx_np
from umx_np.config import ModelConfig
from umx_np.testing import random_bundle_of
from umx_np.testing.random_models import uniform
from umx_np.weights import save_folder

TARGETS = ("vocals", "drums", "bass")
STEREO = ModelConfig(nb_bins=257, hidden_size=32, max_bin=200)
# Options of the separator by the name of the case; mixtures have two channels.
OPTIONS: dict[str, dict] = {
    "magnitudes": {"niter": 0},
    "one iteration": {},
    "two iterations, residual": {"niter": 2, "residual": True},
    "softmask": {"softmask": True, "residual": True},
    "one window": {"niter": 2, "wiener_win_len": None},
    "short windows": {"wiener_win_len": 11},
    "asteroid": {"filterbank": "asteroid"},
    "fast": {"precision": "fast"},
}
# Instruction-set levels whose results do not depend on the processor.
LEVELS = ("portable", "x86-64-v3")


def environment() -> list[str]:
    """On what the last bits depend, besides the level: the processor's kind, the FFT of NumPy."""
    return [platform.machine(), sys.platform, ".".join(np.__version__.split(".")[:2])]


def digest(stem: np.ndarray) -> str:
    """Return the SHA-256 of all samples."""
    return hashlib.sha256(np.ascontiguousarray(stem, "<f4").tobytes()).hexdigest()


def some(stem: np.ndarray) -> np.ndarray:
    """Return every eleventh sample, to be compared where the last bits differ."""
    return stem[..., ::11]


def levels() -> list[str]:
    """Return the levels that this processor runs, and the reference."""
    from umx_np._kernels import cpu

    runs = cpu.levels()
    return ["reference", *(name for name in LEVELS if runs.get(name))]


def bundle(config: ModelConfig = STEREO, **settings: object) -> umx_np.weights.ModelBundle:
    """Weights of all cases."""
    return random_bundle_of(config, TARGETS, seed=41, **settings)  # type: ignore[arg-type]


def audio(name: str, nb_channels: int = 2, nb_timesteps: int = 4500) -> np.ndarray:
    """Noise that fades in and out [shape=(nb_channels, nb_timesteps)], float32."""
    fade = np.sin(np.linspace(0.0, 9.0, nb_timesteps)) ** 2
    return (fade * uniform(42, name, (nb_channels, nb_timesteps), -0.5, 0.5)).astype(np.float32)


def stems(level: str) -> dict[str, np.ndarray]:
    """Separate everything at a level of instructions, or with the reference."""
    device = "reference" if level == "reference" else "cpu"
    before = os.environ.get("UMX_NP_ISA")
    os.environ["UMX_NP_ISA"] = "" if level == "reference" else level
    try:
        return {name: np.asarray(stem, np.float32) for name, stem in _stems(device).items()}
    finally:
        if before is None:
            del os.environ["UMX_NP_ISA"]
        else:
            os.environ["UMX_NP_ISA"] = before


def _stems(device: str) -> dict[str, np.ndarray]:
    made: dict[str, np.ndarray] = {}
    for name, options in OPTIONS.items():
        if device == "reference" and "precision" in options:
            continue
        separator = umx_np.Separator.from_bundle(bundle(), device=device, **options)
        made[name] = separator(audio(name)[None])[0]
    mono = ModelConfig(nb_bins=129, nb_channels=1, hidden_size=16, nb_layers=2)
    for nb_channels in (1, 2):
        separator = umx_np.Separator.from_bundle(bundle(mono), device=device, residual=True)
        made[f"mono network, {nb_channels}"] = separator(audio("mono", nb_channels)[None])[0]
    if device != "reference":
        causal = ModelConfig(nb_bins=129, hidden_size=16, unidirectional=True)
        separator = umx_np.Separator.from_bundle(bundle(causal), device=device, niter=0)
        live = separator.stream()
        blocks = [live.process(block) for block in np.array_split(audio("live"), 13, axis=1)]
        made["live"] = np.concatenate([*blocks, live.flush()], axis=2)
    separator = umx_np.Separator.from_bundle(bundle(), device=device, residual=True)
    named = umx_np.separate(audio("array"), 48000, separator=separator)
    made["array at another rate"] = np.stack(list(named.values()))
    made["file"] = _file(device)
    return made


def _file(device: str) -> np.ndarray:
    """Go through files: another rate, an excerpt, sums of stems."""
    with tempfile.TemporaryDirectory() as folder:
        song = Path(folder, "song.wav")
        soundfile.write(song, audio("file", nb_timesteps=30000).T, 22050, subtype="FLOAT")
        paths = umx_np.separate_file(
            song,
            folder,
            separator=umx_np.Separator.from_bundle(bundle(), device=device, residual=True),
            start=0.2,
            duration=0.5,
            aggregate={"vocals": ["vocals"], "rest": ["drums", "bass", "residual"]},
            bits="float",
        )
        return np.stack([soundfile.read(path, dtype="float32")[0].T for path in paths.values()])


def write_model(folder: Path) -> None:
    """Write a model folder."""
    save_folder(bundle(ModelConfig(nb_bins=65, hidden_size=8)), folder)


def train(folder: Path, epochs: int) -> None:
    """Train a tiny network on tones, or go on to `epochs`."""
    from training.conftest import TINY, Tones

    from umx_np.training import TrainConfig, Trainer

    checkpoint = folder if folder.exists() else None
    config = TrainConfig(
        **{
            **TINY,
            "target": "tone",
            "output": folder,
            "epochs": epochs,
            "checkpoint": None if checkpoint is None else str(checkpoint),
        }
    )
    Trainer(config, Tones(7, 2000), Tones(2, 2000)).fit()
