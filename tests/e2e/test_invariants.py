"""What holds for every separation, whatever the model and the signal."""

from __future__ import annotations

import numpy as np
import pytest
from helpers import signals
from helpers.asserts import assert_close, assert_finite
from tolerances import TOL

import umx_np

RATE = 44100
TARGETS = ["vocals", "drums", "bass", "other"]


def audio_of(nb_timesteps: int = 6000, seed: int = 1) -> np.ndarray:
    """Stereo sound [shape=(2, nb_timesteps)], float32."""
    return signals.music(nb_timesteps, seed=seed)[0].astype(np.float32)


@pytest.fixture(scope="module")
def separator(bundle):
    return umx_np.Separator.from_bundle(bundle, niter=1)


@pytest.mark.parametrize("softmask", [False, True])
def test_stems_sum_to_the_mixture(bundle, device, softmask):
    """With a residual and no iteration nothing is lost and nothing is added."""
    separator = umx_np.Separator.from_bundle(
        bundle, niter=0, residual=True, softmask=softmask, device=device
    )
    audio = audio_of()[None]
    stems = separator(audio)
    assert stems.shape == (1, 5, 2, 6000)
    assert_close(stems.sum(axis=1), audio, TOL["sum_of_stems"]["float32"], dtype=np.float32)


def test_names_and_order(model_folder):
    stems = umx_np.separate(audio_of(), RATE, model=model_folder)
    assert list(stems) == TARGETS
    stems = umx_np.separate(audio_of(), RATE, model=model_folder, targets=["bass", "vocals"])
    assert list(stems) == ["bass", "vocals"]
    stems = umx_np.separate(audio_of(), RATE, model=model_folder, residual=True)
    assert list(stems) == [*TARGETS, "residual"]


def test_aggregate(model_folder):
    audio = audio_of()
    stems = umx_np.separate(audio, RATE, model=model_folder)
    sums = umx_np.separate(
        audio,
        RATE,
        model=model_folder,
        aggregate={"vocals": ["vocals"], "accompaniment": ["drums", "bass", "other"]},
    )
    assert list(sums) == ["vocals", "accompaniment"]
    np.testing.assert_array_equal(sums["vocals"], stems["vocals"])
    rest = stems["drums"] + stems["bass"] + stems["other"]
    assert_close(sums["accompaniment"], rest, TOL["sum_of_stems"]["float32"], dtype=np.float32)


LAYOUTS = {
    "(C, T)": lambda x: x,
    "(T, C)": lambda x: x.T,
    "(T, C) copied": lambda x: np.ascontiguousarray(x.T),
    "(N, C, T)": lambda x: x[None],
    "Fortran order": np.asfortranarray,
    "every other sample of a longer array": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "reversed twice": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "big endian": lambda x: x.astype(">f4"),
    "float64": lambda x: x.astype(np.float64),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(separator, layout):
    """The stems come back in the layout of the input, with the same numbers."""
    audio = audio_of()
    expected = umx_np.separate(audio, RATE, separator=separator)
    given = LAYOUTS[layout](audio)
    actual = umx_np.separate(given, RATE, separator=separator)
    for name, stem in actual.items():
        assert stem.dtype == np.float32
        assert stem.shape == given.shape
        reached = {"(T, C)": stem.T, "(T, C) copied": stem.T, "(N, C, T)": stem[0:1].reshape(2, -1)}
        np.testing.assert_array_equal(reached.get(layout, stem), expected[name])


def test_integers_are_scaled(separator):
    pcm = np.rint(audio_of() * 32768.0).astype(np.int16)
    expected = umx_np.separate(pcm / np.float32(32768.0), RATE, separator=separator)
    for name, stem in umx_np.separate(pcm, RATE, separator=separator).items():
        np.testing.assert_array_equal(stem, expected[name])


def test_mono(separator):
    """One channel comes back as one channel: the mean of what two equal channels give."""
    mono = audio_of()[0]
    expected = umx_np.separate(np.stack([mono, mono]), RATE, separator=separator)
    for shape in ((-1,), (1, -1), (-1, 1)):
        for name, stem in umx_np.separate(mono.reshape(shape), RATE, separator=separator).items():
            assert stem.shape == mono.reshape(shape).shape
            mean = expected[name].mean(axis=0)
            assert_close(stem.ravel(), mean, TOL["sum_of_stems"]["float32"], dtype=np.float32)


def test_batch(separator):
    """Signals of a batch do not know of each other."""
    batch = np.stack([audio_of(seed=1), audio_of(seed=2), audio_of(seed=3)])
    together = umx_np.separate(batch, RATE, separator=separator)
    for index, audio in enumerate(batch):
        alone = umx_np.separate(audio, RATE, separator=separator)
        for name, stem in alone.items():
            np.testing.assert_array_equal(together[name][index], stem)


@pytest.mark.parametrize(
    "options", [{"niter": 0}, {"niter": 2, "residual": True}, {"softmask": True}]
)
def test_input_is_not_modified(model_folder, options):
    """Also at full scale and with silence in it, where the reference does modify its input."""
    audio = signals.gapped(6000, seed=4)[0].astype(np.float32)
    audio /= np.abs(audio).max()
    before = audio.copy()
    audio.setflags(write=False)
    umx_np.separate(audio, RATE, model=model_folder, **options)
    np.testing.assert_array_equal(audio, before)


def test_functions_do_not_modify_their_arguments():
    mix = signals.spectra(12, 9, 2, seed=5, level=40.0).astype(np.complex64)
    mix[3] = 0.0
    estimates = signals.estimates_for(mix, 3, seed=6).astype(np.float32)
    arrays = {"mix": mix, "estimates": estimates, "y": estimates.astype(np.complex64)}
    copies = {name: array.copy() for name, array in arrays.items()}
    for array in arrays.values():
        array.setflags(write=False)
    umx_np.wiener(estimates, mix, iterations=2, residual=True)
    umx_np.wiener(estimates, mix, iterations=1, softmask=True)
    umx_np.expectation_maximization(arrays["y"], mix, iterations=2)
    umx_np.istft(mix.T, n_hop=4)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, copies[name])


@pytest.mark.parametrize("niter", [0, 1])
def test_threads_give_equal_results(bundle, niter):
    audio = audio_of(20000)[None]
    one, two, three = (
        umx_np.Separator.from_bundle(bundle, niter=niter, threads=threads)(audio)
        for threads in (1, 2, 3)
    )
    np.testing.assert_array_equal(two, one)
    np.testing.assert_array_equal(three, one)


def test_repeatable_to_the_bit(separator):
    audio = audio_of(20000)[None]
    np.testing.assert_array_equal(separator(audio), separator(audio))


def test_called_from_several_threads(separator):
    from concurrent.futures import ThreadPoolExecutor

    songs = [audio_of(9000, seed)[None] for seed in range(4)]
    expected = [separator(song) for song in songs]
    with ThreadPoolExecutor(4) as pool:
        for actual, wanted in zip(pool.map(separator, songs), expected, strict=True):
            np.testing.assert_array_equal(actual, wanted)


def test_reference_agrees(bundle):
    """The slow engine in double precision is the oracle of the fast one."""
    audio = audio_of()[None]
    options = {"niter": 1, "residual": True}
    fast = umx_np.Separator.from_bundle(bundle, **options)(audio)
    slow = umx_np.Separator.from_bundle(bundle, device="reference", **options)
    assert_close(
        fast, slow(audio.astype(np.float64)), TOL["separator"]["float32"], dtype=np.float32
    )


def hard_signals() -> dict[str, np.ndarray]:
    music = signals.music(4000, seed=7)[0]
    silence = np.zeros((2, 4000))
    return {
        "silence": silence,
        "dual mono": signals.dual_mono(4000, seed=8)[0],
        "loud dual mono": signals.dual_mono(4000, seed=8)[0] * 1e4,
        "one silent channel": music * [[1.0], [0.0]],
        "opposite channels": music[:1] * [[1.0], [-1.0]],
        "impulse": signals.impulse(4000)[0],
        "constant": silence + 0.5,
        "silence with a click at the end": np.where(np.arange(4000) == 3999, 1.0, silence),
        "one sample": music[:, :1],
        "two samples": music[:, :2],
        "shorter than half a window": music[:, :200],
        "half a window": music[:, :256],
        "half a window and a sample": music[:, :257],
        "amplitude 1e-30": music * 1e-29,
        "denormal": silence + 1e-42,
        "amplitude 1e+6": music * 1e7,
        "full-scale square wave": np.sign(music),
    }


@pytest.mark.parametrize(
    "options",
    [
        {"niter": 0},
        {"niter": 1},
        {"niter": 3, "residual": True},
        {"niter": 1, "softmask": True, "residual": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", hard_signals())
def test_hard_signals_stay_finite(bundle, device, name, options):
    audio = hard_signals()[name].astype(np.float32)[None]
    separator = umx_np.Separator.from_bundle(bundle, device=device, **options)
    stems = separator(audio)
    nb_stems = 4 + options.get("residual", False)
    assert_finite(stems, shape=(1, nb_stems, *audio.shape[1:]), dtype=np.float32)
    # No stem may be far louder than the mixture.
    assert np.abs(stems).max() <= 20.0 * np.abs(audio).max()
    if name == "silence":
        assert not stems.any()


@pytest.mark.parametrize("nb_timesteps", [1, 100, 511, 512, 513, 4095])
def test_length_is_exact(separator, nb_timesteps):
    stems = umx_np.separate(audio_of(nb_timesteps + 2)[:, :nb_timesteps], RATE, separator=separator)
    for stem in stems.values():
        assert stem.shape == (2, nb_timesteps)


def test_other_rates_keep_rate_and_length(separator):
    for rate in (22050, 48000):
        audio = audio_of(5001)
        for stem in umx_np.separate(audio, rate, separator=separator).values():
            assert stem.shape == audio.shape


def test_causal_model_does_not_look_ahead():
    """A unidirectional network's mask at a time depends on the past only, but for the window."""
    from umx_np.config import ModelConfig
    from umx_np.testing import random_bundle_of

    config = ModelConfig(nb_bins=129, hidden_size=16, unidirectional=True)
    separator = umx_np.Separator.from_bundle(random_bundle_of(config, seed=92), niter=0)
    audio = audio_of(6000)[None]
    changed = audio.copy()
    changed[..., 4000:] = 0.0
    before, after = separator(audio), separator(changed)
    window = 256
    np.testing.assert_array_equal(before[..., : 4000 - window], after[..., : 4000 - window])
    assert not np.array_equal(before[..., 4000:], after[..., 4000:])
