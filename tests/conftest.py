"""Fixtures for every test, and the rules by which marked tests are left out."""

from __future__ import annotations

import os
import signal
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from helpers.asserts import largest
from helpers.combinations import covering
from tolerances import TOL

from umx_np._support.limits import available_cores
from umx_np.cuda.device import get_device
from umx_np.errors import DeviceError

# Benchmarks and recipes are not installed; at the end, so that an installed package stays the one
# that is tested.
sys.path.append(str(Path(__file__).resolve().parents[1]))

# Scripts that write the files beside them, and stand-ins for other packages; they hold no tests.
collect_ignore = ["golden", "peers/standin", "helpers/upstream_double"]

# More would each spend most of their time on imports.
MOST_PROCESSES = 8


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option by which tolerances are set."""
    parser.addoption(
        "--measure", action="store_true", help="list the largest error met by each tolerance"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Share the tests among processes, one for each core, where nothing else is asked for.

    Files and single tests run in this process, which starts sooner and can be watched; so does
    everything where pytest-xdist is absent (`-p no:xdist`), and what `-n`, `--dist` or `--tx` say
    goes before.
    """
    option = config.option
    if not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return
    told = option.numprocesses is not None or option.dist != "no" or option.tx
    watched = option.usepdb or option.trace or option.capture == "no" or option.measure
    if told or watched or option.collectonly:
        return
    folders = all(Path(argument).is_dir() for argument in config.args)
    nb_processes = min(available_cores(), MOST_PROCESSES)
    if folders and nb_processes > 1:
        option.numprocesses, option.dist = nb_processes, "worksteal"
        # Each process has a core; what uses several threads is told so by its test.
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ.setdefault(name, "1")


def pytest_configure(config: pytest.Config) -> None:
    """Prepare what has to be settled before anything is imported or started."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Shells start background jobs so, and programs that the tests interrupt would inherit it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # Who runs the tests may have defaults, and is not to be taken for told about something.
    os.environ["UMX_NP_CONFIG"] = ""
    os.environ.pop("UMX_NP_MODEL", None)
    os.environ["XDG_STATE_HOME"] = os.devnull


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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave to ``-m slow`` what adds little; skip, with the reason, what needs what is not here."""
    _mark_combinations(items)
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


def _mark_combinations(items: list[pytest.Item]) -> None:
    """Mark as slow what no pair of values of a test's parameters needs.

    Of a test with three parameters or more, those combinations stay in which every pair of values
    meets; what a device runs stays whole.
    """
    tests = defaultdict(list)
    for item in items:
        several = hasattr(item, "callspec") and len(item.callspec.params) > 2
        if several and not any(map(item.get_closest_marker, ("slow", "gpu"))):
            tests[item.nodeid.partition("[")[0]].append(item)
    for of_a_test in tests.values():
        # Values are the same objects in all of them; pytest's indices count the calls instead.
        values = [item.callspec.params.items() for item in of_a_test]
        chosen = covering([{name: id(value) for name, value in pairs} for pairs in values])
        for index, item in enumerate(of_a_test):
            if index not in chosen:
                item.add_marker(pytest.mark.slow)


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
