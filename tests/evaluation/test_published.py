"""`umx-np evaluate --reproduce`: published scores and ours, of small models in place of theirs."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from umx_np import commands
from umx_np.commands import defaults, reproducing
from umx_np.errors import ConfigError
from umx_np.evaluation import Evaluation, TrackScores, scores
from umx_np.evaluation.bss import METRICS, scores_and_doubts
from umx_np.evaluation.published import PUBLISHED, Reproduction, published_scores
from umx_np.pretrained import get_model_info
from umx_np.weights import load_folder


@pytest.fixture(autouse=True)
def short_filters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        scores, "scores_and_doubts", functools.partial(scores_and_doubts, nb_taps=32)
    )


@pytest.fixture
def published_model(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a small model in place of what would be downloaded."""

    def load_model(name, targets=None, **options):
        assert name == "umxhq"
        return replace(load_folder(model, targets), name=name)

    monkeypatch.setattr("umx_np.pretrained.load_model", load_model)


def evaluation(
    nb_tracks: int = 50, nb_frames: int = 200, dataset: str = "musdb", failed: int = 0
) -> Evaluation:
    """Make a result whose scores are those published of umxhq, but for vocals 0.1 dB better."""
    result = Evaluation(name="umxhq", settings={"dataset": dataset})
    for number in range(nb_tracks):
        targets = {
            stem: {
                metric: np.full(nb_frames, value + 0.1 * (stem == "vocals"))
                for metric, value in row.items()
            }
            for stem, row in PUBLISHED["umxhq"].scores.items()
        }
        result.scores[f"song {number}"] = TrackScores(f"song {number}", targets)
    result.failed = {f"bad {number}": "why" for number in range(failed)}
    return result


def test_tables_are_whole():
    for name, published in PUBLISHED.items():
        assert published.model == name
        assert set(published.scores) == {"vocals", "drums", "bass", "other"}
        for stem, row in published.scores.items():
            assert list(row) == list(METRICS[: len(row)])
            assert row["SDR"] == get_model_info(name).sdr[stem]
        assert published.source.startswith("README of Open-Unmix")


def test_published_scores_are_those_in_their_readme():
    try:
        text = importlib.metadata.metadata("openunmix").get_payload()
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs openunmix, whose description has the table")
    for stem in ("vocals", "drums", "bass", "other"):
        row = re.search(rf"^ *\|{stem} *\|(.*)\|$", text, re.MULTILINE)[1]
        numbers = [float(cell.strip(" _")) for cell in row.split("|")]
        assert [PUBLISHED[name].scores[stem]["SDR"] for name in PUBLISHED] == numbers


def test_both_side_by_side():
    both = Reproduction.of(evaluation(), "umxhq")
    assert both.reservations == ()
    rows = {(stem, metric): rest for stem, metric, *rest in both.rows()[1:]}
    assert len(rows) == 16
    assert rows["vocals", "SDR"] == ["6.25", "6.35", "+0.10"]
    assert rows["other", "SAR"] == ["4.62", "4.62", "+0.00"]
    document = json.loads(both.to_json())
    assert document["comparable"] is True
    assert math.isclose(document["here"]["vocals"]["SDR"], 6.35)
    assert len(Reproduction.of(evaluation(), "umxl").rows()) == 5


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"nb_tracks": 49}, "49 tracks were scored"),
        ({"nb_frames": 7}, "no track is longer than 7 s: these are excerpts"),
        ({"dataset": "musdb, wav"}, "not the compressed ones"),
        ({"dataset": "folder"}, "not the compressed ones"),
        ({"failed": 2}, "2 tracks have no scores"),
    ],
)
def test_what_cannot_be_compared_is_said(changed, said):
    both = Reproduction.of(evaluation(**changed), "umxhq")
    assert len(both.reservations) == 1
    assert said in both.reservations[0]
    assert json.loads(both.to_json())["comparable"] is False


def test_stems_without_scores():
    result = evaluation()
    for track in result.scores.values():
        del track.targets["bass"]
    both = Reproduction.of(result, "umxhq")
    assert ["bass", "SDR", "5.07", "-", "-"] in both.rows()
    assert json.loads(both.to_json())["here"]["bass"]["SDR"] is None


def test_the_command(songs, published_model, tmp_path, capsys):
    words = ["evaluate", "--reproduce", "umxhq", "--dataset", "folder", "--root", str(songs)]
    assert commands.main([*words, "--evaldir", str(tmp_path), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "umxhq: niter 1, wiener_win_len whole track" in out
    assert "umxhq: published and here" in out
    line = next(line for line in out.splitlines() if re.match(r"vocals +SDR ", line))
    document = json.loads((tmp_path / "test_published.json").read_text())
    here = document["here"]["vocals"]["SDR"]
    assert line.split()[2:] == ["6.25", f"{here:.2f}", f"{here - 6.25:+.2f}"]
    summary = json.loads((tmp_path / "test_summary.json").read_text())
    assert math.isclose(summary["median"]["vocals"]["SDR"], here)
    assert "not comparable: 3 tracks were scored" in out
    assert "not comparable: no track is longer than 2 s" in out
    assert "published: README of Open-Unmix" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "umx"], "contradicts --model umx: .* made with umxhq"),
        (["--niter", "0"], "contradicts --niter 0: .* made with 1"),
        (["--wiener-win-len", "300"], "contradicts --wiener-win-len 300: .* made with none"),
        (["--softmask"], "contradicts --softmask"),
        (["--residual", "rest"], "contradicts --residual rest"),
        (["--targets", "vocals"], "contradicts --targets"),
        (["--aggregate", '{"a": ["vocals"]}'], "contradicts --aggregate"),
        (["--estimates", "x"], "contradicts --estimates x"),
        (["--subset", "train"], "contradicts --subset train: .* made with test"),
        (["--precision", "fast"], "contradicts --precision fast"),
    ],
)
def test_what_contradicts(words, message, monkeypatch, capsys):
    monkeypatch.setattr("umx_np.evaluation.runner.evaluate", lambda **arguments: pytest.fail("ran"))
    argv = ["evaluate", "--reproduce", "umxhq", "--root", "x", *words]
    assert commands.main(argv) == 1
    assert re.search(message, capsys.readouterr().err)


def test_defaults_of_the_user_give_way(songs, published_model, monkeypatch, tmp_path, capsys):
    for option in ("model", *reproducing._SETTINGS):
        assert {"reproduce", option} in defaults._CONTRADICTIONS
    monkeypatch.setenv("UMX_NP_MODEL", "umxl")
    monkeypatch.setenv("UMX_NP_CONFIG", str(tmp_path / "my.toml"))
    others = 'targets = ["vocals"]\nprecision = "fast"\nsoftmask = true\nsubset = "train"\n'
    (tmp_path / "my.toml").write_text(f"[evaluate]\nniter = 0\nwiener-win-len = 300\n{others}")
    words = ["evaluate", "--reproduce", "umxhq", "--dataset", "folder", "--root", str(songs)]
    assert commands.main([*words, "--quiet"]) == 0
    assert "umxhq: niter 1, wiener_win_len whole track" in capsys.readouterr().out


def test_models_and_data_have_to_be_named(monkeypatch, capsys):
    monkeypatch.setattr("umx_np.evaluation.runner.evaluate", lambda **arguments: pytest.fail("ran"))
    assert commands.main(["evaluate", "--reproduce", "umxhq"]) == 1
    assert "name the folder of MUSDB18 with --root" in capsys.readouterr().err
    assert commands.main(["evaluate", "--reproduce", "umxm", "--root", "x"]) == 1
    assert "scores are published of umx, umxhq, umxl" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="reproduce='umxse'"):
        published_scores("umxse")
