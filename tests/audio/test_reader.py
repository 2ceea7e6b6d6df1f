"""Reading: formats, excerpts, blocks, resampling, and files that are no good."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import threading

import numpy as np
import pytest
import soundfile as sf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umx_np.audio import AudioReader, decoding, read, resample
from umx_np.errors import AudioError, ConfigError

RATE = 8000

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


def noise(nb_channels=2, nb_timesteps=20000, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-0.5, 0.5, (nb_channels, nb_timesteps)).astype(np.float32)


def save(path, audio, rate=RATE, **options):
    sf.write(path, audio.T, rate, **options)
    return path


def concatenated(reader, size=4096):
    return np.concatenate(list(reader.blocks(size)), axis=1)


@pytest.fixture
def song(tmp_path):
    return save(tmp_path / "Sóng 1.wav", noise(), subtype="FLOAT")


@pytest.fixture
def small_file_blocks(monkeypatch):
    """Make short files take many reads."""
    monkeypatch.setattr(decoding, "FILE_BLOCK", 700)


@pytest.fixture
def temporary_folder(tmp_path, monkeypatch):
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_attributes_and_samples(song):
    with AudioReader(song) as reader:
        assert reader.source_rate == reader.rate == RATE
        assert reader.nb_channels == 2
        assert reader.nb_source_timesteps == reader.nb_timesteps == 20000
        assert reader.format == "WAV"
        blocks = list(reader.blocks(3000))
    assert [block.shape for block in blocks] == [(2, 3000)] * 6 + [(2, 2000)]
    assert all(block.dtype == np.float32 and block.flags.c_contiguous for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks, axis=1), noise())


@pytest.mark.usefixtures("small_file_blocks")
@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    size=st.sampled_from([1, 699, 700, 701, 5000, 10**9]) | st.integers(300, 30000),
    start=st.floats(0, 2.4),
    duration=st.none() | st.floats(0.001, 4),
    rate=st.sampled_from([None, 11025, 6000]),
)
def test_any_excerpt_in_blocks_of_any_size(song, size, start, duration, rate):
    size = max(size, 100)
    with AudioReader(song, start=start, duration=duration, rate=rate) as reader:
        first = round(start * RATE)
        length = 20000 if duration is None else max(round(duration * RATE), 1)
        expected = noise()[:, first : first + length]
        assert reader.nb_source_timesteps == expected.shape[1]
        if rate is not None:
            expected = resample(expected, RATE, rate)
        actual = concatenated(reader, size)
        assert actual.shape == expected.shape == (2, reader.nb_timesteps)
        np.testing.assert_allclose(actual, expected, atol=4e-6 if rate else 0)


def test_blocks_begin_anew_and_do_not_depend_on_their_size(song):
    with AudioReader(song, start=0.1, rate=11025) as reader:
        first = reader.blocks(1000)
        next(first)
        again = concatenated(reader, 77)
        np.testing.assert_array_equal(concatenated(reader, 100000), again)
        # The first iteration goes on undisturbed.
        np.testing.assert_array_equal(next(first), again[:, 1000:2000])


def test_blocks_are_the_callers(song):
    with AudioReader(song) as reader:
        blocks = []
        for block in reader.blocks(500):
            blocks.append(block.copy())
            block[:] = 9
        np.testing.assert_array_equal(np.concatenate(blocks, axis=1), noise())


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("a.flac", {"subtype": "PCM_24"}, 2**-23),
        ("a.aiff", {"subtype": "PCM_16"}, 2**-14),
        ("a.w64", {"subtype": "FLOAT"}, 0),
        ("a.rf64", {"subtype": "FLOAT", "format": "RF64"}, 0),
        ("a.wav", {"subtype": "PCM_U8"}, 2**-6),
        ("a.caf", {"subtype": "PCM_24"}, 2**-23),
        ("a.au", {"subtype": "DOUBLE"}, 0),
    ],
)
def test_lossless_formats(tmp_path, name, options, error):
    path = save(tmp_path / name, noise(1), **options)
    audio, rate = read(path, start=1.0, duration=0.5)
    assert rate == RATE
    np.testing.assert_allclose(audio, noise(1)[:, 8000:12000], atol=error)


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3", "a.opus"])
@pytest.mark.usefixtures("small_file_blocks")
def test_lossy_formats_are_cut_exactly(tmp_path, name):
    options = {"format": "OGG", "subtype": "OPUS"} if name == "a.opus" else {}
    path = save(tmp_path / name, noise(), **options)
    whole, _ = read(path)
    assert whole.shape == (2, 20000)
    part, _ = read(path, start=0.25, duration=0.5)
    # The mp3 decoder's rounding depends on where reads begin.
    np.testing.assert_allclose(part, whole[:, 2000:6000], atol=1e-6)
    with AudioReader(path, start=2.4) as reader:
        assert reader.nb_timesteps == 20000 - 19200


@needs_ffmpeg
@pytest.mark.parametrize("nb_tag_bytes", [0, 5000])
def test_mp3_without_a_length_is_read_to_its_end(tmp_path, nb_tag_bytes):
    # Its first, loud half has a high bit rate. libsndfile's guess from it ends far too early.
    audio = noise(2, 12 * 44100)
    audio[:, 44100:] = 0
    source = save(tmp_path / "a.wav", audio, 44100)
    path = tmp_path / "a.mp3"
    options = ["-q:a", "2", "-write_xing", "0", "-id3v2_version", "0"]
    command = ["ffmpeg", "-v", "error", "-i", source, "-c:a", "libmp3lame", *options, path]
    if subprocess.run(command, check=False).returncode:
        pytest.skip("ffmpeg cannot write mp3")
    if nb_tag_bytes:
        size = bytes([0, 0, nb_tag_bytes >> 7, nb_tag_bytes & 127])
        tag = b"ID3\x04\x00\x00" + size + bytes(nb_tag_bytes)
        path.write_bytes(tag + path.read_bytes())
    assert sf.info(path).frames < audio.shape[1] * 0.6, "libsndfile has learned; simplify"
    with AudioReader(path) as reader:
        # The encoder adds up to three frames.
        assert 0 <= reader.nb_timesteps - audio.shape[1] < 4 * 1152
        assert concatenated(reader).shape == (2, reader.nb_timesteps)


@pytest.mark.parametrize("duration", [None, -1.0, float("inf"), 99.0])
def test_durations_that_reach_the_end(song, duration):
    with AudioReader(song, start=2.0, duration=duration) as reader:
        assert reader.nb_timesteps == 4000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": -0.5}, "start=-0.5 must be"),
        ({"start": float("nan")}, "start=nan must be"),
        ({"start": 2.5}, "start=2.5 is beyond the end of .* lasts 2.500 s"),
        ({"start": 1e12}, "beyond the end"),
        ({"duration": 0.0}, "duration=0.0 selects nothing"),
        ({"duration": float("nan")}, "duration=nan"),
    ],
)
def test_excerpts_that_make_no_sense(song, options, message):
    with pytest.raises(AudioError, match=message) as caught:
        AudioReader(song, **options)
    assert "ng 1.wav" in str(caught.value)


def test_arguments_that_make_no_sense(song):
    with pytest.raises(ConfigError, match="rate=0"):
        AudioReader(song, rate=0)
    with AudioReader(song) as reader, pytest.raises(ConfigError, match="size=0"):
        next(reader.blocks(0))


def write_bytes(path, data):
    path.write_bytes(data)
    return path


def test_files_that_are_no_sound(tmp_path, temporary_folder):
    save(tmp_path / "zero.wav", noise(2, 0))
    write_bytes(tmp_path / "empty.wav", b"")
    write_bytes(tmp_path / "text.wav", b"This is not sound." * 50)
    write_bytes(tmp_path / "headerless.raw", bytes(1000))
    names = ["missing.wav", "zero.wav", "empty.wav", "text.wav", "headerless.raw", "."]
    for name in [*names, "x" * 300, "null\0.wav"]:
        path = tmp_path / name
        with pytest.raises(AudioError) as caught:
            AudioReader(path)
        assert repr(str(path)) in str(caught.value)
    assert os.listdir(temporary_folder) == []


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs permissions to matter")
def test_unreadable_file(song):
    song.chmod(0)
    with pytest.raises(AudioError, match="Permission denied"):
        AudioReader(song)


@pytest.mark.parametrize("suffix", ["ogg"])
def test_truncated_streams_deliver_what_is_there(tmp_path, suffix):
    path = save(tmp_path / f"a.{suffix}", noise(2, 200000))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with AudioReader(path) as reader:
        assert 0 < reader.nb_timesteps < 200000
        assert concatenated(reader).shape[1] == reader.nb_timesteps


def test_truncated_mp3_files_are_told_of(tmp_path, caplog):
    path = save(tmp_path / "a.mp3", noise(2, 200000))
    whole = read(path)[0]
    assert not caplog.records
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert 0 < read(path)[0].shape[1] < whole.shape[1]
    assert f"may be cut short: the last {len(data) - len(data) // 2} bytes" in caplog.text


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF])
def test_wav_from_a_pipe_has_a_placeholder_for_its_size(tmp_path, size):
    path = save(tmp_path / "a.wav", noise(2, 1000), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = size.to_bytes(4, "little")
    assert data[36:40] == b"data"
    path.write_bytes(data)
    assert read(path)[0].shape == (2, 1000)


def test_file_that_shrinks_after_opening(tmp_path):
    path = save(tmp_path / "a.wav", noise(2, 20000), subtype="PCM_16")
    with AudioReader(path) as reader:
        os.truncate(path, 20000)
        with pytest.raises(AudioError, match="cut short"):
            concatenated(reader)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_names_the_first_sample_that_is_not_finite(tmp_path, value):
    audio = noise()
    audio[1, 16000] = value
    path = save(tmp_path / "a.wav", audio, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"channel=1 at sample 16000 \(2.000 s\)"):
        read(path, rate=44100)
    with pytest.raises(AudioError, match=r"sample 16000 \(2.000 s\)"):
        read(path, start=1.5)
    assert read(path, duration=1.0)[0].shape == (2, 8000)


def test_closed_reader(song):
    reader = AudioReader(song)
    reader.close()
    reader.close()
    with pytest.raises(AudioError, match="was closed"):
        next(reader.blocks(10))


def encode(source, path, *options):
    command = ["ffmpeg", "-v", "error", "-i", source, *options, path]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(f"ffmpeg cannot write {path.suffix}")
    return path


@needs_ffmpeg
def test_ffmpeg_decodes_other_formats_through_a_pipe(song, tmp_path, temporary_folder):
    path = encode(song, tmp_path / "a:b -i %d.mka", "-c:a", "flac", "-sample_fmt", "s32")
    with AudioReader(path, start=0.5, duration=1.0, rate=11025) as reader:
        assert (reader.format, reader.source_rate, reader.nb_channels) == ("ffmpeg", RATE, 2)
        expected = resample(noise()[:, 4000:12000], RATE, 11025)
        np.testing.assert_allclose(concatenated(reader), expected, atol=1e-5)
        np.testing.assert_allclose(concatenated(reader, 1), expected, atol=1e-5)
        next(reader.blocks(10))  # and no more
    with pytest.raises(AudioError, match="beyond the end"):
        AudioReader(path, start=100)
    AudioReader(path)  # without `close`
    assert os.listdir(temporary_folder) == []
    listeners = [thread for thread in threading.enumerate() if "ffmpeg" in thread.name]
    assert listeners == [], "ffmpeg is still running"


@needs_ffmpeg
def test_floats_that_libsndfile_takes_for_integers(song, tmp_path):
    path = encode(song, tmp_path / "a.w64", "-c:a", "pcm_f32le")
    np.testing.assert_array_equal(read(path)[0], noise())


@needs_ffmpeg
def test_the_first_of_several_streams_is_the_mixture(tmp_path, temporary_folder):
    mixture = save(tmp_path / "mix.wav", noise())
    stem = save(tmp_path / "stem.wav", np.zeros((2, 20000), np.float32))
    maps = ["-map", "0:a", "-map", "1:a", "-c:a", "alac"]
    path = encode(mixture, tmp_path / "song.stem.mp4", "-i", stem, *maps)
    audio, _ = read(path)
    np.testing.assert_allclose(audio, noise(), atol=2**-14)


def test_without_ffmpeg_the_message_says_what_to_install(tmp_path, monkeypatch):
    path = write_bytes(tmp_path / "a.m4a", b"\0\0\0\x20ftypM4A " + bytes(100))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(AudioError, match=r"a\.m4a.*install ffmpeg"):
        AudioReader(path)
