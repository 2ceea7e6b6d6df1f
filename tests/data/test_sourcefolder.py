"""`SourceFolderDataset`: random files of each source."""

from __future__ import annotations

import logging
import random

import numpy as np
import pytest

from umx_np.data import SourceFolderDataset, aug_from_str, item_rng
from umx_np.errors import ConfigError

from .conftest import Read, Tree, mixture_of


@pytest.fixture
def sources(tree: Tree) -> Tree:
    for split in ("train", "valid"):
        for source in ("vocals", "bass", "drums"):
            for number in range(3):
                tree.add(f"{split}/{source}/{number}.wav", 1400 + 40 * number)
    return tree


def global_states() -> tuple[object, ...]:
    """What nobody but the caller's own program may change."""
    return random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002


def test_each_source_has_a_file_and_a_position_of_its_own(sources: Tree, reads: list[Read]) -> None:
    dataset = SourceFolderDataset(sources.root, seq_duration=0.5, nb_samples=7)
    assert len(dataset) == 7
    assert dataset.target == "vocals"
    files, same_position = set(), 0
    for index in range(60):
        reads.clear()
        x, y = dataset.sample(0, item_rng(0, 0, index))
        assert [name.split("/")[1] for name, _, _ in reads] == ["bass", "drums", "vocals"]
        np.testing.assert_allclose(x, mixture_of(sources, reads), atol=1e-6)
        np.testing.assert_array_equal(y, sources.samples(*reads[-1]))
        files.update(name for name, _, _ in reads)
        same_position += reads[0][1] == reads[1][1]
    assert len(files) == 9
    assert same_position < 5


def test_validation_is_the_same_each_time_without_one_number_for_all_sources(
    sources: Tree, reads: list[Read]
) -> None:
    dataset = SourceFolderDataset(sources.root, "valid", seq_duration=0.5, seed=3)
    state = global_states()
    first = [dataset.sample(k, item_rng(0, 0, k)) for k in range(10)]
    once = list(reads)
    again = [dataset.sample(k, item_rng(9, 5, k)) for k in reversed(range(10))][::-1]
    np.testing.assert_array_equal(first, again)
    assert global_states() == state
    numbers = [[name[-5] for name, _, _ in once[3 * k : 3 * k + 3]] for k in range(10)]
    assert any(len(set(row)) > 1 for row in numbers)
    other = SourceFolderDataset(sources.root, "valid", seq_duration=0.5, seed=4)
    assert not np.array_equal(other.sample(0, item_rng(0, 0, 0))[0], first[0][0])


def test_statistics_take_the_middle(sources: Tree, reads: list[Read]) -> None:
    dataset = SourceFolderDataset(
        sources.root, seq_duration=0.5, source_augmentations=aug_from_str(["gain"]), nb_samples=4
    )
    plain = dataset.for_statistics()
    assert len(plain) == 4
    x, _y = plain.sample(0, item_rng(0, 0, 0))
    np.testing.assert_allclose(x, mixture_of(sources, reads), atol=1e-6)
    for name, first, count in reads:
        assert first == (1400 + 40 * int(name[-5]) - 500) // 2
        assert count == 500
    assert dataset.random_chunks
    assert dataset.source_augmentations.transforms


def test_short_files_are_left_out(sources: Tree, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        dataset = SourceFolderDataset(sources.root, seq_duration=1.44)
    assert all(len(clips) == 1 for clips in dataset.source_tracks.values())
    assert "left out 2 tracks, not longer than seq_duration=1.44: bass/0.wav, bass/1.wav" in (
        caplog.text
    )


def test_whole_files_end_with_the_shortest(sources: Tree) -> None:
    dataset = SourceFolderDataset(sources.root)
    lengths = {dataset.sample(0, item_rng(0, 0, k))[0].shape[1] for k in range(30)}
    assert lengths <= {1400, 1440, 1480}
    assert 1400 in lengths
    x, y = dataset.sample(0, item_rng(0, 0, 0))
    assert x.shape == y.shape


def test_extension_and_names_of_the_folders(tree: Tree) -> None:
    tree.add("train/voice/a.flac")
    tree.add("train/voice/b.wav")
    tree.add("train/noise/c.flac")
    dataset = SourceFolderDataset(
        tree.root, target_dir="voice", interferer_dirs=["noise"], ext=".flac"
    )
    assert [len(clips) for clips in dataset.source_tracks.values()] == [1, 1]
    _x, y = dataset.sample(0, item_rng(0, 0, 0))
    np.testing.assert_array_equal(y, tree.samples("train/voice/a.flac", 0, 1500))


def test_missing_and_empty_folders_are_named(sources: Tree) -> None:
    with pytest.raises(ConfigError, match="has no folder train/piano"):
        SourceFolderDataset(sources.root, interferer_dirs=["piano"])
    with pytest.raises(ConfigError, match=r"no usable file in 'bass' .* '.ogg'"):
        SourceFolderDataset(sources.root, ext=".ogg")
    with pytest.raises(ConfigError, match=r"longer than seq_duration=9 s"):
        SourceFolderDataset(sources.root, seq_duration=9.0)
