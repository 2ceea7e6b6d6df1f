"""Excerpts of instrumental mixes, and the folder that the vocals network is trained from."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("scipy")

from recipes.umxm.songs import instrumentals
from recipes.umxm.songs.render import write_song
from recipes.umxm.studio import effects
from recipes.umxm.studio.plan import SAMPLE_RATE, STEMS
from recipes.umxm.training import train


class Sources:
    """Noise in place of every recording."""

    audio = Path("audio")

    def installed(self, name: str) -> Path:
        return Path(name)

    def files(self, pattern: str) -> list[Path]:
        names = ("drums", "other", "vocals_lead")
        return [Path(pattern.replace("*", name)) for name in names]

    def stored(self, path: Path) -> np.ndarray:
        if path.name.startswith("vocals"):
            raise AssertionError("no voice may get into an instrumental")
        rng = np.random.default_rng(len(str(path)))
        nb_channels = 1 if "bgm" in path.name else 2
        return (3000 * rng.standard_normal((nb_channels, 8 * SAMPLE_RATE))).astype(np.int16)


@pytest.mark.parametrize("number", [0, 1, 2, 12])
def test_excerpts(number, monkeypatch):
    monkeypatch.setattr(instrumentals, "_SECONDS", 5.0)
    first = instrumentals.excerpt(number, Sources())
    assert first.dtype == np.float32
    assert first.shape[0] == 2
    assert np.abs(first).max() <= 0.98 + 1e-6
    assert effects.rms(first) > effects.decibels(-24.0)
    np.testing.assert_array_equal(instrumentals.excerpt(number, Sources()), first)
    other = instrumentals.excerpt(number + 4, Sources())
    assert not np.array_equal(first[0], first[1])
    count = min(first.shape[-1], other.shape[-1])
    assert not np.array_equal(other[:, :count], first[:, :count])


def test_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(instrumentals, "Library", lambda audio, cache: Sources())
    monkeypatch.setattr(instrumentals, "_SECONDS", 1.0)
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, SAMPLE_RATE)).astype(np.float32)
    for part in ("train", "valid"):
        (tmp_path / part).mkdir()
        write_song(tmp_path / part / "00000", dict.fromkeys(STEMS, noise))
    arguments = ["--audio", "none", "--songs", str(tmp_path), "--excerpts", "2"]
    monkeypatch.setattr(sys, "argv", ["instrumentals", *arguments])
    for _ in range(2):  # what is there is kept
        instrumentals.main()
    root = tmp_path / instrumentals.FOLDER
    assert sorted(path.name for path in (root / "train").iterdir()) == [
        "00000",
        "instrumental-000",
        "instrumental-001",
    ]
    assert [path.name for path in (root / "valid").iterdir()] == ["00000"]
    excerpt = root / "train" / "instrumental-001"
    assert not soundfile.read(excerpt / "vocals.wav")[0].any()
    assert soundfile.read(excerpt / "other.wav")[0].any()

    def root_of(target):
        arguments = train.command(target, train.STAGES[0], tmp_path, tmp_path / "run")
        return Path(arguments[arguments.index("--root") + 1])

    assert root_of("vocals") == root
    # The folder may be moved, and the command given again.
    link = root / "train" / "00000"
    link.unlink()
    link.symlink_to(tmp_path / "elsewhere" / "00000")
    instrumentals.main()
    assert link.resolve() == (tmp_path / "train" / "00000").resolve()
    assert root_of("drums") == tmp_path
