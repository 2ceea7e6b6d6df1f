"""Spectrograms: what is where in them, and the files that hold them."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

import umx_np
from umx_np import plots
from umx_np.errors import ConfigError
from umx_np.plots import plot_separation, spectrogram, spectrogram_of_file

RATE = 16000


def tone(frequency: float, seconds: float, level: float = 1.0) -> np.ndarray:
    time = np.arange(round(seconds * RATE)) / RATE
    return (level * np.sin(2.0 * np.pi * frequency * time)).astype(np.float32)[np.newaxis]


def band_of(panel: plots.Spectrogram, frequency: float) -> int:
    """Band of a frequency on the logarithmic axis."""
    share = np.log(frequency / panel.lowest) / np.log(panel.highest / panel.lowest)
    return int(share * len(panel.levels))


@pytest.mark.parametrize("frequency", [60.0, 440.0, 1000.0, 7000.0])
@pytest.mark.parametrize("level", [1.0, 0.01])
def test_a_tone_is_where_it_belongs(frequency, level):
    silence = np.zeros((1, RATE), np.float32)
    audio = np.concatenate([silence, tone(frequency, 1.0, level), silence], axis=1)
    panel = spectrogram(audio, RATE)
    assert panel.seconds == 3.0
    band, column = np.unravel_index(panel.levels.argmax(), panel.levels.shape)
    # A bin of the transform is 8 Hz wide, which is many of the lowest bands.
    centre = panel.lowest * (panel.highest / panel.lowest) ** ((band + 0.5) / len(panel.levels))
    assert abs(centre - frequency) < max(8.0, 0.03 * frequency)
    assert abs(panel.levels.max() - 20.0 * np.log10(level)) < 1.5
    nb_columns = panel.levels.shape[1]
    assert nb_columns / 3 < column < 2 * nb_columns / 3
    quiet = panel.levels[:, : nb_columns // 4]
    assert quiet.max() < panel.levels.max() - 100.0


def test_channels_are_averaged_as_powers():
    left = tone(500.0, 0.5)
    both = spectrogram(np.concatenate([left, -left]), RATE)
    one = spectrogram(np.concatenate([left, 0 * left]), RATE)
    np.testing.assert_allclose(both.levels.max() - one.levels.max(), 3.01, atol=0.01)


@pytest.mark.parametrize("nb_timesteps", [1, 700, 5 * RATE + 123])
def test_a_file_gives_what_an_array_gives(tmp_path, monkeypatch, nb_timesteps):
    audio = np.random.default_rng(0).uniform(-0.5, 0.5, (2, nb_timesteps)).astype(np.float32)
    umx_np.audio.write(tmp_path / "noise.wav", audio, RATE, bits="float")
    monkeypatch.setattr(plots, "_READ_BLOCK", 999)
    of_file = spectrogram_of_file(tmp_path / "noise.wav")
    np.testing.assert_array_equal(of_file.levels, spectrogram(audio, RATE).levels)
    # White noise is as loud as it is anywhere, up to the borders.
    if nb_timesteps > RATE:
        columns = of_file.levels.max(axis=0)
        assert columns.max() - columns.min() < 12.0


def test_a_long_song_has_no_more_columns_and_few_spectra(monkeypatch):
    """A beep of ten minutes in half an hour; most of the samples are never transformed."""
    nb_timesteps, rate = 30 * 60 * 2000, 2000
    counted = []

    def blocks():
        for start in range(0, nb_timesteps, 60 * rate):
            sounds = 10 * 60 * rate <= start < 20 * 60 * rate
            time = np.arange(60 * rate) / rate
            yield (sounds * np.sin(2 * np.pi * 300.0 * time)).astype(np.float32)[np.newaxis]

    transform = np.fft.rfft
    monkeypatch.setattr(np.fft, "rfft", lambda x, axis: counted.append(x.shape) or transform(x))
    panel = plots._spectrogram(blocks(), rate, nb_timesteps)
    assert panel.levels.shape[1] == 1000
    assert sum(shape[1] for shape in counted) <= 4001
    loud = np.flatnonzero(panel.levels.max(axis=0) > -10.0)
    assert abs(loud[0] - 333) <= 1
    assert abs(loud[-1] - 666) <= 1
    assert len(loud) == loud[-1] - loud[0] + 1


def test_what_lies_above_is_not_shown():
    time = np.arange(48000) / 96000
    audio = np.sin(2 * np.pi * 40000.0 * time) + np.sin(2 * np.pi * 1000.0 * time)
    panel = spectrogram(audio[np.newaxis].astype(np.float32), 96000.0)
    assert panel.highest == 20000.0
    assert panel.levels.max(axis=1)[-3:].max() < panel.levels.max() - 60.0


def test_low_rates_and_excerpts(tmp_path):
    umx_np.audio.write(tmp_path / "tone.wav", tone(1000.0, 3.0, 0.5), RATE)
    panel = spectrogram_of_file(tmp_path / "tone.wav", start=1.0, duration=0.5)
    assert (panel.seconds, panel.highest) == (0.5, 8000.0)
    assert spectrogram(tone(100.0, 0.1), 700.0).highest == 350.0


@pytest.fixture
def song(tmp_path):
    umx_np.audio.write(tmp_path / "song.wav", tone(400.0, 1.0, 0.5) + tone(900.0, 1.0, 0.4), RATE)
    umx_np.audio.write(tmp_path / "low.wav", tone(400.0, 1.0, 0.5), RATE)
    umx_np.audio.write(tmp_path / "silent.wav", 0 * tone(900.0, 1.0), RATE)
    return tmp_path


def test_picture(song):
    image = pytest.importorskip("matplotlib.image")
    stems = {"low": song / "low.wav", "silent": song / "silent.wav"}
    path = plot_separation(
        song / "song.wav", stems, song / "new" / "song.png", title="a $\\frac$ {song_"
    )
    pixels = image.imread(path)
    height, width = pixels.shape[:2]
    assert width == 1200
    assert height > 500
    # Brighter where there is more: the panels lie one above the other.
    shown = pixels[int(0.1 * height) : int(0.9 * height), 200:1000, :3].sum(axis=2)
    mixture, low, silent = (part.mean() for part in np.array_split(shown, 3))
    assert mixture > low > silent


def test_of_silence(song):
    pytest.importorskip("matplotlib")
    silent = song / "silent.wav"
    assert plot_separation(silent, {"x": silent}, song / "s.png").stat().st_size > 1000


def test_pyplot_is_left_alone(song):
    pytest.importorskip("matplotlib")
    program = (
        "import sys\n"
        "from umx_np.plots import plot_separation\n"
        "assert 'matplotlib' not in sys.modules\n"
        "plot_separation('song.wav', {'low': 'low.wav'}, 'song.png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], cwd=song, check=True)


def test_without_matplotlib(song, monkeypatch):
    monkeypatch.setattr(plots, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"needs matplotlib.*umx-np\[plot\]"):
        plot_separation(song / "song.wav", {}, song / "song.png")
    assert not (song / "song.png").exists()


def test_names_that_no_font_can_draw(tmp_path, song):
    """Such as those that are not UTF-8, which cannot even be encoded."""
    name = "so\udcf6\x1b$^\nng"
    panel = spectrogram(np.zeros((1, 5000), np.float32), 8000.0)
    path = plots.draw_separation(panel, {name: panel}, tmp_path / "p.png", title=name)
    assert path.stat().st_size > 1000
