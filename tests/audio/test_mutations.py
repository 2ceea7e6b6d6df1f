"""Many damaged, cut and joined sound files: what they hold is read, or something is said."""

from __future__ import annotations

import io
import logging
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from umx_np.audio import AudioReader, decoding, read
from umx_np.errors import AudioError, UmxError

RATE = 8000
SECONDS = 3
# Seconds on each side of a damage that a decoder may need to find its way.
MARGIN = 0.3

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


def tones(seed, nb_channels=2, rate=RATE, seconds=SECONDS):
    """A chord with some noise, different for each seed."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * rate)) / rate
    pitches = rng.uniform(200, 900, (nb_channels, 3))
    chord = np.sin(2 * np.pi * pitches[..., np.newaxis] * time).sum(axis=1) * 0.1
    return (chord + 0.05 * rng.standard_normal(chord.shape)).astype(np.float32)


def encoded(audio, rate, format, subtype):
    """Bytes of a file; None if libsndfile cannot write it."""
    file = io.BytesIO()
    file.name = "a"
    try:
        sf.write(file, audio.T, rate, format=format, subtype=subtype)
    except (sf.SoundFileError, AssertionError):
        return None
    return file.getvalue()


def pairs():
    """All formats and encodings that libsndfile writes, but for those without a header."""
    for format in sorted(sf.available_formats()):
        if format in ("RAW", "SD2"):
            continue
        for subtype in sorted(sf.available_subtypes(format)):
            if sf.check_format(format, subtype):
                yield format, subtype


@pytest.mark.parametrize(("format", "subtype"), list(pairs()))
def test_any_block_size_and_start_equals_one_read(tmp_path, monkeypatch, format, subtype):
    path = tmp_path / "a.bin"
    data = encoded(tones(0), RATE, format, subtype) or encoded(tones(0, 1), RATE, format, subtype)
    if data is None:
        pytest.skip("libsndfile writes it in other ways only")
    path.write_bytes(data)
    try:
        whole, rate = read(path)
    except AudioError as error:
        # SVX, PVF and others without a mark of their own need not be recognised.
        pytest.skip(str(error))
    assert abs(whole.shape[1] / (RATE if format == "XI" else rate) - SECONDS) < 0.3
    for size in (997, 4096):
        monkeypatch.setattr(decoding, "FILE_BLOCK", size)
        for first in (0, 1, 1151, 8000, 15000):
            with AudioReader(path, start=first / rate, duration=0.5) as reader:
                part = np.concatenate(list(reader.blocks(1234)), axis=1)
            np.testing.assert_array_equal(part, whole[:, first : first + round(0.5 * rate)])


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp3", "-c:a libmp3lame -q:a 3"),
        ("a.mp3", "-c:a libmp3lame -q:a 3 -write_xing 0"),
        ("a.mp2", "-c:a mp2"),
        ("a.opus", "-c:a libopus"),
        ("a.ogg", "-c:a libvorbis"),
        ("a.oga", "-c:a flac"),
        ("a.m4a", "-c:a aac"),
        ("a.wv", "-c:a wavpack"),
        ("a.webm", "-c:a libopus"),
        ("mp3.wav", "-c:a libmp3lame"),
    ],
)
def test_any_block_size_and_start_with_other_encoders(tmp_path, monkeypatch, name, options):
    sf.write(tmp_path / "source.wav", tones(1, rate=44100).T, 44100)
    path = tmp_path / name
    command = ["ffmpeg", "-v", "error", "-i", tmp_path / "source.wav", *options.split(), path]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("ffmpeg cannot write it")
    whole, rate = read(path)
    assert abs(whole.shape[1] / rate - SECONDS) < 0.15
    monkeypatch.setattr(decoding, "FILE_BLOCK", 997)
    for first in (1151, 60000):
        with AudioReader(path, start=first / rate, duration=0.5) as reader:
            part = np.concatenate(list(reader.blocks(1234)), axis=1)
        np.testing.assert_array_equal(part, whole[:, first : first + round(0.5 * rate)])


# Mutations


@dataclass
class Mutant:
    """A changed file, and where it is changed."""

    kind: str
    data: bytes
    begin: float  # seconds of the damage
    end: float


SOURCES = [
    ("WAV", "PCM_16", 2),
    ("WAV", "FLOAT", 1),
    ("WAV", "GSM610", 1),
    ("WAV", "IMA_ADPCM", 2),
    ("AIFF", "PCM_24", 2),
    ("AU", "G721_32", 1),
    ("CAF", "PCM_16", 2),
    ("FLAC", "PCM_16", 2),
    ("OGG", "VORBIS", 2),
    ("OGG", "OPUS", 2),
    ("MP3", "MPEG_LAYER_III", 2),
    ("MP3", "MPEG_LAYER_III", 1),
]


def mutate(rng, data):
    """Change a file in one of many ways."""
    size = len(data)
    at = int(rng.integers(64, size - 64))
    nb_bytes = int(min(2 ** rng.uniform(0, 13), size - at - 1)) or 1
    stop = at + nb_bytes
    noise = rng.bytes(nb_bytes)
    kind = str(
        rng.choice(
            ["cut", "behead", "hole", "zeros", "noise", "flip", "insert", "append", "header"]
        )
    )
    begin, end = at, stop
    if kind == "cut":
        changed, end = data[:at], size
    elif kind == "behead":
        changed, begin = data[at:], 0
    elif kind == "hole":
        changed = data[:at] + data[stop:]
    elif kind == "zeros":
        changed = data[:at] + bytes(nb_bytes) + data[stop:]
    elif kind == "noise":
        changed = data[:at] + noise + data[stop:]
    elif kind == "flip":
        changed = data[:at] + bytes([data[at] ^ (1 << int(rng.integers(8)))]) + data[at + 1 :]
        end = at + 1
    elif kind == "insert":
        changed = data[:at] + noise + data[at:]
    elif kind == "append":
        changed, begin, end = data + noise, size, size
    else:
        at = int(rng.integers(4, 64))
        changed = data[:at] + rng.bytes(4) + data[at + 4 :]
        begin, end = 0, size
    return Mutant(kind, changed, SECONDS * begin / size, SECONDS * end / size)


def seconds_by_ffmpeg(path):
    """How much sound ffmpeg finds; 0 if none, or without ffmpeg."""
    if shutil.which("ffmpeg") is None:
        return 0.0
    command = ["ffmpeg", "-v", "quiet", "-nostdin", "-i", path, "-map", "0:a:0"]
    command += ["-ac", "1", "-ar", str(RATE), "-f", "s16le", "pipe:1"]
    run = subprocess.run(command, capture_output=True, check=False, timeout=60)
    return len(run.stdout) / 2 / RATE


def check_mutant(path, mutant, whole, rate, caplog):
    """Return what is wrong with how a mutant is read; nothing if all is well."""
    caplog.clear()
    try:
        with AudioReader(path) as reader:
            blocks = list(reader.blocks(5000))
            again = list(reader.blocks(1 << 20))
            found_rate = reader.source_rate
    except UmxError as error:
        return "" if str(path) in str(error) and len(str(error)) < 2000 else f"message {error}"
    found = np.concatenate(blocks, axis=1)
    if not np.array_equal(found, np.concatenate(again, axis=1)):
        return "two passes differ"
    if [record for record in caplog.records if record.levelno >= logging.WARNING]:
        return ""
    seconds = found.shape[1] / found_rate
    if seconds < seconds_by_ffmpeg(path) - 0.2:
        return f"{seconds:.3f} s read without a word, {seconds_by_ffmpeg(path):.3f} s by ffmpeg"
    if mutant.kind in ("zeros", "noise", "flip", "append"):
        if seconds < whole.shape[1] / rate - 0.2:
            return f"{seconds:.3f} s of {whole.shape[1] / rate:.3f} s are left without a word"
        if found.shape == whole.shape and found_rate == rate:
            wrong = np.abs(found - whole).max(axis=0) > 0.02
            time = np.flatnonzero(wrong) / rate
            if ((time < mutant.begin - MARGIN) | (time > mutant.end + MARGIN)).any():
                return f"differs at {time[0]:.3f} to {time[-1]:.3f} s"
    return ""


def run_mutants(folder, caplog, nb_mutants, seed):
    """Read mutants of all sources; the bad ones are kept in `folder`."""
    rng = np.random.default_rng(seed)
    sources = []
    for number, (format, subtype, nb_channels) in enumerate(SOURCES):
        rate = 44100 if format == "MP3" else RATE
        data = encoded(tones(number, nb_channels, rate), rate, format, subtype)
        path = folder / f"source{number}.bin"
        path.write_bytes(data)
        sources.append((format, subtype, data, *read(path)))
    bad = []
    for number in range(nb_mutants):
        format, subtype, data, whole, rate = sources[number % len(sources)]
        mutant = mutate(rng, data)
        path = folder / f"{number}-{format}-{subtype}-{mutant.kind}.bin"
        path.write_bytes(mutant.data)
        fault = check_mutant(path, mutant, whole, rate, caplog)
        if fault:
            bad.append(f"{path.name} ({mutant.begin:.2f}..{mutant.end:.2f} s): {fault}")
        else:
            path.unlink()
    return bad


def test_mutants_short(tmp_path, caplog):
    assert run_mutants(tmp_path, caplog, 24, seed=1) == []


@pytest.mark.long
def test_mutants_long(tmp_path, caplog):
    """UMX_NP_TEST_LONG=1 [UMX_NP_TEST_MUTANTS=2400] pytest -k mutants_long."""
    nb_mutants = int(os.environ.get("UMX_NP_TEST_MUTANTS", "2400"))
    assert run_mutants(Path(tmp_path), caplog, nb_mutants, seed=2) == []
