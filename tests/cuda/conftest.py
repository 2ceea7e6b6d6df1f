"""Devices to run kernels on: the emulator in two orders of its threads, and a card."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from helpers.emulated import CARDS, EMULATED, Make, card

from umx_np.cuda import compiling
from umx_np.cuda.device import Device, Kernel, get_device


@pytest.fixture(params=EMULATED)
def emulated_device(request: pytest.FixtureRequest) -> Device:
    """An emulated card, once for each order of threads."""
    return card(request.param)


@pytest.fixture
def device() -> Device:
    """A real card; for tests marked gpu."""
    return get_device(0)


@pytest.fixture(params=CARDS)
def any_device(request: pytest.FixtureRequest) -> Device:
    """The emulated card in both orders, and the real one."""
    return card(request.param)


@pytest.fixture
def write_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Write a source of the test beside copies of the shared ones; returns its name, a new one."""
    for shared in compiling.SOURCES.glob("*.cuh"):
        shutil.copy(shared, tmp_path)
    monkeypatch.setattr(compiling, "SOURCES", tmp_path)

    numbers = itertools.count()

    def write(text: str) -> str:
        name = f"made{next(numbers)}.cu"
        (tmp_path / name).write_text(text, encoding="utf-8")
        return name

    compiling.read_source.cache_clear()
    yield write
    compiling.read_source.cache_clear()


@pytest.fixture
def make(write_source: Callable[[str], str]) -> Make:
    """Compile the body of a kernel, which is named ``k``.

    ``includes`` stands before it, ``before`` before its name, ``defines`` as for `Device.kernel`.
    """

    def made(
        device: Device,
        body: str,
        parameters: str = "float* out",
        *,
        includes: str = "",
        before: str = "",
        defines: compiling.Defines | None = None,
    ) -> Kernel:
        source = write_source(
            f'#include "common.cuh"\n{includes}\n'
            f'extern "C" __global__ void {before} k({parameters}) {{\n{body}\n}}\n'
        )
        return device.kernel(source, "k", defines=defines)

    return made
