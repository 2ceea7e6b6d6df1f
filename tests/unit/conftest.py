"""The engines that train on the processor."""

from __future__ import annotations

import pytest


@pytest.fixture(params=["reference", "numba"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "numba":
        pytest.importorskip("numba", reason="needs the extra 'train'")
    return request.param
