"""Writing: rounding, limiting, lengths, rates, and files that appear only when complete."""

from __future__ import annotations

import copy
import inspect
import logging
import os
import pickle
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile as sf
from helpers.asserts import snr_db
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from umx_np.audio import (
    AudioReader,
    StemWriter,
    commit_together,
    finish_together,
    nb_resampled,
    read,
    resample,
    sink,
    write,
    written_suffixes,
)
from umx_np.errors import AudioError, ConfigError, ShapeError

RATE = 16000


def noise(nb_channels=2, nb_timesteps=5000, level=0.5):
    rng = np.random.default_rng(3)
    return rng.uniform(-level, level, (nb_channels, nb_timesteps)).astype(np.float32)


@pytest.mark.parametrize("suffix", written_suffixes())
@pytest.mark.parametrize("bits", ["16", "24", "float"])
def test_formats(tmp_path, suffix, bits):
    path = tmp_path / f"a{suffix.upper() if suffix == '.wav' else suffix}"
    if (suffix, bits) == (".flac", "float"):
        with pytest.raises(AudioError, match="flac cannot hold floats"):
            write(path, noise(), RATE, bits=bits)
        return
    assert write(path, noise(), RATE, bits=bits) == path
    audio, rate = read(path)
    # Of AAC, ffmpeg gives the rest of the last frame.
    longest = 5120 if suffix == ".m4a" else 5000
    assert (audio.shape, rate) == ((2, longest), RATE)
    if suffix not in (".ogg", ".opus", ".mp3", ".m4a"):
        step = {"16": 2**-15, "24": 2**-23, "float": 0}[bits]
        np.testing.assert_allclose(audio, noise(), atol=step / 2, rtol=0)
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", [".ogg", ".opus", ".mp3"])
@pytest.mark.parametrize("rate", [16000, 48000])
def test_lossy_formats_hold_the_channels_in_their_order(tmp_path, suffix, rate):
    if suffix not in written_suffixes():
        pytest.skip(f"this libsndfile does not write {suffix}")
    time = np.arange(rate) / rate
    levels, frequencies = np.array([[0.5], [0.2]]), np.array([[220.0], [330.0]])
    tones = (levels * np.sin(2 * np.pi * frequencies * time)).astype(np.float32)
    path = tmp_path / f"a{suffix}"
    with StemWriter(path, nb_channels=2, rate=rate) as stem:
        for block in np.split(tones, [1, 5000, 5000, 12345], axis=1):
            stem.write(block)
    found, found_rate = read(path)
    assert (found.shape, found_rate) == (tones.shape, rate)
    for actual, desired in zip(found, tones, strict=True):
        # Measured 31.5 dB and more inside, 21.5 with the ends.
        assert snr_db(actual[2000:-2000], desired[2000:-2000]) > 25
        assert snr_db(actual, desired) > 15


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".aiff"])
@pytest.mark.parametrize("bits", [16, 24])
def test_integers_survive_unchanged(tmp_path, suffix, bits):
    full = 2 ** (bits - 1)
    codes = np.array([[-full, 1 - full, -1, 0, 1, full // 3, full - 1]], np.int32)
    write(tmp_path / f"a{suffix}", codes / np.float32(full), RATE, bits=str(bits))
    found, _ = sf.read(tmp_path / f"a{suffix}", dtype="int32")
    np.testing.assert_array_equal(found >> (32 - bits), codes[0])


def test_rounds_to_nearest_and_halves_to_even(tmp_path):
    samples = np.array([[0.5, 1.5, -0.5, -1.5, 0.49, 0.51, 2.5]], np.float32) / 32768
    write(tmp_path / "a.wav", samples, RATE)
    found, _ = sf.read(tmp_path / "a.wav", dtype="int16")
    np.testing.assert_array_equal(found, [0, 2, 0, -2, 0, 1, 2])


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    sizes=st.lists(st.integers(0, 20000), min_size=1, max_size=4),
    file_rate=st.sampled_from([None, RATE, 22050, 8000]),
    nb_timesteps=st.none() | st.integers(0, 40000),
)
def test_length_and_samples(tmp_path, sizes, file_rate, nb_timesteps):
    audio = noise(2, sum(sizes))
    with StemWriter(
        tmp_path / "a.wav",
        nb_channels=2,
        rate=RATE,
        file_rate=file_rate,
        nb_timesteps=nb_timesteps,
        bits="float",
    ) as stem:
        for block in np.split(audio, np.cumsum(sizes)[:-1], axis=1):
            stem.write(block)
    found = sf.read(tmp_path / "a.wav", dtype="float32", always_2d=True)[0].T
    expected = audio
    if audio.size and file_rate not in (None, RATE):
        expected = resample(audio, RATE, file_rate).clip(-1, 1)
    natural = nb_resampled(audio.shape[1], RATE, file_rate or RATE)
    assert found.shape[1] == (natural if nb_timesteps is None else nb_timesteps)
    common = min(found.shape[1], expected.shape[1])
    np.testing.assert_allclose(found[:, :common], expected[:, :common], atol=4e-6)
    assert not found[:, common:].any()


def test_there_and_back_has_the_length_of_the_source(tmp_path):
    source = write(tmp_path / "in.wav", noise(2, 4801), 48000, bits="float")
    audio, _ = read(source, rate=44100)
    with StemWriter(
        tmp_path / "out.wav", nb_channels=2, rate=44100.0, file_rate=48000, nb_timesteps=4801
    ) as stem:
        stem.write(audio)
    info = sf.info(tmp_path / "out.wav")
    assert (info.frames, info.samplerate, info.subtype) == (4801, 48000, "PCM_16")


def test_clamp_limits_and_counts(tmp_path, caplog):
    audio = noise(2, 100)
    audio[0, 10] = 1.5
    audio[1, 20:22] = -3
    with caplog.at_level(logging.WARNING, "umx_np"):
        write(tmp_path / "a.wav", audio, RATE, bits="float")
    found, _ = read(tmp_path / "a.wav")
    np.testing.assert_array_equal(found, audio.clip(-1, 1))
    assert "3 samples" in caplog.text
    assert "a.wav" in caplog.text


def test_full_scale_is_not_clipping(tmp_path, caplog):
    write(tmp_path / "a.wav", np.array([[1.0, -1.0]]), RATE)
    np.testing.assert_array_equal(sf.read(tmp_path / "a.wav", dtype="int16")[0], [32767, -32768])
    assert caplog.text == ""


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".ogg"])
def test_rescale_applies_one_gain(tmp_path, suffix, caplog):
    audio = noise(2, 40000) * 5  # peak 2.5
    with caplog.at_level(logging.WARNING, "umx_np"):
        write(tmp_path / f"a{suffix}", audio, RATE, bits="24", clip_mode="rescale")
    assert "-7.96 dB" in caplog.text
    assert os.listdir(tmp_path) == [f"a{suffix}"]
    if suffix != ".ogg":
        found, _ = read(tmp_path / f"a{suffix}")
        np.testing.assert_allclose(found, audio / np.abs(audio).max(), atol=3e-7)


def test_rescale_leaves_quiet_stems_alone(tmp_path, caplog):
    write(tmp_path / "a.wav", noise(), RATE, bits="float", clip_mode="rescale")
    np.testing.assert_array_equal(read(tmp_path / "a.wav")[0], noise())
    assert caplog.text == ""


def test_none_keeps_floats(tmp_path, caplog):
    audio = noise() * 5
    write(tmp_path / "a.wav", audio, RATE, bits="float", clip_mode="none")
    np.testing.assert_array_equal(read(tmp_path / "a.wav")[0], audio)
    assert caplog.text == ""
    with pytest.raises(ConfigError, match="clip_mode='none' with bits='16'"):
        write(tmp_path / "b.wav", audio, RATE, clip_mode="none")


def test_quality_sets_the_size(tmp_path):
    if "compression_level" not in inspect.signature(sf.SoundFile.__init__).parameters:
        with pytest.raises(ConfigError, match=r"quality=1 needs soundfile 0\.13"):
            write(tmp_path / "a.mp3", noise(), 44100, quality=1)
        assert os.listdir(tmp_path) == []
        return
    rates = {".ogg": 44100, ".opus": 48000, ".mp3": 44100}
    for suffix in rates.keys() & written_suffixes():
        sizes = []
        for quality in (0, 0.5, 1):
            path = write(tmp_path / f"a{suffix}", noise(), rates[suffix], quality=quality)
            sizes.append(path.stat().st_size)
        assert sizes == sorted(set(sizes)), suffix
    with pytest.raises(ConfigError, match="quality=2"):
        write(tmp_path / "a.mp3", noise(), 44100, quality=2)


def test_replaces_only_when_complete(tmp_path):
    path = tmp_path / "a.wav"
    path.write_bytes(b"old")
    with StemWriter(path, nb_channels=2, rate=RATE) as stem:
        stem.write(noise())
        assert path.read_bytes() == b"old"
    assert sf.info(path).frames == 5000

    def fail_while_writing():
        with StemWriter(path, nb_channels=2, rate=RATE) as stem:
            stem.write(noise()[:, :10])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_while_writing()
    assert sf.info(path).frames == 5000
    assert os.listdir(tmp_path) == ["a.wav"]


def test_files_that_belong_together(tmp_path):
    writers = []

    def write_two(second_is_bad):
        with commit_together(writers):
            for name in ("a", "b"):
                writers.append(StemWriter(tmp_path / f"{name}.wav", nb_channels=2, rate=RATE))
                writers[-1].write(noise())
            if second_is_bad:
                writers[1].write(np.full((2, 3), np.nan, np.float32))

    with pytest.raises(AudioError, match=r"b\.wav.*NaN"):
        write_two(second_is_bad=True)
    assert os.listdir(tmp_path) == []
    writers.clear()
    write_two(second_is_bad=False)
    assert sorted(os.listdir(tmp_path)) == ["a.wav", "b.wav"]
    with pytest.raises(AudioError, match="is committed; nothing"):
        writers[0].write(noise())


def test_permissions_are_those_of_other_files(tmp_path):
    (tmp_path / "other").touch()
    path = write(tmp_path / "a.wav", noise(), RATE)
    assert path.stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.aac", {}, r"type '\.aac' cannot be written; possible are \.wav"),
        ("a", {}, "type '' cannot be written"),
        ("a.mp3", {"rate": 96000}, "rate=96000 Hz"),
        ("a.opus", {"rate": 44100}, "rate=44100 Hz"),
        ("a.mp3", {"nb_channels": 6}, "nb_channels=6"),
        ("folder", {}, "type ''"),
        ("folder.wav", {}, "is a folder"),
        ("file/a.wav", {}, "its folder cannot be made"),
    ],
)
def test_places_and_formats_that_cannot_be_written(tmp_path, name, options, message):
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(AudioError, match=message) as caught:
        StemWriter(tmp_path / name, **({"nb_channels": 2, "rate": RATE} | options))
    assert repr(str(tmp_path / name)) in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.wav"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": "8"}, "bits='8'"),
        ({"clip_mode": "wrap"}, "clip_mode='wrap'"),
        ({"rate": 0}, "rate=0"),
        ({"file_rate": 44100.5}, "file_rate=44100.5"),
        ({"nb_timesteps": -1}, "nb_timesteps=-1"),
        ({"nb_channels": 0}, "nb_channels=0"),
    ],
)
def test_arguments_that_make_no_sense(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        StemWriter(tmp_path / "a.wav", **({"nb_channels": 2, "rate": RATE} | options))


def test_blocks_that_do_not_fit(tmp_path):
    with StemWriter(tmp_path / "a.wav", nb_channels=2, rate=RATE) as stem:
        for block in (noise(1), noise()[0], noise().astype(np.int16)):
            with pytest.raises(ShapeError, match="shape="):
                stem.write(block)
        stem.write(noise().astype(np.float64)[:, ::-1])
    np.testing.assert_allclose(read(tmp_path / "a.wav")[0], noise()[:, ::-1], atol=2**-16)


@pytest.mark.parametrize("bits", ["16", "24", "float"])
def test_wav_that_grows_too_long_becomes_rf64(tmp_path, monkeypatch, bits):
    monkeypatch.setattr(sink, "_MAX_BYTES", 30000)
    audio = np.rint(noise(2, 20000) * 2**15) / np.float32(2**15)
    with StemWriter(tmp_path / "a.wav", nb_channels=2, rate=RATE, bits=bits) as stem:
        for block in np.split(audio, 8, axis=1):
            stem.write(block)
    assert sf.info(tmp_path / "a.wav").format == "RF64"
    np.testing.assert_array_equal(read(tmp_path / "a.wav")[0], audio)
    assert os.listdir(tmp_path) == ["a.wav"]


def test_length_known_to_be_too_long_begins_as_rf64(tmp_path):
    with StemWriter(tmp_path / "a.wav", nb_channels=2, rate=RATE, nb_timesteps=2**30) as stem:
        (part,) = tmp_path.iterdir()
        assert part.read_bytes()[:4] == b"RF64"
        stem.discard()
        with pytest.raises(AudioError, match="AIFF files end at 4 GB"):
            StemWriter(tmp_path / "a.aiff", nb_channels=2, rate=RATE, nb_timesteps=2**30)
        with pytest.raises(AudioError, match="was discarded"):
            stem.commit()
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(sys.platform != "linux", reason="names are bytes there")
@pytest.mark.parametrize("suffix", [".wav", ".mp3"])
@pytest.mark.parametrize("clip_mode", ["clamp", "rescale"])
def test_names_that_are_not_unicode(tmp_path, caplog, suffix, clip_mode):
    # pytest-xdist could not send a report with such a name in it.
    caplog.set_level(logging.ERROR, logger="umx_np")
    path = tmp_path / os.fsdecode(b"caf\xe9" + suffix.encode())
    write(path, noise(level=1.5), RATE, clip_mode=clip_mode)
    with AudioReader(path) as reader:
        assert reader.format == suffix[1:].upper()
    audio, _ = read(path)
    assert audio.shape == (2, 5000)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
@pytest.mark.parametrize("suffix", written_suffixes())
@pytest.mark.parametrize(("nb_timesteps", "limit"), [(100000, 10000), (5000, 600)])
def test_full_disk(tmp_path, suffix, nb_timesteps, limit):
    """Of the shorter one, the lossy encoders write most when the file is closed."""
    program = f"""
import resource, signal, numpy
from umx_np.audio import write
from umx_np.errors import AudioError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
noise = numpy.random.default_rng(0).uniform(-1, 1, (2, {nb_timesteps}))
try:
    write({str(tmp_path / ("a" + suffix))!r}, noise, 44100)
except AudioError as error:
    assert "disk" in str(error), error
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert os.listdir(tmp_path) == []


PEAKS = {"vocals": 2.5, "drums": 0.5, "bass": 1.25}


class TestOneGainForAll:
    """Of stems that belong together, the loudest says what all are scaled by."""

    def stems(self):
        rng = np.random.default_rng(8)
        stems = {name: rng.uniform(-1, 1, (2, 40_000)) for name in PEAKS}
        return {
            name: (stem * PEAKS[name] / np.abs(stem).max()).astype(np.float32)
            for name, stem in stems.items()
        }

    def write(self, folder, stems, suffix=".wav", **options):
        writers = {
            name: StemWriter(folder / f"{name}{suffix}", nb_channels=2, rate=RATE, **options)
            for name in stems
        }
        with commit_together(writers.values()):
            for begin in range(0, 40_000, 7_000):
                for name, writer in writers.items():
                    writer.write(stems[name][:, begin : begin + 7_000])
            gain = finish_together(writers.values())
        assert sorted(os.listdir(folder)) == sorted(f"{name}{suffix}" for name in stems)
        return {name: read(writer.path)[0] for name, writer in writers.items()}, gain

    @pytest.mark.parametrize(
        ("suffix", "bits"), [(".wav", "float"), (".wav", "24"), (".flac", "16")]
    )
    def test_their_balance_stays(self, tmp_path, caplog, suffix, bits):
        stems = self.stems()
        found, gain = self.write(tmp_path, stems, suffix, bits=bits, clip_mode="rescale")
        full = 1 if bits == "float" else 1 - 2.0 ** (1 - int(bits))
        assert gain == pytest.approx(full / 2.5, rel=1e-6)
        step = 0 if bits == "float" else 2.0 ** -int(bits)
        for name, stem in stems.items():
            np.testing.assert_allclose(found[name], stem * np.float32(gain), atol=1.01 * step)
        # So their sum is the mixture, scaled.
        mixture = sum(stems.values())
        np.testing.assert_allclose(sum(found.values()), mixture * gain, atol=4 * step + 1e-6)
        (message,) = caplog.messages
        assert "all stems are scaled by -7.96 dB to stay within full scale" in message
        assert all(name in message for name in stems)

    def test_stems_within_full_scale_are_left_alone(self, tmp_path, caplog):
        stems = {name: stem / 2.5 for name, stem in self.stems().items()}
        found, gain = self.write(tmp_path, stems, bits="float", clip_mode="rescale")
        assert (gain, caplog.messages) == (1.0, [])
        for name, stem in stems.items():
            np.testing.assert_array_equal(found[name], stem)

    def test_others_are_not_scaled(self, tmp_path):
        found, gain = self.write(tmp_path, self.stems(), bits="float", clip_mode="none")
        assert gain == 1.0
        assert np.abs(found["vocals"]).max() == np.float32(2.5)

    def test_without_a_word_of_the_gain_the_end_of_the_block_does_it(self, tmp_path):
        stems = self.stems()
        with commit_together(writers := []):
            for name, stem in stems.items():
                path = tmp_path / f"{name}.wav"
                writers.append(
                    StemWriter(path, nb_channels=2, rate=RATE, bits="float", clip_mode="rescale")
                )
                writers[-1].write(stem)
        drums, _ = read(tmp_path / "drums.wav")
        np.testing.assert_allclose(np.abs(drums).max(), 0.5 / 2.5, rtol=1e-6)

    def test_no_more_than_a_block_is_in_memory(self, tmp_path):
        """The samples are kept on the disk until the gain is known."""
        stem = noise(nb_timesteps=2_000_000)
        writers = [
            StemWriter(tmp_path / f"{k}.wav", nb_channels=2, rate=RATE, clip_mode="rescale")
            for k in range(2)
        ]
        tracemalloc.start()
        with commit_together(writers):
            for writer in writers:
                for begin in range(0, 2_000_000, 10_000):
                    writer.write(3 * stem[:, begin : begin + 10_000])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4e6 < stem.nbytes


@pytest.mark.parametrize("kind", ["pickle", "copy"])
def test_open_files_are_not_sent_elsewhere(tmp_path, kind):
    send = {"pickle": pickle.dumps, "copy": copy.deepcopy}[kind]
    with StemWriter(tmp_path / "a.wav", nb_channels=2, rate=RATE) as writer:
        with pytest.raises(ConfigError, match=r"a.wav': a writer holds an open file; make one"):
            send(writer)
        writer.write(noise())
    with AudioReader(tmp_path / "a.wav") as reader:
        with pytest.raises(ConfigError, match=r"a.wav': a reader holds open files; make one"):
            send(reader)
        assert next(reader.blocks(10)).shape == (2, 10)
