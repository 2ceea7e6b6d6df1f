"""Types of the options of commands: what `argparse` calls to make a value of a text."""

from __future__ import annotations

import argparse

from ..errors import ConfigError, shortened
from .inputs import parse_json


def positive_int(text: str) -> int:
    """Type of an option that counts something."""
    value = _whole(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} must be at least 1")
    return value


def natural(text: str) -> int:
    """Type of an option that counts something, and may be 0."""
    value = _whole(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} must not be negative")
    return value


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def json_object(text: str) -> dict[str, list[str]]:
    """Type of an option with names and lists."""
    try:
        return parse_json(text, "", ConfigError)
    except ConfigError as error:
        reason = str(error).removeprefix("path='' ")
        raise argparse.ArgumentTypeError(
            f"{shortened(text)} must be a JSON object of names and lists, but {reason}"
        ) from error
