"""Augmentations: what may be done to a source before it is mixed.

An augmentation is a function of a waveform and a random number generator. All of these are plain
functions of a module, and `Compose` holds a tuple of them: they can be sent to other processes.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import ModuleType

import numpy as np

from ..errors import ConfigError

Augmentation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def gain(
    audio: np.ndarray, rng: np.random.Generator, low: float = 0.25, high: float = 1.25
) -> np.ndarray:
    """Multiply by a random factor.

    Parameters
    ----------
    audio : ndarray [shape=(nb_channels, nb_timesteps)]
        Waveform, not modified.
    rng : Generator
        Source of the factor.
    low, high : float
        The factor is drawn uniformly from here to there.

    Returns
    -------
    ndarray [shape=(nb_channels, nb_timesteps)]
    """
    return audio * audio.dtype.type(rng.uniform(low, high))


def channelswap(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Exchange left and right with a probability of one half.

    Parameters
    ----------
    audio : ndarray [shape=(nb_channels, nb_timesteps)]
        Waveform, not modified. If it is not stereo, it is returned as it is.
    rng : Generator
        Source of the decision.

    Returns
    -------
    ndarray [shape=(nb_channels, nb_timesteps)]
        `audio` or a view of it.
    """
    if len(audio) == 2 and rng.random() < 0.5:
        return audio[::-1]
    return audio


def polarity(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turn the waveform upside down with a probability of one half.

    Parameters
    ----------
    audio : ndarray [shape=(nb_channels, nb_timesteps)]
        Waveform, not modified.
    rng : Generator
        Source of the decision.

    Returns
    -------
    ndarray [shape=(nb_channels, nb_timesteps)]
        `audio` or its negative.
    """
    return -audio if rng.random() < 0.5 else audio


def width(
    audio: np.ndarray, rng: np.random.Generator, low: float = 0.0, high: float = 1.5
) -> np.ndarray:
    """Multiply the difference of left and right by a random factor, and leave their sum alone.

    Parameters
    ----------
    audio : ndarray [shape=(nb_channels, nb_timesteps)]
        Waveform, not modified. If it is not stereo, it is returned as it is.
    rng : Generator
        Source of the factor.
    low, high : float
        The factor is drawn uniformly from here to there; 0 makes mono, 1 changes nothing.

    Returns
    -------
    ndarray [shape=(nb_channels, nb_timesteps)]
    """
    factor = audio.dtype.type(rng.uniform(low, high))
    if len(audio) != 2:
        return audio
    middle = audio.mean(axis=0)
    return middle + factor * (audio - middle)


def tilt(
    audio: np.ndarray,
    rng: np.random.Generator,
    depth: float = 6.0,
    low: float = 0.002,
    high: float = 0.1,
) -> np.ndarray:
    """Make it darker or brighter: a random filter of first order, in half of the cases.

    Far below its corner frequency the filter amplifies by some decibels, and far above it
    attenuates by as many; or the other way round.

    Parameters
    ----------
    audio : ndarray [shape=(nb_channels, nb_timesteps)]
        Waveform, not modified.
    rng : Generator
        Source of the decision, of the corner frequency and of the gain.
    depth : float
        Low frequencies get a gain that is drawn uniformly from ``-depth`` to ``depth`` dB, and high
        ones the opposite.
    low, high : float
        The corner frequency is drawn log-uniformly from here to there, in cycles per sample; by
        default from 88 to 4410 Hz at 44.1 kHz.

    Returns
    -------
    ndarray [shape=(nb_channels, nb_timesteps)]

    Raises
    ------
    ConfigError
        If SciPy is missing.
    """
    if rng.random() < 0.5:
        return audio
    root = 10.0 ** (rng.uniform(-depth, depth) / 20.0)
    corner = math.tan(math.pi * math.exp(rng.uniform(math.log(low), math.log(high))))
    # H(s) = (s / root + corner) / (s + corner / root), by the bilinear transform.
    b = np.array([1.0 / root + corner, corner - 1.0 / root])
    a = np.array([1.0 + corner / root, corner / root - 1.0])
    dtype = audio.dtype
    b, a = (b / a[0]).astype(dtype), (a / a[0]).astype(dtype)
    filtered: np.ndarray = _scipy_signal().lfilter(b, a, audio, axis=-1)
    return filtered


def _scipy_signal() -> ModuleType:
    try:
        return importlib.import_module("scipy.signal")
    except ImportError as error:
        raise ConfigError(
            "the augmentation 'tilt' needs the package scipy: "
            f'pip install "umx-np[augment]" ({error})'
        ) from error


def force_stereo(audio: np.ndarray, rng: np.random.Generator | None = None) -> np.ndarray:
    """Duplicate mono, and keep the first two of more channels.

    Parameters
    ----------
    audio : ndarray [shape=(nb_channels, nb_timesteps)]
        Waveform, not modified.
    rng : Generator or None
        Not used.

    Returns
    -------
    ndarray [shape=(2, nb_timesteps)]
    """
    if len(audio) == 1:
        return np.repeat(audio, 2, axis=0)
    return audio[:2]


AUGMENTATIONS: dict[str, Augmentation] = {
    "gain": gain,
    "channelswap": channelswap,
    "polarity": polarity,
    "width": width,
    "tilt": tilt,
    "force_stereo": force_stereo,
}
# These do more than multiply and rearrange channels, and need SciPy.
FILTERS = frozenset({tilt})


@dataclass(frozen=True)
class Compose:
    """Augmentations one after the other; none leave the waveform alone.

    Attributes
    ----------
    transforms : tuple of callable
        Functions of a waveform and a generator.
    """

    transforms: tuple[Augmentation, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "transforms", tuple(self.transforms))

    def __call__(self, audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        for transform in self.transforms:
            audio = transform(audio, rng)
        return audio

    @property
    def forces_stereo(self) -> bool:
        """Whether two channels come out whatever goes in."""
        return force_stereo in self.transforms

    def without_random(self) -> Compose:
        """Only what is no matter of chance: `force_stereo`, if it is there."""
        return Compose(tuple(t for t in self.transforms if t is force_stereo))


def aug_from_str(names: Iterable[str] | None) -> Compose:
    """Look up augmentations by name.

    Parameters
    ----------
    names : iterable of str or None
        Some of ``gain``, ``channelswap``, ``polarity``, ``width``, ``tilt`` and ``force_stereo``,
        in the order to apply them.

    Returns
    -------
    Compose

    Raises
    ------
    ConfigError
        If there is no augmentation of a name.

    Examples
    --------
    >>> [f.__name__ for f in aug_from_str(["gain", "channelswap"]).transforms]
    ['gain', 'channelswap']
    >>> aug_from_str(None).transforms
    ()
    """
    names = [names] if isinstance(names, str) else list(names or ())
    for name in names:
        if name not in AUGMENTATIONS:
            raise ConfigError(
                f"source_augmentations={name!r} is not known; there are {', '.join(AUGMENTATIONS)}"
            )
    transforms = tuple(AUGMENTATIONS[name] for name in names)
    if FILTERS.intersection(transforms):
        _scipy_signal()  # what is missing is said before anything begins
    return Compose(transforms)
