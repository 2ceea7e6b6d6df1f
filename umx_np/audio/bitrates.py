"""From a quality or a bit rate to what libsndfile's encoders take.

libsndfile has one number for all of them, from 0 (best) to 1 (smallest). For Opus and for MP3 of a
constant bit rate it is a bit rate between two bounds, for Vorbis a quality, for which the encoder
writes the bit rate that it expects into the first page of the file.
"""

from __future__ import annotations

import inspect
import io
import struct
from functools import lru_cache
from typing import Any

import soundfile as sf

from ..config import check_int
from ..errors import ConfigError
from .library import HeldFile

# What a frame of an MP3 file can have in kbit/s, from that rate in Hz on (MPEG 1, 2 and 2.5).
_MP3 = (
    (32000, (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)),
    (16000, (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)),
    (0, (8, 16, 24, 32, 40, 48, 56, 64)),
)
# Of Opus, a channel.
_OPUS = (6, 256)
# The MP3 encoder refuses the smallest quality.
_SMALLEST = 0.99
# Bit/s by which a Vorbis file may miss its bit rate; and by which at the ends of what it can.
_NEAR, _NEAR_END = 100, 500


def encoder_options(
    pair: tuple[str, str],
    rate: int,
    nb_channels: int,
    quality: float | None,
    bitrate: int | None,
) -> dict[str, Any]:
    """Return arguments of `soundfile.SoundFile`; none for the usual quality.

    Parameters
    ----------
    pair : tuple of str
        libsndfile's names of container and encoding.
    rate, nb_channels : int
        Of the file.
    quality : float or None
        From 0 (small) to 1 (best).
    bitrate : int or None
        In kbit/s.

    Raises
    ------
    ConfigError
        If both are given, one is out of range, or the format has no bit rate.
    """
    if quality is not None and not 0 <= quality <= 1:
        raise ConfigError(f"quality={quality} must be from 0 to 1")
    if quality is not None and bitrate is not None:
        raise ConfigError(f"quality={quality} and bitrate={bitrate} exclude each other; take one")
    lossy = pair[1] in ("MPEG_LAYER_III", "VORBIS", "OPUS")
    if bitrate is None and (quality is None or not lossy):
        return {}
    if bitrate is not None:
        check_int("bitrate", bitrate, 1)
    if not lossy:
        raise ConfigError(
            f"bitrate={bitrate}: {pair[0]} files hold every sample; bit rates are for mp3, ogg and "
            "opus"
        )
    if "compression_level" not in inspect.signature(sf.SoundFile.__init__).parameters:
        raise ConfigError(f"quality={quality}, bitrate={bitrate} need soundfile 0.13 or later")
    if quality is not None:
        return {"compression_level": min(1.0 - quality, _SMALLEST)}
    assert bitrate is not None
    if pair[1] == "MPEG_LAYER_III":
        return {"compression_level": _mp3_level(rate, bitrate), "bitrate_mode": "CONSTANT"}
    level = _opus_level if pair[1] == "OPUS" else _vorbis_level
    return {"compression_level": level(rate, nb_channels, bitrate)}


def _mp3_level(rate: int, bitrate: int) -> float:
    possible = next(some for least, some in _MP3 if rate >= least)
    if bitrate not in possible:
        raise ConfigError(
            f"bitrate={bitrate}: mp3 files of {rate} Hz can have "
            f"{', '.join(map(str, possible))} kbit/s"
        )
    # libsndfile cuts what comes out to whole numbers.
    return max((possible[-1] - bitrate - 0.5) / (possible[-1] - possible[0]), 0.0)


def _opus_level(rate: int, nb_channels: int, bitrate: int) -> float:
    low, high = _OPUS
    if not low * nb_channels <= bitrate <= high * nb_channels:
        raise ConfigError(
            f"bitrate={bitrate}: opus files of {nb_channels} channels can have {low * nb_channels} "
            f"to {high * nb_channels} kbit/s"
        )
    return (high - bitrate / nb_channels) / (high - low)


@lru_cache
def _vorbis_level(rate: int, nb_channels: int, bitrate: int) -> float:
    best, smallest = (_expected(rate, nb_channels, level) for level in (0.0, 1.0))
    if smallest <= 0:
        raise ConfigError(
            f"bitrate={bitrate}: ogg files of {rate} Hz have no known bit rate; take quality"
        )
    wanted = 1000 * bitrate
    if not smallest - _NEAR_END <= wanted <= best + _NEAR_END:
        raise ConfigError(
            f"bitrate={bitrate}: ogg files of {rate} Hz and {nb_channels} channels can have "
            f"{round(smallest / 1000)} to {round(best / 1000)} kbit/s"
        )
    low, high = 0.0, 1.0
    for _ in range(30):
        level = (low + high) / 2
        found = _expected(rate, nb_channels, level)
        if found > wanted:
            low = level
        else:
            high = level
        if abs(found - wanted) <= _NEAR:
            break
    return level


def _expected(rate: int, nb_channels: int, level: float) -> int:
    """Bit/s that the encoder writes into the head of a Vorbis file; -1 where it has no idea."""
    file = io.BytesIO()
    form = {"format": "OGG", "subtype": "VORBIS", "compression_level": level}
    with HeldFile(file, "w", samplerate=rate, channels=nb_channels, **form):
        pass
    head = file.getvalue()
    begin = head.find(b"\1vorbis")
    (nominal,) = struct.unpack_from("<i", head, begin + 20) if begin >= 0 else (-1,)
    return int(nominal)
