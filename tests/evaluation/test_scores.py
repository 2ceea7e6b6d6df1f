"""`score_track` and the files of a track: museval's `eval_mus_track` and its JSON."""

from __future__ import annotations

import json
import logging
import types
import warnings
from pathlib import Path

import numpy as np
import pytest

from umx_np.errors import ConfigError, ShapeError
from umx_np.evaluation import ScoresError, TrackScores, read_scores, score_track
from umx_np.evaluation.bss import METRICS
from umx_np.evaluation.scores import comparisons, nb_frames, scored_targets

from .conftest import RATE, imperfect, sources

R = sources(3, 1, 4 * RATE + 100)
SILENT_SECOND = slice(RATE, 2 * RATE)
R[2, :, SILENT_SECOND] = 0.0
E = imperfect(R)
NAMES = ("vocals", "drums", "bass")


def with_accompaniment(stems: np.ndarray) -> dict[str, np.ndarray]:
    return {**dict(zip(NAMES, stems, strict=True)), "accompaniment": stems[1] + stems[2]}


REFERENCES, ESTIMATES = with_accompaniment(R), with_accompaniment(E)
COMBINATIONS = [
    ("vocals", "drums", "bass"),
    ("vocals", "accompaniment"),
    ("vocals", "drums", "bass", "accompaniment"),
    ("drums", "accompaniment"),
]


def chosen(stems: dict[str, np.ndarray], names: tuple[str, ...]) -> dict[str, np.ndarray]:
    return {name: stems[name] for name in names}


def by_museval(museval, names, folder: Path):
    """The file that museval writes, and its store of scores."""
    targets = {name: types.SimpleNamespace(audio=stem.T) for name, stem in REFERENCES.items()}
    track = types.SimpleNamespace(name="song", rate=RATE, subset="test", targets=targets)
    estimates = {name: stem.T for name, stem in chosen(ESTIMATES, names).items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = museval.eval_mus_track(track, estimates, output_dir=str(folder))
    return folder / "test" / "song.json", store


@pytest.mark.parametrize("names", COMBINATIONS)
def test_files_are_those_of_museval(museval, tmp_path, names):
    path, store = by_museval(museval, names, tmp_path)
    scores = score_track("song", REFERENCES, chosen(ESTIMATES, names), RATE)
    written, theirs = json.loads(scores.to_json()), json.loads(path.read_text())
    assert written.keys() == theirs.keys()
    assert [t["name"] for t in written["targets"]] == [t["name"] for t in theirs["targets"]]
    for ours, other in zip(written["targets"], theirs["targets"], strict=True):
        assert len(ours["frames"]) == len(other["frames"]) == 4
        for a, b in zip(ours["frames"], other["frames"], strict=True):
            assert (a["time"], a["duration"]) == (b["time"], b["duration"])
            assert list(a["metrics"]) == list(b["metrics"])
            # The fifth decimal may be rounded either way.
            np.testing.assert_allclose(
                list(a["metrics"].values()), list(b["metrics"].values()), rtol=0, atol=1.1e-5
            )
    has_silence = "bass" in names
    assert np.isnan(scores.targets[written["targets"][0]["name"]]["SDR"][1]) == has_silence
    # museval's schema, to which it holds its own files.
    store.scores = written
    store.validate()

    read = read_scores(path)
    for target, values in read.targets.items():
        for metric in METRICS:
            np.testing.assert_allclose(
                values[metric], scores.targets[target][metric], rtol=0, atol=1.1e-5
            )


def test_museval_itself_can_be_asked(museval):
    names = ("vocals", "drums", "bass", "accompaniment")
    shorter = {name: stem[:, :-500] for name, stem in ESTIMATES.items()}
    ours = score_track("song", REFERENCES, chosen(shorter, names), RATE)
    theirs = score_track("song", REFERENCES, chosen(shorter, names), RATE, method="museval")
    assert theirs.version == "0.4.1" != ours.version
    assert list(ours.targets) == list(theirs.targets)
    for target in ours.targets:
        for metric in METRICS:
            np.testing.assert_allclose(
                ours.targets[target][metric], theirs.targets[target][metric], rtol=0, atol=1.1e-5
            )
    silent = {**REFERENCES, "drums": 0 * R[1]}
    with pytest.raises(ScoresError, match="museval cannot score this track: All the reference"):
        score_track("song", silent, chosen(shorter, names[:3]), RATE, method="museval")


def test_silent_stems(caplog):
    silent = {**REFERENCES, "drums": 0 * R[1]}
    with caplog.at_level(logging.WARNING, "umx_np"):
        scores = score_track("song", silent, chosen(ESTIMATES, NAMES), RATE)
    assert caplog.messages == ["song: the reference of drums is silent, which gives no scores"]
    assert np.isnan(scores.medians()["drums"]["SDR"])
    assert np.isfinite(scores.medians()["vocals"]["SDR"])
    written = json.loads(scores.to_json())
    assert '"SDR": NaN' in scores.to_json()
    assert np.isnan(written["targets"][1]["frames"][0]["metrics"]["SIR"])


def test_perfect_estimates_have_no_number():
    """An infinite ratio is none, as in museval's files."""
    scores = score_track("song", REFERENCES, chosen(REFERENCES, NAMES), RATE)
    assert np.isnan(scores.targets["vocals"]["SDR"]).all()


def test_writing_and_reading(tmp_path):
    values = {metric: np.array([1.5, np.nan, -2.25]) for metric in METRICS}
    scores = TrackScores("a.b", {"vocals": values})
    path = tmp_path / "new" / "a.b.json"
    scores.write(path)
    assert [file.name for file in path.parent.iterdir()] == ["a.b.json"]
    read = read_scores(path)
    assert (read.name, read.version) == (scores.name, scores.version)
    np.testing.assert_array_equal(read.targets["vocals"]["SAR"], values["SAR"])
    assert read.medians() == {"vocals": dict.fromkeys(METRICS, -0.375)}
    assert read.is_complete(["vocals"], 3)
    assert not read.is_complete(["vocals"], 4)
    assert not read.is_complete(["vocals", "drums"], 3)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"targets": [{"name": "x"}], "museval_version": ""}', "\0"]
)
def test_broken_files(tmp_path, text):
    path = tmp_path / "song.json"
    path.write_text(text)
    with pytest.raises(ScoresError, match=r"song.json' (does not hold scores|holds)"):
        read_scores(path)
    with pytest.raises(ScoresError, match="cannot be read: it does not exist"):
        read_scores(tmp_path / "nothing.json")


def test_which_stems_are_compared():
    assert scored_targets(["vocals", "drums", "bass", "other", "accompaniment"]) == [
        "drums",
        "bass",
        "other",
        "vocals",
        "accompaniment",
    ]
    assert scored_targets(["drums", "accompaniment"]) == ["drums", "accompaniment"]
    assert scored_targets(["vocals", "accompaniment"]) == ["vocals", "accompaniment"]
    assert comparisons(["drums"]) == comparisons([]) == []


def test_frames():
    assert [nb_frames(n, 44100) for n in (100, 44100, 88199, 88200)] == [1, 1, 1, 2]


def test_mistakes(monkeypatch):
    with pytest.raises(ScoresError, match="track='song' has estimates of vocals and references"):
        score_track("song", REFERENCES, chosen(ESTIMATES, ("vocals",)), RATE)
    with pytest.raises(ScoresError, match="estimates of nothing"):
        score_track("song", REFERENCES, {}, RATE)
    with pytest.raises(ShapeError, match="nb_channels=1"):
        score_track("song", REFERENCES, {n: np.zeros((2, 9)) for n in NAMES}, RATE)
    with pytest.raises(ConfigError, match="method='fast' must be one of builtin, museval"):
        score_track("song", REFERENCES, ESTIMATES, RATE, method="fast")
    monkeypatch.setitem(__import__("sys").modules, "museval", None)
    with pytest.raises(ConfigError, match=r'pip install "umx-np\[eval\]"'):
        score_track("song", REFERENCES, ESTIMATES, RATE, method="museval")


def test_references_that_do_not_determine_the_scores_are_named(caplog):
    """Each track says so once for each comparison, with the names of the stems."""
    spectrum = np.fft.rfft(R)
    spectrum[..., spectrum.shape[-1] // 2 :] = 0.0
    references = np.fft.irfft(spectrum, R.shape[-1]).astype(np.float32)
    stems = dict(zip(NAMES, references, strict=True))
    with caplog.at_level(logging.WARNING):
        scores = score_track(
            "song", stems, dict(zip(NAMES, imperfect(references), strict=True)), RATE
        )
    (record,) = caplog.records
    assert record.getMessage().startswith("song: vocals, drums, bass: some of SIR, ISR and SAR")
    assert min(scores.medians()[name]["SIR"] for name in NAMES) > -10.0
