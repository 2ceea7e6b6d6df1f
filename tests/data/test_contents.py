"""Data sets put together wrongly, as only the contents of their files tell."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from umx_np.data import load_datasets
from umx_np.errors import ConfigError

RATE = 1000
STEMS = ("vocals", "bass", "drums")
VAR = {"dataset": "trackfolder_var", "target_file": "vocals.wav"}
FIX = {
    "dataset": "trackfolder_fix",
    "target_file": "vocals.wav",
    "interferer_files": ["bass.wav", "drums.wav"],
}
ALIGNED = {"dataset": "aligned", "input_file": "bass.wav", "output_file": "vocals.wav"}
FOLDERS = {
    "dataset": "sourcefolder",
    "target_dir": "1",
    "interferer_dirs": ["2"],
    "nb_train_samples": 1,
    "nb_valid_samples": 1,
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "valid"):
        for track in ("1", "2"):
            for name in STEMS:
                write(tmp_path / split / track / f"{name}.wav", rng.normal(0.0, 0.1, (1500, 2)))
    return tmp_path


def write(path: Path, samples: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, samples, RATE, subtype="PCM_16")


def messages(root: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any]) -> list[str]:
    caplog.clear()
    load_datasets(root=root, seq_dur=0.5, **options)
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


@pytest.mark.parametrize("options", [VAR, FIX, ALIGNED, FOLDERS])
def test_nothing_is_said_of_a_good_one(
    root: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    assert messages(root, caplog, options) == []


@pytest.mark.parametrize("name", ["bounce.wav", "full song.WAV", "drums2.wav"])
def test_a_mixture_among_the_sources(
    root: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    stems = [sf.read(root / f"train/2/{stem}.wav")[0] for stem in STEMS]
    write(root / "train/2" / name, np.sum(stems, axis=0))
    (said,) = messages(root, caplog, VAR)
    assert "1 sources are the sum of the others" in said
    assert said.endswith(f"2/{name}")


def test_accompaniment_beside_its_parts(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    stems = [sf.read(root / f"train/1/{stem}.wav")[0] for stem in ("drums", "vocals")]
    write(root / "train/1/bass.wav", np.sum(stems, axis=0))
    (said,) = messages(root, caplog, FIX)
    assert said.endswith("1/bass.wav")


def test_input_that_is_the_output(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(root / "train/1/bass.wav", root / "train/1/vocals.wav")
    (said,) = messages(root, caplog, ALIGNED)
    assert "in 1 tracks the input is the output: 1/vocals.wav" in said


def test_more_files_that_fit_a_pattern(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert messages(root, caplog, {**ALIGNED, "input_file": "b*.wav"}) == []
    said = messages(root, caplog, {**ALIGNED, "input_file": "*.wav"})
    assert all("not used: 1/drums.wav, 2/drums.wav" in text for text in said)
    assert len(said) == 2


@pytest.mark.parametrize(
    "options",
    [VAR, FIX, ALIGNED, {**FOLDERS, "interferer_dirs": ["2"]}],
    ids=lambda o: o["dataset"],
)
@pytest.mark.parametrize("way", ["link", "links of tracks", "copy"])
def test_validation_with_what_is_trained_with(
    root: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any], way: str
) -> None:
    if way != "copy" and sys.platform == "win32":
        pytest.skip("links need permission")
    shutil.rmtree(root / "valid")
    if way == "link":
        (root / "valid").symlink_to("train")
    elif way == "copy":
        shutil.copytree(root / "train", root / "valid")
    else:
        (root / "valid").mkdir()
        for track in ("1", "2"):
            (root / "valid" / track).symlink_to(root / "train" / track)
    (said,) = messages(root, caplog, options)
    assert "to validate with are also trained with" in said


def test_a_target_among_the_interferers(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copy(root / "train/1/vocals.wav", root / "train/2/other name.wav")
    (said,) = messages(root, caplog, FOLDERS)
    assert "1 interferers are files of the target too: 2/other name.wav" in said


@pytest.mark.parametrize(
    ("stems", "what"),
    [(("vocals",), "the target"), (("bass", "drums"), "what is mixed with the target")],
)
def test_all_silent(
    root: Path, caplog: pytest.LogCaptureFixture, stems: tuple[str, ...], what: str
) -> None:
    for track in ("1", "2"):
        for stem in stems:
            write(root / "train" / track / f"{stem}.wav", np.zeros((1500, 2)))
    (said,) = messages(root, caplog, VAR)
    assert f"{what} is silent in all tracks" in said
    write(root / "train/2" / f"{stems[-1]}.wav", np.full((1500, 2), 0.1))
    assert messages(root, caplog, VAR) == []


ELSEWHERE = [
    "../2/vocals.wav",
    "/etc/passwd",
    ".",
    "",
    "a\0.wav",
    "v" * 300,
    "a/../../2/vocals.wav",
]


@pytest.mark.parametrize("name", ELSEWHERE)
def test_names_that_lead_elsewhere(root: Path, name: str) -> None:
    for options in (
        {**VAR, "target_file": name},
        {**FIX, "target_file": name},
        {**FIX, "interferer_files": ["bass.wav", name]},
        {**ALIGNED, "input_file": name},
        {**ALIGNED, "output_file": name},
        {**FOLDERS, "target_dir": name},
        {**FOLDERS, "interferer_dirs": [name]},
    ):
        with pytest.raises(ConfigError):
            load_datasets(root=root, seq_dur=0.5, **options)


@pytest.mark.parametrize(
    "options",
    [
        {**FIX, "interferer_files": "bass.wav"},
        {**FOLDERS, "interferer_dirs": "2"},
        {**FOLDERS, "ext": None},
        {**VAR, "ext": 3},
        {**VAR, "target_file": 3},
        {**FOLDERS, "target_dir": 3},
    ],
)
def test_no_names(root: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="must be a"):
        load_datasets(root=root, seq_dur=0.5, **options)


def test_a_folder_written_with_a_slash_names_the_target(root: Path) -> None:
    train, _ = load_datasets(root=root, seq_dur=0.5, **{**FOLDERS, "target_dir": "1/"})
    assert train.target == "1"
