"""``umx-np separate``: options, names, batches and failures, with a stand-in for the engine."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile as sf

from umx_np.audio import StemWriter
from umx_np.errors import ConfigError
from umx_np.separation.files import separate_file
from umx_np.separation.naming import plot_path

from .conftest import STEMS, files

DEFAULTS = {
    "niter": 1,
    "softmask": False,
    "residual": False,
    "wiener_win_len": 300,
    "filterbank": "torch",
    "device": "auto",
    "threads": None,
    "precision": "full",
}


def test_defaults_are_those_of_the_reference(engine, song, run, folder):
    audio = song()
    result = run("separate", "song.wav")
    assert result.status == 0, result.err
    assert engine.loaded == [("umxm", None, False)]
    assert engine.separators == [DEFAULTS]
    assert files(folder) == ["song.wav", *sorted(f"song_umxm/{stem}.wav" for stem in STEMS)]
    info = sf.info("song_umxm/vocals.wav")
    assert (info.samplerate, info.channels, info.frames) == (8000, 2, 4000)
    assert info.subtype == "PCM_16"
    # Through 44.1 kHz and back, noise loses only the top of its band.
    vocals = sf.read("song_umxm/vocals.wav")[0].T
    assert np.corrcoef(vocals.ravel(), audio.ravel())[0, 1] > 0.9


@pytest.mark.parametrize(
    ("recommended", "options", "precision"),
    [
        ("int8", "", "int8"),
        ("int8", "--device cpu --no-cuda", "int8"),
        ("int8", "--precision full", "full"),
        ("int8", "--precision fast", "fast"),
        ("int8", "--device reference", "full"),
        ("fast", "", "fast"),
        ("full", "", "full"),
        (None, "--precision int8", "int8"),
    ],
)
def test_precision_that_a_model_recommends(engine, song, run, recommended, options, precision):
    """It is followed where nothing else is asked for and it gains time, and that is said."""
    song()
    engine.recommended = recommended
    result = run("separate", "song.wav", "--model", "some/folder", *options.split())
    assert result.status == 0, result.err
    assert engine.separators[0]["precision"] == precision
    assert engine.dtypes == ["int8" if precision == "int8" else "float32"]
    said = f"computing with --precision {precision}, as folder recommends; --precision full"
    is_followed = "--precision" not in options and precision != "full"
    assert (said in result.err) == is_followed
    assert result.err.count("recommends") == is_followed
    assert "recommends" not in run("separate", "song.wav", "--quiet", *options.split()).err


def test_a_recommendation_that_gains_nothing_here(engine, song, run, monkeypatch):
    song()
    engine.recommended = "int8"
    monkeypatch.setattr("umx_np.backends.cpu.describe", lambda: {"int8_products": "none"})
    assert run("separate", "song.wav").status == 0
    assert engine.separators[0]["precision"] == "full"


def test_every_option_arrives(engine, song, run, folder, monkeypatch):
    written = []

    class NotedWriter(StemWriter):
        def __init__(self, *args, **options):
            written.append((options["bits"], options["clip_mode"], options["quality"]))
            super().__init__(*args, **options)

    monkeypatch.setattr("umx_np.separation.files.StemWriter", NotedWriter)
    song()
    options = "--niter 3 --softmask --wiener-win-len 0 --filterbank asteroid --threads 2 "
    options += "--precision fast --offline"
    options += " --max-memory 100 --residual rest --device reference --targets drums bass"
    options += " --model some/folder --bits float --clip-mode none --quality 0.25"
    result = run("separate", "song.wav", *options.split())
    assert result.status == 0, result.err
    assert engine.loaded == [("some/folder", ["drums", "bass"], True)]
    assert engine.separators == [
        {
            "niter": 3,
            "softmask": True,
            "residual": "rest",
            "wiener_win_len": None,
            "filterbank": "asteroid",
            "device": "reference",
            "threads": 2,
            "precision": "fast",
        }
    ]
    assert engine.max_memory == 100_000_000
    assert written == [("float", "none", 0.25)] * 3
    # The residual has the name that was given.
    assert files(folder / "song_folder") == ["bass.wav", "drums.wav", "rest.wav"]


def test_no_cuda(engine, song, run):
    song()
    assert run("separate", "song.wav", "--no-cuda").status == 0
    assert engine.separators[0]["device"] == "cpu"
    result = run("separate", "song.wav", "--no-cuda", "--device", "cuda:1")
    assert result.status == 1
    assert "--no-cuda contradicts --device cuda:1" in result.err


def test_audio_backend_is_accepted(engine, song, run):
    song()
    result = run("separate", "song.wav", "--audio-backend", "sox_io", "--verbose")
    assert result.status == 0
    assert "--audio-backend sox_io is ignored" in result.err


def test_outdir_ext_and_bits(engine, song, run, folder):
    song("Señor.mp3")
    result = run("separate", "Señor.mp3", "--outdir", "o/p", "--ext", "flac", "--bits", 24)
    assert result.status == 0, result.err
    assert files(folder / "o") == sorted(f"p/Señor/{stem}.flac" for stem in STEMS)
    assert sf.info("o/p/Señor/bass.flac").subtype == "PCM_24"


@pytest.mark.parametrize(
    ("options", "rate", "frames"),
    [
        ([], 8000, 4000),
        (["--rate", "model"], 44100, 22050),
        (["--start", 0.25], 8000, 2000),
        (["--start", 0.25, "--duration", 0.125], 8000, 1000),
        (["--duration", 0.125, "--rate", "model"], 44100, 5513),
        (["--duration", -1], 8000, 4000),
    ],
)
def test_excerpts_and_rates(engine, song, run, options, rate, frames):
    song()
    assert run("separate", "song.wav", "--targets", "vocals", *options).status == 0
    info = sf.info("song_umxm/vocals.wav")
    assert (info.samplerate, info.frames) == (rate, frames)


def test_excerpt_is_the_right_one(engine, song, run):
    engine.sample_rate = 8000.0
    audio = song()
    options = ["--start", 0.25, "--duration", 0.125, "--bits", "float", "--targets", "vocals"]
    assert run("separate", "song.wav", *options).status == 0
    np.testing.assert_array_equal(sf.read("song_umxm/vocals.wav")[0].T, audio[:, 2000:3000] / 2)


@pytest.mark.parametrize("nb_channels", [1, 2])
def test_channels(engine, song, run, nb_channels):
    song(nb_channels=nb_channels)
    result = run("separate", "song.wav")
    assert result.status == 0
    assert sf.info("song_umxm/vocals.wav").channels == nb_channels
    assert "channels" not in result.err


@pytest.mark.parametrize(
    ("nb_channels", "downmix", "message"),
    [
        (5, "standard", "5 channels (5.0, the usual order of so many) are mixed to stereo"),
        (5, "first", "the first two of 5 channels are taken; --downmix standard mixes all"),
        (12, "standard", "the first two of 12 channels are taken, as it is not known where each"),
    ],
)
def test_more_channels(engine, song, run, nb_channels, downmix, message):
    engine.sample_rate = 8000.0
    audio = song(nb_channels=nb_channels, level=0.2)
    result = run("separate", "song.wav", "--downmix", downmix, "--bits", "float")
    assert result.status == 0
    assert result.err.count(f"song.wav: {message}") == 1
    half = np.sqrt(0.5)
    expected = audio[:2].astype(float)
    if "mixed" in message:
        expected = expected + half * audio[2] + half * audio[3:]
    stem = sf.read("song_umxm/vocals.wav")[0].T
    np.testing.assert_allclose(stem, expected / 2, atol=1e-7)


def test_aggregate(engine, song, run, folder):
    engine.sample_rate = 8000.0
    audio = song()
    aggregate = '{"vocals": ["vocals"], "accompaniment": ["drums", "bass", "other"]}'
    result = run("separate", "song.wav", "--bits", "float", "--aggregate", aggregate)
    assert result.status == 0, result.err
    assert files(folder / "song_umxm") == ["accompaniment.wav", "vocals.wav"]
    expected = audio * np.float32(1 / 4 + 1 / 8 + 1 / 16)
    np.testing.assert_array_equal(sf.read("song_umxm/accompaniment.wav")[0].T, expected)


@pytest.mark.parametrize(
    ("aggregate", "status", "message"),
    [
        ("{", 2, "no valid JSON"),
        ("[1]", 2, "must be a JSON object"),
        ('{"a": ["vocals"], "a": ["drums"]}', 2, "key='a' is there twice"),
        ("{}", 1, "--aggregate {} must map"),
        ('{"a":' * 100_000, 2, "no valid JSON"),
        ('{"a": ' + "[" * 400 + "]" * 400 + "}", 1, "names the stem [[["),
        ('{"a": "vocals"}', 1, "aggregate['a']='vocals' must be a list"),
        ('{"a": []}', 1, "aggregate['a']=[] must be a list"),
        ('{"a": ["piano"]}', 1, "names the stem 'piano'; there are vocals, drums"),
        ('{"../a": ["vocals"]}', 1, "stem='../a' cannot be the name of a file"),
    ],
)
def test_bad_aggregates(engine, song, run, folder, aggregate, status, message):
    song()
    result = run("separate", "song.wav", "--aggregate", aggregate)
    assert result.status == status
    assert message in result.err
    assert files(folder) == ["song.wav"]


def test_clip_modes(engine, song, run):
    engine.sample_rate = 8000.0
    audio = song(level=3.0)
    options = ["--targets", "vocals", "--bits", "float", "--clip-mode"]
    result = run("separate", "song.wav", *options, "clamp")
    assert "beyond full scale" in result.err
    np.testing.assert_array_equal(sf.read("song_umxm/vocals.wav")[0].T, (audio / 2).clip(-1, 1))
    run("separate", "song.wav", *options, "none")
    np.testing.assert_array_equal(sf.read("song_umxm/vocals.wav")[0].T, audio / 2)
    run("separate", "song.wav", *options, "rescale")
    rescaled = sf.read("song_umxm/vocals.wav")[0].T
    np.testing.assert_allclose(rescaled, audio / np.abs(audio).max(), atol=1e-6)


def test_template(engine, song, run, folder):
    song("album/one.wav")
    template = "{parent}/{model}-{track}-{name}-{stem}{ext}"
    result = run("separate", "album/one.wav", "--targets", "vocals", "--filename", template)
    assert result.status == 0
    assert files(folder)[0] == "album/one.wav"
    assert (folder / "album" / "umxm-one-one.wav-vocals.wav").exists()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{track}{ext}", "gives several of the stems vocals, drums, bass, other one file; add"),
        ("{stem}{ext} --residual Vocals", "vocals, drums, bass, other, Vocals one file; add"),
        ("{song}/{stem}{ext}", "unknown placeholder song"),
        ("{stem", "not usable"),
        ("{}{stem}", "not usable"),
        ("{stem}/../x{ext}", "gives several of the stems vocals, drums, bass, other one file; add"),
        ("{stem}/../../x{ext}", "out of the folder for the results"),
        ("../{stem}{ext}", "out of the folder for the results"),
        ("/{stem}{ext}", "out of the folder for the results"),
        ("~/{stem}{ext}", "out of the folder for the results"),
        ("{stem}{ext} --ext /../x.wav", "must be the end of a file's name"),
        ("{stem}{ext} --ext .wav/../../y.wav", "must be the end of a file's name"),
    ],
)
def test_bad_templates(engine, song, run, template, message):
    song()
    result = run("separate", "song.wav", "--filename", *template.split(" "))
    assert result.status == 1
    assert message in result.err
    assert engine.separated == []


def test_input_is_never_replaced(engine, song, run):
    audio = song("vocals.wav")
    result = run("separate", "vocals.wav", "--targets", "vocals", "--filename", "{stem}{ext}")
    assert result.status == 1
    assert "would be replaced" in result.err
    np.testing.assert_array_equal(sf.read("vocals.wav")[0].T, audio)


def test_nor_is_another_input(engine, song, run):
    song("song.wav")
    audio = song("song/vocals.wav")
    result = run("separate", "song.wav", "song/vocals.wav", "--outdir", ".")
    assert result.status == 1
    assert "'song.wav' would replace 'song/vocals.wav', which is to be separated" in result.err
    assert engine.separated == []
    np.testing.assert_array_equal(sf.read("song/vocals.wav")[0].T, audio)
    # Without being an input it is only a stem of before.
    assert run("separate", "song.wav", "--outdir", ".").status == 0


def test_no_model_is_loaded_when_there_is_nothing_to_do(engine, run, folder):
    result = run("separate", "missing.wav")
    assert result.status == 1
    assert "input='missing.wav' cannot be opened: No such file" in result.err
    assert engine.loaded == []


def test_unknown_model(engine, song, run):
    song()
    result = run("separate", "song.wav", "--model", "nonsense")
    assert result.status == 1
    assert result.err == "umx-np: error: --model 'nonsense' is not known; choose one of umxhq\n"
    verbose = run("separate", "song.wav", "--model", "nonsense", "--verbose")
    assert "Traceback" in verbose.err


def test_how_much_is_said(engine, song, run):
    song("a.wav")
    song("b.wav")
    assert run("separate", "a.wav", "b.wav", "--quiet").err == ""
    said = run("separate", "a.wav", "b.wav")
    assert "[1/2] a.wav -> a_umxm" in said.err
    assert said.out == "".join(f"{song}_umxm/{stem}.wav\n" for song in "ab" for stem in STEMS)
    assert "a.wav: wrote" not in said.err
    assert "b_umxm" in run("separate", "b.wav", "--verbose").err
    loud = song("loud.wav", level=4.0)
    assert np.abs(loud).max() > 2
    assert run("separate", "loud.wav", "--quiet").err == ""


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["song.wav", "--niter", "-1"],
        ["song.wav", "--niter", "one"],
        ["song.wav", "--start", "-1"],
        ["song.wav", "--start", "nan"],
        ["song.wav", "--threads", "0"],
        ["song.wav", "--bits", "8"],
        ["song.wav", "--filterbank", "fft"],
        ["song.wav", "--quiet", "--verbose"],
        ["song.wav", "--unknown"],
    ],
)
def test_mistakes_in_the_arguments(engine, run, arguments):
    result = run("separate", *arguments)
    assert result.status == 2
    assert "usage:" in result.err
    assert engine.loaded == []


def test_unwritable_format_fails_before_separation(engine, song, run, folder):
    song()
    result = run("separate", "song.wav", "--ext", ".aac")
    assert result.status == 1
    assert "'.aac' cannot be written" in result.err
    assert engine.separated == []
    assert files(folder) == ["song.wav"]
    assert not (folder / "song_umxm").exists()


@pytest.mark.parametrize("argument", ["path", "outdir", "model", "ext", "filename", "plot"])
@pytest.mark.parametrize("value", [5, b"x", ["x"], "x\0"])
def test_what_is_no_text(engine, song, argument, value):
    song()
    arguments = {"path": "song.wav", argument: value}
    with pytest.raises(ConfigError, match=f"{argument}=.* must be text"):
        separate_file(**arguments)
    assert engine.separated == []


class TestHome:
    @pytest.fixture(autouse=True)
    def _home(self, folder, monkeypatch):
        for name in ("HOME", "USERPROFILE"):
            monkeypatch.setenv(name, str(folder / "home"))

    def test_is_found_in_every_path(self, engine, song, run, folder):
        song("home/a/song.wav")
        for stem in STEMS:
            song(f"home/true/{stem}.wav")
        options = ["--outdir", "~/out", "--model", "~/models/m", "--reference", "~/true"]
        result = run("separate", "~/a", "~/a/song.wav", *options)
        assert result.status == 0, result.err
        assert engine.loaded[0][0] == str(folder / "home" / "models" / "m")
        assert files(folder / "home" / "out") == sorted(f"song/{stem}.wav" for stem in STEMS)
        assert "SDR of song.wav" in result.out
        assert not (folder / "~").exists()
        separate_file("~/a/song.wav", "~/again", model="m")
        assert (folder / "home" / "again" / "song" / "bass.wav").exists()

    def test_of_pictures(self, folder):
        assert plot_path("a.wav", "~/x.png") == folder / "home" / "x.png"
        assert plot_path("a.wav", "~/") == folder / "home" / "a.png"

    def test_is_no_file_of_that_name(self, engine, song, run, folder):
        song("~song.wav")
        assert run("separate", "~song.wav", "--outdir", "o").status == 0
        assert (folder / "o" / "~song").is_dir()
