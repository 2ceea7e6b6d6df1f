"""Plans, the ledger, and work by processes that know nothing of each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import umx_np
from umx_np.catalog import Item, Ledger, Plan, make_plan, read_plan, run_shard
from umx_np.catalog.ledger import MAX_ERRORS, MAX_KILLS, MAX_LOSSES, Failure
from umx_np.commands import main
from umx_np.errors import CatalogError

Songs = Callable[[int], Path]


def published(plan: Plan) -> dict[str, dict[str, Path]]:
    """Files of the stems that the ledger names, by the path of the song."""
    ledger = Ledger(plan)
    found = {}
    for item in plan.items():
        result = ledger.result(item)
        if result is not None:
            folder = Path(plan.destination, result["folder"])
            outputs = result["record"]["outputs"]
            found[item.path] = {stem: folder / each["name"] for stem, each in outputs.items()}
    return found


def stray_files(plan: Plan) -> set[Path]:
    """Files among the results that nothing names."""
    named = {path for stems in published(plan).values() for path in stems.values()}
    records = {path.parent / ".umx-np.wav.json" for path in named}
    files = {path for path in Path(plan.destination).rglob("*") if path.is_file()}
    return files - named - records


def test_two_parts_make_the_whole(make_songs: Songs, model: Path, tmp_path: Path) -> None:
    songs = make_songs(5)
    (songs / "text.txt").write_text("no song")
    (songs / "broken.wav").write_bytes(b"RIFF no sound")
    place = str(tmp_path / "plan")
    settings = {"niter": 0, "bits": "float"}
    made = make_plan(str(songs), str(tmp_path / "out"), place, settings=settings, model=str(model))
    assert made.nb_items == 6
    plan = read_plan(place)
    assert plan == made
    sizes = [item.size for item in plan.items()]
    assert sizes == sorted(sizes, reverse=True)

    first = run_shard(plan, 1, 2, threads=1)
    assert 0 < first.done < 5
    assert first.seconds_left is None or first.seconds_left > 0
    status = run_shard(plan, 2, 2, threads=1)
    assert (status.total, status.done, status.failed, status.running) == (6, 5, 1, 0)
    assert status.classes == {"AudioError": 1}
    assert list(status.errors) == ["broken.wav"]
    assert "broken.wav" in status.errors["broken.wav"]

    found = published(plan)
    assert len(found) == 5
    assert stray_files(plan) == set()
    for path, stems in found.items():
        expected = umx_np.separate_file(
            songs / path, tmp_path / "expected", model=model, niter=0, bits="float", threads=1
        )
        for stem, file in stems.items():
            np.testing.assert_array_equal(sf.read(file)[0], sf.read(expected[stem])[0])

    # Nothing is left to be done, whoever asks.
    done = {item.path: Ledger(plan).result(item) for item in plan.items()}
    outcomes: list[str] = []
    run_shard(plan, threads=1, on_item=lambda item, outcome: outcomes.append(outcome))
    assert outcomes == []
    assert {item.path: Ledger(plan).result(item) for item in plan.items()} == done


def test_settings_and_model_are_fixed(make_songs: Songs, model: Path, tmp_path: Path) -> None:
    songs, place = str(make_songs(1)), str(tmp_path / "plan")
    make_plan(songs, str(tmp_path / "out"), place, model=str(model))
    with pytest.raises(CatalogError, match="there is a plan already"):
        make_plan(songs, str(tmp_path / "out"), place, model=str(model))
    text = json.loads(Path(place, "plan.json").read_text())
    Path(place, "plan.json").write_text(json.dumps({**text, "umx_np": "0.0.1"}))
    with pytest.raises(CatalogError, match=r"umx_np 0\.0\.1"):
        read_plan(place)
    text["model"]["sha256"] = "0" * 64
    Path(place, "plan.json").write_text(json.dumps(text))
    with pytest.raises(CatalogError, match="other weights"):
        run_shard(read_plan(place), threads=1)
    status = Ledger(read_plan(place)).status()
    assert (status.done, status.failed) == (0, 0)
    with pytest.raises(CatalogError, match="nothing to be done"):
        make_plan(str(tmp_path / "empty"), place, str(tmp_path / "other"), model=str(model))
    with pytest.raises(CatalogError, match="no plan"):
        read_plan(str(tmp_path / "nowhere"))
    with pytest.raises(CatalogError, match="part 3 of 2"):
        run_shard(read_plan(place), 3, 2)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    (tmp_path / "songs").mkdir()
    (tmp_path / "songs" / "a.wav").write_bytes(b"x")
    plan = make_plan(
        str(tmp_path / "songs"), str(tmp_path / "out"), str(tmp_path / "plan"), work="nothing"
    )
    return Ledger(plan)


ITEM = Item("a.wav", 1)


def begun(ledger: Ledger) -> str:
    attempt = ledger.begin(ITEM)
    assert attempt is not None
    return attempt


def test_one_attempt_is_published(ledger: Ledger) -> None:
    attempts = [begun(ledger) for _ in range(3)]
    assert len(set(attempts)) == 3
    assert ledger.status().running == 3
    assert [ledger.publish(ITEM, each, {"folder": each}) for each in attempts] == [
        True,
        False,
        False,
    ]
    result = ledger.result(ITEM)
    assert result is not None
    assert result["attempt"] == result["folder"] == attempts[0]
    assert ledger.begin(ITEM) is None
    assert ledger.status().done == 1
    assert ledger.abandoned() == []


@pytest.mark.parametrize(
    ("kind", "limit"), [("song", 1), ("killed", MAX_KILLS), ("error", MAX_ERRORS)]
)
def test_failures_are_counted_by_kind(ledger: Ledger, kind: str, limit: int) -> None:
    for number in range(1, limit + 1):
        given_up = ledger.fail(ITEM, begun(ledger), Failure(kind, "SomeError", "the reason"))
        assert given_up == (number == limit)
    assert ledger.begin(ITEM) is None
    status = ledger.status()
    assert (status.done, status.failed, status.running) == (0, 1, 0)
    assert status.errors == {"a.wav": "the reason"}
    assert ledger.retry(["OtherError"]) == 0
    assert ledger.retry(["SomeError"]) == 1
    assert ledger.publish(ITEM, begun(ledger), {"folder": "x"})


def test_other_kinds_do_not_count(ledger: Ledger) -> None:
    for kind in ("killed", "error", "error"):
        assert not ledger.fail(ITEM, begun(ledger), Failure(kind, "SomeError", "the reason"))
    assert ledger.publish(ITEM, begun(ledger), {"folder": "x"})


def test_song_that_is_lost_again_and_again_is_given_up(ledger: Ledger) -> None:
    for _ in range(MAX_LOSSES):
        begun(ledger)
    assert ledger.begin(ITEM) is None
    assert ledger.status().classes == {"WorkerLost": 1}


def test_scores_of_tracks(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    for track in ("one", "two"):
        folder = tmp_path / "tracks" / "test" / track
        folder.mkdir(parents=True)
        for stem in ("vocals", "rest"):
            sf.write(folder / f"{stem}.wav", 0.1 * rng.standard_normal((16000, 2)), 8000)
    (tmp_path / "tracks" / "test" / "three").mkdir()
    (tmp_path / "tracks" / "test" / "three" / "vocals.wav").write_bytes(b"no sound")
    plan = make_plan(
        str(tmp_path / "tracks"),
        str(tmp_path / "scores"),
        str(tmp_path / "plan"),
        work="evaluation",
        settings={"niter": 0},
        model=str(model),
    )
    status = run_shard(plan, threads=1)
    assert (status.done, status.failed) == (2, 1)
    assert list(status.errors) == ["test/three"]
    expected = umx_np.evaluation.evaluate(
        tmp_path / "tracks", dataset="folder", model=model, niter=0, evaldir=tmp_path / "expected"
    )
    assert set(expected.scores) == {"one", "two"}
    for track in expected.scores:
        result = Ledger(plan).result(Item(f"test/{track}"))
        assert result is not None
        file = json.loads((tmp_path / "expected" / "test" / f"{track}.json").read_text())
        assert result["scores"] == file


def test_command(
    make_songs: Songs, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    songs = make_songs(2)
    (songs / "broken.wav").write_bytes(b"RIFF no sound")
    places = [str(tmp_path / name) for name in ("out", "plan")]
    options = ["--model", str(model), "--niter", "0", "--ext", ".flac"]
    assert main(["catalog", "plan", str(songs), *places, *options]) == 0
    assert "3 songs" in capsys.readouterr().err
    assert main(["catalog", "run", places[1], "--worker", "1/1", "--worker-threads", "1"]) == 3
    assert "2 of 3 done, 1 given up" in capsys.readouterr().err
    assert main(["catalog", "status", "--json", places[1]]) == 0
    status = json.loads(capsys.readouterr().out)
    assert (status["total"], status["done"], status["failed"]) == (3, 2, 1)
    files = [path for stems in published(read_plan(places[1])).values() for path in stems.values()]
    assert {path.suffix for path in files} == {".flac"}
    (songs / "broken.wav").write_bytes(next(songs.rglob("*0.wav")).read_bytes())
    assert main(["catalog", "retry", "-q", places[1], "--class", "AudioError"]) == 0
    assert main(["catalog", "run", "-q", places[1], "--worker", "1/1"]) == 0
    assert capsys.readouterr() == ("", "")
