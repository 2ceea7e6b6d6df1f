"""A gradient check that passes a wrong gradient is worth nothing: each mistake must be found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from umx_np.config import ModelConfig
from umx_np.layers import batchnorm, lstm
from umx_np.testing import GradientError, gradcheck

from .checks import check_lstm, check_network, check_stack
from .mutants import mutant

LSTM_MISTAKES = {
    "recurrent path of h": ("d_h = d_out[t] + d_h_next", "d_h = d_out[t]"),
    "recurrent path of c": ("d_c = d_c_next + d_h * o", "d_c = d_h * o"),
    "first frame left out": ("range(nb_frames - 1, -1, -1)", "range(nb_frames - 1, 0, -1)"),
    "cell before the first frame": (
        "c[t - 1] if t > 0 else np.zeros_like(c[0])",
        "c[t - 1] if t > 0 else c[0]",
    ),
    "gate i": ("d_i * i * (1.0 - i)", "d_i * i"),
    "gate f": ("d_f * f * (1.0 - f)", "0 * d_f"),
    "gate g": ("d_g * (1.0 - g**2)", "d_g * (1.0 - g)"),
    "gate o": ("d_o * o * (1.0 - o)", "d_o * o * o"),
    "tanh of the cell": ("d_h * o * (1.0 - tanh_c**2)", "d_h * o"),
    "forget gate of the cell": ("d_c_next = d_c * f", "d_c_next = d_c"),
    "recurrent weights": ("np.concatenate([np.zeros_like(h[:1]), h[:-1]])", "h"),
    "one bias": ('"bias_hh": d_bias.copy()', '"bias_hh": 0 * d_bias'),
    "input": ("return d_a @ W_ih, gradients", "return d_a @ W_ih * 0.999, gradients"),
    "one number": (
        "return d_a @ W_ih, gradients",
        "d_a[-1, -1, -1] *= 1.001\n    return d_a @ W_ih, gradients",
    ),
}


def test_the_checks_pass_without_a_mistake():
    check_lstm(lstm)
    check_stack(lstm, dropout=True)


@pytest.mark.parametrize("mistake", LSTM_MISTAKES)
def test_lstm(mistake):
    with pytest.raises(GradientError, match="gradients do not fit"):
        check_lstm(mutant(lstm, *LSTM_MISTAKES[mistake]))


def test_reverse_direction_walked_forward():
    wrong = mutant(lstm, "lstm_backward(d_out[::-1], cache", "lstm_backward(d_out, cache")
    check_lstm(wrong)
    with pytest.raises(GradientError, match="weight_ih"):
        check_lstm(wrong, reverse=True)


def test_input_of_the_reverse_direction():
    wrong = mutant(lstm, "return d_x[::-1], gradients", "return d_x, gradients")
    with pytest.raises(GradientError, match=r"x .*WRONG"):
        check_lstm(wrong, reverse=True)


def test_second_direction_forgotten():
    wrong = mutant(lstm, "d_x = d_x + d_part_x", "d_x = d_part_x")
    check_stack(wrong, nb_directions=1)
    with pytest.raises(GradientError, match="_l0"):
        check_stack(wrong, nb_directions=2)


def test_dropout_forgotten():
    wrong = mutant(lstm, "d_out = dropout_backward(d_out, masks[layer - 1])", "pass")
    check_stack(wrong, dropout=False)
    with pytest.raises(GradientError, match="_l0"):
        check_stack(wrong, dropout=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (" - g.mean(axis=axes)", ""),
        (" - cache.x_hat * (g * cache.x_hat).mean(axis=axes)", ""),
        ("return g * cache.inverse_std", "return g"),
        ("d_weight = (d_y * cache.x_hat)", "d_weight = d_y"),
    ],
)
def test_batchnorm(old, new):
    wrong = mutant(batchnorm, old, new)

    def function(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, Any]:
        statistics = wrong.batch_statistics(x)[:2]
        y, cache = wrong.batchnorm_forward(x, weight, bias, *statistics, training=True)
        names = ("x", "weight", "bias")
        return y, lambda d_y: dict(zip(names, wrong.batchnorm_backward(d_y, cache), strict=True))

    rng = np.random.default_rng(0)
    arguments = {
        "x": rng.standard_normal((6, 2, 4)),
        "weight": rng.uniform(0.5, 1.5, 4),
        "bias": rng.standard_normal(4),
    }
    with pytest.raises(GradientError):
        gradcheck(function, arguments)


KERNEL_MISTAKES = {
    "recurrent path of h": (
        "load(d_out, at, lanes) + load(d_h_next, unit * lanes, lanes)",
        "load(d_out, at, lanes)",
    ),
    "recurrent path of c": (
        "load(d_c_next, unit * lanes, lanes) + d_h * o",
        "d_h * o",
    ),
    "first frame left out": (
        "for step in range(nb_frames):\n            t = step if reverse",
        "for step in range(nb_frames - 1):\n            t = step if reverse",
    ),
    "gate f": ("d_c * c_before * f * (1.0 - f)", "d_c * c_before * f"),
    "reverse direction": (
        "before = here + nb_samples if reverse else here - nb_samples",
        "before = here - nb_samples",
    ),
}


@pytest.mark.parametrize("mistake", [None, *KERNEL_MISTAKES])
@pytest.mark.slow
def test_compiled_lstm(mistake, monkeypatch):
    """The same mistakes in the compiled kernel."""
    pytest.importorskip("numba", reason="needs the extra 'train'")
    from umx_np.numba_engine import lstm as kernels
    from umx_np.numba_engine import recurrent

    config = ModelConfig(nb_bins=9, hidden_size=6, nb_layers=2)
    if mistake is None:
        check_network(config, backend="numba")
        return
    wrong = mutant(kernels, *KERNEL_MISTAKES[mistake])
    monkeypatch.setattr(recurrent, "lstm_kernels", wrong.lstm_kernels)
    with pytest.raises(GradientError, match=r"lstm\.weight"):
        check_network(config, backend="numba")
