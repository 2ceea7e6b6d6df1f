"""The compiled kernels behind the backend contract; float32, no BLAS, own threads."""

from __future__ import annotations

import copyreg
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from .._support.threads import Item, Result, parallel_map, resolve_threads
from ..config import ModelConfig, check_precision
from ..errors import ConfigError, DeviceError
from ..layers.lstm import suffix_of
from ..weights.bundle import StateDict
from ..weights.quantization import eight_bits
from ._folding import fold, gate_bias
from .contracts import FilterInput, Network, WienerFilter, WienerOptions, check_filter_channels

try:
    from .._kernels import cpu as _cpu
    from .._kernels import stft as _stft
except ImportError as error:  # an uncompiled source tree
    raise DeviceError(
        f"device='cpu' is not available: the compiled kernels cannot be imported ({error}); "
        "build them with: python -m pip install -e ."
    ) from error

# Bins that one thread filters at a time: the blocks that the kernel takes together.
_WIENER_BINS = 256


def instruction_set() -> str:
    """Name of the instruction-set level to use.

    The best one that this processor runs, unless the environment variable ``UMX_NP_ISA`` names
    another.
    """
    level = os.environ.get("UMX_NP_ISA") or "auto"
    levels = _cpu.levels()
    if level != "auto" and not levels.get(level):
        raise DeviceError(
            f"UMX_NP_ISA={level!r} cannot run on this processor; "
            f"choose from {[name for name, runs in levels.items() if runs]}"
        )
    return level


def describe() -> dict[str, Any]:
    """Return the levels compiled in and the one in use, for ``umx-np info``."""
    kernels = _cpu.Kernels(instruction_set())
    return {
        "level": kernels.level,
        "lanes": kernels.lanes,
        "bf16_products": bool(kernels.has_bf16_gemm),
        "int8_products": kernels.int8_products,
        "levels": _cpu.levels(),
    }


def _kernels_of(level: str) -> Any:
    """Return the kernels that packed matrices belong to."""
    try:
        return _cpu.Kernels(level)
    except ValueError as error:
        raise DeviceError(
            f"level={level!r} cannot run on this processor, and the networks were made for it; "
            "load the model here instead of sending it from another machine"
        ) from error


# So that all that computes with them can be pickled and copied.
copyreg.pickle(_cpu.Kernels, lambda kernels: (_kernels_of, (kernels.level,)))


class CpuNetwork:
    """A network with its matrices packed for the kernels.

    The packed matrices are the only copy: `state_dict` unpacks them. Normalisations are folded into
    the prologue and epilogue of the matrix products, so the weights keep their exact values.

    See Also
    --------
    umx_np.backends.contracts.Network : the contract.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self, kernels: Any, config: ModelConfig, state: StateDict, precision: str = "full"
    ) -> None:
        self.config = config
        self._kernels = kernels
        self._precision = precision
        # Vectors are small: kept as they are, for state_dict.
        self._small = {name: v.copy() for name, v in state.items() if v.ndim < 2}
        self._shift, self._gain, self._scale, self._bias = fold(config, state)
        self._fc1 = self._pack(*self._matrix(state, "fc1.weight"))
        self._fc3 = self._pack(*self._matrix(state, "fc3.weight"))
        # fc2 reads the skip connection and the directions, which arrive apart.
        parts = [config.hidden_size] + [config.lstm_hidden_size] * config.nb_directions
        self._fc2 = self._pack_parts(*self._matrix(state, "fc2.weight"), parts)
        self._w_ih: dict[str, list[Any]] = {}
        self._w_hh: dict[str, Any] = {}
        self._gate_bias: dict[str, np.ndarray] = {}
        for layer in range(config.nb_layers):
            parts = parts[:1] if layer == 0 else [config.lstm_hidden_size] * config.nb_directions
            for direction in range(config.nb_directions):
                self._pack_direction(state, suffix_of(layer, direction), parts)

    def _matrix(self, state: StateDict, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Return a matrix, and the scales of its rows where it is one of eight bits."""
        return eight_bits(state, name) if self._precision == "int8" else (state[name], None)

    def _pack(self, weight: np.ndarray, scale: np.ndarray | None) -> Any:
        # A product of bfloat16 gains only where the processor has it.
        bf16 = self._precision == "fast" and self._kernels.has_bf16_gemm
        return self._kernels.pack_linear(weight, bf16=bf16, scale=scale)

    def _pack_parts(
        self, weight: np.ndarray, scale: np.ndarray | None, sizes: Sequence[int]
    ) -> list[Any]:
        columns = np.split(weight, np.cumsum(sizes)[:-1], axis=1)
        return [self._pack(part, scale) for part in columns]

    def _pack_direction(self, state: StateDict, key: str, parts: Sequence[int]) -> None:
        kernels, hidden = self._kernels, self.config.lstm_hidden_size
        weight, scale = self._matrix(state, "lstm.weight_ih" + key)
        rows = kernels.pack_gates(weight, hidden)
        scales = None if scale is None else kernels.pack_gates(scale, hidden)
        self._w_ih[key] = self._pack_parts(rows, scales, parts)
        weight, scale = self._matrix(state, "lstm.weight_hh" + key)
        # The recurrence gains from half the bytes on every processor.
        bf16 = self._precision == "fast"
        self._w_hh[key] = kernels.pack_recurrent(weight, bf16=bf16, scale=scale)
        self._gate_bias[key] = kernels.pack_gates(gate_bias(state, key), hidden)

    def _product(
        self,
        parts: Sequence[np.ndarray],
        weights: Sequence[Any],
        out: np.ndarray,
        **finish: Any,
    ) -> np.ndarray:
        """Sum of the products of all parts, with the epilogue after the last one."""
        last = len(parts) - 1
        for i, (part, weight) in enumerate(zip(parts, weights, strict=True)):
            if i < last:
                self._kernels.gemm(part, weight, out, accumulate=i > 0, finish=False)
            else:
                self._kernels.gemm(part, weight, out, accumulate=i > 0, **finish)
        return out

    def in_dtype(self, dtype: np.dtype) -> CpuNetwork:
        return self

    def encode(self, mags: np.ndarray) -> np.ndarray:
        out = np.empty((len(mags), self.config.hidden_size), np.float32)
        self._kernels.gemm(
            mags.reshape(len(mags), -1),
            self._fc1,
            out,
            a_shift=self._shift,
            a_scale=self._gain,
            scale=self._scale["bn1"],
            bias=self._bias["bn1"],
            act="tanh",
        )
        return out

    def initial_state(self) -> tuple[np.ndarray, np.ndarray]:
        padded = self._kernels.padded_size(self.config.lstm_hidden_size)
        return np.zeros(padded, np.float32), np.zeros(padded, np.float32)

    def scan(
        self,
        layer: int,
        direction: int,
        parts: Sequence[np.ndarray],
        state: tuple[np.ndarray, np.ndarray],
    ) -> np.ndarray:
        key = suffix_of(layer, direction)
        bias = self._gate_bias[key]
        gates = np.empty((len(parts[0]), len(bias)), np.float32)
        self._product(parts, self._w_ih[key], gates, bias=bias)
        out = np.empty((len(gates), self.config.lstm_hidden_size), np.float32)
        self._kernels.lstm_scan(gates, self._w_hh[key], *state, out, reverse=direction == 1)
        return out

    def combine(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        out = np.empty((len(parts[0]), self.config.hidden_size), np.float32)
        return self._product(
            parts, self._fc2, out, scale=self._scale["bn2"], bias=self._bias["bn2"], act="relu"
        )

    def decode(self, z: np.ndarray, mags: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        if out is None:
            out = np.empty(mags.shape, np.float32)
        elif not out.flags.c_contiguous:
            # Rows of it would be a copy.
            out[...] = self.decode(z, mags)
            return out
        self._kernels.gemm(
            z,
            self._fc3,
            out.reshape(len(z), -1),
            scale=self._scale["bn3"],
            bias=self._bias["bn3"],
            act="relu",
            gain=mags.reshape(len(z), -1),
        )
        return out

    def state_dict(self) -> StateDict:
        if self._precision != "full":
            raise ConfigError(
                f"precision={self._precision!r} keeps rounded weights only; load the model with "
                "precision='full' to get them back"
            )
        config, kernels = self.config, self._kernels
        state = {name: value.copy() for name, value in self._small.items()}
        state["fc1.weight"] = kernels.unpack_linear(self._fc1, config.hidden_size)
        state["fc2.weight"] = self._unpack_parts(self._fc2, config.hidden_size)
        state["fc3.weight"] = kernels.unpack_linear(self._fc3, len(self._bias["bn3"]))
        for key, parts in self._w_ih.items():
            rows = self._unpack_parts(parts, len(self._gate_bias[key]))
            state["lstm.weight_ih" + key] = kernels.unpack_gates(rows, config.lstm_hidden_size)
            state["lstm.weight_hh" + key] = kernels.unpack_recurrent(self._w_hh[key])
        return state

    def _unpack_parts(self, parts: Sequence[np.ndarray], rows: int) -> np.ndarray:
        return np.concatenate([self._kernels.unpack_linear(part, rows) for part in parts], axis=1)


class CpuFilter:
    """The fused Wiener filter for one or two channels, blocks of bins side by side.

    See Also
    --------
    umx_np.backends.contracts.WienerFilter : the contract.
    """

    def __init__(self, backend: CpuBackend, kernels: Any, options: WienerOptions) -> None:
        self.options = options
        self._backend, self._kernels = backend, kernels

    def window(
        self, given: FilterInput, iterations: int, out: np.ndarray | None = None
    ) -> np.ndarray:
        return self._filtered(given, out, iterations=iterations)

    def accumulate(self, given: FilterInput, statistics: np.ndarray, level: int) -> None:
        self._bins(given, None, r=statistics, level=level, iterations=len(statistics))

    def apply(
        self, given: FilterInput, statistics: np.ndarray, out: np.ndarray | None = None
    ) -> np.ndarray:
        return self._filtered(given, out, r=statistics, iterations=len(statistics))

    def _filtered(self, given: FilterInput, out: np.ndarray | None, **step: Any) -> np.ndarray:
        check_filter_channels(len(given.mix))
        if out is None:
            shape = (len(given.mags) + self.options.residual, *given.mix.shape)
            out = np.empty(shape, np.complex64)
        self._bins(given, out, **step)
        return out

    def _bins(self, given: FilterInput, y: np.ndarray | None, **step: Any) -> None:
        mix, mags, max_abs = given
        nb_bins = mix.shape[-1]
        step |= asdict(self.options)
        step["max_abs"] = max_abs if step["iterations"] else 1.0

        def some_bins(start: int) -> None:
            stop = min(start + _WIENER_BINS, nb_bins)
            self._kernels.wiener(mix, mags, y, bin_start=start, bin_stop=stop, **step)

        self._backend.map(some_bins, range(0, nb_bins, _WIENER_BINS))


class CpuBackend:
    """Compiled kernels on the cores of this machine; see `umx_np.backends.contracts.Backend`.

    Parameters
    ----------
    threads : int or None
        Threads to compute on; None means all cores that this process may use.
    precision : {'full', 'fast', 'int8'}
        ``'fast'`` rounds the weights to bfloat16, and where the processor multiplies bfloat16 the
        activations too; sums are float32. ``'int8'`` rounds both to eight bits, see
        `umx_np.layers.int8`; sums are whole numbers.
    level : str or None
        Instruction-set level; None takes `instruction_set`.
    """

    name = "cpu"
    max_channels = 2

    def __init__(
        self, threads: int | None = None, precision: str = "full", level: str | None = None
    ) -> None:
        self.precision = check_precision(precision)
        self.threads = self.copy_threads = resolve_threads(threads)
        self._kernels = _cpu.Kernels(level or instruction_set())

    def __repr__(self) -> str:
        return f"cpu ({self._kernels.level}, {self.threads} threads, {self.precision} precision)"

    def dtype_for(self, dtype: np.dtype) -> np.dtype:
        return np.dtype(np.float32)

    def network(self, config: ModelConfig, state: StateDict) -> Network:
        return CpuNetwork(self._kernels, config, state, self.precision)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
        return parallel_map(self.threads, function, items)

    def frame(self, x: np.ndarray, window: np.ndarray, *, n_hop: int, nb_frames: int) -> np.ndarray:
        out = np.empty((len(x), nb_frames, len(window)), x.dtype)
        _stft.frame(x, window, out, n_hop)
        return out

    def overlap_add(
        self, frames: np.ndarray, window: np.ndarray, *, n_hop: int, out: np.ndarray
    ) -> None:
        _stft.overlap_add(frames, window, out, n_hop)

    def magnitude(
        self, spectrum: np.ndarray, *, nb_bins: int, mono: bool, out: np.ndarray | None = None
    ) -> np.ndarray:
        if out is None:
            shape = (spectrum.shape[1], 1 if mono else len(spectrum), nb_bins)
            out = np.empty(shape, spectrum.real.dtype)
        _stft.magnitude(spectrum, out, mono)
        return out

    def linear(self, x: np.ndarray, weight: tuple[np.ndarray, int]) -> np.ndarray:
        packed, rows = weight
        if packed.dtype == np.float64:
            return x @ packed.T
        flat = x.reshape(-1, x.shape[-1])
        out = np.empty((len(flat), rows), np.float32)
        self._kernels.gemm(flat, packed, out)
        return out.reshape(*x.shape[:-1], rows)

    def pack_linear(self, weight: np.ndarray) -> tuple[np.ndarray, int]:
        # The kernels compute in float32; float64 is there for analysis, not for speed.
        packed = weight if weight.dtype == np.float64 else self._kernels.pack_linear(weight)
        return packed, len(weight)

    def wiener(self, options: WienerOptions) -> WienerFilter:
        return CpuFilter(self, self._kernels, options)

    def wiener_gradient(self, given: FilterInput, d_y: np.ndarray, eps: float) -> np.ndarray:
        mix, mags, max_abs = given
        d_mags, nb_bins = np.empty_like(mags), mix.shape[-1]

        def some_bins(start: int) -> None:
            window = {"bin_start": start, "bin_stop": min(start + _WIENER_BINS, nb_bins)}
            self._kernels.wiener_gradient(
                mix, mags, d_y, d_mags, max_abs=max_abs, eps=eps, **window
            )

        self.map(some_bins, range(0, nb_bins, _WIENER_BINS))
        return d_mags
