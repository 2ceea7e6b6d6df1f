"""The last steps of the recipe: the four networks trained together by the package's trainer."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile as sf

from recipes.umxm.training import joint
from umx_np.config import ModelConfig
from umx_np.data import item_rng
from umx_np.testing import random_bundle_of
from umx_np.weights import load_folder, save_folder

STEMS = ["vocals", "drums", "bass", "other"]


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Songs of tones, three to learn from and one other, each stem in an octave of its own."""
    root = tmp_path_factory.mktemp("songs")
    time = np.arange(44100) / 44100
    for split, count in (("train", 3), ("valid", 1)):
        for song in range(count):
            folder = root / split / f"{song:05d}"
            folder.mkdir(parents=True)
            for place, name in enumerate(STEMS):
                tone = 0.2 * np.sin(2 * np.pi * 110.0 * 4**place * (1 + 0.1 * song) * time)
                sf.write(folder / f"{name}.wav", np.stack([tone, 0.5 * tone], axis=1), 44100)
    return root


@pytest.fixture
def bundle():
    return random_bundle_of(ModelConfig(nb_bins=2049, hidden_size=8, max_bin=600), STEMS)


def test_excerpts(songs):
    train, valid = joint.datasets(songs, 0.4, samples_per_track=2, level_range=(-6.0, 6.0))
    assert train.targets == valid.targets == tuple(STEMS)
    assert (len(train), len(valid)) == (6, joint.VALID_EXCERPTS)
    assert (train.as_mixed_share, train.faders, train.swap_sides) == (0.85, 2.0, True)
    assert train.level_range == (-6.0, 6.0)
    # Those for validation are just as they were mixed, at different places.
    excerpts = [valid.sample(k, item_rng(0, 0, k))[1] for k in range(len(valid))]
    truth = np.concatenate([sf.read(songs / f"valid/00000/{n}.wav")[0].T for n in STEMS])
    for excerpt in excerpts:
        starts = np.flatnonzero(np.abs(truth[0, :-17640] - excerpt[0, 0]) < 1e-6)
        assert any(np.allclose(truth[:, k : k + 17640], excerpt, atol=1e-6) for k in starts)
    assert len({excerpt.tobytes() for excerpt in excerpts}) == len(excerpts)


def test_the_command_goes_on(songs, bundle, tmp_path, capsys):
    save_folder(bundle, tmp_path / "model")
    arguments = ["--songs", str(songs), "--model", str(tmp_path / "model")]
    arguments += ["--out", str(tmp_path / "out"), "--batch-size", "2", "--seq-dur", "0.4"]
    arguments += ["--threads", "1", "--device", "cpu", "--no-plot", "--level-range", "-6", "6"]
    assert joint.main([*arguments, "--epochs", "1"]) == 0
    first = load_folder(tmp_path / "out")
    assert list(first.targets) == STEMS
    assert joint.main([*arguments, "--epochs", "2", "--lr", "0.001"]) == 0
    assert "lr changes from 0 to 0.001" in capsys.readouterr().err
    log = json.loads((tmp_path / "out" / "bass.json").read_text())
    assert log["epochs_trained"] == 2
    assert log["args"]["level_range"] == [-6.0, 6.0]
    again = load_folder(tmp_path / "out")
    for name, weights in first.targets.items():
        assert not np.array_equal(
            weights.state["fc1.weight"], bundle.targets[name].state["fc1.weight"]
        )
        assert set(again.targets[name].state) == set(weights.state)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "drums.pth").touch()
    arguments[arguments.index("--out") + 1] = str(tmp_path / "other")
    with pytest.raises(SystemExit):
        joint.main(arguments)
    assert "drums.pth is there already; choose another" in capsys.readouterr().err
