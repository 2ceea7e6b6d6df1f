"""Emulated devices to run kernels on, and what launches a kernel of a test."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from umx_np.cuda.device import Device, Kernel, get_device

from .emulator import building

ORDERS = {"emulated": ("ascending", 0), "emulated-shuffled": ("shuffled", 1)}
# In their order, the threads show fewer mistakes than shuffled.
EMULATED = [pytest.param("emulated", marks=pytest.mark.slow), "emulated-shuffled"]
CARDS = [*EMULATED, pytest.param("cuda", marks=pytest.mark.gpu)]


def emulated(order: str = "ascending", seed: int = 0) -> Device:
    """Return an emulated device; threads run in that order from now on."""
    if building.compiler() is None:
        pytest.skip("the emulator needs g++ and Linux")
    from .emulator import cupy_standin, launching, streams

    streams.forget()
    launching.Settings.order, launching.Settings.seed = order, seed
    return Device(cupy_standin, 0)


def card(name: str) -> Device:
    """Return the device of this name among `CARDS`."""
    return get_device(0) if name == "cuda" else emulated(*ORDERS[name])


Make = Callable[..., Kernel]


def run(kernel: Kernel, nb_blocks: int = 1, nb_threads: int = 64, **how: Any) -> np.ndarray:
    """Launch a kernel that writes one float per thread."""
    out = kernel.device.xp.empty(nb_blocks * nb_threads, np.float32)
    kernel((nb_blocks,), (nb_threads,), (out,), **how)
    return out.get()
