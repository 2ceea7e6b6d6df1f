"""The song in ``examples/``: how it is cut from a rendered one, and its scores."""

from __future__ import annotations

import numpy as np
import pytest

import umx_np
from recipes.umxm.songs.example import update_scores, write_example
from umx_np.config import ModelConfig
from umx_np.testing import random_bundle_of
from umx_np.weights import save_folder

RATE = 44100
STEMS = ("vocals", "drums", "bass", "other")


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    """Four seconds of tones, as loud as the renderer makes them."""
    folder = tmp_path_factory.mktemp("songs") / "00000"
    time = np.arange(4 * RATE) / RATE
    for k, name in enumerate(STEMS):
        tone = 0.24 * np.sin(2 * np.pi * 220.0 * (k + 1) * time)
        umx_np.audio.write(folder / f"{name}.wav", np.stack([tone, -tone]), RATE)
    return folder


def test_excerpt(song, tmp_path):
    written = write_example(song, tmp_path, start=1.0, seconds=2.0, quality=0.4)
    names = {path.relative_to(tmp_path).as_posix() for path in written}
    assert names == {"song.ogg", *(f"song/{name}.ogg" for name in STEMS)}
    assert sum(path.stat().st_size for path in written) < 400_000
    mixture, rate = umx_np.audio.read(tmp_path / "song.ogg")
    assert (rate, mixture.shape) == (RATE, (2, 2 * RATE))
    total = sum(umx_np.audio.read(tmp_path / "song" / f"{name}.ogg")[0] for name in STEMS)
    assert np.abs(total).max() < 1.0
    # Only the encoding of the mixture is between them.
    assert np.sum((mixture - total) ** 2) < 0.02 * np.sum(total**2)
    assert np.abs(mixture[:, :50]).max() < 0.1


def test_songs_that_are_too_short(song, tmp_path):
    with pytest.raises(ValueError, match="ends after 4"):
        write_example(song, tmp_path, start=3.0, seconds=2.0, quality=0.4)


@pytest.mark.slow
def test_scores(song, tmp_path):
    pytest.importorskip("matplotlib")
    write_example(song, tmp_path, start=0.0, seconds=3.0, quality=0.4)
    save_folder(random_bundle_of(ModelConfig(nb_bins=2049, hidden_size=8)), tmp_path / "model")
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- scores:begin -->\nold\n<!-- scores:end -->\nafter\n")
    for _ in range(2):
        table = update_scores(tmp_path, str(tmp_path / "model"))
        assert [line.split()[0] for line in table.splitlines()] == ["SDR", *STEMS]
        text = readme.read_text()
        assert table in text
        assert "old" not in text
        assert text.startswith("before\n")
        assert text.endswith("after\n")
    assert (tmp_path / "song.png").stat().st_size < 800_000
    readme.write_text("no place")
    with pytest.raises(ValueError, match="0 places"):
        update_scores(tmp_path, str(tmp_path / "model"))
