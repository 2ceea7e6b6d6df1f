"""The backend of training, on a CUDA device or on the emulator."""

from __future__ import annotations

import pytest

from umx_np.cuda import training
from umx_np.cuda.device import Device


def backend_on(device: Device, monkeypatch: pytest.MonkeyPatch) -> training.CudaTrainingBackend:
    """Return the backend that 'cuda' means from now on."""
    backend = training.CudaTrainingBackend(device)
    monkeypatch.setattr(training, "get_cuda_backend", lambda index=0: backend)
    return backend
