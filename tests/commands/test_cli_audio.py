"""Reading and writing options of ``umx-np separate``, and songs that are objects."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import soundfile as sf

from umx_np.audio import write
from umx_np.errors import AudioError, ConfigError
from umx_np.separation.files import separate_file
from umx_np.separation.naming import record_path
from umx_np.separation.records import Record

from .conftest import STEMS, files

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None, reason="needs ffmpeg"
)


def probed(path):
    command = ["ffprobe", "-v", "error", "-show_format", "-show_streams", "-of", "json", path]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


class TestBitRate:
    @needs_ffmpeg
    @pytest.mark.parametrize("option", ["--bitrate", "--mp3-bitrate"])
    def test_stems_have_it(self, engine, song, run, option):
        song(rate=44100, nb_timesteps=44100)
        assert run("separate", "song.wav", "--ext", "mp3", option, 320).status == 0
        for stem in STEMS:
            assert probed(f"song_umxm/{stem}.mp3")["streams"][0]["bit_rate"] == "320000"
        record = Record.read(record_path("song.wav", ext=".mp3"))
        assert (record.options["bitrate"], record.options["quality"]) == (320, None)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ("--ext mp3 --bitrate 100", "--bitrate 100: mp3 files of 44100 Hz can have 32, 40, "),
            ("--ext flac --bitrate 320", "--bitrate 320: FLAC files hold every sample"),
            ("--ext ogg --bitrate 128 --quality 0.5", "--quality 0.5 and --bitrate 128 exclude"),
        ],
    )
    def test_mistakes(self, engine, song, run, folder, options, message):
        song(rate=44100)
        result = run("separate", "song.wav", *options.split())
        assert result.status == 1
        assert message in result.err
        assert files(folder) == ["song.wav"]

    def test_no_number(self, run):
        result = run("separate", "song.wav", "--bitrate", "high")
        assert result.status == 2
        assert "--bitrate" in result.err


def test_one_gain_for_all_stems(engine, song, run):
    engine.sample_rate = 8000.0
    audio = song(level=5.0)
    result = run("separate", "song.wav", "--clip-mode", "rescale", "--bits", "float")
    assert result.status == 0
    gain = 1 / (np.abs(audio).max() / 2)
    decibels = f"{20 * np.log10(gain):.2f} dB"
    assert result.err.count(f"song.wav: all stems are scaled by {decibels} to stay within") == 1
    for number, stem in enumerate(STEMS, 1):
        found = sf.read(f"song_umxm/{stem}.wav")[0].T
        np.testing.assert_allclose(found, audio * 0.5**number * gain, atol=1e-6)
    assert Record.read(record_path("song.wav")).gain == pytest.approx(gain, rel=1e-6)
    # Without clipping there is none.
    assert run("separate", "song.wav", "--clip-mode", "none", "--bits", "float").status == 0
    assert Record.read(record_path("song.wav")).gain == 1.0


@needs_ffmpeg
class TestTagsAndTracks:
    @pytest.fixture
    def tagged(self, song, folder):
        song(rate=44100, nb_timesteps=4410)
        command = ["ffmpeg", "-v", "error", "-i", "song.wav", "-metadata", "title=The Song"]
        subprocess.run([*command, "-metadata", "artist=Me", "tagged.flac"], check=True)

    @pytest.mark.parametrize("ext", [".flac", ".mp3"])
    def test_stems_have_the_tags_of_the_song(self, engine, tagged, run, folder, ext):
        assert run("separate", "tagged.flac", "--ext", ext, "--targets", "bass").status == 0
        tags = probed(f"tagged_umxm/bass{ext}")["format"]["tags"]
        assert (tags["title"], tags["artist"]) == ("The Song (bass)", "Me")
        tagged_bytes = os.path.getsize(f"tagged_umxm/bass{ext}")
        record = Record.read(record_path("tagged.flac", ext=ext))
        assert record.outputs["bass"].size == tagged_bytes
        again = ["--ext", ext, "--targets", "bass", "--skip-existing"]
        result = run("separate", "tagged.flac", *again)
        assert "separated again" not in result.err
        # And not, if they are not wanted.
        result = run("separate", "tagged.flac", *again, "--no-tags")
        assert "tags was true, is false" in result.err
        assert "artist" not in probed(f"tagged_umxm/bass{ext}")["format"].get("tags", {})

    def test_a_track_of_a_video(self, engine, song, run, folder):
        engine.sample_rate = 8000.0
        first, second = song("a.wav"), song("second.wav")
        command = ["ffmpeg", "-v", "error", "-i", "a.wav", "-i", "second.wav", "-map", "0:a"]
        subprocess.run([*command, "-map", "1:a", "-c", "copy", "film.mkv"], check=True)
        options = ["--bits", "float", "--targets", "bass"]
        for track, audio in ((None, first), (1, first), (2, second)):
            chosen = [] if track is None else ["--track", track]
            result = run("separate", "film.mkv", *options, *chosen)
            assert result.status == 0
            found = sf.read("film_umxm/bass.wav", dtype="float32")[0].T
            np.testing.assert_allclose(found, audio / 2, atol=1e-7)
            assert (result.err.count("several tracks") == 1) == (track is None)
            assert Record.read(record_path("film.mkv")).options["track"] == track
        result = run("separate", "film.mkv", "--track", 3)
        assert result.status == 1
        assert "'film.mkv' has no --track 3; there are 2 (1: pcm_f32le" in result.err
        assert run("separate", "film.mkv", "--track", 0).status == 2


class TestSongsThatAreObjects:
    def wav(self, audio, rate=8000):
        file = io.BytesIO()
        write(file, audio, rate, format="wav", bits="float")
        file.seek(0)
        return file

    @pytest.mark.parametrize(
        ("name", "track"), [(None, "song"), ("in/a.mp3", "a"), ("<fdopen>", "song"), (3, "song")]
    )
    def test_are_called_by_their_name(self, engine, song, folder, name, track):
        engine.sample_rate = 8000.0
        audio = song()
        file = self.wav(audio)
        if name is not None:
            file.name = name
        paths = separate_file(file, "o", bits="float")
        assert (file.closed, file.tell()) == (False, 0)
        assert paths["bass"].as_posix() == f"o/{track}/bass.wav"
        found = sf.read(paths["bass"], dtype="float32")[0].T
        np.testing.assert_array_equal(found, audio / 8)
        record = Record.read(record_path(f"{track}.wav", "o"))
        assert record.source.name == (name if isinstance(name, str) else "<BytesIO>")
        assert record.source.size == len(file.getvalue())

    def test_errors_name_them(self, engine, folder, monkeypatch):
        with pytest.raises(AudioError, match=r"^path='<BytesIO>' holds no sound") as caught:
            separate_file(io.BytesIO(b"no sound"), "o")
        assert "umx-np-" not in str(caught.value)
        with pytest.raises(AudioError, match="gives text"):
            separate_file(io.StringIO("text"), "o")
        with pytest.raises(ConfigError, match="path=5 must be"):
            separate_file(5, "o")
        assert files(folder) == []

    def test_what_is_said_names_them(self, engine, song, caplog):
        engine.sample_rate = 8000.0
        separate_file(self.wav(song(nb_channels=5)), "o", clip_mode="rescale")
        assert any(message.startswith("<BytesIO>: 5 channels") for message in caplog.messages)
        assert not any(".umx-np" in message for message in caplog.messages)
