"""Stereo of more channels.

The coefficients are those of Recommendation ITU-R BS.775 (annex on downward mixing, to 2/0): the
front channels as they are, the centre and the surround channels of each side at -3 dB, and one
surround channel in the middle at -6 dB on both sides. The channel of low frequencies is left out.
Seven and eight channels, which the recommendation does not know, have two pairs of surround
channels, each of them at -3 dB; channels between centre and side are at the front.

The sum is not scaled down. The recommendation leaves to its users how they stay within full scale;
here samples are floats, so that nothing is lost, voices keep their level, for which the networks
were trained, and what becomes of stems beyond full scale is what ``clip_mode`` says.
"""

from __future__ import annotations

import numpy as np

from ..errors import ConfigError

DOWNMIXES = ("standard", "first")

_HALF = float(np.sqrt(0.5))
# Positions of WAVEFORMATEXTENSIBLE, from the lowest bit on, in which order the channels are: what
# goes from each to the left and to the right.
_GAINS = (
    (1.0, 0.0),  # front left
    (0.0, 1.0),  # front right
    (_HALF, _HALF),  # front centre
    (0.0, 0.0),  # low frequencies
    (_HALF, 0.0),  # back left
    (0.0, _HALF),  # back right
    (1.0, 0.0),  # front left of centre
    (0.0, 1.0),  # front right of centre
    (0.5, 0.5),  # back centre
    (_HALF, 0.0),  # side left
    (0.0, _HALF),  # side right
)
# What so many channels are where nothing else is said: as FLAC, Vorbis and Opus have them.
_USUAL = {3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x70F, 8: 0x63F}
_LOW = 3  # the bit of low frequencies


def usual_mask(nb_channels: int) -> int:
    """Positions of so many channels in the order of WAV files; 0 if that is not known."""
    return _USUAL.get(nb_channels, 0)


def layout_name(mask: int) -> str:
    """Name of a layout as people write it, such as ``"5.1"``."""
    low = mask >> _LOW & 1
    return f"{mask.bit_count() - low}.{low}"


def stereo_gains(mask: int, nb_channels: int) -> np.ndarray | None:
    """Find what goes from each channel to the left and to the right.

    Parameters
    ----------
    mask : int
        Positions of the channels, one bit each.
    nb_channels : int
        How many there are.

    Returns
    -------
    ndarray [shape=(nb_channels, 2)], float32, or None
        None if the positions are not known, or are not those of a stereo signal with more.
    """
    if mask.bit_count() != nb_channels or mask >> len(_GAINS) or mask & 3 != 3:
        return None
    return np.array([gains for bit, gains in enumerate(_GAINS) if mask >> bit & 1], np.float32)


def mixed(frames: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Mix (n, nb_channels) samples to (n, 2).

    Channel by channel and not as a matrix product, whose rounding depends on `n`.
    """
    out = np.zeros((len(frames), gains.shape[1]), np.float32)
    for channel, gain in zip(frames.T, gains, strict=True):
        out += channel[:, np.newaxis] * gain
    return out


def check_downmix(downmix: str | None) -> None:
    """Raise `ConfigError` if there is no such way."""
    if downmix is not None and downmix not in DOWNMIXES:
        raise ConfigError(
            f"downmix={downmix!r} must be one of {', '.join(map(repr, DOWNMIXES))}, or None"
        )
