"""m4a and stem files: what ffmpeg makes of samples, where they lie, and the box of the stems."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
from helpers.asserts import snr_db
from helpers.boxes import chunk_offsets, edit_of, inside, read_boxes, tracks

from umx_np.audio import StemWriter, mp4, read, write, write_stem_file, written_suffixes
from umx_np.audio.mp4 import add_user_data
from umx_np.data import streams
from umx_np.errors import AudioError, ConfigError, ShapeError

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")

NAMES = ("drums", "bass", "other", "vocals")
NB_TIMESTEPS = 30011


def music(seed: int, nb_channels: int = 2) -> np.ndarray:
    """Noise with little treble, which an encoder keeps well enough to find it again."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((nb_channels, NB_TIMESTEPS))
    spectrum = np.fft.rfft(noise) / (1 + np.arange(NB_TIMESTEPS // 2 + 1) / 500.0) ** 2
    signal = np.fft.irfft(spectrum, NB_TIMESTEPS)
    return (0.2 * signal / np.abs(signal).max()).astype(np.float32)


def song() -> tuple[np.ndarray, dict[str, np.ndarray]]:
    stems = {name: music(seed) for seed, name in enumerate(NAMES)}
    return sum(stems.values()), stems


def delay(found: np.ndarray, wanted: np.ndarray) -> int:
    """How many samples later than it should be a signal is."""
    size = 2 * NB_TIMESTEPS
    spectra = [np.fft.rfft(signal[0, :NB_TIMESTEPS], size) for signal in (found, wanted)]
    correlation = np.fft.irfft(spectra[0] * spectra[1].conj(), size)
    return (int(correlation.argmax()) + size // 2) % size - size // 2


@pytest.mark.parametrize("nb_channels", [1, 2])
@pytest.mark.parametrize("rate", [44100, 48000, 16000])
def test_aac_lies_on_the_samples(tmp_path, nb_channels, rate):
    audio = music(7, nb_channels)
    path = write(tmp_path / "a.m4a", audio, rate)
    found, found_rate = read(path)
    assert found_rate == rate
    assert found.shape[0] == nb_channels
    # Decoders that take no notice of the end of the edit list give the rest of the last frame.
    assert NB_TIMESTEPS <= found.shape[1] < NB_TIMESTEPS + 1024
    assert delay(found, audio) == 0
    assert snr_db(found[:, :NB_TIMESTEPS], audio) > 15
    boxes = read_boxes(path.read_bytes())
    (track,) = tracks(boxes)
    seconds, begin = edit_of(boxes, track)
    assert round(seconds * rate, 3) == NB_TIMESTEPS
    assert begin == 1024
    assert os.listdir(tmp_path) == ["a.m4a"]


@pytest.mark.parametrize(("bits", "step"), [("16", 2**-15), ("24", 2**-23)])
def test_alac_loses_nothing(tmp_path, bits, step):
    audio = music(8)
    path = write(tmp_path / "a.m4a", audio, 44100, bits=bits, quality=1)
    found, _ = read(path)
    np.testing.assert_array_equal(found, np.rint(audio.astype(np.float64) / step) * step)


def test_sizes_follow_the_quality(tmp_path):
    sizes = [
        write(tmp_path / "a.m4a", music(9), 44100, quality=quality).stat().st_size
        for quality in (0, 0.5, None, 1)
    ]
    assert sizes == sorted(set(sizes))


def test_sizes_follow_the_bit_rate(tmp_path):
    sizes = [
        write(tmp_path / "a.m4a", music(9), 44100, bitrate=bitrate).stat().st_size
        for bitrate in (64, 128, 256)
    ]
    for size, bitrate in zip(sizes, (64, 128, 256), strict=True):
        assert size == pytest.approx(1000 * bitrate / 8 * NB_TIMESTEPS / 44100, rel=0.4)
    assert sizes == sorted(set(sizes))


def test_rescaled(tmp_path, caplog):
    path = write(tmp_path / "a.m4a", 10 * music(9), 44100, clip_mode="rescale", quality=1)
    assert 0.99 < np.abs(read(path)[0]).max() <= 1
    assert "scaled by" in caplog.text


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rate": 44101}, AudioError, "cannot have rate=44101 Hz; take file_rate=48000"),
        ({"nb_channels": 3}, AudioError, "nb_channels=3 is more than the 1 or 2"),
        ({"quality": 1.5}, ConfigError, r"quality=1\.5 must be from 0 to 1"),
        ({"bitrate": 321}, ConfigError, "bitrate=321: AAC of 2 channels has 64 to 320 kbit/s"),
        ({"bitrate": 128, "quality": 1}, ConfigError, "exclude each other"),
        ({"quality": 1, "bits": "float"}, ConfigError, "is ALAC, which holds integers"),
        ({"bits": "8"}, ConfigError, "bits='8' must be"),
        ({"clip_mode": "cut"}, ConfigError, "clip_mode='cut' must be"),
    ],
)
def test_what_m4a_cannot_hold(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        StemWriter(tmp_path / "a.m4a", **{"nb_channels": 2, "rate": 44100, **options})
    assert os.listdir(tmp_path) == []


def test_without_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert ".m4a" not in written_suffixes()
    with pytest.raises(AudioError, match="needs ffmpeg 5 or later"):
        write(tmp_path / "a.m4a", music(1), 44100)


def test_what_ffmpeg_says_is_passed_on(tmp_path, monkeypatch):
    monkeypatch.setattr(mp4, "ffmpeg_path", lambda path: shutil.which("false"))
    with pytest.raises(AudioError, match="cannot be written: ffmpeg says ''"):
        write(tmp_path / "a.m4a", music(1), 44100)
    monkeypatch.setattr(mp4, "ffmpeg_path", lambda path: shutil.which("true"))
    with pytest.raises(AudioError, match="no whole MP4 file"):
        write(tmp_path / "a.m4a", music(1), 44100)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("quality", [None, 1])
def test_five_streams(tmp_path, quality):
    mixture, stems = song()
    path = write_stem_file(tmp_path / "a.stem.mp4", mixture, stems, 44100, quality=quality)
    command = ["ffprobe", "-v", "error", "-show_streams", "-of", "json", str(path)]
    probed = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    assert [stream["tags"]["handler_name"] for stream in probed["streams"]] == ["mixture", *NAMES]
    assert [stream["disposition"]["default"] for stream in probed["streams"]] == [1, 0, 0, 0, 0]
    assert {(s["codec_name"], s["channels"], s["sample_rate"]) for s in probed["streams"]} == {
        ("alac" if quality else "aac", 2, "44100")
    }
    lengths = set()
    for index, wanted in enumerate([mixture, *(stems[name] for name in NAMES)]):
        found = streams.decode(path, index) / 2.0**15
        lengths.add(found.shape[1])
        assert delay(found, wanted) == 0
        error = found[:, :NB_TIMESTEPS] - wanted
        if quality:
            # ALAC holds our rounding; that of the sum of the stems is its own.
            assert np.abs(error).max() <= 2.0**-16
        else:
            assert snr_db(found[:, :NB_TIMESTEPS], wanted) > 15
    assert len(lengths) == 1
    assert lengths.pop() - NB_TIMESTEPS in (range(1) if quality else range(1024))


def test_the_box_is_that_of_the_specification(tmp_path):
    """As Native Instruments' document has it: JSON in moov/udta/stem of a valid MP4 file."""
    mixture, stems = song()
    path = write_stem_file(tmp_path / "a.stem.mp4", mixture, stems, 48000)
    data = path.read_bytes()
    boxes = read_boxes(data)
    kinds = [kind for kind, _ in boxes]
    assert kinds[:2] == ["ftyp", "moov"]
    assert dict(boxes)["ftyp"][:4] == b"M4A "
    content = json.loads(inside(boxes, "moov", "udta", "stem"))
    assert content["version"] == 1
    assert [stem["name"] for stem in content["stems"]] == list(NAMES)
    colours = [stem["color"] for stem in content["stems"]]
    assert all(len(c) == 7 and int(c[1:], 16) and c[0] == "#" for c in colours)
    assert len(set(colours)) == 4
    dsp = content["mastering_dsp"]
    assert sorted(dsp) == ["compressor", "limiter"]
    assert not dsp["compressor"]["enabled"]
    assert not dsp["limiter"]["enabled"]
    assert sorted(dsp["limiter"]) == ["ceiling", "enabled", "release", "threshold"]
    assert sorted(dsp["compressor"]) == [
        "attack", "dry_wet", "enabled", "hp_cutoff", "input_gain", "output_gain", "ratio",
        "release", "threshold",
    ]  # fmt: skip
    # Only the first stream is enabled: players that know no stems play the song.
    flags = [inside(track, "tkhd")[3] & 1 for track in tracks(boxes)]
    assert flags == [1, 0, 0, 0, 0]
    assert {edit_of(boxes, track) for track in tracks(boxes)} == {(NB_TIMESTEPS / 48000, 1024)}
    again = write_stem_file(tmp_path / "b.stem.mp4", mixture, stems, 48000)
    assert again.read_bytes() == data


def test_stempeg_reads_it(tmp_path):
    stempeg = pytest.importorskip("stempeg")
    mixture, stems = song()
    path = write_stem_file(tmp_path / "a.stem.mp4", mixture, stems, 44100, quality=1)
    found, rate = stempeg.read_stems(str(path))
    assert (found.shape, rate) == ((5, NB_TIMESTEPS, 2), 44100)
    for samples, wanted in zip(found, [mixture, *map(stems.get, NAMES)], strict=True):
        assert np.abs(samples.T - wanted).max() <= 2.0**-16


def test_mono_becomes_two_equal_channels(tmp_path):
    mono = {name: music(3, 1)[0] for name in NAMES}
    path = write_stem_file(tmp_path / "a.stem.mp4", mono["bass"], mono, 44100, quality=1)
    found = streams.decode(path, 4)
    np.testing.assert_array_equal(found[0], found[1])


def test_what_a_stem_file_cannot_hold(tmp_path):
    mixture, stems = song()
    path = tmp_path / "a.stem.mp4"
    with pytest.raises(ConfigError, match="holds the mixture and the stems drums, bass, other"):
        write_stem_file(path, mixture, {"speech": mixture, "noise": mixture}, 44100)
    with pytest.raises(ShapeError, match=r"stems\['bass'\] has shape=\(2, 9\)"):
        write_stem_file(path, mixture, {**stems, "bass": mixture[:, :9]}, 44100)
    with pytest.raises(AudioError, match="cannot have rate=16000 Hz; take file_rate=44100"):
        write_stem_file(path, mixture, stems, 16000)
    with pytest.raises(AudioError, match=r"must end in \.stem\.mp4"):
        write_stem_file(tmp_path / "a.mp4", mixture, stems, 44100)
    with pytest.raises(AudioError, match="write_stem_file"):
        write(path, mixture, 44100)
    with pytest.raises(AudioError, match="NaN or infinity"):
        write_stem_file(path, mixture, {**stems, "bass": mixture * np.nan}, 44100)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("moov_first", [False, True])
def test_chunks_are_found_after_a_box_was_added(tmp_path, moov_first):
    """Wherever `moov` was, with and without other user data, a player finds the same bytes."""
    write(tmp_path / "a.wav", np.concatenate([music(1)] * 3, axis=1), 44100)
    options = ["-movflags", "+faststart"] if moov_first else []
    # The chunks of two streams take turns.
    options += ["-map", "0", "-map", "0", "-metadata", "title=x"]
    command = ["ffmpeg", "-v", "error", "-i", "a.wav", *options, "a.mp4"]
    subprocess.run(command, check=True, cwd=tmp_path)
    old = (tmp_path / "a.mp4").read_bytes()
    target = io.BytesIO()
    add_user_data(io.BytesIO(old), target, b"test", b"content")
    new = target.getvalue()
    before, after = read_boxes(old), read_boxes(new)
    assert ([kind for kind, _ in before].index("moov") == 1) is moov_first
    assert inside(after, "moov", "udta", "test") == b"content"
    places = [
        pair
        for track, moved in zip(tracks(before), tracks(after), strict=True)
        for pair in zip(chunk_offsets(track), chunk_offsets(moved), strict=True)
    ]
    assert len(places) > 4
    for place, other in places:
        assert place != other
        assert old[place : place + 64] == new[other : other + 64]
    again = io.BytesIO()
    add_user_data(io.BytesIO(new), again, b"more", b"")
    assert inside(read_boxes(again.getvalue()), "moov", "udta", "more") == b""


def test_damaged_files_are_not_copied():
    for data in (b"", b"\0\0\0\x08moov", b"\0\0\0\x09mdat" * 2, b"\xff\xff\xff\xffmdat"):
        with pytest.raises(AudioError, match="no whole MP4 file"):
            add_user_data(io.BytesIO(data), io.BytesIO(), b"stem", b"")
