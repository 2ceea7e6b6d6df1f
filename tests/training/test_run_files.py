"""Folders that cannot be written to, or hold what must not be lost."""

from __future__ import annotations

import errno
import json
import os

import pytest

from umx_np.train import main
from umx_np.training import TrainingError
from umx_np.training.checkpoint import read_checkpoint
from umx_np.weights import load_torch


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_output_is_a_file(make_trainer, tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(TrainingError, match=r"output=.*cannot be written to"):
        make_trainer().fit()
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_output_is_protected(make_trainer, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(TrainingError, match=r"output=.*cannot be written to"):
        make_trainer().fit()


def test_output_is_looked_at_before_the_data(tiny_command, tmp_path, capsys, monkeypatch):
    (tmp_path / "out").write_text("mine")
    monkeypatch.setattr("umx_np.data.load_datasets", lambda *args: pytest.fail("loaded"))
    assert main(tiny_command) == 1
    assert "cannot be written to" in capsys.readouterr().err


def full_disk(monkeypatch, suffix):
    """Let the disk be full when a file of some kind is written."""
    replace = os.replace

    def fail(source, target):
        if str(target).endswith(suffix):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail)


@pytest.mark.parametrize("suffix", [".chkpnt", ".pth", ".json"])
def test_disk_full_while_saving(make_trainer, tmp_path, monkeypatch, suffix):
    out = tmp_path / "out"
    trainer = make_trainer(epochs=2)
    losses = iter([2.0, 1.0])
    trainer._validate = lambda: next(losses)
    trainer.on_epoch = lambda report: full_disk(monkeypatch, suffix)
    with pytest.raises(TrainingError, match=rf"tone\{suffix} cannot be written: No space left"):
        trainer.fit()
    monkeypatch.undo()
    assert read_checkpoint(out / "tone.chkpnt")["record"]["epoch"] == 2
    assert load_torch(out / "tone.pth")
    assert names(out) == {"tone.chkpnt", "tone.pth", "tone.json", "separator.json"}
    assert make_trainer(epochs=2, checkpoint=out).fit().epochs_trained == 2


@pytest.mark.parametrize("suffix", [".pth", ".json", ".chkpnt"])
def test_disk_full_at_the_end_of_the_first_epoch(make_trainer, tmp_path, monkeypatch, suffix):
    out = tmp_path / "out"
    trainer = make_trainer(epochs=2)
    validate = trainer._validate
    trainer._validate = lambda: (full_disk(monkeypatch, suffix), validate())[1]
    with pytest.raises(TrainingError, match="No space left"):
        trainer.fit()
    monkeypatch.undo()
    found = make_trainer(epochs=2, checkpoint=out).fit()
    assert found.train_losses == make_trainer(epochs=2, output=tmp_path / "b").fit().train_losses


def test_a_picture_that_cannot_be_written_is_no_reason_to_stop(make_trainer, monkeypatch, caplog):
    pytest.importorskip("matplotlib")
    full_disk(monkeypatch, ".png")
    assert make_trainer(plot=True).fit().reason == "epochs"
    assert "tone.png cannot be written" in caplog.text


class TestEarlierRuns:
    def test_are_not_replaced_by_accident(self, make_trainer, tmp_path):
        make_trainer(epochs=1).fit()
        before = (tmp_path / "out" / "tone.chkpnt").read_bytes()
        with pytest.raises(TrainingError, match=r"earlier run.*--checkpoint.*--overwrite"):
            make_trainer(epochs=1).fit()
        assert (tmp_path / "out" / "tone.chkpnt").read_bytes() == before
        make_trainer(epochs=2, overwrite=True).fit()
        assert read_checkpoint(tmp_path / "out" / "tone.chkpnt")["record"]["epoch"] == 3

    def test_nor_are_weights(self, make_trainer, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "tone.pth").write_bytes(b"precious")
        with pytest.raises(TrainingError, match=r"tone\.pth is there already"):
            make_trainer(epochs=1).fit()
        assert (tmp_path / "out" / "tone.pth").read_bytes() == b"precious"

    def test_old_weights_stay_until_there_are_new_ones(self, make_trainer, tmp_path):
        make_trainer(epochs=1).fit()
        before = (tmp_path / "out" / "tone.pth").read_bytes()
        trainer = make_trainer(epochs=1, overwrite=True)
        trainer._train_batch = lambda x, y: (_ for _ in ()).throw(KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            trainer.fit()
        assert (tmp_path / "out" / "tone.pth").read_bytes() == before
        assert not (tmp_path / "out" / "tone.chkpnt").exists()

    def test_weights_in_another_format_do_not_stay_behind(self, make_trainer, tmp_path):
        make_trainer(epochs=1, safetensors=True).fit()
        make_trainer(epochs=1, overwrite=True).fit()
        assert "tone.safetensors" not in names(tmp_path / "out")


class TestSeveralTargets:
    def test_share_a_folder(self, make_trainer, tmp_path):
        make_trainer(epochs=1).fit()
        make_trainer(epochs=1, target="noise").fit()
        found = names(tmp_path / "out")
        assert {"tone.pth", "noise.pth", "separator.json"} <= found

    def test_but_not_with_another_stft(self, make_trainer, tmp_path):
        make_trainer(epochs=1).fit()
        with pytest.raises(TrainingError, match=r"nhop=64 .*\(tone\), this run has nhop=128"):
            make_trainer(epochs=1, target="noise", n_hop=128).fit()
        settings = json.loads((tmp_path / "out" / "separator.json").read_text())
        assert settings["nhop"] == 64
        # Alone, a target may change its mind.
        make_trainer(epochs=1, n_hop=128, overwrite=True).fit()
