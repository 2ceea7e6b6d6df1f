"""The recurrent layers of whole tracks, in blocks of frames.

A bidirectional layer needs the whole track before its first output is final, so something of the
whole track must be kept: only the activations of the bottleneck, in `FrameStore` objects.
Everything else of a separation goes block by block.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from io import RawIOBase
from typing import Any, Protocol

import numpy as np

from .._kernels.calls import uninterrupted
from ..backends.contracts import Backend, Network
from ..errors import AudioError
from ..layers.int8 import BLOCK, quantise, restore

# Frames of one step: the gates of 120 frames of 256 units are 0.5 MB and stay in L2. A multiple of
# the rows that every level of the matrix product takes at a time (6, 8 or 12).
BLOCK_FRAMES = 120


class FrameStore(Protocol):
    """Activations of a whole track, float [shape=(nb_frames, width)]."""

    def read(self, start: int, stop: int) -> np.ndarray:
        """Return frames [start, stop)."""

    def write(self, start: int, block: np.ndarray) -> None:
        """Replace frames [start, start + len(block))."""

    def close(self) -> None:
        """Give the space back; nothing is read or written any more."""


class MemoryStore:
    """A `FrameStore` in an array."""

    def __init__(self, nb_frames: int, width: int, dtype: np.dtype) -> None:
        self._array = np.empty((nb_frames, width), dtype)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._array[start:stop]

    def write(self, start: int, block: np.ndarray) -> None:
        self._array[start : start + len(block)] = block

    def close(self) -> None:
        del self._array


class DiskStore:
    """A `FrameStore` in an unnamed temporary file.

    The file has no name from the start where the system allows it, so nothing is left behind
    however the process ends. It is read and written, not mapped: mapped pages would count as memory
    of the process.
    """

    def __init__(self, nb_frames: int, width: int, dtype: np.dtype) -> None:
        self._shape, self._dtype = (nb_frames, width), np.dtype(dtype)
        self._row = self._dtype.itemsize * width
        # Both directions of a layer read the same store.
        self._lock = threading.Lock()
        try:
            self._file = uninterrupted(_unnamed_file)
        except OSError as error:
            raise _store_error(error) from error
        try:
            self._file.truncate(nb_frames * self._row)
        except OSError as error:
            self._file.close()
            raise _store_error(error) from error

    def read(self, start: int, stop: int) -> np.ndarray:
        block = np.empty((stop - start, self._shape[1]), self._dtype)
        self._transfer(block, start, lambda part: self._file.readinto(part))
        return block

    def write(self, start: int, block: np.ndarray) -> None:
        self._transfer(
            np.ascontiguousarray(block, self._dtype), start, lambda part: self._file.write(part)
        )

    def _transfer(
        self, block: np.ndarray, start: int, move: Callable[[memoryview], int | None]
    ) -> None:
        """Move all bytes of a block; one call of the system may move fewer."""
        view, done = block.data.cast("B"), 0
        with self._lock:
            try:
                self._file.seek(start * self._row)
                while done < len(view):
                    count = move(view[done:])
                    if not count:
                        raise OSError("it ended early")
                    done += count
            except OSError as error:
                raise _store_error(error) from error

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()


class RoundedStore:
    """A `FrameStore` in eight bits, a quarter of the size, of what products of eight bits read.

    They would round a row to the same whole numbers, so that nothing else is lost.

    Parameters
    ----------
    new_store : callable
        Makes a store of a width and dtype.
    width : int
        Numbers of a frame.
    """

    def __init__(self, new_store: Callable[[int, np.dtype], FrameStore], width: int) -> None:
        self._steps = new_store(width, np.dtype(np.int8))
        self._scale = new_store(-(-width // BLOCK), np.dtype(np.float32))

    @staticmethod
    def nb_bytes(width: int) -> int:
        """Bytes of a frame."""
        return width + 4 * -(-width // BLOCK)

    def read(self, start: int, stop: int) -> np.ndarray:
        return restore(self._steps.read(start, stop), self._scale.read(start, stop))

    def write(self, start: int, block: np.ndarray) -> None:
        steps, scale = quantise(block)
        self._steps.write(start, steps)
        self._scale.write(start, scale)

    def close(self) -> None:
        self._steps.close()
        self._scale.close()


def _unnamed_file() -> RawIOBase:
    return tempfile.TemporaryFile(prefix="umx_np-", buffering=0)


def _store_error(error: OSError) -> AudioError:
    return AudioError(
        f"the temporary file for what exceeds max_memory cannot be used: {error}; make room, set "
        "TMPDIR to another folder, or allow more memory"
    )


StoreFactory = Callable[[int], FrameStore]


def blocks_of(nb_frames: int, size: int = BLOCK_FRAMES) -> list[tuple[int, int]]:
    """Ranges [start, stop) of at most `size` frames that cover a track."""
    return [(start, min(start + size, nb_frames)) for start in range(0, nb_frames, size)]


def shared_blocks(nb_frames: int, threads: int) -> list[tuple[int, int]]:
    """Blocks like those of `blocks_of`, but of a short track one for each thread."""
    share = -(-nb_frames // threads)
    whole_tiles = -(-share // 12) * 12
    return blocks_of(nb_frames, min(BLOCK_FRAMES, whole_tiles))


def run_bottleneck(
    ops: Backend,
    networks: Mapping[str, Network],
    stores: Mapping[str, FrameStore],
    nb_frames: int,
    new_store: StoreFactory,
    tick: Callable[[float], None] | None = None,
) -> None:
    """Replace the output of `Network.encode` by that of `Network.combine`, over a whole track.

    Parameters
    ----------
    ops : Backend
        Runs the scans, one thread for each direction of each target.
    networks : mapping of str to Network
        The targets.
    stores : mapping of str to FrameStore
        For each target the encoded track, replaced in place.
    nb_frames : int
        Frames of the track.
    new_store : callable
        Makes an empty store of a given width, for the layers in between.
    tick : callable or None
        Told the share of the work that each step has done.
    """
    for names in groups_of(networks, ops.threads):
        some = {name: networks[name] for name in names}
        _run_group(ops, some, stores, nb_frames, new_store)
        if tick is not None:
            tick(len(some) / len(networks))


def initial_states(network: Network) -> list[list[Any]]:
    """States of the LSTM before the first frame, by layer and direction."""
    config = network.config
    return [
        [network.initial_state() for _ in range(config.nb_directions)]
        for _ in range(config.nb_layers)
    ]


def all_stages(
    network: Network,
    mags: np.ndarray,
    states: Sequence[Sequence[Any]],
    out: np.ndarray | None = None,
) -> np.ndarray:
    """All stages of a network on some frames at once.

    Parameters
    ----------
    network : Network
        The target.
    mags : ndarray [shape=(nb_frames, nb_channels, nb_bins)]
        Magnitudes of the mixture.
    states : sequence of sequence of object
        From `initial_states`; updated in place, for the frames that follow.
    out : ndarray or None
        Where to put the result.

    Returns
    -------
    ndarray [shape as `mags`]
        Magnitudes of the target.
    """
    encoded = network.encode(np.ascontiguousarray(mags[:, :, : network.config.nb_input_bins]))
    parts = [encoded]
    for layer, directions in enumerate(states):
        parts = [network.scan(layer, d, parts, state) for d, state in enumerate(directions)]
    return network.decode(network.combine([encoded, *parts]), mags, out=out)


def whole_track(ops: Backend, network: Network, mags: np.ndarray) -> np.ndarray:
    """All stages of a network on the magnitudes of a track.

    Parameters
    ----------
    ops : Backend
        Where to compute, on the processor.
    network : Network
        Prepared for it.
    mags : ndarray [shape=(nb_frames, nb_channels, nb_bins)]
        Magnitudes of the mixture, in the dtype of the network.

    Returns
    -------
    ndarray [shape as `mags`]
        Magnitudes of the target.
    """
    config, nb_frames = network.config, len(mags)
    store = MemoryStore(nb_frames, config.hidden_size, network.dtype)
    read = np.ascontiguousarray(mags[:, :, : config.nb_input_bins])

    def encode(span: tuple[int, int]) -> None:
        store.write(span[0], network.encode(read[slice(*span)]))

    spans = shared_blocks(nb_frames, ops.threads)
    ops.map(encode, spans)
    run_bottleneck(
        ops,
        {"": network},
        {"": store},
        nb_frames,
        lambda width: MemoryStore(nb_frames, width, network.dtype),
    )
    out = np.empty_like(mags)

    def decode(span: tuple[int, int]) -> None:
        network.decode(store.read(*span), mags[slice(*span)], out=out[slice(*span)])

    ops.map(decode, spans)
    return out


def groups_of(networks: Mapping[str, Network], threads: int) -> list[list[str]]:
    """Targets that `run_bottleneck` runs together: as few at a time as keep all threads busy.

    Each of a group needs two sets of layer outputs.
    """
    names = list(networks)
    directions = max(network.config.nb_directions for network in networks.values())
    size = max(1, -(-threads // directions))
    return [names[first : first + size] for first in range(0, len(names), size)]


def _run_group(
    ops: Backend,
    networks: Mapping[str, Network],
    stores: Mapping[str, FrameStore],
    nb_frames: int,
    new_store: StoreFactory,
) -> None:
    inputs: dict[str, Sequence[FrameStore]] = {name: [stores[name]] for name in networks}
    spare: dict[str, Sequence[FrameStore]] = {}
    for layer in range(max(network.config.nb_layers for network in networks.values())):
        active = {name: n for name, n in networks.items() if layer < n.config.nb_layers}
        outputs = {
            name: spare.pop(name)
            if name in spare
            else [new_store(n.config.lstm_hidden_size) for _ in range(n.config.nb_directions)]
            for name, n in active.items()
        }

        def one_scan(
            job: tuple[str, int],
            layer: int = layer,
            outputs: Mapping[str, Sequence[FrameStore]] = outputs,
        ) -> None:
            name, direction = job
            scan_track(
                networks[name], layer, direction, inputs[name], outputs[name][direction], nb_frames
            )

        ops.map(
            one_scan,
            [(name, d) for name, n in active.items() for d in range(n.config.nb_directions)],
        )
        for name in active:
            if layer > 0:
                spare[name] = inputs[name]
            inputs[name] = outputs[name]

    def one_block(job: tuple[str, tuple[int, int]]) -> None:
        name, (start, stop) = job
        parts = [store.read(start, stop) for store in (stores[name], *inputs[name])]
        stores[name].write(start, networks[name].combine(parts))

    spans = shared_blocks(nb_frames, ops.threads)
    ops.map(one_block, [(name, span) for name in networks for span in spans])
    for used in (*inputs.values(), *spare.values()):
        for store in used:
            store.close()


def scan_track(
    network: Network,
    layer: int,
    direction: int,
    inputs: Sequence[FrameStore],
    output: FrameStore,
    nb_frames: int,
) -> None:
    """One direction of one layer over a whole track."""
    state = network.initial_state()
    spans = blocks_of(nb_frames)
    for start, stop in reversed(spans) if direction else spans:
        parts = [store.read(start, stop) for store in inputs]
        output.write(start, network.scan(layer, direction, parts, state))
