"""Networks on the card, side by side: every product and every scan computes all of them at once.

Axes of the shapes: J targets of a stack, G targets of a group of them, D directions, F frames, C
channels that the networks see, R bins that they read, W the same rounded up, B all bins, H units of
the bottleneck, U units of one direction of a layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends._folding import fold, gate_bias
from ..config import ModelConfig
from ..layers.lstm import suffix_of
from ..weights.bundle import StateDict
from .launching import Kernels, spread
from .memory import StackSize
from .ops import Array
from .scan import Scan
from .transform import upload

if TYPE_CHECKING:
    from .device import Device

# As `finish` of network.cu numbers them.
_ENDINGS = ("tanh", "relu", "mask")


class NetworkStack:
    """Networks of one architecture, their weights on the card.

    They may read different numbers of bins: those that one of them does not read are 0 for it.

    Parameters
    ----------
    device : Device
        The card.
    networks : sequence of (ModelConfig, state dict)
        The configurations differ in nothing but `max_bin`.
    math : str
        How products are computed, see `Device.gemm`.
    """

    def __init__(
        self, device: Device, networks: Sequence[tuple[ModelConfig, StateDict]], math: str
    ) -> None:
        self.device, self._math = device, math
        self.config = config = networks[0][0]
        self.nb_targets = len(networks)
        self.nb_read = max(c.nb_input_bins for c, _ in networks)
        # Rows of features begin at multiples of 16 bytes, which the fast products need.
        self._width = -(-self.nb_read // 4) * 4
        self._launch = Kernels(device, "network.cu").launch
        self._scans: dict[tuple[bool, ...], Scan] = {}
        states = [state for _, state in networks]
        folded = [fold(c, state) for c, state in networks]
        configs = [c for c, _ in networks]
        norms = ("bn1", "bn2", "bn3")
        layers = range(config.nb_layers)
        keys = [
            [suffix_of(layer, direction) for direction in range(config.nb_directions)]
            for layer in layers
        ]
        with device.active():
            self._shift = self._stack(map(self._widened, configs, (f.shift for f in folded)))
            self._gain = self._stack(map(self._widened, configs, (f.gain for f in folded)))
            self._scale = {name: self._stack(f.scale[name] for f in folded) for name in norms}
            self._bias = {name: self._stack(f.bias[name] for f in folded) for name in norms}
            # (J, H, C * W), (J, H, H + D * U), (J, C * B, H)
            self._fc1 = self._stack(
                map(self._widened, configs, (state["fc1.weight"] for state in states))
            )
            self._fc2 = self._stack(state["fc2.weight"] for state in states)
            self._fc3 = self._stack(state["fc3.weight"] for state in states)
            # Of each layer (J, D, 4 * U, inputs), (J, D, 4 * U, U) and (J, D, 4 * U).
            self._w_ih, self._w_hh = (
                [
                    self._stack([s[f"lstm.{name}{key}"] for key in keys[i]] for s in states)
                    for i in layers
                ]
                for name in ("weight_ih", "weight_hh")
            )
            self._gate_bias = [
                self._stack([gate_bias(s, key) for key in keys[i]] for s in states) for i in layers
            ]

    def _stack(self, arrays: Any) -> Array:
        return upload(self.device, np.stack([np.asarray(a) for a in arrays]), np.float32)

    def _widened(self, config: ModelConfig, values: np.ndarray) -> np.ndarray:
        """Fill values of the input features [shape=(..., C * bins)] up to W bins with zeros."""
        shape = (*values.shape[:-1], config.nb_channels)
        out = np.zeros((*shape, self._width), np.float32)
        out[..., : config.nb_input_bins] = values.reshape(*shape, config.nb_input_bins)
        return out.reshape(*values.shape[:-1], -1)

    @property
    def size(self) -> StackSize:
        """Numbers for the memory plan."""
        c = self.config
        return StackSize(
            nb_targets=self.nb_targets,
            hidden_size=c.hidden_size,
            lstm_hidden_size=c.lstm_hidden_size,
            nb_directions=c.nb_directions,
            nb_read=self.nb_read,
        )

    def _product(self, a: Array, b: Array, out: Array, *, accumulate: bool = False) -> None:
        self.device.gemm(a, b, out, trans_b=True, accumulate=accumulate, math=self._math)

    def _finish(
        self, x: Array, ending: str, norm: str, targets: slice, out: Array, mixture: Array = None
    ) -> None:
        nb_batches, nb_rows, width = x.shape
        grid, factors = spread(width, nb_batches * nb_rows), (self._scale, self._bias)
        distances = (np.int64(stride // 4) for stride in out.strides[:2])
        self._launch(
            "finish",
            grid,
            x,
            *(factor[norm][targets] for factor in factors),
            mixture,
            out,
            *x.shape,
            *distances,
            _ENDINGS.index(ending),
        )

    def encode(self, mags: Array, out: Array) -> None:
        """Normalise, fc1, bn1, tanh.

        Parameters
        ----------
        mags : Array [shape=(F, C, at least R)]
            Magnitudes of the mixture.
        out : Array [shape=(J, F, H)]
            Batches and rows may lie apart.
        """
        xp, (nb_frames, nb_channels, _) = self.device.xp, mags.shape
        width = nb_channels * self._width
        features = xp.empty((self.nb_targets, nb_frames, width), np.float32)
        grid = spread(width, self.nb_targets * nb_frames)
        sizes = self.nb_targets, *mags.shape, self._width
        self._launch("normalise", grid, mags, self._shift, self._gain, features, *sizes)
        x = xp.empty((self.nb_targets, nb_frames, self.config.hidden_size), np.float32)
        self._product(features, self._fc1, x)
        self._finish(x, "tanh", "bn1", slice(None), out)

    def gates(
        self, layer: int, targets: slice, directions: slice, inputs: Sequence[Array]
    ) -> Array:
        """Products of the inputs with the weights: the gates without biases and recurrent part.

        Parameters
        ----------
        layer : int
            Layer, from 0.
        targets, directions : slice
            Those to compute.
        inputs : sequence of Array [shape=(G, F, inputs)]
            For each direction its frames; batches and rows may lie apart.

        Returns
        -------
        Array [shape=(G * directions, F, 4 * U)]
        """
        weights = self._w_ih[layer][targets, directions]
        nb_targets, nb_directions, width, _ = weights.shape
        nb_frames = inputs[0].shape[1]
        out = self.device.xp.empty((nb_targets, nb_directions, nb_frames, width), np.float32)
        for d, x in enumerate(inputs):
            self._product(x, weights[:, d], out[:, d])
        return out.reshape(-1, nb_frames, width)

    def initial_state(self, nb_targets: int, nb_directions: int) -> Array:
        """State of zeros of the recurrence of one layer of so many targets."""
        shape = (2, nb_targets * nb_directions, 1, self.config.lstm_hidden_size)
        return self.device.xp.zeros(shape, np.float32)

    def scan(
        self, layer: int, targets: slice, directions: slice, gates: Array, state: Array
    ) -> Array:
        """Walk through the next frames of a layer, all sequences side by side.

        Parameters
        ----------
        layer, targets, directions
            As for `gates`.
        gates : Array [shape=(G * directions, F, 4 * U)]
            From there.
        state : Array
            From `initial_state`, updated in place. Chunks of direction 1 come last first.

        Returns
        -------
        Array [shape=(G, directions, F, U)]
        """
        weights = self._w_hh[layer][targets, directions]
        nb_targets, nb_directions, _, hidden = weights.shape
        nb_sequences, nb_frames, _ = gates.shape
        reverse = (False, True)[directions] * nb_targets
        if reverse not in self._scans:
            self._scans[reverse] = Scan(self.device, hidden, reverse)
        out = self.device.xp.empty((nb_frames, 1, nb_sequences * hidden), np.float32)
        self._scans[reverse].forward(
            gates[:, :, None],
            weights.reshape(nb_sequences, 4 * hidden, hidden),
            out,
            keep=False,
            bias=self._gate_bias[layer][targets, directions].reshape(nb_sequences, -1),
            state=state,
        )
        return out.reshape(nb_frames, nb_targets, nb_directions, hidden).transpose(1, 2, 0, 3)

    def combine(self, targets: slice, encoded: Array, layers: Array, out: Array) -> None:
        """Compute fc2, bn2 and ReLU of the skip connection and the outputs of the last layer.

        Parameters
        ----------
        targets : slice
            G of the targets.
        encoded : Array [shape=(G, F, H)]
        layers : Array [shape=(G, F, D * U)]
        out : Array [shape=(G, F, H)]
            May be `encoded`. Batches and rows of all three may lie apart.
        """
        hidden_size, weight = self.config.hidden_size, self._fc2[targets]
        x = self.device.xp.empty(encoded.shape, np.float32)
        self._product(encoded, weight[:, :, :hidden_size], x)
        self._product(layers, weight[:, :, hidden_size:], x, accumulate=True)
        self._finish(x, "relu", "bn2", targets, out)

    def decode(self, z: Array, mags: Array, out: Array) -> None:
        """Compute fc3, bn3, output scaling and ReLU, and multiply with the mixture.

        Parameters
        ----------
        z : Array [shape=(J, F, H)]
            From `combine`; batches and rows may lie apart.
        mags : Array [shape=(F, C, B)]
            Magnitudes of the mixture.
        out : Array [shape=(J, F, C, B)]
            Magnitudes of the targets.
        """
        x = out.reshape(self.nb_targets, len(mags), -1)
        self._product(z, self._fc3, x)
        self._finish(x, "mask", "bn3", slice(None), x, mags)
