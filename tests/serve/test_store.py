"""Songs on disk: whole or not there, whatever happened to the server."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from umx_np.errors import ConfigError, ModelNotFoundError
from umx_np.serve.app import _Answers
from umx_np.serve.runner import Runner, Settings
from umx_np.serve.store import Choice, Job, RefusedError, Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "data")


def added(store: Store, name: str = "song.mp3", **changes: object) -> Job:
    job, path = store.begin(name, Choice(targets=("vocals",)))
    path.write_bytes(b"x" * 100)
    return store.add(replace(job, **changes))


def test_jobs_are_there_again(store):
    jobs = [added(store, f"{number}.mp3", created=10.0 - number) for number in range(3)]
    again = Store(store.folder)
    assert list(again.jobs.values()) == list(store.jobs.values())
    # In the order in which they came, although their clocks say otherwise.
    assert list(again.jobs) == [job.id for job in jobs]
    assert again.nb_bytes == store.nb_bytes >= 300


def test_what_was_running_is_queued_again_and_its_attempt_is_gone(store):
    job = added(store, state="running")
    attempt = store.of(job) / "attempt-1"
    attempt.mkdir()
    (attempt / "vocals.wav").write_bytes(b"x")
    again = Store(store.folder)
    assert again.jobs[job.id].state == "queued"
    assert not attempt.exists()
    assert again.song(job).read_bytes() == b"x" * 100


@pytest.mark.parametrize("damage", ["no job", "half a job", "other version", "no song", "a list"])
def test_what_is_not_whole_is_removed(store, damage):
    job, kept = added(store), added(store)
    path = store.of(job) / "job.json"
    if damage == "no job":
        path.unlink()
    elif damage == "half a job":
        path.write_bytes(path.read_bytes()[:50])
    elif damage == "other version":
        path.write_text(path.read_text().replace('"format_version": 1', '"format_version": 2'))
    elif damage == "no song":
        store.song(job).unlink()
    else:
        path.write_text("[]")
    (store.renders / "left.mp3").write_bytes(b"x")
    again = Store(store.folder)
    assert list(again.jobs) == [kept.id]
    assert [path.name for path in (store.folder / "songs").iterdir()] == [kept.id]
    assert not list(store.renders.iterdir())


@pytest.mark.parametrize("mark", [None, "", '{"format": "umx_np serve", "format_version": 2}'])
def test_a_folder_of_something_else_is_left_alone(tmp_path, mark):
    """What is not whole is removed, so the folder must be ours."""
    (tmp_path / "songs" / "0123456789abcdef").mkdir(parents=True)
    if mark is not None:
        (tmp_path / "umx-np-serve.json").write_text(mark)
    with pytest.raises(ConfigError, match="give"):
        Store(tmp_path)
    assert (tmp_path / "songs" / "0123456789abcdef").is_dir()


def test_a_song_that_is_taken_out_is_gone_and_deleted_by_the_next_at_the_latest(store):
    job = added(store)
    gone = store.take_out(job)
    assert not store.of(job).exists()
    assert [path.name for path in gone.iterdir()]
    assert not Store(store.folder).jobs
    assert not gone.exists()
    with pytest.raises(RefusedError, match="no song") as refused:
        store.get(job.id)
    assert refused.value.status == 404


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_what_goes_wrong_on_the_way_leaves_nothing(store, error):
    runner = Runner(store, Settings())

    async def fill(path, most):
        path.write_bytes(b"half of it")
        raise error

    with pytest.raises(type(error)):
        asyncio.run(_Answers(runner)._take("song.mp3", Choice(), fill))
    assert not list((store.folder / "songs").iterdir())
    assert runner.uploads == 0
    runner.check_room()


@pytest.mark.parametrize(
    ("given", "shown", "file"),
    [
        ("song.mp3", "song.mp3", "song.mp3"),
        ("../../etc/passwd", "passwd", "song"),
        ("C:\\music\\a.FLAC", "a.FLAC", "song.flac"),
        ("a\x1b[2J\n.wav", "a[2J.wav", "song.wav"),
        ("..", "..", "song"),
        ("", "song", "song"),
        ("/", "song", "song"),
        ("x" * 500 + ".ogg", "x" * 120 + ".ogg", "song.ogg"),
        ("a.py", "a.py", "song"),
    ],
)
def test_names_are_shown_and_never_become_paths(store, given, shown, file):
    job, path = store.begin(given, Choice())
    assert (job.name, path.name, path.parent) == (shown, file, store.of(job))


def test_the_oldest_goes_first_and_never_what_waits(store):
    waiting, done, failed, last = (
        added(store, state=state) for state in ("queued", "done", "failed", "done")
    )
    for expected in (done, failed):
        assert store.oldest_done() == expected
        store.take_out(expected)
    assert store.oldest_done() is None  # the newest results stay
    assert last.id in store.jobs
    assert waiting.id in store.jobs


@pytest.mark.parametrize(
    ("choice", "error", "words"),
    [
        (Choice(model="nonsense"), ModelNotFoundError, "nonsense"),
        (Choice(model="/etc"), ModelNotFoundError, "/etc"),
        (Choice(targets=("vocals", "piano")), ConfigError, "piano"),
        (Choice(targets=("vocals", "vocals")), ConfigError, "only once"),
        (Choice(targets=()), ConfigError, "at least one"),
        (Choice(two_stems="speech"), ConfigError, "speech"),
        (Choice(targets=("vocals",), two_stems="vocals"), ConfigError, "exclude"),
        (Choice(niter=11), ConfigError, "niter=11"),
        (Choice(precision="half"), ConfigError, "half"),
    ],
)
def test_a_choice_that_cannot_be_is_refused_in_words(choice, error, words):
    with pytest.raises(error, match=words):
        choice.check()
