"""Write stems to sound files block by block; a file appears only when it is complete.

Rounding: integer files hold ``round(sample * 2**(bits - 1))``, halves to even, limited to what the
format can hold. That is libsndfile's own scale for reading, so that samples read from a file of the
same number of bits come back unchanged.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import numpy as np
import soundfile as sf

from .._support.atomic import TemporaryFile
from ..config import check_array, check_int, check_rate
from ..errors import AudioError, ConfigError, ShapeError
from .library import HeldFile
from .mp3 import first_frame_bytes
from .ogg import OGG_ORDER
from .resampling import StreamResampler

logger = logging.getLogger(__name__)

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
}
# Containers with sizes of 32 bits, less room for their headers.
_MAX_BYTES = 2**32 - 2**16
_SIZE_LIMITED = ("WAV", "AIFF", "AU")

# Samples a channel per call into libsndfile, whose Vorbis encoder keeps them all on the stack.
_FILE_BLOCK = 1 << 14

# AssertionError: soundfile checks the number of written samples that way.
_WRITE_ERRORS = (
    *(sf.SoundFileError, RuntimeError, TypeError, ValueError, OSError, AssertionError),
    OverflowError,  # a rate that does not fit a C int
)

# Samples of the end of a file that are read back: more than a frame of any lossy format.
_END = 1 << 13


def written_suffixes() -> list[str]:
    """File name extensions that can be written with the libsndfile in use."""
    available = sf.available_formats()
    lossless = [suffix for suffix, name in _LOSSLESS.items() if name in available]
    lossy = [suffix for suffix, pair in _LOSSY.items() if sf.check_format(*pair)]
    return lossless + lossy


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
    """What to do about a rate that a format does not know."""
    possible = nearest_rate(path.suffix, rate)
    return "" if possible == rate else f"; take file_rate={possible}"


class _Sink:
    """One sound file being written under a temporary name: floats in, the file's samples out."""

    def __init__(
        self,
        path: Path,
        pair: tuple[str, str],
        rate: int,
        nb_channels: int,
        nb_timesteps: int,
        quality: float | None,
    ) -> None:
        self._final = path
        self._options = (rate, nb_channels, quality)
        self._format, self._subtype = pair
        self._order = OGG_ORDER.get(nb_channels, ()) if self._format == "OGG" else ()
        self._nb_frames = 0
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

    def _open(self) -> HeldFile:
        rate, nb_channels, quality = self._options
        options: dict[str, object] = {}
        if quality is not None and self._format in ("OGG", "MP3"):
            if "compression_level" not in inspect.signature(sf.SoundFile.__init__).parameters:
                raise ConfigError(f"quality={quality} needs soundfile 0.13 or later")
            # The MP3 encoder refuses the smallest quality, 1.0 on this scale.
            options["compression_level"] = min(1.0 - quality, 0.99)
        try:
            # In the same folder, so that renaming it is atomic.
            self._temporary = TemporaryFile(self._final.parent)
            return HeldFile(
                self.path,
                "w",
                samplerate=rate,
                channels=nb_channels,
                format=self._format,
                subtype=self._subtype,
                **options,
            )
        except BaseException as error:
            # Without waiting for the garbage collector, which may never come to it.
            if hasattr(self, "_temporary"):
                self._temporary.discard()
            if not isinstance(error, _WRITE_ERRORS):
                raise
            raise AudioError(
                f"path={str(self._final)!r} cannot be written as {self._format} with "
                f"{self._subtype}, rate={rate} Hz and nb_channels={nb_channels}: {error}"
                + _hint(self._final, rate)
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
        try:
            if self._nb_frames > self._max_frames:
                self._grow()
            for begin in range(0, len(frames), _FILE_BLOCK):
                self._file.write(self._encode(frames[begin : begin + _FILE_BLOCK]))
        except _WRITE_ERRORS as error:
            if isinstance(error, AudioError):
                raise
            raise AudioError(
                f"path={str(self._final)!r} cannot be written: {error} (is the disk full?)"
            ) from error

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
        try:
            self._file.close()
            self._check_end()
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
            if declared is not None and self.path.stat().st_size >= declared:
                return
            raise OSError("its end is missing")
        with HeldFile(self.path) as file:
            if file.frames >= self._nb_frames:
                file.seek(max(self._nb_frames - _END, 0))
                if len(file.read(_END, dtype="float32")) >= min(_END // 2, self._nb_frames):
                    return
        raise OSError("its end is missing")

    def discard(self) -> None:
        with suppress(*_WRITE_ERRORS):  # the file goes away
            self._file.close()
        self._temporary.discard()

    def rename(self) -> None:
        """Give the closed file its final name."""
        self._temporary.rename(self._final)


class StemWriter:
    """A sound file that is written block by block and appears when it is complete.

    Until `commit`, which the end of a ``with`` block calls, everything is in a temporary file in
    the same folder; a file of the final name stays as it is. An exception in the ``with`` block
    removes the temporary file.

    Parameters
    ----------
    path : str or path-like
        The file; its extension sets the format: .wav .flac .aiff .w64 .rf64 .au .caf .ogg (Vorbis)
        .opus .mp3. Missing folders are made. WAV files beyond 4 GB become RF64.
    nb_channels : int
        Channels of the blocks and of the file; more than two are in the order of WAV files.
    rate : float
        Rate of the blocks in Hz.
    file_rate : int or None
        Rate of the file in Hz; the blocks are resampled to it. None is `rate`.
    nb_timesteps : int or None
        Exact length of the file in samples: longer signals are cut, shorter ones end in silence.
        None takes what is written.
    bits : {'16', '24', 'float'}
        Integers of 16 or 24 bits, or 32-bit floats. The lossy formats take no notice.
    clip_mode : {'clamp', 'rescale', 'none'}
        What to do with samples beyond full scale: limit them, scale the whole stem by one gain such
        that its peak is at full scale, or leave them alone, which only floats and the lossy formats
        can.
    quality : float or None
        Of the lossy formats, from 0 (small) to 1 (best); None is libsndfile's default.

    Raises
    ------
    AudioError
        If the format, the rate or the place cannot be written.
    ConfigError
        If an argument is not usable.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        nb_channels: int,
        rate: float,
        file_rate: float | None = None,
        nb_timesteps: int | None = None,
        bits: str = "16",
        clip_mode: str = "clamp",
        quality: float | None = None,
    ) -> None:
        self.path = Path(os.path.expanduser(path))
        self.nb_channels = check_int("nb_channels", nb_channels, 1)
        self.rate = check_rate("rate", rate)
        file_rate = check_rate("file_rate", rate if file_rate is None else file_rate)
        if file_rate != int(file_rate):
            raise ConfigError(f"file_rate={file_rate} must be a whole number of Hz")
        self.file_rate = int(file_rate)
        if quality is not None and not 0 <= quality <= 1:
            raise ConfigError(f"quality={quality} must be from 0 to 1")
        self._left = None if nb_timesteps is None else check_int("nb_timesteps", nb_timesteps, 0)
        self._bits, self._clip_mode, self._quality = bits, clip_mode, quality
        self._pair = check_format(self.path, bits, clip_mode)
        if os.path.isdir(self.path):
            raise AudioError(f"path={str(path)!r} is a folder; give the name of a file")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AudioError(f"path={str(path)!r}: its folder cannot be made: {error}") from error
        self._resampler: StreamResampler | None = None
        if self.file_rate != self.rate:
            self._resampler = StreamResampler(self.rate, self.file_rate, self.nb_channels)
        self._nb_frames = 0
        self._nb_clipped = 0
        self._peak = 0.0
        self._state = "open"  # then "finished", then "committed" or "discarded"
        # The gain of a rescaled stem is known at its end: until then it is kept in floats.
        staged = clip_mode == "rescale"
        self._sink = self._new_sink(("W64", "FLOAT") if staged else self._pair)

    def _new_sink(self, pair: tuple[str, str]) -> _Sink:
        expected = max(self._left or 0, self._nb_frames)
        return _Sink(self.path, pair, self.file_rate, self.nb_channels, expected, self._quality)

    def write(self, block: np.ndarray) -> None:
        """Append samples.

        Parameters
        ----------
        block : ndarray [shape=(nb_channels, nb_timesteps)], float32
            The next samples at `rate`; not modified.

        Raises
        ------
        ShapeError
            If the block does not have `nb_channels` channels or is not float.
        AudioError
            If the disk is full, or the samples hold NaN or infinity.
        """
        if self._state != "open":
            raise AudioError(f"path={str(self.path)!r} is {self._state}; nothing can be added")
        block = check_array("block", block)
        if block.ndim != 2 or len(block) != self.nb_channels or block.dtype.kind != "f":
            raise ShapeError(
                f"shape={block.shape} dtype={block.dtype} must be ({self.nb_channels}, "
                f"nb_timesteps) of float32 for path={str(self.path)!r}"
            )
        frames = np.ascontiguousarray(block.T, dtype=np.float32)
        if not np.isfinite(frames).all():
            # Before resampling, which would make NaN of everything that follows.
            raise AudioError(
                f"the samples for path={str(self.path)!r} hold NaN or infinity near "
                f"{self._nb_frames / self.file_rate:.3f} s: nothing was written"
            )
        if self._resampler is not None:
            frames = self._resampler.push(frames)
        self._store(frames)

    def _store(self, frames: np.ndarray) -> None:
        """Cut (n, nb_channels) samples at the file's rate to its length, limit and store them."""
        if self._left is not None:
            frames = frames[: self._left]
            self._left -= len(frames)
        if not len(frames):
            return
        self._nb_frames += len(frames)
        peak = float(max(frames.max(), -frames.min()))
        self._peak = max(self._peak, peak)
        if peak > 1 and self._clip_mode == "clamp":
            self._nb_clipped += int(np.count_nonzero(np.abs(frames) > 1))
            frames = np.clip(frames, -1, 1)
        self._sink.write(frames)

    def finish(self) -> None:
        """Write what is held back and close the file, still under its temporary name.

        Raises
        ------
        AudioError
            If the disk is full.
        """
        if self._state != "open":
            return
        if self._resampler is not None:
            self._store(self._resampler.finish())
            self._resampler = None
        silence = np.zeros((_FILE_BLOCK, self.nb_channels), np.float32)
        while self._left:
            self._store(silence)
        self._sink.close()
        self._state = "finished"
        if self._clip_mode == "rescale":
            self._rescale()
        elif self._nb_clipped:
            logger.warning(
                "%s: %d samples (%.2g %%) were beyond full scale and limited; clip_mode='rescale' "
                "or bits='float' with clip_mode='none' keep them",
                self.path,
                self._nb_clipped,
                100 * self._nb_clipped / (self._nb_frames * self.nb_channels),
            )

    def _rescale(self) -> None:
        """Second pass: from the floats kept so far to the file, by one gain."""
        gain = np.float32(1)
        if self._peak > 1:
            full_scale = 1 - 2.0 ** (1 - int(self._bits)) if self._bits != "float" else 1.0
            gain = np.float32(full_scale / self._peak)
            logger.warning(
                "%s: scaled by %.2f dB to stay within full scale", self.path, 20 * np.log10(gain)
            )
        staged = self._sink
        try:
            self._sink = self._new_sink(self._pair)
            with HeldFile(staged.path) as file:
                for frames in file.blocks(_FILE_BLOCK, dtype="float32", always_2d=True):
                    self._sink.write(np.clip(frames * gain, -1, 1))
            self._sink.close()
        finally:
            staged.discard()

    @property
    def temporary_path(self) -> Path:
        """Where the file is until it is committed."""
        return self._sink.path

    def commit(self) -> None:
        """Give the finished file its name, replacing a file that has it.

        Raises
        ------
        AudioError
            If the file cannot be renamed, or was discarded.
        """
        if self._state == "committed":
            return
        if self._state == "discarded":
            raise AudioError(f"path={str(self.path)!r} was discarded; write it anew")
        self.finish()
        try:
            self._sink.rename()
        except OSError as error:
            self.discard()
            raise AudioError(f"path={str(self.path)!r} cannot be replaced: {error}") from error
        self._state = "committed"

    def discard(self) -> None:
        """Remove the temporary file; nothing appears at `path`. Undoes no `commit`."""
        if self._state != "committed":
            self._state = "discarded"
            self._resampler = None
            self._sink.discard()

    def __enter__(self) -> StemWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.discard()
        elif self._state != "discarded":
            with commit_together([self]):
                pass


@contextmanager
def commit_together(writers: Collection[StemWriter]) -> Iterator[None]:
    """Give files that belong together their names once all of them are complete.

    Parameters
    ----------
    writers : collection of StemWriter
        Looked at when the ``with`` block ends, so they may be opened inside it.

    Notes
    -----
    An exception in the block, or while finishing one of the files, removes all temporary files.
    """
    try:
        yield
        for writer in writers:
            writer.finish()
        for writer in writers:
            writer.commit()
    except BaseException:
        for writer in writers:
            writer.discard()
        raise


def write(
    path: str | os.PathLike[str],
    audio: np.ndarray,
    rate: float,
    *,
    file_rate: float | None = None,
    bits: str = "16",
    clip_mode: str = "clamp",
    quality: float | None = None,
) -> Path:
    """Write an array to a sound file.

    Parameters
    ----------
    audio : ndarray [shape=(nb_timesteps,) or (nb_channels, nb_timesteps)], float
        Full scale is [-1, 1]; not modified.
    rate : float
        Rate of `audio` in Hz.
    path, file_rate, bits, clip_mode, quality
        As for `StemWriter`.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    AudioError, ConfigError, ShapeError
        As for `StemWriter`.
    """
    audio = np.atleast_2d(check_array("audio", audio))
    with StemWriter(
        path,
        nb_channels=len(audio),
        rate=rate,
        file_rate=file_rate,
        bits=bits,
        clip_mode=clip_mode,
        quality=quality,
    ) as writer:
        for begin in range(0, audio.shape[-1], _FILE_BLOCK):
            writer.write(audio[:, begin : begin + _FILE_BLOCK])
    return writer.path
