"""Files with several streams of sound."""

from __future__ import annotations

import shutil
import subprocess

import numpy as np
import pytest
import soundfile as sf

from umx_np.audio import AudioReader, read
from umx_np.errors import AudioError, ConfigError

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")

RATES = (44100, 22050, 48000)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """A picture, then three streams of sound; the second is the one that players take."""
    folder = tmp_path_factory.mktemp("video")
    command = ["ffmpeg", "-v", "error", "-f", "lavfi", "-i", "color=red:s=32x32:d=1"]
    maps = ["-map", "0:v"]
    for number, rate in enumerate(RATES, 1):
        sf.write(folder / f"{number}.wav", np.full((rate // 10, number), number / 10), rate)
        command += ["-i", folder / f"{number}.wav"]
        maps += ["-map", f"{number}:a"]
    maps += ["-c:v", "mjpeg", "-c:a", "flac", "-metadata:s:a:1", "language=ger"]
    maps += ["-metadata:s:a:1", "title=Kommentar", "-disposition:a:1", "default"]
    subprocess.run([*command, *maps, folder / "a.mkv"], check=True)
    return folder / "a.mkv"


@pytest.mark.parametrize("track", [None, 1, 2, 3])
def test_each_can_be_read(video, track, caplog):
    audio, rate = read(video, track=track)
    number = track or 1
    assert (len(audio), rate) == (number, RATES[number - 1])
    np.testing.assert_allclose(audio, number / 10, atol=1e-4)
    # Which one is read is said where nobody chose, in one line.
    said = [message for message in caplog.messages if "track" in message]
    assert len(said) == (track is None)
    if track is None:
        assert said[0].startswith(
            f"{video}: has several tracks, and the first is read; there are 3 (1: flac, 44100"
        )
        assert "; 2: ger, flac, 22050 Hz, stereo, s16 (default), 'Kommentar'; 3: flac" in said[0]


def test_there_is_no_such_track(video, tmp_path):
    with pytest.raises(AudioError, match=r"has no track=4; there are 3 \(1: flac, .*; 3: flac, "):
        AudioReader(video, track=4)
    for track in (0, -1, 1.5, "1"):
        with pytest.raises(ConfigError, match="track="):
            AudioReader(video, track=track)
    sf.write(tmp_path / "a.wav", np.zeros((10, 2)), 44100)
    assert read(tmp_path / "a.wav", track=1)[0].shape == (2, 10)
    with pytest.raises(AudioError, match=r"a.wav' has no track=2; there is one \(1: pcm_s16le"):
        read(tmp_path / "a.wav", track=2)


def test_a_file_of_one_track_says_nothing(video, tmp_path, caplog):
    command = ["ffmpeg", "-v", "error", "-i", video, "-map", "0:a:1", tmp_path / "a.m4a"]
    subprocess.run(command, check=True)
    read(tmp_path / "a.m4a")
    assert not caplog.messages


def test_in_ogg_too(video, tmp_path, caplog):
    command = ["ffmpeg", "-v", "error", "-i", video, "-map", "0:a:0", "-map", "0:a:1"]
    subprocess.run([*command, "-c:a", "libvorbis", tmp_path / "a.ogg"], check=True)
    assert read(tmp_path / "a.ogg", track=2)[1] == RATES[1]
    assert not caplog.messages
    assert read(tmp_path / "a.ogg")[1] == RATES[0]
    assert "a.ogg: has several tracks, and the first is read; there are 2" in caplog.text
