"""Sound files that ffmpeg encodes, from samples that are kept in a temporary file until then."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .._support.atomic import TemporaryFile
from ..config import check_int
from ..errors import AudioError, ConfigError
from .mp4 import Encoding, encode, ffmpeg_path
from .sink import BITS, CLIP_MODES, Sink, nearest_rate

# Of one channel in kbit/s, at the qualities 0 and 1.
_BITRATES = (32, 160)
_USUAL = 128


def check_encoding(
    path: Path,
    rate: int,
    nb_channels: int,
    bits: str,
    clip_mode: str,
    quality: float | None,
    bitrate: int | None,
) -> Encoding:
    """Choose the encoding of an MP4 file.

    Parameters
    ----------
    path : Path
        The file, for messages.
    rate, nb_channels : int
        Of each stream.
    bits, clip_mode, quality, bitrate
        As for `umx_np.audio.StemWriter`.

    Raises
    ------
    AudioError
        If ffmpeg is missing, or the format cannot hold that rate or so many channels.
    ConfigError
        If the arguments contradict each other.
    """
    if bits not in BITS:
        raise ConfigError(f"bits={bits!r} must be one of {', '.join(BITS)}")
    if clip_mode not in CLIP_MODES:
        raise ConfigError(f"clip_mode={clip_mode!r} must be one of {', '.join(CLIP_MODES)}")
    ffmpeg_path(path)
    if rate != nearest_rate(path.suffix, rate):
        raise AudioError(
            f"path={str(path)!r} cannot have rate={rate} Hz; take "
            f"file_rate={nearest_rate(path.suffix, rate)}"
        )
    if nb_channels > 2:
        raise AudioError(
            f"path={str(path)!r}: nb_channels={nb_channels} is more than the 1 or 2 of m4a files "
            "here; take .wav or .flac"
        )
    if quality is not None and not 0 <= quality <= 1:
        raise ConfigError(f"quality={quality} must be from 0 to 1")
    low, high = (nb_channels * bound for bound in _BITRATES)
    if bitrate is not None:
        if quality is not None:
            raise ConfigError(f"quality={quality} and bitrate={bitrate} exclude each other")
        if not low <= check_int("bitrate", bitrate, 1) <= high:
            raise ConfigError(
                f"bitrate={bitrate}: AAC of {nb_channels} channels has {low} to {high} kbit/s here"
            )
        return Encoding("aac", bitrate=bitrate)
    if quality == 1:
        if bits == "float" or clip_mode == "none":
            raise ConfigError(
                f"quality=1 of path={str(path)!r} is ALAC, which holds integers: bits={bits!r} "
                f"must be '16' or '24', and clip_mode={clip_mode!r} 'clamp' or 'rescale'"
            )
        return Encoding("alac", bits=bits)
    usual = _USUAL * nb_channels
    return Encoding(
        "aac", bitrate=usual if quality is None else round(low + quality * (high - low))
    )


class EncodedSink:
    """As `umx_np.audio.sink.Sink`, for what ffmpeg encodes."""

    def __init__(
        self, path: Path, encoding: Encoding, rate: int, nb_channels: int, nb_timesteps: int
    ) -> None:
        self._final, self._encoding = path, encoding
        self._plain = Sink(path, encoding.staged, rate, nb_channels, nb_timesteps, {})
        self._encoded: TemporaryFile | None = None

    @property
    def format(self) -> str:
        """Name of the container."""
        return "M4A"

    @property
    def path(self) -> Path:
        """Temporary name."""
        return self._plain.path if self._encoded is None else self._encoded.path

    def write(self, frames: np.ndarray) -> None:
        """Append (nb_timesteps, nb_channels) float32 samples."""
        self._plain.write(frames)

    def close(self) -> None:
        """Encode what was written."""
        self._plain.close()
        try:
            self._encoded = TemporaryFile(self._final.parent)
        except OSError as error:
            raise AudioError(f"path={str(self._final)!r} cannot be written: {error}") from error
        encode([self._plain.path], ["Sound"], self._encoded.path, self._encoding, self._final)
        self._plain.discard()

    def discard(self) -> None:
        """Remove the file."""
        self._plain.discard()
        if self._encoded is not None:
            self._encoded.discard()

    def rename(self) -> None:
        """Give the closed file its final name."""
        assert self._encoded is not None
        self._encoded.rename(self._final)
