"""FLAC streams past damage: frames that can be decoded stay where they were, others are silent."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np

from .flac import frames_of_stream
from .library import READ_ERRORS, SoundFile, plain
from .pieces import Part


class MendedFlac:
    """A FLAC stream as its decoder reads it, with silence in place of frames that are damaged.

    Each frame tells its position, so those behind a damage need not move.

    Parameters
    ----------
    file : SoundFile
        The stream, opened and not yet read, perhaps at another sample than the first.
    path : Path
        The file.
    part : Part
        What `file` reads of it.
    length : int or None
        Samples that the stream has; None if only reading tells.

    Attributes
    ----------
    samplerate, channels, position : int
        As those of `SoundFile`.
    damages : list of (int, str)
        What was stepped over: its position in samples, and a text.
    """

    def __init__(self, file: SoundFile, path: Path, part: Part, length: int | None) -> None:
        self.samplerate: int = file.samplerate
        self.channels: int = file.channels
        self.position = file.position
        self.damages: list[tuple[int, str]] = []
        self._file = file
        self._path = path
        self._part = part
        self._length = length
        self._nb_silent = 0
        self._ended = False
        self._starts: Iterator[tuple[int, Part]] | None = None

    def next_frames(self, nb_frames: int) -> np.ndarray:
        """Read (nb_frames, nb_channels) float32, or what is left."""
        while True:
            if self._nb_silent:
                frames = np.zeros((min(self._nb_silent, nb_frames), self.channels), np.float32)
                self._nb_silent -= len(frames)
                break
            if self._ended:
                return np.zeros((0, self.channels), np.float32)
            error: Exception | None = None
            frames = np.zeros((0, self.channels), np.float32)
            try:
                frames = self._file.next_frames(nb_frames)
            except READ_ERRORS as damage:
                error = damage
            if len(frames) or (error is None and self.position == (self._length or self.position)):
                break
            self._step_over(error)
        self.position += len(frames)
        return frames

    def _step_over(self, error: Exception | None) -> None:
        """Go on with the next frame that can be decoded."""
        if self._starts is None:
            self._starts = frames_of_stream(self._path, self._part)
        reason = "its frames are missing" if error is None else plain(error)
        for sample, rest in self._starts:
            if sample < self.position or (self._length and sample >= self._length):
                continue
            file = None
            with suppress(*READ_ERRORS):
                file = SoundFile(self._path, rest)
                # To see the frame decoded as a whole, it is read twice.
                if len(file.next_frames(1)) == 1 and file.channels == self.channels:
                    file.close()
                    self._file.close()
                    self._file = SoundFile(self._path, rest)
                    self._be_silent(sample - self.position, reason)
                    return
            if file is not None:
                file.close()
        if self.position == 0:  # there is nothing else
            raise error or ValueError("there are no frames")
        self._ended = True
        if self._length is not None:
            self._be_silent(self._length - self.position, reason)

    def _be_silent(self, nb_frames: int, reason: str) -> None:
        self._nb_silent = nb_frames
        if nb_frames:
            seconds = nb_frames / self.samplerate
            note = f"{seconds:.3f} s cannot be decoded ({reason}) and are silent"
            self.damages.append((self.position, note))

    def close(self) -> None:
        """Close what is open."""
        self._file.close()

    @property
    def closed(self) -> bool:
        """Whether that is done."""
        return bool(self._file.closed)

    def __enter__(self) -> MendedFlac:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
