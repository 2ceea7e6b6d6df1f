"""Networks as ONNX graphs, which ONNX Runtime computes in browsers, on phones and elsewhere.

The graph is built node by node and not traced: each layer of the LSTM is one node, and the matrices
keep the values that the weights have. It needs the package `onnx` (extra ``onnx``) and no
framework.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .._support.atomic import atomic_write
from ..backends._folding import fold
from ..config import ModelConfig
from ..errors import ConfigError, shortened
from ..weights import check_state
from ..weights.bundle import ModelBundle, StateDict, TargetWeights
from .onnx_graph import Graph

_DTYPES = ("float32", "float16", "int8")
# Of a network alone, whose target is not known.
_ALONE = "target"


def save_onnx(
    model: ModelBundle | TargetWeights,
    path: str | os.PathLike[str],
    *,
    dtype: str = "float32",
    overwrite: bool = True,
) -> Path:
    """Write the networks of a model as one ONNX graph.

    Parameters
    ----------
    model : ModelBundle or TargetWeights
        A model, from `umx_np.load_model` or `umx_np.weights.load_folder`, with the targets that the
        graph shall have; or one network.
    path : path-like
        The file; written completely before it takes its name.
    dtype : {'float32', 'float16', 'int8'}
        What the matrices are stored in, int8 with a scale a row. The graph takes, computes and
        gives float32 in any case.
    overwrite : bool
        Whether a file of this name may be replaced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ConfigError
        If the package `onnx` is missing, `dtype` is another, the networks do not fit together, or
        the file is to be kept.
    WeightsError
        If the weights do not fit their configuration or cannot be stored.

    Notes
    -----
    Opset 14. The input ``mags`` are the magnitudes of the mixture, and each target has an output of
    its name (one network alone: ``target``), all of them float32 [shape=(nb_frames, nb_channels,
    nb_bins)] with any number of frames.

    Of unidirectional networks there are one more input, ``state``, and one more output,
    ``next_state``, float32 [shape=(nb_states, 1, hidden_size)]: zeros for the first frames of a
    signal, and what the call before has returned for those that follow.

    The metadata say ``targets``, with spaces between them, and of a model ``sample_rate``,
    ``n_fft`` and ``n_hop``, and ``license`` and ``input_level`` where it has them.

    Examples
    --------
    >>> save_onnx(umx_np.load_model("umxm"), "umxm.onnx", dtype="int8")  # doctest: +SKIP
    """
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype={shortened(dtype)} must be, for ONNX, {', '.join(_DTYPES)}")
    file = Path(os.path.expanduser(path))
    if file.is_dir():
        raise ConfigError(f"path={str(file)!r} is a folder; give the name of a file")
    if file.exists() and not overwrite:
        raise ConfigError(f"path={str(file)!r} exists; use overwrite=True to replace it")
    targets = {_ALONE: model} if isinstance(model, TargetWeights) else model.targets
    metadata: dict[str, Any] = {"targets": " ".join(targets)}
    if isinstance(model, ModelBundle):
        for key in ("sample_rate", "n_fft", "n_hop", "license", "input_level"):
            metadata[key] = getattr(model, key)
    data = _built(targets, np.dtype(dtype)).serialised(
        {key: str(value) for key, value in metadata.items() if value is not None}
    )
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as stream:
        stream.write(data)
    return file


def _built(targets: Mapping[str, TargetWeights], stored: np.dtype) -> Graph:
    """Return the graph of some networks."""
    configs = [weights.config for weights in targets.values()]
    first = configs[0]
    if len({(c.nb_channels, c.nb_bins, c.unidirectional, c.hidden_size) for c in configs}) > 1:
        raise ConfigError(
            f"the targets {', '.join(targets)} differ in nb_channels, nb_bins, hidden_size or "
            "unidirectional; save each of them by itself"
        )
    if reserved := {"mags", "state", "next_state"}.intersection(targets):
        raise ConfigError(f"target={min(reserved)!r} is a name that the graph needs; give another")
    g = Graph(stored)
    shape: tuple[int | str, ...] = ("nb_frames", first.nb_channels, first.nb_bins)
    g.input("mags", shape)
    for target in targets:
        g.output(target, shape)
    states: list[str] = []
    if first.unidirectional:
        # Of each target and layer what it gives out, and its cells.
        nb_states = 2 * sum(config.nb_layers for config in configs)
        shape = (nb_states, 1, first.hidden_size)
        states = [f"state/{index}" for index in range(nb_states)]
        g.node("Split", [g.input("state", shape)], *states, axis=0)
        g.output("next_state", shape)
    last: list[str] = []
    for target, weights in targets.items():
        state = check_state(weights.state, weights.config, dtype=np.float32)
        last += _Network(g, target, weights.config, state).add(states[len(last) :])
    if first.unidirectional:
        g.node("Concat", last, "next_state", axis=0)
    return g


class _Network:
    """One network in a graph; the names of its nodes begin with that of its target."""

    def __init__(self, g: Graph, target: str, config: ModelConfig, state: StateDict) -> None:
        self._g, self._target, self._config, self._state = g, target, config, state
        self._folded = fold(config, state)

    def add(self, states: list[str]) -> list[str]:
        """Add its nodes; takes and returns the names of the states of its LSTM."""
        g, config, name = self._g, self._config, self._name
        channels, read = config.nb_channels, config.nb_input_bins
        bounds = [g.integers(name(key), n) for key, n in (("from", 0), ("to", read), ("axis", 2))]
        x = g.node("Slice", ["mags", *bounds], name("cropped"))
        x = self._reshape(x, "rows", -1, channels * read)
        x = self._by_vector("Add", x, "shift", self._folded.shift)
        x = self._by_vector("Mul", x, "gain", self._folded.gain)
        encoded = g.node("Tanh", [self._linear(x, "fc1", "bn1")], name("encoded"))
        recurrent, last = self._lstm(encoded, states)
        x = g.node("Concat", [encoded, recurrent], name("joined"), axis=1)
        x = g.node("Relu", [self._linear(x, "fc2", "bn2")], name("combined"))
        x = g.node("Relu", [self._linear(x, "fc3", "bn3")], name("mask_rows"))
        x = self._reshape(x, "mask", -1, channels, config.nb_bins)
        g.node("Mul", [x, "mags"], self._target)
        return last

    def _name(self, key: str) -> str:
        return f"{self._target}/{key}"

    def _reshape(self, x: str, key: str, *shape: int) -> str:
        shape_name = self._g.integers(self._name(f"{key}/shape"), *shape)
        return self._g.node("Reshape", [x, shape_name], self._name(key))

    def _by_vector(self, operation: str, x: str, key: str, vector: np.ndarray) -> str:
        constant = self._g.constant(self._name(f"{key}/vector"), vector)
        return self._g.node(operation, [x, constant], self._name(key))

    def _linear(self, x: str, layer: str, norm: str) -> str:
        """Add a matrix product and the batch norm that follows it."""
        weight = self._g.matrix(self._name(f"{layer}.weight"), self._state[f"{layer}.weight"])
        x = self._g.node("Gemm", [x, weight], self._name(layer), transB=1)
        x = self._by_vector("Mul", x, f"{norm}.scale", self._folded.scale[norm])
        return self._by_vector("Add", x, f"{norm}.bias", self._folded.bias[norm])

    def _lstm(self, x: str, states: list[str]) -> tuple[str, list[str]]:
        """Add the layers of the LSTM; returns its output and the names of its last states."""
        g, config, name = self._g, self._config, self._name
        last: list[str] = []
        x = self._reshape(x, "sequence", -1, 1, config.hidden_size)
        for layer in range(config.nb_layers):
            inputs = [
                x,
                g.matrix(name(f"lstm.weight_ih_l{layer}"), self._gates("weight_ih", layer)),
                g.matrix(name(f"lstm.weight_hh_l{layer}"), self._gates("weight_hh", layer)),
            ]
            bias = np.concatenate([self._gates(f"bias_{key}", layer) for key in ("ih", "hh")], 1)
            inputs.append(g.constant(name(f"lstm.bias_l{layer}"), bias))
            outputs = [name(f"lstm{layer}")]
            direction = "bidirectional"
            if config.unidirectional:
                direction = "forward"
                # "" stands for the lengths of the sequences.
                inputs += ["", *states[2 * layer : 2 * layer + 2]]
                outputs += [name(f"hidden{layer}"), name(f"cells{layer}")]
                last += outputs[1:]
            size = config.lstm_hidden_size
            x = g.node("LSTM", inputs, *outputs, hidden_size=size, direction=direction)
            # From (nb_frames, nb_directions, 1, size).
            x = g.node("Transpose", [x], name(f"turned{layer}"), perm=[0, 2, 1, 3])
            x = self._reshape(x, f"layer{layer}", -1, 1, config.hidden_size)
        return self._reshape(x, "recurrent", -1, config.hidden_size), last

    def _gates(self, kind: str, layer: int) -> np.ndarray:
        """Weights of all directions, from PyTorch's order of the gates (ifgo) to ONNX's (iofg)."""
        directions = []
        for suffix in ("", "_reverse")[: self._config.nb_directions]:
            i, f, g, o = np.split(self._state[f"lstm.{kind}_l{layer}{suffix}"], 4)
            directions.append(np.concatenate([i, o, f, g]))
        return np.stack(directions)
