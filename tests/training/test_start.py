"""Beginnings: published models, folders, Open-Unmix's checkpoints."""

from __future__ import annotations

import json
from typing import ClassVar

import numpy as np
import pytest

from umx_np.config import ModelConfig, bandwidth_to_max_bin, max_bin_to_bandwidth
from umx_np.errors import ConfigError, ModelNotFoundError
from umx_np.testing import random_bundle_of
from umx_np.training import TrainingError
from umx_np.weights import load_folder, load_torch, save_folder, save_torch

from .conftest import RATE, Tones

CONFIG = ModelConfig(nb_bins=129, hidden_size=12, nb_layers=2, unidirectional=True, max_bin=70)


@pytest.fixture
def model(tmp_path):
    """Folder with a model for tones, of an architecture that is not the default."""
    bundle = random_bundle_of(CONFIG, ["tone", "noise"], n_fft=256, n_hop=64, sample_rate=RATE)
    save_folder(bundle, tmp_path / "model")
    return tmp_path / "model"


# What the tiny settings set and the model has otherwise; by default it is taken from the model.
UNSET = {"n_fft": 4096, "n_hop": 1024, "hidden_size": 512, "bandwidth": 16000}


class TestFineTuning:
    def test_begins_with_the_weights_of_the_model(self, make_trainer, model):
        trainer = make_trainer(model=model, **UNSET, epochs=1, lr=1e-9)
        trainer.fit()
        assert trainer.model_config == CONFIG
        before = load_torch(model / "tone.pth")
        for name in ("input_mean", "fc1.weight", "lstm.weight_hh_l1", "output_scale"):
            np.testing.assert_allclose(trainer.network.parameters[name], before[name], atol=1e-6)
        args = json.loads((trainer.config.folder / "tone.json").read_text())["args"]
        assert (args["nfft"], args["nhop"], args["hidden_size"]) == (256, 64, 12)
        assert (args["nb_layers"], args["unidirectional"]) == (2, True)
        assert args["model"] == str(model)

    def test_learns(self, make_trainer, model):
        result = make_trainer(model=model, **UNSET, epochs=8, lr=0.01).fit()
        assert result.valid_losses[-1] < result.valid_losses[0]

    def test_the_level_of_the_model_is_not_taken_over(self, make_trainer, model, caplog):
        path = model / "separator.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "input_level": -16.0}))
        folder = make_trainer(model=model, **UNSET, epochs=1)
        folder.fit()
        (told,) = [r.getMessage() for r in caplog.records if "input_level" in r.getMessage()]
        assert "-16 dB" in told
        assert "separator.json" in told
        assert load_folder(folder.config.folder).input_level is None

    def test_published_models(self, make_trainer, monkeypatch, model):
        asked = []

        def load(name, targets):
            asked.append((name, targets))
            return load_folder(model, targets)

        monkeypatch.setattr("umx_np.pretrained.loading.load_model", load)
        make_trainer(model="umxhq", **UNSET, epochs=1).fit()
        assert asked == [("umxhq", ["tone"])]

    @pytest.mark.parametrize("settings", [{"hidden_size": 16}, {"nb_layers": 1}, {"n_fft": 512}])
    def test_contradictions(self, make_trainer, model, settings):
        name = next(iter(settings))
        with pytest.raises(ConfigError, match=rf"has {name}=\d+, not {settings[name]}"):
            make_trainer(model=model, **{**UNSET, **settings}).fit()

    def test_contradictions_that_are_defaults(self, make_trainer, model):
        for name, value in UNSET.items():
            with pytest.raises(ConfigError, match=rf"has {name}=\d+.*, not {value}"):
                make_trainer(options={"given": [name]}, model=model, **UNSET).fit()

    def test_bandwidth_is_that_of_the_network(self, make_trainer, model):
        trainer = make_trainer(model=model, **UNSET, epochs=1)
        trainer.fit()
        assert trainer.config.bandwidth == 69 * RATE / 256
        assert trainer.config.model_config(RATE).max_bin == 70
        args = json.loads((trainer.config.folder / "tone.json").read_text())["args"]
        assert args["bandwidth"] == trainer.config.bandwidth
        # Between two bins there are many that mean the same.
        trainer = make_trainer(model=model, **{**UNSET, "bandwidth": 2160.0}, overwrite=True)
        trainer.fit()
        assert trainer.config.bandwidth == 2160.0
        with pytest.raises(ConfigError, match=r"has bandwidth=2156.25, not 2000.0"):
            make_trainer(model=model, overwrite=True, **{**UNSET, "bandwidth": 2000.0}).fit()

    def test_unknown_targets_and_models(self, make_trainer, model, tmp_path):
        with pytest.raises(ConfigError, match=r"target='bass' is not in .*noise"):
            make_trainer(model=model, target="bass").fit()
        with pytest.raises(ModelNotFoundError, match="umxhq"):
            make_trainer(model="umx3").fit()

    def test_another_rate(self, make_trainer, model):
        train, valid = Tones(), Tones(2)
        train.sample_rate = valid.sample_rate = 16000.0
        with pytest.raises(ConfigError, match=r"8000 Hz.*16000 Hz"):
            make_trainer(train, valid, model=model, **UNSET).fit()


@pytest.mark.parametrize(("rate", "n_fft"), [(44100.0, 4096), (48000.0, 2000), (8000.0, 30)])
def test_bandwidths_of_bins(rate, n_fft):
    for max_bin in range(1, n_fft // 2 + 2):
        bandwidth = max_bin_to_bandwidth(rate, n_fft, max_bin)
        assert bandwidth_to_max_bin(rate, n_fft, bandwidth) == max_bin
        assert bandwidth == pytest.approx((max_bin - 1) * rate / n_fft)


class TestOpenUnmixCheckpoint:
    """The trainer of Open-Unmix pickles its checkpoints; their weights can be gone on from."""

    RESULTS: ClassVar = {
        "args": {"nfft": 256, "nhop": 64, "nb_channels": 2, "hidden_size": 12},
        "best_epoch": 2,
        "best_loss": 0.5,
        "commit": "1234567",
        "epochs_trained": 3,
        "num_bad_epochs": 1,
        "train_loss_history": [3.0, 2.0, 1.0],
        "train_time_history": [1.0, 1.0],
        "valid_loss_history": [3.0, 0.5, 1.5],
    }

    @pytest.fixture
    def checkpoint(self, tmp_path):
        folder = tmp_path / "upstream"
        folder.mkdir()
        bundle = random_bundle_of(CONFIG, ["tone"], n_fft=256, n_hop=64, sample_rate=RATE)
        save_torch(bundle.targets["tone"].state, folder / "tone.chkpnt")
        save_torch(bundle.targets["tone"].state, folder / "tone.pth")
        (folder / "tone.json").write_text(json.dumps(self.RESULTS))
        return folder

    def test_goes_on(self, make_trainer, checkpoint, caplog):
        trainer = make_trainer(checkpoint=checkpoint, **UNSET, epochs=4)
        trainer._validate = lambda: 0.75
        result = trainer.fit()
        assert "the optimiser starts again" in caplog.text
        assert (result.epochs_trained, result.best_epoch, result.best_loss) == (4, 2, 0.5)
        assert result.valid_losses == (3.0, 0.5, 1.5, 0.75)
        assert trainer.early_stopping.num_bad_epochs == 2
        best = (trainer.config.folder / "tone.pth").read_bytes()
        assert best == (checkpoint / "tone.pth").read_bytes()

    def test_without_the_history(self, make_trainer, checkpoint):
        (checkpoint / "tone.json").write_text('{"args": {}}')
        with pytest.raises(TrainingError, match="model="):
            make_trainer(checkpoint=checkpoint, **UNSET).fit()
        (checkpoint / "tone.json").unlink()
        with pytest.raises(TrainingError, match=r"tone\.json"):
            make_trainer(checkpoint=checkpoint, **UNSET).fit()
