"""What only ffmpeg reads, and programs of its name that are none."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import time

import numpy as np
import pytest
from helpers.sound_files import RATE, needs_ffmpeg, noise, save

from umx_np.audio import AudioReader, ffmpeg, read, write
from umx_np.errors import AudioError


def by_ffmpeg(source, path, options):
    command = ["ffmpeg", "-v", "error", "-nostdin", "-i", source, *options.split(), path]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("ffmpeg cannot write it")
    return path


@needs_ffmpeg
def test_damaged_files_that_ffmpeg_reads_have_one_time(tmp_path):
    source = save(tmp_path / "a.wav", noise(nb_timesteps=3 * RATE), subtype="PCM_16")
    path = by_ffmpeg(source, tmp_path / "a.tta", "-c:a tta")
    data = path.read_bytes()
    middle = len(data) // 2
    bad = np.random.default_rng(3).bytes(1500)
    path.write_bytes(data[:middle] + bad + data[middle + 1500 :])
    whole, _ = read(path)
    for first in (0, 30000, 60000):
        part, _ = read(path, start=first / RATE, duration=0.5)
        np.testing.assert_array_equal(part, whole[:, first : first + RATE // 2])


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "kind"), [("a.mka", "damaged"), ("a.oga", "cut"), ("a.mka", "cut"), ("a.wv", "cut")]
)
def test_lossless_files_that_ffmpeg_reads_are_told_of(tmp_path, caplog, name, kind):
    source = save(tmp_path / "a.wav", noise(nb_timesteps=3 * RATE), subtype="PCM_16")
    options = "-c:a wavpack" if name == "a.wv" else "-c:a flac"
    path = by_ffmpeg(source, tmp_path / name, options)
    read(path)
    assert not caplog.records
    data = path.read_bytes()
    middle = len(data) // 2
    if kind == "damaged":
        path.write_bytes(data[:middle] + b"x" * 1500 + data[middle + 1500 :])
    else:
        path.write_bytes(data[: middle + 501])
    assert read(path)[0].shape[1] > RATE
    assert len(caplog.records) >= 1


@pytest.mark.parametrize("nb_channels", range(3, 9))
@pytest.mark.parametrize("name", ["ogg", "opus"])
def test_channels_come_in_the_order_of_wav(tmp_path, nb_channels, name):
    time = np.arange(24000) / 48000
    pitches = 100 * np.arange(1, nb_channels + 1)  # low: one channel may be for low frequencies
    audio = 0.3 * np.sin(2 * np.pi * pitches[:, np.newaxis] * time).astype(np.float32)
    if nb_channels >= 6:
        audio[3] = 0  # for low frequencies only
    path = write(tmp_path / f"a.{name}", audio, 48000)
    found, _ = read(path)
    for row, expected in zip(found, audio, strict=True):
        assert np.abs(row[4000:20000] - expected[4000:20000]).max() < 0.1
    if shutil.which("ffmpeg") is not None:
        command = ["ffmpeg", "-v", "error", "-i", path, "-f", "f32le", "pipe:1"]
        run = subprocess.run(command, capture_output=True, check=True)
        other = np.frombuffer(run.stdout, "<f4").reshape(-1, nb_channels).T
        n = min(other.shape[1], found.shape[1])
        np.testing.assert_allclose(found[:, :n], other[:, :n], atol=1e-3)


def playlists(folder):
    """Texts that make ffmpeg open another file."""
    victim = save(folder / "victim.wav", noise(2, 3 * RATE))
    yield f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{victim}\n#EXT-X-ENDLIST\n"
    yield "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nvictim.wav\n"  # live: waits for more
    yield f"ffconcat version 1.0\nfile '{victim}'\n"
    yield "ffconcat version 1.0\nfile victim.wav\n" + "file victim.wav\n" * 1000
    yield (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT3S"><Period><AdaptationSet mimeType="audio/wav">'
        f'<Representation id="1"><BaseURL>{victim}</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>"
    )
    yield "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n"
    yield f'FILE "{victim}" WAVE\n  TRACK 01 AUDIO\n    INDEX 01 00:00:00\n'
    yield "[playlist]\nFile1=victim.wav\nNumberOfEntries=1\n"


@needs_ffmpeg
def test_playlists_are_no_songs(tmp_path):
    names = ["x.m4a", "x.wav", "x.mp3", "x.m3u8", "x.png", "x.sdp", "x.mpd", "x%03d.jpg"]
    for number, text in enumerate(playlists(tmp_path)):
        path = tmp_path / names[number % len(names)]
        path.write_text(text)
        begin = time.monotonic()
        with pytest.raises(AudioError) as caught:
            AudioReader(path)
        assert repr(str(path)) in str(caught.value)
        assert time.monotonic() - begin < 30


@pytest.mark.skipif(os.name == "nt", reason="needs scripts that can be run")
@pytest.mark.parametrize("nb_bytes", [0, 4000])
def test_ffmpeg_that_says_nothing_is_ended(tmp_path, monkeypatch, nb_bytes):
    head = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<IHHIIHH", 16, 3, 1, RATE, RATE * 4, 4, 32)
    (tmp_path / "head").write_bytes(head + b"data\xff\xff\xff\xff" + bytes(nb_bytes))
    script = tmp_path / "ffmpeg"
    what = f"cat {tmp_path}/head; " if nb_bytes else ""
    script.write_text(f"#!/bin/sh\nPATH=/bin:/usr/bin\n{what}exec sleep 100\n")
    script.chmod(0o755)
    path = tmp_path / "a.m4a"
    path.write_bytes(bytes(1000))
    monkeypatch.setattr(shutil, "which", lambda name: str(script))
    monkeypatch.setattr(ffmpeg, "SILENCE", 0.5)
    with pytest.raises(AudioError, match=r"a\.m4a.* nothing for 0\.5 s"):
        read(path)


@pytest.mark.skipif(os.name == "nt", reason="needs scripts that can be run")
@pytest.mark.parametrize(
    ("what", "said"), [("head -c 1000000 /dev/zero", "says|gave none"), ("kill -9 $$", "status -9")]
)
def test_ffmpeg_that_is_none_is_not_waited_for(tmp_path, monkeypatch, what, said):
    script = tmp_path / "ffmpeg"
    script.write_text(f"#!/bin/sh\n{what}\n")
    script.chmod(0o755)
    path = tmp_path / "a.m4a"
    path.write_bytes(bytes(1000))
    monkeypatch.setattr(shutil, "which", lambda name: str(script))
    begin = time.monotonic()
    with pytest.raises(AudioError, match=said):
        read(path)
    assert time.monotonic() - begin < 30
