"""Files whose headers do not tell what is there: joined, chained, wrapped, unfinished, lying."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys

import numpy as np
import pytest
from helpers.sound_files import RATE, noise, save

from umx_np.audio import AudioReader, StreamResampler, mp3, read, resample, write
from umx_np.errors import AudioError, ConfigError


def join(path, *parts):
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mp3", {}),
        ("mp3", {"bitrate_mode": "CONSTANT"}),
        ("ogg", {}),
        ("opus", {"format": "OGG", "subtype": "OPUS"}),
        ("flac", {}),
    ],
)
def test_joined_files_are_read_to_the_end(tmp_path, name, options):
    rate = 48000
    first = save(tmp_path / f"a.{name}", noise(), rate, **options)
    second = save(tmp_path / f"b.{name}", noise(seed=1, nb_timesteps=50000), rate, **options)
    path = join(tmp_path / f"ab.{name}", first, second, first)
    expected = np.concatenate([read(p)[0] for p in (first, second, first)], axis=1)
    np.testing.assert_array_equal(read(path)[0], expected)
    part, _ = read(path, start=1.0, duration=1.0)
    np.testing.assert_array_equal(part, expected[:, rate : 2 * rate])


def test_long_flac_files_of_the_same_length_are_read_to_the_end(tmp_path):
    path = save(tmp_path / "a.flac", noise(nb_timesteps=500000))
    assert path.stat().st_size > 1 << 20
    with AudioReader(join(tmp_path / "aa.flac", path, path)) as reader:
        assert reader.nb_timesteps == 1000000


@pytest.mark.parametrize("name", ["mp3", "ogg"])
def test_parts_of_other_rates_and_channels_are_converted(tmp_path, caplog, name):
    first = save(tmp_path / f"a.{name}", noise())
    second = save(tmp_path / f"b.{name}", noise(nb_timesteps=48000, seed=1), 48000)
    third = save(tmp_path / f"c.{name}", noise(1, 44100, seed=2))
    path = join(tmp_path / f"abc.{name}", first, second, third)
    with AudioReader(path) as reader:
        assert (reader.nb_channels, reader.rate) == (2, RATE)
        found = np.concatenate(list(reader.blocks(3000)), axis=1)
    expected = [
        read(first)[0],
        resample(read(second)[0], 48000, RATE),
        np.repeat(read(third)[0], 2, axis=0),
    ]
    np.testing.assert_allclose(found, np.concatenate(expected, axis=1), atol=1e-5)
    assert caplog.text.count("converted to 44100 Hz and 2 channels") == 2


def info_frame(data):
    """Where the first frame of an MP3 file holds the number of frames."""
    for mark in (b"Xing", b"Info"):
        if mark in data[:300]:
            return data.index(mark) + 8
    raise AssertionError("no frame of numbers")


@pytest.mark.parametrize("factor", [0.3, 3.0, 0.0])
def test_numbers_that_lie(tmp_path, factor):
    path = save(tmp_path / "a.mp3", noise())
    whole, _ = read(path)
    data = bytearray(path.read_bytes())
    place = info_frame(data)
    nb_frames = struct.unpack(">I", data[place : place + 4])[0]
    data[place : place + 4] = struct.pack(">I", int(factor * nb_frames))
    path.write_bytes(data)
    found, _ = read(path)
    np.testing.assert_array_equal(found[:, : whole.shape[1]], whole)
    assert found.shape[1] - whole.shape[1] < 3 * 1152


def test_frame_of_numbers_without_numbers(tmp_path):
    path = save(tmp_path / "a.mp3", noise())
    whole, _ = read(path)
    data = bytearray(path.read_bytes())
    place = info_frame(data)
    size = mp3._frame_of(bytes(data[:4])).size
    # Neither frames nor bytes, and what follows them moves up.
    data[place - 4 : size] = struct.pack(">I", 0xC) + data[place + 8 : size] + bytes(8)
    path.write_bytes(data)
    np.testing.assert_array_equal(read(path)[0], whole)


def test_marks_in_the_text_of_a_tag_are_no_numbers(tmp_path):
    path = save(tmp_path / "a.mp3", noise(), bitrate_mode="VARIABLE")
    data = path.read_bytes()
    data = data[mp3._frame_of(data[:4]).size :]  # without the frame of numbers
    path.write_bytes(data)
    whole, _ = read(path)
    text = b"TXXX" + b"The Xing of Info, VBRI" + bytes(300)
    for tag in (b"ID3\4\0\0\0\0" + bytes([len(text) >> 7, len(text) & 127]) + text, b""):
        for end in (b"TAG" + b"Xing Info".ljust(125), b""):
            path.write_bytes(tag + data + end)
            np.testing.assert_array_equal(read(path)[0], whole)


@pytest.mark.parametrize("numbers", [True, False])
def test_bad_bytes_in_the_middle_of_an_mp3(tmp_path, caplog, numbers):
    path = save(tmp_path / "a.mp3", noise(nb_timesteps=5 * RATE))
    data = path.read_bytes()
    if not numbers:
        data = data[mp3._frame_of(data[:4]).size :]
    whole_bytes = len(data)
    middle = whole_bytes // 2
    bad = np.random.default_rng(3).bytes(3000).replace(b"\xff", b"\0")
    path.write_bytes(data[:middle] + bad + data[middle + 3000 :])
    found, _ = read(path)
    assert 0 <= 5 - found.shape[1] / RATE < 0.4
    assert "are no MP3 frames and are left out" in caplog.text


@pytest.mark.parametrize("begin", [0, 300])
def test_mp3_without_numbers_cut_within_a_frame(tmp_path, caplog, begin):
    path = save(tmp_path / "a.mp3", noise(nb_timesteps=2 * RATE))
    data = path.read_bytes()
    data = data[mp3._frame_of(data[:4]).size :]
    path.write_bytes(data[begin:-100] + b"<html>not found</html>" * 20)
    # The encoder adds two or three frames, the last one is cut.
    assert abs(2 - read(path)[0].shape[1] / RATE) < 0.06
    assert "are left out" in caplog.text


def test_mp3_prints_nothing(tmp_path):
    path = save(tmp_path / "a.mp3", noise())
    data = bytearray(path.read_bytes())
    data[5000:5010] = b"0123456789"
    data[9000:12000] = bytes(3000)
    path.write_bytes(data + data)
    code = f"""
import logging, sys
logging.disable(logging.CRITICAL)
from umx_np.audio import read
read({str(path)!r})
print("stays", file=sys.stderr)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    if sys.platform == "linux":
        assert run.stderr == "stays\n"


def patch_size(path, size):
    data = bytearray(path.read_bytes())
    place = data.index(b"data") + 4
    data[place : place + 4] = struct.pack("<I", size)
    path.write_bytes(data)


@pytest.mark.parametrize("size", [0, 4, 20000, 0xFFFFFFFF, 0x80000000])
@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT"])
def test_wav_from_a_recorder_that_crashed(tmp_path, size, subtype):
    path = save(tmp_path / "a.wav", noise(), subtype=subtype)
    whole, _ = read(path)
    patch_size(path, size)
    np.testing.assert_array_equal(read(path)[0], whole)
    np.testing.assert_array_equal(read(path, start=1.0)[0], whole[:, RATE:])


@pytest.mark.parametrize(
    ("format", "mark", "offset", "kind"),
    [
        ("AIFF", b"SSND", 4, ">I"),
        ("AU", b".snd", 8, ">I"),
        ("CAF", b"data", 4, ">q"),
        ("W64", b"data", 16, "<q"),
        ("RF64", b"ds64", 16, "<q"),
    ],
)
@pytest.mark.parametrize("size", [0, 1000])
def test_other_files_from_a_recorder_that_crashed(tmp_path, format, mark, offset, kind, size):
    path = save(tmp_path / "a", noise(), format=format, subtype="PCM_16")
    whole, _ = read(path)
    data = bytearray(path.read_bytes())
    place = data.index(mark) + offset
    data[place : place + struct.calcsize(kind)] = struct.pack(kind, size)
    path.write_bytes(data)
    np.testing.assert_array_equal(read(path)[0], whole)


def test_wav_with_chunks_after_the_samples(tmp_path, caplog):
    path = save(tmp_path / "a.wav", noise(1, 10001), subtype="PCM_U8")
    data = path.read_bytes()
    assert len(data) % 2 == 0
    chunk = b"LIST" + struct.pack("<I", 4) + b"INFO"
    for end in (chunk, chunk + b"id3 \xff\xff\0\0cut", b"TAG" + bytes(125)):
        for padded in (data, data[:-1]):
            path.write_bytes(padded + end)
            assert read(path)[0].shape == (1, 10001)
    assert not caplog.records


@pytest.mark.parametrize("place", ["before", "after"])
def test_wav_with_chunks_whose_sizes_are_not_made_even(tmp_path, caplog, place):
    path = save(tmp_path / "a.wav", noise(), subtype="PCM_16")
    whole, _ = read(path)
    data = path.read_bytes()
    at = 12 if place == "before" else len(data)
    odd = b"iXML" + struct.pack("<I", 3) + b"<a>"
    path.write_bytes(data[:at] + odd + b"bext" + struct.pack("<I", 602) + bytes(602) + data[at:])
    np.testing.assert_array_equal(read(path)[0], whole)
    assert not caplog.records


def test_wav_with_further_samples_in_another_chunk(tmp_path, caplog):
    path = save(tmp_path / "a.wav", noise(), subtype="PCM_16")
    whole, _ = read(path)
    path.write_bytes(path.read_bytes() + b"data" + struct.pack("<I", 4000) + bytes(4000))
    np.testing.assert_array_equal(read(path)[0], whole)
    assert "4000 bytes of samples in further chunks are left out" in caplog.text


def test_8svx_of_two_channels_is_not_taken_for_samples_in_turn(tmp_path):
    audio = (noise(2, 2000) * 100).astype(np.int8)
    voice = struct.pack(">IIIHBBI", 2000, 0, 0, 22050, 1, 0, 0x10000)
    body = b"8SVXVHDR" + struct.pack(">I", 20) + voice + b"CHAN" + struct.pack(">II", 4, 6)
    body += b"BODY" + struct.pack(">I", 4000) + audio.tobytes()
    path = tmp_path / "a.8svx"
    path.write_bytes(b"FORM" + struct.pack(">I", len(body)) + body)
    if shutil.which("ffmpeg") is None:
        with pytest.raises(AudioError, match="several channels"):
            read(path)
    else:
        np.testing.assert_allclose(read(path)[0], audio / 128, atol=1e-6)


def test_floats_that_are_no_sound_after_the_samples(tmp_path, caplog):
    path = save(tmp_path / "a.wav", noise(), subtype="FLOAT")
    path.write_bytes(path.read_bytes() + b"\xff\x90 no sound, but something else" * 20)
    np.testing.assert_array_equal(read(path)[0], noise())
    assert "are not sound and are left out" in caplog.text


def test_wav_beyond_4_gb(tmp_path, caplog):
    path = save(tmp_path / "a.wav", noise(2, 1000), subtype="PCM_16")
    nb_timesteps = (5 << 30) // 4
    patch_size(path, 4 * nb_timesteps & 0xFFFFFFFF)
    with path.open("r+b") as file:
        try:
            file.truncate(44 + 4 * nb_timesteps)
            file.seek(-4, os.SEEK_END)
            file.write(struct.pack("<hh", 16384, -16384))
        except OSError:
            pytest.skip("no room for a sparse file")
    with AudioReader(path) as reader:
        assert reader.nb_timesteps == nb_timesteps
    end, _ = read(path, start=(nb_timesteps - 10) / RATE)
    np.testing.assert_array_equal(end[:, -1], [0.5, -0.5])
    assert "without the upper digits" in caplog.text
    path.unlink()


def test_flac_of_unknown_length(tmp_path):
    path = save(tmp_path / "a.flac", noise())
    whole, _ = read(path)
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    np.testing.assert_array_equal(read(path)[0], whole)
    np.testing.assert_array_equal(read(path, start=1.0)[0], whole[:, RATE:])


def damaged(data, kind):
    """Bytes of a FLAC file with damage in the middle."""
    begin = 2 * len(data) // 5
    changed = {
        "flip": data[:begin] + bytes([data[begin] ^ 1]) + data[begin + 1 :],
        "zeros": data[:begin] + bytes(50000) + data[begin + 50000 :],
        "hole": data[:begin] + data[begin + 50000 :],
        "insert": data[:begin] + b"fLaC\xff\xf8" * 3000 + data[begin:],
        "first": data[:200] + bytes(100) + data[300:],
        "last": data[:-1000],
    }
    return changed[kind]


@pytest.mark.parametrize("kind", ["flip", "zeros", "hole", "insert", "first", "last"])
def test_damaged_flac_is_silent_where_it_is_damaged(tmp_path, caplog, kind):
    path = save(tmp_path / "a.flac", noise(nb_timesteps=5 * RATE))
    whole, _ = read(path)
    path.write_bytes(damaged(path.read_bytes(), kind))
    with AudioReader(path) as reader:
        assert reader.nb_timesteps == 5 * RATE
        found = np.concatenate(list(reader.blocks(5000)), axis=1)
        np.testing.assert_array_equal(np.concatenate(list(reader.blocks(70000)), axis=1), found)
    places = np.flatnonzero((found != whole).any(axis=0))
    assert 0 < len(places) <= 25000
    assert not found[:, places[0] : places[-1] + 1].any()
    seconds = (places[-1] + 1 - places[0]) / RATE
    notes = [record.getMessage() for record in caplog.records]
    assert len(notes) == 1
    assert notes[0].startswith(f"{path}: at {places[0] / RATE:.3f} s, {seconds:.3f} s cannot be")
    for start in (0.0, 1.0, 1.9, 2.0, 2.1, 2.5, 4.5):
        part, _ = read(path, start=start, duration=0.5)
        first = round(start * RATE)
        np.testing.assert_array_equal(part, found[:, first : first + RATE // 2])


def test_flac_without_a_frame_that_can_be_decoded(tmp_path):
    path = save(tmp_path / "a.flac", noise(nb_timesteps=RATE))
    data = path.read_bytes()
    path.write_bytes(data[:100] + bytes(len(data) - 100))
    with pytest.raises(AudioError, match=r"a\.flac' holds no samples"):
        read(path)


@pytest.mark.parametrize("name", ["wav", "aiff", "au", "w64", "flac"])
@pytest.mark.parametrize("duration", [None, 3.0])
def test_files_that_are_cut_short_deliver_what_is_there(tmp_path, caplog, name, duration):
    path = save(tmp_path / f"a.{name}", noise(nb_timesteps=5 * RATE))
    whole, _ = read(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    found, _ = read(path, duration=duration)
    assert 2.3 < found.shape[1] / RATE < 2.51
    np.testing.assert_array_equal(found, whole[:, : found.shape[1]])
    text = "is cut short" if name != "flac" else "cannot be decoded and are left out"
    assert text in caplog.text or duration is not None
    np.testing.assert_array_equal(read(path, start=1.0)[0], found[:, RATE:])


ID3 = b"ID3\4\0\0\0\0\x18\x34" + b"x" * 3124
# Version, size with the footer, items, flags: without a header.
APE = b"y" * 2000 + b"APETAGEX" + struct.pack("<4I", 2000, 2032, 1, 0) + bytes(8)


@pytest.mark.parametrize("name", ["wav", "aiff", "au", "flac"])
@pytest.mark.parametrize(
    ("before", "after"),
    [(ID3, b""), (b"", APE), (b"", b"TAG" + bytes(125)), (b"", ID3)],
)
def test_tags_around_samples_are_no_samples(tmp_path, caplog, name, before, after):
    path = save(tmp_path / f"a.{name}", noise())
    whole, _ = read(path)
    path.write_bytes(before + path.read_bytes() + after)
    np.testing.assert_array_equal(read(path)[0], whole)
    assert not caplog.records


def test_empty_file(tmp_path):
    for name in ("a.wav", "a.mp3", "a.m4a"):
        (tmp_path / name).touch()
        with pytest.raises(AudioError, match=r"^path='[^']*' is empty;"):
            read(tmp_path / name)


@pytest.mark.parametrize("rate", [1, 100, 999, 800000, 2**31 - 1])
def test_rates_that_sound_cannot_have(tmp_path, rate):
    path = save(tmp_path / "a.wav", noise(1, 100), rate)
    with pytest.raises(AudioError, match=f"rate={rate} Hz"):
        AudioReader(path)


@pytest.mark.parametrize("rate", [0.001, 1, 999.9, 768001, 1e8, float("nan"), "x", None, True])
def test_rates_that_arguments_cannot_have(tmp_path, rate):
    path = save(tmp_path / "a.wav", noise(1, 100))
    with pytest.raises(ConfigError, match="must be a sample rate from 1000 to 768000 Hz"):
        StreamResampler(RATE, rate, 1)
    if rate is not None:
        with pytest.raises(ConfigError, match="rate="):
            AudioReader(path, rate=rate)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    path = write("~/a.wav", noise(1, 100), RATE)
    assert path == tmp_path / "a.wav"
    assert read("~/a.wav")[0].shape == (1, 100)
    with AudioReader("~/a.wav") as reader:
        assert reader.path == path
