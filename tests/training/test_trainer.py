"""Runs on tones: what is learned, recorded and told."""

from __future__ import annotations

import math

import numpy as np
import pytest

import umx_np
from umx_np.config import ModelConfig
from umx_np.data import DataError, Loader, get_statistics
from umx_np.devices import get_backend
from umx_np.errors import ConfigError
from umx_np.nn import TrainableNetwork, log_mse_loss, mse_loss
from umx_np.optim import SGD, Adam
from umx_np.training import TrainConfig, Trainer, TrainingError
from umx_np.training.spectra import BatchMagnitudes, mean_squared_error
from umx_np.training.steps import dropout_rng
from umx_np.weights import load_folder, load_torch

from .conftest import RATE, TINY, Tones, rates_of, results_of, with_valid_losses


class TestLearning:
    def test_losses_fall(self, make_trainer):
        result = make_trainer(epochs=25, lr=0.02).fit()
        assert result.reason == "epochs"
        assert result.epochs_trained == 25
        assert result.train_losses[-1] < 0.3 * result.train_losses[0]
        assert result.valid_losses[-1] < 0.3 * result.valid_losses[0]
        assert result.best_loss == min(result.valid_losses)

    @pytest.mark.parametrize(
        "settings",
        [
            {"optimizer": "sgd", "lr": 1e-3, "momentum": 0.9},
            {"optimizer": "adamw", "weight_decay": 0.01},
            {"clip_grad_norm": 0.1},
            {"loss": "log-mse"},
            {"unidirectional": True, "nb_layers": 1},
            {"nb_channels": 1},
            {"nb_workers": 2},
            {"seq_dur": 0.0},
            {"threads": 1},
        ],
        ids=str,
    )
    def test_other_settings(self, make_trainer, settings):
        trainer = make_trainer(**settings)
        first = trainer.fit()
        assert all(map(math.isfinite, first.train_losses + first.valid_losses))
        config = trainer.model_config
        assert config.unidirectional == settings.get("unidirectional", False)
        assert config.nb_layers == settings.get("nb_layers", 3)
        assert config.nb_channels == settings.get("nb_channels", 2)
        bundle = load_folder(trainer.config.folder)
        assert bundle.targets["tone"].config == config

    def test_compiled_kernels_do_the_same(self, make_trainer, tmp_path):
        pytest.importorskip("numba")
        slow = make_trainer(output=tmp_path / "slow").fit()
        quick = make_trainer(output=tmp_path / "quick", device="cpu").fit()
        np.testing.assert_allclose(quick.train_losses, slow.train_losses, rtol=1e-4)
        np.testing.assert_allclose(quick.valid_losses, slow.valid_losses, rtol=1e-4)

    def test_mixed_precision(self, make_trainer, tmp_path):
        gemm = pytest.importorskip("umx_np.numba_engine.gemm")
        if not gemm.has_pairs():
            pytest.skip("needs AVX512-BF16")
        full = make_trainer(output=tmp_path / "full", device="cpu").fit()
        mixed = make_trainer(output=tmp_path / "mixed", device="cpu", amp=True).fit()
        assert mixed.train_losses != full.train_losses
        np.testing.assert_allclose(mixed.train_losses, full.train_losses, rtol=0.02)
        np.testing.assert_allclose(mixed.valid_losses, full.valid_losses, rtol=0.02)

    def test_the_steps_are_those_of_the_parts(self, make_trainer):
        """One epoch written out by hand."""
        data = Tones()
        trainer = make_trainer(data, epochs=1, clip_grad_norm=5.0)
        result = trainer.fit()

        config = trainer.config
        mean, std = get_statistics(data, config.n_fft, config.n_hop, seed=config.seed)
        model = umx_np.OpenUnmix(
            129, 2, 8, input_mean=mean, input_scale=std, max_bin=97, seed=config.seed
        )
        network = TrainableNetwork(model.config, model.state_dict(), backend="reference")
        optimizer = Adam(network.parameters, config.lr, weight_decay=config.weight_decay)
        spectra = BatchMagnitudes(256, 64, 2, get_backend("cpu"))
        total = 0.0
        batches = Loader(data, 3, seed=config.seed, shuffle=True).epoch(0)
        for index, (x, y) in enumerate(batches):
            estimate, cache = network.forward(spectra(x), rng=dropout_rng(config.seed, 1, index))
            loss, d_estimate = mse_loss(estimate, spectra(y))
            gradients = network.backward(d_estimate, cache)
            norm = math.sqrt(sum(float(np.sum(g.astype(float) ** 2)) for g in gradients.values()))
            scale = np.float32(min(1.0, 5.0 / (norm + 1e-6)))
            optimizer.step({name: g * scale for name, g in gradients.items()})
            total += loss * len(x)
        # The short last batch counts as the one sample that it is.
        assert result.train_losses[0] == pytest.approx(total / len(data), rel=1e-6)
        for name, array in network.state_dict().items():
            np.testing.assert_allclose(
                trainer.network.state_dict()[name], array, rtol=1e-4, atol=1e-6, err_msg=name
            )

    @pytest.mark.parametrize(
        ("settings", "kind", "options"),
        [
            ({"optimizer": "adam"}, Adam, {}),
            ({"optimizer": "adamw"}, Adam, {"decoupled": True}),
            ({"optimizer": "sgd"}, SGD, {}),
            ({"optimizer": "sgd", "momentum": 0.9}, SGD, {"momentum": 0.9}),
        ],
        ids=["adam", "adamw", "sgd", "momentum"],
    )
    def test_optimizers(self, make_trainer, monkeypatch, settings, kind, options):
        """The gradients of an epoch lead the optimiser of that name to the same weights."""
        start, gradients, step = {}, [], kind.step

        def noted(self, grads):
            if not gradients:
                start.update({name: array.copy() for name, array in self.parameters.items()})
            gradients.append({name: array.copy() for name, array in grads.items()})
            step(self, grads)

        monkeypatch.setattr(kind, "step", noted)
        trainer = make_trainer(epochs=1, lr=2e-3, weight_decay=0.5, **settings)
        trainer.fit()
        monkeypatch.undo()
        assert len(gradients) == 3
        optimizer = kind(start, lr=2e-3, weight_decay=0.5, backend="reference", **options)
        for grads in gradients:
            optimizer.step(grads)
        for name, array in start.items():
            np.testing.assert_array_equal(trainer.network.parameters[name], array, err_msg=name)

    def test_validation_is_in_evaluation_mode_and_always_the_same(self, make_trainer):
        valid = Tones(3)
        trainer = make_trainer(valid=valid, epochs=1)
        result = trainer.fit()
        spectra = BatchMagnitudes(256, 64, 2, get_backend("cpu"))
        losses = []
        for x, y in Loader(valid, 1, seed=trainer.config.seed, shuffle=False).epoch(0):
            estimate, _ = trainer.network.forward(spectra(x), training=False)
            losses.append(mean_squared_error(estimate, spectra(y)))
        assert result.valid_losses[0] == pytest.approx(np.mean(losses), rel=1e-5)

    def test_logarithmic_loss(self, make_trainer):
        result = make_trainer(epochs=25, lr=0.02, loss="log-mse").fit()
        # In dB below the mixtures: the tone is found where the noise was.
        assert result.train_losses[-1] < result.train_losses[0] - 2.0
        assert result.valid_losses[-1] < result.valid_losses[0] - 2.0

    def test_validation_of_the_logarithmic_loss_goes_by_excerpts(self, make_trainer):
        valid = Tones(2, nb_timesteps=5000)
        trainer = make_trainer(valid=valid, epochs=1, loss="log-mse", seq_dur=0.25)
        result = trainer.fit()
        spectra = BatchMagnitudes(256, 64, 2, get_backend("cpu"))
        length = 1 + (RATE // 4 - 256) // 64
        losses = []
        for x, y in Loader(valid, 1, seed=trainer.config.seed, shuffle=False).epoch(0):
            mixture, target = spectra(x), spectra(y)
            estimate, _ = trainer.network.forward(mixture, training=False)
            parts = range(0, len(mixture), length)
            losses.append(
                np.mean(
                    [
                        log_mse_loss(*(a[k : k + length] for a in (estimate, target, mixture)))[0]
                        for k in parts
                    ]
                )
            )
        assert result.valid_losses[0] == pytest.approx(np.mean(losses), rel=1e-5)

    def test_validation_of_the_logarithmic_loss_of_whole_tracks(self, make_trainer):
        settings = {"epochs": 1, "loss": "log-mse", "batch_size": 1}
        whole = make_trainer(**settings, seq_dur=0.0).fit()
        # One excerpt, at least as long as the tracks.
        assert whole == make_trainer(**settings, seq_dur=9.0, overwrite=True).fit()

    def test_seeds_tell_runs_apart(self, make_trainer, tmp_path):
        runs = [
            make_trainer(output=tmp_path / str(k), seed=seed).fit().train_losses
            for k, seed in enumerate((1, 1, 2))
        ]
        assert runs[0] == runs[1] != runs[2]

    def test_dropout_depends_on_the_place_only(self):
        draws = {
            place: dropout_rng(*place).random()
            for place in [(1, 1, 0), (1, 1, 1), (1, 2, 0), (2, 1, 0)]
        }
        assert len(set(draws.values())) == 4
        assert dropout_rng(1, 2, 0).random() == draws[1, 2, 0]


class TestStatistics:
    def test_are_taken_from_the_data(self, make_trainer):
        trainer = make_trainer(epochs=1, lr=1e-9)
        trainer.fit()
        mean, std = get_statistics(Tones(), 256, 64, seed=42)
        state = trainer.network.state_dict()
        np.testing.assert_allclose(state["input_mean"], -mean[:97], rtol=1e-4)
        np.testing.assert_allclose(state["input_scale"], 1.0 / std[:97], rtol=1e-4)

    def test_are_skipped_on_request(self, make_trainer):
        trainer = make_trainer(epochs=1, lr=1e-9, statistics=False)
        trainer.fit()
        state = trainer.network.state_dict()
        np.testing.assert_allclose(state["input_mean"], 0.0, atol=1e-6)
        np.testing.assert_allclose(state["input_scale"], 1.0, atol=1e-6)

    def test_bandwidth_sets_the_width(self, make_trainer):
        trainer = make_trainer(epochs=1, bandwidth=1000.0)
        trainer.fit()
        assert trainer.model_config.max_bin == 33


class TestSchedule:
    def test_learning_rate_falls_on_a_plateau(self, make_trainer):
        trainer = with_valid_losses(
            make_trainer(epochs=16, lr_decay_patience=1, lr=0.1), [1.0] * 16
        )
        rates = []
        trainer.on_epoch = lambda report: rates.append(report.lr)
        trainer.fit()
        # Two bad epochs, then ten that do not count, then two again.
        assert rates[:2] == [0.1, 0.1]
        assert rates[2:14] == pytest.approx([0.03] * 12)
        assert rates[14:] == pytest.approx([0.009] * 2)

    def test_learning_rate_falls_along_a_cosine(self, make_trainer):
        trainer = make_trainer(epochs=4, lr_schedule="cosine", lr_decay_patience=0, lr=0.1)
        trainer = with_valid_losses(trainer, [1.0] * 4)
        rates = rates_of(trainer)
        trainer.fit()
        nb_steps = 4 * len(trainer._train_loader)
        assert len(rates) == nb_steps > 4
        angle = np.pi * np.arange(nb_steps) / nb_steps
        np.testing.assert_allclose(rates, 0.05 * (1.0 + np.cos(angle)), rtol=1e-12)

    def test_early_stopping(self, make_trainer):
        losses = [5.0, 3.0, 4.0, math.nan, 3.5, 1.0]
        trainer = with_valid_losses(make_trainer(epochs=9, patience=3), losses)
        result = trainer.fit()
        assert (result.reason, result.epochs_trained, result.best_epoch) == ("patience", 5, 2)
        results = results_of(trainer.config.folder)
        assert (results["num_bad_epochs"], results["best_loss"]) == (3, 3.0)
        # Continued, it is still over, unless more patience is asked for.
        again = make_trainer(epochs=9, patience=3, checkpoint=trainer.config.output).fit()
        assert (again.reason, again.epochs_trained) == ("patience", 5)
        more = make_trainer(epochs=9, patience=4, checkpoint=trainer.config.output)
        assert with_valid_losses(more, [9.0]).fit().epochs_trained == 6

    def test_no_patience_means_never(self, make_trainer):
        trainer = with_valid_losses(make_trainer(epochs=4, patience=0), [1.0, 2.0, 3.0, 4.0])
        assert trainer.fit().reason == "epochs"

    def test_a_validation_loss_that_is_no_number(self, make_trainer, caplog):
        trainer = make_trainer(epochs=1)
        trainer.fit()
        trainer.valid_dataset.sample = lambda index, rng: (
            np.full((2, 2000), 3e38, np.float32),
            np.zeros((2, 2000), np.float32),
        )
        trainer.config = trainer.config.with_(checkpoint=trainer.config.output, epochs=2)
        trainer._valid_loader.dataset = trainer.valid_dataset
        with np.errstate(all="ignore"), pytest.raises(DataError, match="NaN or infinity"):
            trainer.fit()

    def test_first_epoch_without_a_loss_is_not_the_best(self, make_trainer):
        trainer = with_valid_losses(make_trainer(epochs=2), [math.nan, 2.0])
        result = trainer.fit()
        assert (result.best_epoch, result.best_loss) == (2, 2.0)


class TestDivergence:
    def test_stops_and_names_the_excerpts(self, make_trainer):
        trainer = make_trainer(optimizer="sgd", lr=1e30, epochs=5)
        with pytest.raises(
            TrainingError, match=r"(?s)epoch 1: the loss of batch \d is (nan|inf).*tone \d, tone"
        ):
            trainer.fit()

    def test_last_good_checkpoint_stays(self, make_trainer):
        trainer = make_trainer()
        trainer.fit()
        checkpoint = trainer.config.folder / "tone.chkpnt"
        before = checkpoint.read_bytes()
        again = make_trainer(checkpoint=trainer.config.output, epochs=9, lr=1e30)
        with pytest.raises(TrainingError, match=r"The last checkpoint is .*tone\.chkpnt.*lr="):
            again.fit()
        assert checkpoint.read_bytes() == before
        assert load_torch(trainer.config.folder / "tone.pth")

    def test_gradients_without_end(self, make_trainer, monkeypatch):
        monkeypatch.setattr("umx_np.training.steps.clip_grad_norm", lambda grads, norm: math.inf)
        with pytest.raises(TrainingError, match="gradient of batch 1 is inf"):
            make_trainer(clip_grad_norm=1.0).fit()

    def test_weights_are_looked_at_before_they_are_saved(self, make_trainer, monkeypatch):
        step = Adam.step

        def spoil(self, gradients):
            step(self, gradients)
            self.parameters["fc1.weight"][0, 0] = np.nan

        monkeypatch.setattr(Adam, "step", spoil)
        with pytest.raises(TrainingError, match=r"fc1\.weight holds NaN"):
            make_trainer(Tones(3)).fit()

    def test_data_that_is_no_number_is_named(self, make_trainer):
        class Broken(Tones):
            def sample(self, index, rng):
                x, y = super().sample(index, rng)
                if index == 4:
                    x[0, 7] = np.nan
                return x, y

        trainer = make_trainer(Broken(), statistics=False)
        with pytest.raises(DataError, match=r"tone 4.*NaN"):
            trainer.fit()


class TestData:
    @pytest.mark.parametrize("mode", [None, "processes"])
    def test_who_makes_the_batches(self, make_trainer, mode):
        options = {"loader_mode": mode} if mode else {}
        trainer = make_trainer(nb_workers=2, seed=9, options=options)
        for loader in (trainer._train_loader, trainer._valid_loader):
            assert (loader.mode, loader.workers, loader.seed) == (mode or "threads", 2, 9)

    def test_empty(self, make_trainer):
        with pytest.raises(ConfigError, match="training set is empty"):
            make_trainer(Tones(0))
        with pytest.raises(ConfigError, match="validation set is empty"):
            make_trainer(valid=Tones(0))

    def test_rates_differ(self, make_trainer):
        other = Tones()
        other.sample_rate = 16000.0
        with pytest.raises(ConfigError, match=r"8000 Hz.*16000 Hz"):
            make_trainer(valid=other)

    def test_mono_data_for_a_stereo_network(self, make_trainer):
        with pytest.raises(umx_np.errors.UmxError, match="force_stereo"):
            make_trainer(Tones(nb_channels=1), statistics=False).fit()

    def test_excerpts_without_a_frame(self, make_trainer):
        with pytest.raises(umx_np.errors.UmxError, match="n_fft=256"):
            make_trainer(Tones(nb_timesteps=200), statistics=False).fit()
        with pytest.raises(DataError, match=r"validation, tone 0: .*n_fft=256"):
            make_trainer(valid=Tones(nb_timesteps=200), statistics=False).fit()

    @pytest.mark.parametrize("damage", ["short", "unreadable"])
    def test_validation_items_are_looked_at_before_the_first_epoch(self, make_trainer, damage):
        class OneBad(Tones):
            def sample(self, index, rng):
                x, y = super().sample(index, rng)
                if index < 2:
                    return x, y
                if damage == "short":
                    return x[:, :200], y[:, :200]
                raise umx_np.errors.AudioError("path='a.wav' cannot be read")

        class Untouched(Tones):
            def sample(self, index, rng):
                raise AssertionError("training has begun")

        trainer = make_trainer(Untouched(), valid=OneBad(3), statistics=False)
        with pytest.raises(DataError, match=r"validation, tone 2: .*n_fft=256|a.wav"):
            trainer.fit()

    def test_an_error_in_the_middle_leaves_the_last_checkpoint(self, make_trainer):
        class Failing(Tones):
            broken = False

            def sample(self, index, rng):
                if self.broken:
                    raise umx_np.errors.AudioError("path='a.wav' cannot be read")
                return super().sample(index, rng)

        data = Failing()

        def break_it(report):
            data.broken = True

        trainer = make_trainer(data, options={"on_epoch": break_it})
        with pytest.raises(DataError, match=r"a\.wav"):
            trainer.fit()
        data.broken = False
        result = make_trainer(data, checkpoint=trainer.config.output).fit()
        assert result.epochs_trained == 2


def test_python_api_needs_no_command_line(tmp_path):
    """As in the documentation: nothing but a configuration and two datasets."""
    config = TrainConfig(**{**TINY, "target": "tone", "output": str(tmp_path), "epochs": 1})
    result = Trainer(config, Tones(), Tones(2)).fit()
    assert result.epochs_trained == 1
    assert ModelConfig(129, 2, 8, max_bin=97) == load_folder(tmp_path).targets["tone"].config
