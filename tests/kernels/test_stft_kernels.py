"""Arguments of the kernels of frames; what they compute is tested in backends."""

from __future__ import annotations

import numpy as np
import pytest

from umx_np._kernels import stft as kernels


def normal(*shape: int, dtype=np.float64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match="do not fit"):
        kernels.frame(normal(1, 10), normal(4), np.empty((1, 8, 4)), 1)
    with pytest.raises(ValueError, match="do not fit"):
        kernels.overlap_add(normal(1, 8, 4), normal(4), np.empty((1, 10)), 1)
    with pytest.raises(ValueError, match="bins"):
        kernels.magnitude(normal(1, 2, 3) + 0j, np.empty((2, 1, 4)), False)
    with pytest.raises(ValueError, match="adjacent"):
        kernels.frame(normal(10, 1).T[:, ::2], normal(2), np.empty((1, 2, 2)), 1)
