"""Sound files that are objects: open files, pipes and bytes in memory."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tempfile
import threading

import numpy as np
import pytest
import soundfile as sf

from umx_np.audio import AudioReader, read, write, written_suffixes
from umx_np.errors import AudioError, ConfigError

RATE = 48000

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


def noise(nb_timesteps=20000):
    rng = np.random.default_rng(4)
    return rng.uniform(-0.5, 0.5, (2, nb_timesteps)).astype(np.float32)


def wav(nb_timesteps=20000):
    file = io.BytesIO()
    write(file, noise(nb_timesteps), RATE, format="wav", bits="float")
    return file.getvalue()


@pytest.fixture(autouse=True)
def kept(tmp_path, monkeypatch):
    """The folder for temporary files, in which nothing may stay."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert os.listdir(folder) == []


@pytest.mark.parametrize("suffix", written_suffixes())
def test_what_is_written_to_memory_is_read_from_there(suffix, tmp_path):
    file = io.BytesIO(b"before")
    file.seek(6)
    assert write(file, noise(), RATE, format=suffix.removeprefix("."), bits="16") is None
    assert not file.closed
    data = file.getvalue()
    assert data.startswith(b"before")
    file.seek(6)
    audio, rate = read(file)
    # Of AAC, ffmpeg gives the rest of the last frame.
    length = 20480 if suffix == ".m4a" else 20000
    assert (audio.shape, rate, file.tell(), file.closed) == ((2, length), RATE, 6, False)
    path = write(tmp_path / f"a{suffix}", noise(), RATE)
    np.testing.assert_array_equal(audio, read(path)[0])


def test_a_part_at_another_rate_and_twice():
    file = io.BytesIO(wav())
    for _ in range(2):
        audio, rate = read(file, 0.1, 0.2, 24000)
        assert (audio.shape, rate) == ((2, 4800), 24000)
    with AudioReader(file) as reader:
        file.close()  # it has been read
        for size in (777, 20000):
            blocks = np.concatenate(list(reader.blocks(size)), axis=1)
            np.testing.assert_array_equal(blocks, noise())
        assert str(reader.path) == "<BytesIO>"


def test_a_pipe():
    ends = os.pipe()
    data = wav(100_000)  # more than a pipe holds

    def feed():
        with os.fdopen(ends[1], "wb") as end:
            end.write(data)

    feeder = threading.Thread(target=feed)
    feeder.start()
    with os.fdopen(ends[0], "rb") as pipe:
        audio, _ = read(pipe)
        assert not pipe.closed
    feeder.join()
    np.testing.assert_array_equal(audio, noise(100_000))


class Slow(io.RawIOBase):
    """Gives what it has bit by bit, and cannot go back."""

    def __init__(self, data):
        self._data = io.BytesIO(data)

    def readable(self):
        return True

    def read(self, size=-1):
        return self._data.read(min(size, 1000))


def test_objects_that_give_little_at_a_time():
    np.testing.assert_array_equal(read(Slow(wav()))[0], noise())


@needs_ffmpeg
def test_what_only_ffmpeg_reads(tmp_path):
    sf.write(tmp_path / "a.wav", noise().T, RATE)
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", tmp_path / "a.m4a"]
    subprocess.run(command, check=True)
    with open(tmp_path / "a.m4a", "rb") as file, AudioReader(file) as reader:
        assert reader.format == "ffmpeg"
        assert str(reader.path) == str(tmp_path / "a.m4a")  # the name that the object has
        assert next(reader.blocks(100)).shape == (2, 100)
    with pytest.raises(AudioError, match="file=<BytesIO> holds no sound") as caught:
        read(io.BytesIO(b"nothing of the kind"))
    assert ".umx-np" not in str(caught.value)


def unreadable():
    file = io.BytesIO(b"x")
    file.close()
    return file


def at_its_end():
    file = io.BytesIO(wav())
    file.seek(0, os.SEEK_END)
    return file


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (io.BytesIO, "file=<BytesIO> is empty"),
        (at_its_end, r"file=<BytesIO> is at its end \(byte \d+\); rewind it: seek\(0\)"),
        (unreadable, "file=<BytesIO> cannot be read: I/O operation on closed file"),
        (lambda: io.StringIO("text"), "file=<StringIO> gives text; open it in binary mode"),
        (lambda: io.BytesIO(wav()[:30]), "file=<BytesIO> "),
    ],
)
def test_objects_that_give_no_sound(make, message):
    with pytest.raises(AudioError, match=message):
        read(make())


@pytest.mark.parametrize("file", [None, 3, b"song.wav", object(), ["song.wav"]])
def test_what_is_neither_a_name_nor_an_object(file):
    with pytest.raises(ConfigError, match=r"must be the name of a sound file, or a file object"):
        read(file)
    with pytest.raises(ConfigError, match=r"must be the name of a file, or a file object"):
        write(file, noise(), RATE, format="wav")


def test_a_full_disk_is_said(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(AudioError, match="file=<BytesIO>: there is no room for it"):
        read(io.BytesIO(b"RIFF"))


class TestWriting:
    def test_the_object_needs_not_seek(self):
        class Sink:
            data = b""

            def write(self, data):
                self.data += bytes(data)
                return len(data)

        sink = Sink()
        write(sink, noise(), RATE, format=".flac", bits="24")
        np.testing.assert_allclose(read(io.BytesIO(sink.data))[0], noise(), atol=2**-24)

    def test_mistakes_are_named(self, tmp_path):
        for form in (None, ""):
            with pytest.raises(ConfigError, match=f"format={form!r} must be given"):
                write(io.BytesIO(), noise(), RATE, format=form)
        with pytest.raises(AudioError, match=r"^file=<BytesIO>: files of the type '.doc' cannot"):
            write(io.BytesIO(), noise(), RATE, format="doc")
        with pytest.raises(ConfigError, match=r"format='wav' is for file objects; path="):
            write(tmp_path / "a.flac", noise(), RATE, format="wav")
        with pytest.raises(AudioError, match="file=<StringIO> cannot be written to"):
            write(io.StringIO(), noise(), RATE, format="wav")
        with pytest.raises(AudioError, match=r"^the samples for file=<BytesIO> hold NaN"):
            write(io.BytesIO(), np.full((1, 9), np.nan, np.float32), RATE, format="wav")
        file = io.BytesIO()
        with pytest.raises(AudioError):
            write(file, np.full((1, 9), np.nan, np.float32), RATE, format="wav")
        assert file.getvalue() == b""
