"""Fixtures for every test, and the rules by which marked tests are left out."""

from __future__ import annotations

import importlib.util
import os

import pytest
from helpers.asserts import largest
from tolerances import TOL

# Scripts that write the files beside them; they need PyTorch and hold no tests.
collect_ignore = ["data"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option by which tolerances are set."""
    parser.addoption(
        "--measure", action="store_true", help="list the largest error met by each tolerance"
    )


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Show how much of each tolerance was used."""
    if not config.getoption("--measure"):
        return
    terminalreporter.section("largest errors")
    for operation, by_dtype in TOL.items():
        for dtype, tolerance in by_dtype.items():
            if id(tolerance) in largest:
                share, relative = largest[id(tolerance)]
                terminalreporter.line(
                    f"{operation:24} {dtype:8} relative error {relative:8.2g}, "
                    f"{100.0 * share:6.2f} % of the bound"
                )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, tests that need what is not here."""
    skips = {}
    if not _cuda_device_present():
        skips["gpu"] = pytest.mark.skip(reason="needs CuPy and a CUDA device")
    if os.environ.get("UMX_NP_TEST_NETWORK") != "1":
        skips["network"] = pytest.mark.skip(reason="set UMX_NP_TEST_NETWORK=1 to run")
    for item in items:
        for marker, skip in skips.items():
            if item.get_closest_marker(marker):
                item.add_marker(skip)


@pytest.fixture(params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    """Both engines that need no accelerator: the slow specification and the compiled one."""
    return request.param


def _cuda_device_present() -> bool:
    if importlib.util.find_spec("cupy") is None:
        return False
    import cupy

    try:
        return cupy.cuda.runtime.getDeviceCount() > 0
    except cupy.cuda.runtime.CUDARuntimeError:
        return False
