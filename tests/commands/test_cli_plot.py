"""``--plot``: names of pictures, and when they are drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

import umx_np.plots
from umx_np.errors import AudioError, ConfigError
from umx_np.separation.naming import plot_path

from .conftest import STEMS, files


@pytest.fixture
def drawn(engine, monkeypatch):
    """Record what is drawn instead of drawing it."""
    calls = []

    def plot_separation(mixture, stems, path, **options):
        calls.append((Path(mixture).name, list(stems), Path(path).as_posix(), options))
        assert all(stem.exists() for stem in stems.values())
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(b"PNG")

    monkeypatch.setattr(umx_np.plots, "plot_separation", plot_separation)
    monkeypatch.setattr(umx_np.plots, "is_available", lambda: True)
    return calls


def test_one_song(drawn, song, run, folder):
    song()
    options = "--model m --outdir o --plot new/p.png --niter 2"
    result = run("separate", "song.wav", *options.split())
    assert result.status == 0, result.err
    options = {"title": "song.wav   (m, niter=2)", "start": 0.0, "duration": None}
    options |= {"track": None, "downmix": "standard"}
    assert drawn == [("song.wav", STEMS, "new/p.png", options)]
    assert "song.wav -> o/song, new/p.png (" in result.err.replace("\\", "/")


def test_the_stems_stay_if_it_cannot_be_written(drawn, song, run, folder):
    song()
    result = run("separate", "song.wav", "--outdir", "o", "--plot", "song.wav/p.png")
    assert result.status == 1
    assert "cannot be written" in result.err
    assert "the stems are complete" in result.err
    assert "unexpected" not in result.err
    assert files(folder) == [*(f"o/song/{stem}.wav" for stem in sorted(STEMS)), "song.wav"]


def test_an_excerpt_and_sums(drawn, song, run, folder):
    song()
    options = "--start 0.1 --duration 0.2 --plot {model}.png --model m"
    aggregate = '{"all": ["vocals", "drums"]}'
    assert run("separate", "song.wav", *options.split(), "--aggregate", aggregate).status == 0
    ((_, stems, path, options),) = drawn
    assert (stems, path) == (["all"], "m.png")
    assert (options["start"], options["duration"]) == (0.1, 0.2)


def test_several_songs(drawn, song, run, folder):
    song("a.wav")
    song("b.wav")
    assert run("separate", "a.wav", "b.wav", "--plot", "plots/").status == 0
    assert [path for _, _, path, _ in drawn] == ["plots/a.png", "plots/b.png"]
    assert run("separate", "a.wav", "b.wav", "--plot", "x/{name}.png").status == 0
    assert [path for _, _, path, _ in drawn[2:]] == ["x/a.wav.png", "x/b.wav.png"]
    before = files(folder)
    result = run("separate", "a.wav", "b.wav", "--plot", "one.png", "--outdir", "new")
    assert result.status == 1
    assert "would both be 'one.png'" in result.err
    assert files(folder) == before


def test_skipping_needs_the_picture_too(drawn, song, run, folder):
    song()
    arguments = ["separate", "song.wav", "--skip-existing", "--plot", "p.png"]
    for _ in range(2):
        assert run(*arguments).status == 0
    assert len(drawn) == 1
    (folder / "p.png").unlink()
    assert run(*arguments).status == 0
    assert len(drawn) == 2


def test_without_matplotlib_nothing_is_begun(engine, song, run, folder, monkeypatch):
    song()
    monkeypatch.setattr(umx_np.plots, "is_available", lambda: False)
    result = run("separate", "song.wav", "--plot", "p.png")
    assert result.status == 1
    assert "--plot needs matplotlib; install it with: python -m pip install" in result.err
    assert engine.loaded == []
    with pytest.raises(ConfigError, match="needs matplotlib"):
        umx_np.separate_file("song.wav", plot="p.png")
    assert engine.loaded == []


def test_pictures_are_not_replaced_unasked(drawn, song, run, folder):
    song()
    (folder / "p.png").write_text("mine")
    with pytest.raises(AudioError, match=r"p\.png exist already; pass overwrite=True"):
        umx_np.separate_file("song.wav", model="m", plot="p.png", overwrite=False)
    assert (folder / "p.png").read_text() == "mine"
    assert drawn == []


@pytest.mark.parametrize("plot", ["p.jpg", "p", "{stem}.png", "{nonsense}.png", "{.png", ""])
def test_names_that_are_none(drawn, song, run, folder, plot):
    song()
    result = run("separate", "song.wav", "--plot", plot)
    assert result.status == 1
    assert "--plot " in result.err
    assert files(folder) == ["song.wav"]


def test_a_folder_that_is_there(folder):
    (folder / "x.png").mkdir()
    assert plot_path("one.mp3", "x.png") == Path("x.png") / "one.png"
