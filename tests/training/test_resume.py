"""A run that is ended at any moment and continued is the run that was not, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers.runs import assert_same_run

from umx_np.errors import ConfigError
from umx_np.train import main
from umx_np.training import Trainer, TrainingError
from umx_np.training.checkpoint import read_checkpoint, write_checkpoint
from umx_np.weights import load_safetensors, load_torch

from .conftest import Tones

SETTINGS = {"epochs": 3, "nb_layers": 2, "clip_grad_norm": 20.0, "lr": 0.01}


class PowerCutError(Exception):
    """The end of a process that had no time to save anything."""


def cut_after(trainer: Trainer, nb_steps: int) -> None:
    """Let a run end without a word after some steps of the optimiser."""
    train_batch = trainer._train_batch
    steps = iter(range(nb_steps))

    def counted(x, y):
        if next(steps, None) is None:
            raise PowerCutError
        return train_batch(x, y)

    trainer._train_batch = counted  # type: ignore[method-assign]


@pytest.fixture(scope="module")
def finished():
    """Folders of the runs of `whole`, by their settings."""
    return {}


@pytest.fixture
def whole(make_trainer, finished, tmp_path_factory):
    """Folder of a run that was never interrupted."""

    def run(**settings):
        key = repr(settings)
        if key not in finished:
            folder = tmp_path_factory.mktemp("whole")
            make_trainer(output=folder, **{**SETTINGS, **settings}).fit()
            finished[key] = folder
        return finished[key]

    return run


def steps_done(folder: Path, nb_batches: int = 3) -> int:
    """How many steps of the optimiser the checkpoint of a run has behind it."""
    saved = read_checkpoint(folder / "tone.chkpnt")["record"]
    return nb_batches * (saved["epoch"] - 1) + saved["batch"]


# Steps that are in a checkpoint, of epochs of three batches: an epoch saves its last one itself.
SAVED = {"0": [3, 6], "1": [1, 2, 3, 4, 5, 6, 7, 8], "2": [2, 3, 5, 6, 8]}


class TestPowerCuts:
    @pytest.mark.parametrize("nb_steps", [1, 2, 3, 4, 5, 7, 8])
    @pytest.mark.parametrize("checkpoint_every", ["0", "1", "2"])
    def test_at_every_batch(self, make_trainer, whole, tmp_path, nb_steps, checkpoint_every):
        desired = whole()
        settings = {**SETTINGS, "checkpoint_every": checkpoint_every}
        trainer = make_trainer(**settings)
        cut_after(trainer, nb_steps)
        with pytest.raises(PowerCutError):
            trainer.fit()
        out = tmp_path / "out"
        saved = [step for step in SAVED[checkpoint_every] if step <= nb_steps]
        if not saved:
            assert not (out / "tone.chkpnt").exists()
            return
        assert steps_done(out) == saved[-1]
        make_trainer(**settings, checkpoint=out).fit()
        assert_same_run(out, desired)

    @pytest.mark.parametrize(
        ("checkpoint_every", "saved"),
        [
            ("10min", [3, 6, 9, 10, 13, 16, 19, 20]),
            ("8 min", [2, 4, 6, 8, 10, 12, 14, 16, 18, 20]),
            # The first epoch is saved before it is validated, and after.
            ("41min", [10, 10, 20]),
            ("0", [10, 10, 20]),
        ],
    )
    def test_after_so_many_minutes(
        self, make_trainer, tmp_path, monkeypatch, checkpoint_every, saved
    ):
        """Of batches of four minutes; the time counts from the last checkpoint."""
        clock = SimpleNamespace(monotonic=lambda: minutes * 60.0, perf_counter=time.perf_counter)
        monkeypatch.setattr("umx_np.training.epochs.time", clock)
        minutes, found = 100, []
        trainer = make_trainer(Tones(30), epochs=2, checkpoint_every=checkpoint_every)
        train_batch, save = trainer._train_batch, trainer._save

        def slow(x, y):
            nonlocal minutes
            minutes += 4
            return train_batch(x, y)

        def noted():
            save()
            found.append(steps_done(tmp_path / "out", nb_batches=10))

        trainer._train_batch, trainer._save = slow, noted
        trainer.fit()
        assert found == saved

    def test_again_and_again(self, make_trainer, whole, tmp_path):
        desired, out = whole(), tmp_path / "out"
        settings = {**SETTINGS, "checkpoint_every": "1"}
        for attempt in range(20):
            trainer = make_trainer(**settings, checkpoint=out if attempt else None)
            cut_after(trainer, 2)
            try:
                trainer.fit()
                break
            except PowerCutError:
                continue
        else:
            pytest.fail("no progress")
        assert attempt > 3
        assert_same_run(out, desired)

    def test_while_validating(self, make_trainer, whole, tmp_path, monkeypatch):
        desired, out = whole(), tmp_path / "out"
        trainer = make_trainer(**SETTINGS, checkpoint_every="1")
        trainer._validate = lambda: (_ for _ in ()).throw(PowerCutError)
        with pytest.raises(PowerCutError):
            trainer.fit()
        make_trainer(**SETTINGS, checkpoint=out).fit()
        assert_same_run(out, desired)

    @pytest.mark.parametrize("file", ["tone.pth", "tone.json", "tone.chkpnt"])
    def test_while_the_files_are_written(self, make_trainer, whole, tmp_path, monkeypatch, file):
        desired, out = whole(), tmp_path / "out"
        replace = os.replace

        def cut(source, target):
            replace(source, target)
            if str(target).endswith(file):
                raise PowerCutError

        trainer = make_trainer(**SETTINGS, checkpoint_every="1")
        monkeypatch.setattr(os, "replace", cut)
        with pytest.raises(PowerCutError):
            trainer.fit()
        monkeypatch.undo()
        make_trainer(**SETTINGS, checkpoint=out).fit()
        assert_same_run(out, desired)

    @pytest.mark.parametrize(
        "settings",
        [
            {"optimizer": "sgd", "momentum": 0.9, "lr": 1e-3},
            {"nb_workers": 2},
            {"lr_schedule": "cosine"},
            {"lr_decay_patience": 0, "patience": 2, "epochs": 6},
        ],
        ids=str,
    )
    def test_with_other_settings(self, make_trainer, whole, tmp_path, settings):
        desired, out = whole(**settings), tmp_path / "out"
        settings = {**SETTINGS, **settings, "checkpoint_every": "1"}
        trainer = make_trainer(**settings)
        cut_after(trainer, 5)
        with pytest.raises(PowerCutError):
            trainer.fit()
        make_trainer(**settings, checkpoint=out).fit()
        assert_same_run(out, desired)

    def test_with_compiled_kernels(self, make_trainer, whole, tmp_path):
        pytest.importorskip("numba")
        self.test_with_other_settings(make_trainer, whole, tmp_path, {"device": "cpu"})


def assert_same_weights(folder):
    """The best weights are the same in both formats."""
    first, second = load_torch(folder / "tone.pth"), load_safetensors(folder / "tone.safetensors")
    assert set(first) == set(second) != set()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])


class TestContinuing:
    def test_more_epochs_are_the_same_as_all_at_once(self, make_trainer, whole, tmp_path):
        desired = whole(epochs=4)
        out = tmp_path / "out"
        make_trainer(**{**SETTINGS, "epochs": 2}).fit()
        result = make_trainer(**{**SETTINGS, "epochs": 4}, checkpoint=out).fit()
        assert result.epochs_trained == 4
        first, last = (read_checkpoint(f / "tone.chkpnt") for f in (out, desired))
        assert first["record"]["valid_loss_history"] == last["record"]["valid_loss_history"]

    def test_into_another_folder(self, make_trainer, whole, tmp_path):
        desired = whole()
        first = make_trainer(**{**SETTINGS, "epochs": 2}, output=tmp_path / "first")
        first.fit()
        before = {p.name: p.read_bytes() for p in (tmp_path / "first").iterdir()}
        # Nothing better follows, so the best weights have to come along.
        trainer = make_trainer(**SETTINGS, checkpoint=tmp_path / "first", safetensors=True)
        trainer._validate = lambda: 1e9
        trainer.fit()
        best = (tmp_path / "out" / "tone.pth").read_bytes()
        assert best == before["tone.pth"]
        assert_same_weights(tmp_path / "out")
        assert before == {p.name: p.read_bytes() for p in (tmp_path / "first").iterdir()}
        trainer = make_trainer(**SETTINGS, checkpoint=tmp_path / "first", overwrite=True)
        trainer._validate = lambda: 1e9
        trainer.fit()
        # Not the weights of a run that is overwritten beside those of another.
        assert not (tmp_path / "out/tone.safetensors").exists()
        make_trainer(**SETTINGS, checkpoint=tmp_path / "first", overwrite=True).fit()
        assert_same_run(tmp_path / "out", desired)

    def test_weights_in_another_format_too(self, make_trainer, tmp_path):
        out = tmp_path / "out"
        make_trainer(epochs=1).fit()
        trainer = make_trainer(epochs=2, checkpoint=out, safetensors=True)
        trainer._validate = lambda: 1e9
        trainer.fit()
        assert_same_weights(out)

    def test_changes_on_the_way(self, make_trainer, tmp_path, caplog):
        make_trainer(epochs=1).fit()
        out = tmp_path / "out"
        trainer = make_trainer(checkpoint=out, epochs=2, lr=0.5, patience=7)
        trainer.fit()
        assert "lr changes from 0.001 to 0.5" in caplog.text
        assert "patience changes from 140 to 7" in caplog.text
        assert trainer.optimizer.lr == 0.5

    def test_lowered_rate_stays_low(self, make_trainer, tmp_path):
        out = tmp_path / "out"
        trainer = make_trainer(epochs=2, lr_decay_patience=0, lr=0.1)
        trainer._validate = lambda: 1.0
        trainer.fit()
        assert trainer.optimizer.lr == pytest.approx(0.03)
        again = make_trainer(epochs=2, lr_decay_patience=0, lr=0.1, checkpoint=out)
        again.fit()
        assert again.optimizer.lr == trainer.optimizer.lr

    def test_another_batch_size_begins_the_epoch_again(self, make_trainer, tmp_path, caplog):
        out = tmp_path / "out"
        trainer = make_trainer(checkpoint_every="1")
        cut_after(trainer, 5)
        with pytest.raises(PowerCutError):
            trainer.fit()
        result = make_trainer(batch_size=2, checkpoint=out).fit()
        assert "batch_size changed" in caplog.text
        assert "epoch 2 begins again" in caplog.text
        assert result.epochs_trained == 2

    def test_other_data_is_noticed(self, make_trainer, tmp_path, caplog):
        make_trainer(epochs=1).fit()
        make_trainer(Tones(8), checkpoint=tmp_path / "out").fit()
        assert "the number of training items changed" in caplog.text

    @pytest.mark.parametrize(
        "settings", [{"hidden_size": 16}, {"n_fft": 512}, {"nb_layers": 2}, {"bandwidth": 2000.0}]
    )
    def test_another_network_is_refused(self, make_trainer, tmp_path, settings):
        make_trainer(epochs=1).fit()
        name = next(iter(settings))
        with pytest.raises(ConfigError, match=rf"has {name}=\d+.*, not {settings[name]}"):
            make_trainer(**settings, checkpoint=tmp_path / "out").fit()

    def test_another_rate_optimiser_or_loss_is_refused(self, make_trainer, tmp_path):
        make_trainer(epochs=1).fit()
        out = tmp_path / "out"
        with pytest.raises(ConfigError, match="optimizer='adam', not 'sgd'"):
            make_trainer(optimizer="sgd", checkpoint=out).fit()
        with pytest.raises(ConfigError, match="loss='mse', not 'log-mse'"):
            make_trainer(loss="log-mse", checkpoint=out).fit()
        train, valid = Tones(), Tones(2)
        train.sample_rate = valid.sample_rate = 16000.0
        with pytest.raises(ConfigError, match="16000 Hz"):
            make_trainer(train, valid, checkpoint=out).fit()

    @pytest.mark.parametrize("part", ["optimizer", "scheduler", "record", "config", "network"])
    def test_incomplete_checkpoint(self, make_trainer, tmp_path, part):
        make_trainer(epochs=1).fit()
        path = tmp_path / "out" / "tone.chkpnt"
        tree = read_checkpoint(path)
        del tree[part]
        write_checkpoint(path, tree)
        with pytest.raises(TrainingError, match=part):
            make_trainer(checkpoint=tmp_path / "out").fit()


class TestStopping:
    def test_in_the_middle_of_an_epoch(self, make_trainer, whole, tmp_path):
        desired, out = whole(), tmp_path / "out"
        trainer = make_trainer(**SETTINGS)
        train_batch = trainer._train_batch
        count = iter(range(100))

        def stop_at_five(x, y):
            if next(count) == 4:
                trainer.stop()
            return train_batch(x, y)

        trainer._train_batch = stop_at_five
        result = trainer.fit()
        assert (result.reason, result.epochs_trained) == ("stopped", 1)
        assert read_checkpoint(out / "tone.chkpnt")["record"]["batch"] == 2
        assert make_trainer(**SETTINGS, checkpoint=out).fit().reason == "epochs"
        assert_same_run(out, desired)

    def test_while_validating(self, make_trainer, whole, tmp_path):
        desired, out = whole(), tmp_path / "out"
        valid = Tones(2)
        trainer = make_trainer(valid=valid, **SETTINGS)
        sample = valid.sample

        def stop(index, rng):
            trainer.stop()
            return sample(index, rng)

        valid.sample = stop
        result = trainer.fit()
        assert (result.reason, result.epochs_trained) == ("stopped", 0)
        valid.sample = sample
        make_trainer(valid=valid, **SETTINGS, checkpoint=out).fit()
        assert_same_run(out, desired)

    def test_from_another_thread(self, make_trainer):
        trainer = make_trainer(epochs=100_000)
        timer = threading.Timer(0.5, trainer.stop)
        timer.start()
        result = trainer.fit()
        timer.join()
        assert result.reason == "stopped"


def command(arguments: list[str]) -> list[str]:
    return [sys.executable, "-m", "umx_np.train", *arguments]


def wait_for(condition, process, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "timed out"
        time.sleep(0.01)


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
class TestSignals:
    ARGUMENTS = ("--epochs", "15", "--checkpoint-every", "1")

    @pytest.mark.slow
    def test_killed_at_random_moments(self, tiny_command, tmp_path):
        arguments = [*tiny_command, *self.ARGUMENTS]
        out, desired = tmp_path / "out", tmp_path / "desired"
        assert main([*arguments, "--quiet", "--output", str(desired)]) == 0
        moments = random.Random(1)
        killed = 0
        for attempt in range(3):
            argv = ["--checkpoint", str(out)] if attempt else arguments
            process = subprocess.Popen(
                command(argv), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
            path = out / "vocals.chkpnt"
            before = path.stat().st_mtime_ns if path.exists() else None
            wait_for(lambda: path.exists() and path.stat().st_mtime_ns != before, process)  # noqa: B023
            time.sleep(moments.uniform(0.0, 0.25))
            process.kill()
            process.communicate()
            killed += process.returncode == -signal.SIGKILL
        assert killed == 3
        assert main(["--checkpoint", str(out), "--quiet"]) == 0
        assert_same_run(out, desired, "vocals")

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_asked_to_stop(self, tiny_command, tmp_path, number):
        arguments = [*tiny_command, "--epochs", "100000"]
        process = subprocess.Popen(
            command(arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        path = tmp_path / "out" / "vocals.chkpnt"
        wait_for(path.exists, process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 128 + number
        assert "stopping after this batch" in errors
        assert f"continue with --checkpoint {str(tmp_path / 'out')!r}" in errors
        assert "Traceback" not in errors
        epoch = read_checkpoint(path)["record"]["epoch"]
        assert main(["--checkpoint", str(tmp_path / "out"), "--epochs", str(epoch)]) == 0

    def test_interrupted_before_it_begins(self, tiny_command, tmp_path, monkeypatch, capsys):
        def interrupt(*args, **kwargs):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

        monkeypatch.setattr("umx_np.training.start.get_statistics", interrupt)
        assert main(tiny_command) == 130
        assert "interrupted" in capsys.readouterr().err
        assert not list((tmp_path / "out").glob("*"))
