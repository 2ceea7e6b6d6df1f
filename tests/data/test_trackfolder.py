"""Track folders: a fixed set of sources, and any number of them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from umx_np.audio.resampling import resample_to
from umx_np.data import (
    FixedSourcesTrackFolderDataset,
    VariableSourcesTrackFolderDataset,
    aug_from_str,
    item_rng,
)
from umx_np.errors import AudioError, ConfigError

from .conftest import Read, Tree, mixture_of

FILES = ("vocals.wav", "bass.wav", "drums.wav")


@pytest.fixture
def tracks(tree: Tree) -> Tree:
    tree.tracks(["train", "valid"], ["2", "1", "3"], FILES)
    return tree


def folders(reads: list[Read]) -> list[str]:
    return [name.split("/")[1] for name, _, _ in reads]


class TestFixed:
    def test_sources_of_a_track_share_a_position(self, tracks: Tree, reads: list[Read]) -> None:
        dataset = FixedSourcesTrackFolderDataset(tracks.root, seq_duration=1.0, random_chunks=True)
        assert len(dataset) == 3
        assert dataset.target == "vocals"
        for seed in range(20):
            reads.clear()
            x, y = dataset.sample(1, np.random.default_rng(seed))
            assert [read[0] for read in reads] == [f"train/2/{name}" for name in FILES]
            assert len({read[1:] for read in reads}) == 1
            np.testing.assert_allclose(x, mixture_of(tracks, reads), atol=1e-6)
            np.testing.assert_array_equal(y, tracks.samples(*reads[0]))

    def test_random_track_mix_draws_each_interferer(self, tracks: Tree, reads: list[Read]) -> None:
        dataset = FixedSourcesTrackFolderDataset(
            tracks.root, seq_duration=1.0, random_chunks=True, random_track_mix=True
        )
        combinations, positions = set(), set()
        for seed in range(100):
            reads.clear()
            x, y = dataset.sample(0, np.random.default_rng(seed))
            assert [read[0].split("/")[2] for read in reads] == list(FILES)
            assert folders(reads)[0] == "1"
            combinations.add(tuple(folders(reads)[1:]))
            positions.add(len({first for _, first, _ in reads}))
            np.testing.assert_allclose(x, mixture_of(tracks, reads), atol=1e-6)
            np.testing.assert_array_equal(y, tracks.samples(*reads[0]))
        assert len(combinations) == 9
        assert 3 in positions

    def test_some_items_stay_together(self, tracks: Tree, reads: list[Read]) -> None:
        dataset = FixedSourcesTrackFolderDataset(
            tracks.root,
            "train",
            seq_duration=1.0,
            random_chunks=True,
            random_track_mix=True,
            coherent_share=0.5,
            samples_per_track=4,
        )
        assert len(dataset) == 12
        assert [Path(dataset.describe(k)).name for k in (0, 3, 4, 11)] == ["1", "1", "2", "3"]
        together = 0
        for seed in range(400):
            reads.clear()
            dataset.sample(5, np.random.default_rng(seed))
            assert folders(reads)[0] == "2"
            together += len({(name.split("/")[1], first) for name, first, _ in reads}) == 1
        # Binomial: four standard deviations are 40; other agreements are rare.
        assert abs(together - 200) < 45
        assert len(dataset.for_statistics()) == 3

    @pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
    def test_share_is_a_probability(self, tracks: Tree, share: float) -> None:
        with pytest.raises(ConfigError, match="coherent_share="):
            FixedSourcesTrackFolderDataset(tracks.root, coherent_share=share)

    def test_mixtures_are_brought_to_a_level(self, tracks: Tree) -> None:
        plain, levelled = (
            FixedSourcesTrackFolderDataset(
                tracks.root, "train", seq_duration=1.0, random_chunks=True, mix_level=level
            )
            for level in (None, (-30.0, -10.0))
        )
        found = []
        for seed in range(60):
            x0, y0 = plain.sample(1, np.random.default_rng(seed))
            x, y = levelled.sample(1, np.random.default_rng(seed))
            factor = np.sqrt(np.mean(x**2) / np.mean(x0**2))
            np.testing.assert_allclose(x, x0 * factor, rtol=1e-4, atol=1e-7)
            np.testing.assert_allclose(y, y0 * factor, rtol=1e-4, atol=1e-7)
            assert x.dtype == y.dtype == np.float32
            found.append(10.0 * np.log10(np.mean(x.astype(np.float64) ** 2)))
        assert -30.01 < min(found) < -27.0
        assert -13.0 < max(found) < -9.99
        assert levelled.for_statistics().mix_level is None

    def test_silence_is_not_brought_to_a_level(self, tree: Tree) -> None:
        for name in FILES:
            path = tree.root / "train" / "1" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            sf.write(path, np.zeros((1500, 2)), 1000)
        dataset = FixedSourcesTrackFolderDataset(tree.root, "train", mix_level=(-20.0, -12.0))
        x, y = dataset.sample(0, np.random.default_rng(0))
        assert not x.any()
        assert not y.any()

    @pytest.mark.parametrize(
        ("level", "raised"), [(-70.0, False), (-61.0, False), (-59.0, True), (-50.0, True)]
    )
    def test_what_is_faint_is_not_brought_to_a_level(
        self, tree: Tree, level: float, raised: bool
    ) -> None:
        square = np.where(np.arange(1500) % 8 < 4, 1.0, -1.0)[:, None] * [1.0, -1.0]
        for name, share in zip(FILES, (0.2, 0.8, 0.0), strict=True):
            path = tree.root / "train" / "1" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            sf.write(path, share * 10.0 ** (level / 20.0) * square, 1000, subtype="FLOAT")
        dataset = FixedSourcesTrackFolderDataset(tree.root, "train", mix_level=(-20.0, -20.0))
        x, y = dataset.sample(0, np.random.default_rng(0))
        expected = 10.0 ** ((-20.0 if raised else level) / 20.0) * square.T
        np.testing.assert_allclose(x, expected, rtol=1e-5)
        np.testing.assert_allclose(y, 0.2 * expected, rtol=1e-5)

    @pytest.mark.parametrize("level", [(-10.0, -20.0), (float("nan"), 0.0), (-20.0,)])
    def test_levels_are_two_in_order(self, tracks: Tree, level: tuple[float, ...]) -> None:
        with pytest.raises(ConfigError, match="mix_level="):
            FixedSourcesTrackFolderDataset(tracks.root, mix_level=level)

    def test_a_track_has_one_speed(self, tracks: Tree, reads: list[Read]) -> None:
        dataset = FixedSourcesTrackFolderDataset(
            tracks.root, seq_duration=1.0, random_chunks=True, speed=(0.8, 1.25)
        )
        lengths = []
        for seed in range(60):
            reads.clear()
            x, y = dataset.sample(1, np.random.default_rng(seed))
            assert len({read[1:] for read in reads}) == 1
            played = [resample_to(tracks.samples(*read), 1000) for read in reads]
            np.testing.assert_array_equal(y, played[0])
            np.testing.assert_allclose(x, sum(played), atol=1e-6)
            lengths.append(reads[0][2])
        assert 800 <= min(lengths) < 820
        assert 1220 < max(lengths) <= 1250
        assert dataset.for_statistics().speed is None

    def test_tracks_thrown_together_have_their_own_speeds(
        self, tracks: Tree, reads: list[Read]
    ) -> None:
        dataset = FixedSourcesTrackFolderDataset(
            tracks.root,
            "train",
            seq_duration=1.0,
            random_chunks=True,
            random_track_mix=True,
            speed=(0.5, 2.0),
        )
        nb_available = tracks.samples("train/1/bass.wav", 0, 10**6).shape[1]
        lengths = []
        for seed in range(60):
            reads.clear()
            x, _ = dataset.sample(0, np.random.default_rng(seed))
            assert x.shape == (2, 1000)
            assert all(0 <= first <= nb_available - count for _, first, count in reads)
            lengths.append([count for _, _, count in reads])
        assert 500 <= np.min(lengths) < 520
        # Where a track is too short for a speed, all of it is used.
        clipped = np.array(lengths) == nb_available
        assert 0.1 < clipped.mean() < 0.4
        assert all(len(set(row)) == 3 for row in lengths if nb_available not in row)

    @pytest.mark.parametrize("speed", [(1.2, 0.8), (0.0, 1.0), (1.0, float("inf")), (1.0,)])
    def test_speeds_are_two_in_order(self, tracks: Tree, speed: tuple[float, ...]) -> None:
        with pytest.raises(ConfigError, match="two positive factors"):
            FixedSourcesTrackFolderDataset(tracks.root, seq_duration=1.0, speed=speed)

    def test_whole_tracks_keep_their_speed(self, tracks: Tree) -> None:
        with pytest.raises(ConfigError, match="set seq_duration"):
            FixedSourcesTrackFolderDataset(tracks.root, speed=(0.9, 1.1))

    def test_each_source_has_its_own_gain(self, tracks: Tree, reads: list[Read]) -> None:
        dataset = FixedSourcesTrackFolderDataset(
            tracks.root, source_augmentations=aug_from_str(["gain"])
        )
        x, y = dataset.sample(0, np.random.default_rng(0))
        stems = np.stack([tracks.samples(*read)[0] for read in reads]).astype(np.float64)
        # Ramps differ by constants only: two unknown sums determine too little, the target does.
        factor = y[0, -1] / stems[0, -1]
        np.testing.assert_allclose(y[0], stems[0] * factor, rtol=1e-5)
        assert not np.allclose(x[0], stems.sum(axis=0) * factor, rtol=1e-3)

    def test_whole_tracks(self, tracks: Tree) -> None:
        tracks.add("valid/3/bass.wav", 1200)
        dataset = FixedSourcesTrackFolderDataset(tracks.root, "valid")
        shapes = [dataset.sample(k, item_rng(0, 0, k))[0].shape for k in range(3)]
        assert shapes == [(2, 1500), (2, 1500), (2, 1200)]
        x, y = dataset.sample(2, item_rng(0, 0, 0))
        assert y.shape == x.shape

    def test_incomplete_and_short_tracks_are_left_out(
        self, tracks: Tree, caplog: pytest.LogCaptureFixture
    ) -> None:
        tracks.add("train/4/vocals.wav")
        tracks.add("train/2/drums.wav", 1000)
        with caplog.at_level(logging.WARNING):
            dataset = FixedSourcesTrackFolderDataset(tracks.root, seq_duration=1.0)
        assert [Path(dataset.describe(k)).name for k in range(len(dataset))] == ["1", "3"]
        assert "left out 1 tracks, files are missing: 4" in caplog.text
        assert "not longer than seq_duration=1.0: 2" in caplog.text

    def test_statistics_see_whole_tracks_unmixed(self, tracks: Tree, reads: list[Read]) -> None:
        dataset = FixedSourcesTrackFolderDataset(
            tracks.root,
            seq_duration=1.0,
            random_chunks=True,
            random_track_mix=True,
            source_augmentations=aug_from_str(["gain", "channelswap"]),
        )
        plain = dataset.for_statistics()
        x, _ = plain.sample(2, np.random.default_rng(0))
        assert reads == [(f"train/3/{name}", 0, 1500) for name in FILES]
        np.testing.assert_allclose(x, mixture_of(tracks, reads), atol=1e-6)
        assert dataset.random_track_mix
        assert dataset.seq_duration == 1.0

    def test_nothing_to_load(self, tracks: Tree) -> None:
        with pytest.raises(ConfigError, match=r"holds piano.wav, bass.wav, drums.wav"):
            FixedSourcesTrackFolderDataset(tracks.root, target_file="piano.wav")

    def test_damage_found_later_is_an_error(self, tracks: Tree) -> None:
        dataset = FixedSourcesTrackFolderDataset(tracks.root)
        (tracks.root / "train/1/bass.wav").write_bytes(b"RIFF")
        with pytest.raises(AudioError, match=r"train/1/bass.wav"):
            dataset.sample(0, np.random.default_rng(0))


class TestVariable:
    def test_all_files_of_a_folder_are_mixed(self, tracks: Tree, reads: list[Read]) -> None:
        tracks.add("train/1/accordion.wav")
        tracks.add("train/1/notes.flac")
        tracks.add("train/1/._vocals.wav")
        dataset = VariableSourcesTrackFolderDataset(
            tracks.root, seq_duration=1.0, random_chunks=True
        )
        x, y = dataset.sample(0, np.random.default_rng(0))
        names = {read[0] for read in reads}
        assert names == {f"train/1/{name}" for name in (*FILES, "accordion.wav")}
        assert len({read[1] for read in reads}) == 1
        np.testing.assert_allclose(x, mixture_of(tracks, reads), atol=1e-6)
        target = next(read for read in reads if "vocals" in read[0])
        np.testing.assert_array_equal(y, tracks.samples(*target))

    def test_the_target_may_end_differently(self, tree: Tree, reads: list[Read]) -> None:
        tree.tracks(["train"], ["1"], ["vocals.flac", "bass.wav"])
        # The shortest file counts, also if it is the target.
        tree.add("train/2/vocals.flac", 900)
        tree.add("train/2/bass.wav", 1500)
        dataset = VariableSourcesTrackFolderDataset(
            tree.root, target_file="vocals.flac", seq_duration=1.0
        )
        assert len(dataset) == 1
        assert dataset.target == "vocals"
        x, _ = dataset.sample(0, np.random.default_rng(0))
        assert {read[0] for read in reads} == {"train/1/vocals.flac", "train/1/bass.wav"}
        np.testing.assert_allclose(x, mixture_of(tree, reads), atol=1e-6)

    def test_missing_targets_are_left_out_or_silent(
        self, tracks: Tree, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tracks.root / "train/2/vocals.wav").unlink()
        (tracks.root / "train/4").mkdir()
        with caplog.at_level(logging.WARNING):
            assert len(VariableSourcesTrackFolderDataset(tracks.root)) == 2
        assert "no 'vocals.wav': 2" in caplog.text
        assert "no sources with ext='.wav': 4" in caplog.text
        dataset = VariableSourcesTrackFolderDataset(tracks.root, silence_missing_targets=True)
        assert len(dataset) == 3
        x, y = dataset.sample(1, np.random.default_rng(0))
        assert x.any()
        assert not y.any()
        assert x.shape == y.shape
        assert y.dtype == np.float32

    def test_random_interferer_mix_takes_them_from_one_track(
        self, tracks: Tree, reads: list[Read]
    ) -> None:
        dataset = VariableSourcesTrackFolderDataset(
            tracks.root, seq_duration=1.0, random_chunks=True, random_interferer_mix=True
        )
        seen, apart = set(), 0
        for seed in range(40):
            reads.clear()
            x, y = dataset.sample(0, np.random.default_rng(seed))
            by_file = {read[0].split("/")[2]: read for read in reads}
            assert set(by_file) == set(FILES)
            target, bass, drums = (by_file[name] for name in FILES)
            assert target[0].startswith("train/1/")
            assert bass[0].split("/")[1] == drums[0].split("/")[1]
            assert bass[1] == drums[1]
            seen.add(bass[0].split("/")[1])
            apart += bass[1] != target[1]
            np.testing.assert_allclose(x, mixture_of(tracks, reads), atol=1e-6)
            np.testing.assert_array_equal(y, tracks.samples(*target))
        assert seen == {"1", "2", "3"}
        assert apart > 30

    def test_a_target_without_interferers(self, tree: Tree) -> None:
        tree.add("train/1/vocals.wav")
        tree.tracks(["train"], ["2"], ["bass.wav"])
        dataset = VariableSourcesTrackFolderDataset(
            tree.root, silence_missing_targets=True, random_interferer_mix=True
        )
        x, y = dataset.sample(0, np.random.default_rng(0))
        assert not np.shares_memory(x, y)
        for seed in range(10):
            # The silent target may meet the folder without interferers.
            x, y = dataset.sample(1, np.random.default_rng(seed))
            assert x.shape == y.shape == (2, 1500)

    def test_mono_sources(self, tree: Tree) -> None:
        tree.add("train/1/vocals.wav", nb_channels=2)
        tree.add("train/1/bass.wav", nb_channels=1)
        with pytest.raises(ConfigError, match="force_stereo"):
            VariableSourcesTrackFolderDataset(tree.root)
        dataset = VariableSourcesTrackFolderDataset(
            tree.root, source_augmentations=aug_from_str(["force_stereo"])
        )
        x, _ = dataset.sample(0, np.random.default_rng(0))
        expected = tree.samples("train/1/vocals.wav", 0, 1500) + tree.samples(
            "train/1/bass.wav", 0, 1500
        )
        np.testing.assert_allclose(x, expected, atol=1e-6)
        assert dataset.for_statistics().sample(0, np.random.default_rng(0))[0].shape == (2, 1500)

    def test_unreadable_files_at_the_beginning(
        self, tracks: Tree, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tracks.root / "train/2/bass.wav").write_bytes(b"no sound")
        with caplog.at_level(logging.WARNING):
            dataset = VariableSourcesTrackFolderDataset(tracks.root)
        assert [Path(dataset.describe(k)).name for k in range(len(dataset))] == ["1", "3"]
        assert len(dataset.skipped) == 1
        assert "train/2/bass.wav" in caplog.text

    @pytest.mark.parametrize(("broken", "neighbour"), [("3", "2"), ("1", "2")])
    def test_unreadable_files_later_on(
        self, tracks: Tree, broken: str, neighbour: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        dataset = VariableSourcesTrackFolderDataset(tracks.root)
        (tracks.root / "train" / broken / "drums.wav").unlink()
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                _x, y = dataset.sample(int(broken) - 1, np.random.default_rng(0))
        np.testing.assert_array_equal(y, tracks.samples(f"train/{neighbour}/vocals.wav", 0, 1500))
        assert list(dataset.skipped) == [str(tracks.root / "train" / broken / "drums.wav")]
        assert caplog.text.count("drums.wav") == 1

    def test_nan_in_a_file_is_passed_over(self, tracks: Tree) -> None:
        samples = np.zeros((1500, 2), np.float32)
        samples[700, 1] = np.nan
        sf.write(tracks.root / "train/2/bass.wav", samples, 1000, subtype="FLOAT")
        dataset = VariableSourcesTrackFolderDataset(tracks.root)
        _, y = dataset.sample(1, np.random.default_rng(0))
        np.testing.assert_array_equal(y, tracks.samples("train/1/vocals.wav", 0, 1500))
        assert "nan in channel=1 at sample 700" in next(iter(dataset.skipped.values()))

    def test_nothing_readable_is_left(self, tracks: Tree) -> None:
        dataset = VariableSourcesTrackFolderDataset(tracks.root)
        for name in ("1", "2", "3"):
            (tracks.root / "train" / name / "drums.wav").unlink()
        with pytest.raises(AudioError, match="none of the 3 tracks"):
            dataset.sample(0, np.random.default_rng(0))
