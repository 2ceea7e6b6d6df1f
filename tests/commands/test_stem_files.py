"""``--ext .stem.mp4``: one file for a song and its stems, with a stand-in for the engine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from umx_np.audio.tags import SongTags
from umx_np.data import streams
from umx_np.errors import AudioError, ConfigError
from umx_np.separation.files import separate_file
from umx_np.separation.naming import output_paths

from .conftest import STEMS, files

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")

GAINS = {1: 1 / 4, 2: 1 / 8, 3: 1 / 16, 4: 1 / 2}  # by stream: drums, bass, other, vocals


@pytest.mark.parametrize("nb_channels", [1, 2, 3])
def test_the_streams_are_song_and_stems(engine, song, folder, nb_channels):
    audio = song(nb_channels=nb_channels, rate=44100)
    paths = separate_file("song.wav", "out", ext=".stem.mp4", quality=1, downmix="first")
    path = Path("out/song.stem.mp4")
    assert paths == dict.fromkeys(STEMS, path)
    assert files(folder / "out") == ["song.stem.mp4"]
    wanted = np.repeat(audio, 2, axis=0) if nb_channels == 1 else audio[:2]
    for stream, gain in {0: 1.0, **GAINS}.items():
        found = streams.decode(path, stream) / 2.0**15
        assert np.abs(found - gain * wanted).max() <= 2.0**-16


def test_the_next_rate_and_an_excerpt(engine, song, folder):
    song(rate=8000, nb_timesteps=8000)
    separate_file("song.wav", ext=".stem.mp4", quality=1, start=0.25, duration=0.5)
    path = Path("song_umxm.stem.mp4")
    assert files(folder) == ["song.wav", "song_umxm.stem.mp4"]
    assert {streams.probe(path, stream) for stream in range(5)} == {(44100, 2)}
    assert {streams.decode(path, stream).shape for stream in range(5)} == {(2, 22050)}


def test_tags_of_the_song(engine, song, folder):
    song(rate=44100)
    command = ["ffmpeg", "-v", "error", "-i", "song.wav", "-metadata", "title=Söng = 1"]
    command += ["-metadata", "artist=Some", "-c", "copy", "tagged.wav"]
    subprocess.run(command, check=True)
    for tags in (True, False):
        separate_file("tagged.wav", "out", ext=".stem.mp4", tags=tags)
        found = SongTags.of(Path("out/tagged.stem.mp4"))
        assert found.tags == ({"title": "Söng = 1", "artist": "Some"} if tags else {})


def test_one_gain_for_all_streams(engine, song, folder):
    audio = song(rate=44100, level=4.0)
    options = {"ext": ".stem.mp4", "quality": 1, "bits": "24", "clip_mode": "rescale"}
    (path,) = set(separate_file("song.wav", **options).values())
    gain = (1 - 2.0**-23) / np.abs(audio).max()
    for stream, share in {0: 1.0, **GAINS}.items():
        found = streams.decode(path, stream) / 2.0**15
        assert np.abs(found - gain * share * audio).max() <= 2.0**-15


def test_the_command(engine, song, run, folder):
    song(rate=44100)
    result = run("separate", "song.wav", "--ext", ".stem.mp4", "--outdir", "out")
    assert result.status == 0, result.err
    assert files(folder / "out") == ["song.stem.mp4"]
    assert result.out.splitlines() == [str(Path("out/song.stem.mp4"))]
    again = run("separate", "song.wav", "--ext", ".stem.mp4", "--outdir", "out", "--skip-existing")
    assert again.status == 0, again.err
    assert engine.separated == ["song.wav"]
    refused = run("separate", "song.wav", "--ext", ".stem.mp4", "--reference", "true")
    assert refused.status == 1
    assert "are not scored" in refused.err


def test_other_stems_are_refused_before_anything_is_computed(engine, song, folder):
    song(rate=44100)
    holds = "holds the mixture and the stems drums, bass, other, vocals"
    for options in ({"targets": ["vocals"]}, {"residual": "rest"}, {"aggregate": {"a": ["bass"]}}):
        with pytest.raises(ConfigError, match=holds):
            separate_file("song.wav", ext=".stem.mp4", **options)
    with pytest.raises(ConfigError, match="are not drawn"):
        separate_file("song.wav", ext=".stem.mp4", plot="a.png")
    with pytest.raises(ConfigError, match=r"hold all stems; omit \{stem\}"):
        separate_file("song.wav", ext=".stem.mp4", filename="{stem}{ext}")
    paths = output_paths("a.wav", STEMS, ext="stem.mp4", filename="{track}-x{ext}")
    assert set(paths.values()) == {Path("a-x.stem.mp4")}
    assert engine.separated == []
    assert files(folder) == ["song.wav"]


def test_nothing_is_left_behind(engine, song, folder):
    song(rate=44100)

    def fail():
        raise AudioError("something")

    engine.after_block = fail
    with pytest.raises(AudioError, match="something"):
        separate_file("song.wav", "out", ext=".stem.mp4")
    assert sorted(path.name for path in folder.rglob("*")) == ["song.wav"]


def test_m4a(engine, song, folder):
    audio = song(rate=44100)
    paths = separate_file("song.wav", ext=".m4a", quality=1, bits="24")
    found = streams.decode(paths["vocals"], 0) / 2.0**15
    assert np.abs(found - audio / 2).max() <= 2.0**-15
