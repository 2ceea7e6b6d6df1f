"""`OpenUnmix`: the network that predicts the magnitudes of one target.

Crop and normalise the magnitudes, squeeze them to a bottleneck, let a stack of LSTM layers look at
the whole track, and expand to a mask that multiplies the mixture. See Stöter, Uhlich, Liutkus and
Mitsufuji, "Open-Unmix - A Reference Implementation for Music Source Separation", JOSS 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import NamedTuple

import numpy as np

from ..backends.contracts import Backend, Network
from ..config import ModelConfig, check_array
from ..devices import get_backend, run_network
from ..errors import ShapeError
from ..weights import check_state, expected_state
from ..weights.bundle import StateDict, TargetWeights
from ..weights.finding import network_tensors
from ..weights.quantization import check_quantized, dequantize

_LAYOUTS = {"samples": (3, 0, 1, 2), "frames": (0, 1, 2, 3)}


class IncompatibleKeys(NamedTuple):
    """Names of tensors in which a network and what it was to load differ."""

    missing_keys: list[str]
    unexpected_keys: list[str]


def initial_state(config: ModelConfig, seed: int | np.random.Generator | None = None) -> StateDict:
    """Random weights as PyTorch initialises them.

    Parameters
    ----------
    config : ModelConfig
        Architecture.
    seed : int, Generator or None
        Source of the random numbers.

    Returns
    -------
    dict of str to ndarray
        Uniform weights within one over the square root of the number of inputs (of units, for the
        LSTM); zeros and ones where PyTorch has them.
    """
    rng = np.random.default_rng(seed)
    state: StateDict = {}
    for name, shape in expected_state(config).items():
        if name.endswith("num_batches_tracked"):
            state[name] = np.zeros(shape, np.int64)
        elif len(shape) == 2 or name.startswith("lstm."):
            bound = 1 / np.sqrt(config.lstm_hidden_size if name.startswith("lstm.") else shape[1])
            state[name] = rng.uniform(-bound, bound, shape).astype(np.float32)
        elif name.endswith(("bias", "running_mean")) or name == "input_mean":
            state[name] = np.zeros(shape, np.float32)
        else:
            state[name] = np.ones(shape, np.float32)
    return state


class OpenUnmix:
    """Spectrogram model of one target.

    Parameters
    ----------
    nb_bins : int
        Frequency bins of the spectrogram, ``n_fft // 2 + 1``.
    nb_channels : int
        Channels of the spectrogram.
    hidden_size : int
        Width of the bottleneck.
    nb_layers : int
        Number of LSTM layers.
    unidirectional : bool
        A causal model, usable for live separation.
    input_mean, input_scale : ndarray [shape=(>= max_bin,)] or None
        Mean and standard deviation of the training data in each bin; stored as ``-input_mean`` and
        ``1 / input_scale``, as in Open-Unmix.
    max_bin : int or None
        The network reads only the first `max_bin` bins; None reads all of them.
    device : {'auto', 'cpu', 'reference', 'cuda', 'cuda:INDEX'} or Backend
        Where to compute. ``'reference'`` computes in the dtype of its argument, the others in
        float32.
    threads : int or None
        Threads to compute on; None means all cores.
    seed : int, Generator or None
        Source of the random initial weights, which `load_state_dict` replaces.

    Raises
    ------
    ConfigError
        If an argument is out of range.
    ShapeError
        If `input_mean` or `input_scale` is too short.
    DeviceError
        If the device is not available.

    Examples
    --------
    >>> model = OpenUnmix(nb_bins=129, hidden_size=16, max_bin=100, seed=0)
    >>> model(np.ones((1, 2, 129, 10), np.float32)).shape
    (1, 2, 129, 10)
    """

    def __init__(
        self,
        nb_bins: int = 4096,
        nb_channels: int = 2,
        hidden_size: int = 512,
        nb_layers: int = 3,
        unidirectional: bool = False,
        input_mean: np.ndarray | None = None,
        input_scale: np.ndarray | None = None,
        max_bin: int | None = None,
        *,
        device: str | Backend = "auto",
        threads: int | None = None,
        seed: int | np.random.Generator | None = None,
    ) -> None:
        self.config = ModelConfig(
            nb_bins, nb_channels, hidden_size, nb_layers, bool(unidirectional), max_bin
        )
        self._ops = get_backend(device, threads)
        self._seed = seed
        self._scalers: StateDict = {}
        nb_input_bins = self.config.nb_input_bins
        for name, values, stored in (
            ("input_mean", input_mean, lambda v: -v),
            ("input_scale", input_scale, lambda v: 1.0 / v),
        ):
            if values is None:
                continue
            values = np.asarray(values)
            if values.ndim != 1 or len(values) < nb_input_bins:
                raise ShapeError(f"{name} has shape={values.shape}; it needs ({nb_input_bins},)")
            self._scalers[name] = stored(values[:nb_input_bins]).astype(np.float32)
        self._network: Network | None = None

    @classmethod
    def from_weights(
        cls,
        weights: TargetWeights,
        *,
        device: str | Backend = "auto",
        threads: int | None = None,
    ) -> OpenUnmix:
        """Make a model of loaded weights.

        Parameters
        ----------
        weights : TargetWeights
            Architecture and state dict.
        device, threads
            As for `OpenUnmix`.
        """
        model = cls(**asdict(weights.config), device=device, threads=threads)
        model.load_state_dict(weights.state)
        return model

    def __repr__(self) -> str:
        return f"OpenUnmix({self.config}, device={self._ops})"

    def load_state_dict(
        self, state: Mapping[str, np.ndarray], strict: bool = True
    ) -> IncompatibleKeys:
        """Replace the weights.

        Parameters
        ----------
        state : mapping of str to ndarray
            Tensors under PyTorch's names. Legacy buffers and prefixes are dropped.
        strict : bool
            Whether all tensors have to be there. Otherwise the others keep their values, and
            unknown ones are left out.

        Returns
        -------
        IncompatibleKeys
            ``missing_keys`` and ``unexpected_keys``, as PyTorch returns them.

        Raises
        ------
        WeightsError
            If a tensor is missing, of the wrong shape, or not finite. The old weights stay.
        """
        missing: list[str] = []
        unexpected: list[str] = []
        if not strict:
            given, others = network_tensors(state)
            old = self.state_dict()
            # The counts of batches are missing in old files; PyTorch does not miss them either.
            needed = [name for name in old if not name.endswith("num_batches_tracked")]
            missing = [name for name in needed if name not in given]
            unexpected = [*(name for name in given if name not in old), *others]
            state = {name: given.get(name, value) for name, value in old.items()}
        if self._ops.precision == "int8":
            checked = check_quantized(state, self.config)
        else:
            # What computes in float64 too keeps the dtypes that it is given.
            single = self._ops.dtype_for(np.dtype(np.float64)) == np.float32
            dtype = np.float32 if single else None
            checked = check_state(dequantize(state), self.config, dtype=dtype)
        self._network = self._ops.network(self.config, checked)
        return IncompatibleKeys(missing, unexpected)

    def state_dict(self) -> StateDict:
        """Copies of all tensors under PyTorch's names, in PyTorch's order."""
        state = self.network(self._ops).state_dict()
        return {name: state[name] for name in expected_state(self.config)}

    def network(self, ops: Backend) -> Network:
        """Return the network prepared for a backend (for the separator)."""
        if self._network is None:
            self._network = self._ops.network(
                self.config, {**initial_state(self.config, self._seed), **self._scalers}
            )
        if (ops.name, ops.precision) == (self._ops.name, self._ops.precision):
            return self._network
        return ops.network(self.config, self._network.state_dict())

    def freeze(self) -> None:
        """Do nothing: inference never changes the weights. Here for callers of Open-Unmix."""

    def __call__(self, x: np.ndarray, *, layout: str = "samples") -> np.ndarray:
        """Estimate the magnitudes of the target.

        Parameters
        ----------
        x : ndarray [shape=(nb_samples, nb_channels, nb_bins, nb_frames)]
            Magnitudes of the mixture, never modified.
        layout : {'samples', 'frames'}
            ``'frames'`` takes and returns (nb_frames, nb_samples, nb_channels, nb_bins).

        Returns
        -------
        ndarray [shape as `x`]
            Magnitudes of the target, in the dtype of the computation.

        Raises
        ------
        ShapeError
            If the shape does not fit the model.
        """
        if layout not in _LAYOUTS:
            raise ShapeError(f"layout={layout!r} must be 'samples' or 'frames'")
        x = check_array("x", x)
        config = self.config
        wanted = (config.nb_channels, config.nb_bins)
        if x.ndim != 4 or x.transpose(_LAYOUTS[layout]).shape[2:] != wanted:
            raise ShapeError(
                f"x has shape={x.shape}; layout={layout!r} of this model needs "
                f"nb_channels={wanted[0]} and nb_bins={wanted[1]}"
            )
        if x.dtype.kind not in "fiu":
            raise ShapeError(f"x has dtype={x.dtype}; magnitudes are real")
        network = self.network(self._ops)
        network = network.in_dtype(self._ops.dtype_for(x.dtype))
        frames_first = x.transpose(_LAYOUTS[layout])
        out = np.empty(frames_first.shape, network.dtype)
        for sample in range(frames_first.shape[1]):
            mags = np.ascontiguousarray(frames_first[:, sample], dtype=network.dtype)
            if len(mags):
                out[:, sample] = run_network(self._ops, network, mags)
        return out.transpose(np.argsort(_LAYOUTS[layout]))
