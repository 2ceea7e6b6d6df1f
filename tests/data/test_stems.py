"""Excerpts with all stems of a song."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from umx_np.data import Loader, StemsDataset, item_rng
from umx_np.errors import ConfigError

STEMS = ["vocals", "drums", "bass", "other"]
VARIED = {"random_track_mix": True, "coherent_share": 0.4, "mix_level": (-20.0, -12.0)}


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three songs of tones, each stem in an octave of its own."""
    root = tmp_path_factory.mktemp("songs")
    time = np.arange(44100) / 44100
    for song in range(3):
        folder = root / "train" / f"{song:05d}"
        folder.mkdir(parents=True)
        for place, name in enumerate(STEMS):
            tone = 0.2 * np.sin(2 * np.pi * 110.0 * 4**place * (1 + 0.1 * song) * time)
            soundfile.write(folder / f"{name}.wav", np.stack([tone, 0.5 * tone], axis=1), 44100)
    return root


def test_batches_hold_all_stems(songs):
    stems = StemsDataset(
        songs,
        STEMS,
        0.4,
        as_mixed_share=0.5,
        faders=2.0,
        swap_sides=True,
        level_range=(-10.0, 3.0),
        varied=VARIED,
    )
    for x, y in Loader(stems, 3, seed=0, shuffle=True).epoch(0):
        assert x.shape == (3, 8, 17640)
        np.testing.assert_array_equal(x, y)


def test_stems_add_up_to_what_the_trainer_of_one_network_mixes(songs):
    stems = StemsDataset(songs, STEMS, 0.4, as_mixed_share=0.0, varied=VARIED)
    for index in range(3):
        stacked, same = stems.sample(index, item_rng(7, 0, index))
        assert same is stacked
        rng = item_rng(7, 0, index)
        rng.random()  # what decided that this one is varied
        x, y = stems._varied.sample(index, rng)
        np.testing.assert_allclose(stacked.reshape(4, 2, -1).sum(axis=0), x, atol=1e-6)
        np.testing.assert_array_equal(stacked[:2], y)
        assert stems.describe(index).endswith(f"{index:05d}")


@pytest.mark.slow
def test_many_excerpts_are_as_they_were_mixed(songs):
    share = 0.85
    stems = StemsDataset(songs, STEMS, 0.4, as_mixed_share=share, swap_sides=True, varied=VARIED)
    found = sides_of_those_as_mixed(songs, stems)
    assert abs(found.count("same") + found.count("swapped") - 200 * share) <= 20
    assert found.count("same") > 60
    assert found.count("swapped") > 60
    plain = sides_of_those_as_mixed(songs, StemsDataset(songs, STEMS, 0.4))
    assert plain == 200 * ["same"]


def sides_of_those_as_mixed(songs: Path, stems: StemsDataset) -> list[str]:
    """Which of 200 excerpts are as they were mixed, "same", or so with sides "swapped"."""
    files = [
        soundfile.read(songs / f"train/00000/{name}.wav", dtype="float32")[0].T for name in STEMS
    ]
    truths = {
        "same": np.concatenate(files),
        "swapped": np.concatenate([stem[::-1] for stem in files]),
    }
    found = []
    for index in range(200):
        _, sample = stems.sample(0, item_rng(7, 0, index))
        count = sample.shape[1]
        for sides, truth in truths.items():
            starts = np.flatnonzero(np.abs(truth[0, :-count] - sample[0, 0]) < 1e-6)
            if any(np.array_equal(truth[:, k : k + count], sample) for k in starts):
                found.append(sides)
                break
    return found


def gains_of(one: StemsDataset, other: StemsDataset) -> np.ndarray:
    """Gains in dB [shape=(100, nb_stems)] of one's stems over the other's; otherwise the same."""
    found = []
    for seed in range(100):
        a, b = (stems.sample(1, item_rng(7, 0, seed))[1].reshape(4, -1) for stems in (one, other))
        gain = (a * b).sum(1) / (b * b).sum(1)
        np.testing.assert_allclose(a, gain[:, None] * b, atol=1e-6)
        found.append(20.0 * np.log10(gain))
    return np.array(found)


@pytest.mark.slow
def test_faders_move_each_stem(songs):
    levels = gains_of(StemsDataset(songs, STEMS, 0.4, faders=2.0), StemsDataset(songs, STEMS, 0.4))
    assert np.abs(levels).max() <= 2.001
    # Uniform, and each stem for itself.
    np.testing.assert_allclose(levels.std(axis=0), 4.0 / np.sqrt(12.0), rtol=0.2)
    assert np.abs(np.corrcoef(levels.T) - np.eye(4)).max() < 0.35


@pytest.mark.parametrize("share", [0.0, 1.0])
@pytest.mark.slow
def test_the_level_is_that_of_the_whole_mixture(songs, share):
    options = {"as_mixed_share": share, "varied": VARIED}
    low, high = -18.0, 6.0
    levels = gains_of(
        StemsDataset(songs, STEMS, 0.4, level_range=(low, high), **options),
        StemsDataset(songs, STEMS, 0.4, **options),
    )
    assert np.ptp(levels, axis=1).max() < 1e-4
    assert low <= levels.min() < low + 2.0
    assert high - 2.0 < levels.max() <= high + 1e-4
    np.testing.assert_allclose(levels[:, 0].std(), (high - low) / np.sqrt(12.0), rtol=0.2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"as_mixed_share": 1.5}, "as_mixed_share=1.5"),
        ({"faders": -1.0}, "faders=-1.0"),
        ({"level_range": (3.0, -3.0)}, "level_range="),
        ({"level_range": (3.0,)}, "level_range="),
        ({"targets": ["vocals"]}, "targets="),
    ],
)
def test_options_are_checked(songs, wrong, message):
    with pytest.raises(ConfigError, match=message):
        StemsDataset(**{"root": songs, "targets": STEMS, "seq_duration": 0.4, **wrong})
