"""Dataset statistics: those of scikit-learn, without it."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from umx_np.data import (
    DataError,
    SourceFolderDataset,
    UnmixDataset,
    VariableSourcesTrackFolderDataset,
    aug_from_str,
    get_statistics,
    statistics,
)
from umx_np.data.statistics import RunningMoments
from umx_np.dsp.stft import stft

from .conftest import Tree


class Tracks(UnmixDataset):
    """Given waveforms; the targets do not matter."""

    def __init__(self, *waveforms: np.ndarray) -> None:
        super().__init__()
        self.waveforms = [np.asarray(w, np.float32) for w in waveforms]

    def __len__(self) -> int:
        return len(self.waveforms)

    def sample(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self.waveforms[index], np.zeros_like(self.waveforms[index])


def noise(nb_timesteps: int, seed: int = 0, level: float = 1.0) -> np.ndarray:
    return level * np.random.default_rng(seed).standard_normal((2, nb_timesteps))


def frames_of(dataset: UnmixDataset, n_fft: int, n_hop: int) -> np.ndarray:
    """All frames of the channel-mean magnitude, float64 [shape=(nb_frames, nb_bins)]."""
    rows = []
    for k in range(len(dataset)):
        x, _ = dataset.sample(k, np.random.default_rng(0))
        for start in range(0, x.shape[1] - n_fft + 1, n_hop):
            window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n_fft) / n_fft)
            spectrum = np.fft.rfft(x[:, start : start + n_fft] * window)
            rows.append(np.abs(spectrum).mean(axis=0))
    return np.array(rows)


@pytest.fixture
def tracks() -> Tracks:
    return Tracks(noise(5000), noise(1234, 1, 5.0), noise(64, 2), noise(3000, 3, 0.01))


def test_mean_and_population_deviation_of_all_frames(tracks: Tracks) -> None:
    rows = frames_of(tracks, 64, 16)
    mean, std = get_statistics(tracks, 64, 16)
    assert mean.dtype == std.dtype == np.float64
    assert mean.shape == std.shape == (33,)
    # Magnitudes are float32 here and float64 there.
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(std, rows.std(axis=0), rtol=1e-6)


@pytest.mark.parametrize("nb_frames", [1, 7, 100])
def test_blocks_do_not_matter(
    tracks: Tracks, nb_frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = get_statistics(tracks, 64, 16)
    monkeypatch.setattr(statistics, "_FRAMES_PER_BLOCK", nb_frames)
    np.testing.assert_allclose(get_statistics(tracks, 64, 16), whole, rtol=1e-12)


def test_sums_do_not_cancel() -> None:
    rows = 1e8 + np.random.default_rng(0).standard_normal((1000, 3))
    moments = RunningMoments(3)
    for block in np.split(rows, [0, 1, 10, 500]):
        moments.push(block)
    # Sums of squares would be of the order of 1e19, and their difference lost.
    np.testing.assert_allclose(moments.variance, (rows - 1e8).var(axis=0), rtol=1e-7)
    assert moments.count == 1000


def test_the_deviation_has_a_floor() -> None:
    # A steady tone leaves most bins almost, but not exactly, constant.
    x = np.sin(2 * np.pi * 8 / 64 * np.arange(20000)) * np.linspace(0.5, 1.5, 20000)
    _, std = get_statistics(Tracks(np.stack([x, x])), 64, 16)
    assert std.min() == 1e-4 * std.max()
    assert np.count_nonzero(std == std.min()) > 10


def test_constant_bins_have_deviation_one() -> None:
    mean, std = get_statistics(Tracks(np.zeros((2, 1000))), 64, 16)
    assert not mean.any()
    np.testing.assert_array_equal(std, 1.0)


@pytest.mark.parametrize("case", ["noise", "constant", "tiny"])
def test_against_scikit_learn(case: str) -> None:
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    blocks = [
        np.abs(np.random.default_rng(k).standard_normal((50 + k, 6))).astype(np.float32)
        for k in range(4)
    ]
    for block in blocks:
        if case == "constant":
            block[:, 2:4] = [0.0, 0.3]
        if case == "tiny":
            block[:, 2:4] *= 1e-7
            block[:, 3] += 1.0
    scaler, moments = preprocessing.StandardScaler(), RunningMoments(6)
    for block in blocks:
        scaler.partial_fit(block)
        moments.push(block)
    np.testing.assert_allclose(moments.mean, scaler.mean_, rtol=1e-12)
    # The worst is a deviation of 1e-7 around 1.
    np.testing.assert_allclose(moments.scale, scaler.scale_, rtol=1e-9)


def test_tracks_shorter_than_a_frame_are_left_out(
    tracks: Tracks, caplog: pytest.LogCaptureFixture
) -> None:
    short = Tracks(*tracks.waveforms, noise(63))
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(get_statistics(short, 64, 16), get_statistics(tracks, 64, 16))
    assert "nb_timesteps=63 is less than a frame" in caplog.text
    with pytest.raises(DataError, match=r"no item .* n_fft=64"):
        get_statistics(Tracks(noise(63)), 64, 16)


def test_augmentations_are_off(tree: Tree) -> None:
    tree.tracks(["train"], ["1", "2"], ["vocals.wav", "bass.wav"])
    options: dict = {"seq_duration": 0.5, "random_chunks": True}
    augmented = VariableSourcesTrackFolderDataset(
        tree.root,
        random_interferer_mix=True,
        source_augmentations=aug_from_str(["gain", "channelswap"]),
        **options,
    )
    mean, std = get_statistics(augmented, 64, 16)
    rows = frames_of(VariableSourcesTrackFolderDataset(tree.root), 64, 16)
    np.testing.assert_allclose(mean, rows.mean(axis=0), rtol=1e-4, atol=1e-5)
    # Ramps only move in the lowest bins; in the others there is but rounding.
    np.testing.assert_allclose(std[:2], rows.std(axis=0)[:2], rtol=1e-4)
    assert augmented.random_interferer_mix


def test_random_datasets_are_repeatable(tree: Tree) -> None:
    for source in ("vocals", "bass"):
        for number in range(5):
            tree.add(f"train/{source}/{number}.wav")
    dataset = SourceFolderDataset(
        tree.root, interferer_dirs=["bass"], seq_duration=0.5, nb_samples=4
    )
    first = get_statistics(dataset, 64, 16, seed=1)
    np.testing.assert_array_equal(get_statistics(dataset, 64, 16, seed=1), first)
    assert not np.array_equal(get_statistics(dataset, 64, 16, seed=2), first)


def test_progress_reaches_one(tracks: Tracks) -> None:
    fractions: list[float] = []
    get_statistics(tracks, 64, 16, progress=fractions.append)
    assert fractions == [0.25, 0.5, 0.75, 1.0]


def test_magnitudes_are_averaged_and_not_waveforms() -> None:
    x = noise(2000)
    x[1] = -x[0]
    mean, _ = get_statistics(Tracks(x), 64, 16)
    expected = np.abs(stft(x[:1].astype(np.float32), 64, 16, center=False)[0]).mean(axis=1)
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
