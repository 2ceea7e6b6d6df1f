"""`evaluate` in several processes, with damaged songs and with mistakes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf

import umx_np
from umx_np.errors import ConfigError, ModelNotFoundError
from umx_np.evaluation import (
    ScoresError,
    evaluate,
    score_track,
    work,
)
from umx_np.evaluation.bss import METRICS
from umx_np.evaluation.tracks import TrackAudio, find_tracks

from .conftest import RATE, STEMS, imperfect, read, sources, write_track

pytestmark = pytest.mark.usefixtures("short_filters")


def damaged(songs: Path, root: Path) -> Path:
    shutil.copytree(songs / "test", root)
    (root / "three/drums.wav").write_bytes(b"no sound")
    return root


@pytest.mark.parametrize("cores", [1, 2])
def test_failures_do_not_stop_the_others(
    songs: Path, model: Path, tmp_path: Path, cores: int, caplog: Any
) -> None:
    root = damaged(songs, tmp_path / "songs")
    write_track(root / "zero", dict(zip(STEMS, 0 * sources(4, 1, 2 * RATE), strict=True)))
    seen: list[float] = []
    result = evaluate(
        root,
        dataset="folder",
        model=model,
        evaldir=tmp_path / "scores",
        cores=cores,
        threads=2,
        progress=seen.append,
    )
    assert list(result.scores) == ["one", "two", "zero"]
    assert list(result.failed) == ["three"]
    assert "drums.wav" in result.failed["three"]
    assert result.summary().counts["vocals"] == 2
    # Also what other processes log.
    assert "zero: the reference of bass is silent, which gives no scores" in caplog.messages
    assert seen[-1] == 1.0
    assert len(seen) == 4
    alone = evaluate(songs, dataset="folder", model=model, threads=1)
    assert result.scores["two"].to_json() == alone.scores["two"].to_json()
    assert (tmp_path / "scores/test/two.json").read_text() == alone.scores["two"].to_json()
    again = evaluate(root, dataset="folder", model=model, evaldir=tmp_path / "scores")
    assert again.reused == ["one", "two", "zero"]
    assert list(again.failed) == ["three"]


def test_a_mistake_of_ours(songs: Path, stems_folder: Path, monkeypatch: Any, caplog: Any) -> None:
    original = work.evaluate_track

    def fails(job: Any, estimates: Any, task: Any) -> Any:
        if task.track.name == "one":
            raise MemoryError("no room")
        return original(job, estimates, task)

    monkeypatch.setattr(work, "evaluate_track", fails)
    result = evaluate(songs, dataset="folder", estimates=stems_folder)
    assert result.failed == {"one": "MemoryError: no room"}
    assert len(result.scores) == 2
    assert "unexpected error with track='one'" in caplog.text


class _Suicidal:
    """Estimates that end the process."""

    def of(self, *arguments: object) -> None:
        os._exit(3)


def test_a_process_that_dies(songs: Path) -> None:
    job = work.Job(None, _Suicidal(), None, "16", None, "builtin")  # type: ignore[arg-type]
    tracks = find_tracks(songs, dataset="folder")
    tasks = [work.Task(track, STEMS) for track in tracks]
    outcomes = list(work.run_tasks(job, _Suicidal(), tasks, 2, 2))  # type: ignore[arg-type]
    assert len(outcomes) == 3
    assert all("a process ended before this track was done" in o.error for o in outcomes)


def test_estimates_that_do_not_fit(songs: Path, stems_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stems"
    shutil.copytree(stems_folder, folder)
    sf.write(folder / "one/drums.wav", np.zeros(RATE), 2 * RATE)
    stereo = sf.read(folder / "two/vocals.wav")[0][:, None].repeat(2, axis=1)
    sf.write(folder / "two/vocals.wav", stereo, RATE)
    shutil.rmtree(folder / "three")
    result = evaluate(songs, dataset="folder", estimates=folder)
    assert "rate=8000, the references have rate=4000" in result.failed["one"]
    assert "nb_channels=1" in result.failed["two"]
    assert "'three' has no estimates: neither" in result.failed["three"]
    with pytest.raises(ScoresError, match=r"no track can be scored: path=.* has no file of choir"):
        evaluate(songs, dataset="folder", estimates=folder, targets=["choir", "bass"])


def test_songs_beside_the_folders_of_their_stems(tmp_path: Path, model: Path) -> None:
    """Ogg Vorbis, ``song.ogg`` and ``song/vocals.ogg``; the mixture is the sum of the stems."""
    stems = dict(zip(STEMS, sources(4, 1, 20000), strict=True))
    for name, stem in {**{f"song/{k}": v for k, v in stems.items()}, "song": stems["bass"]}.items():
        umx_np.audio.write(tmp_path / f"{name}.ogg", stem, 8000)
    (track,) = find_tracks(tmp_path, dataset="folder")
    assert (track.name, track.mixture) == ("song", None)
    mixture = TrackAudio(track).mixture()
    decoded = [umx_np.audio.read(tmp_path / f"song/{name}.ogg")[0] for name in STEMS]
    np.testing.assert_allclose(mixture, np.sum(decoded, axis=0), atol=1e-6)
    result = evaluate(tmp_path, dataset="folder", model=model)
    assert list(result.scores["song"].targets) == list(STEMS)


def test_mistakes(songs: Path, stems_folder: Path, model: Path, tmp_path: Path) -> None:
    folder: dict[str, Any] = {"dataset": "folder"}
    for arguments, message in (
        ({"root": songs, "dataset": "musdb19"}, "dataset='musdb19' must be one of musdb, folder"),
        ({"root": songs / "nowhere", **folder}, "is no folder"),
        ({"root": None, **folder}, "needs the folder of the tracks"),
        ({"root": songs, "download": True, **folder}, "download=True is for dataset='musdb'"),
        ({"root": songs, "is_wav": True, **folder}, "is_wav=True is for dataset='musdb'"),
        ({"root": tmp_path, **folder}, r"no folders with stems in .*vocals.wav and drums.wav"),
        ({"root": songs, "subset": "../x", **folder}, "must be the name of a folder"),
        ({"root": songs, "estimates": tmp_path / "no", **folder}, "estimates=.* is no folder"),
        ({"root": songs, "cores": 0, **folder}, "cores=0 must be at least 1"),
        ({"root": songs, "threads": 0, **folder}, "threads=0 must be at least 1"),
        ({"root": songs, "method": "x", **folder}, "method='x' must be one of builtin, museval"),
        ({"root": songs, "model": model, "niter": -1, **folder}, "niter=-1"),
        (
            {"root": songs, "model": model, "aggregate": {"x": ["choir"]}, **folder},
            "names the stem 'choir'",
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            evaluate(**arguments)
    without_effect = {"model": model, "outdir": "out", "residual": "x", "softmask": True}
    without_effect |= {"niter": 0, "wiener_win_len": 300, "precision": "fast"}
    for name, value in without_effect.items():
        with pytest.raises(ConfigError, match=f"{name}=.* has no effect with estimates"):
            evaluate(songs, estimates=stems_folder, **folder, **{name: value})
    with pytest.raises(ModelNotFoundError):
        evaluate(songs, model="umx-none", offline=True, **folder)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"evaldir=.* cannot be written to"):
        evaluate(songs, estimates=stems_folder, evaldir=tmp_path / "file", **folder)
    write_track(tmp_path / "few/song", {"vocals": np.zeros((1, 100))})
    with pytest.raises(ConfigError, match="has vocals; scores need two or more"):
        evaluate(tmp_path / "few", **folder)
    write_track(tmp_path / "few/song", {"vocals": np.zeros((1, 100))}, ".flac")
    with pytest.raises(ConfigError, match=r"has vocals.flac and vocals.wav; keep one"):
        evaluate(tmp_path / "few", **folder)


def test_all_metrics_are_summed_up(songs: Path, stems_folder: Path) -> None:
    summary = evaluate(songs, dataset="folder", estimates=stems_folder).summary()
    assert list(summary.median) == list(STEMS)
    for row in summary.median.values():
        assert list(row) == list(METRICS)
        assert all(np.isfinite(value) for value in row.values())


def test_an_estimate_may_be_shorter(
    songs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    references = read(songs / "test/one")
    stack = np.stack([references[name] for name in STEMS])
    estimates = dict(zip(STEMS, imperfect(stack)[..., : 2 * RATE], strict=True))
    write_track(tmp_path / "one", estimates)
    (tmp_path / "songs").mkdir()
    shutil.copytree(songs / "test/one", tmp_path / "songs/one")
    result = evaluate(tmp_path / "songs", dataset="folder", estimates=tmp_path)
    said = [text for text in caplog.messages if "the rest counts as silence" in text]
    assert len(said) == len(STEMS)
    assert (
        result.scores["one"].to_json()
        == score_track("one", {name: references[name] for name in STEMS}, estimates, RATE).to_json()
    )
