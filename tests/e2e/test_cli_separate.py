"""``umx-np separate`` with the real engine: files in, files out, as `umx_np.separate` says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from helpers import signals

import umx_np
from umx_np.audio import read, resample, write
from umx_np.commands import main
from umx_np.config import ModelConfig
from umx_np.testing import random_bundle_of
from umx_np.weights import save_folder

RATE = 44100
TARGETS = ["vocals", "drums", "bass", "other"]


@pytest.fixture
def song(tmp_path, monkeypatch):
    """Floats of a second and a half of stereo in a file; the working directory is its folder."""
    audio = signals.music(66150, seed=5)[0].astype(np.float32)
    write(tmp_path / "song.wav", audio, RATE, bits="float")
    monkeypatch.chdir(tmp_path)
    return audio


def separate(*arguments):
    return main(["separate", *map(str, arguments), "--quiet"])


def test_stems_are_those_of_the_array_function(song, model_folder):
    options = ["--bits", "float", "--clip-mode", "none", "--niter", 1, "--residual", "rest"]
    assert separate("song.wav", "--model", model_folder, *options) == 0
    stems = umx_np.separate(song, RATE, model=model_folder, niter=1, residual="rest")
    assert list(stems) == [*TARGETS, "rest"]
    for name, expected in stems.items():
        actual, rate = read(f"song_{model_folder.name}/{name}.wav")
        assert rate == RATE
        np.testing.assert_allclose(actual, expected, atol=2e-6)


def test_stems_and_residual_sum_to_the_song(song, model_folder):
    options = ["--bits", "float", "--clip-mode", "none", "--niter", 0, "--residual", "rest"]
    assert separate("song.wav", "--model", model_folder, "--outdir", "o", *options) == 0
    total = sum(read(path)[0] for path in sorted(Path("o/song").glob("[!.]*")))
    np.testing.assert_allclose(total, song, atol=2e-6)


@pytest.mark.parametrize("nb_channels", [1, 2, 3])
@pytest.mark.parametrize("rate", [8000, 48000])
def test_length_rate_and_channels_are_those_of_the_file(tmp_path, model_folder, nb_channels, rate):
    audio = signals.music(20011, nb_channels=nb_channels, seed=6)[0]
    path = write(tmp_path / "song.flac", audio, rate)
    arguments = [path, "--model", model_folder, "--outdir", tmp_path / "o", "--targets", "bass"]
    assert separate(*arguments) == 0
    info = sf.info(tmp_path / "o" / "song" / "bass.wav")
    assert (info.samplerate, info.frames, info.channels) == (rate, 20011, min(nb_channels, 2))
    assert separate(*arguments, "--rate", "model", "--ext", "flac") == 0
    info = sf.info(tmp_path / "o" / "song" / "bass.flac")
    assert (info.samplerate, info.frames) == (RATE, -(-20011 * RATE // rate))


def test_mono_model_of_another_rate(tmp_path):
    config = ModelConfig(nb_bins=129, nb_channels=1, hidden_size=16)
    bundle = random_bundle_of(config, ["speech", "noise"], seed=8, sample_rate=16000.0)
    save_folder(bundle, tmp_path / "model")
    for nb_channels in (1, 2):
        audio = signals.music(22050, nb_channels=nb_channels, seed=7)[0].astype(np.float32)
        path = write(tmp_path / f"{nb_channels}.wav", audio, RATE, bits="float")
        paths = umx_np.separate_file(
            path, tmp_path / "o", model=tmp_path / "model", bits="float", clip_mode="none"
        )
        expected = umx_np.separate(audio, RATE, model=tmp_path / "model")
        assert list(paths) == list(expected) == ["noise", "speech"]
        for name, stem in expected.items():
            actual, _ = read(paths[name])
            assert actual.shape == (nb_channels, 22050)
            np.testing.assert_allclose(actual, stem, atol=1e-5)


def test_excerpt_aggregate_and_reference_device(song, model_folder):
    aggregate = '{"voice": ["vocals"], "rest": ["drums", "bass", "other"]}'
    options = ["--start", 0.5, "--duration", 0.25, "--aggregate", aggregate, "--bits", "float"]
    options += ["--clip-mode", "none", "--model", model_folder]
    excerpt = song[:, 22050:33075]
    stems = umx_np.separate(excerpt, RATE, model=model_folder)
    expected = stems["drums"] + stems["bass"] + stems["other"]
    for device in ("cpu", "reference"):
        assert separate("song.wav", "--outdir", device, "--device", device, *options) == 0
        assert sorted(map(str, Path(device, "song").glob("[!.]*"))) == [
            str(Path(device, "song", name)) for name in ("rest.wav", "voice.wav")
        ]
        np.testing.assert_allclose(read(f"{device}/song/rest.wav")[0], expected, atol=2e-5)


def test_memory_limit_changes_nothing(song, model_folder):
    assert separate("song.wav", "--model", model_folder, "--outdir", "a") == 0
    assert separate("song.wav", "--model", model_folder, "--outdir", "b", "--max-memory", 0) == 0
    for name in TARGETS:
        a, b = (sf.read(f"{folder}/song/{name}.wav", dtype="int16")[0] for folder in "ab")
        np.testing.assert_array_equal(a, b)


def test_resampled_input(song, model_folder):
    audio = resample(song, RATE, 32000)
    path = write("slow.wav", audio, 32000, bits="float")
    paths = umx_np.separate_file(path, model=model_folder, bits="float", clip_mode="none")
    for name, expected in umx_np.separate(audio, 32000, model=model_folder).items():
        np.testing.assert_allclose(read(paths[name])[0], expected, atol=1e-5)


def test_as_a_program(song, model_folder, tmp_path):
    (tmp_path / "bad.mp3").write_text("no sound")
    (tmp_path / "in").mkdir()
    (tmp_path / "song.wav").rename(tmp_path / "in" / "Lied ü.wav")
    command = [sys.executable, "-W", "error", "-m", "umx_np", "separate", "in", "bad.mp3"]
    command += ["--model", str(model_folder), "--targets", "vocals"]
    # From another folder, an installed package is found, and so is one that is not.
    environment = os.environ | {"PYTHONPATH": str(Path(umx_np.__file__).parents[1])}
    done = subprocess.run(
        command, capture_output=True, check=False, encoding="utf-8", env=environment
    )
    assert done.returncode == 3
    assert "error: path='bad.mp3' holds no sound" in done.stderr
    assert "1 separated, 1 failed of 2 files" in done.stderr
    assert "Traceback" not in done.stderr
    assert sf.info(f"Lied ü_{model_folder.name}/vocals.wav").frames == 66150


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_interruption_leaves_nothing(song, model_folder, tmp_path, name, status):
    write("long.wav", np.tile(song, 200), RATE)
    # These tests may have been started with nohup, which has SIGHUP ignored.
    program = "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    program += "from umx_np.commands import main; sys.exit(main())"
    command = [sys.executable, "-c", program, "separate", "long.wav", "--outdir", "o/p"]
    command += ["--model", str(model_folder)]
    environment = os.environ | {"PYTHONPATH": str(Path(umx_np.__file__).parents[1])}
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=environment) as process:
        while len(list(tmp_path.glob("o/p/long/.umx-np-*.tmp"))) < 4:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.005)
        time.sleep(0.02)
        process.send_signal(getattr(signal, name))
        error = process.communicate(timeout=30)[1]
    assert process.returncode == status, error
    assert b"Traceback" not in error
    assert sorted(os.listdir()) == ["long.wav", "song.wav"]


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_interrupted_standard_input_leaves_nothing(model_folder, tmp_path):
    (tmp_path / "tmp").mkdir()
    command = [sys.executable, "-m", "umx_np", "separate", "-", "-o", "-", "--only", "bass"]
    command += ["--model", str(model_folder)]
    environment = os.environ | {
        "PYTHONPATH": str(Path(umx_np.__file__).parents[1]),
        "TMPDIR": str(tmp_path / "tmp"),
    }
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, env=environment, cwd=tmp_path
    ) as process:
        while not list(tmp_path.glob("tmp/*/stdin")):
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.005)
        process.terminate()
        out, error = process.communicate(timeout=60)
    assert (process.returncode, out, error) == (143, b"", b"")
    assert [path.name for path in tmp_path.rglob("*")] == ["tmp"]


@pytest.mark.skipif(os.name == "nt", reason="needs signals")
def test_what_a_killed_run_left_goes_with_the_next(song, model_folder, tmp_path):
    """The long form: UMX_NP_TEST_KILLS=200 python -m pytest <this file> -k killed_run."""
    write("long.wav", np.tile(song, 100), RATE)
    command = [sys.executable, "-m", "umx_np", "separate", "long.wav", "--outdir", "o"]
    command += ["--model", str(model_folder), "--skip-existing"]
    environment = os.environ | {"PYTHONPATH": str(Path(umx_np.__file__).parents[1])}
    place = tmp_path / "o" / "long"
    for k in range(int(os.environ.get("UMX_NP_TEST_KILLS", "2"))):
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment) as process:
            while len(list(place.glob(".umx-np-*.tmp"))) < 4:
                assert process.poll() is None
                time.sleep(0.005)
            time.sleep(0.01 * (k % 30))
            process.kill()
        left = {path.name for path in place.glob(".*")}
        assert len(left) == 4  # and not those of the run before as well
    assert separate("long.wav", "--outdir", "o", "--model", model_folder, "--skip-existing") == 0
    names = sorted(path.name for path in place.iterdir())
    assert names == sorted([".umx-np.wav.json", *(f"{name}.wav" for name in TARGETS)])
    assert sf.info(place / "vocals.wav").frames == 100 * song.shape[1]


def test_targets_of_the_model_are_named(song, model_folder, capsys):
    assert separate("song.wav", "--model", model_folder, "--targets", "piano") == 1
    assert "vocals" in capsys.readouterr().err
    assert separate("song.wav", "--model", "no/such/folder") == 1
    assert "no/such/folder" in capsys.readouterr().err
    assert separate("song.wav", "--model", model_folder, "--device", "toaster") == 1
    assert "--device 'toaster'" in capsys.readouterr().err
    assert separate("song.wav", "--model", model_folder, "--residual", "drums") == 1
    assert "drums" in capsys.readouterr().err
