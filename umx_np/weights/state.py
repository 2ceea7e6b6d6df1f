"""Names and shapes of the tensors of an Open-Unmix network.

The names are PyTorch's, so that weights travel between the two in both directions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

import numpy as np

from ..config import ModelConfig
from ..errors import ConfigError, WeightsError
from .bundle import StateDict
from .finding import listed, network_tensors

logger = logging.getLogger(__name__)

# Buffers of older versions of Open-Unmix, whose networks held their own STFT.
_LEGACY_KEYS = ("sample_rate",)
_LEGACY_PREFIXES = ("stft.", "istft.", "transform.")
_NETWORK_PREFIXES = ("fc", "bn", "lstm.", "input_", "output_")
_COUNTER = "num_batches_tracked"


def expected_state(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of a network, under PyTorch's names and in its order.

    Parameters
    ----------
    config : ModelConfig
        Architecture.

    Returns
    -------
    dict of str to tuple of int
        46 entries for three bidirectional layers.

    Examples
    --------
    >>> shapes = expected_state(ModelConfig(nb_bins=2049, max_bin=1487))
    >>> len(shapes), shapes["fc1.weight"], shapes["lstm.weight_ih_l0_reverse"]
    (46, (512, 2974), (1024, 512))
    """
    hidden, units = config.hidden_size, config.lstm_hidden_size
    nb_outputs = config.nb_bins * config.nb_channels
    shapes: dict[str, tuple[int, ...]] = {
        "input_mean": (config.nb_input_bins,),
        "input_scale": (config.nb_input_bins,),
        "output_scale": (config.nb_bins,),
        "output_mean": (config.nb_bins,),
        "fc1.weight": (hidden, config.nb_input_bins * config.nb_channels),
        **_batchnorm("bn1", hidden),
    }
    for layer in range(config.nb_layers):
        nb_inputs = hidden if layer == 0 else units * config.nb_directions
        for suffix in ("", "_reverse")[: config.nb_directions]:
            shapes[f"lstm.weight_ih_l{layer}{suffix}"] = (4 * units, nb_inputs)
            shapes[f"lstm.weight_hh_l{layer}{suffix}"] = (4 * units, units)
            shapes[f"lstm.bias_ih_l{layer}{suffix}"] = (4 * units,)
            shapes[f"lstm.bias_hh_l{layer}{suffix}"] = (4 * units,)
    return shapes | {
        "fc2.weight": (hidden, 2 * hidden),
        **_batchnorm("bn2", hidden),
        "fc3.weight": (nb_outputs, hidden),
        **_batchnorm("bn3", nb_outputs),
    }


def _batchnorm(name: str, size: int) -> dict[str, tuple[int, ...]]:
    per_feature = ("weight", "bias", "running_mean", "running_var")
    return {f"{name}.{part}": (size,) for part in per_feature} | {f"{name}.{_COUNTER}": ()}


def infer_config(state: Mapping[str, np.ndarray]) -> ModelConfig:
    """Find the architecture of a network from the shapes of its tensors alone.

    Parameters
    ----------
    state : mapping of str to ndarray
        State dict, with or without a prefix such as ``module.`` or ``model.``.

    Returns
    -------
    ModelConfig
        `max_bin` is always a number, also when the network reads all bins.

    Raises
    ------
    WeightsError
        If a needed tensor is missing, no architecture has these shapes, or there are several
        networks.

    Notes
    -----
    Only the tensors that tell the sizes are looked at; `check_state` compares the rest.
    """
    state, _ = network_tensors(state)
    nb_input_bins = _dimensions(state, "input_mean", 1)[0]
    nb_bins = _dimensions(state, "output_mean", 1)[0]
    hidden_size, nb_inputs = _dimensions(state, "fc1.weight", 2)
    if nb_input_bins < 1 or nb_inputs % nb_input_bins:
        raise WeightsError(
            f"fc1.weight reads {nb_inputs} values, which is no multiple of the {nb_input_bins} "
            "bins of input_mean; the weights are not those of an Open-Unmix network"
        )
    nb_layers = 0
    while f"lstm.weight_ih_l{nb_layers}" in state:
        nb_layers += 1
    try:
        return ModelConfig(
            nb_bins=nb_bins,
            nb_channels=nb_inputs // nb_input_bins,
            hidden_size=hidden_size,
            nb_layers=nb_layers,
            unidirectional="lstm.weight_ih_l0_reverse" not in state,
            max_bin=nb_input_bins,
        )
    except ConfigError as error:
        raise WeightsError(f"the shapes of the weights fit no Open-Unmix network: {error}") from (
            error
        )


def _dimensions(state: Mapping[str, np.ndarray], name: str, count: int) -> tuple[int, ...]:
    if name not in state:
        raise WeightsError(
            f"tensor={name!r} is missing; the weights are not those of an Open-Unmix network"
        )
    shape = np.shape(state[name])
    if len(shape) != count:
        raise WeightsError(f"{name!r} has shape={shape} instead of {count} dimensions")
    return shape


def same_architecture(first: ModelConfig, second: ModelConfig) -> bool:
    """Whether two configurations describe the same network (``max_bin`` None or all bins)."""
    return expected_state(first) == expected_state(second)


def check_state(
    state: Mapping[str, np.ndarray],
    config: ModelConfig | None = None,
    *,
    dtype: object = np.float32,
) -> StateDict:
    """Return exactly the tensors of a network, or say what is wrong with them.

    Parameters
    ----------
    state : mapping of str to ndarray
        State dict as read from a file. It is not modified.
    config : ModelConfig, optional
        Architecture; inferred from the shapes when not given.
    dtype : dtype or None
        Floating dtype to convert weights to; None keeps what the file has.

    Returns
    -------
    dict of str to ndarray
        C-contiguous tensors in the order of `expected_state`. ``num_batches_tracked`` is int64, and
        0 where an old file does not have it. Arrays that need no conversion are passed on.

    Raises
    ------
    WeightsError
        If a tensor is missing, has the wrong shape or kind, holds NaN, infinity or a negative
        variance, or belongs to another architecture, or if there are several networks.

    Notes
    -----
    Prefixes (``module.`` of a wrapper, ``model.`` of a Lightning module, any other) are removed.
    Buffers of older versions of Open-Unmix (``sample_rate``, ``stft.window``,
    ``transform.0.window``, ...) are dropped; other unexpected tensors outside the network are
    dropped with a warning in the log.
    """
    state, others = network_tensors(state)
    if config is None:
        config = infer_config(state)
    shapes = expected_state(config)
    check_names(state, shapes, others)
    return {name: check_tensor(state, name, config, shapes, dtype) for name in shapes}


def check_names(
    names: Iterable[str], shapes: Mapping[str, tuple[int, ...]], others: list[str]
) -> None:
    """Raise `WeightsError` if names are missing or belong to another network; log others."""
    state = dict.fromkeys(names)  # in their order, which messages keep
    missing = [name for name in shapes if name not in state and not name.endswith(_COUNTER)]
    if missing:
        raise WeightsError(f"tensors are missing: {listed(missing)}; the file is no complete model")
    unexpected = [
        name
        for name in state
        if name not in shapes and name not in _LEGACY_KEYS and not name.startswith(_LEGACY_PREFIXES)
    ]
    foreign = [name for name in unexpected if name.startswith(_NETWORK_PREFIXES)]
    if foreign:
        raise WeightsError(
            f"tensors do not belong to this architecture: {listed(foreign)}; "
            "check nb_layers and unidirectional"
        )
    if ignored := [*unexpected, *others]:
        logger.warning("ignored tensors that are not part of the network: %s", listed(ignored))


def check_shape(name: str, array: np.ndarray, shape: tuple[int, ...], config: ModelConfig) -> None:
    """Raise `WeightsError` for a tensor of another network."""
    if array.shape != shape:
        raise WeightsError(
            f"{name!r} has shape={array.shape} instead of {shape}; the weights do not fit {config}"
        )


def check_tensor(
    state: Mapping[str, np.ndarray],
    name: str,
    config: ModelConfig,
    shapes: Mapping[str, tuple[int, ...]],
    dtype: object,
) -> np.ndarray:
    """Return one tensor as `check_state` does."""
    if name not in state:
        return np.zeros((), np.int64)
    array = np.asarray(state[name])
    check_shape(name, array, shapes[name], config)
    return _check_values(name, array, dtype)


def _check_values(name: str, array: np.ndarray, dtype: object) -> np.ndarray:
    if name.endswith(_COUNTER):
        if array.dtype.kind not in "iu":
            raise WeightsError(f"{name!r} has dtype={array.dtype} instead of an integer one")
        return array.astype(np.int64)
    if array.dtype.kind != "f":
        raise WeightsError(f"{name!r} has dtype={array.dtype} instead of a floating one")
    converted = array
    if dtype is not None:
        converted = convert_floats(name, array, np.dtype(dtype))  # type: ignore[call-overload]
    if not np.isfinite(converted).all():
        raise WeightsError(f"{name!r} holds NaN or infinity; the file is damaged")
    if name.endswith("running_var") and converted.size and converted.min() < 0:
        raise WeightsError(f"{name!r} holds a negative variance; the file is damaged")
    return np.asarray(converted, order="C")


def convert_floats(name: str, array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Convert weights to another floating dtype; a finite number must stay finite.

    Parameters
    ----------
    name : str
        For the message.
    array : ndarray
        Weights; arrays of other kinds than floating are returned as they are.
    dtype : dtype
        Target.

    Returns
    -------
    ndarray
        `array` itself when it has that dtype already.

    Raises
    ------
    WeightsError
        If a number is too large for `dtype`.
    """
    if array.dtype.kind != "f" or array.dtype == dtype:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        converted = array.astype(dtype)
    if converted.itemsize < array.itemsize and not np.array_equal(
        np.isfinite(converted), np.isfinite(array)
    ):
        raise WeightsError(f"{name!r} holds numbers too large for dtype={dtype}; use float32")
    return converted
