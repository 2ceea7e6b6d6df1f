"""Tiny data and tiny runs: a second of sound, eight hidden units."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from umx_np.data import UnmixDataset
from umx_np.training import TrainConfig, Trainer

RATE = 8000
NB_TIMESTEPS = 1024
TINY: dict[str, Any] = {
    "n_fft": 256,
    "n_hop": 64,
    "hidden_size": 8,
    "bandwidth": 3000.0,
    "batch_size": 3,
    "epochs": 2,
    "device": "reference",
    "checkpoint_every": "0",
    "plot": False,
}


class Tones(UnmixDataset):
    """A tone in noise; the tone is the target. Every item is other in every epoch."""

    sample_rate = float(RATE)
    target = "tone"

    def __init__(self, nb_items: int = 7, nb_timesteps: int = NB_TIMESTEPS, nb_channels: int = 2):
        super().__init__()
        self.nb_items, self.nb_timesteps, self.nb_channels = nb_items, nb_timesteps, nb_channels

    def __len__(self) -> int:
        return self.nb_items

    def describe(self, index: int) -> str:
        return f"tone {index}"

    def sample(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        time = np.arange(self.nb_timesteps) / RATE
        phase = rng.uniform(0.0, 2.0 * np.pi, (self.nb_channels, 1))
        y = 0.3 * np.sin(2.0 * np.pi * (300.0 + 20.0 * index) * time + phase)
        x = y + 0.1 * rng.standard_normal(y.shape)
        return x.astype(np.float32), y.astype(np.float32)


MakeTrainer = Callable[..., Trainer]


@pytest.fixture
def make_trainer(tmp_path: Path) -> MakeTrainer:
    """``make_trainer(**settings)``: a trainer on tones, with its files in ``tmp_path / "out"``."""

    def make(
        train: UnmixDataset | None = None,
        valid: UnmixDataset | None = None,
        options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Trainer:
        values = {**TINY, "target": "tone", "output": tmp_path / "out", **settings}
        train = Tones() if train is None else train
        valid = Tones(2) if valid is None else valid
        return Trainer(TrainConfig(**values), train, valid, **(options or {}))

    return make


@pytest.fixture(scope="session")
def tracks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the splits ``train`` and ``valid`` of tracks of two sources each."""
    root = tmp_path_factory.mktemp("tracks")
    rng = np.random.default_rng(7)
    time = np.arange(RATE) / RATE
    for split, count in (("train", 5), ("valid", 2)):
        for track in range(count):
            folder = root / split / f"track{track}"
            folder.mkdir(parents=True)
            for name, frequency in (("vocals", 440.0), ("drums", 90.0)):
                tone = 0.3 * np.sin(2.0 * np.pi * frequency * (1.0 + track / 10.0) * time)
                sound = np.stack([tone, 0.7 * tone], axis=1)
                sound += 0.02 * rng.standard_normal(sound.shape)
                soundfile.write(folder / f"{name}.wav", sound, RATE)
    return root


@pytest.fixture
def tiny_command(tracks: Path, tmp_path: Path) -> list[str]:
    """Arguments of a run of two batches an epoch."""
    return tiny_arguments(tracks, tmp_path / "out")


def tiny_arguments(tracks: Path, output: Path) -> list[str]:
    """Arguments of a run on the fixture `tracks`."""
    text = (
        "--dataset trackfolder_var --target-file vocals.wav --seq-dur 0.2 --nfft 256 --nhop 64 "
        "--hidden-size 8 --bandwidth 3000 --batch-size 3 --epochs 2 --device reference --no-plot"
    )
    return [*text.split(), "--root", str(tracks), "--output", str(output)]


def results_of(folder: Path) -> dict[str, Any]:
    """Read the results of a run."""
    return json.loads((folder / "tone.json").read_text())


def with_valid_losses(trainer: Trainer, losses: list[float]) -> Trainer:
    """Let the validation find given losses."""
    left = iter(losses)
    trainer._validate = lambda: next(left)  # type: ignore[method-assign]
    return trainer


def rates_of(trainer: Any) -> list[float]:
    """Learning rates of the steps of a run, filled while it goes on."""
    rates: list[float] = []
    train_batch = trainer._train_batch

    def spied(x: Any, y: Any) -> float:
        loss = train_batch(x, y)
        rates.append(trainer.optimizer.lr)
        return loss

    trainer._train_batch = spied
    return rates
