"""Every error the package raises on purpose.

All of them derive from `UmxError`, so a program can catch one type. Each message names the
offending value as ``name=value`` and says what to do about it.
"""

from __future__ import annotations

import itertools
import numbers
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

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


class CatalogError(UmxError, RuntimeError):
    """A plan of a catalogue is not usable, or nothing can be done with it here."""


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


# How deep and how far `shortened` looks into a container.
_SHOWN_DEPTH = 3
_SHOWN_ITEMS = 6
# Integers of more bits are described; beyond 4300 digits Python refuses to write them.
_SHOWN_BITS = 200


def shortened(value: object, limit: int = 100) -> str:
    r"""Describe a value for a message, in little time whatever it is.

    Parameters
    ----------
    value : object
        Anything, such as what a file held.
    limit : int
        Most characters of the description.

    Returns
    -------
    str
        As `repr` would write it where that is short. Containers are cut after a few items and
        levels, so that one which holds itself, or shares its parts, costs no more than another.
        Control characters and those that change the direction of text are escaped.

    Examples
    --------
    >>> shortened("a\x1b[31m" + "b" * 1000, limit=20)
    "'a\\x1b[31mbbbbbb...'"
    >>> shortened([[[[[1]]]], 2])
    '[[[...]], 2]'
    """
    text = _described(value, limit, _SHOWN_DEPTH)
    return text if len(text) <= limit else text[: max(limit - 3, 0)] + "..."


def _described(value: object, limit: int, depth: int) -> str:
    if isinstance(value, (str, bytes, bytearray)):
        return _quoted(value, limit)
    if value is None or isinstance(value, bool):
        return repr(value)
    if isinstance(value, numbers.Integral):
        bits = int(value).bit_length()
        return repr(int(value)) if bits <= _SHOWN_BITS else f"<integer of {bits} bits>"
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Rational):
        return repr(float(value))
    if isinstance(value, (list, tuple, dict, set, frozenset)):
        return _container(value, limit, depth)
    if isinstance(value, os.PathLike):
        return _quoted(os.fspath(value), limit)
    if isinstance(value, type):
        return f"<class {_quoted(value.__qualname__, limit)}>"
    return f"<{_quoted(type(value).__qualname__, limit)[1:-1]}>"


def _quoted(value: str | bytes | bytearray, limit: int) -> str:
    """Write a text as `repr` does; what is too long ends in dots within the quotes."""
    shown = value[: max(limit, 0)]
    if len(shown) == len(value) and len(whole := repr(shown)) <= limit:
        return whole
    # An escape takes up to ten characters, so that fewer may fit than `limit`.
    while shown and len(repr(shown)) > limit - 3:
        shown = shown[: min(len(shown) - 1, max(limit - 5, 0))]
    written = repr(shown)
    return f"{written[:-1]}...{written[-1]}"


def _container(value: Collection[object], limit: int, depth: int) -> str:
    brackets = {list: "[]", tuple: "()"}.get(type(value), "{}")
    opening, closing = brackets[0], brackets[1]
    if not value:
        return opening + closing if not isinstance(value, (set, frozenset)) else "set()"
    if depth <= 1:
        return f"{opening}...{closing}"
    room = max(limit // 2, 10)
    parts = []
    if isinstance(value, dict):
        for key, item in itertools.islice(value.items(), _SHOWN_ITEMS):
            shown = _described(key, room, depth - 1)
            parts.append(f"{shown}: {_described(item, room, depth - 1)}")
    else:
        items = itertools.islice(value, _SHOWN_ITEMS)
        parts = [_described(item, room, depth - 1) for item in items]
    if len(value) > _SHOWN_ITEMS:
        parts.append("...")
    elif type(value) is tuple and len(value) == 1:
        return f"({parts[0]},)"
    return opening + ", ".join(parts) + closing
