"""Training on any device: kernels of Numba run in Numba's simulator where there is no card."""

from __future__ import annotations

import sys
import warnings
from typing import Any

import numba.core.config
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
        ndarray = self.device.xp.ndarray
        views = [self.view(a) if isinstance(a, ndarray) else a for a in arguments]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a card computes with NaN in silence
            kernel[1, 4](*views)


def is_emulated(device: Device) -> bool:
    """Whether there is no card behind it."""
    return device.xp.__name__ != "cupy"


def simulate_numba() -> None:
    """Let `numba.cuda` be its simulator, or skip the test if it is the real one already."""
    if not numba.core.config.ENABLE_CUDASIM:
        if "numba.cuda" in sys.modules:
            pytest.skip("numba.cuda was imported for a card; NUMBA_ENABLE_CUDASIM=1 simulates it")
        numba.core.config.ENABLE_CUDASIM = 1


def backend_on(device: Device, monkeypatch: pytest.MonkeyPatch) -> training.CudaTrainingBackend:
    """Return the backend that 'cuda' means from now on."""
    if not is_emulated(device):
        return training.get_cuda_backend(device.index)
    simulate_numba()
    backend = training.CudaTrainingBackend(device, SimulatedLauncher(device))
    monkeypatch.setattr(training, "get_cuda_backend", lambda index=0: backend)
    return backend
