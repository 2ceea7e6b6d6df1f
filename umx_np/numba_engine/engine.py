"""Both passes of the network on compiled kernels and whole-sequence matrix products.

Between the input layer and the output layer everything is feature-major, ``(features, T, B)``: the
samples of one frame fill the lanes of the recurrent kernels, a feature is a contiguous row for the
batch norms, and every matrix product is one call of BLAS.

The specification is `umx_np.backends.reference_engine`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..backends.training import CounterMasks, ForwardPass
from ..config import ModelConfig
from ..layers.batchnorm import BATCHNORM_EPS, BatchStatistics
from .bins import bin_kernels
from .features import RELU, TANH, feature_kernels
from .recurrent import LstmStack
from .running import Runner

Arrays = Mapping[str, np.ndarray]


class Norm(NamedTuple):
    """Values that the backward pass of a batch norm needs, all [shape=(nb_features,)]."""

    mean: np.ndarray
    inverse_std: np.ndarray
    training: bool


class NumbaEngine:
    """See `umx_np.backends.training.TrainingEngine`."""

    draws_masks = False

    def __init__(
        self, config: ModelConfig, dtype: np.dtype, threads: int, amp: bool = False
    ) -> None:
        self.config = config
        self.dtype = dtype
        self._runner = Runner(dtype, threads, amp)
        self._lstm = LstmStack(config, self._runner)
        self._bins = bin_kernels(dtype)
        self._features = feature_kernels(dtype)

    def _columns(self, total: int, function: Callable[[int, int], None]) -> None:
        self._runner.spans(total, self._bins.columns(total, self._runner.threads), function)

    # -- forward -----------------------------------------------------------------------------------

    def forward(
        self, x: np.ndarray, parameters: Arrays, buffers: Arrays, how: ForwardPass
    ) -> tuple[np.ndarray, dict[str, Any], dict[str, BatchStatistics]]:
        self._runner.begin(*x.shape)
        with self._runner.own_threads():
            return self._forward(x, parameters, buffers, how)

    def _forward(
        self, x: np.ndarray, p: Arrays, buffers: Arrays, how: ForwardPass
    ) -> tuple[np.ndarray, dict[str, Any], dict[str, BatchStatistics]]:
        masks, training, keep = how
        assert not isinstance(masks, CounterMasks)
        config, dtype, runner = self.config, self.dtype, self._runner
        nb_frames, nb_samples, nb_channels, _ = x.shape
        hidden, rows = config.hidden_size, nb_frames * nb_samples
        statistics: dict[str, BatchStatistics] = {}

        def norm(name: str, measure: Callable[[], tuple[np.ndarray, np.ndarray]]) -> Norm:
            mean, variance = buffers[f"{name}.running_mean"], buffers[f"{name}.running_var"]
            if training:
                mean, variance = measure()
                statistics[name] = BatchStatistics(mean, variance, rows)
            return Norm(mean, 1.0 / np.sqrt(variance + dtype.type(BATCHNORM_EPS)), training)

        # The scale of the input goes to the weights: there are fewer of them.
        scale = np.tile(p["input_scale"], nb_channels)
        cube = x.reshape(rows, nb_channels, -1)
        shifted = runner.take(rows, nb_channels, config.nb_input_bins)
        runner.rows(
            rows,
            lambda start, stop: self._bins.shift_input(cube, p["input_mean"], shifted, start, stop),
        )
        z1 = runner.product(p["fc1.weight"] * scale, shifted.reshape(rows, -1).T)
        joined = runner.take(2 * hidden, rows)
        norm1 = norm("bn1", lambda: self._measure_rows(z1))
        self._normalise(z1, norm1, p, "bn1", joined[:hidden], TANH)

        features = joined.reshape(2 * hidden, nb_frames, nb_samples)
        layers = self._lstm.forward(features[:hidden], p, masks, features[hidden:], keep=keep)

        z2 = runner.product(p["fc2.weight"], joined)
        combined = runner.take(*z2.shape)
        norm2 = norm("bn2", lambda: self._measure_rows(z2))
        self._normalise(z2, norm2, p, "bn2", combined, RELU)

        z3 = runner.product(combined.T, p["fc3.weight"].T)
        norm3 = norm("bn3", lambda: self._measure_columns(z3))
        gain, offset = self._output_scaling(norm3, p, nb_channels)
        y = runner.lend(*x.shape)
        flat = [a.reshape(-1) for a in (z3, x, gain, offset, y)]
        self._columns(
            z3.shape[1], lambda start, stop: self._bins.decode(*flat, *z3.shape, start, stop)
        )
        cache = {"x": x, "masks": masks, "shifted": shifted, "joined": joined, "layers": layers}
        cache |= {"z1": z1, "norm1": norm1, "z2": z2, "norm2": norm2, "z3": z3, "norm3": norm3}
        return y, {**cache, "combined": combined} if keep else {}, statistics

    def _measure_rows(self, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, variance = np.empty((2, len(z)), self.dtype)
        self._runner.rows(
            len(z), lambda start, stop: self._features.statistics(z, mean, variance, start, stop)
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

        self._runner.rows(len(z), some_rows)

    def _output_scaling(
        self, norm: Norm, p: Arrays, nb_channels: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Gain and offset that are the last batch norm and the output scaling in one."""
        scale, mean = (np.tile(p[name], nb_channels) for name in ("output_scale", "output_mean"))
        gain = p["bn3.weight"] * norm.inverse_std
        offset = p["bn3.bias"] - norm.mean * gain
        return gain * scale, offset * scale + mean

    # -- backward ----------------------------------------------------------------------------------

    def backward(
        self, d_y: np.ndarray, cache: dict[str, Any], parameters: Arrays, *, input_gradient: bool
    ) -> dict[str, np.ndarray]:
        self._runner.begin(*d_y.shape)
        with self._runner.own_threads():
            return self._backward(d_y, cache, parameters, input_gradient)

    def _backward(
        self, d_y: np.ndarray, cache: dict[str, Any], p: Arrays, input_gradient: bool
    ) -> dict[str, np.ndarray]:
        config, runner = self.config, self._runner
        x, joined, combined = cache["x"], cache["joined"], cache["combined"]
        nb_frames, nb_samples, nb_channels, _ = x.shape
        hidden = config.hidden_size
        g: dict[str, np.ndarray] = {}

        d_z3 = self._decode_backward(d_y, cache["z3"], cache["norm3"], x, p, g)
        g["fc3.weight"] = runner.product(d_z3.T, combined.T, keep=True)
        d_z2 = runner.product(p["fc3.weight"].T, d_z3.T)
        runner.give(d_z3)

        self._norm_backward(d_z2, combined, cache["z2"], cache["norm2"], p, "bn2", RELU, g)
        g["fc2.weight"] = runner.product(d_z2, joined.T, keep=True)
        d_joined = runner.product(p["fc2.weight"].T, d_z2)
        runner.give(combined, cache["z2"], d_z2)

        d_features = d_joined.reshape(2 * hidden, nb_frames, nb_samples)
        d_x = self._lstm.backward(d_features[hidden:], cache["layers"], p, cache["masks"], g)
        d_features[:hidden] += d_x[:, :, :nb_samples]
        d_z1 = d_joined[:hidden]
        self._norm_backward(d_z1, joined[:hidden], cache["z1"], cache["norm1"], p, "bn1", TANH, g)

        # With W' = W scale and G = d_z1^T (x + mean), the gradient of W': d_W = G scale, and
        # d_scale = sum of W G. The gradient of the mean, a sum over rows, needs only the sum of
        # d_z1. The gradient of the input itself is the largest product of all, and is computed for
        # those only who ask for it.
        weight, scale = p["fc1.weight"], np.tile(p["input_scale"], nb_channels)
        gradient = runner.product(d_z1, cache["shifted"].reshape(len(d_z1[0]), -1), keep=True)
        per_bin = (hidden, nb_channels, config.nb_input_bins)
        g["input_scale"] = np.einsum(
            "hck,hck->k", weight.reshape(per_bin), gradient.reshape(per_bin)
        )
        gradient *= scale
        g["fc1.weight"] = gradient
        d_bins = (d_z1.sum(axis=1) @ weight) * scale
        g["input_mean"] = d_bins.reshape(nb_channels, -1).sum(axis=0)
        if input_gradient:
            g["input"] = np.zeros_like(x)
            read = g["input"][..., : config.nb_input_bins]
            d_read = runner.product(d_z1.T, weight * scale)
            read[...] = d_read.reshape(read.shape)
            runner.give(d_read)
        runner.give(d_joined, joined, cache["z1"], cache["shifted"])
        runner.give(d_x.reshape(len(d_x), -1))
        return g

    def _decode_backward(
        self,
        d_y: np.ndarray,
        z: np.ndarray,
        norm: Norm,
        x: np.ndarray,
        p: Arrays,
        g: dict[str, np.ndarray],
    ) -> np.ndarray:
        """From the result to fc3's output `z`, in the memory of the latter."""
        rows, columns = z.shape
        nb_channels = x.shape[2]
        gain, offset = self._output_scaling(norm, p, nb_channels)
        wide = d_y.reshape(-1), x.reshape(-1), z.reshape(-1)
        features = gain, offset, norm.mean
        sums = np.zeros((2, columns))
        scratch = np.empty(2 * columns, self.dtype)
        self._columns(
            columns,
            lambda start, stop: self._bins.decode_sums(
                wide,
                (*features, norm.inverse_std),
                sums.reshape(-1),
                rows,
                columns,
                start,
                stop,
                scratch,
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
                wide, (*features, first, second), rows, columns, start, stop
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
        self._runner.rows(
            len(d),
            lambda start, stop: self._features.backward(
                d,
                y,
                z,
                (norm.mean, norm.inverse_std, weight),
                activation,
                norm.training,
                (d_weight, d_bias),
                start,
                stop,
            ),
        )
