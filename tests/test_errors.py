"""Values in messages."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from helpers.refusing import nested, short_id

from umx_np.errors import (
    shortened,
)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("plain", "'plain'"),
        ("it's", '"it\'s"'),
        (None, "None"),
        (True, "True"),
        (1.5, "1.5"),
        (np.float32(1.5), "1.5"),
        (np.int64(3), "3"),
        (10**5000, "<integer of 16610 bits>"),
        ([], "[]"),
        ((1,), "(1,)"),
        ({"a": [1, {"b": 2}]}, "{'a': [1, {...}]}"),
        (set(), "set()"),
        (Path("a"), "'a'"),
        (int, "<class 'int'>"),
        (object(), "<object>"),
        ("\x1b[31m\u202e\ud800", "'\\x1b[31m\\u202e\\ud800'"),
        (list(range(9)), "[0, 1, 2, 3, 4, 5, ...]"),
    ],
    ids=short_id,
)
def test_values_are_shown_as_python_writes_them(value: object, shown: str) -> None:
    assert shortened(value) == shown


def test_any_value_is_shown_at_once() -> None:
    shared: tuple = ()
    for _ in range(1000):
        shared = (shared, shared)
    own: list = []
    own.append(own)
    values = [shared, own, nested(), "x" * 10**7, b"\0" * 10**7, list(range(10**6))]
    values += [{number: number for number in range(10**5)}, ["\x1b" * 1000] * 1000]
    values += ["\U000e0001" * 1000, -(10**100_000)]
    begin = time.process_time()
    for value in values:
        for limit in (10, 20, 100, 300):
            text = shortened(value, limit)
            assert len(text) <= max(limit, 30)
            assert text.isprintable()
    assert time.process_time() - begin < 0.5
