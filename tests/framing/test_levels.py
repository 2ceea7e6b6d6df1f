"""The level of a model: a gain on what the networks see, taken back from the stems."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import numpy as np
import pytest
from helpers.asserts import assert_close, relative_l2
from helpers.streaming import ListSource, streamed, tiny_bundle
from tolerances import TOL

import umx_np
from umx_np.errors import ConfigError, WeightsError
from umx_np.framing.geometry import StftGeometry
from umx_np.framing.levels import LevelFollower
from umx_np.training.end_to_end import WaveformSeparator
from umx_np.weights import load_folder, save_folder

RATE, LEVEL = 8000.0, -18.0


def follower(n_fft=64, n_hop=16):
    return LevelFollower(StftGeometry(n_fft, n_hop, center=True), RATE, LEVEL)


def followed(audio, sizes=None, **geometry):
    """A signal at the level of the model, taken in blocks of the given sizes."""
    one = follower(**geometry)
    ends = np.cumsum(sizes)[:-1] if sizes else []
    parts = [one.push(block) for block in np.split(audio, ends, axis=1)]
    return np.concatenate([*parts, one.finish()], axis=1), one


def level_of(audio):
    return 10 * np.log10(np.mean(np.square(audio, dtype=np.float64)))


def in_db(powers):
    return 10 * np.log10(np.mean(powers)) - LEVEL


def wanted(loud):
    """Gain in dB of the level of music that is so loud, in dB above the target."""
    return 0.0 if abs(loud) <= 4 else loud - 2 * np.sign(loud)


def levels_as_defined(audio, n_fft, n_hop):
    """Level of every sample, from the words of `umx_np.framing.levels`, one piece at a time."""
    nb_timesteps, ends = audio.shape[1], [n_fft - n_fft // 2]
    while ends[0] > n_hop:
        ends[0] -= n_hop
    while ends[-1] < nb_timesteps:
        ends.append(ends[-1] + n_hop)
    out = np.empty(nb_timesteps)
    first = [audio[:, max(end - n_hop, 0) : end] for end in ends if end <= n_fft]
    powers = [np.mean(np.square(piece, dtype=np.float64)) for piece in first if piece.size]
    music = [power for power in powers if power > 10**-8.5]
    goal = wanted(in_db(music)) if music else 0.0
    memory, recent = round(3.0 * RATE / n_hop), round(0.25 * RATE / n_hop)
    level, history, age = goal, [], 0
    for end in ends:
        piece = audio[:, max(end - n_hop, 0) : end].astype(np.float64)
        before = level
        if piece.size and np.mean(piece**2) > 10**-8.5:
            history, age = [*history, np.mean(piece**2)][-memory:], age + 1
            new = history[-recent:]
            if in_db(history[-1]) - goal > 20:
                history, age = history[-1:], 1
            elif abs(in_db(new) - goal) > 7 and abs(in_db(new) - in_db(history)) > 20 * np.log10(2):
                history = new[-max(len(new) // 2, 1) :]
                age = len(history)
            if age <= memory or abs(in_db(history) - goal) > 7:
                goal = wanted(in_db(history))
            level = max(goal, level - 400 * n_hop / RATE)
        start, stop = 10 ** (before / 20), 10 ** (level / 20)
        if stop > 2 * start:
            start = stop
        for n in range(max(end - n_hop, 0), min(end, nb_timesteps)):
            part = (n + 1 - (end - n_hop)) / n_hop
            out[n] = start * (1 - part) + stop * part
    return out


def steps(*levels, seconds=1.0, seed=0):
    """Noise that goes from level to level (in dB), each for so many seconds."""
    noise = np.random.default_rng(seed).standard_normal((2, round(seconds * RATE) * len(levels)))
    gains = 10 ** (np.repeat(levels, round(seconds * RATE)) / 20)
    return (noise * gains).astype(np.float32)


@pytest.mark.parametrize("nb_timesteps", [1, 15, 16, 17, 33, 4000, 20_000])
@pytest.mark.parametrize("geometry", [(64, 16), (64, 24), (63, 10), (64, 48)], ids=str)
def test_the_level_is_as_defined(nb_timesteps, geometry):
    audio = steps(-20, -60, -10, -100, -30, seconds=0.5)[:, :nb_timesteps]
    audio.flags.writeable = False
    brought, one = followed(audio, n_fft=geometry[0], n_hop=geometry[1])
    expected = levels_as_defined(audio, *geometry)
    np.testing.assert_allclose(brought, audio / expected, rtol=3e-6)
    one.restore(0, brought)
    np.testing.assert_allclose(brought, audio, rtol=3e-7)


@pytest.mark.parametrize("size", [1, 7, 16, 1000])
def test_blocks_of_any_size_have_the_same_levels(size):
    audio = steps(-20, -60, -10)[:, :5003]
    expected, _ = followed(audio)
    sizes = [size] * (audio.shape[1] // size) + [audio.shape[1] % size]
    found, one = followed(audio, sizes)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    for start in range(0, audio.shape[1], 777):
        part = found[:, start : start + 777].copy()
        one.restore(start, part)
        np.testing.assert_allclose(part, audio[:, start : start + 777], rtol=1e-6)
        one.forget(start + part.shape[1])
    assert len(one._levels) < 5


def test_the_memory_of_a_block_may_be_used_again():
    audio = steps(-20, -60, -10)[:, :5003]
    expected, _ = followed(audio)
    one, block, parts = follower(), np.empty((2, 50), np.float32), []
    for start in range(0, audio.shape[1], 50):
        part = audio[:, start : start + 50]
        block[:, : part.shape[1]] = part
        parts.append(one.push(block[:, : part.shape[1]]).copy())
        block[:] = np.nan
    np.testing.assert_allclose(np.concatenate([*parts, one.finish()], axis=1), expected, rtol=1e-6)


def brought_to(level):
    return level - wanted(level - LEVEL)


@pytest.mark.parametrize("level", [20, 0, -18, -50, -65])
def test_a_steady_signal_comes_to_the_level_within_half_a_second(level):
    brought, _ = followed(steps(level, seconds=2.0))
    assert level_of(brought[:, 4000:]) == pytest.approx(brought_to(level), abs=0.5)


@pytest.mark.parametrize("change", [-50, -30, -15, 15, 30, 50])
def test_a_change_of_level_is_over_within_a_second(change):
    first = -18 if change < 0 else -18 - change
    brought, _ = followed(steps(*[first] * 4, *[first + change] * 4))
    found = level_of(brought[:, 5 * 8000 :])
    assert found == pytest.approx(brought_to(first + change), abs=1.0)


@pytest.mark.parametrize("change", [-4, 4])
def test_parts_of_a_song_keep_their_levels(change):
    for level in (-18, -50):
        audio = steps(*[level] * 4, *[level + change] * 4, *[level] * 4)
        gains = followed(audio)[0] / audio
        # After 3 s the level is found.
        np.testing.assert_allclose(gains[:, 3 * 8000 + 64 :], gains[0, -1], rtol=1e-4)


@pytest.mark.parametrize("late", [1, 9])
@pytest.mark.parametrize("change", [35, 50])
def test_the_return_of_loud_music_is_no_click(change, late):
    # So many samples after the beginning of a piece.
    audio = steps(*[-18 - change] * 3, *[-18] * 2)[:, 16 - late :]
    brought, _ = followed(audio)
    loud = brought[:, 3 * 8000 - (16 - late) :]
    assert level_of(loud[:, :16]) < LEVEL + 7
    assert level_of(loud[:, :800]) < LEVEL + 6


def test_what_is_no_music_is_not_raised():
    silence, noise = np.zeros((2, 8000), np.float32), steps(-90)
    for quiet in (silence, noise):
        alone, _ = followed(quiet)
        np.testing.assert_array_equal(alone, quiet)
        after, one = followed(np.concatenate([steps(-40, seconds=2.0), quiet], axis=1))
        # As much as the music before it, and no more.
        gain = 10 ** ((LEVEL - 2 + 41) / 20)
        assert np.abs(after[:, 16000:]).max() <= np.abs(quiet).max() * gain
        one.restore(0, after)
        np.testing.assert_allclose(after[:, 16000:], quiet, rtol=1e-6)


def test_the_level_never_jumps_down():
    brought, one = followed(steps(-10, -60, -5, -70, -90, -20))
    levels = one._between(0, brought.shape[1])
    falls = 20 * np.log10(levels[1:] / levels[:-1])
    assert falls.min() > -400 / RATE * 2
    assert levels.min() >= 10 ** ((-85 - LEVEL + 2) / 20)


@pytest.mark.parametrize("value", [0.0, 1e-45, 1e-30, 1e-7, 1e30], ids=str)
@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_numbers_at_the_ends_of_the_range(value, device):
    separator = umx_np.Separator.from_bundle(levelled_bundle(), device=device)
    audio = np.full((1, 2, 500), value, np.float32)
    audio[..., ::2] *= -1
    with np.errstate(under="ignore"):
        assert np.isfinite(separator(audio)).all()
    if device == "reference":
        assert np.isfinite(separator(1e100 * audio.astype(np.float64))).all()


def levelled_bundle(**options):
    return replace(tiny_bundle(**options), input_level=LEVEL)


OPTIONS = [
    {"niter": 0, "residual": True},
    {"niter": 1},
    {"niter": 2, "wiener_win_len": 7, "precision": "fast"},
    {"niter": 1, "wiener_win_len": None, "softmask": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("nb_channels", [1, 2])
def test_block_by_block_is_the_whole_track(options, nb_channels):
    bundle = levelled_bundle(nb_channels=nb_channels)
    audio = steps(-10, -50, -20, seconds=0.3)
    separator = umx_np.Separator.from_bundle(bundle, device="cpu", **options)
    whole = separator(audio[None])[0]
    sizes = np.cumsum([1, 999, 0, 3000, 17])
    found = streamed(separator, ListSource(np.split(audio, sizes, axis=1)))
    assert_close(found, whole, TOL["blockwise"]["float32"], dtype=np.float32)
    if "precision" not in options:
        reference = umx_np.Separator.from_bundle(bundle, device="reference", **options)
        expected = reference(audio[None].astype(np.float64))[0]
        assert_close(whole, expected, TOL["separator"]["float32"], dtype=np.float32)


@pytest.mark.parametrize("size", [1, 50, 64, 5000])
@pytest.mark.parametrize("n_hop", [16, 24])
def test_live_is_the_whole_track(size, n_hop):
    bundle = replace(levelled_bundle(unidirectional=True), n_hop=n_hop)
    separator = umx_np.Separator.from_bundle(bundle, device="cpu", niter=0)
    audio = steps(-10, -50, seconds=0.1)
    live, taken, given = separator.stream(), 0, 0
    parts = []
    for start in range(0, audio.shape[1], size):
        block = audio[:, start : start + size]
        parts.append(live.process(block))
        taken, given = taken + block.shape[1], given + parts[-1].shape[2]
        assert taken - given <= live.latency
    parts.append(live.flush())
    expected = separator(audio[None])[0]
    found = np.concatenate(parts, axis=2)
    assert_close(found, expected, TOL["blockwise"]["float32"], dtype=np.float32)


def test_stems_follow_the_level_of_the_mixture():
    separator = umx_np.Separator.from_bundle(levelled_bundle(), device="cpu", niter=1)
    audio = steps(-30, seconds=3.0)
    loud = separator(audio[None])[0]
    for level in (-30, -50):
        gain = np.float32(10 ** (level / 20))
        other = separator(gain * audio[None])[0] / gain
        # The first half second is on the way to the level.
        assert relative_l2(other[..., 8000:], loud[..., 8000:]) < 1e-3


def test_without_the_property_nothing_changes():
    bundle = tiny_bundle()
    assert bundle.input_level is None
    separator = umx_np.Separator.from_bundle(bundle, device="cpu")
    assert separator.job.level_follower() is None
    assert separator.config.input_level is None


def test_channels_that_are_not_separated_do_not_tell_the_level():
    separator = umx_np.Separator.from_bundle(levelled_bundle(), device="cpu", niter=0)
    audio = steps(-40, seconds=0.5)
    six = np.concatenate([audio, steps(0, seconds=0.5, seed=1), audio], axis=0)
    found = streamed(separator, ListSource([six]))
    np.testing.assert_array_equal(found, separator(audio[None])[0])


def test_training_on_separated_waveforms_knows_no_level(caplog):
    config = umx_np.Separator.from_bundle(levelled_bundle(), device="cpu").config
    with pytest.raises(ConfigError, match="input_level=-18"):
        WaveformSeparator({"v": object()}, config)
    with caplog.at_level(logging.INFO, "umx_np"):
        network = WaveformSeparator.from_bundle(levelled_bundle(), backend="reference")
    assert network.config.input_level is None
    assert "input_level=-18 dB" in caplog.text


def test_folders_keep_the_level(tmp_path, caplog):
    bundle = levelled_bundle()
    with caplog.at_level(logging.WARNING, "umx_np"):
        save_folder(bundle, tmp_path / "a", "safetensors")
        assert not caplog.records
        save_folder(bundle, tmp_path / "b", "pth")
    (record,) = caplog.records
    assert "input_level=-18 dB" in record.getMessage()
    for name in "ab":
        assert json.loads((tmp_path / name / "separator.json").read_text())["input_level"] == LEVEL
        assert load_folder(tmp_path / name).input_level == LEVEL
    assert umx_np.Separator.from_bundle(load_folder(tmp_path / "a")).config.input_level == LEVEL
    save_folder(tiny_bundle(), tmp_path / "plain")
    assert "input_level" not in (tmp_path / "plain" / "separator.json").read_text()


@pytest.mark.parametrize("value", [1, -61, "loud", True, [[]], 10**400, None])
def test_levels_that_make_no_sense(tmp_path, value):
    save_folder(tiny_bundle(), tmp_path)
    path = tmp_path / "separator.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "input_level": value}))
    if value is None:
        assert load_folder(tmp_path).input_level is None
        return
    with pytest.raises(WeightsError, match="input_level"):
        load_folder(tmp_path)
    with pytest.raises(ConfigError, match="input_level"):
        umx_np.Separator({"v": umx_np.OpenUnmix(nb_bins=2049, hidden_size=4)}, input_level=value)
