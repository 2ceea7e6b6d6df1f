"""The network of `umx_np.layers` as it is trained: forward in stages, backward layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..config import ModelConfig
from ..layers import stages
from ..layers.activation import relu_backward, tanh_backward
from ..layers.batchnorm import (
    BatchStatistics,
    batch_statistics,
    batchnorm_backward,
    batchnorm_forward,
)
from ..layers.concatenation import concatenate_backward
from ..layers.linear import linear_backward
from ..layers.lstm import lstm_stack_backward, lstm_stack_forward
from ..layers.scaling import (
    input_scaling_backward,
    mask_backward,
    mask_forward,
    output_scaling_backward,
)
from .training import CounterMasks, ForwardPass

Arrays = Mapping[str, np.ndarray]


class ReferenceEngine:
    """The specification of `umx_np.backends.training.TrainingEngine`, in any floating dtype."""

    draws_masks = False

    def __init__(self, config: ModelConfig) -> None:
        self.config = config

    def forward(
        self, x: np.ndarray, parameters: Arrays, buffers: Arrays, how: ForwardPass
    ) -> tuple[np.ndarray, dict[str, Any], dict[str, BatchStatistics]]:
        masks, training, keep = how
        assert not isinstance(masks, CounterMasks)
        p, config = parameters, self.config
        statistics: dict[str, BatchStatistics] = {}
        cache: dict[str, Any] = {"x": x, "masks": [mask.transpose(1, 2, 0) for mask in masks]}

        def norm(z: np.ndarray, name: str) -> np.ndarray:
            mean, variance = buffers[f"{name}.running_mean"], buffers[f"{name}.running_var"]
            if training:
                statistics[name] = batch_statistics(z)
                mean, variance, _ = statistics[name]
            weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
            y, cache[name] = batchnorm_forward(z, weight, bias, mean, variance, training=training)
            return y

        read = x[..., : config.nb_input_bins]
        cache["scaled"], encoded = stages.encode(read, p, norm)
        h, cache["lstm"] = lstm_stack_forward(
            encoded,
            p,
            nb_layers=config.nb_layers,
            nb_directions=config.nb_directions,
            masks=cache["masks"],
        )
        cache["joined"], combined = stages.combine([encoded, h], p, norm)
        cache["normalised"], mask = stages.decode(combined, x.shape, p, norm)
        cache |= {"encoded": encoded, "combined": combined, "mask": mask}
        return mask_forward(mask, x), cache if keep else {}, statistics

    def backward(
        self, d_y: np.ndarray, cache: dict[str, Any], parameters: Arrays, *, input_gradient: bool
    ) -> dict[str, np.ndarray]:
        p, config, g = parameters, self.config, {}
        x = cache["x"]

        d = relu_backward(mask_backward(d_y, x), cache["mask"])
        d, g["output_scale"], g["output_mean"] = output_scaling_backward(
            d, cache["normalised"], p["output_scale"]
        )
        d = d.reshape(*x.shape[:2], -1)
        d, g["bn3.weight"], g["bn3.bias"] = batchnorm_backward(d, cache["bn3"])
        d, g["fc3.weight"] = linear_backward(d, cache["combined"], p["fc3.weight"])

        d = relu_backward(d, cache["combined"])
        d, g["bn2.weight"], g["bn2.bias"] = batchnorm_backward(d, cache["bn2"])
        d, g["fc2.weight"] = linear_backward(d, cache["joined"], p["fc2.weight"])

        hidden = config.hidden_size
        d_encoded, d_h = concatenate_backward(d, [hidden, hidden])
        d, lstm_gradients = lstm_stack_backward(d_h, cache["lstm"], p, masks=cache["masks"])
        g.update(lstm_gradients)
        d = d_encoded + d

        d = tanh_backward(d, cache["encoded"])
        d, g["bn1.weight"], g["bn1.bias"] = batchnorm_backward(d, cache["bn1"])
        d, g["fc1.weight"] = linear_backward(d, cache["scaled"], p["fc1.weight"])
        read = x[..., : config.nb_input_bins]
        d, g["input_mean"], g["input_scale"] = input_scaling_backward(
            d.reshape(read.shape), read, p["input_mean"], p["input_scale"]
        )
        if input_gradient:
            # Bins above nb_input_bins reach the output through the product with the mask only.
            g["input"] = np.zeros_like(x)
            g["input"][..., : config.nb_input_bins] = d
        return g
