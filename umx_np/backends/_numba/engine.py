"""Both passes of the network on compiled kernels and whole-sequence matrix products.

Between the input layer and the output layer everything is feature-major, ``(features, T, B)``: the
samples of one frame fill the lanes of the recurrent kernels, a feature is a contiguous row for the
batch norms, and every matrix product is one call of BLAS, which reads either operand transposed at
no cost. BLAS is called by this thread only and while no kernel runs, so that its threads and ours
never compete.

Notation: T frames, B samples, P samples padded to whole vectors, N = T * B, H units of one
direction, D directions. The specification is `umx_np.nn.reference_engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import threadpoolctl

from ...config import ModelConfig
from .._pool import parallel_map
from ..reference import BATCHNORM_EPS
from .bins import bin_kernels
from .compiling import aligned_empty
from .features import RELU, TANH, feature_kernels
from .lstm import lstm_kernels, pack_backward, pack_forward, padded_samples, tile_shape

Arrays = Mapping[str, np.ndarray]


class BatchStatistics(NamedTuple):
    """Mean and biased variance [shape=(nb_features,)] of a batch of `rows` rows."""

    mean: np.ndarray
    variance: np.ndarray
    rows: int


class Norm(NamedTuple):
    """What the backward pass of a batch norm needs, all [shape=(nb_features,)]."""

    mean: np.ndarray
    inverse_std: np.ndarray
    training: bool


class LayerCache(NamedTuple):
    """What the backward pass of an LSTM layer needs.

    Attributes
    ----------
    x : ndarray [shape=(I, T, P)]
        Input, after dropout.
    gates : ndarray [shape=(D, 4H, T, P)]
        Activations of the gates; becomes their gradients.
    cells, out : ndarray [shape=(D, H, T, P)]
        c and h of every frame.
    """

    x: np.ndarray
    gates: np.ndarray
    cells: np.ndarray
    out: np.ndarray


class NumbaEngine:
    """See `umx_np.backends.training.TrainingEngine`."""

    def __init__(self, config: ModelConfig, dtype: np.dtype, threads: int) -> None:
        self.config = config
        self.dtype = dtype
        self.threads = threads
        self._bins = bin_kernels(dtype)
        self._features = feature_kernels(dtype)
        self._pools = threadpoolctl.ThreadpoolController().select(user_api="blas")

    @contextmanager
    def _blas(self) -> Iterator[None]:
        """Let BLAS use our number of threads."""
        with self._pools.limit(limits=self.threads):
            yield

    # -- tasks -------------------------------------------------------------------------------------

    def _spans(self, total: int, step: int, function: Callable[[int, int], None]) -> None:
        """Call ``function(start, stop)`` for ranges of at most `step`, on all threads."""
        spans = [(start, min(start + step, total)) for start in range(0, total, step)]
        parallel_map(self.threads, lambda span: function(*span), spans)

    def _rows(self, total: int, function: Callable[[int, int], None]) -> None:
        """Ranges of rows, a few for each thread so that a late one costs little."""
        self._spans(total, max(1, -(-total // (4 * self.threads))), function)

    def _columns(self, total: int, function: Callable[[int, int], None]) -> None:
        self._spans(total, self._bins.columns, function)

    # -- forward -----------------------------------------------------------------------------------

    def forward(
        self,
        x: np.ndarray,
        parameters: Arrays,
        buffers: Arrays,
        masks: Sequence[np.ndarray],
        *,
        training: bool,
        keep: bool,
    ) -> tuple[np.ndarray, dict[str, Any], dict[str, Any]]:
        with self._blas():
            return self._forward(x, parameters, buffers, masks, training, keep)

    def _forward(
        self,
        x: np.ndarray,
        p: Arrays,
        buffers: Arrays,
        masks: Sequence[np.ndarray],
        training: bool,
        keep: bool,
    ) -> tuple[np.ndarray, dict[str, Any], dict[str, Any]]:
        config, dtype = self.config, self.dtype
        nb_frames, nb_samples, nb_channels, _ = x.shape
        rows = nb_frames * nb_samples
        statistics: dict[str, BatchStatistics] = {}

        def norm(name: str, measure: Callable[[], tuple[np.ndarray, np.ndarray]]) -> Norm:
            mean, variance = buffers[f"{name}.running_mean"], buffers[f"{name}.running_var"]
            if training:
                mean, variance = measure()
                statistics[name] = BatchStatistics(mean, variance, rows)
            return Norm(mean, 1.0 / np.sqrt(variance + dtype.type(BATCHNORM_EPS)), training)

        # The scale of the input goes to the weights: there are fewer of them.
        scale = np.tile(p["input_scale"], nb_channels)
        shifted = np.empty((rows, nb_channels, config.nb_input_bins), dtype)
        cube = x.reshape(rows, nb_channels, -1)
        self._rows(
            rows,
            lambda start, stop: self._bins.shift_input(cube, p["input_mean"], shifted, start, stop),
        )
        flat = shifted.reshape(rows, -1)
        z1 = (p["fc1.weight"] * scale) @ flat.T
        joined = aligned_empty((2 * config.hidden_size, rows), dtype)
        encoded, h = joined[: config.hidden_size], joined[config.hidden_size :]
        norm1 = norm("bn1", lambda: self._measure_rows(z1))
        self._normalise(z1, norm1, p, "bn1", encoded, TANH)

        layers = self._lstm(encoded, h, p, masks, nb_frames, nb_samples, keep)

        z2 = p["fc2.weight"] @ joined
        combined = np.empty_like(z2)
        norm2 = norm("bn2", lambda: self._measure_rows(z2))
        self._normalise(z2, norm2, p, "bn2", combined, RELU)

        z3 = combined.T @ p["fc3.weight"].T
        norm3 = norm("bn3", lambda: self._measure_columns(z3))
        gain, offset = self._output_scaling(norm3, p, nb_channels)
        y = np.empty_like(z3)
        mix = x.reshape(rows, -1)
        self._columns(
            z3.shape[1],
            lambda start, stop: self._bins.decode(
                *(a.reshape(-1) for a in (z3, mix, gain, offset, y)), *z3.shape, start, stop
            ),
        )
        cache = {
            "x": x,
            "flat": flat,
            "z1": z1,
            "norm1": norm1,
            "joined": joined,
            "layers": layers,
            "masks": masks,
            "z2": z2,
            "norm2": norm2,
            "combined": combined,
            "z3": z3,
            "norm3": norm3,
        }
        return y.reshape(x.shape), cache if keep else {}, statistics

    def _measure_rows(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, variance = np.empty((2, len(z)), self.dtype)
        self._rows(
            len(z),
            lambda start, stop: self._features.statistics(z, mean, variance, start, stop),
        )
        return mean, variance

    def _measure_columns(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows, columns = z.shape
        shift, sums = z[0], np.zeros((2, columns))
        scratch = np.empty(2 * columns, self.dtype)
        self._columns(
            columns,
            lambda start, stop: self._bins.statistics(
                z.reshape(-1), shift, sums.reshape(-1), rows, columns, start, stop, scratch
            ),
        )
        moved, squares = sums / rows
        variance = np.maximum(squares - moved**2, 0.0)
        return (shift + moved).astype(self.dtype), variance.astype(self.dtype)

    def _normalise(
        self, z: np.ndarray, norm: Norm, p: Arrays, name: str, out: np.ndarray, activation: int
    ) -> None:
        scale = p[f"{name}.weight"] * norm.inverse_std
        shift = p[f"{name}.bias"] - norm.mean * scale

        def some_rows(start: int, stop: int) -> None:
            relu = activation == RELU
            self._features.normalise(z, scale, shift, relu, out, start, stop)
            if activation == TANH:
                np.tanh(out[start:stop], out=out[start:stop])

        self._rows(len(z), some_rows)

    def _output_scaling(
        self, norm: Norm, p: Arrays, nb_channels: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gain and offset that are the last batch norm and the output scaling in one."""
        scale, mean = (np.tile(p[name], nb_channels) for name in ("output_scale", "output_mean"))
        gain = p["bn3.weight"] * norm.inverse_std
        offset = p["bn3.bias"] - norm.mean * gain
        return gain * scale, offset * scale + mean

    def _lstm(
        self,
        encoded: np.ndarray,
        h: np.ndarray,
        p: Arrays,
        masks: Sequence[np.ndarray],
        nb_frames: int,
        nb_samples: int,
        keep: bool,
    ) -> list[LayerCache]:
        """All layers; the last one's output goes to `h`."""
        config = self.config
        directions, hidden = config.nb_directions, config.lstm_hidden_size
        kernels = lstm_kernels(
            tile_shape(nb_samples, directions, self.threads, self.dtype), self.dtype
        )
        rows, lanes = kernels.shape
        padded = padded_samples(nb_samples, lanes)
        shape = (nb_frames, padded)
        x = _padded(encoded.reshape(-1, nb_frames, nb_samples), padded)
        layers: list[LayerCache] = []
        for layer in range(config.nb_layers):
            if layer > 0 and masks:
                x = x * _padded(masks[layer - 1], padded)
            W_ih = self._both(p, "weight_ih", layer)
            gates = aligned_empty((directions, 4 * hidden, *shape), self.dtype)
            np.matmul(W_ih, x.reshape(len(x), -1), out=gates.reshape(len(W_ih), -1))
            is_last = layer == config.nb_layers - 1
            if is_last and padded == nb_samples:
                out = h.reshape(directions, hidden, *shape)
            else:
                out = aligned_empty((directions, hidden, *shape), self.dtype)
            cells = aligned_empty((directions, hidden, *shape), self.dtype)

            def scan(
                task: tuple[int, int],
                layer: int = layer,
                gates: np.ndarray = gates,
                out: np.ndarray = out,
                cells: np.ndarray = cells,
            ) -> None:
                direction, sample = task
                end = _suffix(layer, direction)
                kernels.forward(
                    gates[direction].reshape(-1),
                    p[f"lstm.bias_ih{end}"] + p[f"lstm.bias_hh{end}"],
                    pack_forward(p[f"lstm.weight_hh{end}"], rows),
                    out[direction].reshape(-1),
                    cells[direction].reshape(-1),
                    *(nb_frames, padded, hidden, sample),
                    direction == 1,
                    aligned_empty((kernels.forward_scratch(hidden),), self.dtype),
                )

            self._scan_all(scan, padded, lanes)
            if keep:
                layers.append(LayerCache(x, gates, cells, out))
            x = out.reshape(directions * hidden, *shape)
        if padded != nb_samples:
            h.reshape(-1, nb_frames, nb_samples)[...] = x[:, :, :nb_samples]
        return layers

    def _scan_all(self, scan: Callable[[tuple[int, int]], None], padded: int, lanes: int) -> None:
        """Call `scan` for all directions and blocks of samples, on all threads."""
        tasks = [
            (direction, sample)
            for sample in range(0, padded, lanes)
            for direction in range(self.config.nb_directions)
        ]
        parallel_map(self.threads, scan, tasks)

    def _both(self, p: Arrays, part: str, layer: int) -> np.ndarray:
        """The weights of all directions of a layer on top of each other."""
        directions = range(self.config.nb_directions)
        return np.concatenate([p[f"lstm.{part}{_suffix(layer, d)}"] for d in directions])

    # -- backward ----------------------------------------------------------------------------------

    def backward(
        self,
        d_y: np.ndarray,
        cache: dict[str, Any],
        parameters: Arrays,
        *,
        input_gradient: bool,
    ) -> dict[str, np.ndarray]:
        with self._blas():
            return self._backward(d_y, cache, parameters, input_gradient)

    def _backward(
        self, d_y: np.ndarray, cache: dict[str, Any], p: Arrays, input_gradient: bool
    ) -> dict[str, np.ndarray]:
        config = self.config
        x = cache["x"]
        nb_frames, nb_samples, nb_channels, _ = x.shape
        g: dict[str, np.ndarray] = {}

        d_z3 = self._decode_backward(d_y, cache, p, g)
        combined = cache.pop("combined")
        g["fc3.weight"] = d_z3.T @ combined.T
        d = p["fc3.weight"].T @ d_z3.T
        del d_z3
        self._norm_backward(d, combined, cache.pop("z2"), cache["norm2"], p, "bn2", RELU, g)
        joined = cache["joined"]
        g["fc2.weight"] = d @ joined.T
        d_joined = p["fc2.weight"].T @ d

        d_encoded, d_h = d_joined[: config.hidden_size], d_joined[config.hidden_size :]
        shape = (-1, nb_frames, nb_samples)
        d_x = self._lstm_backward(d_h.reshape(shape), cache.pop("layers"), cache["masks"], p, g)
        d_encoded = d_encoded.reshape(shape)
        d_encoded += d_x[:, :, :nb_samples]
        d = d_encoded.reshape(config.hidden_size, -1)

        encoded = joined[: config.hidden_size]
        self._norm_backward(d, encoded, cache.pop("z1"), cache["norm1"], p, "bn1", TANH, g)
        # With W' = W scale and G = d_z1^T (x + mean), the product with the weights before their
        # scale: d_W = G scale and d_scale = sum of W G; the gradient of the mean, a sum over rows,
        # needs only the sum of d_z1. The gradient of the input itself, the largest product of all,
        # is computed for those only who ask for it.
        weight, scale = p["fc1.weight"], np.tile(p["input_scale"], nb_channels)
        gradient = d @ cache.pop("flat")
        per_bin = (-1, nb_channels, config.nb_input_bins)
        g["input_scale"] = np.einsum(
            "hck,hck->k", weight.reshape(per_bin), gradient.reshape(per_bin)
        )
        gradient *= scale
        g["fc1.weight"] = gradient
        d_bins = (d.sum(axis=1) @ weight) * scale
        g["input_mean"] = d_bins.reshape(nb_channels, -1).sum(axis=0)
        if input_gradient:
            g["input"] = np.zeros_like(x)
            d_read = d.T @ (weight * scale)
            read = g["input"][..., : config.nb_input_bins]
            read[...] = d_read.reshape(read.shape)
        return g

    def _decode_backward(
        self, d_y: np.ndarray, cache: dict[str, Any], p: Arrays, g: dict[str, np.ndarray]
    ) -> np.ndarray:
        """From the result to fc3's output, in the memory of the latter."""
        z, norm, x = cache.pop("z3"), cache["norm3"], cache["x"]
        rows, columns = z.shape
        nb_channels = x.shape[2]
        gain, offset = self._output_scaling(norm, p, nb_channels)
        flat = [d_y.reshape(-1), x.reshape(-1), z.reshape(-1), gain, offset, norm.mean]
        sums = np.zeros((2, columns))
        scratch = np.empty(2 * columns, self.dtype)
        self._columns(
            columns,
            lambda start, stop: self._bins.decode_sums(
                *flat, norm.inverse_std, sums.reshape(-1), rows, columns, start, stop, scratch
            ),
        )
        # With n = weight x^ + bias before the output scaling, sum d_u n follows from both sums.
        scale = np.tile(p["output_scale"], nb_channels)
        total, product = sums
        g["bn3.weight"] = (scale * product).astype(self.dtype)
        g["bn3.bias"] = (scale * total).astype(self.dtype)
        by_channel = (nb_channels, -1)
        d_scale = p["bn3.weight"] * product + p["bn3.bias"] * total
        g["output_scale"] = d_scale.reshape(by_channel).sum(axis=0).astype(self.dtype)
        g["output_mean"] = total.reshape(by_channel).sum(axis=0).astype(self.dtype)
        share = 1.0 / rows if norm.training else 0.0
        first = (gain * total * share).astype(self.dtype)
        second = (gain * norm.inverse_std * product * share).astype(self.dtype)
        self._columns(
            columns,
            lambda start, stop: self._bins.decode_backward(
                *flat, first, second, rows, columns, start, stop
            ),
        )
        return z

    def _norm_backward(
        self,
        d: np.ndarray,
        y: np.ndarray,
        z: np.ndarray,
        norm: Norm,
        p: Arrays,
        name: str,
        activation: int,
        g: dict[str, np.ndarray],
    ) -> None:
        """Through activation and batch norm, in place in `d`."""
        d_weight = g[f"{name}.weight"] = np.zeros_like(norm.mean)
        d_bias = g[f"{name}.bias"] = np.zeros_like(norm.mean)
        weight = p[f"{name}.weight"]
        self._rows(
            len(d),
            lambda start, stop: self._features.backward(
                *(d, y, z, norm.mean, norm.inverse_std, weight, activation, norm.training),
                *(d_weight, d_bias, start, stop),
            ),
        )

    def _lstm_backward(
        self,
        d_h: np.ndarray,
        layers: list[LayerCache],
        masks: Sequence[np.ndarray],
        p: Arrays,
        g: dict[str, np.ndarray],
    ) -> np.ndarray:
        """Return the gradient of the first layer's input [shape=(I, T, P)]."""
        directions, hidden = self.config.nb_directions, self.config.lstm_hidden_size
        nb_frames, nb_samples = d_h.shape[1:]
        kernels = lstm_kernels(
            tile_shape(nb_samples, directions, self.threads, self.dtype), self.dtype
        )
        rows, lanes = kernels.shape
        padded = padded_samples(nb_samples, lanes)
        ones = np.ones(nb_frames * padded, self.dtype)
        d_out = _padded(d_h, padded)
        for layer in range(len(layers) - 1, -1, -1):
            x, gates, cells, out = layers.pop()
            d_out = d_out.reshape(directions, hidden, nb_frames, padded)

            def scan(
                task: tuple[int, int],
                layer: int = layer,
                gates: np.ndarray = gates,
                d_out: np.ndarray = d_out,
                cells: np.ndarray = cells,
            ) -> None:
                direction, sample = task
                kernels.backward(
                    gates[direction].reshape(-1),
                    pack_backward(p[f"lstm.weight_hh{_suffix(layer, direction)}"], rows),
                    d_out[direction].reshape(-1),
                    cells[direction].reshape(-1),
                    *(nb_frames, padded, hidden, sample),
                    direction == 1,
                    aligned_empty((kernels.backward_scratch(hidden),), self.dtype),
                )

            self._scan_all(scan, padded, lanes)
            d_a = gates.reshape(directions * 4 * hidden, -1)
            inputs = x.reshape(len(x), -1)
            d_bias = d_a @ ones  # B8
            d_W_ih = d_a @ inputs.T  # B9
            d_out = self._both(p, "weight_ih", layer).T @ d_a  # B11
            for direction in range(directions):
                end = _suffix(layer, direction)
                part = slice(direction * 4 * hidden, (direction + 1) * 4 * hidden)
                # B10: the state that a frame began with is that of its neighbour.
                later, before = slice(padded, None), slice(None, -padded)
                if direction == 1:
                    later, before = before, later
                states = out[direction].reshape(hidden, -1)[:, before]
                g[f"lstm.weight_hh{end}"] = d_a[part][:, later] @ states.T
                g[f"lstm.weight_ih{end}"] = d_W_ih[part]
                g[f"lstm.bias_ih{end}"] = d_bias[part]
                g[f"lstm.bias_hh{end}"] = d_bias[part].copy()
            if layer > 0 and masks:
                d_out *= _padded(masks[layer - 1], padded).reshape(len(d_out), -1)
        return d_out.reshape(-1, nb_frames, padded)


def _padded(x: np.ndarray, samples: int) -> np.ndarray:
    """``x`` [shape=(features, T, B)] with zeros for more samples; itself if it needs none."""
    if x.shape[2] == samples:
        return x
    out = aligned_empty((*x.shape[:2], samples), x.dtype)
    out[:, :, : x.shape[2]] = x
    out[:, :, x.shape[2] :] = 0
    return out


def _suffix(layer: int, direction: int) -> str:
    return f"_l{layer}" + ("_reverse" if direction else "")
