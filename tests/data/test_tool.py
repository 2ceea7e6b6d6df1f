"""``python -m umx_np.data`` on small folders."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from umx_np.commands.data import build_parser, main
from umx_np.data import Loader, UnmixDataset, item_rng, load_datasets

from .conftest import Tree


@pytest.fixture
def line(tree: Tree) -> list[str]:
    tree.tracks(["train", "valid"], ["1", "2", "3"], ["vocals.wav", "bass.wav"])
    (tree.root / "valid/3/bass.wav").unlink()
    line = f"--dataset trackfolder_fix --root {tree.root} --target-file vocals.wav"
    return f"{line} --interferer-files bass.wav --nfft 64 --nhop 16".split()


def test_defaults_are_those_of_upstream() -> None:
    args = build_parser().parse_args([])
    assert (args.dataset, args.seed, args.seq_dur, args.batch_size) == ("musdb", 42, 5.0, 16)
    assert (args.target, args.save, args.nb_workers) == ("vocals", None, 4)
    assert build_parser().parse_args(["--save"]).save == "test"


@pytest.mark.parametrize("seconds", ["1.0", "0"])
def test_what_is_reported(
    line: list[str], seconds: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*line, "--seq-dur", seconds, "--audio-backend", "soundfile"]) == 0
    out = capsys.readouterr().out
    length = 3 * (float(seconds) or 1.5)
    assert f"Total training duration (h): {length / 3600:.4f}" in out
    assert "Number of training samples: 3\nNumber of validation samples: 2\n" in out
    assert "Target: vocals\nRate: 1000 Hz, 2 channels\n" in out
    assert re.search(r"Loaded \d+\.\d items a second, \d+ times real time\n", out)
    assert re.search(r"^ +203 +\d\S* +\d\S*$", out, re.M)


def test_saved_items_are_those_of_training(
    line: list[str], tree: Tree, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "saved" / "here"
    options = ["--save", str(folder), "--seq-dur", "1.0", "--no-statistics", "--batch-size", "2"]
    assert main([*line, *options, "--source-augmentations", "gain"]) == 0
    assert "(with saving)" in capsys.readouterr().out
    train, _ = load_datasets(
        dataset="trackfolder_fix",
        root=tree.root,
        target_file="vocals.wav",
        interferer_files=["bass.wav"],
        seq_dur=1.0,
        source_augmentations=["gain"],
    )
    for k in range(3):
        for name, waveform in zip("xy", train.sample(k, item_rng(42, 0, k)), strict=True):
            saved, rate = sf.read(folder / f"{k}{name}.wav", dtype="float32")
            assert rate == 1000
            np.testing.assert_array_equal(saved.T, waveform)
    assert len(list(folder.iterdir())) == 6


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {"seed": 42, "workers": 4, "mode": "threads"}),
        ("--workers-mode threads --seq-dur 0", {"mode": "threads", "batch_size": 1}),
        (
            "--workers-mode processes --nb-workers 1 --seed 7 --batch-size 2",
            {"seed": 7, "workers": 1, "mode": "processes", "batch_size": 2},
        ),
    ],
)
def test_who_loads_the_items(
    line: list[str],
    options: str,
    expected: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked: dict[str, Any] = {}

    def noted(dataset: UnmixDataset, batch_size: int, **settings: Any) -> Loader:
        asked.update(settings, batch_size=batch_size)
        # Whoever they are, the items are the same.
        return Loader(dataset, batch_size, **{**settings, "mode": "threads"})

    monkeypatch.setattr("umx_np.commands.data.Loader", noted)
    assert main([*line, "--seq-dur", "1", "--no-statistics", *options.split()]) == 0
    assert "Number of training samples: 3\n" in capsys.readouterr().out
    assert {name: asked[name] for name in expected} == expected


def test_errors_are_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-m", "umx_np.data", "--dataset", "trackfolder_var"]
    command += ["--target-file", "a.wav", "--root", str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr.startswith("python -m umx_np.data: error: root=")
    assert run.stderr.count("\n") == 1


def test_a_place_to_save_that_is_a_file(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert main([*line, "--seq-dur", "1", "--save", str(tmp_path / "file")]) == 1
    assert re.search(r": error: path='.*file.0x.wav'", capsys.readouterr().err)
