"""Tags and cover of a song in its stems, as ffprobe sees them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import soundfile as sf

from umx_np.audio import StemWriter, commit_together, finish_together, tags, written_suffixes
from umx_np.audio.given import GivenSound
from umx_np.audio.tags import SongTags
from umx_np.audio.writer import copy_tags

needs_ffmpeg = pytest.mark.skipif(
    shutil.which("ffmpeg") is None or shutil.which("ffprobe") is None, reason="needs ffmpeg"
)

TAGS = {
    "title": "Söng = 1; #2 \\ x",
    "artist": "Me",
    "album": "It",
    "album_artist": "You",
    "date": "2020",
    "track": "3/12",
    "genre": "Pop",
    "comment": "two\nlines",
    "composer": "C",
}
# What the format of a stem has no place for.
LOST = {
    ".wav": {"album_artist", "composer"},
    ".rf64": {"album_artist", "composer"},
    ".au": {"album_artist", "composer", "date", "comment"},
    ".w64": set(TAGS),
}
COVERS = (".flac", ".aif", ".aiff", ".mp3", ".ogg", ".opus")
RATE = 48000


def noise(nb_timesteps=20000):
    rng = np.random.default_rng(5)
    return rng.uniform(-0.5, 0.5, (2, nb_timesteps)).astype(np.float32)


def ffmpeg(*arguments):
    command = ["ffmpeg", "-nostdin", "-y", "-v", "error", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Songs of each type with all tags, and a cover where ffmpeg writes one."""
    folder = tmp_path_factory.mktemp("songs")
    # Larger than a page of Ogg.
    picture = "nullsrc=s=320x320,geq=random(1)*255:128:128"
    ffmpeg("-f", "lavfi", "-i", picture, "-frames:v", 1, "-q:v", 1, folder / "c.jpg")
    assert os.path.getsize(folder / "c.jpg") > 1 << 16
    sf.write(folder / "bare.wav", noise().T, RATE)
    words = [word for pair in TAGS.items() for word in ("-metadata", "=".join(pair))]
    for suffix in ("mp3", "m4a", "flac", "ogg", "opus", "wav"):
        cover = ["-i", folder / "c.jpg", "-map", "0:a", "-map", "1:v", "-c:v", "copy"]
        cover += ["-disposition:v", "attached_pic"]
        cover = cover if suffix in ("mp3", "m4a", "flac") else []
        ffmpeg("-i", folder / "bare.wav", *cover, *words, folder / f"song.{suffix}")
    return folder


def probed(path):
    """Tags of a file or its sound by ffprobe, and the bytes of its pictures."""
    command = ["ffprobe", "-v", "error", "-show_format", "-show_streams", "-of", "json", path]
    found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    known = dict(found["format"].get("tags", {}))
    pictures = []
    for stream in found["streams"]:
        if stream["codec_type"] == "audio":
            known |= stream.get("tags", {})
        elif stream["disposition"]["attached_pic"]:
            command = ["ffmpeg", "-v", "error", "-i", path, "-map", f"0:{stream['index']}"]
            command += ["-c", "copy", "-f", "image2pipe", "pipe:1"]
            pictures.append(subprocess.run(command, check=True, capture_output=True).stdout)
    return {key.lower(): value for key, value in known.items()}, pictures


def written(folder, suffix, song, *, options=None, track=None):
    """Two stems of noise with the tags of a song, and what libsndfile reads of them without."""
    writers = {
        name: StemWriter(folder / f"{name}{suffix}", nb_channels=2, rate=RATE, **(options or {}))
        for name in ("vocals", "bass")
    }
    for writer in writers.values():
        writer.write(noise())
    with commit_together(writers.values()), GivenSound(song) as sound:
        finish_together(writers.values())
        before = sf.read(writers["bass"].temporary_path, dtype="float32")[0]
        copy_tags(sound, writers, track)
    return folder / f"bass{suffix}", before


def slow(*values):
    return [pytest.param(*value, marks=pytest.mark.slow) for value in values]


USUAL = [("mp3", ".wav"), ("m4a", ".mp3"), ("flac", ".ogg"), ("mp3", ".flac"), ("opus", ".aiff")]
# m4a files are written without.
SUFFIXES = [suffix for suffix in written_suffixes() if suffix != ".m4a"]
ALL = [(kind, suffix) for kind in ("mp3", "m4a", "flac", "opus") for suffix in SUFFIXES]


@needs_ffmpeg
@pytest.mark.parametrize(
    ("kind", "suffix"), [*USUAL, *slow(*(pair for pair in ALL if pair not in USUAL))]
)
def test_stems_have_the_tags_and_the_cover(songs, tmp_path, suffix, kind, caplog):
    song = songs / f"song.{kind}"
    stem, before = written(tmp_path, suffix, song)
    known, pictures = probed(stem)
    lost = LOST.get(suffix, set())
    expected = TAGS | {"title": f"{TAGS['title']} (bass)"}
    assert {key: known.get(key) for key in TAGS} == {
        key: None if key in lost else value for key, value in expected.items()
    }
    had_cover = probed(song)[1]
    assert pictures == (had_cover if suffix in COVERS else [])
    # The samples are those that were written, and nothing else is in the folder.
    np.testing.assert_array_equal(sf.read(stem, dtype="float32")[0], before)
    assert sorted(os.listdir(tmp_path)) == [f"bass{suffix}", f"vocals{suffix}"]
    assert "lavf" not in " ".join(known.values()).lower()
    if suffix == ".mp3":
        assert b"LAME3" in stem.read_bytes()
    # What is not kept is said, in one line.
    is_whole = not lost and bool(pictures) == bool(had_cover)
    assert len(caplog.records) == (not is_whole)
    for what in lost:
        assert what in caplog.text or suffix == ".w64"
    assert ("cover" in caplog.text) == (bool(had_cover) and suffix not in (*COVERS, ".w64"))


@needs_ffmpeg
def test_m4a_is_written_without(songs, tmp_path, caplog):
    with StemWriter(tmp_path / "bass.m4a", nb_channels=2, rate=RATE) as writer:
        writer.write(noise())
        writer.finish()
        with GivenSound(songs / "song.mp3") as sound:
            copy_tags(sound, {"bass": writer}, None)
    assert not set(TAGS) & probed(tmp_path / "bass.m4a")[0].keys()
    (message,) = caplog.messages
    assert "m4a files get none" in message


@needs_ffmpeg
@pytest.mark.parametrize(("kind", "suffix"), [("ogg", ".mp3"), ("wav", ".ogg")])
def test_songs_of_other_types(songs, tmp_path, kind, suffix, caplog):
    known, pictures = probed(written(tmp_path, suffix, songs / f"song.{kind}")[0])
    lost = LOST[".wav"] if kind == "wav" else set()
    assert set(TAGS) & known.keys() == set(TAGS) - lost
    assert all(known[key] == TAGS[key] for key in TAGS if key not in lost | {"title"})
    assert not pictures
    assert not caplog.records


@needs_ffmpeg
@pytest.mark.parametrize(
    ("suffix", "bits"),
    [
        (".wav", "24"),
        (".aiff", "float"),
        *slow(*((s, b) for s in (".wav", ".caf", ".au", ".rf64") for b in ("24", "float"))),
    ],
)
def test_samples_of_more_bits_stay_what_they_are(songs, tmp_path, suffix, bits):
    options = {"bits": bits, "clip_mode": "rescale"}
    stem, before = written(tmp_path, suffix, songs / "song.mp3", options=options)
    assert probed(stem)[0]["artist"] == "Me"
    assert sf.info(stem).subtype == {"24": "PCM_24", "float": "FLOAT"}[bits]
    # WAV with a longer description of the samples is WAVEX to libsndfile.
    assert sf.info(stem).format.removesuffix("EX") == suffix[1:].upper().removesuffix("EX")
    np.testing.assert_array_equal(sf.read(stem, dtype="float32")[0], before)


@needs_ffmpeg
def test_what_is_of_the_file_stays_there(songs, tmp_path):
    """And not its stems: brands, the encoder, and where an iPod begins to play."""
    ffmpeg("-i", songs / "song.m4a", "-map", "0:a", "-c", "copy", "-metadata", "ITUNSMPB=0 0840",
           "-metadata", "id3v2_priv.Program=x",
           "-f", "matroska", tmp_path / "song.mka")  # fmt: skip
    for song in (songs / "song.m4a", tmp_path / "song.mka"):
        found = SongTags.of(song)
        assert {key.lower() for key in found.tags} == set(TAGS)
    assert len(SongTags.of(songs / "song.m4a").covers) == 1


@needs_ffmpeg
def test_nothing_is_done_for_songs_without_tags(songs, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(tags, "run_program", lambda *_: pytest.fail("ffmpeg was called"))
    stem, before = written(tmp_path, ".flac", songs / "bare.wav")
    np.testing.assert_array_equal(sf.read(stem, dtype="float32")[0], before)
    assert not caplog.records


def test_without_ffmpeg_one_line_says_so(songs, tmp_path, caplog, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    written(tmp_path, ".flac", songs / "song.flac")
    assert caplog.messages == [
        f"{songs / 'song.flac'}: its tags are not in its stems, as this needs ffmpeg"
    ]
    caplog.clear()
    written(tmp_path, ".flac", songs / "bare.wav")
    assert not caplog.records


@needs_ffmpeg
@pytest.mark.parametrize("fault", ["fails", "cuts", "shifts", "hangs"])
def test_stems_stay_if_ffmpeg_does_not_do_its_work(songs, tmp_path, monkeypatch, caplog, fault):
    run = tags.run_program

    def faulty(command, seconds):
        if fault == "hangs":
            raise subprocess.TimeoutExpired(command, seconds)
        done = run(command, seconds)
        copy = command[-1].removeprefix("file:")
        audio, rate = sf.read(copy)
        audio = {"cuts": audio[:-1], "shifts": np.roll(audio, 1, axis=0)}.get(fault, audio)
        sf.write(copy, audio, rate, format="FLAC")
        done.returncode = int(fault == "fails")
        return done

    monkeypatch.setattr(tags, "run_program", faulty)
    stem, before = written(tmp_path, ".flac", songs / "song.ogg")
    np.testing.assert_array_equal(sf.read(stem, dtype="float32")[0], before)
    assert "artist" not in probed(stem)[0]
    assert sorted(os.listdir(tmp_path)) == ["bass.flac", "vocals.flac"]
    (message,) = caplog.messages
    assert "tags are not in 2 of its stems: " in message
    assert ("would have changed the samples" in message) == (fault in ("cuts", "shifts"))


@needs_ffmpeg
def test_tags_of_the_track_that_is_separated(songs, tmp_path):
    """In an Ogg file, each stream has its own."""
    ffmpeg("-i", songs / "song.ogg", "-i", songs / "bare.wav", "-map", "0:a", "-map", "1:a",
           "-c:a:0", "copy", "-metadata:s:a:1", "title=Second", tmp_path / "two.ogg")  # fmt: skip
    stem, _ = written(tmp_path, ".flac", tmp_path / "two.ogg", track=2)
    assert probed(stem)[0]["title"] == "Second (bass)"
