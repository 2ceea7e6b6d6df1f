"""The kernels of every instruction-set level that this processor runs."""

from __future__ import annotations

import pytest

from umx_np._kernels import cpu


@pytest.fixture(params=list(cpu.levels()))
def kernels(request: pytest.FixtureRequest) -> cpu.Kernels:
    if not cpu.levels()[request.param]:
        pytest.skip(f"this processor does not run {request.param}")
    return cpu.Kernels(request.param)
