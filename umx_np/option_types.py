"""Types of the options of commands: what `argparse` calls to make a value of a text."""

from __future__ import annotations

import argparse
import json


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
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not JSON: {error}") from error
    except RecursionError:
        raise argparse.ArgumentTypeError(
            f"{text[:50]!r}... must be a JSON object of names and lists, and not so deep"
        ) from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"{text!r} must be a JSON object of names and lists")
    return value
