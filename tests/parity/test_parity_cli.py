"""What `umx-np separate` writes, sample by sample, against openunmix's functional interface."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from umx_np.config import ModelConfig
from umx_np.testing import random_bundle, random_bundle_of
from umx_np.weights import save_folder

pytestmark = pytest.mark.parity

RATE = 44100
TARGETS = ["vocals", "drums", "bass", "other"]


@pytest.fixture(scope="module")
def song(excerpt, tmp_path_factory):
    """Path and samples of a 16-bit WAV file of three seconds of music."""
    soundfile = pytest.importorskip("soundfile")
    pcm = np.clip(np.rint(excerpt(RATE, 3.0)[0].T * 32768.0), -32768, 32767).astype(np.int16)
    path = tmp_path_factory.mktemp("song") / "song.wav"
    soundfile.write(path, pcm, RATE, subtype="PCM_16")
    return path, (pcm / 32768.0).astype(np.float32)


def run_command(*arguments: object) -> None:
    command = [sys.executable, "-m", "umx_np", "separate", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def read_pcm(path):
    import soundfile

    info = soundfile.info(path)
    assert info.samplerate == RATE
    assert info.channels == 2
    if info.subtype == "PCM_16":
        return soundfile.read(path, dtype="int16")[0].astype(np.int64)
    return to_pcm(soundfile.read(path, dtype="float64")[0])


def to_pcm(sound):
    return np.clip(np.rint(sound * 32768.0), -32768, 32767).astype(np.int64)


def upstream_pcm(upstream, folder, samples, *, targets=TARGETS, aggregate=None, **options):
    """Let openunmix load the same model folder and separate in double precision."""
    with upstream.precision("float64") as torch_dtype:
        separator = upstream.utils.load_separator(str(folder), targets=targets, **options)
        separator.freeze()
        estimates = upstream.predict.separate(
            upstream.torch.tensor(samples.T, dtype=torch_dtype),
            rate=RATE,
            separator=separator.to(torch_dtype),
            aggregate_dict=aggregate,
        )
        return {name: to_pcm(sound[0].numpy().T) for name, sound in estimates.items()}


def assert_equal_to_one_step(folder, desired):
    assert {path.name for path in folder.glob("[!.]*")} == {f"{name}.wav" for name in desired}
    for name, expected in desired.items():
        actual = read_pcm(folder / f"{name}.wav")
        assert actual.shape == expected.shape
        assert np.abs(actual).max() > 300, f"{name} is as good as silent"
        assert np.abs(actual - expected).max() <= 1, name


def test_default_options(openunmix, song, tmp_path):
    path, samples = song
    save_folder(random_bundle("umxhq", seed=61), tmp_path / "model")
    run_command(path, "--model", tmp_path / "model", "--outdir", tmp_path / "out", "--niter", 1)
    desired = upstream_pcm(openunmix, tmp_path / "model", samples, niter=1)
    assert_equal_to_one_step(tmp_path / "out" / "song", desired)


def test_targets_and_residual(openunmix, song, tmp_path):
    path, samples = song
    config = ModelConfig(nb_bins=513, hidden_size=32, max_bin=400)
    save_folder(random_bundle_of(config, TARGETS, seed=62), tmp_path / "model")
    run_command(
        path,
        "--model",
        tmp_path / "model",
        "--outdir",
        tmp_path / "out",
        "--niter",
        2,
        "--targets",
        "vocals",
        "bass",
        "--residual",
        "residual",
        "--wiener-win-len",
        100,
    )
    desired = upstream_pcm(
        openunmix,
        tmp_path / "model",
        samples,
        targets=["vocals", "bass"],
        residual=True,
        niter=2,
        wiener_win_len=100,
    )
    assert_equal_to_one_step(tmp_path / "out" / "song", desired)


def test_aggregate(openunmix, song, tmp_path):
    path, samples = song
    config = ModelConfig(nb_bins=513, hidden_size=32, max_bin=400)
    save_folder(random_bundle_of(config, TARGETS, seed=63), tmp_path / "model")
    aggregate = '{"vocals": ["vocals"], "accompaniment": ["drums", "bass", "other"]}'
    run_command(
        path,
        "--model",
        tmp_path / "model",
        "--outdir",
        tmp_path / "out",
        "--niter",
        0,
        "--aggregate",
        aggregate,
    )
    desired = upstream_pcm(
        openunmix,
        tmp_path / "model",
        samples,
        niter=0,
        aggregate={"vocals": ["vocals"], "accompaniment": ["drums", "bass", "other"]},
    )
    assert_equal_to_one_step(tmp_path / "out" / "song", desired)
