"""A network in eight bits, stage by stage, against the products of whole numbers."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.asserts import assert_close
from tolerances import TOL

from umx_np.backends._folding import fold, gate_bias
from umx_np.backends.cpu import CpuBackend
from umx_np.config import ModelConfig
from umx_np.layers.int8 import linear_int8, lstm_scan_int8
from umx_np.testing import random_state
from umx_np.weights.quantization import eight_bits

CONFIG = ModelConfig(nb_bins=321, nb_channels=2, hidden_size=20, nb_layers=2, max_bin=301)


def products(state, name, *parts):
    """Sum of the products of the parts, each with its columns of a matrix."""
    weight, scale = eight_bits(state, name)
    columns = np.split(weight, np.cumsum([part.shape[1] for part in parts])[:-1], axis=1)
    return sum(linear_int8(part, w, scale) for part, w in zip(parts, columns, strict=True))


@pytest.mark.parametrize("level", [1.0, 0.0, 1e-25, 1e8])
def test_stages(level):
    state = random_state(CONFIG, seed=0)
    network = CpuBackend(1, "int8").network(CONFIG, state)
    folded, bound = fold(CONFIG, state), TOL["int8"]["float32"]
    rng = np.random.default_rng(1)
    mags = (level * np.abs(rng.standard_normal((9, 2, 321)))).astype(np.float32)
    read = np.ascontiguousarray(mags[:, :, :301])

    encoded = network.encode(read)
    a = (read.reshape(9, -1) + folded.shift) * folded.gain
    expected = np.tanh(products(state, "fc1.weight", a) * folded.scale["bn1"] + folded.bias["bn1"])
    assert_close(encoded, expected, bound, dtype=np.float32)

    parts = [encoded]
    for layer in range(2):
        outputs = []
        for direction, suffix in enumerate(("", "_reverse")):
            key = f"_l{layer}{suffix}"
            out = network.scan(layer, direction, parts, network.initial_state())
            gates = products(state, "lstm.weight_ih" + key, *parts) + gate_bias(state, key)
            h, c = np.zeros((2, 10), np.float32)
            w_hh = eight_bits(state, "lstm.weight_hh" + key)
            expected = lstm_scan_int8(gates, *w_hh, h, c, reverse=direction == 1)
            assert_close(out, expected, TOL["lstm_scan"]["int8"], dtype=np.float32)
            outputs.append(out)
        parts = outputs

    z = network.combine([encoded, *parts])
    expected = products(state, "fc2.weight", encoded, *parts) * folded.scale["bn2"]
    expected = np.maximum(expected + folded.bias["bn2"], 0)
    assert_close(z, expected, bound, dtype=np.float32)

    expected = products(state, "fc3.weight", z) * folded.scale["bn3"] + folded.bias["bn3"]
    expected = np.maximum(expected, 0) * mags.reshape(9, -1)
    assert_close(network.decode(z, mags), expected.reshape(mags.shape), bound, dtype=np.float32)
