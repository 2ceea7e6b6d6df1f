"""Formats of sound files, and one file that is written with libsndfile under a temporary name.

Rounding: integer files hold ``round(sample * 2**(bits - 1))``, halves to even, limited to what the
format can hold. That is libsndfile's own scale for reading, so that samples read from a file of the
same number of bits come back unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from .._support.atomic import TemporaryFile
from ..errors import AudioError, ConfigError
from .library import HeldFile
from .mp3 import first_frame_bytes, mp3_contents
from .mp4 import AAC_RATES, can_encode
from .ogg import OGG_ORDER

BITS = ("16", "24", "float")
CLIP_MODES = ("clamp", "rescale", "none")

_PCM = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}
_LOSSLESS = {
    ".wav": "WAV",
    ".flac": "FLAC",
    ".aif": "AIFF",
    ".aiff": "AIFF",
    ".w64": "W64",
    ".rf64": "RF64",
    ".au": "AU",
    ".caf": "CAF",
}
_LOSSY = {
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
}
# Rates in Hz of the formats that know some only.
_RATES = {
    ".opus": (8000, 12000, 16000, 24000, 48000),
    ".mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    ".m4a": AAC_RATES,
    # Of stem files.
    ".mp4": (44100, 48000),
}
# Containers with sizes of 32 bits, less room for their headers.
_MAX_BYTES = 2**32 - 2**16
_SIZE_LIMITED = ("WAV", "AIFF", "AU")

# Samples a channel per call into libsndfile, whose Vorbis encoder keeps them all on the stack.
FILE_BLOCK = 1 << 14

# AssertionError: soundfile checks the number of written samples that way.
# OverflowError: a rate does not fit a C int.
_WRITE_ERRORS = (
    sf.SoundFileError,
    RuntimeError,
    TypeError,
    ValueError,
    OSError,
    AssertionError,
    OverflowError,
)

# Samples of the end of a file that are read back: more than a frame of any lossy format.
_END = 1 << 13


def written_suffixes() -> list[str]:
    """File name extensions that can be written with libsndfile and ffmpeg as they are here."""
    available = sf.available_formats()
    lossless = [suffix for suffix, name in _LOSSLESS.items() if name in available]
    lossy = [suffix for suffix, pair in _LOSSY.items() if sf.check_format(*pair)]
    return lossless + lossy + ([".m4a"] if can_encode() else [])


def nearest_rate(ext: str, rate: float) -> float:
    """Return the rate in Hz that a format can have: that of a signal, or the next higher one.

    Parameters
    ----------
    ext : str
        Extension of a file name, such as ``".opus"``.
    rate : float
        Rate of the signal in Hz.

    Returns
    -------
    float
        The highest that the format knows, if all are lower.

    Examples
    --------
    >>> nearest_rate(".opus", 44100), nearest_rate(".wav", 44100), nearest_rate(".mp3", 96000)
    (48000, 44100, 48000)
    """
    rates = _RATES.get(ext.lower())
    if rates is None or rate in rates:
        return rate
    return min((known for known in rates if known > rate), default=rates[-1])


def check_format(path: Path, bits: str, clip_mode: str) -> tuple[str, str]:
    """Return libsndfile's names of container and encoding for a file to be written.

    Raises
    ------
    AudioError
        If the extension is unknown, or the format cannot hold samples of that kind.
    ConfigError
        If `bits` or `clip_mode` is none of the allowed values, or they contradict each other.
    """
    if bits not in BITS:
        raise ConfigError(f"bits={bits!r} must be one of {', '.join(BITS)}")
    if clip_mode not in CLIP_MODES:
        raise ConfigError(f"clip_mode={clip_mode!r} must be one of {', '.join(CLIP_MODES)}")
    suffix = path.suffix.lower()
    if suffix == ".m4a":
        # What ffmpeg encodes is not for libsndfile to check.
        return "M4A", "ENCODED"
    if path.name.lower().endswith(".stem.mp4"):
        raise AudioError(
            f"path={str(path)!r}: a .stem.mp4 file holds a song and its stems; write it with "
            "umx_np.audio.write_stem_file"
        )
    if suffix in _LOSSY:
        pair = _LOSSY[suffix]
    elif suffix in _LOSSLESS:
        pair = (_LOSSLESS[suffix], _PCM[bits])
        if clip_mode == "none" and bits != "float":
            raise ConfigError(
                f"clip_mode='none' with bits={bits!r}: integers cannot hold samples beyond full "
                "scale; take bits='float', or clip_mode='clamp' or 'rescale'"
            )
    else:
        raise AudioError(
            f"path={str(path)!r}: files of the type {suffix!r} cannot be written; possible are "
            f"{' '.join(written_suffixes())}"
        )
    if pair[0] == "FLAC" and bits == "float":
        raise AudioError(f"path={str(path)!r}: flac cannot hold floats; take bits='24', or .wav")
    if not sf.check_format(*pair):
        raise AudioError(
            f"path={str(path)!r}: libsndfile {sf.__libsndfile_version__} cannot write {pair[0]} "
            f"with {pair[1]}; update soundfile, or choose one of {' '.join(written_suffixes())}"
        )
    return pair


def _hint(path: Path, rate: float) -> str:
    """Say what to do about a rate that a format does not know."""
    possible = nearest_rate(path.suffix, rate)
    return "" if possible == rate else f"; take file_rate={possible}"


class Sink:
    """One sound file being written under a temporary name: floats in, the file's samples out."""

    def __init__(
        self,
        path: Path,
        pair: tuple[str, str],
        rate: int,
        nb_channels: int,
        nb_timesteps: int,
        options: Mapping[str, Any],
    ) -> None:
        self._final = path
        self._rate, self._nb_channels, self._options = rate, nb_channels, options
        self._format, self._subtype = pair
        self._order = OGG_ORDER.get(nb_channels, ()) if self._format == "OGG" else ()
        self._nb_frames = 0
        self._temporary: TemporaryFile
        self._max_frames = 2**62
        if self._format in _SIZE_LIMITED:
            nb_bytes = {"PCM_16": 2, "PCM_24": 3, "FLOAT": 4}[self._subtype]
            self._max_frames = _MAX_BYTES // (nb_bytes * nb_channels)
        if nb_timesteps > self._max_frames:
            self._grow(begin=True)
        self._file = self._open()

    @property
    def path(self) -> Path:
        """Temporary name."""
        return self._temporary.path

    @property
    def format(self) -> str:
        """Name of the container as libsndfile calls it."""
        return self._format

    def replace(self, copy: TemporaryFile) -> None:
        """Take another file in place of the closed one."""
        self._temporary.discard()
        self._temporary = copy

    def _open(self) -> HeldFile:
        try:
            # In the same folder, so that renaming it is atomic.
            self._temporary = TemporaryFile(self._final.parent)
            return HeldFile(
                self.path,
                "w",
                samplerate=self._rate,
                channels=self._nb_channels,
                format=self._format,
                subtype=self._subtype,
                **self._options,
            )
        except BaseException as error:
            # Without waiting for the garbage collector, which may never come to it.
            if hasattr(self, "_temporary"):
                self._temporary.discard()
            if not isinstance(error, _WRITE_ERRORS):
                raise
            raise AudioError(
                f"path={str(self._final)!r} cannot be written as {self._format} with "
                f"{self._subtype}, rate={self._rate} Hz and nb_channels={self._nb_channels}: "
                f"{error}" + _hint(self._final, self._rate)
            ) from error

    def _grow(self, *, begin: bool = False) -> None:
        """Go over to RF64, which is WAV with sizes of 64 bits."""
        if self._format != "WAV":
            raise AudioError(
                f"path={str(self._final)!r}: {self._format} files end at 4 GB; write .wav, .w64 or "
                ".flac, or fewer bits"
            )
        self._format = "RF64"
        self._max_frames = 2**62
        if begin:
            return
        shorter = self._temporary
        self._file.close()
        try:
            self._file = self._open()
            with HeldFile(shorter.path) as old:
                # As integers or floats like in the file, the samples are copied unchanged.
                dtype = {"PCM_16": "int16", "PCM_24": "int32", "FLOAT": "float32"}[self._subtype]
                for block in old.blocks(1 << 16, dtype=dtype, always_2d=True):
                    self._file.write(block)
        finally:
            shorter.discard()

    def write(self, frames: np.ndarray) -> None:
        """Append (nb_timesteps, nb_channels) float32 samples."""
        self._nb_frames += len(frames)
        with self._write_errors():
            if self._nb_frames > self._max_frames:
                self._grow()
            for begin in range(0, len(frames), FILE_BLOCK):
                self._file.write(self._encode(frames[begin : begin + FILE_BLOCK]))

    def _encode(self, frames: np.ndarray) -> np.ndarray:
        if not self._subtype.startswith("PCM_"):
            return np.ascontiguousarray(frames[:, self._order] if self._order else frames)
        bits = int(self._subtype[4:])
        full_scale = 2 ** (bits - 1)
        # Exact in float32: a product with a power of two, and integers of at most 24 bits.
        codes = np.rint(frames * np.float32(full_scale))
        np.clip(codes, -full_scale, full_scale - 1, out=codes)
        if bits == 16:
            return codes.astype(np.int16)
        # libsndfile takes the upper bits of 32.
        return codes.astype(np.int32) << (32 - bits)

    def close(self) -> None:
        """Close the file, whose end is then there."""
        with self._write_errors():
            self._file.close()
            self._check_end()

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        try:
            yield
        except AudioError:
            raise
        except _WRITE_ERRORS as error:
            raise AudioError(
                f"path={str(self._final)!r} cannot be written: {error} (is the disk full?)"
            ) from error

    def _check_end(self) -> None:
        """Make sure that the end of the closed file is there.

        What is lost when a file is closed on a full disk, libsndfile does not report for every
        format: of a short Opus file that may be all of it.
        """
        if not self._nb_frames:
            return
        if self._format == "MP3":
            # libmpg123 complains on stderr when it begins in the middle.
            declared = first_frame_bytes(self.path)
            if declared is None:  # a frame of a low bit rate is too short for numbers
                found = sum(part.least for part in mp3_contents(self.path).parts)
                if found + _END >= self._nb_frames:
                    return
            elif self.path.stat().st_size >= declared:
                return
            raise OSError("its end is missing")
        with HeldFile(self.path) as file:
            if file.frames >= self._nb_frames:
                file.seek(max(self._nb_frames - _END, 0))
                if len(file.read(_END, dtype="float32")) >= min(_END // 2, self._nb_frames):
                    return
        raise OSError("its end is missing")

    def discard(self) -> None:
        """Remove the file."""
        with suppress(*_WRITE_ERRORS):  # the file goes away
            self._file.close()
        self._temporary.discard()

    def rename(self) -> None:
        """Give the closed file its final name."""
        self._temporary.rename(self._final)
