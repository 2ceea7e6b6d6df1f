"""Stems and residual add up to the mixture, whatever its rate."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.asserts import relative_l2
from helpers.streaming import tiny_bundle

import umx_np
from umx_np.audio import read, write
from umx_np.weights import save_folder

# The model works at 8 kHz.
RATES = [8000, 16000, 8707, 4000]


def separator_of(**options):
    return umx_np.Separator.from_bundle(tiny_bundle(), residual=True, device="cpu", **options)


def noise(nb_timesteps, nb_channels=2):
    """Noise, which has as much above the band of the model as in it."""
    rng = np.random.default_rng(0)
    return (0.1 * rng.standard_normal((nb_channels, nb_timesteps))).astype(np.float32)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("nb_channels", [1, 2])
def test_arrays(rate, nb_channels):
    mixture = noise(7001, nb_channels)
    stems = umx_np.separate(mixture, rate, separator=separator_of(niter=0))
    assert relative_l2(sum(stems.values()), mixture) < 1e-6


def test_more_channels_are_told_once():
    song = np.random.default_rng(0).uniform(-0.1, 0.1, (3, 20000)).astype(np.float32)
    with pytest.warns(UserWarning, match="only the first 2") as told:
        umx_np.separate(song, 48000, model="umxm", residual=True, niter=0, channels_first=True)
    assert len(told) == 1


def test_integers_and_sums():
    mixture = (noise(5000).T * 2**15).astype(np.int16)
    aggregate = {"all": ["a", "b", "c", "residual"], "rest": ["residual"], "a": ["a"]}
    stems = umx_np.separate(mixture, 16000, separator=separator_of(niter=0), aggregate=aggregate)
    assert relative_l2(stems["all"], mixture / 2**15) < 1e-6
    alone = umx_np.separate(mixture, 16000, separator=separator_of(niter=0))
    np.testing.assert_array_equal(stems["rest"], alone["residual"])
    np.testing.assert_array_equal(stems["a"], alone["a"])


@pytest.mark.parametrize("niter", [1, 2])
def test_the_filter_adds_up_as_well_at_other_rates(niter):
    """With iterations the sum is as near as the filter's regularisation lets it be."""
    mixture = noise(9000)
    for rate in (8000, 16000):
        stems = umx_np.separate(mixture, rate, separator=separator_of(niter=niter))
        assert relative_l2(sum(stems.values()), mixture) < 1e-3


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("part", [{}, {"start": 0.3, "duration": 0.4}], ids=str)
def test_files(rate, part, tmp_path):
    write(tmp_path / "song.wav", noise(3 * 8000), rate, bits="float")
    paths = umx_np.separate_file(
        tmp_path / "song.wav",
        tmp_path,
        separator=separator_of(niter=0),
        bits="float",
        clip_mode="none",
        **part,
    )
    mixture, _ = read(tmp_path / "song.wav", **part)
    total = sum(read(path)[0] for path in paths.values())
    assert total.shape == mixture.shape
    assert relative_l2(total, mixture) < 1e-6


@pytest.mark.parametrize("rate", [48000, 96000])
def test_published_rates(rate, tmp_path):
    """Of a model at 44.1 kHz; a tone at 23 kHz is in no target, but in the residual."""
    models = {"v": umx_np.OpenUnmix(nb_bins=2049, hidden_size=4, nb_layers=1, seed=0)}
    separator = umx_np.Separator(models, residual=True, device="cpu")
    t = np.arange(rate // 2) / rate
    tone = 0.1 * np.sin(2 * np.pi * 23000 * t).astype(np.float32)
    mixture = noise(len(t)) + tone
    stems = umx_np.separate(mixture, rate, separator=separator)
    assert relative_l2(sum(stems.values()), mixture) < 1e-6
    write(tmp_path / "song.wav", mixture, rate, bits="float")
    paths = umx_np.separate_file(
        tmp_path / "song.wav", tmp_path, separator=separator, bits="float", clip_mode="none"
    )
    files = {name: read(path)[0] for name, path in paths.items()}
    assert relative_l2(sum(files.values()), mixture) < 1e-6
    for found in (stems, files):
        power = {name: abs(np.vdot(stem[0], tone)) for name, stem in found.items()}
        assert power["residual"] > 100 * power["v"]


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("niter", [0, 1])
def test_two_stems(rate, niter, tmp_path):
    """Exactly, whatever the filter leaves out; and the stem is the one that there is anyway."""
    write(tmp_path / "song.wav", noise(2 * 8000), rate, bits="float")
    separator = umx_np.Separator.from_bundle(tiny_bundle(), niter=niter, device="cpu")
    options = {"separator": separator, "bits": "float", "clip_mode": "none"}
    both = umx_np.separate_file(tmp_path / "song.wav", tmp_path / "two", two_stems="b", **options)
    assert list(both) == ["b", "no_b"]
    mixture, _ = read(tmp_path / "song.wav")
    stem, rest = (read(path)[0] for path in both.values())
    assert rest.shape == mixture.shape
    np.testing.assert_allclose(stem + rest, mixture, atol=1e-7)
    every = umx_np.separate_file(tmp_path / "song.wav", tmp_path / "all", **options)
    np.testing.assert_array_equal(stem, read(every["b"])[0])
    if rate == 8000 and niter:  # nothing was resampled, and the filter leaves out little
        others = sum(read(every[name])[0] for name in every if name != "b")
        assert relative_l2(others, rest) < 0.05
    alone = tmp_path / "alone"
    umx_np.separate_file(tmp_path / "song.wav", alone, two_stems="b", only=["no_b"], **options)
    assert [path.name for path in alone.rglob("*.wav")] == ["no_b.wav"]
    np.testing.assert_array_equal(rest, read(alone / "song" / "no_b.wav")[0])


def test_two_stems_at_the_rate_of_the_model(tmp_path):
    write(tmp_path / "song.wav", noise(9000), 16000, bits="float")
    separator = umx_np.Separator.from_bundle(tiny_bundle(), device="cpu")
    options = {"separator": separator, "bits": "float", "clip_mode": "none", "rate": "model"}
    paths = umx_np.separate_file(tmp_path / "song.wav", tmp_path, two_stems="a", **options)
    stems = [read(path) for path in paths.values()]
    assert [rate for _, rate in stems] == [8000, 8000]
    mixture, _ = read(tmp_path / "song.wav", rate=8000)
    np.testing.assert_allclose(stems[0][0] + stems[1][0], mixture, atol=1e-7)


@pytest.mark.parametrize(
    ("nb_channels", "downmix"), [(1, "standard"), (3, "first"), (3, "standard")]
)
def test_two_stems_of_other_channels(nb_channels, downmix, tmp_path):
    audio = noise(9000, nb_channels)
    write(tmp_path / "song.wav", audio, 16000, bits="float")
    separator = umx_np.Separator.from_bundle(tiny_bundle(), device="cpu")
    paths = umx_np.separate_file(
        tmp_path / "song.wav",
        tmp_path,
        separator=separator,
        two_stems="a",
        bits="float",
        clip_mode="none",
        start=0.1,
        downmix=downmix,
    )
    total = sum(read(path)[0] for path in paths.values())
    mixture = audio[:2]
    if (nb_channels, downmix) == (3, "standard"):
        mixture = mixture + np.sqrt(np.float32(0.5)) * audio[2]
    np.testing.assert_allclose(total, mixture[:, 1600:], atol=3e-7)


def test_one_network_is_enough_without_iterations(tmp_path, monkeypatch):
    """And gives the stem of all of them, to the bit."""
    save_folder(tiny_bundle(), tmp_path / "model")
    write(tmp_path / "song.wav", noise(8000), 8000)
    loaded = []
    load = umx_np.pretrained.load_model

    def counting(*args, **options):
        bundle = load(*args, **options)
        loaded.append(list(bundle.targets))
        return bundle

    monkeypatch.setattr("umx_np.pretrained.load_model", counting)
    options = {"model": tmp_path / "model", "niter": 0, "device": "cpu"}
    two = umx_np.separate_file(tmp_path / "song.wav", tmp_path / "2", two_stems="c", **options)
    every = umx_np.separate_file(tmp_path / "song.wav", tmp_path / "3", **options)
    assert loaded == [["c"], ["a", "b", "c"]]
    assert two["c"].read_bytes() == every["c"].read_bytes()
