"""Separators and networks in other processes, and what is no array of samples."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest

import umx_np
from umx_np import OpenUnmix, Separator
from umx_np.backends import cpu
from umx_np.config import ModelConfig
from umx_np.errors import DeviceError, ShapeError
from umx_np.separation import arrays
from umx_np.testing import random_bundle_of

COPIES = {"pickle": lambda x: pickle.loads(pickle.dumps(x)), "deepcopy": copy.deepcopy}


def separator(unidirectional=False, **options):
    config = ModelConfig(nb_bins=129, hidden_size=16, unidirectional=unidirectional)
    return Separator.from_bundle(random_bundle_of(config, seed=1), **options)


def noise(nb_timesteps=5000):
    rng = np.random.default_rng(9)
    return rng.uniform(-0.3, 0.3, (1, 2, nb_timesteps)).astype(np.float32)


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize(
    "options",
    [
        {"device": "cpu", "threads": 1, "niter": 1, "residual": "rest"},
        {"device": "cpu", "threads": 2, "precision": "fast", "filterbank": "asteroid"},
        {"device": "reference", "softmask": True, "wiener_win_len": None},
    ],
)
def test_a_copy_is_the_same_separator(kind, options):
    original = separator(**options)
    expected = original(noise())
    copied = COPIES[kind](original)
    np.testing.assert_array_equal(copied(noise()), expected)
    assert repr(copied) == repr(original)
    assert (copied.stem_names, copied.name) == (original.stem_names, original.name)
    assert copied.weights_digest == original.weights_digest
    # It is one of its own.
    copied.niter = 2
    copied.residual = "other_name"
    np.testing.assert_array_equal(original(noise()), expected)
    assert original.residual_name == options.get("residual", "residual")


def test_from_process_to_process():
    """In a process that begins anew, the stems are the same to the bit."""
    original = separator(device="cpu", residual=True)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        stems = pool.submit(original, noise()).result()
        network = next(iter(original.target_models.values()))
        mags = np.abs(noise(1290)).reshape(1, 2, 129, 10)
        found = pool.submit(network, mags).result()
    np.testing.assert_array_equal(stems, original(noise()))
    np.testing.assert_array_equal(found, network(mags))


@pytest.mark.parametrize("kind", COPIES)
@pytest.mark.parametrize("device", ["cpu", "reference"])
def test_networks(kind, device):
    network = OpenUnmix(nb_bins=33, hidden_size=8, seed=3, device=device)
    mags = np.abs(noise(330)).reshape(1, 2, 33, 10)
    untouched = COPIES[kind](network)  # before it has made its weights
    expected = network(mags)
    for copied in (untouched, COPIES[kind](network)):
        np.testing.assert_array_equal(copied(mags), expected)
        assert all(
            np.array_equal(a, b)
            for a, b in zip(
                copied.state_dict().values(), network.state_dict().values(), strict=True
            )
        )


@pytest.mark.parametrize("kind", COPIES)
def test_a_stream_goes_on_in_its_copy(kind):
    live = separator(unidirectional=True, device="cpu", niter=1).stream()
    live.process(noise()[0])
    copied = COPIES[kind](live)
    more = noise(3000)[0]
    np.testing.assert_array_equal(copied.process(more), live.process(more))
    np.testing.assert_array_equal(copied.flush(), live.flush())


def test_a_processor_that_lacks_the_level_says_so(monkeypatch):
    data = pickle.dumps(separator(device="cpu"))

    def other(level):
        raise ValueError(f"level={level!r} cannot run here")

    monkeypatch.setattr(cpu._cpu, "Kernels", other)
    with pytest.raises(DeviceError, match="networks were made for it; load the model here"):
        pickle.loads(data)


class TestWhatIsNoArray:
    @pytest.fixture
    def call(self, request, monkeypatch):
        monkeypatch.setattr(arrays, "load_model", lambda *_, **__: pytest.fail("it was loaded"))
        made = separator(device="reference")
        return {"separate": umx_np.separate, "call": made, "blocks": made.blocks}[request.param]

    @pytest.mark.parametrize("call", ["separate", "call", "blocks"], indirect=True)
    def test_names_and_files(self, call, tmp_path):
        with open(__file__, "rb") as file:
            for given in ("song.mp3", tmp_path / "song.mp3", b"song.mp3", file):
                with pytest.raises(ShapeError, match=r"is a file and no array; .*separate_file"):
                    call(given)
        with pytest.raises(ShapeError, match=r"'song.mp3' is a file"):
            call("song.mp3")

    @pytest.mark.parametrize("call", ["separate", "call", "blocks"], indirect=True)
    def test_what_read_returns(self, call):
        for pair in ((noise()[0], 44100), (noise()[0], 44100.0), (noise()[0], np.int64(44100))):
            with pytest.raises(ShapeError, match=r"pair of samples and their rate, .*one by one"):
                call(pair)

    def test_pairs_of_channels_are_arrays(self):
        """Only a number in the second place makes a pair of samples and rate."""
        left, right = noise()[0]
        made = separator(device="reference")
        stems = umx_np.separate((left, right), separator=made)
        expected = umx_np.separate(np.stack([left, right]), separator=made)
        for name, stem in stems.items():
            np.testing.assert_array_equal(stem, expected[name])
