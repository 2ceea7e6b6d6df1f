"""What the best soft masks make of a song."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from recipes.umxm.songs import oracle
from recipes.umxm.songs.render import write_song
from recipes.umxm.studio.plan import SAMPLE_RATE, STEMS


def _tones(nb_timesteps: int = SAMPLE_RATE) -> dict[str, np.ndarray]:
    time = np.arange(nb_timesteps) / SAMPLE_RATE
    waves = {
        name: np.sin(2.0 * np.pi * f * time)
        for name, f in zip(STEMS, (300, 900, 2700, 8100), strict=True)
    }
    return {name: 0.2 * np.stack([wave, -wave]).astype(np.float32) for name, wave in waves.items()}


def _error(estimate: np.ndarray, truth: np.ndarray) -> float:
    """Error in dB, without the ends."""
    inner = slice(2048, -2048)
    error = estimate[:, inner] - truth[:, inner]
    return float(10.0 * np.log10(np.mean(error**2) / np.mean(truth[:, inner] ** 2) + 1e-20))


def test_what_does_not_overlap_comes_out_whole():
    stems = _tones()
    for name, estimate in oracle.masked(stems).items():
        assert _error(estimate, stems[name]) < -60.0


def test_what_is_alike_is_shared_by_magnitude():
    noise = np.random.default_rng(0).standard_normal((2, SAMPLE_RATE)).astype(np.float32)
    stems = {"vocals": noise, "drums": -0.25 * noise, "bass": 0.75 * noise, "other": 0.0 * noise}
    estimates = oracle.masked(stems)
    mixture = 1.5 * noise
    for name, share in (("vocals", 0.5), ("drums", 0.125), ("bass", 0.375), ("other", 0.0)):
        np.testing.assert_allclose(estimates[name], share * mixture, atol=1e-5)


@pytest.mark.parametrize("nb_timesteps", [1, 500, 2047, 2048, 2049, 5000, 44_100])
def test_estimates_add_up_to_the_mixture(nb_timesteps):
    rng = np.random.default_rng(nb_timesteps)
    stems = {n: rng.standard_normal((2, nb_timesteps)).astype(np.float32) for n in STEMS}
    estimates = oracle.masked(stems)
    assert all(estimate.shape == (2, nb_timesteps) for estimate in estimates.values())
    np.testing.assert_allclose(sum(estimates.values()), sum(stems.values()), atol=1e-5)


def test_silence_gives_silence():
    silence = {name: np.zeros((2, 4096), np.float32) for name in STEMS}
    assert not any(estimate.any() for estimate in oracle.masked(silence).values())


def test_command(tmp_path):
    stems, estimates = _tones(), tmp_path / "estimates"
    arguments = [str(tmp_path / "songs"), "--out", str(estimates)]
    write_song(tmp_path / "songs" / "00007", stems)
    # What a killed renderer leaves behind is no song.
    write_song(tmp_path / "songs" / ".00008.123", stems)
    oracle.main(arguments)
    assert [folder.name for folder in estimates.iterdir()] == ["00007"]
    for name in STEMS:
        file = estimates / "00007" / f"{name}.wav"
        audio, rate = soundfile.read(file, dtype="float32")
        assert rate == SAMPLE_RATE
        assert soundfile.info(file).subtype == "FLOAT"
        assert _error(audio.T, stems[name]) < -60.0
    # Given again, it goes on.
    before = (estimates / "00007" / "bass.wav").stat().st_mtime_ns
    write_song(tmp_path / "songs" / "00009", stems)
    oracle.main(arguments)
    assert (estimates / "00007" / "bass.wav").stat().st_mtime_ns == before
    assert (estimates / "00009" / "bass.wav").exists()


@pytest.mark.parametrize(
    ("fault", "message"),
    [("no songs", "no song with"), ("no drums", "drums.wav"), ("rate", "rate=22050")],
)
def test_command_refuses(tmp_path, capsys, fault, message):
    songs = tmp_path / "songs"
    if fault == "no songs":
        songs.mkdir()
    else:
        write_song(songs / "00007", _tones())
        drums = songs / "00007" / "drums.wav"
        drums.unlink()
        if fault == "rate":
            soundfile.write(drums, np.zeros((100, 2)), 22_050)
    with pytest.raises(SystemExit):
        oracle.main([str(songs), "--out", str(tmp_path / "estimates")])
    assert message in capsys.readouterr().err
    assert not (tmp_path / "estimates" / "00007").exists()
