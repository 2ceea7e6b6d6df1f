"""Tracks that are odd, and evaluations that share a folder for their scores."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from umx_np.errors import ConfigError
from umx_np.evaluation import evaluate
from umx_np.evaluation.settings import claimed

from .conftest import STEMS, sources, write_track

SONGS = ["one", "three", "two"]


def test_odd_folders_do_not_stop_the_others(
    songs: Path, stems_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stems = dict(zip(STEMS, sources(4, 1, 4000), strict=True))
    (tmp_path / "songs").mkdir()
    for path in (songs / "test").iterdir():
        (tmp_path / "songs" / path.name).symlink_to(path)
    write_track(tmp_path / "songs/alone", {"vocals": stems["vocals"]})
    write_track(tmp_path / "songs/mixed", {"mixture": stems["vocals"]})
    write_track(tmp_path / "songs/two formats", stems)
    write_track(tmp_path / "songs/two formats", {"bass": stems["bass"]}, ".flac")
    write_track(tmp_path / "songs/sum", {**stems, "accompaniment": stems["bass"]})
    (tmp_path / "songs/covers").mkdir()
    (tmp_path / "songs/covers/front.jpg").touch()
    (tmp_path / "songs/notes.txt").touch()
    with caplog.at_level(logging.WARNING):
        result = evaluate(tmp_path / "songs", dataset="folder", estimates=stems_folder)
    assert list(result.scores) == SONGS
    assert sorted(result.failed) == ["alone", "mixed", "sum", "two formats"]
    assert "has vocals; scores need two or more" in result.failed["alone"]
    assert "has no stems; scores need two or more" in result.failed["mixed"]
    assert "accompaniment.wav beside stems" in result.failed["sum"]
    assert "bass.flac and bass.wav; keep one" in result.failed["two formats"]
    assert "1 folders hold no sound files of stems and are passed over, covers" in caplog.text


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_a_folder_that_cannot_be_read(songs: Path, stems_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(songs / "test/one")
    (tmp_path / "locked").mkdir(mode=0)
    result = evaluate(tmp_path, dataset="folder", estimates=stems_folder)
    assert list(result.scores) == ["one"]
    assert "cannot be read" in result.failed["locked"]


def test_estimates_that_cannot_be_listed(
    songs: Path, stems_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from umx_np.evaluation import estimates

    def listed(folder: Path, *arguments: object) -> dict[str, Path]:
        if folder.name == "two":
            raise PermissionError(13, "Permission denied")
        return original(folder)

    original = estimates.stem_files
    monkeypatch.setattr(estimates, "stem_files", listed)
    result = evaluate(songs, dataset="folder", estimates=stems_folder)
    assert list(result.scores) == ["one", "three"]
    assert "Permission denied" in result.failed["two"]


def test_nothing_but_odd_folders(tmp_path: Path) -> None:
    """Before a model is loaded."""
    write_track(tmp_path / "alone", {"vocals": sources(1, 1, 4000)[0]})
    with pytest.raises(ConfigError, match=r"no track can be scored: .*two or more"):
        evaluate(tmp_path, dataset="folder", model="umx-none", offline=True)


PROGRAM = """
import functools, sys, time
from pathlib import Path
from umx_np.evaluation import evaluate, scores, work
from umx_np.evaluation.bss import scores_and_doubts

songs, stems, evaldir, log = map(Path, sys.argv[1:])
scores.scores_and_doubts = functools.partial(scores_and_doubts, nb_taps=32)
original = work.evaluate_track

def slow(job, estimates, task):
    with log.open("a") as file:
        file.write(task.track.name + "\\n")
    time.sleep(1.0)
    return original(job, estimates, task)

work.evaluate_track = slow
(evaldir.parent / "begun").touch()
result = evaluate(songs, dataset="folder", estimates=stems, evaldir=evaldir)
print(*result.scores)
assert not result.failed
"""


@pytest.mark.slow
def test_evaluations_at_the_same_time_share_the_tracks(
    songs: Path, stems_folder: Path, tmp_path: Path
) -> None:
    log, scores = tmp_path / "log", tmp_path / "scores"
    command = [sys.executable, "-c", PROGRAM, str(songs), str(stems_folder), str(scores), str(log)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for run in runs:
        assert run.communicate(timeout=100)[0].split() == SONGS
        assert run.returncode == 0
    assert sorted(log.read_text().split()) == SONGS
    left = {path.name for path in scores.rglob("*") if path.is_file()}
    assert not any("claim" in name for name in left) or sys.platform == "win32"
    assert {f"{song}.json" for song in SONGS} < left


HOLDER = """
import sys, time
from pathlib import Path
from umx_np.evaluation.settings import claimed
with claimed(Path(sys.argv[1]), "test", "a song", wait=False) as ours:
    print(ours, flush=True)
    time.sleep(60.0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="has no such signal")
def test_the_claim_of_a_program_that_was_killed_is_free(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "True\n"
    with claimed(tmp_path, "test", "a song", wait=False) as ours:
        assert not ours
    with claimed(tmp_path, "test", "another", wait=False) as ours:
        assert ours
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    begin = time.monotonic()
    with claimed(tmp_path, "test", "a song", wait=True) as ours:
        assert ours
    assert time.monotonic() - begin < 10.0
    assert not list(tmp_path.iterdir())
