"""`AlignedDataset`: the same excerpt of two files."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from umx_np.data import AlignedDataset, aug_from_str, item_rng
from umx_np.errors import AudioError, ConfigError

from .conftest import RATE, Read, Tree


@pytest.fixture
def pairs(tree: Tree) -> Tree:
    tree.tracks(["train", "valid"], ["b", "a"], ["mixture.wav", "vocals.wav"])
    return tree


def test_both_files_are_read_from_the_same_random_position(pairs: Tree, reads: list[Read]) -> None:
    dataset = AlignedDataset(pairs.root, seq_duration=1.0, random_chunks=True)
    assert len(dataset) == 2
    assert (dataset.sample_rate, dataset.nb_channels, dataset.target) == (RATE, 2, "vocals")
    firsts = set()
    for seed in range(300):
        reads.clear()
        x, y = dataset.sample(1, np.random.default_rng(seed))
        (name_x, first, count), (name_y, first_y, count_y) = reads
        assert (name_x, name_y) == ("train/b/mixture.wav", "train/b/vocals.wav")
        assert first == first_y
        assert count == count_y == 1000
        np.testing.assert_array_equal(x, pairs.samples(name_x, first, count))
        np.testing.assert_array_equal(y, pairs.samples(name_y, first, count))
        assert x.dtype == y.dtype == np.float32
        firsts.add(first)
    # 0 and 500, the first and the last position, are both possible; 300 draws reach most between.
    assert min(firsts) < 15
    assert max(firsts) > 485
    assert max(firsts) <= 500


def test_the_last_position_is_possible(tree: Tree) -> None:
    tree.tracks(["train"], ["a"], ["mixture.wav", "vocals.wav"])
    dataset = AlignedDataset(tree.root, seq_duration=1.499, random_chunks=True)
    starts = {dataset.sample(0, item_rng(0, 0, k))[0][0, 0] for k in range(30)}
    assert len(starts) == 2


def test_without_random_chunks_the_beginning_is_read(pairs: Tree, reads: list[Read]) -> None:
    dataset = AlignedDataset(pairs.root, "valid", seq_duration=0.5)
    dataset.sample(0, np.random.default_rng(0))
    assert reads == [("valid/a/mixture.wav", 0, 500), ("valid/a/vocals.wav", 0, 500)]


@pytest.mark.parametrize("seq_duration", [None, 0.0, -1.0])
def test_whole_tracks_end_with_the_shorter_file(
    tree: Tree, seq_duration: float | None, caplog: pytest.LogCaptureFixture
) -> None:
    tree.add("train/a/mixture.wav", 1500)
    tree.add("train/a/vocals.wav", 1400)
    dataset = AlignedDataset(tree.root, seq_duration=seq_duration, random_chunks=True)
    x, y = dataset.sample(0, np.random.default_rng(0))
    assert x.shape == y.shape == (2, 1400)
    assert "the files of 1 tracks differ in length" in caplog.text


def test_pairs_must_be_longer_than_an_excerpt(tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
    for name, length in (("exactly", 1000), ("longer", 1001), ("shorter", 999)):
        tree.add(f"train/{name}/mixture.wav", 1500)
        tree.add(f"train/{name}/vocals.wav", length)
    with caplog.at_level(logging.WARNING):
        dataset = AlignedDataset(tree.root, seq_duration=1.0)
    assert [dataset.describe(k) for k in range(len(dataset))] == [str(tree.root / "train/longer")]
    assert "left out 2 tracks, not longer than seq_duration=1.0: exactly, shorter" in caplog.text


def test_names_may_have_wildcards(tree: Tree) -> None:
    for name in ("x mix 2.wav", "x mix 1.wav", "x vocals.wav", "._x vocals.wav"):
        tree.add(f"train/a/{name}")
    dataset = AlignedDataset(tree.root, input_file="*mix*.wav", output_file="*voc*.wav")
    x, y = dataset.sample(0, np.random.default_rng(0))
    np.testing.assert_array_equal(x, tree.samples("train/a/x mix 1.wav", 0, 1500))
    np.testing.assert_array_equal(y, tree.samples("train/a/x vocals.wav", 0, 1500))
    assert dataset.target == "x vocals"


def test_incomplete_and_hidden_folders_are_left_out(
    pairs: Tree, caplog: pytest.LogCaptureFixture
) -> None:
    pairs.add("train/c/mixture.wav")
    pairs.tracks(["train"], [".hidden"], ["mixture.wav", "vocals.wav"])
    (pairs.root / "train" / "file.txt").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        assert len(AlignedDataset(pairs.root)) == 2
    assert "left out 1 tracks, no 'mixture.wav' or no 'vocals.wav': c" in caplog.text


def test_augmentations_treat_both_files_alike(pairs: Tree) -> None:
    augmentations = aug_from_str(["gain", "channelswap"])
    dataset = AlignedDataset(pairs.root, source_augmentations=augmentations)
    plain = AlignedDataset(pairs.root)
    factors = set()
    for seed in range(10):
        x, y = dataset.sample(0, np.random.default_rng(seed))
        (px, py), step = plain.sample(0, np.random.default_rng(seed)), 1
        if (x[0, -1] < 0) != (px[0, -1] < 0):
            step = -1
        factor = x[0, -1] / px[::step][0, -1]
        np.testing.assert_allclose(x, px[::step] * factor, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(y, py[::step] * factor, rtol=1e-5, atol=1e-7)
        factors.add(round(float(factor), 4))
    assert len(factors) == 10


def test_an_empty_dataset_is_refused(tree: Tree) -> None:
    with pytest.raises(ConfigError, match="has no folder 'train'"):
        AlignedDataset(tree.root)
    (tree.root / "train").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"no tracks in .*input_file='mixture.wav'"):
        AlignedDataset(tree.root)


def test_files_must_have_one_rate(pairs: Tree) -> None:
    pairs.add("train/c/mixture.wav", rate=2000)
    pairs.add("train/c/vocals.wav", rate=2000)
    with pytest.raises(ConfigError, match=r"rate=1000 \(.*a/mixture.wav\), rate=2000 \(.*c/mix"):
        AlignedDataset(pairs.root)


def test_the_rate_may_be_demanded(pairs: Tree) -> None:
    assert AlignedDataset(pairs.root, sample_rate=1000.0).sample_rate == 1000.0
    with pytest.raises(ConfigError, match="in place of rate=44100; convert"):
        AlignedDataset(pairs.root, sample_rate=44100.0)


def test_files_must_have_the_same_channels(pairs: Tree) -> None:
    pairs.add("train/c/mixture.wav", nb_channels=1)
    pairs.add("train/c/vocals.wav", nb_channels=1)
    with pytest.raises(ConfigError, match="add force_stereo to source_augmentations"):
        AlignedDataset(pairs.root)
    stereo = AlignedDataset(pairs.root, source_augmentations=aug_from_str(["force_stereo"]))
    assert stereo.nb_channels == 2
    assert stereo.sample(2, np.random.default_rng(0))[0].shape == (2, 1500)


def test_broken_files_are_errors(pairs: Tree) -> None:
    (pairs.root / "train/a/vocals.wav").write_bytes(b"no sound")
    with pytest.raises(AudioError, match=r"a/vocals.wav"):
        AlignedDataset(pairs.root)
