"""Audio that an engine reads, block by block, and what it expects of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..errors import ShapeError
from ..framing.blocks import Framer, Segment
from ..framing.geometry import StftGeometry
from ..framing.levels import LevelFollower

if TYPE_CHECKING:
    pass


# Samples asked of a source at a time.
SOURCE_BLOCK = 1 << 17


class Source(Protocol):
    """Audio that can be read more than once, such as `umx_np.audio.AudioReader`."""

    nb_channels: int
    nb_timesteps: int

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        """Yield float32 blocks [shape=(nb_channels, <= size)] from the beginning."""


class Sink(Protocol):
    """Something that takes a stem block by block, such as `umx_np.audio.StemWriter`."""

    def write(self, block: np.ndarray) -> None:
        """Append a block [shape=(nb_channels, n)]."""


class ArraySource:
    """A `Source` over an array [shape=(nb_channels, nb_timesteps)]."""

    def __init__(self, audio: np.ndarray) -> None:
        self._audio = audio
        self.nb_channels, self.nb_timesteps = audio.shape

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        for start in range(0, self.nb_timesteps, size):
            yield self._audio[:, start : start + size]


class FirstChannels:
    """A `Source` of the first channels of another one.

    Parameters
    ----------
    source : Source
        The mixture.
    count : int
        Channels to take, if there are more.
    """

    def __init__(self, source: Source, count: int) -> None:
        self._source = source
        self.nb_channels = min(count, source.nb_channels)
        self.nb_timesteps = source.nb_timesteps

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        for block in self._source.blocks(size):
            yield block[: self.nb_channels]


class TwiceOneChannel:
    """A `Source` of two channels that are the one of another source."""

    nb_channels = 2

    def __init__(self, source: Source) -> None:
        self._source, self.nb_timesteps = source, source.nb_timesteps

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        for block in self._source.blocks(size):
            yield np.repeat(block, 2, axis=0)


class LevelledSource:
    """A `Source` over another one, brought to the level of a model.

    Parameters
    ----------
    source : Source
        The mixture.
    follower : LevelFollower
        Finds the levels when the source is read first; they hold for the passes after that.
    """

    def __init__(self, source: Source, follower: LevelFollower) -> None:
        self._source, self._follower = source, follower
        self._is_known = False
        self.nb_channels, self.nb_timesteps = source.nb_channels, source.nb_timesteps

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        if self._is_known:
            start = 0
            for block in self._source.blocks(size):
                yield self._follower.divide(start, block)
                start += block.shape[1]
            return
        for block in self._source.blocks(size):
            yield self._follower.push(block)
        yield self._follower.finish()
        self._is_known = True


class CheckedSource:
    """A `Source` over another one, of which nothing is taken for granted.

    Parameters
    ----------
    source : Source
        Its blocks may be of any real dtype.
    n_fft : int
        Size of the STFT that the samples are meant for.
    """

    def __init__(self, source: Source, n_fft: int) -> None:
        self._source, self._n_fft = source, n_fft
        self.nb_channels, self.nb_timesteps = source.nb_channels, source.nb_timesteps
        if self.nb_channels < 1 or self.nb_timesteps < 1:
            raise ShapeError(
                f"source has nb_channels={self.nb_channels}, nb_timesteps={self.nb_timesteps}; "
                "there is nothing to separate"
            )

    def blocks(self, size: int) -> Iterator[np.ndarray]:
        for given in self._source.blocks(size):
            block = np.asarray(given)
            if block.ndim != 2 or len(block) != self.nb_channels:
                raise ShapeError(
                    f"source gave a block with shape={block.shape}; it must be "
                    f"({self.nb_channels}, nb_timesteps)"
                )
            if block.dtype.kind not in "fiu":
                raise ShapeError(f"source gave a block with dtype={block.dtype}; it must be real")
            if block.size and not is_finite_as(block, np.dtype(np.float32), self._n_fft):
                raise ShapeError(
                    "source gave a block with NaN, infinity or numbers too large for float32; "
                    "remove them before separating"
                )
            yield block.astype(np.float32, copy=False)


def is_finite_as(x: np.ndarray, dtype: np.dtype, n_fft: int) -> bool:
    """Whether all numbers are finite, and stay so in an STFT that is computed in a dtype."""
    # Frames are multiplied by a window times n_fft, and their n_fft samples summed.
    largest = np.finfo(dtype).max / n_fft**2
    return bool(-largest <= x.min() and x.max() <= largest)  # NaN is neither


def segments(
    blocks: Iterable[np.ndarray], geometry: StftGeometry, nb_timesteps: int, group: int
) -> Iterator[Segment]:
    """Cut blocks of a signal of known length to overlapping segments of whole frames.

    Parameters
    ----------
    blocks : iterable of ndarray [shape=(nb_channels, any)]
        The signal.
    geometry : StftGeometry
        Where the frames lie.
    nb_timesteps : int
        Length of the signal.
    group : int
        Frames of a segment; the last one may be shorter.

    Yields
    ------
    Segment
        As `Framer.push` yields them.

    Raises
    ------
    ShapeError
        If the blocks have another length than `nb_timesteps`.
    """
    framer = Framer(geometry, group)
    for block in blocks:
        yield from framer.push(block)
        if framer.nb_timesteps > nb_timesteps:
            break
    check_length(framer.nb_timesteps, nb_timesteps)
    yield from framer.finish()


def check_length(delivered: int, announced: int) -> None:
    """Raise `ShapeError` unless a source has delivered the samples it announced."""
    if delivered != announced:
        raise ShapeError(
            f"the source announced nb_timesteps={announced} samples but delivered "
            f"{'more' if delivered > announced else delivered}"
        )


def check_channels(source: Source, nb_channels: int) -> None:
    """Raise `ShapeError` if a source lacks channels that a model of `nb_channels` needs.

    Two channels of a model can be made of one.
    """
    if nb_channels > 2 and source.nb_channels < nb_channels:
        raise ShapeError(
            f"source has nb_channels={source.nb_channels}; this model needs {nb_channels}"
        )
