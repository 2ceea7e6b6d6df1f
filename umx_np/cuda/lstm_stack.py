"""The LSTM layers of a network in training, on a card: all directions of a layer at a time.

The specification is `umx_np.layers.lstm`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..backends.training import CounterMasks
from ..config import ModelConfig
from .launching import Kernels, spread, tiled
from .scan import Saved, Scan
from .tensors import FlatTensors

if TYPE_CHECKING:
    from .device import Device

Array = Any


class Layer(NamedTuple):
    """Activations for the backward pass of an LSTM layer; D directions of H units.

    Attributes
    ----------
    x : Array [shape=(R, I)]
        Input, after dropout.
    h : Array [shape=(R, D * H)]
        Outputs.
    saved : Saved
        Gates and cells.
    """

    x: Array
    h: Array
    saved: Saved


class LstmStack:
    """All LSTM layers, both ways.

    Parameters
    ----------
    device : Device
        The card.
    config : ModelConfig
        Architecture.
    math : {'float32', 'tf32', 'bf16'}
        How matrix products round their operands where a backward pass follows.
    """

    def __init__(self, device: Device, config: ModelConfig, math: str) -> None:
        self.device, self.config, self.math = device, config, math
        self._steps = Kernels(device, "training_steps.cu")
        self._scan = Scan(device, config.lstm_hidden_size, [False, True][: config.nb_directions])
        self._names = [
            [f"l{layer}{suffix}" for suffix in ("", "_reverse")[: config.nb_directions]]
            for layer in range(config.nb_layers)
        ]

    def forward(
        self,
        x: Array,
        p: FlatTensors,
        masks: CounterMasks | None,
        out: Array,
        shape: tuple[int, int],
        *,
        keep: bool,
    ) -> list[Layer]:
        """Compute all layers, from `x` to `out` [shape=(R, hidden_size)].

        Parameters
        ----------
        x, out : Array [shape=(R, hidden_size)]
            Input and result.
        p : FlatTensors
            Parameters of the network.
        masks : CounterMasks or None
            Dropout between the layers.
        shape : tuple of int
            Frames and samples, whose product is R.
        keep : bool
            Whether a backward pass follows.
        """
        math = self.math if keep else "float32"
        config = self.config
        rows, directions, gates = len(x), config.nb_directions, 4 * config.lstm_hidden_size
        biases = self._biases(p)
        layers: list[Layer] = []
        for layer in range(config.nb_layers):
            if layer > 0 and masks is not None:
                kept = self._empty(*x.shape)
                self.drop(x, masks, layer - 1, kept)
                x = kept
            a = self._empty(directions, rows, gates)
            self._gemm(x, self._stacked(p, "weight_ih", layer), a, math, trans_b=True)  # F1
            h = out if layer == config.nb_layers - 1 else self._empty(*x.shape)
            saved = self._scan.forward(
                a.reshape(directions, *shape, gates),
                self._stacked(p, "weight_hh", layer),
                h.reshape(*shape, -1),
                keep=keep,
                bias=biases[layer],
            )
            if saved is not None:
                layers.append(Layer(x, h, saved))
            x = h
        return layers

    def backward(
        self,
        d_h: Array,
        layers: list[Layer],
        p: FlatTensors,
        masks: CounterMasks | None,
        g: FlatTensors,
        d_x: Array,
        shape: tuple[int, int],
    ) -> None:
        """Put the gradients of all layers into `g`, B1 to B11 of docs/lstm_backward.md.

        That of the input is added to `d_x` [shape=(R, hidden_size)]; `layers` is used up.
        """
        sizes = self.config.nb_directions, len(d_h), 4 * self.config.lstm_hidden_size
        for layer in range(len(layers) - 1, -1, -1):
            x, h, saved = layers.pop()
            weight = self._stacked(p, "weight_hh", layer)
            d_a = self._scan.backward(d_h.reshape(*shape, -1), saved, weight).reshape(
                sizes
            )  # B1 to B7
            self._bias_gradients(d_a, g, layer)  # B8
            self._gemm(d_a, x, self._stacked(g, "weight_ih", layer), self.math, trans_a=True)  # B9
            self._recurrent_weight_gradient(d_a, h, shape[1], g, layer)  # B10
            last = layer == 0
            d_h = d_x if last else self._empty(*x.shape)
            for direction, name in enumerate(self._names[layer]):  # B11
                weight = p[f"lstm.weight_ih_{name}"]
                self._gemm(d_a[direction], weight, d_h, self.math, accumulate=last or direction > 0)
            if layer > 0 and masks is not None:
                self.drop(d_h, masks, layer - 1, d_h)

    def _recurrent_weight_gradient(
        self, d_a: Array, h: Array, nb_samples: int, g: FlatTensors, layer: int
    ) -> None:
        """B10: the state that a frame began with is that of its neighbour.

        Forward, frames from the second on meet the outputs of those before them; backward, frames
        before the last meet those after them. As a batch of two products, with d_a one frame less
        than a direction apart and h one frame and a direction.
        """
        directions, rows, gates = d_a.shape
        hidden = self.config.lstm_hidden_size
        count = rows - nb_samples
        if count == 0:
            return  # the gradients are 0
        strided = self.device.xp.lib.stride_tricks.as_strided
        row = h.strides[0]
        later = strided(
            d_a[0, nb_samples:],
            shape=(directions, count, gates),
            strides=(count * gates * 4, gates * 4, 4),
        )
        before = strided(
            h, shape=(directions, count, hidden), strides=(nb_samples * row + hidden * 4, row, 4)
        )
        self._gemm(later, before, self._stacked(g, "weight_hh", layer), self.math, trans_a=True)

    def _biases(self, p: FlatTensors) -> Array:
        """Both biases together [shape=(nb_layers, nb_directions, 4 * lstm_hidden_size)]."""
        shape = self.config.nb_layers, self.config.nb_directions, 4 * self.config.lstm_hidden_size
        ih, hh = (
            p.together([f"lstm.bias_{kind}_{name}" for layer in self._names for name in layer])
            for kind in ("ih", "hh")
        )
        return (ih + hh).reshape(shape)

    def _bias_gradients(self, d_a: Array, g: FlatTensors, layer: int) -> None:
        directions, rows, gates = d_a.shape
        first, names = self._names[layer][0], self._names[layer]
        distance = g.distance([f"lstm.bias_ih_{name}" for name in names])
        found = (g[f"lstm.bias_{kind}_{first}"] for kind in ("ih", "hh"))
        self._steps.reduce(
            "bias_gradients",
            tiled(gates, rows, directions),
            d_a,
            *found,
            nb_sums=directions * gates,
            sizes=(rows, gates, np.int64(distance)),
        )

    def drop(self, x: Array, masks: CounterMasks, layer: int, out: Array) -> None:
        """Apply the dropout mask after a layer."""
        rows, features = x.shape
        threshold = min(round(masks.rate * 2.0**32), 2**32 - 1)
        count, random = rows * features, (np.uint64(masks.key), np.uint32(layer))
        scaling = np.uint32(threshold), np.float32(1.0 / (1.0 - masks.rate))
        grid = spread(-(-count // 4))
        self._steps.launch("dropout", grid, x, out, np.int64(count), *random, *scaling)

    def _stacked(self, tensors: FlatTensors, part: str, layer: int) -> Array:
        """A weight of all directions of a layer, with the directions in front."""
        return tensors.together([f"lstm.{part}_{name}" for name in self._names[layer]])

    def _gemm(self, a: Array, b: Array, out: Array, math: str, **options: Any) -> None:
        self.device.gemm(a, b, out, math=math, **options)

    def _empty(self, *shape: int) -> Array:
        return self.device.xp.empty(shape, np.float32)
