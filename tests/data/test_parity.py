"""The same items as Open-Unmix's own datasets make, where nothing is random or chance is fixed."""

from __future__ import annotations

import importlib
import random
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from umx_np.data import (
    AlignedDataset,
    FixedSourcesTrackFolderDataset,
    MUSDBDataset,
    SourceFolderDataset,
    VariableSourcesTrackFolderDataset,
    get_statistics,
)

from .conftest import Tree

pytestmark = pytest.mark.parity

# Sums of sources are rounded in another order.
ROUNDING = 2e-7


def _load(path: str, num_frames: int = -1, frame_offset: int = 0) -> tuple[Any, int]:
    """What torchaudio.load was, with soundfile."""
    import torch

    samples, rate = sf.read(
        path, frames=num_frames, start=frame_offset, dtype="float32", always_2d=True
    )
    return torch.from_numpy(samples.T.copy()), rate


def _info(path: str) -> SimpleNamespace:
    info = sf.info(path)
    return SimpleNamespace(
        sample_rate=info.samplerate, num_frames=info.frames, num_channels=info.channels
    )


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Upstream's module, with a torchaudio that can read files."""
    try:
        from helpers.upstream import Upstream

        Upstream()
    except ImportError as error:
        pytest.skip(f"needs torch and openunmix: {error}")
    torchaudio = sys.modules["torchaudio"]
    for name, function in (
        ("load", _load),
        ("info", _info),
        ("get_audio_backend", lambda: "soundfile"),
    ):
        monkeypatch.setattr(torchaudio, name, function, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield importlib.import_module("openunmix.data")


class Fixed:
    """A generator without chance: the first of any choice, or a position in seconds."""

    def __init__(self, first: int = 0) -> None:
        self.first = first

    def integers(self, low: int, high: int | None = None, endpoint: bool = False) -> int:
        return 0 if high is None else self.first


def fix_chance(monkeypatch: pytest.MonkeyPatch, start: float) -> None:
    """Let upstream choose the same."""
    monkeypatch.setattr(random, "choice", lambda items: items[0])
    monkeypatch.setattr(random, "uniform", lambda low, high: start)


def assert_same(ours: Any, theirs: Any, rng: Any, order: list[int] | None = None) -> None:
    assert len(ours) == len(theirs)
    for k in range(len(ours)):
        x, y = ours.sample(k, rng)
        expected = theirs[k if order is None else order[k]]
        np.testing.assert_allclose(x, expected[0].numpy(), rtol=0, atol=ROUNDING)
        np.testing.assert_array_equal(y, expected[1].numpy())


def by_folder(ours: Any, theirs: Any, path: str) -> list[int]:
    """Where upstream, in the order of the file system, has each of our tracks."""
    names = [Path(track[path]).name for track in theirs.tracks]
    return [names.index(Path(ours.describe(k)).name) for k in range(len(ours))]


@pytest.fixture
def tracks(tree: Tree) -> Tree:
    tree.tracks(["train", "valid"], ["c", "a", "b"], ["vocals.wav", "bass.wav", "drums.wav"])
    tree.add("train/short/vocals.wav", 1000)
    tree.add("train/short/bass.wav", 1000)
    tree.add("train/short/drums.wav", 1000)
    return tree


excerpts = pytest.mark.parametrize(
    ("seq_duration", "random_chunks"), [(None, False), (1.0, False), (1.0, True)]
)


@excerpts
@pytest.mark.parametrize("mixing", [False, True])
class TestFolders:
    def test_fixed(
        self,
        upstream: Any,
        tracks: Tree,
        monkeypatch: pytest.MonkeyPatch,
        seq_duration: float | None,
        random_chunks: bool,
        mixing: bool,
    ) -> None:
        fix_chance(monkeypatch, 0.25)
        options = {"seq_duration": seq_duration, "random_chunks": random_chunks}
        theirs = upstream.FixedSourcesTrackFolderDataset(
            tracks.root, random_track_mix=mixing, **options
        )
        ours = FixedSourcesTrackFolderDataset(tracks.root, random_track_mix=mixing, **options)
        order = by_folder(ours, theirs, "path")
        # The first of a choice shall be the same folder.
        theirs.tracks = [theirs.tracks[k] for k in order]
        if seq_duration is None and mixing:
            pytest.skip("upstream cannot add tracks of different lengths")
        assert_same(ours, theirs, Fixed(250))

    def test_variable(
        self,
        upstream: Any,
        tracks: Tree,
        monkeypatch: pytest.MonkeyPatch,
        seq_duration: float | None,
        random_chunks: bool,
        mixing: bool,
    ) -> None:
        (tracks.root / "train/b/vocals.wav").unlink()
        fix_chance(monkeypatch, 0.25)
        options: dict = {"seq_duration": seq_duration, "random_chunks": random_chunks}
        options |= {"random_interferer_mix": mixing, "silence_missing_targets": True}
        theirs = upstream.VariableSourcesTrackFolderDataset(tracks.root, **options)
        ours = VariableSourcesTrackFolderDataset(tracks.root, **options)
        order = by_folder(ours, theirs, "path")
        theirs.tracks = [theirs.tracks[k] for k in order]
        if seq_duration is None and mixing:
            pytest.skip("upstream cannot add tracks of different lengths")
        assert_same(ours, theirs, Fixed(250))


@excerpts
def test_aligned(
    upstream: Any,
    tracks: Tree,
    monkeypatch: pytest.MonkeyPatch,
    seq_duration: float | None,
    random_chunks: bool,
) -> None:
    fix_chance(monkeypatch, 0.25)
    options: dict = {"seq_duration": seq_duration, "random_chunks": random_chunks}
    options |= {"input_file": "ba*.wav", "output_file": "vocals.wav"}
    theirs = upstream.AlignedDataset(tracks.root, **options)
    ours = AlignedDataset(tracks.root, **options)
    theirs.tuple_paths.sort()
    assert_same(ours, theirs, Fixed(250))


@pytest.mark.parametrize("random_chunks", [False, True])
def test_source_folders(
    upstream: Any, tree: Tree, monkeypatch: pytest.MonkeyPatch, random_chunks: bool
) -> None:
    for source in ("vocals", "bass", "drums"):
        for number in range(3):
            tree.add(f"train/{source}/{number}.wav", 3000)
        tree.add(f"train/{source}/00.wav", 1000)
    fix_chance(monkeypatch, 0.25)
    # Upstream takes the middle in whole seconds: here 3 // 2 - 1 // 2 = 1, which is exact.
    options: dict = {"seq_duration": 1.0, "random_chunks": random_chunks, "nb_samples": 2}
    theirs = upstream.SourceFolderDataset(tree.root, **options)
    ours = SourceFolderDataset(tree.root, **options)
    for name, clips in ours.source_tracks.items():
        assert [clip.path for clip in clips] == theirs.source_tracks[name]
    assert_same(ours, theirs, Fixed(250))


@pytest.fixture(scope="module")
def musdb_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stempeg = pytest.importorskip("stempeg")
        pytest.importorskip("musdb")
    if shutil.which("ffmpeg") is None:
        pytest.skip("needs ffmpeg")
    folder = tmp_path_factory.mktemp("musdb")
    (folder / "train").mkdir()
    for name in ("Some - Track", "Actions - One Minute Smile"):
        shutil.copy(stempeg.example_stem_path(), folder / "train" / f"{name}.stem.mp4")
    return folder


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("split", ["train", "valid"])
@pytest.mark.parametrize("target", ["vocals", "accompaniment"])
def test_musdb(
    upstream: Any,
    musdb_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    split: str,
    target: str,
) -> None:
    fix_chance(monkeypatch, 1.0)
    options: dict = {"target": target, "root": str(musdb_root), "split": split}
    options |= {"seq_duration": 2.0 if split == "train" else None, "samples_per_track": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = upstream.MUSDBDataset(random_track_mix=True, **options)
        expected = [part.numpy() for part in theirs[0]]
    ours = MUSDBDataset(random_track_mix=True, cache=tmp_path / "cache", **options)
    assert len(ours) == len(theirs) == 1
    x, y = ours.sample(0, Fixed(44100))
    np.testing.assert_allclose(x, expected[0], rtol=0, atol=ROUNDING)
    np.testing.assert_allclose(y, expected[1], rtol=0, atol=2 * ROUNDING)


def test_statistics(upstream: Any, tmp_path: Path) -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    import torch

    rng = np.random.default_rng(0)
    for track in ("1", "2", "3"):
        (tmp_path / "train" / track).mkdir(parents=True)
        for name in ("vocals", "bass", "drums"):
            samples = rng.normal(0.0, rng.uniform(0.01, 0.2), (4000, 2))
            sf.write(tmp_path / "train" / track / f"{name}.wav", samples, 1000, subtype="FLOAT")
    theirs = upstream.FixedSourcesTrackFolderDataset(tmp_path)
    scaler = preprocessing.StandardScaler()
    window = torch.hann_window(64)
    for k in range(len(theirs)):
        spectra = torch.stft(theirs[k][0], 64, 16, window=window, center=False, return_complex=True)
        scaler.partial_fit(spectra.abs().mean(0).T.numpy())
    std = np.maximum(scaler.scale_, 1e-4 * np.max(scaler.scale_))
    ours = get_statistics(FixedSourcesTrackFolderDataset(tmp_path), 64, 16)
    # Both see float32 magnitudes.
    np.testing.assert_allclose(ours[0], scaler.mean_, rtol=1e-6)
    np.testing.assert_allclose(ours[1], std, rtol=1e-6)
