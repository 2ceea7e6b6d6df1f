"""Every backend that runs here, for the tests of their contracts."""

from __future__ import annotations

import pytest
from helpers.emulated import CARDS, card

from umx_np._kernels import cpu
from umx_np.backends.contracts import Backend
from umx_np.backends.cpu import CpuBackend
from umx_np.backends.reference import ReferenceBackend
from umx_np.cuda.backend import CudaBackend

LEVELS = [
    pytest.param(
        f"cpu-{level}",
        marks=[] if runs else pytest.mark.skip(reason=f"this processor does not run {level}"),
    )
    for level, runs in cpu.levels().items()
]
COMPILED = [*LEVELS, *CARDS]


@pytest.fixture(params=["reference", *COMPILED])
def ops(request: pytest.FixtureRequest) -> Backend:
    """The specification, each level of the processor, and CUDA devices, one of them emulated."""
    return backend_of(request.param)


def backend_of(name: str) -> Backend:
    """Return the backend of a parameter."""
    if name == "reference":
        return ReferenceBackend()
    if name.startswith("cpu-"):
        return CpuBackend(2, level=name.removeprefix("cpu-"))
    return CudaBackend(card(name))
