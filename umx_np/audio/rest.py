"""What is left of a song: the residual with what resampling took from it, or all but a stem."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .reader import AudioReader
from .resampling import StreamResampler
from .stem_files import Part
from .writer import StemWriter

# Samples asked of a reader at a time.
_BLOCK = 1 << 16


class RestSink:
    """Writes a stem that holds the residual of a model at another rate than that of the file.

    The stems come at the rate of the model, which has no frequency above half of it, and are
    resampled. The mixture of the file minus the mixture that the model got, resampled in the same
    way, is in none of them: it belongs to the residual. So stems and residual add up to the file.

    Parameters
    ----------
    writer : StemWriter
        Takes blocks at the rate of its file.
    reader : AudioReader
        The mixture at the rate of the stems.
    original : AudioReader
        The mixture at the rate of the file.
    """

    def __init__(
        self, writer: StemWriter | Part, reader: AudioReader, original: AudioReader
    ) -> None:
        self._writer = writer
        nb_channels = writer.nb_channels
        self._separated = _Samples(reader.blocks(_BLOCK), nb_channels)
        self._original = _Samples(original.blocks(_BLOCK), nb_channels)
        self._resampler = StreamResampler(reader.rate, writer.rate, nb_channels)

    def write(self, block: np.ndarray) -> None:
        """Take the next samples [shape=(nb_channels, any)] of the stem."""
        difference = block - self._separated.take(block.shape[1])
        self._store(self._resampler.push(np.ascontiguousarray(difference.T)))

    def finish(self) -> None:
        """Write what is left when all of the stem has been taken."""
        self._store(self._resampler.finish())

    def _store(self, frames: np.ndarray) -> None:
        # One sample more than the file has may come out of the resampler; the writer leaves it out.
        self._writer.write(frames.T + self._original.take(len(frames)))


class WithoutSink:
    """Writes a stem, and the song without it.

    Parameters
    ----------
    writer : StemWriter or None
        Takes the stem; None if only the rest is wanted.
    rest : StemWriter
        Takes the rest, at the rate of its file.
    rate : float
        Of the blocks of the stem.
    original : AudioReader
        The mixture at the rate of `rest`.

    Notes
    -----
    The two add up to the mixture at its own rate, whatever the filter did: to the rounding of
    floats, before the files round or limit them.
    """

    def __init__(
        self, writer: StemWriter | None, rest: StemWriter, rate: float, original: AudioReader
    ) -> None:
        self._writer, self._rest = writer, rest
        self._original = _Samples(original.blocks(_BLOCK), rest.nb_channels)
        self._resampler: StreamResampler | None = None
        if rate != rest.rate:
            self._resampler = StreamResampler(rate, rest.rate, rest.nb_channels)

    def write(self, block: np.ndarray) -> None:
        """Take the next samples [shape=(nb_channels, any)] of the stem."""
        if self._writer is not None:
            self._writer.write(block)
        if self._resampler is not None:
            block = self._resampler.push(np.ascontiguousarray(block.T)).T
        self._store(block)

    def finish(self) -> None:
        """Write what is left when all of the stem has been taken."""
        if self._resampler is not None:
            self._store(self._resampler.finish().T)

    def _store(self, block: np.ndarray) -> None:
        self._rest.write(self._original.take(block.shape[1]) - block)


class _Samples:
    """Blocks of a signal, taken in pieces of any size; silence follows it."""

    def __init__(self, blocks: Iterator[np.ndarray], nb_channels: int) -> None:
        self._blocks = blocks
        self._left = np.empty((nb_channels, 0), np.float32)

    def take(self, count: int) -> np.ndarray:
        nb_channels = len(self._left)
        parts, missing = [], count
        while missing > 0:
            if not self._left.shape[1]:
                silence = np.zeros((nb_channels, missing), np.float32)
                self._left = next(self._blocks, silence)[:nb_channels]
            parts.append(self._left[:, :missing])
            self._left = self._left[:, missing:]
            missing -= parts[-1].shape[1]
        return np.concatenate(parts, axis=1) if parts else self._left[:, :0]
