"""`evaluate` on folders of songs: results, resuming, several processes, and what goes wrong."""

from __future__ import annotations

import functools
import json
import logging
import os
import shutil
import time
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
    read_scores,
    score_track,
    scores,
    work,
)
from umx_np.evaluation.bss import METRICS, scores_and_doubts
from umx_np.evaluation.settings import _claim_path, is_marked, marked
from umx_np.evaluation.tracks import TrackAudio, find_tracks

from .conftest import RATE, STEMS, imperfect, sources, write_track

SONGS = ["one", "three", "two"]  # in the order of their names


def read(folder: Path) -> dict[str, np.ndarray]:
    return {path.stem: sf.read(path, always_2d=True)[0].T for path in sorted(folder.iterdir())}


def sdr(result: Any, song: str = "one") -> dict[str, float]:
    return {name: row["SDR"] for name, row in result.scores[song].medians().items()}


@pytest.fixture(autouse=True)
def short_filters(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filters of 32 taps take a hundredth of the time; other processes do not know of them."""
    if "cores" not in request.fixturenames:
        few = functools.partial(scores_and_doubts, nb_taps=32)
        monkeypatch.setattr(scores, "scores_and_doubts", few)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tracks that are evaluated, not taken over."""
    done: list[str] = []
    original = work.evaluate_track

    def counted(job: Any, estimates: Any, task: Any) -> Any:
        done.append(task.track.name)
        return original(job, estimates, task)

    monkeypatch.setattr(work, "evaluate_track", counted)
    return done


# A model ------------------------------------------------------------------------------------------


def test_a_model(songs: Path, model: Path, tmp_path: Path) -> None:
    """The scores are those of what `umx_np.separate` makes of the sum of the stems."""
    result = evaluate(
        songs,
        dataset="folder",
        model=model,
        outdir=tmp_path / "stems",
        bits="float",
        evaldir=tmp_path / "scores",
    )
    assert list(result.scores) == SONGS
    assert not result.failed
    assert result.name == "tiny"
    references = {name: read(songs / "test" / "two")[name] for name in STEMS}
    mixture = np.sum(list(references.values()), axis=0).astype(np.float32)
    stems = umx_np.separate(mixture, RATE, model=model, wiener_win_len=None)
    expected = score_track("two", references, stems, RATE)
    assert result.scores["two"].to_json() == expected.to_json()
    assert (tmp_path / "scores/test/two.json").read_text() == expected.to_json()
    written = read(tmp_path / "stems/test/two")
    assert set(written) == set(STEMS)
    np.testing.assert_array_equal(written["bass"], stems["bass"])
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == [
        "test",
        "test_settings.json",
        "test_summary.csv",
        "test_summary.json",
        "test_tracks.csv",
    ]
    summary = json.loads((tmp_path / "scores/test_summary.json").read_text())
    assert summary["settings"]["niter"] == 1
    assert summary["settings"]["wiener_win_len"] is None
    assert summary["median"]["drums"]["SDR"] == pytest.approx(
        np.median([sdr(result, song)["drums"] for song in SONGS]), abs=1e-5
    )


def test_options_reach_the_separator(
    songs: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []
    original = umx_np.Separator.from_bundle.__func__

    def recorded(cls: Any, bundle: Any, **options: Any) -> Any:
        made.append({"targets": list(bundle.targets), **options})
        return original(cls, bundle, **options)

    monkeypatch.setattr(umx_np.Separator, "from_bundle", classmethod(recorded))
    monkeypatch.setattr("umx_np.evaluation.runner.run_tasks", lambda *arguments: (x for x in ()))
    options = {
        "targets": ["drums", "vocals"],
        "niter": 2,
        "wiener_win_len": 50,
        "softmask": True,
        "residual": "other",
        "device": "cpu",
        "threads": 1,
        "precision": "fast",
    }
    result = evaluate(songs, dataset="folder", model=model, **options)
    assert made == [{**options, "filterbank": "torch"}]
    settings = {"targets": ["drums", "vocals"], "niter": 2, "wiener_win_len": 50}
    assert settings.items() <= result.settings.items()
    # Nothing given: the whole track at once, as published scores were made.
    evaluate(songs, dataset="folder", model=model)
    assert (made[1]["niter"], made[1]["wiener_win_len"]) == (1, None)


def test_options_change_scores(model: Path, tmp_path: Path) -> None:
    # In mono the filter does not depend on the frames around.
    stems = sources(4, 2, 2 * RATE)
    write_track(tmp_path / "one", dict(zip(STEMS, stems, strict=True)))
    seen = [
        sdr(evaluate(tmp_path, dataset="folder", model=model, **options))["vocals"]
        for options in ({}, {"wiener_win_len": 20}, {"niter": 0}, {"softmask": True})
    ]
    assert len(set(seen)) == 4
    whole = evaluate(tmp_path, dataset="folder", model=model, wiener_win_len=0)
    assert sdr(whole)["vocals"] == seen[0]


def test_residual_and_aggregate(songs: Path, model: Path, caplog: Any) -> None:
    only_vocals = {"dataset": "folder", "model": model, "targets": ["vocals"]}
    result = evaluate(songs, residual="accompaniment", **only_vocals)
    assert list(result.scores["one"].targets) == ["vocals", "accompaniment"]
    with pytest.raises(ScoresError, match=r"no track can be scored: .* estimates of vocals and"):
        evaluate(songs, **only_vocals)

    with caplog.at_level(logging.WARNING, "umx_np"):
        result = evaluate(songs, dataset="folder", model=model, residual="rest", niter=0)
    assert list(result.scores["one"].targets) == list(STEMS)
    assert "no references for rest: not scored" in caplog.messages

    parts = {"vocals": ["vocals"], "accompaniment": ["drums", "bass", "other"]}
    result = evaluate(songs, dataset="folder", model=model, aggregate=parts)
    assert list(result.scores["one"].targets) == ["vocals", "accompaniment"]
    assert result.settings["aggregate"] == parts


# Stems that are there -----------------------------------------------------------------------------


def test_estimates(songs: Path, stems_folder: Path, tmp_path: Path) -> None:
    result = evaluate(songs, dataset="folder", estimates=stems_folder)
    expected = score_track(
        "one", read(songs / "test" / "one"), read(stems_folder / "one"), RATE
    ).medians()
    assert result.scores["one"].medians() == {name: expected[name] for name in STEMS}
    # With the name of the subset, as `outdir` has it, and in another format.
    folder = tmp_path / "estimates"
    shutil.copytree(stems_folder, folder / "test")
    again = evaluate(songs, dataset="folder", estimates=folder)
    assert sdr(again) == sdr(result)
    two = evaluate(songs, dataset="folder", estimates=folder, targets=["bass", "drums"])
    assert list(two.scores["one"].targets) == ["drums", "bass"]
    parts = {"vocals": ["vocals"], "accompaniment": ["drums", "bass", "other"]}
    pair = evaluate(songs, dataset="folder", estimates=folder, aggregate=parts)
    sums = read(folder / "test/one")
    sums = {"vocals": sums["vocals"], "accompaniment": sum(sums[name] for name in STEMS[1:])}
    references = read(songs / "test/one")
    references["accompaniment"] = sum(references[name] for name in STEMS[1:])
    expected = score_track("one", references, sums, RATE).medians()
    assert pair.scores["one"].medians()["accompaniment"]["SIR"] == pytest.approx(
        expected["accompaniment"]["SIR"], abs=1e-4
    )


def test_stems_of_another_name_are_not_scored(
    stems_folder: Path, songs: Path, tmp_path: Path, caplog: Any
) -> None:
    root = tmp_path / "songs"
    shutil.copytree(songs / "test", root / "test")
    (root / "test/two/bass.wav").unlink()
    with caplog.at_level(logging.WARNING, "umx_np"):
        result = evaluate(root, dataset="folder", estimates=stems_folder)
    assert "two: no reference for bass, which is not scored" in caplog.messages
    assert list(result.scores["two"].targets) == ["vocals", "drums", "other"]
    assert result.summary().counts == {"vocals": 3, "drums": 3, "bass": 2, "other": 3}


# Again --------------------------------------------------------------------------------------------


def test_resuming(
    songs: Path, stems_folder: Path, tmp_path: Path, attempts: list[str], caplog: Any
) -> None:
    folder = tmp_path / "stems"
    shutil.copytree(stems_folder, folder)
    options = {"dataset": "folder", "estimates": folder, "evaldir": tmp_path / "scores"}
    first = evaluate(songs, **options)
    assert attempts == SONGS
    # As of one that was killed when its scores were written.
    left = _claim_path(tmp_path / "scores", "test", SONGS[0])
    left.touch()
    again = evaluate(songs, **options)
    assert attempts == SONGS
    assert not left.exists()
    assert again.reused == SONGS
    assert [sdr(again, song) for song in SONGS] == [sdr(first, song) for song in SONGS]

    # Broken, without a stem, and without a frame.
    files = tmp_path / "scores/test"
    (files / "one.json").write_text((files / "one.json").read_text()[:500])
    content = json.loads((files / "three.json").read_text())
    content["targets"].pop()
    (files / "three.json").write_text(json.dumps(content))
    content = json.loads((files / "two.json").read_text())
    content["targets"][0]["frames"].pop()
    (files / "two.json").write_text(json.dumps(content))
    # What a killed process left behind.
    (files / ".umx-np-1-a.tmp").write_text("{")
    third = evaluate(songs, **options)
    assert attempts == 2 * SONGS
    assert not third.reused
    assert "holds no valid JSON" in caplog.text
    assert "is not complete" in caplog.text
    assert read_scores(files / "two.json").medians() == first.scores["two"].medians()

    # Newer estimates; a day is more than clocks are apart.
    later = time.time() + 86400.0
    os.utime(folder / "three/drums.wav", (later, later))
    evaluate(songs, **options)
    assert attempts == [*2 * SONGS, "three"]
    assert "older than the estimates" in caplog.text

    os.utime(folder / "three/drums.wav")
    evaluate(songs, overwrite=True, **options)
    assert attempts == [*2 * SONGS, "three", *SONGS]


def test_newer_references(
    songs: Path, stems_folder: Path, tmp_path: Path, attempts: list[str], caplog: Any
) -> None:
    root = tmp_path / "songs"
    shutil.copytree(songs, root)
    options = {"dataset": "folder", "estimates": stems_folder, "evaldir": tmp_path / "scores"}
    evaluate(root, **options)
    later = time.time() + 86400.0
    os.utime(root / "test/two/other.wav", (later, later))
    evaluate(root, **options)
    assert attempts == [*SONGS, "two"]
    assert "older than the true stems" in caplog.text


def test_scores_of_other_tracks_are_not_mixed_with(
    songs: Path, stems_folder: Path, tmp_path: Path
) -> None:
    """Else a later run would find the settings of the second beside scores of the first."""
    for root, song in (("a", "one"), ("b", "two")):
        shutil.copytree(songs / "test" / song, tmp_path / root / song)
    options: dict[str, Any] = {"dataset": "folder", "estimates": stems_folder}
    options["evaldir"] = tmp_path / "scores"
    evaluate(tmp_path / "a", **options)
    assert not evaluate(tmp_path / "b", **options).reused
    assert evaluate(tmp_path / "a", **options).reused == ["one"]
    before = (tmp_path / "scores/test_settings.json").read_text()
    options["targets"] = ["vocals", "drums"]
    with pytest.raises(ConfigError, match=r"2 tracks .* other settings \(targets: null there"):
        evaluate(tmp_path / "a", **options)
    with pytest.raises(ConfigError, match=r"1 other tracks .* other settings .* another evaldir$"):
        evaluate(tmp_path / "a", overwrite=True, **options)
    assert (tmp_path / "scores/test_settings.json").read_text() == before
    assert (tmp_path / "scores/test/one.json").exists()


def test_a_folder_that_another_evaluation_takes_over(
    songs: Path, stems_folder: Path, tmp_path: Path
) -> None:
    """It began when there were no scores yet that could have told them apart."""
    path = tmp_path / "scores/test_settings.json"
    options: dict[str, Any] = {"dataset": "folder", "estimates": stems_folder}

    def take_over(fraction: float) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), "scores": "others"}))

    result = evaluate(songs, evaldir=tmp_path / "scores", progress=take_over, **options)
    assert list(result.scores) == ["one"]
    assert all("was taken over by an evaluation" in why for why in result.failed.values())
    assert [file.name for file in (tmp_path / "scores/test").iterdir()] == ["one.json"]


def test_other_settings_are_noticed(
    songs: Path, stems_folder: Path, model: Path, tmp_path: Path
) -> None:
    evaldir = tmp_path / "scores"
    options: dict[str, Any] = {"dataset": "folder", "model": model, "evaldir": evaldir}
    evaluate(songs, **options)
    before = (evaldir / "test_settings.json").read_text()
    with pytest.raises(ConfigError, match=r"3 tracks .* other settings \(niter: 1 there, 0 now\)"):
        evaluate(songs, niter=0, **options)
    with pytest.raises(ConfigError, match=r"estimates: null there, .* weights: .* there, null now"):
        evaluate(songs, dataset="folder", estimates=stems_folder, evaldir=evaldir)
    assert (evaldir / "test_settings.json").read_text() == before

    # Other weights under the same name.
    bundle = umx_np.load_model(model)
    bundle.targets["drums"].state["fc1.weight"][0, 0] += 1.0
    umx_np.weights.save_folder(bundle, tmp_path / "tiny")
    with pytest.raises(ConfigError, match=r"\(weights: \"[0-9a-f]{16}\" there, \"[0-9a-f]{16}\""):
        evaluate(songs, **{**options, "model": tmp_path / "tiny"})
    # The same weights elsewhere.
    shutil.copytree(model, tmp_path / "moved")
    assert evaluate(songs, **{**options, "model": tmp_path / "moved"}).reused == SONGS

    result = evaluate(songs, niter=0, overwrite=True, **options)
    assert not result.reused
    assert json.loads((evaldir / "test_settings.json").read_text())["niter"] == 0
    (evaldir / "test_settings.json").unlink()
    with pytest.raises(ConfigError, match="not what they were made with"):
        evaluate(songs, niter=0, **options)


def test_stems_are_written_though_scores_are_there(
    songs: Path, model: Path, tmp_path: Path, attempts: list[str]
) -> None:
    options = {"dataset": "folder", "model": model, "evaldir": tmp_path / "scores"}
    evaluate(songs, **options)
    evaluate(songs, outdir=tmp_path / "stems", **options)
    (tmp_path / "stems/test/one/bass.wav").unlink()
    evaluate(songs, outdir=tmp_path / "stems", **options)
    assert attempts == [*2 * SONGS, "one"]


def test_stems_made_with_other_settings_are_replaced(
    songs: Path, model: Path, tmp_path: Path, attempts: list[str]
) -> None:
    options = {"dataset": "folder", "model": model, "outdir": tmp_path / "stems"}
    evaluate(songs, niter=0, evaldir=tmp_path / "before", **options)
    stem = tmp_path / "stems/test/one/vocals.wav"
    before = stem.read_bytes()
    # The scores are there, and so are files with the names of the stems.
    evaluate(songs, niter=1, evaldir=tmp_path / "now", dataset="folder", model=model)
    evaluate(songs, niter=1, evaldir=tmp_path / "now", **options)
    assert attempts == 3 * SONGS
    assert stem.read_bytes() != before
    # Now they are those of the scores, but for what an interruption left.
    evaluate(songs, niter=1, evaldir=tmp_path / "now", **options)
    assert attempts == 3 * SONGS
    (tmp_path / "stems/test/one.settings").unlink()
    evaluate(songs, niter=1, evaldir=tmp_path / "now", **options)
    assert attempts == [*3 * SONGS, "one"]
    with pytest.raises(ConfigError, match="made with other settings"):
        evaluate(songs, niter=0, evaldir=tmp_path / "now", **options)


def test_stems_are_marked_when_all_are_written(tmp_path: Path) -> None:
    with marked(tmp_path / "one", {"niter": 1}):
        assert not is_marked(tmp_path / "one", {"niter": 1})
    assert is_marked(tmp_path / "one", {"niter": 1, "model": "called otherwise"})
    assert not is_marked(tmp_path / "one", {"niter": 0})
    with (
        pytest.raises(KeyboardInterrupt),
        marked(tmp_path / "one", {"niter": 1}),
    ):
        raise KeyboardInterrupt
    assert not is_marked(tmp_path / "one", {"niter": 1})


def test_true_stems_are_never_replaced(songs: Path, model: Path, tmp_path: Path) -> None:
    root = tmp_path / "songs"
    shutil.copytree(songs, root)
    before = {path: path.read_bytes() for path in root.rglob("*.wav")}
    for place, outdir in ((root, root), (root / "test", root), (root / "test", root / "test")):
        with pytest.raises(ConfigError, match=r"outdir=.* is the folder of the data set"):
            evaluate(place, dataset="folder", model=model, outdir=outdir)
    assert {path: path.read_bytes() for path in root.rglob("*.wav")} == before


# Several processes, and failures ------------------------------------------------------------------


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


# Data ---------------------------------------------------------------------------------------------


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
