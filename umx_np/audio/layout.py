"""From the array a caller has to ``(nb_samples, nb_channels, nb_timesteps)``, and back.

The rules are those of ``openunmix.utils.preprocess``, with these differences: more than two
channels keep the first two channels (not the first two samples), a missing `rate` means the rate of
the model, models of one channel take mono as it is, and integers are scaled to full scale.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..config import check_array, check_rate
from ..errors import ShapeError
from .resampling import resample

_LAYOUTS = ("T", "CT", "TC", "NT", "NCT", "NTC")


@dataclass(frozen=True)
class Layout:
    """How the caller's array is laid out, so that stems can be returned the same way.

    Attributes
    ----------
    axes : {'T', 'CT', 'TC', 'NT', 'NCT', 'NTC'}
        One letter an axis: N samples of the batch, C channels, T time.
    nb_channels : int
        Channels of the caller's array.

    Examples
    --------
    >>> import numpy as np
    >>> layout = Layout.of(np.zeros((44100, 1)))
    >>> layout.axes, layout.nb_channels
    ('TC', 1)
    >>> layout.restore(np.zeros((1, 2, 44100), np.float32)).shape
    (44100, 1)
    """

    axes: str
    nb_channels: int

    def __post_init__(self) -> None:
        if self.axes not in _LAYOUTS:
            raise ShapeError(f"axes={self.axes!r} must be one of {', '.join(_LAYOUTS)}")

    @classmethod
    def of(cls, audio: ArrayLike, *, channels_first: bool | None = None) -> Layout:
        """Find the layout of an array from its shape.

        Parameters
        ----------
        audio : array_like [shape=(T,), (C, T), (T, C), (N, C, T) or (N, T, C)]
            Only its shape is looked at.
        channels_first : bool or None
            Where the channels are, if known: True for (C, T) and (N, C, T), False for (T, C) and
            (N, T, C). None guesses as Open-Unmix does: the channel axis is the shorter one; two
            axes that are both longer than 2 are a batch of mono signals.

        Returns
        -------
        Layout

        Raises
        ------
        ShapeError
            If the array is empty, or has no or more than three axes.

        Warns
        -----
        UserWarning
            If two axes longer than 2 are taken for a batch of mono signals.
        """
        shape = np.shape(audio)
        if not 1 <= len(shape) <= 3:
            raise ShapeError(
                f"shape={shape} must have 1 to 3 axes: (nb_timesteps,), (nb_channels, nb_timesteps)"
                " or (nb_samples, nb_channels, nb_timesteps)"
            )
        if 0 in shape:
            raise ShapeError(f"shape={shape} holds no samples")
        if len(shape) == 1:
            return cls("T", 1)
        batch = "N" if len(shape) == 3 else ""
        if channels_first is None and not batch and min(shape) > 2:
            warnings.warn(
                f"shape={shape} is taken for {shape[0]} mono signals of {shape[1]} samples; pass "
                "channels_first=True or False if one axis holds channels",
                UserWarning,
                stacklevel=3,
            )
            # Open-Unmix turns "more signals than samples" around as a signal of that many channels;
            # here the axes keep their order.
            return cls("NT", 1)
        if channels_first is None:
            channels_first = shape[-2] <= shape[-1]
        if channels_first:
            return cls(batch + "CT", shape[-2])
        return cls(batch + "TC", shape[-1])

    def to_batch(self, audio: np.ndarray) -> np.ndarray:
        """View an array of this layout as ``(nb_samples, nb_channels, nb_timesteps)``.

        Parameters
        ----------
        audio : ndarray
            Array of the layout `axes`.

        Returns
        -------
        ndarray [shape=(nb_samples, nb_channels, nb_timesteps)]
            A view; nothing is copied.
        """
        if audio.ndim != len(self.axes):
            raise ShapeError(f"shape={audio.shape} does not have the axes {self.axes}")
        if self.axes.endswith("TC"):
            audio = np.swapaxes(audio, -1, -2)
        if "C" not in self.axes:
            audio = audio[..., np.newaxis, :]
        return audio if "N" in self.axes else audio[np.newaxis]

    def restore(self, stems: np.ndarray) -> np.ndarray:
        """Bring stems to the layout and the number of channels of the caller's array.

        Parameters
        ----------
        stems : ndarray [shape=(nb_samples, nb_channels, nb_timesteps)]
            Stems of one target. Two channels become their mean where the caller's array was mono.

        Returns
        -------
        ndarray [shape as `axes` says]
            C-contiguous, of the same dtype. Of an array with more than two channels, only the two
            that were processed come back.
        """
        if stems.ndim != 3:
            raise ShapeError(f"shape={stems.shape} must be (nb_samples, nb_channels, nb_timesteps)")
        if self.nb_channels == 1 and stems.shape[1] > 1:
            stems = stems.mean(axis=1, keepdims=True)
        if "N" not in self.axes:
            if len(stems) != 1:
                raise ShapeError(f"nb_samples={len(stems)} must be 1 for the axes {self.axes}")
            stems = stems[0]
        if "C" not in self.axes:
            stems = stems[..., 0, :]
        if self.axes.endswith("TC"):
            stems = np.swapaxes(stems, -1, -2)
        return np.ascontiguousarray(stems)


def preprocess(
    audio: ArrayLike,
    rate: float | None = None,
    model_rate: float | None = None,
    *,
    nb_channels: int = 2,
    channels_first: bool | None = None,
    layout: Layout | None = None,
) -> np.ndarray:
    """Take an array of any usual layout, type and rate to what a separator reads.

    Parameters
    ----------
    audio : array_like [shape=(T,), (C, T), (T, C), (N, C, T) or (N, T, C)]
        Waveforms, never modified: float16, float32, float64, or integers of 8, 16 or 32 bits, which
        are divided by their full scale (unsigned ones are centred first). Any memory layout.
    rate : float or None
        Rate of `audio` in Hz; None takes it to be `model_rate`.
    model_rate : float or None
        Rate to resample to, in Hz; None leaves the rate alone.
    nb_channels : int
        Channels of the model. 2 duplicates mono signals; with 1, mono and stereo pass as they are
        (a mono model sees the mean magnitude of the channels and still filters each of them).
    channels_first : bool or None
        See `Layout.of`.
    layout : Layout or None
        The layout, if it was found before.

    Returns
    -------
    ndarray [shape=(nb_samples, nb_channels, nb_timesteps)], float32
        A new C-contiguous array, of one or two channels for a model of these.

    Raises
    ------
    ShapeError
        If the array is empty, of an unusable shape or dtype, or holds NaN or infinity.

    Warns
    -----
    UserWarning
        If there are more channels than the model has, and more than two; the first ones are used.

    Examples
    --------
    >>> import numpy as np
    >>> preprocess(np.zeros((48000, 2), np.int16), rate=48000, model_rate=44100).shape
    (1, 2, 44100)
    """
    audio = check_array("audio", audio)
    if layout is None:
        layout = Layout.of(audio, channels_first=channels_first)
    batch = layout.to_batch(audio)
    most = max(2, nb_channels)
    if batch.shape[1] > most:
        warnings.warn(
            f"nb_channels={batch.shape[1]}: only the first {most} channels are processed; "
            "umx_np.audio.read(file, downmix='standard') reads the stereo of surround sound",
            UserWarning,
            stacklevel=2,
        )
        batch = batch[:, :most]
    waveform = _to_float32(batch)
    _check_finite(waveform)
    if model_rate is not None and rate is not None and rate != model_rate:
        check_rate("rate", rate)
        waveform = resample(waveform, rate, check_rate("model_rate", model_rate))
    if nb_channels > 1 and waveform.shape[1] == 1:
        # After resampling, which so costs half.
        waveform = np.repeat(waveform, 2, axis=1)
    return waveform


def _to_float32(audio: np.ndarray) -> np.ndarray:
    """Copy to C-contiguous float32; integers are scaled so that full scale is [-1, 1)."""
    kind, nb_bits = audio.dtype.kind, 8 * audio.dtype.itemsize
    if kind == "f":
        with np.errstate(over="ignore"):  # too large for float32 is reported as infinity
            return np.array(audio, dtype=np.float32, order="C")
    if kind in "iu" and nb_bits <= 32:
        full_scale = 2.0 ** (nb_bits - 1)
        scaled = audio.astype(np.float64, order="C")
        if kind == "u":
            scaled -= full_scale  # unsigned samples are offset binary
        scaled /= full_scale
        return scaled.astype(np.float32)
    advice = "convert to floats in [-1, 1]"
    if kind in "iu":
        advice = f"its full scale is not known; {advice}, or to int16 or int32"
    raise ShapeError(f"dtype={audio.dtype} is not usable as a waveform: {advice}")


def _check_finite(waveform: np.ndarray) -> None:
    """Refuse NaN and infinity, which would spread over the whole song."""
    finite = np.isfinite(waveform)
    if not finite.all():
        sample, channel, time = np.unravel_index(np.argmin(finite), finite.shape)
        raise ShapeError(
            f"audio holds {waveform[sample, channel, time]} at sample={sample} channel={channel} "
            f"time={time}: replace values that are not finite (or too large for float32)"
        )
