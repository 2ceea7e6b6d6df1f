"""The command line: upstream's options and defaults, and those of a run that is continued."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from umx_np.commands.train import COMMAND, given_settings, parse_options
from umx_np.data import add_dataset_options
from umx_np.errors import DeviceError
from umx_np.train import main
from umx_np.training import TrainConfig, TrainingError

from .conftest import tiny_arguments

# Every option of Open-Unmix's scripts/train.py with its default.
UPSTREAM = {
    "target": "vocals",
    "dataset": "musdb",
    "root": None,
    "output": "open-unmix",
    "model": None,
    "checkpoint": None,
    "audio_backend": "soundfile",
    "epochs": 1000,
    "batch_size": 16,
    "lr": 0.001,
    "patience": 140,
    "lr_decay_patience": 80,
    "lr_decay_gamma": 0.3,
    "weight_decay": 0.00001,
    "seed": 42,
    "seq_dur": 6.0,
    "unidirectional": False,
    "nfft": 4096,
    "nhop": 1024,
    "hidden_size": 512,
    "bandwidth": 16000,
    "nb_channels": 2,
    "nb_workers": 0,
    "debug": False,
    "quiet": False,
    "no_cuda": False,
}
# Those of its datasets.
UPSTREAM_DATASETS = {
    "musdb": {
        "is_wav": False,
        "samples_per_track": 64,
        "source_augmentations": ["gain", "channelswap"],
    },
    "aligned": {"input_file": "x.wav", "output_file": "y.wav"},
    "sourcefolder": {
        "interferer_dirs": ["a", "b"],
        "target_dir": "c",
        "ext": ".wav",
        "nb_train_samples": 1000,
        "nb_valid_samples": 100,
        "source_augmentations": None,
    },
    "trackfolder_var": {
        "ext": ".wav",
        "target_file": "c.flac",
        "source_augmentations": None,
        "random_interferer_mix": False,
        "silence_missing": False,
    },
    "trackfolder_fix": {
        "target_file": "c.flac",
        "interferer_files": ["a.flac"],
        "random_track_mix": False,
        "samples_per_track": 1,
        "source_augmentations": None,
    },
}
# Options that are settings of a run, with values that are not their defaults.
GIVEN = {
    "--target": "bass",
    "--output": "o",
    "--model": "m",
    "--epochs": 7,
    "--batch-size": 3,
    "--lr": 0.02,
    "--patience": 5,
    "--lr-decay-patience": 4,
    "--lr-decay-gamma": 0.5,
    "--weight-decay": 0.25,
    "--seed": 9,
    "--seq-dur": 2.5,
    "--unidirectional": True,
    "--nfft": 512,
    "--nhop": 128,
    "--hidden-size": 24,
    "--bandwidth": 8000.0,
    "--nb-channels": 1,
    "--nb-workers": 2,
    "--debug": True,
    "--nb-layers": 2,
    "--optimizer": "adamw",
    "--momentum": 0.75,
    "--lr-schedule": "cosine",
    "--loss": "log-mse",
    "--clip-grad-norm": 1.5,
    "--device": "reference",
    "--threads": 6,
    "--amp": True,
    "--tf32": True,
    "--resident": "no",
    "--checkpoint-every": "500",
    "--safetensors": True,
    "--plot": True,
    "--overwrite": True,
}
# Those that are no settings, or need a run to continue, or turn others off.
ELSEWHERE = {"--audio-backend", "--quiet", "--loader", "--checkpoint", "--no-cuda"}
ELSEWHERE |= {"--no-amp", "--no-tf32", "--no-plot", "-q", "-v", "--verbose"}
REQUIRED = ("input_file", "output_file", "interferer_dirs", "target_dir", "target_file")
REQUIRED += ("interferer_files",)


def arguments_for(values):
    """Command line that gives the options without which a dataset makes no sense."""
    argv = []
    for name, value in values.items():
        if name in REQUIRED:
            argv += ["--" + name.replace("_", "-")]
            argv += value if isinstance(value, list) else [value]
    return argv


@pytest.mark.parametrize("dataset", UPSTREAM_DATASETS)
def test_options_and_defaults_are_upstreams(dataset):
    own = UPSTREAM_DATASETS[dataset]
    argv = [] if dataset == "musdb" else ["--dataset", dataset, *arguments_for(own)]
    args = vars(parse_options(argv))
    expected = {**UPSTREAM, "dataset": dataset, **own}
    if dataset != "musdb":
        expected["target"] = {"aligned": "y"}.get(dataset, "c")
    assert {name: args[name] for name in expected} == expected
    others = set().union(*UPSTREAM_DATASETS.values()) - set(own)
    assert not others & set(args)


def test_defaults_have_one_home():
    args = vars(parse_options([]))
    assert TrainConfig.from_arguments(args) == TrainConfig()
    config = TrainConfig().to_arguments()
    assert {name: args[name] for name in config} == config


def settings_of(*words):
    return vars(TrainConfig.from_arguments(vars(parse_options(list(words)))))


@pytest.mark.parametrize("flag", GIVEN)
def test_every_option_reaches_its_setting(flag, monkeypatch):
    # Whether this machine can do it is not the question.
    monkeypatch.setattr(TrainConfig, "_check_device", lambda self: None)
    value = GIVEN[flag]
    others = ["--optimizer", "sgd"] if flag == "--momentum" else []
    default = settings_of(*others)
    given = settings_of(*others, flag, *([] if value is True else [str(value)]))
    name = flag.removeprefix("--").replace("-", "_")
    name = {"nfft": "n_fft", "nhop": "n_hop", "debug": "statistics"}.get(name, name)
    expected = False if flag == "--debug" else value
    assert default[name] != expected
    assert given == {**default, name: expected}
    assert type(given[name]) is type(expected)


@pytest.mark.parametrize("flag", ["--amp", "--tf32", "--plot"])
def test_switches_can_be_turned_off(flag):
    name = flag.removeprefix("--")
    assert settings_of(f"--no-{name}") == {**settings_of(), name: False}


def test_no_option_is_forgotten():
    datasets = argparse.ArgumentParser()
    add_dataset_options(datasets)
    flags, others = (
        {flag for action in parser._actions for flag in action.option_strings}
        for parser in (COMMAND.parser(), datasets)
    )
    assert flags - others - set(GIVEN) == ELSEWHERE


@pytest.mark.parametrize("loader", [None, "threads", "processes"])
@pytest.mark.parametrize("quiet", [False, True])
def test_what_reaches_the_trainer(tiny_command, monkeypatch, loader, quiet):
    made = []

    class Noted:
        is_running = False

        def __init__(self, config, train, valid, **options):
            made.append((config, train, valid, options))

        def fit(self):
            return SimpleNamespace(reason="epochs")

    monkeypatch.setattr("umx_np.training.trainer.Trainer", Noted)
    argv = [*tiny_command, "--seed", "9", "--nb-workers", "2"]
    argv += ["--loader", loader] if loader else []
    assert main([*argv, "--quiet"] if quiet else argv) == 0
    ((config, train, valid, options),) = made
    assert config == TrainConfig.from_arguments(vars(parse_options(argv)))
    assert (config.seed, config.nb_workers, config.target) == (9, 2, "vocals")
    assert (len(train), len(valid), train.seq_duration) == (5, 2, 0.2)
    assert options.pop("arguments")["target_file"] == "vocals.wav"
    assert options == {
        "progress": not quiet,
        "loader_mode": loader or "threads",
        "given": {
            *("n_fft", "n_hop", "hidden_size", "bandwidth"),
            *("seq_dur", "batch_size", "epochs", "device", "plot", "output", "seed", "nb_workers"),
        },
    }


def test_every_option_is_explained():
    actions = [a for a in COMMAND.parser()._actions if a.option_strings != ["-h", "--help"]]
    assert len(actions) > 40
    assert [a.dest for a in actions if not a.help] == []


def test_help_is_quick_and_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from umx_np.train import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numba', 'scipy', 'matplotlib', 'tqdm', 'musdb', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert result.returncode == 0, result.stderr
    assert "--lr-decay-gamma" in result.stdout


def test_abbreviations_are_not_guessed(capsys):
    # `--target` would else be any of `--target-dir` and `--target-file`.
    with pytest.raises(SystemExit):
        parse_options(["--epoch", "3"])
    assert "--epoch" in capsys.readouterr().err


def test_errors_end_with_a_message(capsys, tmp_path, monkeypatch):
    def absent(index):
        raise DeviceError(f"there is no card {index}")

    monkeypatch.setattr("umx_np.cuda.training.get_cuda_backend", absent)
    missing = ["--dataset", "aligned", "--input-file", "x", "--output-file", "y"]
    for argv, message in (
        (["--amp", "--device", "reference"], "no mixed precision"),
        (["--device", "cuda:2"], "there is no card 2"),
        (["--checkpoint", str(tmp_path)], "holds no checkpoint"),
        ([*missing, "--root", str(tmp_path / "absent"), "--output", str(tmp_path)], "absent"),
    ):
        assert main(argv) == 1
        assert message in capsys.readouterr().err


def test_no_cuda(capsys):
    assert parse_options(["--no-cuda"]).device == "cpu"
    assert parse_options(["--no-cuda", "--device", "auto"]).device == "cpu"
    assert parse_options(["--no-cuda", "--device", "reference"]).device == "reference"
    with pytest.raises(SystemExit):
        parse_options(["--no-cuda", "--device", "cuda:1"])
    assert "--no-cuda contradicts --device cuda:1" in capsys.readouterr().err


def test_a_target_that_is_not_that_of_the_data(tiny_command, capsys):
    with pytest.raises(SystemExit):
        parse_options([*tiny_command, "--target", "drums"])
    assert (
        "--target drums is not what the dataset's options name, vocals" in capsys.readouterr().err
    )
    assert parse_options([*tiny_command, "--target", "vocals"]).target == "vocals"


def test_what_is_given():
    argv = ["--nhop", "1024", "--target", "x", "--lr", "0.001", "--root", "data"]
    assert given_settings(argv) == {"n_hop", "target", "lr"}
    argv = ["--unidirectional", "--bandwidth", "16000", "--no-plot", "--no-amp"]
    assert given_settings(argv) == {"bandwidth", "unidirectional", "plot", "amp"}
    assert given_settings([]) == frozenset()


@pytest.fixture(scope="module")
def first(tracks, tmp_path_factory):
    """The run that others go on with."""
    out = tmp_path_factory.mktemp("first") / "out"
    assert main([*tiny_arguments(tracks, out), "--quiet", "--lr", "0.01"]) == 0
    return out


class TestContinuing:
    """What is not given comes from the run that is continued."""

    @pytest.fixture
    def out(self, first, tmp_path):
        return shutil.copytree(first, tmp_path / "out")

    def test_settings_are_restored(self, out, tiny_command):
        args = vars(parse_options(["--checkpoint", str(out)]))
        first = vars(parse_options([*tiny_command, "--quiet", "--lr", "0.01"]))
        assert args == {**first, "checkpoint": str(out), "output": str(out), "quiet": False}

    def test_options_given_win(self, out):
        args = parse_options(
            ["--checkpoint", str(out), "--epochs", "9", "--target-file", "vocals.wav"]
        )
        assert (args.epochs, args.lr, args.dataset) == (9, 0.01, "trackfolder_var")

    def test_names_with_wildcards_leave_the_target_open(self, tracks, out, tmp_path):
        files = ["--dataset", "aligned", "--root", str(tracks), "--input-file", "dr*.wav"]
        files += ["--output-file", "voc*.wav"]
        other = ["--output", str(tmp_path / "other"), "--target", "singer", "--no-plot"]
        sizes = ["--nfft", "256", "--nhop", "64", "--hidden-size", "8", "--bandwidth", "3000"]
        common = [*files, *sizes, "--seq-dur", "0.2", "--batch-size", "3", "--quiet"]
        assert main([*common, *other, "--epochs", "1", "--device", "reference"]) == 0
        assert (tmp_path / "other" / "singer.pth").exists()
        continued = ["--checkpoint", str(tmp_path / "other"), *files]
        assert parse_options(continued).target == "singer"

    def test_another_network_is_refused_be_it_the_default(self, out, capsys):
        assert main(["--checkpoint", str(out), "--hidden-size", "512", "--epochs", "3"]) == 1
        assert "has --hidden-size 8, not 512" in capsys.readouterr().err

    def test_device_is_asked_for_anew_where_it_was_no_cuda(self, tiny_command, tmp_path):
        command = [*tiny_command, "--quiet", "--no-cuda", "--epochs", "1"]
        assert main(command) == 0
        continued = ["--checkpoint", str(tmp_path / "out")]
        assert parse_options([*continued, "--device", "cuda:1"]).device == "cuda:1"
        assert parse_options([*continued, "--no-cuda"]).device == "reference"

    def test_another_dataset(self, out):
        argv = ["--checkpoint", str(out), "--dataset", "aligned"]
        args = parse_options([*argv, "--input-file", "x.wav", "--output-file", "vocals.wav"])
        assert args.dataset == "aligned"
        assert not hasattr(args, "silence_missing")

    def test_another_target(self, out):
        with pytest.raises(TrainingError, match=r"target='drums'; there is vocals"):
            parse_options(["--checkpoint", str(out), "--target-file", "drums.wav"])

    def test_several_targets(self, out):
        (out / "drums.chkpnt").write_bytes((out / "vocals.chkpnt").read_bytes())
        with pytest.raises(TrainingError, match="target="):
            parse_options(["--checkpoint", str(out)])
        assert parse_options(["--checkpoint", str(out), "--target", "vocals"]).target == "vocals"

    def test_goes_on(self, out, capsys):
        assert main(["--checkpoint", str(out), "--epochs", "3"]) == 0
        assert "epoch 3/3" in capsys.readouterr().err
        results = json.loads((out / "vocals.json").read_text())
        assert results["epochs_trained"] == len(results["valid_loss_history"]) == 3
        assert main(["--checkpoint", str(out), "--epochs", "3"]) == 0
        assert "raise --epochs" in capsys.readouterr().err
