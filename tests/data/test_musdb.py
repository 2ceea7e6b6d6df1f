"""`MUSDBDataset` on the excerpt that comes with stempeg, arranged as MUSDB18 is."""

from __future__ import annotations

import importlib.util
import shutil
import sys
import urllib.error
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from umx_np.data import (
    Loader,
    MUSDBDataset,
    aug_from_str,
    get_statistics,
    item_rng,
    load_datasets,
)
from umx_np.data.files import AudioFiles, CachedFiles, Clip
from umx_np.errors import AudioError, ConfigError, DownloadError

SOURCES = ("vocals", "drums", "bass", "other")
STREAMS = {"mixture": 0, "drums": 1, "bass": 2, "other": 3, "vocals": 4}
TRACK = "The Easton Ellises - Falcon 69"
VALID = "Actions - One Minute Smile"

needs_musdb = pytest.mark.skipif(
    importlib.util.find_spec("musdb") is None or shutil.which("ffmpeg") is None,
    reason="needs musdb and ffmpeg",
)


@pytest.fixture(scope="module")
def excerpt() -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stempeg = pytest.importorskip("stempeg")
    return Path(stempeg.example_stem_path())


@pytest.fixture(scope="module")
def stems(excerpt: Path) -> dict[str, np.ndarray]:
    """Whole streams, each [shape=(nb_channels, nb_timesteps)]."""
    files = AudioFiles()
    return {name: files.read(Clip(excerpt, stream)) for name, stream in STREAMS.items()}


@pytest.fixture(scope="module")
def root(excerpt: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("musdb")
    (folder / "train").mkdir()
    for name in (TRACK, "Another - Track", VALID):
        shutil.copy(excerpt, folder / "train" / f"{name}.stem.mp4")
    return folder


@pytest.fixture(scope="module")
def wav_root(stems: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("musdb-wav")
    for track in (TRACK, VALID):
        (folder / "train" / track).mkdir(parents=True)
        for name, samples in stems.items():
            sf.write(folder / "train" / track / f"{name}.wav", samples.T, 44100, subtype="PCM_16")
    return folder


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@needs_musdb
def test_streams_are_decoded_as_stempeg_does(excerpt: Path, stems: dict[str, np.ndarray]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import stempeg

        # As musdb asks for it: 16 bits.
        expected, rate = stempeg.read_stems(str(excerpt), ffmpeg_format="s16le")
    assert rate == 44100
    for stream, name in enumerate(STREAMS):
        np.testing.assert_array_equal(stems[name], expected[stream].T.astype(np.float32))


@needs_musdb
def test_excerpts_are_exact(excerpt: Path, stems: dict[str, np.ndarray]) -> None:
    files, clip = AudioFiles(), Clip(excerpt, 4)
    nb_timesteps = files.info(clip).nb_timesteps
    rng = np.random.default_rng(0)
    for first in [0, 1, nb_timesteps - 5000, *rng.integers(0, nb_timesteps - 5000, 6)]:
        np.testing.assert_array_equal(
            files.read(clip, int(first), 5000), stems["vocals"][:, first : first + 5000]
        )


@needs_musdb
def test_splits_and_lengths(root: Path, cache: Path) -> None:
    train, valid = load_datasets(dataset="musdb", root=root, seq_dur=2.0, cache=cache)
    assert isinstance(train, MUSDBDataset)
    assert isinstance(valid, MUSDBDataset)
    assert [track.name for track in train.tracks] == ["Another - Track", TRACK]
    assert [track.name for track in valid.tracks] == [VALID]
    assert (len(train), len(valid)) == (128, 1)
    assert train.source_augmentations == aug_from_str(["gain", "channelswap"])
    assert train.random_track_mix
    assert (train.sample_rate, train.nb_channels, train.target) == (44100.0, 2, "vocals")
    assert valid.describe(0) == VALID


@needs_musdb
@pytest.mark.parametrize("target", [*SOURCES, "accompaniment", "linear_mixture"])
def test_training_items(root: Path, cache: Path, stems: dict[str, np.ndarray], target: str) -> None:
    dataset = MUSDBDataset(target, root, seq_duration=1.0, random_track_mix=True, cache=cache)
    log: list[tuple[int, int]] = []
    read = dataset.files.read

    def logged(clip: Clip, first: int = 0, count: int | None = None) -> np.ndarray:
        log.append((clip.stream, first))
        return read(clip, first, count)

    dataset.files.read = logged  # type: ignore[method-assign]
    x, y = dataset.sample(3, item_rng(0, 0, 3))
    # Each source at a position of its own.
    assert [stream for stream, _ in log] == [STREAMS[name] for name in SOURCES]
    assert len({first for _, first in log}) == 4
    parts = {
        name: stems[name][:, first : first + 44100]
        for name, (_, first) in zip(SOURCES, log, strict=True)
    }
    total = np.sum(list(parts.values()), axis=0)
    np.testing.assert_allclose(x, total, atol=1e-6)
    expected = {"accompaniment": total - parts["vocals"], "linear_mixture": total}
    np.testing.assert_allclose(y, expected.get(target, parts.get(target)), atol=1e-6)


@needs_musdb
def test_tracks_are_mixed_only_if_asked_for(root: Path, cache: Path) -> None:
    for mixing, expected in ((False, {1}), (True, {1, 2})):
        dataset = MUSDBDataset(
            root=root, seq_duration=1.0, random_track_mix=mixing, samples_per_track=4, cache=cache
        )
        assert len(dataset) == 8
        assert dataset.describe(5) == ("" if mixing else TRACK)
        used: list[Path] = []

        def read(clip: Clip, *place: int, used=used, read=dataset.files.read) -> np.ndarray:
            used.append(clip.path)
            return read(clip, *place)

        dataset.files.read = read  # type: ignore[method-assign]
        counts = set()
        for seed in range(8):
            used.clear()
            dataset.sample(5, np.random.default_rng(seed))
            counts.add(len(set(used)))
            assert mixing or used[0].name.startswith(TRACK)
        assert counts == expected


@needs_musdb
@pytest.mark.parametrize("cached", [False, True])
def test_validation_takes_whole_tracks_and_their_mixture(
    root: Path, cache: Path, stems: dict[str, np.ndarray], cached: bool
) -> None:
    dataset = MUSDBDataset(
        "accompaniment",
        root,
        split="valid",
        seq_duration=None,
        samples_per_track=1,
        cache=cache if cached else None,
    )
    assert isinstance(dataset.files, CachedFiles) == cached
    x, y = dataset.sample(0, np.random.default_rng(0))
    np.testing.assert_array_equal(x, stems["mixture"])
    expected = stems["drums"] + stems["bass"] + stems["other"]
    np.testing.assert_allclose(y, expected, atol=1e-6)


@needs_musdb
def test_with_and_without_cache(root: Path, cache: Path) -> None:
    plain = MUSDBDataset(root=root, seq_duration=1.0, random_track_mix=True)
    cached = MUSDBDataset(root=root, seq_duration=1.0, random_track_mix=True, cache=cache)
    for index in (0, 100):
        np.testing.assert_array_equal(
            plain.sample(index, item_rng(0, 0, index)), cached.sample(index, item_rng(0, 0, index))
        )


@needs_musdb
def test_wav_folders(wav_root: Path, stems: dict[str, np.ndarray]) -> None:
    train, valid = load_datasets(
        dataset="musdb", root=wav_root, is_wav=True, target="bass", samples_per_track=2
    )
    assert (len(train), len(valid)) == (2, 1)
    x, y = valid.sample(0, np.random.default_rng(0))
    np.testing.assert_array_equal(x, stems["mixture"])
    np.testing.assert_array_equal(y, stems["bass"])
    assert train.sample(0, np.random.default_rng(0))[0].shape == (2, 6 * 44100)
    with pytest.raises(ConfigError, match=r"is_wav=False looks for .stem.mp4 files"):
        MUSDBDataset(root=wav_root)


@needs_musdb
def test_statistics_use_the_mixtures_that_come_with_the_tracks(
    root: Path, cache: Path, stems: dict[str, np.ndarray]
) -> None:
    train, _ = load_datasets(dataset="musdb", root=root, seq_dur=1.0, cache=cache)
    plain = train.for_statistics()
    assert len(plain) == 2
    np.testing.assert_array_equal(plain.sample(1, np.random.default_rng(0))[0], stems["mixture"])
    mean, std = get_statistics(train, 4096, 1024)
    # Of the two tracks, which are the same; frame by frame, under a periodic Hann window.
    frames = np.lib.stride_tricks.sliding_window_view(stems["mixture"], 4096, axis=1)[:, ::1024]
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(4096) / 4096)
    mags = np.abs(np.fft.rfft(frames * window)).mean(axis=0)
    # A transform in float32 errs by a part of the loudest bin.
    np.testing.assert_allclose(mean, mags.mean(axis=0), rtol=1e-5, atol=1e-6)
    expected = mags.std(axis=0)
    expected = np.maximum(expected, 1e-4 * expected.max())
    np.testing.assert_allclose(std, expected, rtol=1e-5, atol=1e-6)
    # The sum of the sources is another signal.
    total = sum(stems[name] for name in SOURCES)
    assert np.abs(total - stems["mixture"]).max() > 1e-3
    assert len(train) == 128


@needs_musdb
@pytest.mark.parametrize("mode", ["threads", "processes"])
def test_loading(root: Path, cache: Path, mode: str) -> None:
    dataset = MUSDBDataset(
        root=root,
        seq_duration=1.0,
        samples_per_track=4,
        random_track_mix=True,
        source_augmentations=aug_from_str(["gain", "channelswap"]),
        cache=cache,
    )
    loader = Loader(dataset, 4, seed=1, shuffle=True)
    reference = list(loader.epoch(0))
    assert [x.shape for x, _ in reference] == [(4, 2, 44100)] * 2
    with Loader(dataset, 4, seed=1, shuffle=True, workers=2, mode=mode) as other:
        for a, b in zip(reference, other.epoch(0), strict=True):
            np.testing.assert_array_equal(a, b)


@needs_musdb
def test_mistakes(root: Path, wav_root: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="target='vocal' is none of MUSDB18's: vocals, drums"):
        MUSDBDataset("vocal", root)
    with pytest.raises(ConfigError, match="is no folder"):
        MUSDBDataset(root=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"no tracks .* is_wav=False looks for"):
        MUSDBDataset(root=tmp_path)
    with pytest.raises(ConfigError, match=r"no tracks longer than seq_duration=60 s"):
        MUSDBDataset(root=root, seq_duration=60.0)
    with pytest.raises(ConfigError, match="is_wav=True needs root"):
        MUSDBDataset(is_wav=True)
    with pytest.raises(ConfigError, match=r"split='train' needs subsets='train'"):
        MUSDBDataset(root=root, subsets="test")
    shutil.copytree(wav_root, tmp_path / "wav")
    (tmp_path / "wav/train" / TRACK / "bass.wav").unlink()
    with pytest.raises(ConfigError, match=r"Falcon 69.* has no bass"):
        MUSDBDataset(root=tmp_path / "wav", is_wav=True)


@needs_musdb
def test_damaged_stems(excerpt: Path, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    path = tmp_path / "train" / "a.stem.mp4"
    path.write_bytes(b"no sound at all")
    with pytest.raises(AudioError, match=r"a.stem.mp4' has no sound in stream="):
        MUSDBDataset(root=tmp_path)
    shutil.copy(excerpt, path)
    dataset = MUSDBDataset(root=tmp_path, seq_duration=1.0)
    path.write_bytes(excerpt.read_bytes()[:300000])
    with pytest.raises(
        AudioError, match=r"a.stem.mp4' (has no sound in|cannot be decoded.* of) stream"
    ):
        dataset.sample(0, np.random.default_rng(0))


@needs_musdb
@pytest.mark.parametrize(
    "error", [urllib.error.URLError("no route to host"), RuntimeError("Dataset not found.")]
)
def test_without_root_the_excerpts_are_downloaded(
    monkeypatch: pytest.MonkeyPatch, error: Exception, tmp_path: Path
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import musdb
    tried = []

    def download(self: object, *args: object, **kwargs: object) -> None:
        tried.append(self.root)  # type: ignore[attr-defined]
        raise error

    monkeypatch.setattr(musdb.DB, "download", download)
    monkeypatch.delenv("MUSDB_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(DownloadError, match=r"give the root .* MUSDB18-7-STEMS.zip .* unpack it"):
        load_datasets(dataset="musdb")
    assert tried == [str(tmp_path / "MUSDB18/MUSDB18-7")]


@needs_musdb
def test_downloaded_excerpts_are_used(
    monkeypatch: pytest.MonkeyPatch, root: Path, tmp_path: Path
) -> None:
    monkeypatch.delenv("MUSDB_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "MUSDB18").mkdir()
    shutil.copytree(root, tmp_path / "MUSDB18/MUSDB18-7")
    with pytest.raises(DownloadError, match=r"has 3 of the 94 excerpts .* interrupted"):
        load_datasets(dataset="musdb", seq_dur=1.0)
    monkeypatch.setattr("umx_np.data.musdb18.PREVIEW_TRACKS", {"train": 3})
    train, _ = load_datasets(dataset="musdb", seq_dur=1.0)
    assert len(train) == 128


@needs_musdb
def test_the_root_may_be_in_the_environment(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setenv("MUSDB_PATH", str(root))
    train, _ = load_datasets(dataset="musdb", seq_dur=1.0)
    assert Path(train.root) == root  # type: ignore[attr-defined]


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "musdb", None)
    with pytest.raises(ConfigError, match=r'pip install "umx-np\[train\]"'):
        load_datasets(dataset="musdb", root=tmp_path)
