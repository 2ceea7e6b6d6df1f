"""Every error the package raises on purpose.

All of them derive from `UmxError`, so a program can catch one type. Each message names the
offending value as ``name=value`` and says what to do about it.
"""

from __future__ import annotations


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


def shortened(value: object, limit: int = 100) -> str:
    """Return `repr(value)`, cut to `limit` characters."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
