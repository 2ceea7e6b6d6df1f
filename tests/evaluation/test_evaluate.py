"""`evaluate` on folders of songs: results, resuming, several processes, and what goes wrong."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import umx_np
from umx_np.errors import ConfigError
from umx_np.evaluation import (
    ScoresError,
    evaluate,
    read_scores,
    score_track,
)
from umx_np.evaluation.settings import _claim_path, is_marked, marked

from .conftest import RATE, STEMS, read, sources, write_track

pytestmark = pytest.mark.usefixtures("short_filters")

SONGS = ["one", "three", "two"]  # in the order of their names


def sdr(result: Any, song: str = "one") -> dict[str, float]:
    return {name: row["SDR"] for name, row in result.scores[song].medians().items()}


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


# Data ---------------------------------------------------------------------------------------------
