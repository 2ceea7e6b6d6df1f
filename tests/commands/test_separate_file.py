"""`umx_np.separation.files.separate_file`, with a stand-in for the engine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

import umx_np
from umx_np.audio import written_suffixes
from umx_np.errors import AudioError, ConfigError, DeviceError, ShapeError
from umx_np.separation.files import output_names, output_paths, separate_file
from umx_np.testing import random_bundle

from .conftest import STEMS, files


def test_returns_the_paths(engine, song, folder):
    song()
    paths = separate_file("song.wav", "out")
    assert paths == {stem: Path("out/song") / f"{stem}.wav" for stem in STEMS}
    assert all(path.is_file() for path in paths.values())
    assert engine.loaded == [("umxm", None, False)]
    assert engine.separators[0]["wiener_win_len"] == 300


def test_a_given_separator_is_used(engine, song):
    song()
    separator = engine.from_bundle(engine.load_model("x", ["drums"]), residual=False)
    engine.loaded.clear()
    paths = separate_file("song.wav", separator=separator)
    assert paths == {"drums": Path("song_x/drums.wav")}  # the folder has the name of its model
    assert engine.loaded == []
    separator.name = None  # one of networks that were not loaded
    assert separate_file("song.wav", separator=separator)["drums"].parent.name == "song_model"
    paths = separate_file("song.wav", separator=separator, model="runs/mine")
    assert paths["drums"].parent.name == "song_mine"


def test_progress_goes_from_nothing_to_all(engine, song, capsys):
    song(nb_timesteps=40000)
    seen = []
    separate_file("song.wav", progress=seen.append)
    assert seen == sorted(seen)
    assert len(seen) > 3
    assert seen[-1] == 1.0
    separate_file("song.wav", progress=True)  # no bar: stderr is no terminal
    assert "%" not in capsys.readouterr().err


@pytest.mark.parametrize("rate", ["input", "model"])
@pytest.mark.parametrize("ext", [".opus", ".mp3"])
def test_formats_that_know_some_rates_only(engine, song, ext, rate, caplog):
    engine.sample_rate = 44100.0
    song(rate=96000 if rate == "input" else 44100, nb_timesteps=44100)
    if ext not in written_suffixes():
        pytest.skip(f"this libsndfile does not write {ext}")
    with caplog.at_level("INFO"):
        paths = separate_file("song.wav", ext=ext, rate=rate)
    info = sf.info(paths["bass"])
    if (ext, rate) == (".mp3", "model"):
        assert info.samplerate == 44100
        return
    assert info.samplerate == 48000
    assert "song.wav: stems have 48000 Hz, as their format has no " in caplog.text
    if ext == ".opus":  # which knows its length
        assert info.frames == (22050 if rate == "input" else 48000)


def test_stems_are_complete_together(engine, song, folder):
    song()
    before = separate_file("song.wav", "out")["bass"].read_bytes()

    def fail(path):
        raise AudioError("something")

    engine.before = fail
    with pytest.raises(AudioError, match="something"):
        separate_file("song.wav", "out", start=0.1)
    assert len(files(folder / "out")) == 4
    assert Path("out/song/bass.wav").read_bytes() == before


def test_overwrite_can_be_refused(engine, song):
    song()
    separate_file("song.wav", "out")
    with pytest.raises(AudioError, match="exist already; pass overwrite=True"):
        separate_file("song.wav", "out", overwrite=False)
    assert engine.separated == ["song.wav"]


def test_stems_sum_up_without_limits(engine, song):
    engine.sample_rate = 8000.0
    audio = song(level=5.0)
    paths = separate_file("song.wav", bits="float", clip_mode="none")
    total = sum(sf.read(path)[0].T for path in paths.values())
    np.testing.assert_allclose(total, audio * (1 - 1 / 16), atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 48000}, "rate=48000 must be 'input' or 'model'"),
        ({"bits": "32"}, "bits='32'"),
        ({"clip_mode": "none"}, "clip_mode='none'"),
        ({"aggregate": ["vocals"]}, "aggregate="),
        ({"aggregate": {"a": ["vocals", "piano"]}}, "'piano'; there are vocals"),
        ({"quality": 5}, "quality=5"),
    ],
)
def test_arguments_that_make_no_sense(engine, song, folder, options, message):
    song()
    with pytest.raises(ConfigError, match=message):
        separate_file("song.wav", **options)
    assert files(folder) == ["song.wav"]


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\\b", "a:b", "a\0"])
def test_names_that_no_file_can_have(name):
    with pytest.raises(ConfigError, match="cannot be the name of a file"):
        output_names([name], None)


def test_names_and_places():
    paths = output_paths("in/My.Song.stem.mp4", ["bass"], ext="flac", model="m")
    assert paths == {"bass": Path("My.Song.stem_m/bass.flac")}
    with pytest.raises(ConfigError, match="several of the stems bass, drums one file"):
        output_paths("a.wav", ["bass", "drums"], filename="{{stem}}{track}")
    # Nothing leads out of the folder for the results.
    for name, track in (("..wav", "..wav"), ("...wav", "...wav"), ("a..wav", "a.")):
        assert output_paths(f"in/{name}", ["bass"], "o") == {"bass": Path(f"o/{track}/bass.wav")}
    by_folder = "{parent}/{track}{ext}"
    here = Path.cwd().parent.name
    assert output_paths("../a.wav", ["x"], "o", filename=by_folder) == {
        "x": Path("o", here, "a.wav")
    }
    assert output_paths("/a.wav", ["x"], "o", filename=by_folder) == {"x": Path("o/a.wav")}
    # Braces in names are no placeholders.
    assert output_paths("{x}.wav", ["bass"], "o") == {"bass": Path("o/{x}/bass.wav")}


@pytest.mark.parametrize(
    "error", [AudioError("stem"), ShapeError("shape"), DeviceError("memory"), ConfigError("x")]
)
def test_every_error_names_the_song(engine, song, error):
    song()

    def fail(path):
        raise error

    engine.before = fail
    with pytest.raises(type(error), match=f"path='song.wav' cannot be separated: {error}"):
        separate_file("song.wav", model="m")


@pytest.mark.filterwarnings("ignore:(overflow|invalid):RuntimeWarning")
def test_samples_that_are_too_large_are_those_of_the_song(folder):
    """And not of a stem, which is where NaN or infinity is met."""
    noise = np.random.default_rng(0).uniform(-1e37, 1e37, (44100, 2)).astype(np.float32)
    sf.write("song.wav", noise, 44100, subtype="FLOAT")
    separator = umx_np.Separator.from_bundle(random_bundle("umxm", seed=0), device="cpu")
    with pytest.raises(AudioError, match=r"^path='song.wav' cannot be"):
        separate_file("song.wav", separator=separator)
    assert files(folder) == ["song.wav"]
