"""What is mixed and what is not: no source twice or lost, no mixture among them, anywhere."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from umx_np.data import (
    AlignedDataset,
    FixedSourcesTrackFolderDataset,
    SourceFolderDataset,
    VariableSourcesTrackFolderDataset,
    item_rng,
)
from umx_np.errors import AudioError, ConfigError

from .conftest import Read, Tree, mixture_of

FILES = ("vocals.wav", "bass.wav", "drums.wav")

needs_links = pytest.mark.skipif(sys.platform == "win32", reason="links need permission")


@pytest.fixture
def tracks(tree: Tree) -> Tree:
    tree.tracks(["train"], ["1", "2"], FILES)
    return tree


@pytest.fixture
def sources(tree: Tree) -> Tree:
    tree.tracks(["train"], ["vocals", "bass", "drums"], ["a.wav", "b.wav", "c.wav"])
    return tree


def mixed(tree: Tree, reads: list[Read], index: int = 0, **options: object) -> set[str]:
    """Names of what an item of a folder of sources is the sum of."""
    dataset = VariableSourcesTrackFolderDataset(tree.root, **options)  # type: ignore[arg-type]
    reads.clear()
    x, _ = dataset.sample(index, np.random.default_rng(0))
    np.testing.assert_allclose(x, mixture_of(tree, reads), atol=1e-6)
    return {Path(name).name for name, _, _ in reads}


class TestSourceFolder:
    @pytest.mark.parametrize("name", ["vocals", "vocals/", "./vocals", "bass/../vocals"])
    def test_the_target_is_no_interferer(self, sources: Tree, name: str) -> None:
        with pytest.raises(ConfigError, match="the folder of target_dir='vocals'"):
            SourceFolderDataset(sources.root, interferer_dirs=["bass", name])

    @needs_links
    def test_nor_under_another_name(self, sources: Tree) -> None:
        (sources.root / "train/choir").symlink_to("vocals")
        with pytest.raises(ConfigError, match="'choir', which is the folder of target_dir"):
            SourceFolderDataset(sources.root, interferer_dirs=["bass", "choir"])

    def test_a_folder_that_is_named_twice_counts_twice(
        self, sources: Tree, reads: list[Read]
    ) -> None:
        dataset = SourceFolderDataset(sources.root, interferer_dirs=["bass", "drums", "bass"])
        pairs = set()
        for index in range(20):
            reads.clear()
            x, y = dataset.sample(0, item_rng(0, 0, index))
            names = [name.split("/")[1] for name, _, _ in reads]
            assert names == ["bass", "drums", "bass", "vocals"]
            np.testing.assert_allclose(x, mixture_of(sources, reads), atol=1e-6)
            np.testing.assert_array_equal(y, sources.samples(*reads[-1]))
            pairs.add((reads[0][0], reads[2][0]))
        assert len(pairs) > 3

    def test_there_is_something_to_mix(self, sources: Tree) -> None:
        with pytest.raises(ConfigError, match="interferer_dirs is empty"):
            SourceFolderDataset(sources.root, interferer_dirs=[])

    def test_other_sound_is_named(self, sources: Tree, caplog: pytest.LogCaptureFixture) -> None:
        sources.add("train/bass/D.WAV")
        sources.add("train/bass/e.flac")
        sources.add("train/bass/more/f.wav")
        (sources.root / "train/bass/cover.jpg").write_bytes(b"")
        with caplog.at_level(logging.WARNING):
            dataset = SourceFolderDataset(sources.root)
        names = [clip.path.name for clip in dataset.source_tracks["bass"]]
        assert sorted(names) == ["D.WAV", "a.wav", "b.wav", "c.wav"]
        expected = "2 files are not used, ext='.wav' passes over them: bass/e.flac, bass/more"
        assert expected in caplog.text


class TestFixed:
    @pytest.mark.parametrize(
        "names", [["bass.wav", "vocals.wav"], ["./vocals.wav"], ["bass.wav", "./bass.wav"]]
    )
    def test_each_file_once(self, tracks: Tree, names: list[str]) -> None:
        with pytest.raises(ConfigError, match=r"name (vocals|bass)\.wav twice"):
            FixedSourcesTrackFolderDataset(tracks.root, interferer_files=names)

    def test_there_is_something_to_mix(self, tracks: Tree) -> None:
        with pytest.raises(ConfigError, match="interferer_files is empty"):
            FixedSourcesTrackFolderDataset(tracks.root, interferer_files=[])

    @needs_links
    def test_links_to_another_source(self, tracks: Tree, caplog: pytest.LogCaptureFixture) -> None:
        (tracks.root / "train/2/bass.wav").unlink()
        (tracks.root / "train/2/bass.wav").symlink_to("vocals.wav")
        with caplog.at_level(logging.WARNING):
            dataset = FixedSourcesTrackFolderDataset(tracks.root)
        assert [track.folder.name for track in dataset.tracks] == ["1"]
        assert "left out 1 tracks, two of the files are the same one: 2" in caplog.text

    @needs_links
    def test_equal_files_may_share_their_place_on_the_disk(self, tracks: Tree) -> None:
        """Two silent stems, after a program that saves space has seen them."""
        (tracks.root / "train/2/bass.wav").unlink()
        os.link(tracks.root / "train/2/vocals.wav", tracks.root / "train/2/bass.wav")
        assert len(FixedSourcesTrackFolderDataset(tracks.root)) == 2


class TestAligned:
    @pytest.mark.parametrize("name", ["bass.wav", "./bass.wav"])
    def test_input_is_not_output(self, tracks: Tree, name: str) -> None:
        with pytest.raises(ConfigError, match="there is nothing to learn"):
            AlignedDataset(tracks.root, input_file="bass.wav", output_file=name)

    @needs_links
    def test_nor_by_a_pattern_or_a_link(
        self, tracks: Tree, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tracks.root / "train/2/vocals.wav").unlink()
        (tracks.root / "train/2/vocals.wav").symlink_to("bass.wav")
        with caplog.at_level(logging.WARNING):
            dataset = AlignedDataset(tracks.root, input_file="b*.wav", output_file="vocals.wav")
        assert [Path(dataset.describe(k)).name for k in range(len(dataset))] == ["1"]
        assert "left out 1 tracks, input and output are the same file: 2" in caplog.text


class TestVariable:
    @pytest.mark.parametrize("name", ["mixture.wav", "Mixture.WAV", "mix.wav", "mixdown.wav"])
    def test_mixtures_are_not_mixed_in(
        self, tracks: Tree, reads: list[Read], name: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        tracks.add(f"train/1/{name}")
        with caplog.at_level(logging.WARNING):
            assert mixed(tracks, reads) == set(FILES)
        assert f"1 files are not used, by their names they are mixtures already: 1/{name}" in (
            caplog.text
        )

    def test_a_target_may_be_called_so(self, tracks: Tree, reads: list[Read]) -> None:
        tracks.add("train/1/mix.wav")
        assert mixed(tracks, reads, target_file="mix.wav") == {*FILES, "mix.wav"}

    def test_upper_and_lower_case(self, tracks: Tree, reads: list[Read]) -> None:
        tracks.add("train/1/piano.WAV")
        (tracks.root / "train/1/vocals.wav").rename(tracks.root / "train/1/Vocals.Wav")
        tracks.numbers["train/1/Vocals.Wav"] = tracks.numbers["train/1/vocals.wav"]
        for silent in (False, True):
            names = mixed(tracks, reads, silence_missing_targets=silent)
            assert names == {"Vocals.Wav", "bass.wav", "drums.wav", "piano.WAV"}

    def test_other_formats_are_named(
        self, tracks: Tree, reads: list[Read], caplog: pytest.LogCaptureFixture
    ) -> None:
        tracks.add("train/1/piano.flac")
        tracks.add("train/2/takes/1.wav")
        (tracks.root / "train/1/cover.jpg").write_bytes(b"")
        (tracks.root / "train/1/._piano.flac").write_bytes(b"")
        with caplog.at_level(logging.WARNING):
            assert mixed(tracks, reads) == set(FILES)
        assert "2 files are not used, ext='.wav' passes over them: 1/piano.flac, 2/takes" in (
            caplog.text
        )

    @pytest.mark.parametrize("other", ["drums.flac", "mixture.wav", "stems/drums.wav"])
    def test_nothing_but_the_target_is_left(self, tree: Tree, other: str) -> None:
        tree.tracks(["train"], ["1"], FILES)
        tree.tracks(["train"], ["2"], ["vocals.wav", other])
        match = rf"2' has nothing to mix with vocals.wav: .* passes over {other.split('/')[0]}"
        with pytest.raises(ConfigError, match=match):
            VariableSourcesTrackFolderDataset(tree.root)

    def test_tracks_of_the_target_alone(self, tree: Tree, caplog: pytest.LogCaptureFixture) -> None:
        tree.tracks(["train"], ["1"], ["vocals.wav"])
        with pytest.raises(ConfigError, match="there is nothing to learn"):
            VariableSourcesTrackFolderDataset(tree.root)
        tree.tracks(["train"], ["2"], FILES)
        with caplog.at_level(logging.WARNING):
            assert len(VariableSourcesTrackFolderDataset(tree.root)) == 2
        assert "1 tracks have no source but the target, which then is the mixture: 1" in (
            caplog.text
        )

    @pytest.mark.parametrize("target", ["vocals.wav", "vocals.flac"])
    def test_the_target_is_not_mixed_in_twice(self, tracks: Tree, target: str) -> None:
        """Nor once, as something else, where another format of it is missing."""
        tracks.add("train/1/VOCALS.flac")
        tracks.add("train/1/vocals.flac")
        ext = ".flac" if target.endswith("wav") else ".wav"
        with pytest.raises(ConfigError, match=r"1' has vocals\.wav|1' has VOCALS\.flac"):
            VariableSourcesTrackFolderDataset(
                tracks.root, target_file=target, ext=ext, silence_missing_targets=True
            )

    @needs_links
    def test_links_to_another_source(
        self, tracks: Tree, reads: list[Read], caplog: pytest.LogCaptureFixture
    ) -> None:
        (tracks.root / "train/1/lead.wav").symlink_to("vocals.wav")
        (tracks.root / "train/1/low.wav").symlink_to(tracks.root / "train/1/bass.wav")
        with caplog.at_level(logging.WARNING):
            assert len(mixed(tracks, reads)) == 3
        assert "2 files are not used, they are links to other sources: 1/l" in caplog.text

    def test_sums_beside_their_parts(self, tracks: Tree, caplog: pytest.LogCaptureFixture) -> None:
        tracks.add("train/1/accompaniment.wav")
        tracks.tracks(["train"], ["3"], ["vocals.wav", "accompaniment.wav"])
        with caplog.at_level(logging.WARNING):
            dataset = VariableSourcesTrackFolderDataset(tracks.root)
        assert [track.folder.name for track in dataset.tracks] == ["2", "3"]
        assert "left out 1 tracks, a source may be the sum of others: 1" in caplog.text


@pytest.mark.parametrize("damage", ["no samples", "no bytes"])
@pytest.mark.parametrize("kind", ["fix", "var", "aligned", "source"])
def test_empty_files(tree: Tree, kind: str, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """They are left out with a word, or refused; no item is empty."""
    if kind == "source":
        tree.tracks(["train"], ["vocals", "bass"], ["a.wav", "b.wav"])
    else:
        tree.tracks(["train"], ["1", "2"], ["vocals.wav", "bass.wav"])
    path = sorted(tree.root.glob("train/*/*.wav"))[0]
    if damage == "no samples":
        sf.write(path, np.zeros((0, 2)), 1000)
    else:
        path.write_bytes(b"")
    make = {
        "fix": lambda: FixedSourcesTrackFolderDataset(tree.root, interferer_files=["bass.wav"]),
        "var": lambda: VariableSourcesTrackFolderDataset(tree.root),
        "aligned": lambda: AlignedDataset(tree.root, input_file="bass.wav"),
        "source": lambda: SourceFolderDataset(tree.root, interferer_dirs=["bass"], nb_samples=9),
    }[kind]
    if kind != "var":
        with pytest.raises(AudioError, match=path.name):
            make()
        return
    with caplog.at_level(logging.WARNING):
        dataset = make()
    assert path.name in caplog.text
    for k in range(len(dataset)):
        assert dataset.sample(k, item_rng(0, 0, k))[0].shape == (2, 1500)
