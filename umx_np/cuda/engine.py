"""Both passes of the network on a CUDA device.

Activations are frame-major, (R, features) with a row for each sample of each frame, as in the
reference: the layout of the recurrent kernels and of the magnitudes. Around the products and the
recurrences there is one kernel for everything between two of them (sources/training.cu). Outputs of
the first layer and of the LSTM lie side by side in one array, so that nothing is concatenated.

Nothing is waited for. The specification is `umx_np.backends.reference_engine`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..backends.training import CounterMasks, ForwardPass
from ..config import ModelConfig
from ..layers.batchnorm import BATCHNORM_EPS, BatchStatistics
from .launching import Kernels, spread, tiled
from .lstm_stack import LstmStack
from .tensors import FlatTensors

if TYPE_CHECKING:
    from .device import Device

Array = Any

# How far the running statistics go towards those of a batch; see umx_np.layers.batchnorm.
_MOMENTUM = np.float32(0.1)
_EPS = np.float32(BATCHNORM_EPS)
# Rows of what is only used inside begin at multiples of so many numbers: 16 bytes, without which
# products use slower kernels.
_ROW = 4


class Norm(NamedTuple):
    """Statistics [shape=(nb_features,)] of a batch norm, and whether they are the batch's."""

    mean: Array
    variance: Array
    training: bool


class CudaEngine:
    """See `umx_np.backends.training.TrainingEngine`.

    Parameters
    ----------
    device : Device
        The card.
    config : ModelConfig
        Architecture.
    math : {'float32', 'tf32', 'bf16'}
        How matrix products round their operands where a backward pass follows.
    """

    draws_masks = True

    def __init__(self, device: Device, config: ModelConfig, math: str = "float32") -> None:
        self.device = device
        self.config = config
        self.math = self._math = math
        self._kernels = Kernels(device, "training.cu")
        self._lstm = LstmStack(device, config, math)

    # -- forward -----------------------------------------------------------------------------------

    def forward(
        self, x: Array, parameters: Mapping[str, Any], buffers: Mapping[str, Any], how: ForwardPass
    ) -> tuple[Array, dict[str, Any], dict[str, BatchStatistics]]:
        assert isinstance(parameters, FlatTensors)
        self._math = self.math if how.keep else "float32"
        with self.device.active():
            y, cache = self._forward(x, parameters, buffers, how)
        return y, cache if how.keep else {}, {}

    def _forward(
        self, x: Array, p: FlatTensors, buffers: Mapping[str, Any], how: ForwardPass
    ) -> tuple[Array, dict[str, Any]]:
        masks = how.masks if isinstance(how.masks, CounterMasks) else None
        assert masks is not None or not how.masks, "see `draws_masks`"
        training, keep = how.training, how.keep
        config, launch = self.config, self._kernels.launch
        nb_frames, nb_samples, nb_channels, nb_bins = x.shape
        rows, hidden, read = nb_frames * nb_samples, config.hidden_size, config.nb_input_bins

        # The scale of the input goes to the weights: there are fewer of them.
        shifted = self._padded(rows, nb_channels * read)
        sizes = (nb_channels, nb_bins, read, _stride(shifted))
        launch("shift_input", spread(read, rows), x, p["input_mean"], shifted, rows, *sizes)
        weight = self._scaled_weight(p, nb_channels)
        z1 = self._empty(rows, hidden)
        self._gemm(shifted, weight, z1, trans_b=True)
        norm1 = self._norm("bn1", z1, buffers, training)
        joined = self._empty(rows, 2 * hidden)
        encoded, h = joined[:, :hidden], joined[:, hidden:]
        self._normalise("tanh", z1, norm1, p, "bn1", encoded)

        layers = self._lstm.forward(encoded, p, masks, h, (nb_frames, nb_samples), keep=keep)

        z2 = self._empty(rows, hidden)
        self._gemm(joined, p["fc2.weight"], z2, trans_b=True)
        norm2 = self._norm("bn2", z2, buffers, training)
        combined = self._empty(rows, hidden)
        self._normalise("relu", z2, norm2, p, "bn2", combined)

        z3 = self._padded(rows, nb_channels * nb_bins)
        self._gemm(combined, p["fc3.weight"], z3, trans_b=True)
        norm3 = self._norm("bn3", z3, buffers, training)
        y = self._empty(*x.shape)
        sizes = (rows, nb_channels, nb_bins, _stride(z3))
        grid = tiled(nb_channels * nb_bins, rows)
        launch("decode", grid, z3, x, *self._output(norm3, p), y, *sizes, _EPS)
        if not keep:
            return y, {}
        cache = {"x": x, "masks": masks, "shifted": shifted, "joined": joined, "layers": layers}
        cache |= {"z1": z1, "norm1": norm1, "z2": z2, "norm2": norm2, "z3": z3, "norm3": norm3}
        return y, {**cache, "combined": combined}

    def _norm(self, name: str, z: Array, buffers: Mapping[str, Any], training: bool) -> Norm:
        """Statistics to normalise with; in training mode those of the batch."""
        running = [buffers[f"{name}.running_mean"], buffers[f"{name}.running_var"]]
        if not training:
            return Norm(running[0], running[1], False)
        rows, features = z.shape
        found, grid = (self._empty(features), self._empty(features)), tiled(features, rows)
        sizes = (rows, features, _stride(z), _MOMENTUM)
        self._kernels.reduce(
            "batch_statistics", grid, z, *found, *running, nb_sums=2 * features, sizes=sizes
        )
        return Norm(*found, True)

    def _normalise(
        self, activation: str, z: Array, norm: Norm, p: FlatTensors, name: str, out: Array
    ) -> None:
        factors = norm.mean, norm.variance, p[f"{name}.weight"], p[f"{name}.bias"]
        sizes = *z.shape, _stride(out), _EPS, activation == "relu"
        self._kernels.launch("normalise", tiled(z.shape[1], len(z)), z, *factors, out, *sizes)

    def _output(self, norm: Norm, p: FlatTensors) -> tuple[Array, ...]:
        """Factors of the last batch norm and the output scaling."""
        scaling = p["output_scale"], p["output_mean"]
        return norm.mean, norm.variance, p["bn3.weight"], p["bn3.bias"], *scaling

    # -- backward ----------------------------------------------------------------------------------

    def backward(
        self,
        d_y: Array,
        cache: dict[str, Any],
        parameters: Mapping[str, Any],
        *,
        input_gradient: bool,
    ) -> Mapping[str, Array]:
        assert isinstance(parameters, FlatTensors)
        self._math = self.math
        with self.device.active():
            gradients = parameters.zeros_like()
            d_z1 = self._backward(d_y, cache, parameters, gradients)
            if input_gradient:
                gradients.others["input"] = self._input_gradient(d_z1, cache["x"], parameters)
            return gradients

    def _backward(self, d_y: Array, cache: dict[str, Any], p: FlatTensors, g: FlatTensors) -> Array:
        """Put the gradients of all parameters into `g`; return that of fc1's output."""
        hidden = self.config.hidden_size
        joined, combined = cache["joined"], cache["combined"]
        encoded = joined[:, :hidden]

        d_z3 = self._decode_backward(d_y, cache, p, g)
        self._gemm(d_z3, combined, g["fc3.weight"], trans_a=True)
        d_z2 = self._empty(*combined.shape)
        self._gemm(d_z3, p["fc3.weight"], d_z2)
        del d_z3, cache["z3"]

        self._norm_backward("relu", d_z2, combined, cache["z2"], cache["norm2"], p, "bn2", g)
        self._gemm(d_z2, joined, g["fc2.weight"], trans_a=True)
        d_joined = self._empty(*joined.shape)
        self._gemm(d_z2, p["fc2.weight"], d_joined)

        d_z1 = d_joined[:, :hidden]
        self._lstm.backward(
            d_joined[:, hidden:], cache["layers"], p, cache["masks"], g, d_z1, cache["x"].shape[:2]
        )
        self._norm_backward("tanh", d_z1, encoded, cache["z1"], cache["norm1"], p, "bn1", g)
        self._encode_backward(d_z1, cache, p, g)
        return d_z1

    def _decode_backward(
        self, d_y: Array, cache: dict[str, Any], p: FlatTensors, g: FlatTensors
    ) -> Array:
        """From the result to fc3's output, in the memory of the latter."""
        x, z, norm = cache["x"], cache["z3"], cache["norm3"]
        nb_channels, nb_bins = x.shape[2:]
        (rows, features), output = z.shape, self._output(norm, p)
        given, sums = (d_y, x, z, *output), self._empty(2, features)
        sizes = (rows, nb_channels, nb_bins, _stride(z), _EPS)
        names = ("bn3.weight", "bn3.bias", "output_scale", "output_mean")
        found = (g[name] for name in names)
        self._kernels.reduce(
            "decode_sums",
            tiled(nb_bins, rows),
            *given,
            sums,
            *found,
            nb_sums=2 * features,
            sizes=sizes,
        )
        grid = tiled(features, rows)
        self._kernels.launch("decode_backward", grid, *given, sums, *sizes, norm.training)
        return z

    def _norm_backward(
        self,
        activation: str,
        d: Array,
        y: Array,
        z: Array,
        norm: Norm,
        p: FlatTensors,
        name: str,
        g: FlatTensors,
    ) -> None:
        """Through activation and batch norm, in place in `d`."""
        rows, features = z.shape
        grid, given = tiled(features, rows), (d, y, z, norm.mean, norm.variance)
        sums = g[f"{name}.weight"], g[f"{name}.bias"]
        sizes = (rows, features, _stride(d), _stride(y), _EPS, activation == "relu")
        self._kernels.reduce("norm_sums", grid, *given, *sums, nb_sums=2 * features, sizes=sizes)
        weight = p[f"{name}.weight"]
        self._kernels.launch("norm_backward", grid, *given, weight, *sums, *sizes, norm.training)

    def _encode_backward(
        self, d_z1: Array, cache: dict[str, Any], p: FlatTensors, g: FlatTensors
    ) -> None:
        """Gradients of fc1 and of the input scaling."""
        norm, shifted = cache["norm1"], cache["shifted"]
        nb_channels, read = cache["x"].shape[2], self.config.nb_input_bins
        hidden = self.config.hidden_size
        gradient = self._padded(hidden, nb_channels * read)
        self._gemm(d_z1, shifted, gradient, trans_a=True)
        sums = None if norm.training else d_z1.sum(axis=0, dtype=np.float64).astype(np.float32)
        self._kernels.reduce(
            "input_gradients",
            tiled(read, hidden),
            gradient,
            p["fc1.weight"],
            p["input_scale"],
            sums,
            g["fc1.weight"],
            g["input_scale"],
            g["input_mean"],
            nb_sums=2 * read,
            sizes=(hidden, nb_channels, read, _stride(gradient)),
        )

    def _input_gradient(self, d_z1: Array, x: Array, p: FlatTensors) -> Array:
        """Gradient of the magnitudes; for those who ask, as it takes the largest product of all."""
        nb_channels, read = x.shape[2], self.config.nb_input_bins
        d_read = self._empty(len(d_z1), nb_channels * read)
        self._gemm(d_z1, self._scaled_weight(p, nb_channels), d_read)
        d_x = self.device.xp.zeros(x.shape, np.float32)
        d_x[..., :read] = d_read.reshape(*x.shape[:3], read)
        return d_x

    # -- parts of both -----------------------------------------------------------------------------

    def _scaled_weight(self, p: FlatTensors, nb_channels: int) -> Array:
        hidden, read = self.config.hidden_size, self.config.nb_input_bins
        out = self._padded(hidden, nb_channels * read)
        given, sizes = (
            (p["fc1.weight"], p["input_scale"]),
            (hidden, nb_channels, read, _stride(out)),
        )
        self._kernels.launch("scale_weight", spread(read, hidden), *given, out, *sizes)
        return out

    def _gemm(self, a: Array, b: Array, out: Array, **options: Any) -> None:
        self.device.gemm(a, b, out, math=self._math, **options)

    def _empty(self, *shape: int) -> Array:
        return self.device.xp.empty(shape, np.float32)

    def _padded(self, rows: int, columns: int) -> Array:
        """Matrix whose rows begin at addresses that suit matrix products."""
        return self._empty(rows, -(-columns // _ROW) * _ROW)[:, :columns]


def _stride(matrix: Array) -> int:
    """Elements from one row to the next."""
    return matrix.strides[0] // 4 if len(matrix) > 1 else matrix.shape[1]
