"""Songs of a few seconds at a low rate, a tiny model, and museval where it is installed."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from umx_np.config import ModelConfig
from umx_np.evaluation import scores, work
from umx_np.evaluation.bss import scores_and_doubts
from umx_np.testing import random_bundle_of
from umx_np.weights import save_folder

RATE = 4000
STEMS = ("vocals", "drums", "bass", "other")


def sources(
    nb_sources: int = 2, nb_channels: int = 2, nb_timesteps: int = 30000, seed: int = 0
) -> np.ndarray:
    """Noise with more low than high frequencies, float32 as from files."""
    noise = np.random.default_rng(seed).standard_normal((nb_sources, nb_channels, nb_timesteps))
    spectrum = np.fft.rfft(noise)
    spectrum /= 1.0 + np.arange(spectrum.shape[-1]) / (0.02 * spectrum.shape[-1])
    return (0.1 * np.fft.irfft(spectrum, nb_timesteps)).astype(np.float32)


def imperfect(references: np.ndarray, seed: int = 1) -> np.ndarray:
    """Estimates with some of the other sources, other levels and a little noise."""
    rng = np.random.default_rng(seed)
    nb_sources = len(references)
    mixing = np.eye(nb_sources) + 0.1 * rng.standard_normal((nb_sources, nb_sources))
    noise = 0.003 * rng.standard_normal(references.shape)
    return (np.tensordot(mixing, references, 1) + noise).astype(np.float32)


def write_track(folder: Path, stems: dict[str, np.ndarray], suffix: str = ".wav") -> None:
    """Write stems [shape=(nb_channels, nb_timesteps)] to files that hold them exactly."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, stem in stems.items():
        subtype = "FLOAT" if suffix == ".wav" else "PCM_24"
        sf.write(folder / f"{name}{suffix}", stem.T, RATE, subtype=subtype)


@pytest.fixture(scope="session")
def museval() -> Any:
    """The package that our scores are those of."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("museval")


@pytest.fixture(scope="session")
def pandas() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("pandas")


@pytest.fixture(scope="session")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``test/one``, ``two`` and ``three``: four stems of two and a half seconds, mono."""
    root = tmp_path_factory.mktemp("songs")
    for seed, name in enumerate(("one", "two", "three")):
        stems = sources(4, 1, 5 * RATE // 2, seed=seed)
        write_track(root / "test" / name, dict(zip(STEMS, stems, strict=True)))
    return root


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model for mono sound at the rate of the songs."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    config = ModelConfig(nb_bins=129, nb_channels=1, hidden_size=8, max_bin=100)
    save_folder(random_bundle_of(config, STEMS, seed=5, sample_rate=float(RATE)), folder)
    return folder


@pytest.fixture(scope="session")
def stems_folder(songs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Estimates of all songs, without the name of the subset."""
    folder = tmp_path_factory.mktemp("stems")
    for path in (songs / "test").iterdir():
        references = np.stack([sf.read(path / f"{name}.wav")[0][None] for name in STEMS])
        write_track(folder / path.name, dict(zip(STEMS, imperfect(references), strict=True)))
    return folder


def read(folder: Path) -> dict[str, np.ndarray]:
    """Read all files of a folder, by name."""
    return {path.stem: sf.read(path, always_2d=True)[0].T for path in sorted(folder.iterdir())}


@pytest.fixture
def short_filters(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters of 32 taps take a hundredth of the time; other processes do not know of them."""
    if "cores" not in request.fixturenames:
        few = functools.partial(scores_and_doubts, nb_taps=32)
        monkeypatch.setattr(scores, "scores_and_doubts", few)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tracks that are evaluated, not taken over."""
    done: list[str] = []
    original = work.evaluate_track

    def counted(job: Any, estimates: Any, task: Any) -> Any:
        done.append(task.track.name)
        return original(job, estimates, task)

    monkeypatch.setattr(work, "evaluate_track", counted)
    return done
