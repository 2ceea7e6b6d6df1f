"""Long short-term memory: one direction of one layer, and the stack of layers.

Notation, as in docs/lstm_backward.md, whose step numbers stand in the code:

    T, B, I, H   frames, batch, inputs, hidden units
    x (T, B, I), h and c (T, B, H)
    a (T, B, 4H) gates before the activation, in the order i, f, g, o
    W_ih (4H, I), W_hh (4H, H), b_ih and b_hh (4H,)
    d_<name>     gradient of the loss with respect to <name>
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .activation import sigmoid
from .dropout import dropout_backward, dropout_forward

PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class LstmCache(NamedTuple):
    """Values that `lstm_backward` needs: inputs, gates after the activation (T, B, 4H), h and c."""

    x: np.ndarray
    gates: np.ndarray
    h: np.ndarray
    c: np.ndarray


def lstm_forward(
    x: np.ndarray,
    W_ih: np.ndarray,
    W_hh: np.ndarray,
    b_ih: np.ndarray,
    b_hh: np.ndarray,
    *,
    reverse: bool = False,
) -> tuple[np.ndarray, LstmCache]:
    """One direction of one layer, from a state of zeros.

    Parameters
    ----------
    x : ndarray [shape=(T, B, I)]
        Input.
    W_ih, W_hh, b_ih, b_hh : ndarray
        Weights, see the top of this file.
    reverse : bool
        Walk the frames from last to first.

    Returns
    -------
    h : ndarray [shape=(T, B, H)]
    cache : LstmCache
    """
    if reverse:
        h, cache = lstm_forward(x[::-1], W_ih, W_hh, b_ih, b_hh)
        return h[::-1], cache
    nb_frames, nb_samples, _ = x.shape
    hidden = W_hh.shape[1]
    gates = lstm_inputs(x, W_ih, b_ih, b_hh)
    h = np.empty((nb_frames, nb_samples, hidden), x.dtype)
    c = np.empty_like(h)
    h_last = c_last = np.zeros((nb_samples, hidden), x.dtype)
    for t in range(nb_frames):
        gates[t], h_last, c_last = lstm_step(gates[t], W_hh, h_last, c_last)
        h[t], c[t] = h_last, c_last
    return h, LstmCache(x, gates, h, c)


def lstm_inputs(x: np.ndarray, W_ih: np.ndarray, b_ih: np.ndarray, b_hh: np.ndarray) -> np.ndarray:
    """Gates [shape=(..., 4H)] of inputs [shape=(..., I)] without the recurrent part (F1)."""
    return x @ W_ih.T + b_ih + b_hh


def lstm_step(
    inputs: np.ndarray, W_hh: np.ndarray, h: np.ndarray, c: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One frame: the gates after their activation, and the next h and c.

    Parameters
    ----------
    inputs : ndarray [shape=(..., 4H)]
        From `lstm_inputs`.
    W_hh : ndarray [shape=(4H, H)]
        Recurrent weights.
    h, c : ndarray [shape=(..., H)]
        State before the frame; not changed.

    Returns
    -------
    gates : ndarray [shape=(..., 4H)]
    h, c : ndarray [shape=(..., H)]
    """
    i, f, g, o = np.split(inputs + h @ W_hh.T, 4, axis=-1)  # F1
    i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)  # F2
    c = f * c + i * g  # F3
    return np.concatenate([i, f, g, o], axis=-1), o * np.tanh(c), c  # F4


def lstm_scan(
    inputs: np.ndarray, W_hh: np.ndarray, h: np.ndarray, c: np.ndarray, *, reverse: bool
) -> np.ndarray:
    """One direction of one layer over some frames, from any state; forward only.

    Parameters
    ----------
    inputs : ndarray [shape=(T, ..., 4H)]
        From `lstm_inputs`.
    W_hh : ndarray [shape=(4H, H)]
        Recurrent weights.
    h, c : ndarray [shape=(..., H)]
        State, updated in place.
    reverse : bool
        Walk the frames from last to first.

    Returns
    -------
    ndarray [shape=(T, ..., H)]
    """
    out = np.empty((len(inputs), *h.shape), inputs.dtype)
    for t in range(len(inputs) - 1, -1, -1) if reverse else range(len(inputs)):
        _, h[...], c[...] = lstm_step(inputs[t], W_hh, h, c)
        out[t] = h
    return out


def lstm_backward(
    d_out: np.ndarray,
    cache: LstmCache,
    W_ih: np.ndarray,
    W_hh: np.ndarray,
    *,
    reverse: bool = False,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Gradients of `lstm_forward`.

    Parameters
    ----------
    d_out : ndarray [shape=(T, B, H)]
        Gradient of the outputs, from the layers above.
    cache : LstmCache
        From `lstm_forward`.
    W_ih, W_hh : ndarray
        The weights it used.
    reverse : bool
        As in the forward pass.

    Returns
    -------
    d_x : ndarray [shape=(T, B, I)]
    gradients : dict of str to ndarray
        Under `PARTS`.
    """
    if reverse:
        d_x, gradients = lstm_backward(d_out[::-1], cache, W_ih, W_hh)
        return d_x[::-1], gradients
    x, gates, h, c = cache
    nb_frames = len(x)
    d_a = np.empty_like(gates)
    d_h_next = np.zeros_like(h[0])  # what frame t + 1 asks of h[t]
    d_c_next = np.zeros_like(h[0])  # and of c[t]
    for t in range(nb_frames - 1, -1, -1):
        i, f, g, o = np.split(gates[t], 4, axis=-1)
        c_before = c[t - 1] if t > 0 else np.zeros_like(c[0])
        tanh_c = np.tanh(c[t])
        d_h = d_out[t] + d_h_next  # B1
        d_o = d_h * tanh_c  # B2
        d_c = d_c_next + d_h * o * (1.0 - tanh_c**2)  # B3
        d_i, d_f, d_g = d_c * g, d_c * c_before, d_c * i  # B4
        d_c_next = d_c * f  # B5
        d_a[t] = np.concatenate(  # B6
            [d_i * i * (1.0 - i), d_f * f * (1.0 - f), d_g * (1.0 - g**2), d_o * o * (1.0 - o)],
            axis=-1,
        )
        d_h_next = d_a[t] @ W_hh  # B7
    rows = d_a.reshape(-1, d_a.shape[-1])
    h_before = np.concatenate([np.zeros_like(h[:1]), h[:-1]])
    d_bias = rows.sum(axis=0)  # B8
    gradients = {
        "weight_ih": rows.T @ x.reshape(len(rows), -1),  # B9
        "weight_hh": rows.T @ h_before.reshape(len(rows), -1),  # B10
        "bias_ih": d_bias,
        "bias_hh": d_bias.copy(),
    }
    return d_a @ W_ih, gradients  # B11


def suffix_of(layer: int, direction: int) -> str:
    """End of PyTorch's names: ``_l0``, ``_l0_reverse``."""
    return f"_l{layer}" + ("_reverse" if direction else "")


def lstm_stack_forward(
    x: np.ndarray,
    parameters: Mapping[str, np.ndarray],
    *,
    nb_layers: int,
    nb_directions: int,
    masks: Sequence[np.ndarray] = (),
) -> tuple[np.ndarray, list[list[LstmCache]]]:
    """All layers; the directions of a layer are concatenated to the input of the next.

    Parameters
    ----------
    x : ndarray [shape=(T, B, I)]
        Input.
    parameters : mapping of str to ndarray
        ``lstm.weight_ih_l0`` and so on.
    nb_layers, nb_directions : int
        Architecture.
    masks : sequence of ndarray [shape=(T, B, nb_directions * H)]
        Dropout masks for the outputs of all layers but the last; none of them for no dropout.

    Returns
    -------
    h : ndarray [shape=(T, B, nb_directions * H)]
    caches : list of list of LstmCache
        By layer and direction.
    """
    caches: list[list[LstmCache]] = []
    for layer in range(nb_layers):
        if layer > 0 and masks:
            x = dropout_forward(x, masks[layer - 1])
        outputs: list[np.ndarray] = []
        caches.append([])
        for direction in range(nb_directions):
            weights = lstm_weights(parameters, layer, direction)
            h, cache = lstm_forward(x, *weights, reverse=direction == 1)
            outputs.append(h)
            caches[-1].append(cache)
        x = np.concatenate(outputs, axis=-1)
    return x, caches


def lstm_stack_backward(
    d_out: np.ndarray,
    caches: list[list[LstmCache]],
    parameters: Mapping[str, np.ndarray],
    *,
    masks: Sequence[np.ndarray] = (),
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Gradients of `lstm_stack_forward`: of its input, and of the parameters by their names."""
    gradients: dict[str, np.ndarray] = {}
    for layer in range(len(caches) - 1, -1, -1):
        parts = np.split(d_out, len(caches[layer]), axis=-1)
        d_x: Any = 0.0
        for direction, (d_part, cache) in enumerate(zip(parts, caches[layer], strict=True)):
            W_ih, W_hh, _, _ = lstm_weights(parameters, layer, direction)
            d_part_x, found = lstm_backward(d_part, cache, W_ih, W_hh, reverse=direction == 1)
            d_x = d_x + d_part_x
            for part, gradient in found.items():
                gradients[f"lstm.{part}{suffix_of(layer, direction)}"] = gradient
        d_out = d_x
        if layer > 0 and masks:
            d_out = dropout_backward(d_out, masks[layer - 1])
    return d_out, gradients


def lstm_weights(
    parameters: Mapping[str, np.ndarray], layer: int, direction: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return W_ih, W_hh, b_ih and b_hh of one direction of a layer."""
    W_ih, W_hh, b_ih, b_hh = (
        parameters[f"lstm.{part}{suffix_of(layer, direction)}"] for part in PARTS
    )
    return W_ih, W_hh, b_ih, b_hh
