"""``--reference``: scores on the terminal."""

from __future__ import annotations

from .conftest import STEMS, files


def test_scores(engine, song, run, folder):
    """The stand-in's stems are 1/2 and 1/4 of the mixture, which is the true stem of each here."""
    engine.sample_rate = 8000.0
    song("song.wav", nb_timesteps=20000)
    for name in ("vocals", "drums"):
        (folder / "true").mkdir(exist_ok=True)
        (folder / "true" / f"{name}.wav").write_bytes((folder / "song.wav").read_bytes())
    result = run("separate", "song.wav", "--reference", "true", "--bits", "float")
    assert result.status == 0, result.err
    assert result.out.splitlines() == [
        *(f"song_umxm/{stem}.wav" for stem in STEMS),
        "SDR of song.wav in dB  stem  mixture  gain",
        "vocals                 6.02  nan      nan",
        "drums                  2.50  nan      nan",
    ]
    assert "there is no reference of bass, other" in result.err


def test_references_are_looked_for_first(engine, song, run, folder):
    song("a.wav")
    song("b.wav")
    before = files(folder)
    for reference, message in (("nowhere/{track}", "is no folder"), ("true", "for 2 songs")):
        result = run("separate", "a.wav", "b.wav", "--reference", reference)
        assert result.status == 1
        assert message in result.err
    assert files(folder) == before


def test_a_song_that_cannot_be_scored(engine, song, run, folder):
    song("a.wav")
    song("b.wav", nb_timesteps=3000)
    song("true/a/vocals.wav")
    song("true/b/vocals.wav", nb_timesteps=2000)
    result = run("separate", "a.wav", "b.wav", "--reference", "true/{track}", "--targets", "vocals")
    assert result.status == 3
    assert "must agree" in result.err
    assert "1 separated, 1 failed of 2 files" in result.err
