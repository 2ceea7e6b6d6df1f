"""Training on any device: kernels of Numba run in Numba's simulator where there is no card."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import pytest

from umx_np.backends._cuda import training
from umx_np.backends._cuda.device import Device
from umx_np.backends._cuda.launching import Launcher


class SimulatedLauncher(Launcher):
    """Runs the kernels of Numba in Python: one block of a few threads does it all."""

    def view(self, array: Any) -> Any:
        return array.view(np.ndarray)

    def __call__(self, kernel: Any, count: int, *arguments: Any) -> None:
        if not _is_simulated():
            pytest.skip("numba.cuda is for the card here; NUMBA_ENABLE_CUDASIM=1 simulates it")
        ndarray = self.device.xp.ndarray
        views = [self.view(a) if isinstance(a, ndarray) else a for a in arguments]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a card computes with NaN in silence
            kernel[1, 4](*views)


def _is_simulated() -> bool:
    return os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"


def backend_on(device: Device, monkeypatch: pytest.MonkeyPatch) -> training.CudaTrainingBackend:
    """Return the backend that 'cuda' means from now on."""
    if device.xp.__name__ == "cupy":
        if _is_simulated():
            pytest.skip("numba.cuda is simulated")
        return training.get_cuda_backend(device.index)
    backend = training.CudaTrainingBackend(device, SimulatedLauncher(device))
    monkeypatch.setattr(training, "get_cuda_backend", lambda index=0: backend)
    return backend
