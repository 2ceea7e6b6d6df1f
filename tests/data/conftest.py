"""Tiny sound files whose samples say which file and which position they are from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from umx_np.data.files import AudioFiles, Clip

# At one sample a millisecond, seconds are easy to read as samples and files stay tiny.
RATE = 1000
# Samples a file may have; the number of the file times this is added to each position.
SPAN = 2000


def ramp(number: int, nb_timesteps: int, nb_channels: int = 2) -> np.ndarray:
    """Samples of file `number`: its position times SPAN, with the sign of the channel."""
    mono = (number * SPAN + np.arange(nb_timesteps)) / 32768.0
    signs = np.array([1.0, -1.0, 0.5])[:nb_channels]
    return (mono * signs[:, None]).astype(np.float32)


class Tree:
    """A folder in which files with ramps are made."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.numbers: dict[str, int] = {}

    def add(
        self,
        name: str,
        nb_timesteps: int = 1500,
        *,
        nb_channels: int = 2,
        rate: int = RATE,
        subtype: str = "PCM_16",
    ) -> Path:
        """Write ``<root>/<name>`` with a ramp of its own."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        number = self.numbers.setdefault(name, len(self.numbers) % 16)
        sf.write(path, ramp(number, nb_timesteps, nb_channels).T, rate, subtype=subtype)
        return path

    def tracks(self, splits: Sequence[str], names: Sequence[str], files: Sequence[str]) -> None:
        """Write ``<split>/<name>/<file>`` for all of them."""
        for split in splits:
            for name in names:
                for file in files:
                    self.add(f"{split}/{name}/{file}")

    def samples(self, name: str, first: int, count: int) -> np.ndarray:
        """Read an excerpt back with soundfile alone."""
        samples, _ = sf.read(self.root / name, dtype="float32", always_2d=True)
        return samples[first : first + count].T


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """An empty folder for sound files."""
    return Tree(tmp_path / "root")


Read = tuple[str, int, int]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch, tree: Tree) -> Iterator[list[Read]]:
    """What datasets read: the name under the root, first sample and number of samples."""
    log: list[Read] = []
    read = AudioFiles.read

    def logged(self: Any, clip: Clip, first: int = 0, count: int | None = None) -> np.ndarray:
        samples = read(self, clip, first, count)
        log.append((clip.path.relative_to(tree.root).as_posix(), first, samples.shape[1]))
        return samples

    monkeypatch.setattr(AudioFiles, "read", logged)
    return log


@pytest.fixture
def rng() -> np.random.Generator:
    """Random numbers."""
    return np.random.default_rng(1)


def mixture_of(tree: Tree, reads: Sequence[Read]) -> np.ndarray:
    """Sum of the excerpts that were read."""
    return np.sum([tree.samples(*read) for read in reads], axis=0)


Double = Callable[[np.ndarray, np.random.Generator], np.ndarray]
