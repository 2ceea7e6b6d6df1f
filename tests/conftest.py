"""Fixtures for every test, and the rules by which marked tests are left out."""

from __future__ import annotations

import os
import signal

import pytest
from helpers.asserts import largest
from tolerances import TOL

from umx_np.cuda.device import get_device
from umx_np.errors import DeviceError

# Scripts that write the files beside them, and a stand-in; they need PyTorch and hold no tests.
collect_ignore = ["golden", "peers/standin"]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option by which tolerances are set."""
    parser.addoption(
        "--measure", action="store_true", help="list the largest error met by each tolerance"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Prepare what has to be settled before anything is imported or started."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Shells start background jobs so, and programs that the tests interrupt would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
    if any(item.get_closest_marker("gpu") for item in items) and (reason := _no_cuda_device()):
        skips["gpu"] = pytest.mark.skip(reason=f"needs a CUDA device: {reason}")
    if os.environ.get("UMX_NP_TEST_NETWORK") != "1":
        skips["network"] = pytest.mark.skip(reason="set UMX_NP_TEST_NETWORK=1 to run")
    if os.environ.get("UMX_NP_TEST_LONG") != "1":
        skips["long"] = pytest.mark.skip(reason="set UMX_NP_TEST_LONG=1 to run")
    for item in items:
        for marker, skip in skips.items():
            if item.get_closest_marker(marker):
                item.add_marker(skip)


@pytest.fixture(params=["reference", "numba"])
def backend(request: pytest.FixtureRequest) -> str:
    """The engines that train on the processor."""
    if request.param == "numba":
        pytest.importorskip("numba", reason="needs the extra 'train'")
    return request.param


@pytest.fixture(params=["reference", "cpu"])
def device(request: pytest.FixtureRequest) -> str:
    """Both engines that need no accelerator: the slow specification and the compiled one."""
    return request.param


def _no_cuda_device() -> str | None:
    """Why there is no CUDA device to test on; None if there is one."""
    try:
        get_device(0)
    except DeviceError as error:
        return str(error)
    return None
