"""What a run leaves and tells."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess

import numpy as np
import pytest
from helpers.terminal import open_terminal

import umx_np
from umx_np.errors import ConfigError
from umx_np.training.console import BatchBar
from umx_np.training.records import commit_of
from umx_np.weights import load_safetensors, load_torch

from .conftest import RATE, Tones, results_of, with_valid_losses


class TestFiles:
    def test_names_and_contents(self, make_trainer):
        trainer = make_trainer(epochs=3, safetensors=True, options={"arguments": {"root": "r"}})
        result = trainer.fit()
        folder = trainer.config.folder
        assert {p.name for p in folder.iterdir()} == {
            *("tone.pth", "tone.safetensors", "tone.json", "tone.chkpnt", "separator.json"),
        }
        text = (folder / "tone.json").read_text()
        results = json.loads(text)
        assert text == json.dumps(results, indent=4, sort_keys=True)
        # The keys of Open-Unmix's trainer.
        assert set(results) == {
            *("args", "best_epoch", "best_loss", "commit", "epochs_trained", "num_bad_epochs"),
            *("train_loss_history", "train_time_history", "valid_loss_history"),
        }
        assert results["train_loss_history"] == list(result.train_losses)
        assert results["valid_loss_history"] == list(result.valid_losses)
        assert len(results["train_time_history"]) == 3
        assert results["args"]["root"] == "r"
        assert results["args"]["nfft"] == 256
        text = (folder / "separator.json").read_text()
        settings = {"nb_channels": 2, "nfft": 256, "nhop": 64, "sample_rate": float(RATE)}
        assert text == json.dumps(settings, indent=4)

    def test_best_weights_are_kept(self, make_trainer):
        trainer = with_valid_losses(make_trainer(epochs=3, safetensors=True), [2.0, 1.0, 3.0])
        states = []
        trainer.on_epoch = lambda report: states.append(trainer.network.state_dict())
        trainer.fit()
        folder = trainer.config.folder
        for saved in (
            load_torch(folder / "tone.pth"),
            load_safetensors(folder / "tone.safetensors"),
        ):
            for name, array in states[1].items():
                np.testing.assert_array_equal(saved[name], array)

    def test_loads_and_separates(self, make_trainer):
        trainer = make_trainer()
        trainer.fit()
        bundle = umx_np.load_model(trainer.config.folder)
        assert (bundle.sample_rate, bundle.n_fft, bundle.n_hop) == (RATE, 256, 64)
        audio = Tones(1).sample(0, np.random.default_rng(0))[0]
        stems = umx_np.separate(audio, RATE, model=trainer.config.folder, device="cpu")
        assert stems["tone"].shape == audio.shape

    def test_curve(self, make_trainer):
        pytest.importorskip("matplotlib")
        trainer = make_trainer(plot=True)
        trainer.fit()
        assert (trainer.config.folder / "tone.png").read_bytes().startswith(b"\x89PNG")

    def test_curve_without_matplotlib(self, make_trainer, monkeypatch):
        monkeypatch.setattr("umx_np.plots.is_available", lambda: False)
        with pytest.raises(ConfigError, match=r"umx-np\[plot\]"):
            make_trainer(plot=True).fit()
        trainer = make_trainer(plot=None)
        trainer.fit()
        assert not (trainer.config.folder / "tone.png").exists()

    def test_commit_is_that_of_the_package_or_none(self, make_trainer, monkeypatch):
        monkeypatch.setenv("PATH", "")
        trainer = make_trainer(epochs=1)
        trainer.fit()
        assert results_of(trainer.config.folder)["commit"] is None

    @pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
    def test_commit_tells_of_changes(self, tmp_path):
        package = tmp_path / "package"
        (package / "inner").mkdir(parents=True)
        (package / "code.py").write_text("1\n")
        assert commit_of(package) is None
        git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
        for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
            subprocess.run([*git, *command], check=True)
        commit = commit_of(package)
        assert re.fullmatch("[0-9a-f]{7}", commit)
        (package / "new.py").write_text("not asked about\n")
        assert commit_of(package) == commit
        (package / "code.py").write_text("2\n")
        assert commit_of(package) == f"{commit} with changes"
        assert commit_of(package / "inner") is None


class TestTelling:
    def test_reports(self, make_trainer):
        reports = []
        make_trainer(epochs=2, options={"on_epoch": reports.append}).fit()
        assert [report.epoch for report in reports] == [1, 2]
        for report in reports:
            assert report.samples_per_second > 0
            assert 0 < report.wait_share < 1
            assert 0 < report.seconds < 60

    def test_log(self, make_trainer, caplog):
        with caplog.at_level(logging.INFO, logger="umx_np"):
            make_trainer(epochs=1).fit()
        assert "3 batches of 3 a training epoch, 2 validation items" in caplog.text
        assert "epoch 1/1: training loss" in caplog.text
        assert "waiting for data" in caplog.text

    def test_no_bars_but_on_a_terminal(self, make_trainer, capsys):
        make_trainer(epochs=1, options={"progress": True}).fit()
        assert "%|" not in capsys.readouterr().err

    def test_bars_on_a_terminal(self, make_trainer, monkeypatch):
        terminal = open_terminal(monkeypatch)
        make_trainer(epochs=1, options={"progress": True}).fit()
        number = r"[\d.e+-]+"
        speed = f", excerpts={number}/s, wait={number}%"
        for label, total, values in (("epoch 1/1", 3, speed), ("validation", 2, "")):
            bar = rf"{label}: +\d+%\|.+\| (\d)/{total} \[.*?(, loss={number}{values})?\]"
            bars = [match for line in terminal.lines if (match := re.fullmatch(bar, line))]
            assert {match[1] for match in bars} == set(map(str, range(total + 1)))
            assert all(match[2] for match in bars if match[1] != "0")
        assert terminal.lines[-2:] == ["", ""]

    def test_bars_of_an_epoch_that_is_continued(self, monkeypatch):
        terminal = open_terminal(monkeypatch)
        with BatchBar("epoch 2/9", 8, 5, shown=True) as bar:
            bar.update(loss="0.25", wait="3.0%")
        first, second = terminal.lines[1:3]
        assert re.match(r"epoch 2/9: .+\| 5/8 \[", first)
        assert re.match(r"epoch 2/9:  75%\|.+\| 6/8 \[.*, loss=0\.25, wait=3\.0%\]", second)
        assert terminal.lines[-2:] == ["", ""]
        before = terminal.getvalue()
        with BatchBar("epoch 2/9", 8, shown=False) as bar:
            bar.update(loss="0.25")
        assert terminal.getvalue() == before

    def test_what_was_passed_over_is_counted(self, make_trainer, caplog):
        class Patchy(Tones):
            def sample(self, index, rng):
                if index == 4:
                    self.skip("a.wav cannot be read")
                    index = 3
                return super().sample(index, rng)

        trainer = make_trainer(Patchy(), epochs=2)
        trainer.fit()
        assert caplog.text.count("a.wav cannot be read") == 1
        assert "1 files were passed over" in caplog.text

    def test_an_error_in_a_callback_ends_the_run_with_the_epoch_saved(self, make_trainer):
        def stop(report):
            raise KeyError("enough")

        trainer = make_trainer(options={"on_epoch": stop})
        with pytest.raises(KeyError, match="enough"):
            trainer.fit()
        assert results_of(trainer.config.folder)["epochs_trained"] == 1
