"""Files that are refused, and how: soon and in few words."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from umx_np.errors import (
    UmxError,
    WeightsError,
    shortened,
)


def nested(depth: int = 500) -> list:
    """Return lists in lists."""
    found: list = []
    for _ in range(depth):
        found = [found]
    return found


def short_id(value: object) -> str:
    """Name a value in the name of a test."""
    return shortened(value, 30)


def refused(
    function: Callable[[Path], object],
    path: Path,
    error: type[UmxError] = WeightsError,
    # Twice what is promised, for machines slower than those the promise is for.
    seconds: float = 2.0,
) -> str:
    """Return the message with which a file is refused, which must be short and come soon."""
    begin = time.process_time()
    with pytest.raises(error) as caught:
        function(path)
    assert time.process_time() - begin < seconds
    message = str(caught.value)
    assert len(message.replace(str(path), "")) < 500
    assert message.isprintable()
    return message


def with_header(header: object, numbers: bytes = b"") -> bytes:
    """Make a safetensors file of a header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + numbers


def described(shape: object, end: object, dtype: object = "F32", begin: object = 0) -> dict:
    """Describe a tensor in it."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
