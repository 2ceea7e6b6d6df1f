"""Networks one at a time, with arrays of the host in and out."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from ..config import ModelConfig
from ..weights.bundle import StateDict
from .activations import Activations, on_card, spans_of
from .layers import run_layers
from .network import NetworkStack
from .ops import Array, computing
from .transform import upload

if TYPE_CHECKING:
    from .device import Device

# Frames of one step where a network runs by itself.
_STEP_FRAMES = 2048


class CudaNetwork:
    """One network that takes and returns arrays of the host.

    Its weights go to the card when they are first used there; a separator that computes on the card
    stacks those of all its networks instead.

    See Also
    --------
    umx_np.backends.contracts.Network : the contract.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self, device: Device, config: ModelConfig, state: StateDict, math: str = "float32"
    ) -> None:
        self.config, self.state = config, state
        self._device, self._math = device, math
        self._lock = threading.Lock()
        self._made: NetworkStack | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return CudaNetwork, (self._device, self.config, self.state, self._math)

    def stack_with(self, others: Sequence[CudaNetwork]) -> NetworkStack:
        """Put this network and others of its architecture side by side."""
        networks = [(network.config, network.state) for network in (self, *others)]
        return NetworkStack(self._device, networks, self._math)

    @property
    def _stack(self) -> NetworkStack:
        with self._lock:
            if self._made is None:
                self._made = self.stack_with([])
            return self._made

    def in_dtype(self, dtype: np.dtype) -> CudaNetwork:
        return self

    def encode(self, mags: np.ndarray) -> np.ndarray:
        with computing(self._device):
            out = self._empty(len(mags), self.config.hidden_size)
            self._stack.encode(upload(self._device, mags, np.float32), out)
            return out[0].get()

    def initial_state(self) -> Any:
        with computing(self._device):
            return self._stack.initial_state(1, 1)

    def scan(
        self, layer: int, direction: int, parts: Sequence[np.ndarray], state: Any
    ) -> np.ndarray:
        with computing(self._device):
            where = layer, slice(None), slice(direction, direction + 1)
            gates = self._stack.gates(*where, [self._joined(parts)])
            return self._stack.scan(*where, gates, state)[0, 0].get()

    def combine(self, parts: Sequence[np.ndarray]) -> np.ndarray:
        with computing(self._device):
            encoded, layers = self._joined(parts[:1]), self._joined(parts[1:])
            out = self._empty(len(parts[0]), self.config.hidden_size)
            self._stack.combine(slice(None), encoded, layers, out)
            return out[0].get()

    def decode(self, z: np.ndarray, mags: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        with computing(self._device):
            result = self._empty(*mags.shape)
            self._stack.decode(self._joined([z]), upload(self._device, mags, np.float32), result)
            host = result[0].get()
        if out is None:
            return host
        out[...] = host
        return out

    def whole_track(self, mags: np.ndarray) -> np.ndarray:
        """All stages on the magnitudes of a track, with the activations on the card.

        Parameters
        ----------
        mags : ndarray [shape=(nb_frames, nb_channels, nb_bins)], float32

        Returns
        -------
        ndarray [shape as `mags`], float32
        """
        out, everything = np.empty(mags.shape, np.float32), slice(0, 1)
        nb_frames, nb_read = len(mags), self.config.nb_input_bins

        def new_activations(nb_targets: int, nb_parts: int, width: int) -> Activations:
            return on_card(self._device, nb_targets, nb_frames, nb_parts, width)

        with computing(self._device):
            stack = self._stack
            store = new_activations(1, 1, self.config.hidden_size)
            spans = spans_of(nb_frames, _STEP_FRAMES)
            for start, stop in spans:
                with store.writing(everything, start, stop) as encoded:
                    read = upload(self._device, mags[start:stop, :, :nb_read], np.float32)
                    stack.encode(read, encoded)
            run_layers(
                stack,
                store,
                everything,
                nb_frames=nb_frames,
                chunk=_STEP_FRAMES,
                new_activations=new_activations,
            )
            for start, stop in spans:
                mix = upload(self._device, mags[start:stop], np.float32)
                result = self._empty(*mix.shape)
                stack.decode(store.read(everything, start, stop), mix, result)
                out[start:stop] = result[0].get()
        return out

    def state_dict(self) -> StateDict:
        return {name: value.copy() for name, value in self.state.items()}

    def _empty(self, *shape: int) -> Array:
        return self._device.xp.empty((1, *shape), np.float32)

    def _joined(self, parts: Sequence[np.ndarray]) -> Array:
        """Features side by side [shape=(1, F, any)]."""
        joined = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)
        return upload(self._device, joined[None], np.float32)


def stacks_of(networks: Sequence[CudaNetwork]) -> list[NetworkStack]:
    """Stack neighbours of the same architecture; the order of the targets is kept."""

    def architecture(network: CudaNetwork) -> ModelConfig:
        return replace(network.config, max_bin=None)

    stacks = []
    for _, neighbours in groupby(networks, architecture):
        group = list(neighbours)
        stacks.append(group[0].stack_with(group[1:]))
    return stacks
