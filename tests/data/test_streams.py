"""Streams of ``.stem.mp4`` files: the samples of the musdb package, whatever wrote the file."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from umx_np.data import streams
from umx_np.data.files import AudioFiles, CachedFiles, Clip
from umx_np.errors import AudioError

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")

# Rate, samples, options of ffmpeg.
FILES: dict[str, tuple[int, int, list[str]]] = {
    "aac": (44100, 100001, ["-c:a", "aac", "-b:a", "192k"]),
    "whole frames": (44100, 100 * 1024, ["-c:a", "aac"]),
    "whole seconds": (44100, 88200, ["-c:a", "aac"]),
    "48 kHz": (48000, 100001, ["-c:a", "aac"]),
    "low rate": (48000, 100001, ["-c:a", "aac", "-b:a", "32k"]),
    "no edit list": (44100, 100000, ["-c:a", "aac", "-use_editlist", "0"]),
    "fragments": (44100, 100000, ["-c:a", "aac", "-movflags", "frag_keyframe+empty_moov"]),
    "header in front": (44100, 100000, ["-c:a", "aac", "-movflags", "faststart"]),
    "iTunes": (44100, 100000, ["-c:a", "aac", "-f", "ipod"]),
    "other coder": (44100, 100000, ["-c:a", "aac", "-aac_coder", "fast", "-aac_pns", "0"]),
    "starts late": (44100, 100000, ["-c:a", "aac", "-output_ts_offset", "0.5"]),
    "coarse clock": (44100, 100000, ["-c:a", "aac", "-movie_timescale", "600"]),
    "alac": (44100, 100000, ["-c:a", "alac"]),
    "ac3": (48000, 100000, ["-c:a", "ac3"]),
}


def song(rate: int, nb_timesteps: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    times = np.arange(nb_timesteps) / rate
    tones = 0.3 * np.sin(2 * np.pi * 110 * (seed + 1) * times)
    noise = rng.standard_normal((2, nb_timesteps)) * (0.05 + 0.1 * (np.sin(9 * times) > 0))
    return np.clip(tones + noise, -0.99, 0.99)


def encode(folder: Path, rate: int, nb_timesteps: int, options: list[str]) -> Path:
    """Write a file of two streams."""
    inputs, maps = [], []
    for k in range(2):
        source = folder / f"{k}.wav"
        sf.write(source, song(rate, nb_timesteps, k).T, rate, subtype="PCM_16")
        inputs += ["-i", str(source)]
        maps += ["-map", str(k)]
    path = folder / "song.stem.mp4"
    command = ["ffmpeg", "-v", "error", "-y", *inputs, *maps, *options, str(path)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip(f"this ffmpeg has no {' '.join(options)}")
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {}


@pytest.fixture(params=FILES)
def path(
    request: pytest.FixtureRequest, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    name = request.param
    if name not in files:
        files[name] = encode(tmp_path_factory.mktemp("streams"), *FILES[name])
    return files[name]


def of_musdb(path: Path, stream: int) -> np.ndarray:
    """What musdb reads: with `start=0` and 16 bits."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stempeg = pytest.importorskip("stempeg")
        samples, _ = stempeg.read_stems(
            str(path), stem_id=stream, start=0, ffmpeg_format="s16le", dtype=np.float64
        )
    return samples.T


def test_samples_are_those_of_musdb(path: Path) -> None:
    for stream in (0, 1):
        samples = AudioFiles().read(Clip(path, stream))
        np.testing.assert_array_equal(samples, of_musdb(path, stream))


def test_excerpts_are_slices_of_the_whole(path: Path) -> None:
    files, clip = AudioFiles(), Clip(path, 1)
    whole = files.read(clip)
    nb_timesteps = files.info(clip).nb_timesteps
    assert whole.shape == (2, nb_timesteps)
    drawn = int(np.random.default_rng(nb_timesteps).integers(0, nb_timesteps - 2000))
    for first, count in ((0, 1), (1, 2000), (1023, 2), (drawn, 2000), (nb_timesteps - 9, 9)):
        np.testing.assert_array_equal(
            files.read(clip, first, count), whole[:, first : first + count]
        )


def test_the_cache_has_the_same(path: Path, tmp_path: Path) -> None:
    plain, cached, clip = AudioFiles(), CachedFiles(tmp_path), Clip(path, 1)
    assert plain.info(clip).nb_timesteps == cached.info(clip).nb_timesteps
    np.testing.assert_array_equal(plain.read(clip), cached.read(clip))
    np.testing.assert_array_equal(plain.read(clip, 777, 99), cached.read(clip, 777, 99))


@pytest.fixture
def aac(tmp_path: Path) -> Path:
    return encode(tmp_path, 44100, 100000, ["-c:a", "aac", "-movflags", "faststart"])


@pytest.mark.parametrize("first", [99000, 200000])
def test_excerpts_beyond_the_end_are_refused(aac: Path, first: int) -> None:
    with pytest.raises(AudioError, match=rf"in place of 5000 from sample {first}"):
        AudioFiles().read(Clip(aac, 0), first, 5000)


def test_a_file_that_was_cut_is_pointed_out(aac: Path, caplog: pytest.LogCaptureFixture) -> None:
    content = aac.read_bytes()
    aac.write_bytes(content[: 2 * len(content) // 3])
    with caplog.at_level(logging.WARNING):
        nb_timesteps = AudioFiles().info(Clip(aac, 0)).nb_timesteps
    assert nb_timesteps < 80000
    assert "song.stem.mp4, stream 0: only 1." in caplog.text


@pytest.mark.parametrize("kind", ["ffconcat", "hls", "empty", "wav", "text"])
def test_nothing_but_mp4_is_read(aac: Path, kind: str, tmp_path: Path) -> None:
    """A playlist could make ffmpeg read other files, or wait for ever."""
    content = {
        "ffconcat": b"ffconcat version 1.0\nfile 0.wav\n",
        "hls": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n0.wav\n",
        "empty": b"",
        "wav": (tmp_path / "0.wav").read_bytes(),
        "text": b"no sound at all",
    }[kind]
    path = tmp_path / "a.stem.mp4"
    path.write_bytes(content)
    begin = time.monotonic()
    for files in (AudioFiles(), CachedFiles(tmp_path / "cache")):
        with pytest.raises(AudioError, match=r"a.stem.mp4' has no sound in stream=0"):
            files.info(Clip(path, 0))
    assert time.monotonic() - begin < 20.0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.stem.mp4")
    with pytest.raises(AudioError, match="is no file"):
        AudioFiles().info(Clip(tmp_path / "a.stem.mp4", 0))


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell script")
def test_a_decoder_that_hangs_is_given_up(
    aac: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ffprobe").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "ffprobe").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(streams, "_PATIENCE", 0.5)
    monkeypatch.setattr(streams, "_SLOWEST", 1e9)
    begin = time.monotonic()
    with pytest.raises(AudioError, match="ffprobe was not done after"):
        AudioFiles().info(Clip(aac, 0))
    assert time.monotonic() - begin < 20.0


def test_a_missing_decoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.stem.mp4").write_bytes(b"")
    monkeypatch.setattr(streams.shutil, "which", lambda name: None)
    with pytest.raises(AudioError, match=r"ffprobe is needed to read .stem.mp4 files"):
        AudioFiles().info(Clip(tmp_path / "a.stem.mp4", 1))
