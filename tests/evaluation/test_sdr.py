"""Scores of files beside the true ones: those of museval, and what cannot be compared."""

from __future__ import annotations

import numpy as np
import pytest

import umx_np
from umx_np.errors import AudioError, ConfigError
from umx_np.evaluation.sdr import StemScore, find_references, score_files

RATE = 8000
NAMES = ("vocals", "drums", "bass")


@pytest.fixture
def song(tmp_path):
    """True stems, estimates with much of the mixture left in them, and the mixture, as files."""
    rng = np.random.default_rng(5)
    nb_timesteps = round(5.4 * RATE)
    loudness = rng.uniform(0.02, 0.2, (3, 6)).repeat(RATE, axis=1)[:, np.newaxis, :nb_timesteps]
    stems = dict(zip(NAMES, loudness * rng.standard_normal((3, 2, nb_timesteps)), strict=True))
    stems["bass"][:, 2 * RATE : 3 * RATE] = 0.0
    mixture = sum(stems.values())
    guesses = {name: 0.8 * stem + 0.1 * mixture for name, stem in stems.items()}
    for folder, sounds in (("true", stems), ("guessed", guesses), (".", {"mix": mixture})):
        for name, sound in sounds.items():
            path = tmp_path / folder / f"{name}.wav"
            umx_np.audio.write(path, sound, RATE, bits="float", clip_mode="none")
    return tmp_path


def paths(folder):
    return {name: folder / f"{name}.wav" for name in NAMES}


def test_agrees_with_the_evaluation(song):
    from umx_np.evaluation import score_track

    scores = score_files(paths(song / "true"), paths(song / "guessed"), song / "mix.wav")
    assert list(scores) == list(NAMES)
    read = {
        folder: {name: umx_np.audio.read(path)[0] for name, path in paths(song / folder).items()}
        for folder in ("true", "guessed")
    }
    whole = score_track("song", read["true"], read["guessed"], RATE).medians()
    for name, score in scores.items():
        assert score.sdr == pytest.approx(whole[name]["SDR"], abs=1.1e-5)
        assert 5.0 < score.sdr < 20.0
        assert score.sdr_of_mixture < score.sdr - 3.0
    mixture = umx_np.audio.read(song / "mix.wav")[0]
    whole = score_track("song", read["true"], dict.fromkeys(NAMES, mixture), RATE).medians()
    for name, score in scores.items():
        assert score.sdr_of_mixture == pytest.approx(whole[name]["SDR"], abs=1.1e-5)


def test_excerpts_other_rates_and_perfection(song):
    true = paths(song / "true")
    part = {name: song / f"{name}-part.wav" for name in NAMES}
    for name, path in part.items():
        audio, _ = umx_np.audio.read(true[name], start=3.0, duration=1.5)
        umx_np.audio.write(path, 0.5 * audio, RATE, bits="float", file_rate=11025)
    scores = score_files(true, part, song / "mix.wav", start=3.0, duration=1.5)
    # Half of it is missing, but for what resampling makes of noise.
    assert all(score.sdr == pytest.approx(6.02, abs=0.1) for score in scores.values())
    perfect = score_files({"vocals": true["vocals"]}, true, song / "mix.wav")["vocals"]
    assert np.isnan(perfect.sdr)
    assert perfect.sdr_of_mixture < 0.0


def test_mixtures_of_more_channels_than_the_stems_have(song):
    true, guessed = paths(song / "true"), paths(song / "guessed")
    expected = score_files(true, guessed, song / "mix.wav")
    mixture, _ = umx_np.audio.read(song / "mix.wav")
    surround = np.concatenate([mixture, np.ones((4, mixture.shape[1]), mixture.dtype)])
    umx_np.audio.write(song / "surround.wav", surround, RATE, bits="float", clip_mode="none")
    assert score_files(true, guessed, song / "surround.wav") == expected
    umx_np.audio.write(song / "mono.wav", mixture[:1], RATE)
    with pytest.raises(AudioError, match=r"mono\.wav.*nb_channels=1"):
        score_files(true, guessed, song / "mono.wav")


@pytest.mark.parametrize("silent", ["reference", "estimate"])
@pytest.mark.parametrize("last", [0.0, 1.0], ids=["throughout", "but for the end"])
def test_a_silent_stem_takes_no_scores_from_the_others(song, silent, last):
    from umx_np.evaluation import score_track

    true, guessed = paths(song / "true"), paths(song / "guessed")
    changed = true if silent == "reference" else guessed
    audio, _ = umx_np.audio.read(changed["vocals"])
    audio[:, : 5 * RATE] = 0.0
    audio[:, 5 * RATE :] *= last
    changed["vocals"] = song / "silent.wav"
    umx_np.audio.write(changed["vocals"], audio, RATE, bits="float", clip_mode="none")
    scores = score_files(true, guessed, song / "mix.wav")
    read = [{n: umx_np.audio.read(path)[0] for n, path in p.items()} for p in (true, guessed)]
    expected = score_track("song", *read, RATE).medians()
    for name, score in scores.items():
        assert score.sdr == pytest.approx(expected[name]["SDR"], abs=1.1e-5, nan_ok=True)
    assert np.isnan(scores["vocals"].sdr)
    assert np.isnan(scores["drums"].sdr) == (last > 0.0)
    assert np.isnan(scores["vocals"].sdr_of_mixture) == (silent == "reference" or last > 0.0)


def test_silence_has_no_score(song):
    silent = song / "silent.wav"
    audio, _ = umx_np.audio.read(song / "mix.wav")
    umx_np.audio.write(silent, 0.0 * audio, RATE)
    (score,) = score_files({"x": silent}, {"x": song / "mix.wav"}, song / "mix.wav").values()
    assert isinstance(score, StemScore)
    assert np.isnan(score.sdr)


def test_files_that_do_not_belong_together(song):
    true, guessed = paths(song / "true"), paths(song / "guessed")
    umx_np.audio.write(song / "short.wav", np.zeros((2, 100)), RATE)
    with pytest.raises(AudioError, match=r"short\.wav.*nb_timesteps=100.*must agree"):
        score_files(true, guessed | {"bass": song / "short.wav"}, song / "mix.wav")
    umx_np.audio.write(song / "mono.wav", umx_np.audio.read(true["bass"])[0][:1], RATE)
    with pytest.raises(AudioError, match=r"mono\.wav.*nb_channels=1"):
        score_files(true | {"bass": song / "mono.wav"}, guessed, song / "mix.wav")


def test_find_references(song):
    folder = song / "true"
    assert find_references(folder, ["drums", "vocals", "choir"]) == {
        "drums": folder / "drums.wav",
        "vocals": folder / "vocals.wav",
    }
    with pytest.raises(ConfigError, match="no stem of choir"):
        find_references(folder, ["choir"])
    with pytest.raises(ConfigError, match="is no folder"):
        find_references(song / "nowhere", ["vocals"])
    (folder / "drums.flac").touch()
    with pytest.raises(ConfigError, match=r"drums\.flac and drums\.wav; keep one"):
        find_references(folder, ["drums"])
