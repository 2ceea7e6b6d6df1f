"""What is set for the rest of a run is meant, and what is not set does not change by itself."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from umx_np.errors import ConfigError
from umx_np.train import main
from umx_np.training.checkpoint import read_checkpoint, write_checkpoint

from .conftest import rates_of
from .test_resume import PowerCutError, assert_same_run, cut_after


def run(make_trainer, *, given=(), valid_loss=1.0, **settings):
    trainer = make_trainer(options={"given": given}, **settings)
    rates = rates_of(trainer)
    trainer._validate = lambda: valid_loss
    trainer.fit()
    return rates


class TestRateOnAPlateau:
    LOWERED = {"lr_decay_patience": 0, "lr": 0.1}  # noqa: RUF012

    @pytest.fixture
    def out(self, make_trainer, tmp_path):
        """A run whose rate has come to 0.03."""
        run(make_trainer, epochs=2, **self.LOWERED)
        return tmp_path / "out"

    def test_the_first_rate_given_again_is_meant(self, make_trainer, out, caplog):
        rates = run(make_trainer, epochs=3, checkpoint=out, given=["lr"], **self.LOWERED)
        assert rates == [0.1] * 3
        assert "lr changes from 0.03 to 0.1" in caplog.text

    def test_what_is_not_given_goes_on(self, make_trainer, out, caplog):
        rates = run(make_trainer, epochs=3, checkpoint=out, given=["epochs"], **self.LOWERED)
        assert rates == pytest.approx([0.03] * 3)
        assert "lr changes" not in caplog.text

    def test_the_rate_it_has_come_to(self, make_trainer, out, caplog):
        reached = float(read_checkpoint(out / "tone.chkpnt")["optimizer"]["lr"])
        rates = run(make_trainer, epochs=3, checkpoint=out, **{**self.LOWERED, "lr": reached})
        assert rates == [reached] * 3
        assert "lr changes" not in caplog.text

    def test_from_the_command_line(self, tiny_command, tmp_path, capsys):
        out = tmp_path / "out"
        assert main([*tiny_command, "--quiet", "--lr", "0.001"]) == 0
        tree = read_checkpoint(out / "vocals.chkpnt")
        tree["optimizer"]["lr"] = np.array(0.0003)
        write_checkpoint(out / "vocals.chkpnt", tree)
        assert main(["--checkpoint", str(out), "--epochs", "3"]) == 0
        assert float(read_checkpoint(out / "vocals.chkpnt")["optimizer"]["lr"]) == 0.0003
        # The default, and the value of the run: neither is a reason not to mean it.
        assert main(["--checkpoint", str(out), "--epochs", "4", "--lr", "0.001"]) == 0
        assert float(read_checkpoint(out / "vocals.chkpnt")["optimizer"]["lr"]) == 0.001
        assert "lr changes from 0.0003 to 0.001" in capsys.readouterr().err


class TestRateOnACosine:
    COSINE = {"lr_schedule": "cosine", "lr": 0.1}  # noqa: RUF012

    def test_a_finished_run_does_not_jump(self, make_trainer, tmp_path):
        run(make_trainer, epochs=2, **self.COSINE)
        with pytest.raises(ConfigError, match=r"came to zero with epoch 2.*epochs=4, set lr="):
            run(make_trainer, epochs=4, checkpoint=tmp_path / "out", **self.COSINE)
        assert read_checkpoint(tmp_path / "out/tone.chkpnt")["record"]["epoch"] == 3

    def test_a_finished_run_goes_on_with_a_rate(self, make_trainer, tmp_path, caplog):
        run(make_trainer, epochs=2, **self.COSINE)
        settings = {"epochs": 4, "checkpoint": tmp_path / "out", "given": ["lr"]}
        rates = run(make_trainer, **settings, **self.COSINE)
        angle = np.pi * np.arange(6) / 6
        np.testing.assert_allclose(rates, 0.05 * (1.0 + np.cos(angle)), rtol=1e-12)
        assert "falls from 0.1 now to zero at the end of epoch 4" in caplog.text

    @pytest.mark.parametrize("epochs", [3, 6])
    def test_another_length_falls_from_where_it_is(self, make_trainer, tmp_path, caplog, epochs):
        trainer = make_trainer(epochs=4, checkpoint_every="1", **self.COSINE)
        first = rates_of(trainer)
        cut_after(trainer, 7)
        with pytest.raises(PowerCutError):
            trainer.fit()
        rates = run(make_trainer, epochs=epochs, checkpoint=tmp_path / "out", **self.COSINE)
        assert len(rates) == 3 * epochs - 7
        reached = 0.05 * (1.0 + np.cos(np.pi * 7 / 12))
        assert rates[0] == pytest.approx(reached, rel=1e-12)
        assert np.all(np.diff([*first, *rates]) < 0.0)
        assert f"to zero at the end of epoch {epochs}" in caplog.text

    def test_and_is_resumed_to_the_bit(self, make_trainer, tmp_path):
        for name in ("a", "b"):
            run(make_trainer, epochs=2, output=tmp_path / name, **self.COSINE)
            settings = {"epochs": 4, "checkpoint": tmp_path / name, "output": tmp_path / name}
            settings |= {"checkpoint_every": "1", **self.COSINE}
            trainer = make_trainer(options={"given": ["lr"]}, **settings)
            if name == "b":
                cut_after(trainer, 4)
                with pytest.raises(PowerCutError):
                    trainer.fit()
                # With or without saying the rate once more: it is the same curve.
                trainer = make_trainer(options={"given": ["lr"]}, **settings)
                cut_after(trainer, 1)
                with pytest.raises(PowerCutError):
                    trainer.fit()
                trainer = make_trainer(**settings)
            trainer.fit()
        assert_same_run(tmp_path / "b", tmp_path / "a")

    def test_another_schedule_does_not_jump(self, make_trainer, tmp_path):
        run(make_trainer, epochs=2, lr=0.1, lr_decay_patience=0)
        settings = {"checkpoint": tmp_path / "out", "lr": 0.1}
        rates = run(make_trainer, epochs=4, lr_schedule="cosine", **settings)
        assert rates[0] == pytest.approx(0.03)
        assert np.all(np.diff(rates) < 0.0)
        with pytest.raises(ConfigError, match="set lr="):
            run(make_trainer, epochs=5, **settings)

    def test_checkpoints_of_earlier_versions_have_one_curve(self, make_trainer, tmp_path):
        whole = run(make_trainer, epochs=3, output=tmp_path / "whole", **self.COSINE)
        trainer = make_trainer(epochs=3, checkpoint_every="1", **self.COSINE)
        cut_after(trainer, 4)
        with pytest.raises(PowerCutError):
            trainer.fit()
        path = tmp_path / "out/tone.chkpnt"
        tree = read_checkpoint(path)
        del tree["cosine"]
        write_checkpoint(path, tree)
        assert run(make_trainer, epochs=3, checkpoint=tmp_path / "out", **self.COSINE) == whole[4:]


class TestOtherSettings:
    @pytest.mark.parametrize(
        "changed",
        [
            {"patience": 7},
            {"lr_decay_patience": 3},
            {"lr_decay_gamma": 0.5},
            {"weight_decay": 0.0},
            {"clip_grad_norm": 1.0},
            {"epochs": 3},
            {"lr_schedule": "cosine"},
        ],
    )
    def test_are_told_of(self, make_trainer, tmp_path, caplog, changed):
        make_trainer(epochs=2).fit()
        make_trainer(**{"epochs": 2, **changed}, checkpoint=tmp_path / "out").fit()
        assert f"{next(iter(changed))} changes from" in caplog.text

    def test_rounding_is_told_of(self, make_trainer, tmp_path, caplog):
        make_trainer(epochs=1).fit()
        path = tmp_path / "out/tone.chkpnt"
        tree = read_checkpoint(path)
        tree["config"]["tf32"] = True
        write_checkpoint(path, tree)
        make_trainer(epochs=1, checkpoint=tmp_path / "out").fit()
        assert "tf32 changes from True to False" in caplog.text

    def test_options_of_the_data(self, make_trainer, tmp_path, caplog):
        caplog.set_level(logging.WARNING)
        before = {"root": "a", "source_augmentations": ["gain"], "cache": None, "lr": 1.0}
        trainer = make_trainer(options={"arguments": before}, checkpoint_every="1")
        cut_after(trainer, 4)
        with pytest.raises(PowerCutError):
            trainer.fit()
        now = {**before, "source_augmentations": ["channelswap"], "cache": tmp_path, "lr": 2.0}
        make_trainer(options={"arguments": now}, checkpoint=tmp_path / "out").fit()
        assert "source_augmentations changed: the excerpts to come are others" in caplog.text
        assert "epoch 2 begins again" in caplog.text

    def test_the_same_options_are_no_change(self, make_trainer, tmp_path, caplog):
        options = {"arguments": {"root": tmp_path, "source_augmentations": ["gain"], "seed": 1}}
        make_trainer(options=options, epochs=1).fit()
        make_trainer(options=options, epochs=1, checkpoint=tmp_path / "out").fit()
        assert "changed" not in caplog.text
