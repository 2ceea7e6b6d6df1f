"""Random weights for any architecture, the same ones on every machine and NumPy version.

The weights are not trained, but they are built so that a mistake anywhere in a network shows in
its output:

* every tensor is random, also those that PyTorch initialises to zeros and ones;
* the matrices have the scale of PyTorch's default initialisation, only the LSTM's are a little
  larger, so that its gates move and its memory matters as in a trained network;
* the statistics of the batch norms fit the activations, so that tanh does not saturate;
* the output layer is set so that masks lie mostly between 0 and 1 and a part of them is cut off
  by the ReLU.

The uniform numbers are made from the raw bits of PCG64. NumPy promises that this stream never
changes (NEP 19), which it does not for the methods of `numpy.random.Generator`; the golden files
of the tests rely on it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from ..config import MUSIC_TARGETS, ModelConfig, SeparatorConfig, bandwidth_to_max_bin
from ..errors import ConfigError
from ..weights import expected_state
from ..weights.bundle import ModelBundle, StateDict, TargetWeights

_SPEECH_TARGETS = ("speech", "noise")

# How much larger than PyTorch's default the LSTM's matrices are.
_LSTM_GAIN = 2.0
# Sound of this RMS level is what the input statistics are made for.
_RMS_LEVEL = 0.1


def _architecture(name: str) -> tuple[ModelConfig, SeparatorConfig, tuple[str, ...]]:
    """Geometry and targets of the model `name`."""
    if name == "umxm":
        max_bin = bandwidth_to_max_bin(rate=44100.0, n_fft=4096, bandwidth=14000.0)
        model = ModelConfig(nb_bins=2049, hidden_size=384, max_bin=max_bin)
        return model, SeparatorConfig(), MUSIC_TARGETS
    if name in ("umx", "umxhq", "umxl"):
        max_bin = bandwidth_to_max_bin(rate=44100.0, n_fft=4096, bandwidth=16000.0)
        hidden_size = 1024 if name == "umxl" else 512
        model = ModelConfig(nb_bins=2049, hidden_size=hidden_size, max_bin=max_bin)
        return model, SeparatorConfig(), MUSIC_TARGETS
    if name == "umxse":
        max_bin = bandwidth_to_max_bin(rate=16000.0, n_fft=1024, bandwidth=16000.0)
        model = ModelConfig(nb_bins=513, nb_channels=1, hidden_size=256, max_bin=max_bin)
        separator = SeparatorConfig(sample_rate=16000.0, n_fft=1024, n_hop=512, nb_channels=1)
        return model, separator, _SPEECH_TARGETS
    raise ConfigError(f"name_like={name!r} must be 'umxm', 'umx', 'umxhq', 'umxl' or 'umxse'")


def uniform(seed: int, name: str, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """Return float64 numbers in [low, high) that depend on nothing but the arguments.

    Parameters
    ----------
    seed : int
        Not negative.
    name : str
        Selects a stream of its own for each array.
    shape : tuple of int
        Shape of the result.
    low, high : float
        Range of the numbers.

    Returns
    -------
    ndarray [shape=shape], float64
    """
    # Each tensor has a stream of its own: an added tensor does not change the others.
    bits = np.random.PCG64(np.random.SeedSequence([seed, zlib.crc32(name.encode())]))
    count = int(np.prod(shape))
    raw = bits.random_raw(count) >> np.uint64(11)
    return (low + (high - low) * (raw * 2.0**-53)).reshape(shape)


def typical_magnitude(nb_bins: int) -> np.ndarray:
    """Mean magnitude of music-like sound in each STFT bin, falling towards high frequencies.

    Parameters
    ----------
    nb_bins : int
        Bins of a one-sided spectrum, ``n_fft // 2 + 1``.

    Returns
    -------
    ndarray [shape=(nb_bins,)], float64
        Root mean square over the bins is that of white noise of RMS 0.1 under a Hann window.
    """
    n_fft = 2 * max(nb_bins - 1, 1)
    tilt = 1.0 / (1.0 + 16.0 * np.arange(nb_bins) / nb_bins)
    level = _RMS_LEVEL * np.sqrt(n_fft * 3.0 / 8.0)
    return level * tilt / np.sqrt(np.mean(tilt**2))


def random_state(config: ModelConfig, seed: int = 0) -> StateDict:
    """Return a complete random state dict for one target network.

    Parameters
    ----------
    config : ModelConfig
        Any architecture.
    seed : int
        Not negative. The same seed gives the same numbers everywhere.

    Returns
    -------
    dict of str to ndarray
        PyTorch's names; float32, but for the int64 counters of the batch norms.

    Examples
    --------
    >>> state = random_state(ModelConfig(nb_bins=9, hidden_size=4, nb_layers=1), seed=7)
    >>> state["fc1.weight"].shape
    (4, 18)
    """
    level = typical_magnitude(config.nb_bins)[: config.nb_input_bins]
    lstm_bound = _LSTM_GAIN / np.sqrt(config.lstm_hidden_size)
    # (low, high) by full name or by last part; the matrices are handled below.
    ranges = {
        "input_mean": (-1.3, -0.7),
        "input_scale": (0.7, 1.3),
        "output_scale": (0.15, 0.35),
        "output_mean": (0.1, 0.4),
        "bn1.running_mean": (-0.3, 0.3),
        "bn1.running_var": (0.2, 0.4),
        "bn2.running_mean": (-0.1, 0.1),
        "bn2.running_var": (0.04, 0.1),
        "bn3.running_mean": (-0.1, 0.1),
        "bn3.running_var": (0.04, 0.1),
        "weight": (0.6, 1.4),
        "bias": (-0.3, 0.3),
    }
    state: StateDict = {}
    for name, shape in expected_state(config).items():
        kind = name.rpartition(".")[2]
        if kind == "num_batches_tracked":
            state[name] = np.asarray(1000, dtype=np.int64)
            continue
        if name.startswith("lstm."):
            low, high = -lstm_bound, lstm_bound
        elif name.startswith("fc"):
            low, high = -1.0 / np.sqrt(shape[1]), 1.0 / np.sqrt(shape[1])
        else:
            low, high = ranges.get(name) or ranges[kind]
        values = uniform(seed, name, shape, low, high)
        # What is stored is minus the mean and one over the standard deviation of magnitudes.
        if kind == "input_mean":
            values = values * level
        elif kind == "input_scale":
            values = values / (0.7 * level)
        state[name] = values.astype(np.float32)
    return state


def random_bundle(
    name_like: str = "umxhq", seed: int = 0, targets: Sequence[str] | None = None
) -> ModelBundle:
    """Return random weights in the architecture of a model that has a name.

    Parameters
    ----------
    name_like : {'umxhq', 'umxm', 'umx', 'umxl', 'umxse'}
        Whose architecture, targets and STFT to take.
    seed : int
        Not negative.
    targets : sequence of str, optional
        Only these targets; their weights do not depend on which others are asked for.

    Returns
    -------
    ModelBundle
        Named ``random-<name_like>``.
    """
    config, separator, all_targets = _architecture(name_like)
    chosen = tuple(all_targets if targets is None else targets)
    unknown = sorted(set(chosen) - set(all_targets))
    if unknown:
        raise ConfigError(f"targets={unknown} are not among {list(all_targets)}")
    return random_bundle_of(
        config,
        chosen,
        seed=seed,
        n_fft=separator.n_fft,
        n_hop=separator.n_hop,
        sample_rate=separator.sample_rate,
        name=f"random-{name_like}",
    )


def random_bundle_of(
    config: ModelConfig,
    targets: Sequence[str] = MUSIC_TARGETS,
    *,
    seed: int = 0,
    n_fft: int | None = None,
    n_hop: int | None = None,
    sample_rate: float = 44100.0,
    name: str = "random",
) -> ModelBundle:
    """Return random weights of a chosen architecture for some targets.

    Parameters
    ----------
    config : ModelConfig
        The architecture of every target.
    targets : sequence of str
        Names, in the order of the stems.
    seed : int
        Not negative. A target's weights depend on it and on the target's name.
    n_fft, n_hop : int, optional
        STFT size, twice the bins of `config` by default, and hop, by default a quarter of it.
    sample_rate : float
        In Hz.
    name : str
        Name of the bundle.

    Returns
    -------
    ModelBundle
    """
    n_fft = 2 * (config.nb_bins - 1) if n_fft is None else n_fft
    return ModelBundle(
        name=name,
        targets={
            target: TargetWeights(config, random_state(config, seed + zlib.crc32(target.encode())))
            for target in targets
        },
        sample_rate=sample_rate,
        n_fft=n_fft,
        n_hop=n_fft // 4 if n_hop is None else n_hop,
        nb_channels=config.nb_channels,
        license="MIT",
    )
