"""Material for the engines that separate block by block, on the processor and on a card."""

from __future__ import annotations

import threading

import numpy as np

from umx_np.config import ModelConfig
from umx_np.separation.tracks import separate_stream
from umx_np.testing import random_state
from umx_np.weights.bundle import ModelBundle, TargetWeights

from . import signals

# Of a separator; every way through the filter and both filterbanks.
OPTIONS = [
    {"niter": 0},
    {"niter": 1},
    {"niter": 2, "wiener_win_len": 7},
    {"niter": 1, "wiener_win_len": 1},
    {"niter": 2, "wiener_win_len": None},
    {"niter": 1, "wiener_win_len": None, "softmask": True, "residual": True},
    {"niter": 0, "softmask": True, "residual": True},
    {"niter": 1, "filterbank": "asteroid"},
]


def tiny_bundle(*, nb_channels=2, targets=("a", "b", "c"), hidden=(8, 8, 8), **config):
    """Networks for n_fft=64 that differ from target to target in what they read."""
    weights = {}
    for i, name in enumerate(targets):
        options = {"hidden_size": hidden[i], "max_bin": 20 + i, "nb_layers": 2, **config}
        c = ModelConfig(nb_bins=33, nb_channels=nb_channels, **options)
        weights[name] = TargetWeights(c, random_state(c, seed=i))
    return ModelBundle("tiny", weights, 8000.0, 64, 16, nb_channels)


def music(nb_timesteps, **options):
    """`signals.music` as a file has it."""
    return signals.music(nb_timesteps, **options).astype(np.float32)


class ListSource:
    """A source that delivers the blocks it is given, whatever is asked for, and counts readings."""

    def __init__(self, blocks, nb_timesteps=None):
        self._blocks, self.readings = blocks, 0
        self.nb_channels = len(blocks[0])
        self.nb_timesteps = nb_timesteps or sum(block.shape[1] for block in blocks)

    def blocks(self, size):
        self.readings += 1
        return iter(self._blocks)


class ListSink:
    """A sink that keeps what it is given."""

    def __init__(self):
        self.parts = []

    def write(self, block):
        self.parts.append(block.copy())

    @property
    def audio(self):
        return np.concatenate(self.parts, axis=1)


def streamed(separator, source, **options):
    """All stems of a source [shape=(nb_stems, nb_channels, nb_timesteps)]."""
    sinks = {name: ListSink() for name in separator.stem_names}
    separate_stream(separator.engine(), source, sinks, **options)
    return np.stack([sink.audio for sink in sinks.values()])


def assert_shared_by_threads(separator, nb_timesteps):
    """Four tracks come out the same one after the other and from a thread each."""
    tracks = [music(nb_timesteps, seed=seed) for seed in range(4)]
    expected = [separator(track) for track in tracks]
    results: dict[int, np.ndarray] = {}

    def work(i):
        results[i] = separator(tracks[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(4):
        np.testing.assert_array_equal(results[i], expected[i])
