"""Options: upstream's names and defaults, and complaints about what does not fit."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path

import pytest

from umx_np.data import (
    AlignedDataset,
    FixedSourcesTrackFolderDataset,
    SourceFolderDataset,
    VariableSourcesTrackFolderDataset,
    add_dataset_options,
    aug_from_str,
    load_datasets,
    parse_dataset_options,
)
from umx_np.errors import ConfigError

from .conftest import Tree

NEEDED = {
    "musdb": [],
    "aligned": ["--input-file", "mix.wav", "--output-file", "a/voice.wav"],
    "sourcefolder": ["--interferer-dirs", "bass", "drums", "--target-dir", "voice"],
    "trackfolder_var": ["--target-file", "voice.flac"],
    "trackfolder_fix": ["--target-file", "voice.wav", "--interferer-files", "a.wav", "b.wav"],
}
DEFAULTS = {
    "musdb": {
        "is_wav": False,
        "samples_per_track": 64,
        "source_augmentations": ["gain", "channelswap"],
        "target": "vocals",
    },
    "aligned": {"input_file": "mix.wav", "output_file": "a/voice.wav", "target": "voice"},
    "sourcefolder": {
        "interferer_dirs": ["bass", "drums"],
        "target_dir": "voice",
        "ext": ".wav",
        "nb_train_samples": 1000,
        "nb_valid_samples": 100,
        "source_augmentations": None,
        "target": "voice",
    },
    "trackfolder_var": {
        "ext": ".wav",
        "target_file": "voice.flac",
        "source_augmentations": None,
        "random_interferer_mix": False,
        "silence_missing": False,
        "target": "voice",
    },
    "trackfolder_fix": {
        "target_file": "voice.wav",
        "interferer_files": ["a.wav", "b.wav"],
        "random_track_mix": False,
        "coherent_share": 0.0,
        "samples_per_track": 1,
        "mix_level": None,
        "speed": None,
        "source_augmentations": None,
        "target": "voice",
    },
}


@pytest.fixture
def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    add_dataset_options(parser)
    parser.add_argument("--seq-dur", type=float, default=6.0)
    parser.add_argument("--epochs", type=int, default=1000)
    return parser


@pytest.mark.parametrize("dataset", DEFAULTS)
def test_defaults(parser: argparse.ArgumentParser, dataset: str) -> None:
    args = vars(parse_dataset_options(parser, ["--dataset", dataset, *NEEDED[dataset]]))
    for name in ("root", "cache", "epochs", "seq_dur", "dataset", "seed", "quiet"):
        args.pop(name)
    assert args == DEFAULTS[dataset]


def test_the_first_dataset_is_musdb(parser: argparse.ArgumentParser) -> None:
    assert parse_dataset_options(parser, []).dataset == "musdb"


def test_flags(parser: argparse.ArgumentParser) -> None:
    line = "--dataset trackfolder_var --root r --target-file t.wav --ext .flac --cache c"
    line += " --source-augmentations gain force_stereo --random-interferer-mix --silence-missing"
    args = parse_dataset_options(parser, line.split())
    assert args.source_augmentations == ["gain", "force_stereo"]
    assert args.random_interferer_mix
    assert args.silence_missing
    assert (args.root, args.ext, args.cache) == ("r", ".flac", "c")
    assert parse_dataset_options(parser, ["--source-augmentations"]).source_augmentations == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--dataset aligned --input-file a", "needs --output-file"),
        ("--dataset sourcefolder", "needs --interferer-dirs, --target-dir"),
        ("--dataset trackfolder_var", "needs --target-file"),
        ("--dataset trackfolder_fix --target-file a", "needs --interferer-files"),
        ("--ext .wav", "--ext is no option of dataset='musdb'"),
        (
            "--dataset trackfolder_fix --target-file a --interferer-files b --is-wav",
            "--is-wav is no option of dataset='trackfolder_fix'",
        ),
        ("--dataset songs", "invalid choice: 'songs'"),
        ("--source-augmentations loud", "invalid choice: 'loud'"),
    ],
)
def test_mistakes_are_told_by_the_parser(
    parser: argparse.ArgumentParser,
    capsys: pytest.CaptureFixture[str],
    line: str,
    message: str,
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_dataset_options(parser, line.split())
    assert caught.value.code == 2
    assert message in capsys.readouterr().err


def test_loading_a_namespace(parser: argparse.ArgumentParser, tree: Tree, tmp_path: Path) -> None:
    tree.tracks(["train", "valid"], ["1", "2"], ["voice.wav", "bass.wav"])
    line = f"--dataset trackfolder_fix --root {tree.root} --seq-dur 1 --cache {tmp_path / 'c'}"
    line += " --target-file voice.wav --interferer-files bass.wav --random-track-mix"
    line += " --coherent-share 0.25 --samples-per-track 3 --mix-level -20 -12 --speed 0.8 1.25"
    line += " --source-augmentations gain force_stereo"
    train, valid = load_datasets(parse_dataset_options(parser, line.split()))
    assert isinstance(train, FixedSourcesTrackFolderDataset)
    assert isinstance(valid, FixedSourcesTrackFolderDataset)
    assert (train.seq_duration, valid.seq_duration) == (1.0, None)
    assert (train.random_chunks, valid.random_chunks) == (True, False)
    assert (train.random_track_mix, valid.random_track_mix) == (True, False)
    assert (train.coherent_share, train.samples_per_track, len(valid)) == (0.25, 3, 2)
    assert (train.mix_level, valid.mix_level) == ((-20.0, -12.0), None)
    assert (train.speed, valid.speed) == ((0.8, 1.25), None)
    assert train.source_augmentations == aug_from_str(["gain", "force_stereo"])
    assert valid.source_augmentations == aug_from_str(["force_stereo"])
    assert train.target == valid.target == "voice"
    assert len(list((tmp_path / "c").iterdir())) == 8
    # Also with a callable for progress.
    train._progress = lambda fraction: None
    assert len(pickle.loads(pickle.dumps(train))) == 6


def test_loading_keywords(tree: Tree) -> None:
    tree.tracks(["train", "valid"], ["voice", "bass"], ["1.wav"])
    tree.tracks(["train", "valid"], ["1"], ["voice.wav", "bass.wav", "mix.wav"])
    train, valid = load_datasets(
        dataset="aligned",
        root=tree.root,
        input_file="mix.wav",
        output_file="voice.wav",
        seq_dur=1.0,
    )
    assert isinstance(train, AlignedDataset)
    assert (train.random_chunks, valid.random_chunks) == (True, False)
    assert (train.seq_duration, valid.seq_duration) == (1.0, 1.0)

    sources = {"dataset": "sourcefolder", "target_dir": "voice", "interferer_dirs": ["bass"]}
    train, valid = load_datasets(
        sources, root=tree.root, seq_dur=1.0, seed=7, nb_train_samples=3, nb_valid_samples=2
    )
    assert isinstance(valid, SourceFolderDataset)
    assert (len(train), len(valid), valid.seed, valid.seq_duration) == (3, 2, 7, 1.0)
    assert train.random_chunks
    assert valid.random_chunks

    train, valid = load_datasets(
        dataset="trackfolder_var",
        root=tree.root,
        target_file="voice.wav",
        seq_dur=1.0,
        silence_missing=True,
        random_interferer_mix=True,
    )
    assert isinstance(train, VariableSourcesTrackFolderDataset)
    assert (len(train), len(valid)) == (3, 3)
    assert (train.random_interferer_mix, valid.random_interferer_mix) == (True, False)


def test_keywords_are_checked(tree: Tree) -> None:
    with pytest.raises(ConfigError, match="taget='x' is no option"):
        load_datasets(taget="x")
    with pytest.raises(ConfigError, match="dataset='songs' must be one of musdb"):
        load_datasets(dataset="songs")
    with pytest.raises(ConfigError, match=r"root=None: dataset='trackfolder_var' needs a folder"):
        load_datasets(dataset="trackfolder_var", target_file="a.wav")
    with pytest.raises(ConfigError, match="--ext is no option of dataset='aligned'"):
        load_datasets(dataset="aligned", input_file="a", output_file="b", ext=".wav")
