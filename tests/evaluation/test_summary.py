"""Tables: medians and means by hand, as museval has them, as text, CSV, JSON and picture."""

from __future__ import annotations

import csv
import io
import json
import warnings

import numpy as np
import pytest

from umx_np.evaluation import Summary, TrackScores
from umx_np.evaluation.bss import METRICS
from umx_np.evaluation.plot import draw_boxes
from umx_np.evaluation.summary import write_pandas, write_summary

NAN = np.nan


def track(name: str, **sdr: list[float]) -> TrackScores:
    """Scores whose other metrics are the SDR and 10, 20 and 30."""
    return TrackScores(
        name,
        {
            target: {metric: np.array(values) + 10.0 * k for k, metric in enumerate(METRICS)}
            for target, values in sdr.items()
        },
    )


SCORES = {
    "a": track("a", vocals=[1.0, 5.0, NAN, 3.0], drums=[7.0, 7.0, 7.0, NAN]),
    "b": track("b", vocals=[4.0, 8.0], drums=[NAN, NAN]),
    "c": track("c", vocals=[-2.0], drums=[2.0]),
    "d": track("d", vocals=[10.0]),
}
# Medians of vocals: 3, 6, -2, 10; of drums: 7, none, 2, not there.
MEDIAN = {"vocals": 4.5, "drums": 4.5}
MEAN = {"vocals": 4.25, "drums": 4.5}
COUNTS = {"vocals": 4, "drums": 2}


def test_medians_and_means():
    summary = Summary.of(SCORES)
    assert summary.tracks["a"]["vocals"] == {"SDR": 3.0, "SIR": 13.0, "ISR": 23.0, "SAR": 33.0}
    assert np.isnan(summary.tracks["b"]["drums"]["SDR"])
    for k, metric in enumerate(METRICS):
        assert {t: row[metric] - 10 * k for t, row in summary.median.items()} == MEDIAN
        assert {t: row[metric] - 10 * k for t, row in summary.mean.items()} == MEAN
    assert summary.counts == COUNTS


def test_nothing_has_scores():
    summary = Summary.of({"x": track("x", vocals=[NAN], drums=[NAN])})
    assert np.isnan(summary.median["vocals"]["SDR"])
    assert summary.counts == {"vocals": 0, "drums": 0}
    assert "-        -" in summary.table()
    assert Summary.of({}).median == {}


def test_table():
    lines = Summary.of(SCORES).table().splitlines()
    assert lines[0].split() == [*METRICS, "tracks"]
    assert lines[2].split() == ["vocals", "4.500", "14.500", "24.500", "34.500", "4"]
    assert lines[5].split() == ["vocals", "4.250", "14.250", "24.250", "34.250", "4"]
    assert lines[6].split() == ["drums", "4.500", "14.500", "24.500", "34.500", "2"]


def test_csv():
    summary = Summary.of(SCORES)
    rows = list(csv.reader(io.StringIO(summary.to_csv())))
    assert rows[0] == ["aggregation", "target", *METRICS, "tracks"]
    assert rows[3] == ["mean", "vocals", "4.25000", "14.25000", "24.25000", "34.25000", "4"]
    rows = list(csv.reader(io.StringIO(summary.tracks_to_csv())))
    assert rows[0] == ["track", "target", *METRICS]
    assert rows[4] == ["b", "drums", "", "", "", ""]
    assert len(rows) == 8


def test_names_of_any_bytes(tmp_path):
    name = "Motörhead \udcff"  # as Python names a byte that is not UTF-8
    summary = Summary.of({name: track(name, vocals=[1.0])})
    _, _, tracks = write_summary(summary, tmp_path, "test", {})
    assert "Motörhead ".encode() + b"\xff," in tracks.read_bytes()


def test_json():
    content = json.loads(
        Summary.of(SCORES).to_json({"niter": 1}), parse_constant=lambda name: pytest.fail(name)
    )
    assert content["settings"] == {"niter": 1}
    assert content["median"]["drums"]["SAR"] == 34.5
    assert content["tracks"]["b"]["drums"]["SDR"] is None
    assert content["counts"] == COUNTS


def test_museval_agrees(museval, pandas, tmp_path):
    """Its own aggregation of our files and of our data frame."""
    folder = tmp_path / "scores"
    for name, scores in SCORES.items():
        scores.write(folder / "test" / f"{name}.json")
    summary = Summary.of(SCORES)
    (folder / "test_summary.json").write_text(summary.to_json())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = museval.EvalStore()
        store.add_eval_dir(str(folder))
        theirs = store.agg_frames_tracks_scores()
        for target, row in summary.median.items():
            for metric in METRICS:
                assert theirs[target][metric] == row[metric]

        write_pandas(SCORES, tmp_path / "new/model.pandas", "mine")
        method = museval.MethodStore()
        method.load(str(tmp_path / "new/model.pandas"))
        reference = museval.MethodStore()
        reference.add_evalstore(store, "mine")
        assert method.agg_frames_tracks_scores()["mine"]["vocals"]["SIR"] == 14.5
        assert list(method.df.columns) == list(reference.df.columns)
        keys = ["track", "target", "metric", "time"]
        ours, other = (
            frame.sort_values(keys).reset_index(drop=True) for frame in (method.df, reference.df)
        )
        pandas.testing.assert_frame_equal(ours, other)


def test_box_plot(tmp_path):
    pytest.importorskip("matplotlib")
    summary = Summary.of({"a": track("$a", **{"$\\frac$": [1.0], "vocals": [2.0]})})
    path = draw_boxes(summary, "a $\\frac$ {model_", tmp_path / "new" / "boxes.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    nothing = Summary.of({"x": track("x", vocals=[NAN], drums=[NAN])})
    assert draw_boxes(nothing, "model", tmp_path / "empty.png").stat().st_size > 1000
