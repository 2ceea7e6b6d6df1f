"""Folders that cannot be written to, or hold what must not be lost."""

from __future__ import annotations

import errno
import json
import os
import shutil

import numpy as np
import pytest

from umx_np.errors import UmxError, WeightsError
from umx_np.train import main
from umx_np.training import TrainingError
from umx_np.training.checkpoint import read_checkpoint
from umx_np.weights import load_folder, load_safetensors, load_torch
from umx_np.weights.replacing import finish_replacements


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


def test_a_level_that_was_added_is_kept(make_trainer, tmp_path):
    make_trainer(epochs=1).fit()
    path = tmp_path / "out" / "separator.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "input_level": -16.0}))
    make_trainer(epochs=2, checkpoint=tmp_path / "out").fit()
    assert load_folder(tmp_path / "out").input_level == -16.0
    make_trainer(target="noise", epochs=1).fit()
    assert load_folder(tmp_path / "out").input_level == -16.0


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
        with pytest.raises(TrainingError, match=r"earlier run.*checkpoint=.*overwrite=True"):
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

    def test_weights_in_another_format_do_not_stay_behind(self, make_trainer, tmp_path):
        make_trainer(epochs=1, safetensors=True).fit()
        make_trainer(epochs=1, overwrite=True).fit()
        assert "tone.safetensors" not in names(tmp_path / "out")


class PowerCutError(BaseException):
    """The end of a process between two system calls."""


# What changes files; a run that is ended before the n-th of them is what a kill leaves behind.
CALLS = ("replace", "unlink", "mkdir", "rmdir")


def cut_before(monkeypatch, number, folder):
    """Let all changes of a folder fail from the n-th on; return a list of those that were done."""
    done = []
    for name in CALLS:
        call = getattr(os, name)

        def counted(path, *args, _call=call, **options):
            if "dir_fd" not in options and not str(path).startswith(str(folder)):
                return _call(path, *args, **options)
            if len(done) >= number:
                raise PowerCutError
            done.append(path)
            return _call(path, *args, **options)

        monkeypatch.setattr(os, name, counted)
    return done


def state_of(folder):
    """The model of a folder, as a user loads it, and which run it is of."""
    bundle = load_folder(folder, ["tone"])
    weights = bundle.targets["tone"]
    stft = (bundle.n_fft, bundle.n_hop, weights.config.hidden_size)
    safetensors = folder / "tone.safetensors"
    if safetensors.exists():
        # Both hold the same weights.
        other = load_safetensors(safetensors)
        for name, value in weights.state.items():
            np.testing.assert_array_equal(other[name], value)
    return stft, weights.state["fc1.weight"].tobytes(), safetensors.exists()


class TestOverwriting:
    """The old model is whole until there is a new one, whole as well."""

    NEW = {"n_fft": 128, "n_hop": 32, "hidden_size": 6, "seed": 7}  # noqa: RUF012

    @pytest.fixture(params=[False, True])
    def old(self, make_trainer, tmp_path, request):
        make_trainer(epochs=1, safetensors=request.param).fit()
        (tmp_path / "out" / "tone.png").write_bytes(b"the old picture")
        return tmp_path / "out"

    def test_a_run_that_fails_leaves_all_as_it_was(self, make_trainer, old):
        before = {path.name: path.read_bytes() for path in old.iterdir()}
        for settings in ({"n_hop": 32}, self.NEW):
            trainer = make_trainer(epochs=1, overwrite=True, **settings)
            trainer._train_batch = lambda x, y: (_ for _ in ()).throw(KeyboardInterrupt)
            with pytest.raises(KeyboardInterrupt):
                trainer.fit()
            assert {path.name: path.read_bytes() for path in old.iterdir()} == before
            assert trainer._files.what_is_left() == "There is no checkpoint yet."

    def test_so_does_one_without_any_good_epoch(self, make_trainer, old):
        before = state_of(old)
        results = (old / "tone.json").read_bytes()
        trainer = make_trainer(epochs=2, overwrite=True, **self.NEW)
        trainer._validate = lambda: float("nan")
        trainer.fit()
        assert state_of(old) == before
        assert (old / "tone.json").read_bytes() == results
        # The checkpoint is of the new run, and what it comes to replaces the old model.
        make_trainer(epochs=3, checkpoint=old, **self.NEW).fit()
        assert state_of(old)[0] == (128, 32, 6)
        assert not (old / "tone.png").exists()

    @pytest.mark.slow
    def test_ended_at_any_step(self, make_trainer, old, tmp_path, monkeypatch):
        safetensors = not (old / "tone.safetensors").exists()
        saved = tmp_path / "saved"
        shutil.copytree(old, saved)
        before = state_of(old)
        settings = {**self.NEW, "epochs": 1, "safetensors": safetensors}
        make_trainer(output=tmp_path / "alone", **settings).fit()
        after = state_of(tmp_path / "alone")
        assert after[0] == (128, 32, 6)
        found = []
        for number in range(200):
            shutil.rmtree(old)
            shutil.copytree(saved, old)
            trainer = make_trainer(overwrite=True, **settings)
            with monkeypatch.context() as patch:
                cut_before(patch, number, old)
                try:
                    trainer.fit()
                    ended = True
                except PowerCutError:
                    ended = False
            try:
                found.append(state_of(old))
            except UmxError as error:
                pytest.fail(f"after {number} changes: {error}, {names(old)}")
            assert found[-1] in (before, after), number
            if ended:
                break
        assert ended
        assert found[0] == before
        assert found[-1] == after
        assert found == sorted(found, key=lambda state: state == after)
        assert not [name for name in names(old) if "replacing" in name or name == "tone.png"]

    @pytest.mark.slow
    def test_ended_at_any_step_and_continued(self, make_trainer, old, tmp_path, monkeypatch):
        settings = {**self.NEW, "epochs": 2}
        make_trainer(output=tmp_path / "alone", **settings).fit()
        saved = tmp_path / "saved"
        shutil.copytree(old, saved)
        continued = 0
        for number in range(4, 40, 5):
            shutil.rmtree(old)
            shutil.copytree(saved, old)
            with monkeypatch.context() as patch:
                cut_before(patch, number, old)
                try:
                    make_trainer(overwrite=True, **settings).fit()
                    break
                except PowerCutError:
                    pass
            before = read_checkpoint(old / "tone.chkpnt")["config"]
            if before["nfft"] == 256:
                continue  # still the old run
            make_trainer(checkpoint=old, **settings).fit()
            for name in ("tone.pth", "separator.json"):
                assert (old / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
            continued += 1
        assert continued

    @pytest.mark.slow
    def test_with_a_run_from_another_folder(self, make_trainer, old, tmp_path, monkeypatch):
        first = tmp_path / "first"
        make_trainer(output=first, epochs=1, **self.NEW).fit()
        saved, before, after = tmp_path / "saved", state_of(old), state_of(first)
        shutil.copytree(old, saved)
        for number in range(40):
            shutil.rmtree(old)
            shutil.copytree(saved, old)
            trainer = make_trainer(checkpoint=first, overwrite=True, epochs=2, **self.NEW)
            trainer._validate = lambda: 1e9
            with monkeypatch.context() as patch:
                cut_before(patch, number, old)
                try:
                    trainer.fit()
                    ended = True
                except PowerCutError:
                    ended = False
            assert state_of(old) in (before, after), number
            if ended:
                break
        assert state_of(old) == after
        assert read_checkpoint(old / "tone.chkpnt")["record"]["epoch"] == 3

    def test_what_others_say_of_the_folder_stays(self, make_trainer, old):
        make_trainer(epochs=1, target="noise").fit()
        path = old / "separator.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "license": "CC BY"}))
        make_trainer(epochs=1, overwrite=True, seed=7).fit()
        assert json.loads(path.read_text())["license"] == "CC BY"

    def test_only_files_of_the_target_are_touched(self, tmp_path):
        folder = tmp_path / "hostile"
        staging = folder / ".tone.replacing"
        staging.mkdir(parents=True)
        (tmp_path / "mine").write_text("precious")
        (folder / "noise.pth").write_text("precious")
        (staging / "complete").write_text(json.dumps(["../mine", "noise.pth", 3]))
        (staging / "noise.pth").write_text("other")
        finish_replacements(folder)
        assert (tmp_path / "mine").read_text() == "precious"
        assert (folder / "noise.pth").read_text() == "precious"
        (staging).mkdir()
        (staging / "complete").write_text("[")
        with pytest.raises(WeightsError, match="is damaged"):
            finish_replacements(folder)


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
        (tmp_path / "out" / "tone.pth").rename(tmp_path / "out" / "tone.safetensors")
        with pytest.raises(TrainingError, match=r"\(tone\), this run has nhop=128"):
            make_trainer(epochs=1, target="noise", n_hop=128).fit()
        # What is damaged is said as where a model is loaded, and nothing is written over it.
        described = tmp_path / "out" / "separator.json"
        good = described.read_text()
        described.write_text('{"nfft": 256, "nfft": 256}')
        with pytest.raises(TrainingError, match=r"separator\.json.*nfft"):
            make_trainer(epochs=1, target="noise").fit()
        described.unlink()
        described.symlink_to(tmp_path / "nowhere")
        with pytest.raises(TrainingError, match=r"separator\.json.* cannot be read"):
            make_trainer(epochs=1, target="noise").fit()
        described.unlink()
        described.write_text(good)
        # Alone, a target may change its mind.
        make_trainer(epochs=1, n_hop=128, overwrite=True).fit()


class TestTwoRuns:
    """Of one target in one folder at the same time."""

    def test_the_second_is_refused(self, make_trainer, tmp_path):
        refused = []

        def try_another(_):
            for settings in ({"overwrite": True}, {"checkpoint": str(tmp_path / "out")}):
                with pytest.raises(TrainingError, match="another run trains target='tone'"):
                    make_trainer(**settings).fit()
                refused.append(settings)
            make_trainer(target="other", epochs=1).fit()

        make_trainer(options={"on_epoch": try_another}, epochs=1).fit()
        assert len(refused) == 2
        assert not list(tmp_path.glob("out/.*"))
        make_trainer(checkpoint=str(tmp_path / "out"), epochs=2).fit()
