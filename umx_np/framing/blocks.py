"""The STFT of streams: cutting blocks of audio to frames, and overlap-adding frames to blocks.

Both classes are fed piece by piece, and do not need to know the length of the signal before its
end.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .geometry import StftGeometry
from .transform import Transform

# Frames that are transformed or decoded at a time: two channels of 4096 samples are 2 MB. A divisor
# of the usual filter window, and a multiple of the rows that the matrix product takes at a time.
SLICE_FRAMES = 60

# First frame, number of frames, and the samples that they cover.
Segment = tuple[int, int, np.ndarray]


class Framer:
    """Cuts a stream to overlapping segments of whole frames, as the STFT of the whole would.

    Parameters
    ----------
    geometry : StftGeometry
        Where the frames lie.
    group : int
        Frames of a segment.
    eager : bool
        Give out every frame as soon as its samples are there, instead of waiting for a group.
    """

    def __init__(self, geometry: StftGeometry, group: int, *, eager: bool = False) -> None:
        self._geometry, self._group, self._eager = geometry, group, eager
        self._first = 0  # next frame
        # Padded signal from the next frame on. The blocks are joined when they are needed, not one
        # by one, which for long segments would copy all of it with each of them.
        self._blocks: list[np.ndarray] = []
        self._nb_buffered = 0
        # With padding: samples gathered until the reflection at the start is known, and the last
        # pad + 1 samples for the one at the end.
        self._head: np.ndarray | None = None
        self._tail: np.ndarray | None = None
        self._started = geometry.pad == 0
        self.nb_timesteps = 0  # samples seen

    def push(self, block: np.ndarray) -> Iterator[Segment]:
        """Take a block [shape=(nb_channels, any)] and yield the segments that are complete.

        Yields
        ------
        first_frame, nb_frames : int
            Which frames.
        segment : ndarray [shape=(nb_channels, nb_samples_of(nb_frames))]
            Samples of the padded signal; a view, not written to any more.
        """
        self.nb_timesteps += block.shape[1]
        self._append(block)
        yield from self._complete_segments()

    def finish(self) -> Iterator[Segment]:
        """Yield what is left when the signal has ended.

        Raises
        ------
        ShapeError
            If the signal was empty, or, not centred, shorter than one frame.
        """
        geometry = self._geometry
        total = geometry.nb_frames(self.nb_timesteps)
        missing = geometry.nb_extended(self.nb_timesteps) - self.nb_timesteps
        if missing:
            assert self._head is not None  # a signal this short has not got any further
            self._append(np.zeros((len(self._head), missing), self._head.dtype))
        if geometry.pad:
            assert self._tail is not None
            self._extend(self._tail[:, -2::-1][:, : geometry.pad])
        while self._first < total:
            yield self._take(min(self._group, total - self._first))

    def _append(self, block: np.ndarray) -> None:
        pad = self._geometry.pad
        if pad:
            tail = _joined(self._tail, block)
            self._tail = tail[:, -(pad + 1) :]
        if self._started:
            self._extend(block)
            return
        self._head = _joined(self._head, block)
        if self._head.shape[1] > pad:
            self._extend(np.concatenate([self._head[:, pad:0:-1], self._head], axis=1))
            self._head, self._started = None, True

    def _extend(self, padded: np.ndarray) -> None:
        self._blocks.append(padded)
        self._nb_buffered += padded.shape[1]

    def _complete_segments(self) -> Iterator[Segment]:
        geometry = self._geometry
        while self._blocks:
            ready = 1 + (self._nb_buffered - geometry.n_fft) // geometry.n_hop
            if self._eager and ready > 0:
                # The last frame is left to `finish`, which only matters with hops of more than half
                # a frame: otherwise the frames that end in the padding are still to come.
                ready = min(ready, geometry.nb_frames(self.nb_timesteps) - 1 - self._first)
            if ready < (1 if self._eager else self._group):
                return
            yield self._take(min(ready, self._group))

    def _take(self, count: int) -> Segment:
        geometry = self._geometry
        if len(self._blocks) > 1:
            self._blocks = [np.concatenate(self._blocks, axis=1)]
        (buffer,) = self._blocks
        segment = self._first, count, buffer[:, : geometry.nb_samples_of(count)]
        self._first += count
        self._blocks = [buffer[:, count * geometry.n_hop :]]
        self._nb_buffered = self._blocks[0].shape[1]
        return segment


def _joined(first: np.ndarray | None, second: np.ndarray) -> np.ndarray:
    return second if first is None else np.concatenate([first, second], axis=1)


class OverlapAdder:
    """Inverse STFT of consecutive spectra.

    Parameters
    ----------
    transform : Transform
        The STFT.
    """

    def __init__(self, transform: Transform) -> None:
        self._transform = transform
        self._carry: np.ndarray | None = None  # what later frames still add to
        self._memory = np.empty(0, transform.dtype)

    def add(
        self, first: int, spectra: np.ndarray, length: int | None = None, *, last: bool = False
    ) -> tuple[int, np.ndarray]:
        """Take the next frames and return the samples that no later frame reaches.

        Parameters
        ----------
        first : int
            Number of the first frame.
        spectra : complex ndarray [shape=(..., nb_frames, nb_bins)]
            The frames.
        length : int or None
            Samples of the whole signal, when known; at the latest with the last frames.
        last : bool
            Whether these are the last frames.

        Returns
        -------
        start : int
            Position in the signal of the first sample returned.
        signals : ndarray [shape=(..., n)]
            Possibly empty; valid until the next call.
        """
        transform, geometry = self._transform, self._transform.geometry
        shape, spectra = spectra.shape[:-2], spectra.reshape(-1, *spectra.shape[-2:])
        nb_signals, count, _ = spectra.shape
        size = nb_signals * geometry.nb_samples_of(count)
        if self._memory.size < size:
            self._memory = np.empty(size, transform.dtype)
        buffer = self._memory[:size].reshape(nb_signals, -1)
        # In samples of the padded signal: [lo, hi) will be final and lies inside the signal.
        done = buffer.shape[1] if last else count * geometry.n_hop
        start = first * geometry.n_hop
        lo = max(start, geometry.pad)
        hi = start + done if length is None else min(start + done, geometry.pad + length)
        hi = max(lo, hi)
        envelope = geometry.inverse_envelope(lo, hi, first + count).astype(transform.dtype)
        carry = np.empty((nb_signals, buffer.shape[1] - done), transform.dtype)
        signals = buffer[:, lo - start : hi - start]

        def inverse(row: int) -> None:
            buffer[row] = 0.0
            if self._carry is not None:
                buffer[row, : self._carry.shape[1]] = self._carry[row]
            for i in range(0, count, SLICE_FRAMES):
                block = spectra[row : row + 1, i : i + SLICE_FRAMES]
                transform.inverse(block, buffer[row : row + 1, i * geometry.n_hop :])
            carry[row] = buffer[row, done:]
            signals[row] *= envelope

        transform.ops.map(inverse, range(nb_signals))
        self._carry = carry
        if last and length is not None and hi < geometry.pad + length:
            # No frame reaches the last samples; torch.istft, too, fills them with zeros.
            missing = geometry.pad + length - hi
            signals = np.pad(signals, ((0, 0), (0, missing)))
        return lo - geometry.pad, signals.reshape(*shape, signals.shape[1])
