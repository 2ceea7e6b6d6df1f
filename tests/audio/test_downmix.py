"""Stereo of more channels: coefficients, orders of channels, and what is said."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess

import numpy as np
import pytest

from umx_np.audio import AudioReader, read, write
from umx_np.audio.downmix import mixed, stereo_gains, usual_mask
from umx_np.audio.ogg import has_positions
from umx_np.errors import ConfigError

RATE = 48000
HALF = np.sqrt(0.5)
# Recommendation ITU-R BS.775: what goes from each channel to the left and to the right.
L, R, C, LOW = (1, 0), (0, 1), (HALF, HALF), (0, 0)
LS, RS, S = (HALF, 0), (0, HALF), (0.5, 0.5)
LAYOUTS = {
    "3.0": (0x7, [L, R, C]),
    "2.1": (0xB, [L, R, LOW]),
    "3.1": (0xF, [L, R, C, LOW]),
    "quad": (0x33, [L, R, LS, RS]),
    "4.0": (0x107, [L, R, C, S]),
    "5.0": (0x37, [L, R, C, LS, RS]),
    "5.1": (0x3F, [L, R, C, LOW, LS, RS]),
    "5.1(side)": (0x60F, [L, R, C, LOW, LS, RS]),
    "6.1": (0x70F, [L, R, C, LOW, S, LS, RS]),
    "7.1": (0x63F, [L, R, C, LOW, LS, RS, LS, RS]),
}

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


def noise(nb_channels, nb_timesteps=6000):
    rng = np.random.default_rng(nb_channels)
    return rng.uniform(-0.3, 0.3, (nb_channels, nb_timesteps)).astype(np.float32)


def extensible(audio, mask):
    """A WAV file of floats that says where its channels are."""
    nb_channels, data = len(audio), audio.T.astype("<f4").tobytes()
    form = struct.pack("<HHIIHH", 0xFFFE, nb_channels, RATE, 4 * nb_channels * RATE,
                       4 * nb_channels, 32)  # fmt: skip
    guid = struct.pack("<H", 3) + bytes.fromhex("000000001000800000aa00389b71")
    form += struct.pack("<HHI", 22, 32, mask) + guid
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", len(data)) + data
    return io.BytesIO(b"RIFF" + struct.pack("<I", len(body)) + body)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_that_say_where_their_channels_are(layout):
    mask, gains = LAYOUTS[layout]
    audio = noise(len(gains))
    with AudioReader(extensible(audio, mask), downmix="standard") as reader:
        assert (reader.nb_channels, reader.nb_source_channels) == (2, len(gains))
        found = np.concatenate(list(reader.blocks(1000)), axis=1)
        name = f"{len(gains) - (LOW in gains)}.{int(LOW in gains)}"
        assert reader.downmixed.startswith(f"{len(gains)} channels ({name}) are mixed to stereo;")
    np.testing.assert_allclose(found, np.transpose(gains) @ audio, atol=3e-7)
    # A single loud channel comes out as the table says, and is not scaled to fit.
    for channel, gain in enumerate(gains):
        alone = np.zeros((len(gains), 10), np.float32)
        alone[channel] = 1
        loud, _ = read(extensible(alone, mask), downmix="standard")
        np.testing.assert_allclose(loud, np.tile(gain, (10, 1)).T, atol=1e-7)


def test_first_and_none():
    audio = noise(6)
    with AudioReader(extensible(audio, 0x3F), downmix="first") as reader:
        assert reader.downmixed.startswith("the first two of 6 channels are taken; downmix='sta")
        np.testing.assert_array_equal(next(reader.blocks(6000)), audio[:2])
    with AudioReader(extensible(audio, 0x3F)) as reader:
        assert (reader.nb_channels, reader.downmixed) == (6, "")
        np.testing.assert_array_equal(next(reader.blocks(6000)), audio)
    for nb_channels in (1, 2):
        few = noise(nb_channels)
        with AudioReader(extensible(few, 3), downmix="standard") as reader:
            assert (reader.nb_channels, reader.downmixed) == (nb_channels, "")
            np.testing.assert_array_equal(next(reader.blocks(6000)), few)
    with pytest.raises(ConfigError, match="downmix='itu' must be one of 'standard', 'first', or"):
        read(extensible(audio, 0x3F), downmix="itu")


@pytest.mark.parametrize(
    ("nb_channels", "mask"), [(6, 0), (4, 3), (3, 0x4007), (2 + 1, 0x38), (12, 0xFFF), (9, 0)]
)
def test_channels_that_are_nowhere_are_not_mixed(nb_channels, mask):
    audio = noise(nb_channels)
    with AudioReader(extensible(audio, mask), downmix="standard") as reader:
        assert "the first two" in reader.downmixed
        assert "not known where each belongs" in reader.downmixed
        np.testing.assert_array_equal(next(reader.blocks(6000)), audio[:2])


@pytest.mark.parametrize("nb_channels", range(3, 9))
@pytest.mark.parametrize("form", ["wav", "flac", "aiff"])
def test_the_usual_order_where_nothing_is_said(form, nb_channels):
    file = io.BytesIO()
    audio = noise(nb_channels)
    write(file, audio, RATE, format=form, bits="24")
    file.seek(0)
    mask = usual_mask(nb_channels)
    gains = next(gains for known, gains in LAYOUTS.values() if known == mask)
    with AudioReader(file, downmix="standard") as reader:
        assert ", the usual order of so many) are mixed to stereo" in reader.downmixed
        found = next(reader.blocks(6000))
    np.testing.assert_allclose(found, np.transpose(gains) @ audio, atol=1e-6)


def tones(nb_channels, nb_timesteps=48000):
    time = np.arange(nb_timesteps) / RATE
    rates = 300.0 + 200 * np.arange(nb_channels)[:, np.newaxis]
    return (0.2 * np.sin(2 * np.pi * rates * time)).astype(np.float32)


@pytest.mark.parametrize("form", ["ogg", "opus"])
def test_vorbis_and_opus_have_an_order_of_their_own(form):
    """The centre is second and low frequencies are last there."""
    file = io.BytesIO()
    write(file, tones(6), RATE, format=form, quality=1.0)
    file.seek(0)
    stereo, _ = read(file, downmix="standard")
    levels = np.abs(np.fft.rfft(stereo[:, 4800:43200] * np.hanning(38400))) / (0.2 * 38400 / 4)
    found = levels[:, np.round((300 + 200 * np.arange(6)) * 0.8).astype(int)]
    np.testing.assert_allclose(found, np.transpose(LAYOUTS["5.1"][1]), atol=0.03)


@needs_ffmpeg
@pytest.mark.parametrize("layout", ["5.1(side)", "quad"])
def test_what_ffmpeg_decodes_says_where_its_channels_are(tmp_path, layout):
    mask, gains = LAYOUTS[layout]
    audio = noise(len(gains))
    (tmp_path / "a.wav").write_bytes(extensible(audio, mask).getvalue())
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", "-c:a", "wavpack"]
    subprocess.run([*command, tmp_path / "a.mka"], check=True)
    with AudioReader(tmp_path / "a.mka", downmix="standard") as reader:
        assert reader.format == "ffmpeg"
        assert "usual" not in reader.downmixed
        found = next(reader.blocks(6000))
    np.testing.assert_allclose(found, np.transpose(gains) @ audio, atol=1e-6)


def test_the_samples_do_not_depend_on_the_blocks():
    gains = stereo_gains(0x3F, 6)
    audio = noise(6).T
    whole = mixed(audio, gains)
    for size in (1, 7, 1000):
        parts = [mixed(audio[i : i + size], gains) for i in range(0, 2000, size)]
        np.testing.assert_array_equal(np.concatenate(parts)[:2000], whole[:2000])


def test_channels_of_no_meaning_in_opus(tmp_path):
    """A mapping family of 255 says that the channels are just so many signals."""
    path = tmp_path / "a.opus"
    write(path, noise(4), RATE, quality=1.0)
    assert has_positions(path, "OPUS")
    with AudioReader(path, downmix="standard") as reader:
        assert "4.0" in reader.downmixed
    data = bytearray(path.read_bytes())
    data[data.index(b"OpusHead") + 18] = 255
    path.write_bytes(data)
    assert not has_positions(path, "OPUS")
