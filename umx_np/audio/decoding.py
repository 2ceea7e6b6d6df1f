"""Sound files as libsndfile reads them, part by part."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Generator
from contextlib import closing
from pathlib import Path

import numpy as np

from ..errors import AudioError
from .damage import MendedFlac
from .flac import flac_contents
from .given import GivenSound
from .library import READ_ERRORS, RefusedError, SoundFile, plain
from .mp3 import end_of_tags, mp3_contents
from .ogg import has_positions, ogg_contents, order_of_channels
from .pieces import Contents, Part
from .resampling import StreamResampler, nb_resampled
from .sizes import PLACEHOLDER_SIZE, sized_contents

logger = logging.getLogger(__name__)

# Samples a channel that are taken from the file at a time: 512 KiB of stereo. Resampling always
# works on blocks of this size, so the samples do not depend on the size the caller asks for.
FILE_BLOCK = 1 << 16

# "data : 400000 (should be 199978)" in libsndfile's log: the header promises more than there is.
_SIZE_NOTE = re.compile(r"^\s*(?:data|SSND|Data Size|riff)\s*:\s*(\d+) \(should be (\d+)\)", re.M)
# "Channel Mask  : 0x60F (L, R, C, LFE, Sl, Sr)"
_MASK_NOTE = re.compile(r"^\s*Channel Mask\s*:\s*(0x[0-9A-Fa-f]+)", re.M)
# Writers disagree about counting a chunk's header or its padding byte.
_SIZE_SLACK = 64


def _missing_bytes(log: str) -> list[str]:
    """Say what libsndfile's log tells of a file that is shorter than its header says."""
    return [
        f"is cut short: its header promises {declared} bytes and only {present} are there, which "
        "are read"
        for declared, present in _SIZE_NOTE.findall(log)
        if int(present) + _SIZE_SLACK < int(declared) < PLACEHOLDER_SIZE
    ][:1]


def _contents(path: Path, file: SoundFile | None, end: float | None) -> Contents:
    """Look into a file, which libsndfile may not have been able to open."""
    with path.open("rb") as opened:
        magic = opened.read(4)
    if magic == b"OggS":
        return ogg_contents(path)
    if magic == b"fLaC" or (file is not None and file.format == "FLAC"):
        wanted = 0
        if file is not None and end is not None:
            wanted = math.ceil(end * file.samplerate) + 1
        return flac_contents(path, wanted=wanted)
    if file is not None and file.format != "MP3" and magic[:3] == b"ID3":
        # libsndfile skips the tag, but counts it where it looks for the end of the samples.
        begin = end_of_tags(path)
        size = path.stat().st_size
        return Contents((Part(((begin, size),), 0, 0, begin, size),))
    if (file is not None and file.format == "MP3") or magic[:3] == b"ID3" or magic[:1] == b"\xff":
        contents = mp3_contents(path)
        # What libsndfile does not know may be something else that only looks like frames here and
        # there.
        nb_bytes = sum(part.end - part.begin for part in contents.parts if part.least)
        if file is not None or 2 * nb_bytes > path.stat().st_size:
            return contents
        return Contents()
    return sized_contents(path, refused=file is None)


class LibrarySource:
    """A file that libsndfile reads, as one signal even if it consists of several parts.

    Parameters
    ----------
    sound : GivenSound
        The file.
    end : float or None
        Where reading may stop, in seconds from the beginning.

    Attributes
    ----------
    format : str
        Name of the container as libsndfile calls it.
    rate, nb_channels : int
        Of the first part; parts of others are converted.
    mask : int or None
        Positions of the channels, as in WAVEFORMATEXTENSIBLE; None if the file does not tell.
    nb_frames : int or None
        Length in samples; None if only `count` can tell.
    notes : list of str
        What is odd about the file, and after `count` what cannot be read.
    nb_missing : int
        Samples that are in the file but were not found by `count`, as far as that is known.

    Raises
    ------
    READ_ERRORS
        If libsndfile cannot read the file.
    """

    def __init__(self, sound: GivenSound, *, end: float | None) -> None:
        path = self._path = sound.path
        self._shown, self._label = sound.shown, sound.label
        self._files: list[SoundFile | MendedFlac] = []
        self._told: set[str] = set()
        self._lengths: list[int] | None = None
        self.nb_missing = 0
        file: SoundFile | None = None
        refusal: Exception | None = None
        try:
            file = SoundFile(path)
        except READ_ERRORS as error:
            refusal = error
        try:
            contents = _contents(path, file, end)
            self._parts = list(contents.parts)
            self.notes = list(contents.notes)
            if file is None or self._parts[0].pieces:
                if file is None and not self._parts[0].pieces and refusal is not None:
                    raise RefusedError(plain(refusal), self.notes) from refusal
                file = self._open_first(file)
            self.notes += _missing_bytes(file.extra_info)
            self.format: str = file.format
            self.rate: int = file.samplerate
            self.nb_channels: int = file.channels
            self.mask: int | None = None
            if (mask := _MASK_NOTE.search(file.extra_info)) is not None:
                self.mask = int(mask[1], 16)
            self._order: tuple[int, ...] = ()
            if self.format == "OGG":
                self._order = order_of_channels(path, file.subtype, self.nb_channels)
                if self.nb_channels > 2 and not has_positions(path, file.subtype):
                    self.mask = 0
            one = len(self._parts) == 1
            stateless = contents.counted and one and file.is_stateless
            self.nb_frames: int | None = file.frames if stateless else None
        finally:
            if file is not None:
                file.close()

    def _open_first(self, file: SoundFile | None) -> SoundFile:
        """Open the first part that can be opened, and forget those before it."""
        if file is not None:
            file.close()
        while True:
            part = self._parts[0]
            try:
                return SoundFile(self._path, part)
            except READ_ERRORS:
                if len(self._parts) == 1:
                    raise
                self._leave_out(part)
                del self._parts[0]

    def _leave_out(self, part: Part, reason: str = "cannot be decoded") -> None:
        self.nb_missing += part.least
        self.notes.append(f"{part.end - part.begin} bytes from {part.begin} on {reason}")

    def _open(self, part: Part, first: int = 0) -> SoundFile | MendedFlac:
        """Open a part at a sample, or at the beginning if it must be read up to there."""
        file = SoundFile(self._path, part)
        if self.nb_frames is not None and first > 0:
            try:
                file.position = file.seek(first)
            except READ_ERRORS:  # in a damaged file
                file.close()
                file = SoundFile(self._path, part)
        opened: SoundFile | MendedFlac = file
        if file.format == "FLAC":
            opened = MendedFlac(file, self._path, part, self.nb_frames)
        self._files = [opened, *(old for old in self._files if not old.closed)]
        return opened

    def _tell(self, begin: int, file: SoundFile | MendedFlac) -> None:
        """Say in the log what turned out to be damaged, once a place."""
        for position, note in file.damages:
            text = f"at {(begin / self.rate + position / file.samplerate):.3f} s, {note}"
            if text not in self._told:
                self._told.add(text)
                logger.warning("%s: %s", self._label, text)
        file.damages.clear()

    def count(self, enough: float) -> int:
        """Decode to count samples; stop as soon as there are `enough`."""
        lengths: list[int] = []
        total = position = 0
        for part in self._parts:
            nb_frames, rate = 0, self.rate
            try:
                with self._open(part) as file:
                    rate = file.samplerate
                    if (rate, file.channels) != (self.rate, self.nb_channels):
                        self.notes.append(
                            f"goes on with {rate} Hz and {file.channels} channels after "
                            f"{position / self.rate:.3f} s; converted to {self.rate} Hz and "
                            f"{self.nb_channels} channels"
                        )
                    while total < enough and (n := len(file.next_frames(FILE_BLOCK))):
                        nb_frames += n
                        self._tell(position, file)
                        total = position + nb_resampled(nb_frames, rate, self.rate)
            except READ_ERRORS as error:
                self.notes.append(f"is damaged after {total / self.rate:.3f} s: {plain(error)}")
            position = total
            lengths.append(nb_frames)
            if total >= enough:
                break
            least = part.least * rate // (part.rate or rate)
            if nb_frames < least:
                missing = math.ceil((least - nb_frames) * self.rate / rate)
                self.nb_missing += missing
                self.notes.append(
                    f"about {missing / self.rate:.3f} s of sound before {total / self.rate:.3f} s "
                    "cannot be decoded and are left out"
                )
        self._lengths = lengths
        return total

    def blocks(self, first: int, end: int) -> Generator[np.ndarray, None, None]:
        """Yield (n, nb_channels) float32 from the sample `first` on, up to `end` or a bit more.

        Raises
        ------
        AudioError
            If the file turns out to be damaged; the message names the position.
        """
        position = 0
        for number, part in enumerate(self._parts):
            if self._lengths is not None and number >= len(self._lengths):
                return
            length = None if self._lengths is None else self._lengths[number]
            if length == 0:
                continue
            if position >= end:
                return
            # Not left to the garbage collector, in which Python drops what a handler raises.
            with closing(self._part_blocks(part, length, position, (first, end))) as blocks:
                for n, block in blocks:
                    position += n
                    if position > first:
                        yield block[max(len(block) - (position - first), 0) :]

    def _part_blocks(
        self, part: Part, length: int | None, begin: int, excerpt: tuple[int, int]
    ) -> Generator[tuple[int, np.ndarray], None, None]:
        """Yield how far a part goes on, and its samples, which may be left out before `first`."""
        position = begin
        first, end = excerpt
        try:
            with self._open(part, first) as file:
                same_rate = file.samplerate == self.rate
                resampler = None
                if not same_rate:
                    resampler = StreamResampler(file.samplerate, self.rate, self.nb_channels)
                done = file.position
                position += done
                yield done, np.empty((0, self.nb_channels), np.float32)
                while position < end and (length is None or done < length):
                    wanted = FILE_BLOCK if length is None else min(FILE_BLOCK, length - done)
                    if same_rate:  # a block begins with the excerpt
                        wanted = min(wanted, (first if position < first else end) - position)
                    block = file.next_frames(wanted)
                    self._tell(begin, file)
                    if not len(block):
                        break
                    done += len(block)
                    block = self._converted(block)
                    if resampler is not None:
                        block = resampler.push(block)
                    position += len(block)
                    yield len(block), block
                if resampler is not None:
                    block = resampler.finish()
                    yield len(block), block
        except READ_ERRORS as error:
            if isinstance(error, AudioError):
                raise
            raise AudioError(
                f"{self._shown} is damaged after {position / self.rate:.3f} s: {plain(error)}"
            ) from error

    def _converted(self, block: np.ndarray) -> np.ndarray:
        """Samples in the order of channels of a WAV file, and as many as the first part has."""
        nb_channels = block.shape[1]
        if nb_channels == self.nb_channels:
            return np.ascontiguousarray(block[:, self._order]) if self._order else block
        if nb_channels == 1:
            return np.repeat(block, self.nb_channels, axis=1)
        if self.nb_channels == 1:
            return block.mean(axis=1, keepdims=True)
        out = np.zeros((len(block), self.nb_channels), np.float32)
        shared = min(nb_channels, self.nb_channels)
        out[:, :shared] = block[:, :shared]
        return out

    def close(self) -> None:
        """Close what is open; Windows would not remove it else."""
        for file in self._files:
            file.close()
