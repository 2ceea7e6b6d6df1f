"""All networks of a model trained together, on what the Wiener filter makes of them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from helpers.runs import assert_same_results

import umx_np
from umx_np.config import ModelConfig
from umx_np.data import StemsDataset
from umx_np.errors import ConfigError, DataError, TrainingError
from umx_np.testing import random_bundle_of
from umx_np.training import JointConfig, JointTrainer, joint, waveform_loss
from umx_np.training.checkpoint import read_checkpoint
from umx_np.training.joint import FLOOR
from umx_np.weights import save_folder

from .conftest import RATE, rates_of

STEMS = ("vocals", "drums", "bass")
# Of an excerpt.
SECONDS = 0.25
TINY: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 2,
    "seq_dur": SECONDS,
    "lr": 1e-3,
    "device": "reference",
    "checkpoint_every": "0",
    "plot": False,
}
MakeJoint = Callable[..., JointTrainer]


class PowerCutError(Exception):
    """The end of a process that had no time to save anything."""


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five songs to learn from and two others, of a tone in an octave of its own for each stem."""
    root = tmp_path_factory.mktemp("songs")
    time = np.arange(RATE) / RATE
    for split, count in (("train", 5), ("valid", 2)):
        for song in range(count):
            folder = root / split / f"{song:05d}"
            folder.mkdir(parents=True)
            for place, name in enumerate(STEMS):
                tone = 0.2 * np.sin(2 * np.pi * 110.0 * 4**place * (1 + 0.1 * song) * time)
                soundfile.write(folder / f"{name}.wav", np.stack([tone, 0.5 * tone], 1), RATE)
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model with random weights."""
    config = ModelConfig(nb_bins=129, hidden_size=8, nb_layers=1, max_bin=97)
    bundle = random_bundle_of(config, STEMS, sample_rate=float(RATE))
    folder = tmp_path_factory.mktemp("model")
    save_folder(replace(bundle, license="CC0", input_level=-16.0), folder, "safetensors")
    return folder


def datasets(songs: Path, **options: Any) -> tuple[StemsDataset, StemsDataset]:
    return (
        StemsDataset(songs, STEMS, SECONDS, faders=2.0, swap_sides=True, **options),
        StemsDataset(songs, STEMS, SECONDS, split="valid", samples_per_track=2),
    )


@pytest.fixture
def make(songs: Path, model: Path, tmp_path: Path) -> MakeJoint:
    """``make(**settings)``: a trainer whose files are in ``tmp_path / "out"``."""

    def make_one(options: dict[str, Any] | None = None, **settings: Any) -> JointTrainer:
        begin = {} if "checkpoint" in settings else {"model": model}
        values = {**TINY, "output": tmp_path / "out", **begin, **settings}
        return JointTrainer(JointConfig(**values), *datasets(songs), **(options or {}))

    return make_one


def assert_same_run(actual: Path, desired: Path) -> None:
    """Compare two runs to the bit: what goes on, the best weights, and the histories."""
    one, two = (read_checkpoint(folder / "joint.chkpnt") for folder in (actual, desired))
    for key in ("networks", "optimizer"):
        assert_same_tree(one[key], two[key])
    assert one["separator"] == two["separator"]
    for target in STEMS:
        name = f"{target}.pth"
        assert (actual / name).read_bytes() == (desired / name).read_bytes()
        assert_same_results(actual / f"{target}.json", desired / f"{target}.json")


def assert_same_tree(one: Any, two: Any) -> None:
    if not isinstance(two, dict):
        np.testing.assert_array_equal(one, two)
        return
    assert set(one) == set(two)
    for key in two:
        assert_same_tree(one[key], two[key])


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_training_helps_and_leaves_a_model(make, model, tmp_path, device):
    if device == "cpu":
        pytest.importorskip("numba")
    reports = []
    trainer = make({"on_epoch": reports.append}, epochs=8, lr=0.02, device=device, threads=1)
    result = trainer.fit()
    assert result.reason == "epochs"
    assert result.train_losses[-1] < result.train_losses[0] - 1.0
    assert result.valid_losses[-1] < result.valid_losses[0]
    assert result.best_loss == min(report.valid_loss for report in reports)
    # What is in the folder separates.
    before, after = umx_np.load_model(model), umx_np.load_model(tmp_path / "out")
    assert tuple(after.targets) == STEMS
    assert (after.n_fft, after.n_hop, after.sample_rate) == (256, 64, RATE)
    assert (after.license, after.input_level) == ("CC0", -16.0)
    for name, weights in after.targets.items():
        assert weights.config == before.targets[name].config
        assert not np.array_equal(
            weights.state["fc1.weight"], before.targets[name].state["fc1.weight"]
        )
        document = json.loads((tmp_path / "out" / f"{name}.json").read_text())
        assert document["args"]["target"] == name
        assert document["args"]["hidden_size"] == 8
        assert document["epochs_trained"] == 8
        assert document["valid_loss_history"] == list(result.valid_losses)
    audio = np.random.default_rng(0).standard_normal((1, 2, RATE)).astype(np.float32)
    assert umx_np.Separator.from_bundle(after, niter=1)(audio).shape == (1, 3, 2, RATE)


def test_files_of_a_run(make, tmp_path):
    make(epochs=1, safetensors=True, plot=True).fit()
    weights = {f"{name}{suffix}" for name in STEMS for suffix in (".pth", ".json", ".safetensors")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == weights | {
        *("joint.chkpnt", "joint.png", "separator.json")
    }


@pytest.mark.parametrize("device", ["reference", "cpu"])
@pytest.mark.parametrize("nb_steps", [1, 4])
def test_a_run_that_was_killed_goes_on_as_if_it_was_not(make, tmp_path, device, nb_steps):
    """Killed in the first epoch and in the second, and going on from the last batch saved."""
    if device == "cpu":
        pytest.importorskip("numba")
    settings = {"device": device, "threads": 1, "warmup": 2, "epochs": 2}
    make(output=tmp_path / "whole", **settings).fit()
    killed = make(checkpoint_every="1", **settings)
    train_batch, steps = killed._train_batch, iter(range(nb_steps + 1))

    def counted(x, y):
        if next(steps, None) is None:
            raise PowerCutError
        return train_batch(x, y)

    killed._train_batch = counted
    with pytest.raises(PowerCutError):
        killed.fit()
    done = read_checkpoint(tmp_path / "out" / "joint.chkpnt")["record"]
    assert (done["epoch"] - 1) * 3 + done["batch"] == nb_steps + 1
    make(checkpoint=tmp_path / "out", **settings).fit()
    assert_same_run(tmp_path / "out", tmp_path / "whole")


@pytest.mark.slow
def test_stopped_and_continued(make, tmp_path):
    make(output=tmp_path / "whole").fit()
    trainer = make({"on_epoch": lambda report: trainer.stop()})
    assert trainer.fit().reason == "stopped"
    result = make(checkpoint=tmp_path / "out").fit()
    assert result.epochs_trained == 2
    assert_same_run(tmp_path / "out", tmp_path / "whole")
    # In another folder, which gets the best weights.
    make(checkpoint=tmp_path / "out", output=tmp_path / "copy", epochs=2).fit()
    assert (tmp_path / "copy" / "bass.pth").read_bytes() == (
        tmp_path / "whole" / "bass.pth"
    ).read_bytes()


def test_what_changes_is_said(make, tmp_path, caplog):
    make(epochs=1).fit()
    with caplog.at_level(logging.WARNING):
        make(checkpoint=tmp_path / "out", niter=0, dropout=0.1, batch_size=3, lr=2e-3).fit()
    assert "niter changes from 1 to 0" in caplog.text
    assert "dropout changes from 0.4 to 0.1" in caplog.text
    assert "batch_size changed" in caplog.text
    with pytest.raises(ConfigError, match="optimizer='adam', not 'sgd'"):
        make(checkpoint=tmp_path / "out", optimizer="sgd").fit()


@pytest.mark.slow
def test_frozen_norms_train_what_separates(make, songs, monkeypatch):
    monkeypatch.setattr(joint, "FRAME", SECONDS / 5)  # five frames in an excerpt
    trainer = make(frozen_norms=True, epochs=6, batch_size=3, lr=0.02)
    first: list[Any] = []
    train_batch = trainer._train_batch

    def spied(x, y):
        before = trainer.bundle()
        loss = train_batch(x, y)
        first.append((before, x, loss))
        return loss

    trainer._train_batch = spied
    result = trainer.fit()
    # Nothing is dropped: the loss is that of the separator itself.
    before, x, loss = first[0]
    before = replace(before, input_level=None)
    truth = x.reshape(3, len(STEMS), 2, -1)
    separator = umx_np.Separator.from_bundle(before, niter=1, wiener_win_len=300)
    separated = separator(truth.sum(axis=1))
    assert loss == pytest.approx(waveform_loss(separated, truth, RATE // 20)[0], abs=1e-3)
    assert result.train_losses[-1] < result.train_losses[0] - 0.5
    for name, weights in trainer.bundle().targets.items():
        for key, array in weights.state.items():
            is_statistic = "running" in key or "num_batches" in key
            assert np.array_equal(array, before.targets[name].state[key]) == is_statistic, key


def test_validation_is_what_separates(make, songs):
    trainer = make(epochs=1)
    result = trainer.fit()
    assert len(trainer.valid_dataset) == 4
    bundle = replace(trainer.bundle(), input_level=None)
    separator = umx_np.Separator.from_bundle(bundle, niter=1, wiener_win_len=300)
    losses = []
    for x, _ in trainer._valid_loader.epoch(0):
        truth = x.reshape(len(x), len(STEMS), 2, -1)
        losses.append(waveform_loss(separator(truth.sum(axis=1)), truth, RATE)[0])
    assert result.valid_losses == pytest.approx([np.mean(losses)], abs=1e-3)
    assert trainer._validate() == result.valid_losses[0]


@pytest.mark.slow
def test_the_rate_rises_and_falls(make):
    trainer = make(epochs=10, warmup=9, lr=1e-3)
    rates = rates_of(trainer)
    trainer.fit()
    assert len(rates) == 30
    assert rates[0] == pytest.approx(1e-4)
    assert int(np.argmax(rates)) == 9
    assert np.all(np.diff(rates[9:]) < 0)
    assert 0 < rates[-1] < 0.01 * 1e-3


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"warmup": -1},
        {"niter": -1},
        {"lr": -1.0},
        {"seq_dur": 0.0},
        {"dropout": 1.0},
        {"threads": 0},
        {"loss": "mse"},
        {"model": None},
        {"warmup": 1, "lr_schedule": "plateau"},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}="):
        JointConfig(**{"model": "umxhq", **wrong})


def test_model_and_data_must_fit(make, songs, model, tmp_path):
    trainer = make()
    trainer.train_dataset.sample_rate = trainer.valid_dataset.sample_rate = 16000.0
    with pytest.raises(ConfigError, match="works at 8000 Hz, the data is at 16000 Hz"):
        trainer.fit()
    train, _ = datasets(songs)
    other = StemsDataset(songs, STEMS[::-1], SECONDS, split="valid")
    config = JointConfig(**TINY, model=str(model), output=str(tmp_path / "out"))
    with pytest.raises(ConfigError, match="training set has the targets vocals, drums, bass"):
        JointTrainer(config, train, other)
    make(epochs=1).fit()
    two = [StemsDataset(songs, STEMS[:2], SECONDS, split=split) for split in ("train", "valid")]
    with pytest.raises(ConfigError, match="has the targets vocals, drums, bass, the data vocals"):
        JointTrainer(config.with_(model=None, checkpoint=config.output, lr=2e-3), *two).fit()


def test_other_runs_are_left_alone(make, tmp_path):
    make(epochs=1).fit()
    with pytest.raises(TrainingError, match=r"joint\.chkpnt belongs to an earlier run"):
        make().fit()
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "drums.chkpnt").touch()
    with pytest.raises(TrainingError, match=r"drums\.chkpnt belongs to an earlier run"):
        make(output=tmp_path / "alone").fit()
    before = (tmp_path / "out" / "drums.pth").read_bytes()
    make(epochs=1, overwrite=True, seed=7).fit()
    assert (tmp_path / "out" / "drums.pth").read_bytes() != before
    assert not list((tmp_path / "out").glob(".*"))


def test_two_runs_at_the_same_time(make, tmp_path):
    refused = []

    def try_another(_):
        with pytest.raises(TrainingError, match="another run trains target='joint'"):
            make(checkpoint=tmp_path / "out").fit()
        refused.append(True)

    make({"on_epoch": try_another}, epochs=1).fit()
    assert refused == [True]


def test_mono_songs_for_stereo_networks(make, songs, tmp_path):
    for split in ("train", "valid"):
        folder = tmp_path / "mono" / split / "a"
        folder.mkdir(parents=True)
        for name in STEMS:
            soundfile.write(folder / f"{name}.wav", 0.1 * np.ones(RATE), RATE)
    trainer = make(batch_size=1)
    data = [
        StemsDataset(tmp_path / "mono", STEMS, SECONDS, split=split) for split in ("train", "valid")
    ]
    with pytest.raises(DataError, match=r"validation, .*a: .*need 2 channels"):
        JointTrainer(trainer.config, *data).fit()


def test_a_loss_that_is_no_number(make, tmp_path):
    trainer = make(lr=1e30, epochs=3, warmup=0)
    with pytest.raises(TrainingError, match="epoch 1"):
        trainer.fit()


@pytest.mark.parametrize(
    ("min_frame", "expected"),
    [(1000, [50]), (50, [50]), (26, [50]), (25, [25] * 2), (16, [25] * 2), (7, [10] * 5)],
)
def test_loss_against_finite_differences(min_frame, expected):
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((2, 3, 2, 50))
    truth[0, 1] = 0.0
    stems = truth + 0.3 * rng.standard_normal(truth.shape)
    loss, gradient = waveform_loss(stems, truth, min_frame)
    ends = np.cumsum(expected)
    assert ends[-1] == 50
    levels = []
    for start, end in zip(ends - expected, ends, strict=True):
        frame = np.s_[..., start:end]
        power = np.mean(truth.sum(axis=1)[frame] ** 2, axis=(1, 2))[:, None]
        error = np.mean((stems - truth)[frame] ** 2, axis=(2, 3))
        levels.append(10.0 * np.log10(error / power + 10.0 ** (FLOOR / 10.0)))
    assert loss == pytest.approx(np.mean(levels), abs=1e-6)
    for index in [(0, 0, 0, 0), (0, 1, 1, 7), (0, 1, 0, 30), (1, 2, 1, 49)]:
        step = np.zeros_like(stems)
        step[index] = 1e-6
        above, below = (waveform_loss(stems + h, truth, min_frame)[0] for h in (step, -step))
        assert gradient[index] == pytest.approx((above - below) / 2e-6, rel=1e-5)


def test_loss_in_single_precision():
    rng = np.random.default_rng(1)
    truth = rng.standard_normal((3, 4, 2, 60))
    stems = truth + 0.1 * rng.standard_normal(truth.shape)
    expected, exact = waveform_loss(stems, truth, 20)
    loss, gradient = waveform_loss(stems.astype(np.float32), truth.astype(np.float32), 20)
    assert loss == pytest.approx(expected, abs=1e-5)
    assert gradient.dtype == np.float32
    np.testing.assert_allclose(gradient, exact, rtol=1e-4, atol=1e-5 * np.abs(exact).max())


def test_what_rings_into_a_silent_second_does_not_count():
    rng = np.random.default_rng(2)
    truth = rng.standard_normal((2, 4, 2, 60))
    truth[0, ..., 20:40] = 1e-5 * truth[0, ..., 20:40]
    stems = truth + 0.1 * rng.standard_normal(truth.shape)
    loss, gradient = waveform_loss(stems, truth, 20)
    assert not gradient[0, ..., 20:40].any()
    parts = [
        waveform_loss(
            stems[sample, ..., k : k + 20][None], truth[sample, ..., k : k + 20][None], 20
        )
        for sample, k in ((0, 0), (0, 40), (1, 0), (1, 20), (1, 40))
    ]
    assert loss == pytest.approx(np.mean([part for part, _ in parts]))
    np.testing.assert_allclose(gradient[0, ..., 40:], parts[1][1][0] / 5.0)


def test_silence_and_perfection_have_no_gradient():
    truth = np.zeros((2, 4, 2, 50), np.float32)
    truth[1] = 0.1
    loss, gradient = waveform_loss(truth, truth, 25)
    assert np.isfinite(loss)
    assert gradient.dtype == np.float32
    assert not gradient.any()


@pytest.mark.slow
def test_on_a_device(make, tmp_path, monkeypatch):
    """An emulated device computes the losses of the processor, and a run goes on elsewhere."""
    from helpers.cuda_training import backend_on
    from helpers.emulated import emulated

    pytest.importorskip("numba")
    backend_on(emulated(), monkeypatch)
    settings = {"frozen_norms": True, "threads": 1, "nb_workers": 1}
    expected = make(output=tmp_path / "cpu", device="cpu", **settings).fit()
    on_device = make({"on_epoch": lambda report: on_device.stop()}, device="cuda", **settings)
    assert on_device.fit().reason == "stopped"
    for device in ("cuda", "cpu"):
        output = tmp_path / f"then-{device}"
        result = make(checkpoint=tmp_path / "out", output=output, device=device, **settings).fit()
        assert result.train_losses == pytest.approx(expected.train_losses, abs=1e-3)
        assert result.valid_losses == pytest.approx(expected.valid_losses, abs=1e-3)
