"""Every error the package raises on purpose.

All of them derive from `UmxError`, so a program can catch one type. Each message names the
offending value as ``name=value`` and says what to do about it.
"""

from __future__ import annotations

import re

# What a terminal takes for a command or for a new line: control characters, separators of lines,
# and the marks that turn the direction of writing around. And what no encoding can write.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


class UmxError(Exception):
    """Base class of all errors raised on purpose by umx_np."""


class ConfigError(UmxError, ValueError):
    """An argument or a configuration value is not usable."""


class ShapeError(UmxError, ValueError):
    """An array has a shape, layout or dtype that does not fit."""


class AudioError(UmxError, OSError):
    """A sound file cannot be read or written."""


class WeightsError(UmxError, ValueError):
    """A weight file or a state dict is damaged, unsafe or does not fit the model."""


class ModelNotFoundError(UmxError, LookupError):
    """No model of that name or at that path."""


class DownloadError(UmxError, OSError):
    """A model could not be downloaded or did not pass verification."""


class DeviceError(UmxError, RuntimeError):
    """The requested device or compiled kernel is not available; the message says why."""


class DataError(UmxError, RuntimeError):
    """An item of a dataset cannot be made; the message names the item and the file.

    Attributes
    ----------
    index : int or None
        Number of the item, where one is to blame.
    """

    index: int | None = None


class TrainingError(UmxError, RuntimeError):
    """A training cannot begin or go on; the message says why and what is left of it."""


class ScoresError(UmxError, ValueError):
    """A file of scores cannot be read, or there is nothing to be scored."""


def printable(text: str) -> str:
    r"""Escape what would do something to a terminal instead of being shown, as names of files may.

    Examples
    --------
    >>> print(printable("a\x1b[2Jb\nc"))
    a\x1b[2Jb\nc
    """
    return _UNPRINTABLE.sub(lambda match: repr(match[0])[1:-1], text)


def shortened(value: object, limit: int = 100) -> str:
    """Describe a value for a message, in at most so many characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
