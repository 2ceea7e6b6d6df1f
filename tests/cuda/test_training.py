"""Whole runs on a CUDA device against runs on the processor."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers.asserts import relative_l2
from helpers.cuda_training import backend_on
from training.conftest import RATE, TINY, Tones

from umx_np.cuda.device import Device, Kernel
from umx_np.cuda.training import CudaTrainingBackend
from umx_np.cuda.transform import RealFft
from umx_np.data import FixedSourcesTrackFolderDataset, UnmixDataset, aug_from_str
from umx_np.errors import DeviceError
from umx_np.nn import TrainableNetwork, log_mse_loss, mse_loss
from umx_np.nn.loss import SMALL_ERROR
from umx_np.optim import SGD, Adam
from umx_np.testing import random_state
from umx_np.training import TrainConfig, Trainer, TrainingError
from umx_np.training.checkpoint import read_checkpoint
from umx_np.training.spectra import BatchMagnitudes, DeviceMagnitudes
from umx_np.weights import load_folder

Run = Callable[..., Trainer]

# Without a second layer there is no dropout, of which the card draws its own.
PLAIN: dict[str, Any] = {**TINY, "target": "tone", "nb_layers": 1, "batch_size": 4, "lr": 0.01}


@pytest.fixture
def backend(any_device: Device, monkeypatch: pytest.MonkeyPatch) -> CudaTrainingBackend:
    return backend_on(any_device, monkeypatch)


@pytest.fixture
def run(backend: CudaTrainingBackend, tmp_path: Path) -> Run:
    """``run(name, **settings)``: a finished run with its files in a folder of that name."""

    def make(
        name: str,
        train: UnmixDataset | None = None,
        valid: UnmixDataset | None = None,
        **settings: Any,
    ) -> Trainer:
        values = {**PLAIN, "output": tmp_path / name, **settings}
        train, valid = train or Tones(6), valid or Tones(2)
        trainer = Trainer(TrainConfig(**values), train, valid)
        trainer.fit()
        return trainer

    return make


def losses(trainer: Trainer) -> list[float]:
    record = trainer.record
    return [*record.train_loss_history, *record.valid_loss_history]


class TestRuns:
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"optimizer": "sgd", "lr": 1e-3, "momentum": 0.9},
            {"weight_decay": 0.01, "lr_schedule": "cosine"},
            {"clip_grad_norm": 0.1, "nb_channels": 1, "unidirectional": True},
            {"loss": "log-mse", "seq_dur": 0.2},
        ],
        ids=str,
    )
    def test_losses_are_those_of_the_processor(self, run: Run, settings: dict[str, Any]) -> None:
        expected = run("processor", **settings)
        actual = run("card", device="cuda", **settings)
        np.testing.assert_allclose(losses(actual), losses(expected), rtol=1e-4)

    def test_decoupled_weight_decay(self, run: Run) -> None:
        """The gradient of the input mean is 0, as the batch norm takes any mean away.

        Processors have rounding errors in its place, which Adam makes as large as any gradient, and
        running statistics follow late.
        """
        settings = {"optimizer": "adamw", "weight_decay": 0.01}
        expected, actual = run("processor", **settings), run("card", device="cuda", **settings)
        np.testing.assert_allclose(losses(actual)[:2], losses(expected)[:2], rtol=1e-4)
        np.testing.assert_allclose(losses(actual)[2:], losses(expected)[2:], rtol=1e-2)

    def test_three_layers_with_dropout(self, run: Run) -> None:
        trainer = run("card", device="cuda", nb_layers=3, epochs=6, lr=0.02)
        record = trainer.record
        assert record.train_loss_history[-1] < 0.7 * record.train_loss_history[0]
        again = run("again", device="cuda", nb_layers=3, epochs=6, lr=0.02)
        assert losses(again) == losses(trainer)

    @pytest.mark.parametrize("loss", ["mse", "log-mse"])
    def test_whole_tracks(self, run: Run, loss: str) -> None:
        settings = {"seq_dur": 0.0, "epochs": 1, "loss": loss}
        expected = run("processor", **settings)
        actual = run("card", device="cuda", **settings)
        np.testing.assert_allclose(losses(actual), losses(expected), rtol=1e-4)

    def test_files_are_those_of_the_processor(self, run: Run, tmp_path: Path) -> None:
        run("processor", safetensors=True)
        run("card", safetensors=True, device="cuda")
        folders = [tmp_path / name for name in ("processor", "card")]
        assert len({tuple(sorted(p.name for p in folder.iterdir())) for folder in folders}) == 1
        trees = [read_checkpoint(folder / "tone.chkpnt") for folder in folders]
        assert trees[0].keys() == trees[1].keys()
        for part in ("network", "optimizer"):
            arrays = [tree[part] for tree in trees]
            assert list(arrays[0]) == list(arrays[1])
            for name, array in arrays[0].items():
                assert arrays[1][name].dtype == array.dtype
                assert arrays[1][name].shape == array.shape
        results = [json.loads((folder / "tone.json").read_text()) for folder in folders]
        assert results[0].keys() == results[1].keys()
        weights = [load_folder(folder).targets["tone"] for folder in folders]
        assert weights[0].config == weights[1].config
        for name, array in weights[0].state.items():
            assert relative_l2(weights[1].state[name], array) < 0.01, name


class TestContinuing:
    @pytest.mark.parametrize("devices", [("cuda", "reference"), ("reference", "cuda")], ids=str)
    def test_elsewhere(self, run: Run, tmp_path: Path, devices: tuple[str, str]) -> None:
        straight = run("straight", epochs=3)
        run("parts", epochs=1, device=devices[0])
        last = run("parts", epochs=3, device=devices[1], checkpoint=str(tmp_path / "parts"))
        np.testing.assert_allclose(losses(last), losses(straight), rtol=1e-3)

    def test_in_the_middle_of_an_epoch_bit_for_bit(
        self, backend: CudaTrainingBackend, run: Run, tmp_path: Path
    ) -> None:
        settings = {"device": "cuda", "nb_layers": 2, "epochs": 2, "batch_size": 2}
        straight = run("straight", **settings)
        values = {**PLAIN, **settings, "output": tmp_path / "parts"}
        stopped = Trainer(TrainConfig(**values), Tones(6), Tones(2))
        train_batch, count = stopped._train_batch, 0

        def counted(x: Any, y: Any) -> float:
            nonlocal count
            count += 1
            if count == 4:
                stopped.stop()
            return train_batch(x, y)

        stopped._train_batch = counted  # type: ignore[method-assign]
        assert stopped.fit().reason == "stopped"
        assert stopped.record.batch == 1
        going_on = run("parts", **settings, checkpoint=str(tmp_path / "parts"))
        assert losses(going_on) == losses(straight)
        for name, array in straight.network.state_dict().items():
            np.testing.assert_array_equal(going_on.network.state_dict()[name], array)


@pytest.fixture
def tracks(tmp_path: Path) -> Path:
    rng = np.random.default_rng(7)
    for split, count in (("train", 3), ("valid", 1)):
        for track in range(count):
            folder = tmp_path / "data" / split / str(track)
            folder.mkdir(parents=True)
            for name in ("vocals", "drums"):
                sound = 0.1 * rng.standard_normal((RATE // 4, 2))
                soundfile.write(folder / f"{name}.wav", sound, RATE)
    return tmp_path / "data"


def test_data_on_the_card(run: Run, tracks: Path) -> None:
    """Mixed there, copied there, or never there: the losses are the same."""

    def dataset(split: str, **settings: Any) -> UnmixDataset:
        return FixedSourcesTrackFolderDataset(
            tracks, split, "vocals.wav", ["drums.wav"], **settings
        )

    def trained(name: str, **settings: Any) -> list[float]:
        train = dataset(
            "train",
            seq_duration=0.1,
            random_chunks=True,
            random_track_mix=True,
            samples_per_track=2,
            source_augmentations=aug_from_str(["gain", "channelswap"]),
        )
        return losses(run(name, train, dataset("valid"), target="vocals", seq_dur=0.1, **settings))

    expected = trained("processor")
    np.testing.assert_allclose(trained("a", device="cuda", resident="yes"), expected, rtol=1e-4)
    copied = trained("b", device="cuda", resident="no", nb_workers=2)
    np.testing.assert_allclose(copied, expected, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of the emulator's products
class TestDivergence:
    def test_the_loss(self, run: Run) -> None:
        with pytest.raises(
            TrainingError, match=r"(?s)the loss of batch \d is (nan|inf).*tone \d, tone"
        ):
            run("card", device="cuda", optimizer="sgd", lr=1e30, epochs=5)

    def test_parameters_stay_as_they_were(
        self, backend: CudaTrainingBackend, tmp_path: Path
    ) -> None:
        class Loud(Tones):
            def sample(self, index: int, rng: np.random.Generator) -> Any:
                x, y = super().sample(index, rng)
                return (x * np.float32(1e30), y * np.float32(1e30))

        values = {**PLAIN, "device": "cuda", "output": tmp_path / "out", "statistics": False}
        for settings in ({}, {"clip_grad_norm": 1.0}):
            config = TrainConfig(**{**values, **settings}, overwrite=True)
            trainer = Trainer(config, Loud(4), Tones(2))
            with pytest.raises(TrainingError, match="the loss of batch 1"):
                trainer.fit()
            config = trainer.model_config
            for name, array in trainer.network.state_dict().items():
                assert np.isfinite(array).all() or "running" in name, name

    def test_the_gradient(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        backward = TrainableNetwork.backward

        def spoiled(self: TrainableNetwork, d_y: Any, cache: Any) -> Any:
            gradients = backward(self, d_y, cache)
            gradients["fc2.weight"][0, 0] = math.inf
            return gradients

        monkeypatch.setattr(TrainableNetwork, "backward", spoiled)
        with pytest.raises(TrainingError, match="the gradient of batch 1 is inf"):
            run("card", device="cuda", clip_grad_norm=1.0)

    def test_too_little_memory(
        self, backend: CudaTrainingBackend, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*arguments: Any, **settings: Any) -> None:
            raise backend.device.out_of_memory(1, 2)

        monkeypatch.setattr(CudaTrainingBackend, "squared_error", full)
        with pytest.raises(DeviceError, match="too little memory for a batch of 4"):
            run("card", device="cuda")


def test_launches_of_a_step(
    emulated_device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each takes the host some microseconds, of a step that takes the card milliseconds."""
    backend_on(emulated_device, monkeypatch)
    counts: Counter[str] = Counter()

    def counted(owner: Any, name: str, what: str) -> None:
        original = getattr(owner, name)

        def wrapper(*arguments: Any, **settings: Any) -> Any:
            counts[what] += 1
            return original(*arguments, **settings)

        monkeypatch.setattr(owner, name, wrapper)

    counted(Kernel, "__call__", "kernels")
    counted(Device, "gemm", "products")
    counted(RealFft, "forward", "transforms")
    values = {**PLAIN, "device": "cuda", "nb_layers": 3, "epochs": 1, "clip_grad_norm": 5.0}
    trainer = Trainer(TrainConfig(**values, output=tmp_path / "out"), Tones(4), Tones(1))
    trainer._validate = lambda: 1.0  # type: ignore[method-assign]
    trainer._check_validation = lambda: None  # type: ignore[method-assign]
    trainer.fit()
    assert counts == {
        "kernels": 35,
        "products": 23,
        "transforms": 2,
    }


class TestParts:
    @pytest.mark.parametrize("nb_channels", [1, 2])
    @pytest.mark.parametrize("nb_bytes", [1 << 28, 1 << 16])
    def test_magnitudes(
        self,
        backend: CudaTrainingBackend,
        monkeypatch: pytest.MonkeyPatch,
        nb_channels: int,
        nb_bytes: int,
    ) -> None:
        """All frames at once, or some at a time."""
        monkeypatch.setattr("umx_np.cuda.training._TRANSFORM_BYTES", nb_bytes)
        audio = np.random.default_rng(0).standard_normal((3, 2, 1500), np.float32)
        expected = BatchMagnitudes(256, 64, nb_channels, _cpu())(audio)
        actual = DeviceMagnitudes(256, 64, nb_channels, backend)(audio).get()
        assert actual.shape == expected.shape
        assert relative_l2(actual, expected) < 1e-6

    @pytest.mark.parametrize("shape", [(5, 3, 2, 17), (9, 1, 1, 4100)], ids=str)
    def test_losses(self, backend: CudaTrainingBackend, shape: tuple[int, ...]) -> None:
        rng = np.random.default_rng(0)
        y, target, mixture = rng.random((3, *shape)).astype(np.float32)
        mixture[:, 0] *= 10.0
        on_card = [backend.xp.asarray(array) for array in (y, target, mixture)]
        loss, d_y = mse_loss(y, target)
        found = backend.squared_error(*on_card[:2], out=on_card[0])
        assert found.reading.value() == pytest.approx(loss, rel=1e-6)
        assert relative_l2(on_card[0].get(), d_y) < 1e-6
        on_card[0] = backend.xp.asarray(y)
        loss, d_y = log_mse_loss(y, target, mixture)
        found = backend.log_squared_error(*on_card, small=SMALL_ERROR, out=on_card[0])
        assert found.reading.value() == pytest.approx(loss, rel=1e-6)
        assert relative_l2(on_card[0].get(), d_y) < 1e-6
        assert float(found.go.get()[0]) == 1.0

    def test_silence_in_the_logarithmic_loss(self, backend: CudaTrainingBackend) -> None:
        rng = np.random.default_rng(0)
        y, target, mixture = rng.random((3, 4, 2, 2, 5)).astype(np.float32)
        mixture[:, 1] = 0.0
        loss, d_y = log_mse_loss(y, target, mixture)
        on_card = [backend.xp.asarray(array) for array in (y, target, mixture)]
        found = backend.log_squared_error(*on_card, small=SMALL_ERROR, out=on_card[0])
        assert found.reading.value() == pytest.approx(loss, rel=1e-6)
        np.testing.assert_allclose(on_card[0].get(), d_y, rtol=1e-5)

    @pytest.mark.parametrize("kind", [Adam, SGD])
    def test_ten_steps_of_a_network(self, backend: CudaTrainingBackend, kind: Any) -> None:
        """Losses and parameters of a loop of one's own."""
        config = TrainConfig(**{**PLAIN, "device": "cpu"}).model_config(RATE)
        rng = np.random.default_rng(0)
        batches = rng.random((10, 2, 6, 2, 2, config.nb_bins)).astype(np.float32)
        found = []
        for name in ("reference", "cuda"):
            network = TrainableNetwork(config, random_state(config, seed=1), backend=name)
            optimizer = kind(network.parameters, 1e-3, backend=name)
            history = []
            for mixture, target in batches:
                y, cache = network.forward(mixture)
                if name == "cuda":
                    loss = backend.squared_error(y, backend.xp.asarray(target), out=y)
                    history.append(loss.reading.value())
                    d_y = y
                else:
                    value, d_y = mse_loss(y, target)
                    history.append(value)
                optimizer.step(network.backward(d_y, cache))
            found.append((history, network.state_dict()))
        np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-4)
        for name, array in found[0][1].items():
            # Its gradient is rounding, which Adam makes large, and bn1 takes the mean away.
            if name not in ("input_mean", "bn1.running_mean"):
                assert relative_l2(found[1][1][name], array) < 1e-4, name


def _cpu() -> Any:
    from umx_np.devices import get_backend

    return get_backend("cpu")
