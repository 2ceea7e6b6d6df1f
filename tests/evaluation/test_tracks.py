"""The tracks of a folder, and the sound of their stems."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from umx_np.errors import AudioError
from umx_np.evaluation.tracks import TrackAudio, find_tracks

from .conftest import RATE, STEMS, sources, write_track


def test_tracks_of_a_folder(tmp_path: Path) -> None:
    stems = sources(3, 2, 1000)
    named = dict(zip(("choir", "vocals", "bass"), stems, strict=True))
    write_track(tmp_path / "a/b.c", {**named, "mixture": 2 * stems[0]}, ".flac")
    (tmp_path / "a/.hidden").mkdir()
    (tmp_path / "a/notes.txt").touch()
    (tmp_path / "a/cover").mkdir()
    (track,) = find_tracks(tmp_path, dataset="folder", subset="a")
    assert (track.name, track.subset) == ("b.c", "a")
    assert track.targets == {
        "vocals": ("vocals",),
        "bass": ("bass",),
        "choir": ("choir",),
        "accompaniment": ("bass", "choir"),
    }
    sound = TrackAudio(track)
    assert (sound.rate, sound.nb_channels, sound.nb_timesteps) == (RATE, 2, 1000)
    np.testing.assert_allclose(sound.mixture(), 2 * stems[0], atol=2e-7)
    np.testing.assert_allclose(sound.target("accompaniment"), stems[0] + stems[2], atol=2e-7)
    # The tracks may also be in the folder itself.
    (same,) = find_tracks(tmp_path / "a", dataset="folder", subset="a")
    assert same == track
    (tmp_path / "a/b.c/mixture.flac").unlink()
    sound = TrackAudio(find_tracks(tmp_path, dataset="folder", subset="a")[0])
    np.testing.assert_allclose(sound.mixture(), stems.sum(axis=0), atol=4e-7)
    assert sound.mixture().dtype == np.float32


def test_sums_in_doubt(tmp_path: Path) -> None:
    stems = dict(zip(STEMS, sources(4, 1, 1000), strict=True))
    copy = {"song": np.sum(list(stems.values()), axis=0)}
    accompaniment = {"accompaniment": copy["song"] - stems["vocals"]}
    write_track(tmp_path / "a/song", stems | accompaniment)
    write_track(tmp_path / "b/song", stems)
    write_track(tmp_path / "b/song", copy, ".flac")
    for root, message in (
        ("a", r"has accompaniment.wav beside .*; add mixture.wav, or leave"),
        ("b", r"has files of several formats, .flac .wav, and no file of its mixture"),
    ):
        (track,) = find_tracks(tmp_path / root, dataset="folder")
        assert re.search(message, track.fault)
        write_track(tmp_path / root / "song", {"mixture": copy["song"]})
        (track,) = find_tracks(tmp_path / root, dataset="folder")
        assert not track.fault
        np.testing.assert_allclose(TrackAudio(track).mixture(), copy["song"], atol=1e-7)
    write_track(tmp_path / "c/song", {"vocals": stems["vocals"]} | accompaniment)
    (track,) = find_tracks(tmp_path / "c", dataset="folder")
    np.testing.assert_allclose(TrackAudio(track).mixture(), copy["song"], atol=1e-6)


def test_files_of_a_track_must_agree(tmp_path: Path) -> None:
    stems = dict(zip(STEMS, sources(4, 1, 1000), strict=True))
    for name, changed in {"length": np.zeros((1, 999)), "channels": np.zeros((2, 1000))}.items():
        write_track(tmp_path / name / "song", {**stems, "bass": changed})
        (track,) = find_tracks(tmp_path / name, dataset="folder")
        with pytest.raises(AudioError, match=r"bass.wav' has rate=4000.* must agree"):
            TrackAudio(track)
