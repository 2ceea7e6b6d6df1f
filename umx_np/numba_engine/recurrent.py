"""The LSTM layers of a batch: whole-sequence products around the recurrent kernels.

Activations are feature-major, ``(features, T, P)``, with the B samples padded to P so that they
fill whole vectors. Samples do not meet in an LSTM, so padded ones, whose inputs and gradients are
zero, change nothing. The directions of a layer stand on top of each other: their input projections,
the gradients of these weights, and the gradient of the input are one product each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..config import ModelConfig
from .compiling import aligned_empty
from .lstm import LstmKernels, lstm_kernels, pack_backward, pack_forward, padded_samples, tile_shape
from .running import Runner

Arrays = Mapping[str, np.ndarray]


class LayerCache(NamedTuple):
    """Values that the backward pass of a layer needs; D directions of H units.

    Attributes
    ----------
    x : ndarray [shape=(I, T, P)]
        Input, after dropout.
    gates : ndarray [shape=(D * 4H, T * P)]
        Activations of the gates; becomes their gradients.
    cells, out : ndarray [shape=(D * H, T * P)]
        c and h of every frame.
    owned : list of ndarray
        Those of the arrays that go back to the runner.
    """

    x: np.ndarray
    gates: np.ndarray
    cells: np.ndarray
    out: np.ndarray
    owned: list[np.ndarray]


class LstmStack:
    """All LSTM layers of a network.

    Parameters
    ----------
    config : ModelConfig
        Architecture.
    runner : Runner
        Threads and memory.
    """

    def __init__(self, config: ModelConfig, runner: Runner) -> None:
        self.config = config
        self.runner = runner
        self.directions = config.nb_directions
        self.hidden = config.lstm_hidden_size

    def _kernels(self, nb_samples: int) -> LstmKernels:
        runner = self.runner
        shape = tile_shape(nb_samples, self.directions, runner.threads, runner.dtype)
        return lstm_kernels(shape, runner.dtype)

    def forward(
        self,
        x: np.ndarray,
        parameters: Arrays,
        masks: Sequence[np.ndarray],
        out: np.ndarray,
        *,
        keep: bool,
    ) -> list[LayerCache]:
        """Run all layers.

        Parameters
        ----------
        x : ndarray [shape=(I, T, B)]
            Input.
        parameters : mapping of str to ndarray
            Under PyTorch's names.
        masks : sequence of ndarray [shape=(D * H, T, B)]
            Dropout masks after every layer but the last, or none.
        out : ndarray [shape=(D * H, T, B)]
            Where to put the outputs of the last layer.
        keep : bool
            Whether a backward pass follows.
        """
        runner, hidden = self.runner, self.hidden
        _, nb_frames, nb_samples = x.shape
        kernels = self._kernels(nb_samples)
        padded = padded_samples(nb_samples, kernels.shape.lanes)
        layers: list[LayerCache] = []
        x = _padded(x, padded)
        for layer in range(self.config.nb_layers):
            owned = []
            if layer > 0 and masks:
                dropped = runner.take(*x.shape)
                np.multiply(x, _padded(masks[layer - 1], padded), out=dropped)
                owned.append(dropped)
                x = dropped
            W_ih = self._stacked(parameters, "weight_ih", layer)
            gates = runner.product(W_ih, x.reshape(len(x), -1))
            cells = runner.take(self.directions * hidden, nb_frames * padded)
            owned += [gates, cells]
            if layer == self.config.nb_layers - 1 and padded == nb_samples:
                h = out.reshape(len(cells), -1)
            else:
                h = runner.take(*cells.shape)
                owned.append(h)

            def scan(
                direction: int,
                sample: int,
                layer: int = layer,
                gates: np.ndarray = gates,
                h: np.ndarray = h,
                cells: np.ndarray = cells,
            ) -> None:
                name = f"l{layer}" + ("_reverse" if direction else "")
                bias = parameters[f"lstm.bias_ih_{name}"] + parameters[f"lstm.bias_hh_{name}"]
                units = slice(direction * hidden, (direction + 1) * hidden)
                kernels.forward(
                    gates[direction * 4 * hidden : (direction + 1) * 4 * hidden].reshape(-1),
                    bias,
                    pack_forward(parameters[f"lstm.weight_hh_{name}"], kernels.shape.rows),
                    h[units].reshape(-1),
                    cells[units].reshape(-1),
                    (nb_frames, padded, hidden),
                    sample,
                    direction == 1,
                    aligned_empty((kernels.forward_scratch(hidden),), runner.dtype),
                )

            self._scan_all(scan, padded, kernels.shape.lanes)
            if keep:
                layers.append(LayerCache(x, gates, cells, h, owned))
            x = h.reshape(-1, nb_frames, padded)
        if padded != nb_samples:
            out[...] = x[:, :, :nb_samples]
        return layers

    def backward(
        self,
        d_out: np.ndarray,
        layers: list[LayerCache],
        parameters: Arrays,
        masks: Sequence[np.ndarray],
        gradients: dict[str, np.ndarray],
    ) -> np.ndarray:
        """Gradients of all layers; B1 to B11 of docs/lstm_backward.md.

        Parameters
        ----------
        d_out : ndarray [shape=(D * H, T, B)]
            Gradient of the outputs.
        layers : list of LayerCache
            From `forward`; used up.
        parameters, masks
            As given to `forward`.
        gradients : dict of str to ndarray
            Where to put those of the parameters.

        Returns
        -------
        ndarray [shape=(I, T, P)]
            Gradient of the input.
        """
        runner, hidden = self.runner, self.hidden
        _, nb_frames, nb_samples = d_out.shape
        kernels = self._kernels(nb_samples)
        padded = padded_samples(nb_samples, kernels.shape.lanes)
        d_h = _padded(d_out, padded).reshape(self.directions * hidden, -1)
        for layer in range(self.config.nb_layers - 1, -1, -1):
            x, gates, cells, h, owned = layers.pop()

            def scan(
                direction: int,
                sample: int,
                layer: int = layer,
                gates: np.ndarray = gates,
                d_h: np.ndarray = d_h,
                cells: np.ndarray = cells,
            ) -> None:
                name = f"l{layer}" + ("_reverse" if direction else "")
                units = slice(direction * hidden, (direction + 1) * hidden)
                kernels.backward(
                    gates[direction * 4 * hidden : (direction + 1) * 4 * hidden].reshape(-1),
                    pack_backward(parameters[f"lstm.weight_hh_{name}"], kernels.shape.rows),
                    d_h[units].reshape(-1),
                    cells[units].reshape(-1),
                    (nb_frames, padded, hidden),
                    sample,
                    direction == 1,
                    aligned_empty((kernels.backward_scratch(hidden),), runner.dtype),
                )

            self._scan_all(scan, padded, kernels.shape.lanes)
            d_a = gates
            d_bias = self._row_sums(d_a)  # B8
            d_W_ih = runner.product(d_a, x.reshape(len(x), -1).T, keep=True)  # B9
            for direction in range(self.directions):
                name = f"l{layer}" + ("_reverse" if direction else "")
                part = slice(direction * 4 * hidden, (direction + 1) * 4 * hidden)
                units = slice(direction * hidden, (direction + 1) * hidden)
                # B10: the state that a frame began with is that of its neighbour.
                later, before = slice(padded, None), slice(None, -padded)
                if direction == 1:
                    later, before = before, later
                gradients[f"lstm.weight_hh_{name}"] = runner.product(
                    d_a[part, later], h[units, before].T, keep=True
                )
                gradients[f"lstm.weight_ih_{name}"] = d_W_ih[part]
                gradients[f"lstm.bias_ih_{name}"] = d_bias[part].copy()
                gradients[f"lstm.bias_hh_{name}"] = d_bias[part].copy()
            if layer < self.config.nb_layers - 1:
                owned.append(d_h)
            d_h = runner.product(self._stacked(parameters, "weight_ih", layer).T, d_a)  # B11
            if layer > 0 and masks:
                d_h *= _padded(masks[layer - 1], padded).reshape(len(d_h), -1)
            runner.give(*owned)
        return d_h.reshape(-1, nb_frames, padded)

    def _scan_all(self, scan: Callable[[int, int], None], padded: int, lanes: int) -> None:
        """Call `scan` for all directions and blocks of samples, on all threads."""
        tasks = [
            (direction, sample)
            for sample in range(0, padded, lanes)
            for direction in range(self.directions)
        ]
        self.runner.map(lambda task: scan(*task), tasks)

    def _row_sums(self, d_a: np.ndarray) -> np.ndarray:
        """Sums over frames and samples, as a product with ones, which adds up in parallel lanes."""
        ones, sums = np.ones(d_a.shape[1], d_a.dtype), np.empty(len(d_a), d_a.dtype)

        def some_rows(start: int, stop: int) -> None:
            np.matmul(d_a[start:stop], ones, out=sums[start:stop])

        self.runner.rows(len(d_a), some_rows)
        return sums

    def _stacked(self, parameters: Arrays, part: str, layer: int) -> np.ndarray:
        """Weights of all directions of a layer on top of each other."""
        names = [f"lstm.{part}_l{layer}", f"lstm.{part}_l{layer}_reverse"][: self.directions]
        return np.concatenate([parameters[name] for name in names])


def _padded(x: np.ndarray, samples: int) -> np.ndarray:
    """``x`` [shape=(features, T, B)] with zeros for more samples; itself if it needs none."""
    if x.shape[2] == samples:
        return x
    out = aligned_empty((*x.shape[:2], samples), x.dtype)
    out[:, :, : x.shape[2]] = x
    out[:, :, x.shape[2] :] = 0
    return out
