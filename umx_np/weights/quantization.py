"""Forms in which weights are stored: floating dtypes, or matrices of eight bits with row scales."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..errors import ConfigError, WeightsError
from .bundle import StateDict
from .state import convert_floats

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
        if not np.isfinite(array).all():
            raise WeightsError(f"{name!r} holds NaN or infinity, which dtype='int8' cannot store")
        scale = (np.abs(array).max(axis=1, initial=0.0) / _LARGEST).astype(np.float32)
        # Rows whose scale is zero hold nothing that float32 could scale.
        steps = array / np.where(scale > 0.0, scale, np.inf)[:, None]
        stored[name] = np.clip(np.rint(steps), -_LARGEST, _LARGEST).astype(np.int8)
        stored[name + _SUFFIX] = scale
    return stored


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
    quantized = {
        name for name, array in state.items() if array.dtype == np.int8 and name + _SUFFIX in state
    }
    plain: StateDict = {}
    for name, array in state.items():
        if name.endswith(_SUFFIX) and name[: -len(_SUFFIX)] in quantized:
            continue
        if name in quantized:
            scale = state[name + _SUFFIX]
            if scale.dtype.kind != "f" or array.ndim != 2 or scale.shape != array.shape[:1]:
                raise WeightsError(
                    f"{name + _SUFFIX!r} with dtype={scale.dtype}, shape={scale.shape} is no scale "
                    f"for each row of {name!r} with shape={array.shape}; the file is damaged"
                )
            array = array.astype(np.float32)
            array *= scale[:, None].astype(np.float32)
        plain[name] = array
    return plain
