"""MUSDB18: the excerpt that comes with stempeg, and the seven second excerpts."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import urllib.error
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

from umx_np.errors import ConfigError, DownloadError
from umx_np.evaluation import evaluate, read_scores
from umx_np.evaluation.bss import METRICS
from umx_np.evaluation.tracks import TrackAudio, find_tracks

from .conftest import sources

TRACK = "The Easton Ellises - Falcon 69"
STEMS = ("vocals", "drums", "bass", "other")

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("musdb") is None or shutil.which("ffmpeg") is None,
    reason="needs musdb and ffmpeg",
)


def quietly(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module(name)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MUSDB18 with one track, the six seconds that stempeg brings."""
    folder = tmp_path_factory.mktemp("musdb") / "musdb18"
    (folder / "test").mkdir(parents=True)
    shutil.copy(quietly("stempeg").example_stem_path(), folder / "test" / f"{TRACK}.stem.mp4")
    return folder


@pytest.fixture(scope="module")
def wav_root(root: Path) -> Path:
    """The same as wav files."""
    folder = root.parent / "musdb18hq"
    place = folder / "test" / TRACK
    place.mkdir(parents=True)
    sound = TrackAudio(find_tracks(root)[0])
    for name, samples in [("mixture", sound.mixture()), *((n, sound.target(n)) for n in STEMS)]:
        sf.write(place / f"{name}.wav", samples.T, sound.rate, subtype="PCM_16")
    return folder


@pytest.fixture(scope="module")
def estimates(root: Path) -> Path:
    """Vocals and drums, each with a little of the other and of the bass."""
    sound = TrackAudio(find_tracks(root)[0])
    stems = {name: sound.target(name) for name in STEMS}
    folder = root.parent / "estimates" / "test" / TRACK
    folder.mkdir(parents=True)
    for name, other in (("vocals", "drums"), ("drums", "vocals")):
        estimate = 0.9 * stems[name] + 0.2 * stems[other] + 0.05 * stems["bass"]
        sf.write(folder / f"{name}.wav", estimate.T, sound.rate, subtype="FLOAT")
    return folder.parents[1]


@pytest.mark.slow
def test_tracks_are_those_of_musdb(root: Path, wav_root: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (theirs,) = quietly("musdb").DB(root=str(root), subsets="test").tracks
        for folder, is_wav in ((root, False), (wav_root, True)):
            (track,) = find_tracks(folder, is_wav=is_wav)
            assert (track.name, track.subset) == (theirs.name, theirs.subset) == (TRACK, "test")
            sound = TrackAudio(track)
            np.testing.assert_array_equal(sound.mixture(), theirs.audio.T.astype(np.float32))
            for target in ("drums", "accompaniment"):
                np.testing.assert_allclose(
                    sound.target(target), theirs.targets[target].audio.T, atol=1e-12
                )
            assert list(track.targets) == [name for name in theirs.targets if "mix" not in name]


def test_scores_are_those_of_museval(
    museval: Any, root: Path, wav_root: Path, estimates: Path, tmp_path: Path
) -> None:
    """Its evaluation of a folder, from the files to the JSON."""
    ours = evaluate(root, estimates=estimates, evaldir=tmp_path / "ours").scores[TRACK]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (track,) = quietly("musdb").DB(root=str(root), subsets="test").tracks
        museval._load_track_estimates(track, str(estimates), str(tmp_path / "museval"))
        nb_frames = len(track.audio) // 44100
    theirs = read_scores(tmp_path / "museval/test" / f"{TRACK}.json")
    assert list(ours.targets) == list(theirs.targets) == ["vocals", "drums"]
    for target in ours.targets:
        for metric in METRICS:
            assert len(ours.targets[target][metric]) == nb_frames
            np.testing.assert_allclose(
                ours.targets[target][metric], theirs.targets[target][metric], rtol=0, atol=1.1e-5
            )
    assert (tmp_path / "ours/test" / f"{TRACK}.json").is_file()


def test_no_data(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("MUSDB_PATH", raising=False)
    for arguments, message in (
        ({}, r"root=None, .*give the folder of MUSDB18 with root=\.\.\., or .* download=True"),
        ({"root": tmp_path / "x"}, "is no folder"),
        ({"root": root, "subset": "valid"}, "subset='valid': MUSDB18 has train and test"),
        ({"root": root, "subset": "train"}, r"no tracks; is_wav=False looks for .stem.mp4"),
        ({"root": root, "is_wav": True}, "no tracks; is_wav=True looks for folders"),
        ({"root": root, "download": True}, "contradicts root"),
        ({"is_wav": True, "download": True}, "is_wav=True needs root"),
    ):
        with pytest.raises(ConfigError, match=message):
            find_tracks(**arguments)
    monkeypatch.setenv("MUSDB_PATH", str(root))
    assert [track.name for track in find_tracks(None)] == [TRACK]


def test_the_excerpts(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are downloaded only if asked for, and have to be complete."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.delenv("MUSDB_PATH", raising=False)
    musdb = quietly("musdb")
    preview = tmp_path / "MUSDB18/MUSDB18-7"

    def fail(self: Any, *arguments: Any, **options: Any) -> None:
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(musdb.DB, "download", fail)
    with pytest.raises(DownloadError, match=r"no route to host.* give the root of a dataset"):
        find_tracks(None, download=True)

    def incomplete(self: Any, *arguments: Any, **options: Any) -> None:
        shutil.copytree(root, preview)
        (preview / "train").mkdir()

    monkeypatch.setattr(musdb.DB, "download", incomplete)
    with pytest.raises(DownloadError, match=r"has 1 of the 50 excerpts .* remove the folder"):
        find_tracks(None, download=True)

    monkeypatch.setattr("umx_np.data.musdb18.PREVIEW_TRACKS", {"test": 1})
    assert [track.name for track in find_tracks(None)] == [TRACK]


def test_odd_tracks_do_not_stop_the_others(
    root: Path, wav_root: Path, estimates: Path, tmp_path: Path
) -> None:
    shutil.copytree(wav_root, tmp_path / "hq")
    shutil.copytree(wav_root / "test" / TRACK, tmp_path / "hq/test/Odd - Song")
    (tmp_path / "hq/test/Odd - Song/bass.wav").unlink()
    (tmp_path / "hq/test/covers").mkdir()
    result = evaluate(tmp_path / "hq", is_wav=True, estimates=estimates)
    assert list(result.scores) == [TRACK]
    assert list(result.failed) == ["Odd - Song"]
    assert "has no bass" in result.failed["Odd - Song"]

    shutil.copytree(root, tmp_path / "mp4")
    (tmp_path / "mp4/test/Broken.stem.mp4").write_bytes(b"no sound at all")
    (tmp_path / "mp4/test" / f"._{TRACK}.stem.mp4").write_bytes(b"of macOS")
    shutil.copytree(estimates, tmp_path / "estimates")
    shutil.copytree(estimates / "test" / TRACK, tmp_path / "estimates/test/Broken")
    result = evaluate(tmp_path / "mp4", estimates=tmp_path / "estimates")
    assert list(result.scores) == [TRACK]
    assert "has no sound in stream" in result.failed["Broken"]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MUSDB18 with a track by another encoder, in which sound begins with the first sample."""
    folder = tmp_path_factory.mktemp("encoded")
    inputs: list[str] = []
    stems = 0.3 * sources(4, 2, 100001)
    for k, samples in enumerate([stems.sum(axis=0), *stems]):
        sf.write(folder / f"{k}.wav", samples.T, 44100, subtype="PCM_16")
        inputs += ["-i", str(folder / f"{k}.wav")]
    maps = [word for k in range(5) for word in ("-map", str(k))]
    (folder / "test").mkdir()
    path = folder / "test" / f"{TRACK}.stem.mp4"
    command = ["ffmpeg", "-v", "error", *inputs, *maps, "-c:a", "aac", "-b:a", "96k", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.slow
def test_scores_of_another_encoder_are_those_of_museval(
    museval: Any, encoded: Path, estimates: Path, tmp_path: Path
) -> None:
    test_scores_are_those_of_museval(museval, encoded, Path(), estimates, tmp_path)
