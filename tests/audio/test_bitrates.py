"""Bit rates of lossy files, as ffprobe sees them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import numpy as np
import pytest

from umx_np.audio import StemWriter, read, write, written_suffixes
from umx_np.errors import ConfigError

needs_ffprobe = pytest.mark.skipif(shutil.which("ffprobe") is None, reason="needs ffprobe")


def noise(rate, nb_channels=2, seconds=2):
    rng = np.random.default_rng(6)
    return rng.normal(0, 0.1, (nb_channels, seconds * rate)).astype(np.float32)


def probed(path):
    """Bit rate of the sound, and of the whole file, in kbit/s."""
    command = ["ffprobe", "-v", "error", "-show_format", "-show_streams", "-of", "json", path]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    rates = (found["streams"][0].get("bit_rate", 0), found["format"]["bit_rate"])
    return tuple(int(rate) / 1000 for rate in rates)


@needs_ffprobe
@pytest.mark.parametrize(
    ("rate", "bitrate"),
    [(44100, 32), (44100, 128), (48000, 192), (44100, 320), (22050, 8), (22050, 160), (8000, 64)],
)
def test_mp3_has_exactly_the_bit_rate(tmp_path, rate, bitrate):
    path = write(tmp_path / "a.mp3", noise(rate), rate, bitrate=bitrate)
    assert probed(path)[0] == bitrate
    assert read(path)[0].shape[1] >= 2 * rate
    # And throughout, not only in its first frame.
    assert abs(os.path.getsize(path) * 8 / 2 / 1000 - bitrate) < 10 + 0.02 * bitrate


@needs_ffprobe
@pytest.mark.parametrize(
    ("rate", "nb_channels", "bitrate"),
    [(44100, 2, 64), (44100, 2, 192), (48000, 2, 320), (44100, 2, 500), (22050, 1, 40)],
)
def test_vorbis_aims_at_the_bit_rate(tmp_path, rate, nb_channels, bitrate):
    audio = noise(rate, nb_channels)
    path = write(tmp_path / "a.ogg", audio, rate, bitrate=bitrate)
    assert abs(probed(path)[0] - bitrate) <= 0.5
    size = os.path.getsize(path)
    sizes = [os.path.getsize(write(path, audio, rate, quality=quality)) for quality in (0, 1)]
    assert 0.97 * sizes[0] <= size <= 1.01 * sizes[1]


@needs_ffprobe
@pytest.mark.parametrize(("nb_channels", "bitrate"), [(2, 64), (2, 160), (2, 510), (1, 96)])
def test_opus_aims_at_the_bit_rate(tmp_path, nb_channels, bitrate):
    path = write(tmp_path / "a.opus", noise(48000, nb_channels), 48000, bitrate=bitrate)
    # Noise needs a bit more, and pages have heads; measured up to 1.04.
    assert 0.95 < probed(path)[1] / bitrate < 1.08


@pytest.mark.parametrize(
    ("suffix", "rate", "bitrate", "message"),
    [
        (".mp3", 44100, 100, "mp3 files of 44100 Hz can have 32, 40, 48, .*, 256, 320 kbit/s"),
        (".mp3", 22050, 320, "mp3 files of 22050 Hz can have 8, 16, .*, 144, 160 kbit/s"),
        (".mp3", 8000, 128, "mp3 files of 8000 Hz can have 8, 16, .*, 56, 64 kbit/s"),
        (".ogg", 44100, 20, "ogg files of 44100 Hz and 2 channels can have 64 to 500 kbit/s"),
        (".ogg", 96000, 128, "ogg files of 96000 Hz have no known bit rate; take quality"),
        (".opus", 48000, 600, "opus files of 2 channels can have 12 to 512 kbit/s"),
        (".wav", 44100, 320, "WAV files hold every sample; bit rates are for mp3, ogg and opus"),
        (".flac", 44100, 320, "FLAC files hold every sample"),
        (".mp3", 44100, 0, "bitrate=0 must be"),
        (".mp3", 44100, 12.5, "bitrate=12.5 must be"),
    ],
)
def test_what_is_possible_is_named(tmp_path, suffix, rate, bitrate, message):
    with pytest.raises(ConfigError, match=message):
        write(tmp_path / f"a{suffix}", noise(rate), rate, bitrate=bitrate)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("suffix", written_suffixes())
def test_quality_and_bit_rate_exclude_each_other(tmp_path, suffix):
    with pytest.raises(ConfigError, match=r"quality=0.5 and bitrate=128 exclude each other"):
        StemWriter(tmp_path / f"a{suffix}", nb_channels=2, rate=48000, quality=0.5, bitrate=128)
    with pytest.raises(ConfigError, match="quality=2 must be from 0 to 1"):
        StemWriter(tmp_path / f"a{suffix}", nb_channels=2, rate=48000, quality=2)
    assert os.listdir(tmp_path) == []


@needs_ffprobe
def test_the_bit_rate_is_that_of_the_file_and_not_of_what_is_kept_meanwhile(tmp_path):
    """Stems that are rescaled are floats until their end."""
    audio = 20 * noise(44100)
    path = write(tmp_path / "a.mp3", audio, 44100, bitrate=256, clip_mode="rescale")
    assert probed(path)[0] == 256
