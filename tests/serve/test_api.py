"""What the interface answers, for a song that is separated already and for what cannot be."""

from __future__ import annotations

import io
import shutil
import socket
import time
import zipfile
from contextlib import suppress

import numpy as np
import pytest
import soundfile as sf
from starlette.routing import Route

import umx_np
from umx_np.audio import written_suffixes
from umx_np.serve.app import make_app
from umx_np.serve.runner import Runner, Settings
from umx_np.serve.store import Store

from .conftest import RATE, Server, add_done, document, lanes_of

STEMS = lanes_of(3.0)
MIXTURE = sum(stem.astype(int) for stem in STEMS.values())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("api") / "data"
    job = add_done(folder, STEMS)
    server = Server(folder, "--max-upload", "1")
    server.job = f"api/jobs/{job.id}"
    yield server
    assert server.stop() in (143, -15)


def decoded(answer) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return sf.read(io.BytesIO(answer.content), dtype="int16")[0]


def check_nothing_is_left(server) -> None:
    """What is made for a download goes when its last byte is sent, which may come before it."""
    deadline = time.monotonic() + 5
    while any(name.startswith("renders") for name in server.files()):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_document_describes_every_route_and_no_other(tmp_path):
    app = make_app(Runner(Store(tmp_path), Settings()))
    routes = {
        (route.path, method.lower())
        for route in app.routes
        if isinstance(route, Route) and route.path.startswith("/api/")
        for method in route.methods - {"HEAD"}
    }
    described = {
        (path, method)
        for path, item in document()["paths"].items()
        for method in item
        if method != "parameters"
    }
    assert routes == described


def test_a_job_says_what_a_player_needs(server):
    job = server.get(server.job).json()
    assert (job["state"], job["title"], job["name"]) == ("done", "Sines", "Sines.wav")
    assert job["sound"] == {
        "lanes": ["mixture", "vocals", "drums", "bass"],
        "rate": RATE,
        "nb_channels": 2,
        "nb_timesteps": 3 * RATE,
        "first_byte": 44,
    }
    assert job["record"] is None  # these were not separated
    listed = {name: value for name, value in job.items() if name != "record"}
    assert server.jobs() == [listed]
    wanted = document()["components"]["schemas"]["Job"]
    assert set(listed) == set(wanted["required"]) == set(wanted["properties"])


def test_lanes_are_the_files_and_come_by_ranges(server):
    for lane, samples in {"mixture": MIXTURE, **STEMS}.items():
        np.testing.assert_array_equal(decoded(server.get(f"{server.job}/lanes/{lane}")), samples)
        first, count = 44 + 4 * 1000, 4 * 500
        part = server.get(
            f"{server.job}/lanes/{lane}", headers={"range": f"bytes={first}-{first + count - 1}"}
        )
        assert part.status_code == 206
        found = np.frombuffer(part.content, "<i2").reshape(-1, 2)
        np.testing.assert_array_equal(found, samples[1000:1500])
    name = server.get(f"{server.job}/lanes/bass").headers["content-disposition"]
    assert name == "attachment; filename*=utf-8''Sines%20-%20bass.wav"


def test_peaks_enclose_every_sample(server):
    peaks = server.get(f"{server.job}/peaks").json()
    size = peaks["samples_a_column"]
    assert list(peaks["lanes"]) == ["mixture", *STEMS]
    for lane, samples in {"mixture": MIXTURE, **STEMS}.items():
        low, high = (np.array(peaks["lanes"][lane][name]) for name in ("low", "high"))
        assert len(low) == len(high) == -(-len(samples) // size) <= 2000
        starts = np.arange(0, len(samples), size)
        least = np.minimum.reduceat(samples.min(axis=1), starts) / 32768 * 127
        greatest = np.maximum.reduceat(samples.max(axis=1), starts) / 32768 * 127
        assert ((low <= least) & (least < low + 1.001)).all()
        assert ((high >= greatest) & (greatest > high - 1.001)).all()


def test_a_spectrogram_shows_the_sine_in_its_band(server):
    import base64

    for lane, hertz in {"vocals": 440.0, "drums": 1000.0}.items():
        for _ in range(2):  # computed, and kept
            picture = server.get(f"{server.job}/lanes/{lane}/spectrogram").json()
        shape = (picture["nb_bands"], picture["nb_columns"])
        levels = np.frombuffer(base64.b64decode(picture["levels"]), np.uint8).reshape(shape)
        edges = np.geomspace(picture["lowest"], picture["highest"], picture["nb_bands"] + 1)
        loudest = int(levels.mean(axis=1).argmax())
        assert edges[loudest - 1] <= hertz <= edges[loudest + 2]
        assert picture["seconds"] == 3.0


def test_a_mix_is_the_sum_of_what_is_heard(server):
    mix = decoded(server.get(f"{server.job}/mix?gains=vocals:0.5,bass:2,drums:0"))
    wanted = 0.5 * STEMS["vocals"] + 2.0 * STEMS["bass"]
    assert np.abs(mix - wanted).max() <= 0.5
    # Beyond full scale, one gain brings all of it there.
    loud = decoded(server.get(f"{server.job}/mix?gains=vocals:4,bass:4,drums:4")).astype(float)
    whole = 4.0 * MIXTURE
    gain = 32767 / np.abs(whole).max()
    assert gain < 1
    assert np.abs(loud - gain * whole).max() <= 1.01


@pytest.mark.parametrize("suffix", written_suffixes())
def test_everything_is_had_in_every_format_that_is_written(server, suffix):
    query = f"format={suffix[1:]}"
    for path in (f"lanes/vocals?{query}", f"mix?gains=vocals:1,bass:1&{query}"):
        answer = server.get(f"{server.job}/{path}")
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-disposition"].endswith(suffix)
        audio, rate = umx_np.audio.read(io.BytesIO(answer.content))
        assert abs(audio.shape[1] / rate - 3.0) < 0.06
        assert 0.05 < np.abs(audio).max() < 0.3
    check_nothing_is_left(server)


def test_a_stem_file_has_four_stems(server):
    answer = server.get(f"{server.job}/stem-file")
    assert answer.status_code == 400
    assert "all four and no others" in answer.json()["error"]["message"]
    check_nothing_is_left(server)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_a_stem_file_holds_the_song_and_its_stems(tmp_path):
    stems = {**STEMS, "other": (STEMS["vocals"] // 3)}
    job = add_done(tmp_path / "data", stems, "Four.wav")
    server = Server(tmp_path / "data")
    try:
        needed = server.get("api/about").json()["stem_file"]
        answer = server.get(f"api/jobs/{job.id}/stem-file")
        check_nothing_is_left(server)
    finally:
        server.stop()
    assert answer.status_code == 200, answer.text
    assert "Four.stem.mp4" in answer.headers["content-disposition"]
    expected = {"mixture": sum(stem.astype(int) for stem in stems.values()), **stems}
    assert sorted(needed) == sorted(stems)
    for track, lane in enumerate(("mixture", *needed), 1):
        found, rate = umx_np.audio.read(io.BytesIO(answer.content), track=track)
        assert rate == RATE
        error = found[:, : len(expected[lane])] - expected[lane].T / 32768
        # AAC needs some milliseconds for a tone that begins at once.
        assert np.abs(error[:, RATE // 2 : -RATE // 2]).max() < 0.01


@pytest.mark.parametrize("kind", ["wav", "flac"])
def test_a_zip_holds_all_stems(server, kind):
    answer = server.get(f"{server.job}/zip?format={kind}")
    archive = zipfile.ZipFile(io.BytesIO(answer.content))
    assert archive.testzip() is None
    assert archive.namelist() == [f"{name}.{kind}" for name in STEMS]
    for name, samples in STEMS.items():
        found, _ = sf.read(io.BytesIO(archive.read(f"{name}.{kind}")), dtype="int16")
        np.testing.assert_array_equal(found, samples)
    check_nothing_is_left(server)


@pytest.mark.parametrize(
    ("path", "status", "words"),
    [
        ("api/nothing", 404, "Not Found"),
        ("api/jobs/0123456789abcdef", 404, "no song"),
        ("api/jobs/%2e%2e", 404, "no song"),
        ("{job}/lanes/piano", 404, "piano"),
        ("{job}/lanes/..%2f..%2fjob", 404, ""),
        ("{job}/lanes/vocals?format=exe", 400, "exe"),
        ("{job}/lanes/vocals?format=", 400, "format="),
        ("{job}/lanes/vocals?path=/etc/passwd", 400, "path"),
        ("{job}/mix?gains=", 400, "nothing to be heard"),
        ("{job}/mix", 400, "nothing to be heard"),
        ("{job}/mix?gains=vocals:0", 400, "nothing to be heard"),
        ("{job}/mix?gains=piano:1", 400, "piano"),
        ("{job}/mix?gains=vocals:1,vocals:1", 400, "only once"),
        ("{job}/mix?gains=vocals:nan", 400, "from 0 to 4"),
        ("{job}/mix?gains=vocals:5", 400, "from 0 to 4"),
        ("{job}/mix?gains=vocals:-1", 400, "from 0 to 4"),
        ("{job}/mix?gains=vocals", 400, "from 0 to 4"),
    ],
)
def test_what_cannot_be_answered_is_said_in_words(server, path, status, words):
    answer = server.get(path.format(job=server.job))
    assert answer.status_code == status
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "name is missing"),
        ("?name=", "name is missing"),
        ("?name=a.wav&model=nonsense", "nonsense"),
        ("?name=a.wav&model=/tmp", "/tmp"),
        ("?name=a.wav&targets=piano", "piano"),
        ("?name=a.wav&targets=", "stem=''"),
        ("?name=a.wav&niter=-1", "niter"),
        ("?name=a.wav&niter=9999999999999999999999", "niter"),
        ("?name=a.wav&niter=²", "niter"),
        ("?name=a.wav&precision=half", "half"),
        ("?name=a.wav&outdir=/tmp", "outdir"),
    ],
)
def test_what_cannot_be_queued_is_refused_before_anything_is_kept(server, query, words):
    before = server.files()
    answer = server.post(f"api/jobs{query}", data=b"x")
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]
    assert server.files() == before


def test_empty_and_large_songs_are_refused_and_leave_nothing(server):
    before = server.files()
    assert "is empty" in server.post("api/jobs?name=a.wav", data=b"").json()["error"]["message"]
    answer = server.post("api/jobs?name=a.wav", data=b"x" * 1_000_001)
    assert answer.status_code == 413
    # Without a length that is announced, it is noticed on the way.
    parts = iter([b"x" * 500_000] * 3)
    with suppress(OSError):  # the server went away while the rest was sent
        assert server.post("api/jobs?name=a.wav", data=parts).status_code == 413
    assert server.files() == before
    assert len(server.jobs()) == 1


def send_part(server: Server, length: int, sent: bytes) -> socket.socket:
    line = socket.create_connection(("127.0.0.1", server.port), 10)
    line.sendall(
        b"POST /api/jobs?name=a.wav HTTP/1.1\r\nHost: localhost\r\n"
        b"Authorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s"
        % (server.token.encode(), length, sent)
    )
    return line


def test_an_upload_that_breaks_off_leaves_nothing(server):
    before = server.files()
    line = send_part(server, 100_000, b"RIFF" * 1000)
    deadline = time.monotonic() + 10
    while server.files() == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    # It is no song yet, and keeps nobody from asking.
    assert len(server.jobs()) == 1
    line.close()
    while server.files() != before:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_events_say_what_is_there_and_what_changes(server):
    with server.get("api/events", stream=True) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        first = next(lines)
        assert first.startswith(b'data: {"jobs": [')
        assert server.job.rsplit("/", 1)[1].encode() in first


def test_models_have_what_one_chooses_by(server):
    models = {model["name"]: model for model in server.get("api/models").json()["models"]}
    assert [name for name, model in models.items() if model["default"]] == ["umxm"]
    assert models["umxm"]["here"]
    assert models["umxm"]["license"] == "MIT"
    assert models["umxl"]["non_commercial"]
    assert models["umxhq"]["sdr"]["vocals"] == 6.25
    for model in models.values():
        assert not model["sdr"] or list(model["sdr"]) == model["targets"]
        assert bool(model["sdr"]) == bool(model["sdr_source"])
        assert model["advice"]


def test_what_cannot_be_there_is_no_mistake_of_the_server(server):
    answer = server.get(f"{server.job}/lanes/vocals", headers={"range": "bytes=99999999-"})
    assert answer.status_code == 416
    assert server.get(f"{server.job}/lanes/vocals", headers={"range": "bytes=x"}).status_code < 500
    assert server.delete("api/jobs").status_code == 405
    assert server.post("api/about").status_code == 405
