"""Training on any device: kernels of Numba run in Numba's simulator where there is no card."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numba.core.config
import numpy as np
import pytest

from umx_np.backends._cuda import training
from umx_np.backends._cuda.device import Device, get_device
from umx_np.backends._cuda.launching import Launcher
from umx_np.errors import DeviceError


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


def _simulate_without_a_card() -> None:
    """Let `numba.cuda` be its simulator from its first import on, unless there is a card."""
    try:
        get_device(0)
    except DeviceError:
        # Numba has read the variable by now; the package numba-cuda has not.
        os.environ["NUMBA_ENABLE_CUDASIM"] = "1"
        numba.core.config.ENABLE_CUDASIM = 1


def backend_on(device: Device, monkeypatch: pytest.MonkeyPatch) -> training.CudaTrainingBackend:
    """Return the backend that 'cuda' means from now on."""
    if device.xp.__name__ == "cupy":
        if _is_simulated():
            pytest.skip("numba.cuda is simulated")
        return training.get_cuda_backend(device.index)
    _simulate_without_a_card()
    backend = training.CudaTrainingBackend(device, SimulatedLauncher(device))
    monkeypatch.setattr(training, "get_cuda_backend", lambda index=0: backend)
    return backend
