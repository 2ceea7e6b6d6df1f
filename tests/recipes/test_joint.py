"""The four networks trained together on what the Wiener filter makes of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import soundfile as sf

from recipes.umxm import joint
from recipes.umxm.joint import FLOOR, Run, Settings, Stems, waveform_loss, write
from umx_np.config import ModelConfig
from umx_np.data import item_rng
from umx_np.errors import ConfigError
from umx_np.testing import random_bundle_of
from umx_np.training.checkpoint import read_checkpoint, write_checkpoint
from umx_np.weights import load_folder, save_folder

STEMS = ["vocals", "drums", "bass", "other"]
SETTINGS = Settings(steps=4, batch_size=2, seq_dur=0.4, lr=1e-3, threads=1)


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Three songs of tones, each stem in an octave of its own."""
    root = tmp_path_factory.mktemp("songs")
    time = np.arange(44100) / 44100
    for song in range(3):
        folder = root / "train" / f"{song:05d}"
        folder.mkdir(parents=True)
        for place, name in enumerate(STEMS):
            tone = 0.2 * np.sin(2 * np.pi * 110.0 * 4**place * (1 + 0.1 * song) * time)
            sf.write(folder / f"{name}.wav", np.stack([tone, 0.5 * tone], axis=1), 44100)
    return root


@pytest.fixture
def bundle():
    return random_bundle_of(ModelConfig(nb_bins=2049, hidden_size=8, max_bin=600), STEMS)


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


def test_stems_add_up_to_what_the_trainer_mixes(songs, monkeypatch):
    monkeypatch.setattr(joint, "AS_MIXED_SHARE", 0.0)
    stems = Stems(songs, STEMS, 0.4)
    for index in range(3):
        stacked, same = stems.sample(index, item_rng(7, 0, index))
        assert same is stacked
        rng = item_rng(7, 0, index)
        rng.random()  # what decided that this one is varied
        x, y = stems._varied.sample(index, rng)
        np.testing.assert_allclose(stacked.reshape(4, 2, -1).sum(axis=0), x, atol=1e-6)
        np.testing.assert_array_equal(stacked[:2], y)
        assert stems.describe(index).endswith(f"{index:05d}")


def test_many_excerpts_are_as_they_were_mixed(songs, monkeypatch):
    monkeypatch.setattr(joint, "SPEED", (1.0, 1.0))
    monkeypatch.setattr(joint, "FADERS", 0.0)
    found = _sides_of_those_as_mixed(songs, Stems(songs, STEMS, 0.4))
    assert abs(found.count("same") + found.count("swapped") - 200 * joint.AS_MIXED_SHARE) <= 20
    assert found.count("same") > 60
    assert found.count("swapped") > 60


def _sides_of_those_as_mixed(songs, stems):
    """Which of 200 excerpts are as they were mixed, "same", or so with sides "swapped"."""
    files = [sf.read(songs / f"train/00000/{name}.wav", dtype="float32")[0].T for name in STEMS]
    truths = {
        "same": np.concatenate(files),
        "swapped": np.concatenate([stem[::-1] for stem in files]),
    }
    found = []
    for index in range(200):
        sample = stems.sample(0, item_rng(7, 0, index))[0]
        count = sample.shape[1]
        for sides, truth in truths.items():
            starts = np.flatnonzero(np.abs(truth[0, :-count] - sample[0, 0]) < 1e-6)
            if any(np.array_equal(truth[:, k : k + count], sample) for k in starts):
                found.append(sides)
                break
    return found


def test_faders_move_each_stem_of_an_excerpt_as_it_was_mixed(songs, monkeypatch):
    monkeypatch.setattr(joint, "AS_MIXED_SHARE", 1.0)
    stems = Stems(songs, STEMS, 0.4)
    monkeypatch.setattr(joint, "FADERS", 0.0)
    mixed = [stems.sample(1, item_rng(7, 0, k))[0].reshape(4, -1) for k in range(100)]
    monkeypatch.setattr(joint, "FADERS", 2.0)
    moved = [stems.sample(1, item_rng(7, 0, k))[0].reshape(4, -1) for k in range(100)]
    gains = np.array([(a * b).sum(1) / (b * b).sum(1) for a, b in zip(moved, mixed, strict=True)])
    for a, b, gain in zip(moved, mixed, gains, strict=True):
        np.testing.assert_allclose(a, gain[:, None] * b, atol=1e-6)
    levels = 20.0 * np.log10(gains)
    assert np.abs(levels).max() <= 2.001
    # Uniform, and each stem for itself.
    np.testing.assert_allclose(levels.std(axis=0), 4.0 / np.sqrt(12.0), rtol=0.2)
    assert np.abs(np.corrcoef(levels.T) - np.eye(4)).max() < 0.35


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_as_if_it_was_not(songs, bundle, tmp_path):
    whole = Run(bundle, songs, SETTINGS)
    losses = list(whole.train())
    assert len(losses) == 4
    first = Run(bundle, songs, SETTINGS)
    for _ in zip(range(2), first.train(), strict=False):
        pass
    write_checkpoint(tmp_path / "a", first.state())
    second = Run(bundle, songs, SETTINGS)
    second.resume(read_checkpoint(tmp_path / "a"))
    assert list(second.train()) == losses[2:]
    # Other threads cut the products elsewhere, which BLAS may round otherwise.
    third = Run(bundle, songs, replace(SETTINGS, threads=2))
    third.resume(read_checkpoint(tmp_path / "a"))
    assert list(third.train()) == pytest.approx(losses[2:], abs=1e-4)
    for name, network in whole.separator.networks.items():
        for key, array in network.state_dict().items():
            other = second.separator.networks[name].state_dict()[key]
            np.testing.assert_array_equal(array, other)
    with pytest.raises(ConfigError, match="steps=4, not 5; name another folder"):
        Run(bundle, songs, replace(SETTINGS, steps=5)).resume(first.state())
    other = random_bundle_of(bundle.targets["bass"].config, STEMS, seed=9)
    with pytest.raises(ConfigError, match="had model="):
        Run(other, songs, SETTINGS).resume(first.state())


def test_frozen_norms_train_what_separates(songs, bundle, monkeypatch):
    monkeypatch.setattr(joint, "FRAME", 4410)  # four frames in an excerpt
    run = Run(bundle, songs, replace(SETTINGS, steps=20, batch_size=3, lr=1e-2, frozen_norms=True))
    before = {name: net.state_dict() for name, net in run.separator.networks.items()}
    # Nothing is dropped: the loss is that of the separator itself.
    stacked, _ = next(iter(run._loader.epoch(0)))
    truth = stacked.reshape(3, len(STEMS), 2, -1)
    separated = run.separator.separator(device="cpu")(truth.sum(axis=1))
    losses = list(run.train())
    assert losses[0] == pytest.approx(waveform_loss(separated, truth, 4410)[0], abs=1e-3)
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1.0
    for name, network in run.separator.networks.items():
        for key, array in network.state_dict().items():
            is_statistic = "running" in key or "num_batches" in key
            assert np.array_equal(array, before[name][key]) == is_statistic, key


def test_the_rate_rises_and_falls(songs, bundle):
    settings = replace(SETTINGS, steps=100, warmup=9)
    run = Run(bundle, songs, settings)
    rates = np.array([run._rate(done) for done in range(100)])
    assert rates[0] == pytest.approx(0.1 * settings.lr, rel=1e-3)
    assert int(rates.argmax()) == 9
    assert rates.max() == pytest.approx(settings.lr, rel=0.03)
    assert np.all(np.diff(rates[9:]) < 0)
    assert 0 < rates[-1] < 1e-3 * settings.lr
    assert Run(bundle, songs, SETTINGS)._rate(0) == SETTINGS.lr


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 0},
        {"batch_size": 0},
        {"warmup": -1},
        {"lr": -1.0},
        {"seq_dur": 0.0},
        {"threads": 0},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))}="):
        replace(SETTINGS, **wrong)


def test_songs_must_fit(songs, bundle):
    with pytest.raises(ConfigError, match="batch_size=4 needs more than 3 songs"):
        Run(bundle, songs, replace(SETTINGS, batch_size=4))
    with pytest.raises(ConfigError, match="the songs have rate=44100, the model 48000"):
        Run(replace(bundle, sample_rate=48000.0), songs, SETTINGS)


def test_the_command_goes_on_and_refuses_another_run(songs, bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(joint, "_STEPS_PER_SAVE", 2)
    save_folder(bundle, tmp_path / "model")
    arguments = ["--songs", str(songs), "--model", str(tmp_path / "model")]
    arguments += ["--out", str(tmp_path / "out"), "--batch-size", "2", "--seq-dur", "0.4"]
    arguments += ["--steps", "3", "--threads", "1"]
    joint.main(arguments)
    first = load_folder(tmp_path / "out")
    # The checkpoint is that of the second step: the last one is made again.
    joint.main(arguments)
    again = load_folder(tmp_path / "out")
    for name, weights in first.targets.items():
        for key, array in weights.state.items():
            np.testing.assert_array_equal(array, again.targets[name].state[key])
        assert not np.array_equal(
            weights.state["fc1.weight"], bundle.targets[name].state["fc1.weight"]
        )
    with pytest.raises(SystemExit):
        joint.main([*arguments, "--lr", "0.1"])
    assert "lr=0.0002, not 0.1" in capsys.readouterr().err
    (tmp_path / "out" / "drums.pth").touch()
    with pytest.raises(SystemExit):
        joint.main(arguments)
    assert "drums.pth belongs to another run; choose another --out" in capsys.readouterr().err


def test_training_helps_and_is_written(songs, bundle, tmp_path):
    run = Run(bundle, songs, replace(SETTINGS, steps=25, batch_size=3, lr=1e-2))
    losses = list(run.train())
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 1.0
    write(run, tmp_path / "joint")
    loaded = load_folder(tmp_path / "joint")
    assert list(loaded.targets) == STEMS
    for name, weights in loaded.targets.items():
        trained = run.separator.networks[name].state_dict()
        assert all(np.array_equal(trained[key], weights.state[key]) for key in trained)


def test_validation(songs, bundle, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(joint, "_STEPS_PER_VALIDATION", 2)
    silent = Run(bundle, songs, SETTINGS)
    assert "has no folder valid" in caplog.text
    plain = list(silent.train())
    assert silent.valid_losses == []
    root = tmp_path / "songs"
    root.mkdir()
    (root / "train").symlink_to(songs / "train")
    # Nine excerpts: the last batch of two is half full, and must not count twice.
    monkeypatch.setattr(joint, "_VALID_EXCERPTS", 3)
    for number in range(3):
        (root / "valid" / str(number)).mkdir(parents=True)
        for name in STEMS:
            audio, rate = sf.read(songs / "train" / "00000" / f"{name}.wav")
            sf.write(root / "valid" / str(number) / f"{name}.wav", audio[: 44100 - number], rate)
    run = Run(bundle, root, replace(SETTINGS, steps=5))
    start = run.validate(run._valid)
    assert run.validate(run._valid) == start
    excerpts = [joint.AsMixed(root, STEMS, 0.4).sample(k, item_rng(0, 0, k))[0] for k in range(9)]
    truth = np.stack(excerpts).reshape(9, 4, 2, -1)
    assert len({excerpt.tobytes() for excerpt in truth}) > 4
    separated = run.separator.separator(device="cpu")(truth.sum(axis=1))
    assert start == pytest.approx(waveform_loss(separated, truth, joint.FRAME)[0], abs=1e-3)
    losses = list(run.train())
    assert [done for done, _ in run.valid_losses] == [2, 4, 5]
    assert len({start, *(loss for _, loss in run.valid_losses)}) == 4
    # It does not change what is learned.
    assert losses[0] == plain[0]
    again = Run(bundle, root, replace(SETTINGS, steps=5))
    write_checkpoint(tmp_path / "a", run.state())
    again.resume(read_checkpoint(tmp_path / "a"))
    assert again.valid_losses == run.valid_losses
    write(run, tmp_path / "joint")
    log = json.loads((tmp_path / "joint" / "bass.json").read_text())
    assert log["valid_loss_history"] == [list(pair) for pair in run.valid_losses]


@pytest.mark.slow
def test_on_a_graphics_card(songs, bundle, monkeypatch, tmp_path):
    """The emulated card computes the losses of the processor, and a run goes on elsewhere."""
    from helpers.cuda_training import backend_on
    from helpers.emulated import emulated

    backend_on(emulated(), monkeypatch)
    monkeypatch.setattr(joint, "FRAME", 4410)
    settings = replace(SETTINGS, steps=3, frozen_norms=True)
    expected = list(Run(bundle, songs, settings).train())
    card = Run(bundle, songs, replace(settings, device="cuda", workers=0))
    first = next(card.train())
    write_checkpoint(tmp_path / "a", card.state())
    again = Run(bundle, songs, replace(settings, device="cuda"))
    again.resume(read_checkpoint(tmp_path / "a"))
    assert [first, *again.train()] == pytest.approx(expected, abs=1e-3)
    processor = Run(bundle, songs, settings)
    processor.resume(read_checkpoint(tmp_path / "a"))
    assert list(processor.train()) == pytest.approx(expected[1:], abs=1e-3)
