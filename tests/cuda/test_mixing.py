"""Batches that the card mixes from clips in its memory, or that are copied to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers.cuda_training import backend_on

from umx_np.config import ModelConfig
from umx_np.cuda.device import Device
from umx_np.cuda.training import CudaTrainingBackend
from umx_np.data import (
    DataError,
    FixedSourcesTrackFolderDataset,
    Loader,
    UnmixDataset,
    VariableSourcesTrackFolderDataset,
    aug_from_str,
)
from umx_np.errors import ConfigError, DeviceError
from umx_np.training import TrainConfig
from umx_np.training.batches import (
    ResidentBatches,
    UploadedBatches,
    device_batches,
    memory_of_training,
)

RATE = 1000
NAMES = ("vocals", "bass", "drums")


@pytest.fixture
def backend(any_device: Device, monkeypatch: pytest.MonkeyPatch) -> CudaTrainingBackend:
    return backend_on(any_device, monkeypatch)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write(tmp_path / "data")


def write(root: Path, nb_channels: int = 2, subtype: str = "PCM_16") -> Path:
    """Tracks of different lengths, full of noise."""
    rng = np.random.default_rng(0)
    for track in range(4):
        folder = root / "train" / f"{track}"
        folder.mkdir(parents=True)
        for name in NAMES:
            samples = 0.2 * rng.standard_normal((700 + 50 * track, nb_channels))
            soundfile.write(folder / f"{name}.wav", samples, RATE, subtype=subtype)
    return root


def dataset_in(root: Path, **settings: Any) -> FixedSourcesTrackFolderDataset:
    names = [f"{name}.wav" for name in NAMES]
    values = {"seq_duration": 0.3, "random_chunks": True, **settings}
    return FixedSourcesTrackFolderDataset(
        root, target_file=names[0], interferer_files=names[1:], **values
    )


AUGMENTED = {"source_augmentations": aug_from_str(["gain", "channelswap", "polarity", "width"])}
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "augmented": AUGMENTED,
    "mixed": {"random_track_mix": True, "samples_per_track": 2, **AUGMENTED},
    "brought to a level": {"random_track_mix": True, "mix_level": (-30.0, -10.0), **AUGMENTED},
}


def compare(batches: Any, loader: Loader, epoch: int, start_batch: int = 0) -> None:
    found = [(x.get(), y.get()) for x, y in batches.epoch(epoch, start_batch=start_batch)]
    expected = list(loader.epoch(epoch, start_batch))
    assert len(found) == len(expected)
    for (x, y), (expected_x, expected_y) in zip(found, expected, strict=True):
        np.testing.assert_allclose(x, expected_x, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(y, expected_y, rtol=1e-5, atol=1e-6)


class TestResident:
    @pytest.mark.parametrize("name", SETTINGS)
    def test_batches_are_those_of_the_loader(
        self, backend: CudaTrainingBackend, root: Path, name: str
    ) -> None:
        loader = Loader(dataset_in(root, **SETTINGS[name]), 3, seed=7, shuffle=True)
        batches = ResidentBatches(loader, loader.dataset, backend)
        nb_samples = 2 * 3 * sum(700 + 50 * track for track in range(4))
        assert batches.nb_bytes == 2 * nb_samples  # 16 bits each
        compare(batches, loader, 0)
        compare(batches, loader, 1, start_batch=1)

    def test_from_a_cache(self, backend: CudaTrainingBackend, root: Path, tmp_path: Path) -> None:
        loader = Loader(dataset_in(root, cache=tmp_path / "cache"), 2, seed=7, shuffle=True)
        compare(ResidentBatches(loader, loader.dataset, backend), loader, 0)

    @pytest.mark.parametrize("cached", [False, True])
    def test_more_than_16_bits(
        self, backend: CudaTrainingBackend, tmp_path: Path, cached: bool
    ) -> None:
        root = write(tmp_path / "data", subtype="PCM_24")
        first = root / "train" / "0" / "bass.wav"
        samples, _ = soundfile.read(first)
        soundfile.write(first, samples, RATE, subtype="PCM_16")
        cache = tmp_path / "cache" if cached else None
        loader = Loader(dataset_in(root, cache=cache), 2, seed=7, shuffle=True)
        batches = ResidentBatches(loader, loader.dataset, backend)
        assert batches.nb_bytes == 4 * 2 * 3 * sum(700 + 50 * track for track in range(4))
        compare(batches, loader, 0)

    def test_mono_made_stereo(self, backend: CudaTrainingBackend, tmp_path: Path) -> None:
        root = write(tmp_path / "data", nb_channels=1)
        augmentations = aug_from_str(["force_stereo", "gain"])
        loader = Loader(
            dataset_in(root, source_augmentations=augmentations), 2, seed=7, shuffle=True
        )
        compare(ResidentBatches(loader, loader.dataset, backend), loader, 0)

    def test_silence_stays_silence(self, backend: CudaTrainingBackend, tmp_path: Path) -> None:
        root = tmp_path / "data"
        folder = root / "train" / "0"
        folder.mkdir(parents=True)
        for name in NAMES:
            soundfile.write(folder / f"{name}.wav", np.zeros((500, 2)), RATE)
        loader = Loader(dataset_in(root, mix_level=(-20.0, -20.0)), 1, seed=7, shuffle=True)
        compare(ResidentBatches(loader, loader.dataset, backend), loader, 0)

    def test_what_is_no_number_is_named(
        self, backend: CudaTrainingBackend, root: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        dataset = dataset_in(root)
        read_all = dataset.files.read_all

        def broken(clip: Any) -> np.ndarray:
            samples = read_all(clip).astype(np.float32)
            samples[1, 5] = np.nan
            return samples

        monkeypatch.setattr(dataset.files, "read_all", broken)
        loader = Loader(dataset, 2, seed=7, shuffle=True)
        with pytest.raises(DataError, match=r"bass\.wav holds NaN"):
            ResidentBatches(loader, dataset, backend)


def test_too_little_memory_is_explained(
    backend: CudaTrainingBackend, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise backend.device.out_of_memory("full")

    loader = Loader(dataset_in(root), 2, seed=7, shuffle=True)
    resident = ResidentBatches(loader, loader.dataset, backend)
    monkeypatch.setattr(resident._store, "mix", full)
    monkeypatch.setattr(backend.device, "pinned", full)
    for batches in (resident, UploadedBatches(loader, backend)):
        with pytest.raises(DeviceError, match=r"too little memory for a batch .*resident='no'"):
            next(batches.epoch(0))


class Numbered(UnmixDataset):
    """Items of one number each, of lengths that differ."""

    def __init__(self, nb_items: int, broken: int = -1) -> None:
        self.nb_items, self.broken = nb_items, broken

    def __len__(self) -> int:
        return self.nb_items

    def sample(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if index == self.broken:
            raise ValueError("broken")
        x = np.full((2, 10 + 7 * (index % 3)), index, np.float32)
        return x, -x


class TestUploaded:
    @pytest.mark.parametrize("workers", [0, 2])
    @pytest.mark.parametrize("nb_items", [1, 2, 3, 8])
    def test_batches_are_those_of_the_loader(
        self, backend: CudaTrainingBackend, nb_items: int, workers: int
    ) -> None:
        with Loader(Numbered(nb_items), 1, seed=0, shuffle=True, workers=workers) as loader:
            batches = UploadedBatches(loader, backend)
            for epoch in range(2):
                compare(batches, loader, epoch)
            compare(batches, loader, 0, start_batch=nb_items - 1)

    def test_errors_come_through(self, backend: CudaTrainingBackend) -> None:
        loader = Loader(Numbered(5, broken=3), 1, seed=0, shuffle=False)
        batches = UploadedBatches(loader, backend).epoch(0)
        found = [float(next(batches)[0].get()[0, 0, 0]) for _ in range(3)]
        assert found == [0.0, 1.0, 2.0]
        with pytest.raises(DataError, match="item 3"):
            next(batches)

    def test_left_early(self, backend: CudaTrainingBackend) -> None:
        with Loader(Numbered(9), 1, seed=0, shuffle=False, workers=2) as loader:
            batches = UploadedBatches(loader, backend).epoch(0)
            next(batches)
            batches.close()
            with pytest.raises(StopIteration):
                next(batches)


MODEL = ModelConfig(nb_bins=129, hidden_size=8)
CONFIG: dict[str, Any] = {"n_fft": 256, "n_hop": 64, "seq_dur": 0.3, "hidden_size": 8}


class TestChoice:
    def choose(
        self, backend: CudaTrainingBackend, dataset: UnmixDataset, resident: str = "auto"
    ) -> Any:
        config = TrainConfig(device="cuda", resident=resident, **CONFIG)
        loader = Loader(dataset, 2, seed=0, shuffle=True)
        return device_batches(config, MODEL, loader, backend)

    def test_if_it_fits(
        self, backend: CudaTrainingBackend, root: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level("INFO", logger="umx_np"):
            assert isinstance(self.choose(backend, dataset_in(root)), ResidentBatches)
        assert "stays on the device: 0.00 GB" in caplog.text
        assert isinstance(self.choose(backend, dataset_in(root), "no"), UploadedBatches)

    def test_if_it_does_not_fit(
        self,
        backend: CudaTrainingBackend,
        root: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        needed = memory_of_training(TrainConfig(device="cuda", **CONFIG), MODEL, float(RATE))
        monkeypatch.setattr(backend.device, "free_memory", lambda: needed + 1000)
        with caplog.at_level("INFO", logger="umx_np"):
            assert isinstance(self.choose(backend, dataset_in(root)), UploadedBatches)
        assert "the processor makes the batches: the training data takes" in caplog.text
        with pytest.raises(DeviceError, match="free on the device"):
            self.choose(backend, dataset_in(root), "yes")

    def test_if_it_only_fits_with_16_bits(
        self,
        backend: CudaTrainingBackend,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        dataset = dataset_in(write(tmp_path / "data", subtype="PCM_24"))
        reserved = memory_of_training(TrainConfig(device="cuda", **CONFIG), MODEL, float(RATE))
        nb_samples = 2 * 3 * sum(700 + 50 * track for track in range(4))
        free = reserved + 4 * nb_samples
        monkeypatch.setattr(backend.device, "free_memory", lambda: free)
        assert isinstance(self.choose(backend, dataset), ResidentBatches)
        free -= 1
        with caplog.at_level("INFO", logger="umx_np"):
            assert isinstance(self.choose(backend, dataset), UploadedBatches)
        assert "the processor makes the batches: the training data takes" in caplog.text
        with pytest.raises(DeviceError, match=r"does not fit on the device: .* free on the device"):
            self.choose(backend, dataset, "yes")

    def test_if_there_are_no_plans(self, backend: CudaTrainingBackend, root: Path) -> None:
        dataset = VariableSourcesTrackFolderDataset(
            root, target_file="vocals.wav", seq_duration=0.3
        )
        assert isinstance(self.choose(backend, dataset), UploadedBatches)
        with pytest.raises(ConfigError, match="VariableSourcesTrackFolderDataset does not plan"):
            self.choose(backend, dataset, "yes")
        with pytest.raises(ConfigError, match="whole tracks"):
            self.choose(backend, dataset_in(root, seq_duration=None), "yes")

    def test_memory_of_the_default_network(self) -> None:
        """What docs/training.md says."""
        model = TrainConfig(device="cpu").model_config(44100.0)
        config = TrainConfig(device="cpu")
        assert memory_of_training(config, model, 44100.0) == pytest.approx(4.0e9, rel=0.5)
