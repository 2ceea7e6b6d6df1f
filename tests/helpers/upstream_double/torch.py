"""What `umx_np.commands.upstream_stems` asks of PyTorch, in NumPy."""

from __future__ import annotations

import os
from contextlib import nullcontext

import numpy as np

if os.environ.get("UMX_NP_TEST_UPSTREAM") == "absent":
    raise ImportError("there is no torch in this test")

float64 = np.float64


class Array(np.ndarray):
    def numpy(self) -> np.ndarray:
        return np.asarray(self)


def set_default_dtype(dtype: object) -> None:
    assert dtype is float64


def no_grad() -> nullcontext:
    return nullcontext()


def from_numpy(array: np.ndarray) -> Array:
    return array.view(Array)
