"""Forms in which weights are stored: floating dtypes, or matrices of eight bits with row scales."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from ..config import ModelConfig
from ..errors import ConfigError, WeightsError
from .bundle import StateDict
from .finding import network_tensors
from .state import (
    check_names,
    check_shape,
    check_tensor,
    convert_floats,
    expected_state,
    infer_config,
)

# The scales of "fc1.weight" are "fc1.weight_scale".
_SUFFIX = "_scale"
_LARGEST = 127


def stored_dtype(dtype: object) -> np.dtype:
    """Return the dtype that weights are stored in.

    Raises
    ------
    ConfigError
        If it is not int8, float16, float32 or float64.
    """
    try:
        result = np.dtype(dtype)  # type: ignore[call-overload]
    except TypeError:
        result = np.dtype(object)
    if result.name not in ("int8", "float16", "float32", "float64"):
        raise ConfigError(f"dtype={dtype!r} must be 'int8', 'float16', 'float32' or 'float64'")
    return result.newbyteorder("=")


def stored_state(state: Mapping[str, np.ndarray], dtype: np.dtype | None) -> StateDict:
    """Convert a state dict to what is stored.

    Parameters
    ----------
    state : mapping of str to ndarray
        Weights; not modified.
    dtype : dtype or None
        From `stored_dtype`: int8 for `quantize`; None keeps what the weights have.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    WeightsError
        If a number is too large for `dtype`.
    """
    if dtype is None:
        return dict(state)
    if dtype == np.int8:
        return quantize(state)
    return {name: convert_floats(name, np.asarray(a), dtype) for name, a in state.items()}


def quantize(state: Mapping[str, np.ndarray]) -> StateDict:
    """Store the matrices of a state dict in eight bits.

    Parameters
    ----------
    state : mapping of str to ndarray
        Weights; not modified.

    Returns
    -------
    dict of str to ndarray
        For each matrix of floats an int8 one and, as ``<name>_scale``, its scales
        [shape=(nb_rows,)] in float32. Other floats are float32, which vectors need and which costs
        little; integers stay.

    Raises
    ------
    WeightsError
        If a matrix holds NaN or infinity, or a number is too large for float32.

    Notes
    -----
    The scale of a row is its largest magnitude over 127, so that the error of a weight is at most a
    254th of that.

    Examples
    --------
    >>> stored = quantize({"fc1.weight": np.array([[1.0, -0.25], [0.0, 0.0]])})
    >>> stored["fc1.weight"].tolist(), stored["fc1.weight_scale"].round(4).tolist()
    ([[127, -32], [0, 0]], [0.007899999618530273, 0.0])
    """
    stored: StateDict = {}
    for name, values in state.items():
        array = convert_floats(name, np.asarray(values), np.dtype(np.float32))
        if array.dtype.kind != "f" or array.ndim != 2:
            stored[name] = array
            continue
        stored[name], stored[name + _SUFFIX] = _quantized(name, array)
    return stored


def _quantized(name: str, array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Integers and scales of the rows of one matrix of float32."""
    # No other copy of a large matrix than its steps.
    steps = np.abs(array)
    peak = steps.max(axis=1, initial=0.0)
    if not np.isfinite(peak).all():
        raise WeightsError(f"{name!r} holds NaN or infinity, which dtype='int8' cannot store")
    scale = (peak / _LARGEST).astype(np.float32)
    # Rows whose scale is zero hold nothing that float32 could scale.
    np.divide(array, np.where(scale > 0.0, scale, np.inf)[:, None], out=steps)
    np.rint(steps, out=steps)
    return np.clip(steps, -_LARGEST, _LARGEST, out=steps).astype(np.int8), scale


def eight_bits(state: Mapping[str, np.ndarray], name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a matrix of a network in eight bits, as it is stored or rounded now.

    Parameters
    ----------
    state : mapping of str to ndarray
        From `check_quantized` or `umx_np.weights.check_state`.
    name : str
        Which matrix.

    Returns
    -------
    ndarray [shape=(nb_rows, nb_columns)], int8
    ndarray [shape=(nb_rows,)], float32
        What the rows are multiplied by.
    """
    if name + _SUFFIX in state:
        return state[name], state[name + _SUFFIX]
    return _quantized(name, np.asarray(state[name], np.float32))


def check_quantized(
    state: Mapping[str, np.ndarray], config: ModelConfig | None = None
) -> StateDict:
    """Return exactly the tensors of a network with its matrices in eight bits.

    Parameters
    ----------
    state : mapping of str to ndarray
        State dict as read from a file. What is stored in eight bits is passed on, other matrices
        are rounded one after the other, as `quantize` does it.
    config : ModelConfig, optional
        Architecture; inferred from the shapes when not given.

    Returns
    -------
    dict of str to ndarray
        As from `umx_np.weights.check_state`, with an int8 matrix and its ``<name>_scale`` for each
        matrix.

    Raises
    ------
    WeightsError
        As `umx_np.weights.check_state`; or if there is not one scale for each row.
    """
    state, others = network_tensors(state)
    if config is None:
        config = infer_config(state)
    shapes = expected_state(config)
    stored = {name for name in shapes if _is_stored(state, name)}
    scales = {name + _SUFFIX for name in stored}
    check_names((name for name in state if name not in scales), shapes, others)
    checked: StateDict = {}
    for name, shape in shapes.items():
        if name in stored:
            check_shape(name, state[name], shape, config)
            _check_scale(state, name)
            checked[name] = np.asarray(state[name], order="C")
            checked[name + _SUFFIX] = state[name + _SUFFIX].astype(np.float32)
        else:
            checked |= quantize({name: check_tensor(state, name, config, shapes, np.float32)})
    return checked


def _is_stored(state: Mapping[str, np.ndarray], name: str) -> bool:
    """Whether a matrix is there in eight bits."""
    return name + _SUFFIX in state and name in state and state[name].dtype == np.int8


def _check_scale(state: Mapping[str, np.ndarray], name: str) -> None:
    array, scale = state[name], state[name + _SUFFIX]
    if scale.dtype.kind != "f" or array.ndim != 2 or scale.shape != array.shape[:1]:
        raise WeightsError(
            f"{name + _SUFFIX!r} with dtype={scale.dtype}, shape={scale.shape} is no scale "
            f"for each row of {name!r} with shape={array.shape}; the file is damaged"
        )
    if not np.isfinite(scale).all():
        raise WeightsError(f"{name + _SUFFIX!r} holds NaN or infinity; the file is damaged")


def dequantize(state: Mapping[str, np.ndarray]) -> StateDict:
    """Undo `quantize`, but for what was rounded.

    Parameters
    ----------
    state : mapping of str to ndarray
        Any state dict; what is not stored in eight bits with scales is passed on.

    Returns
    -------
    dict of str to ndarray
        The matrices in float32, without the scales.

    Raises
    ------
    WeightsError
        If there is not one scale for each row.
    """
    return dict(plain_tensors(state))


def plain_tensors(state: Mapping[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield what `dequantize` returns, one tensor after the other."""
    quantized = {name for name in state if _is_stored(state, name)}
    for name, array in state.items():
        if name.endswith(_SUFFIX) and name[: -len(_SUFFIX)] in quantized:
            continue
        if name in quantized:
            _check_scale(state, name)
            array = array.astype(np.float32)
            array *= state[name + _SUFFIX][:, None].astype(np.float32)
        yield name, array
