"""The stand-in for CuPy refuses what CuPy refuses, and watches what CuPy leaves to the program."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.emulated import Make, emulated
from helpers.emulator import streams
from helpers.emulator.streams import EmulatorError


def test_streams_that_are_not_ordered(make: Make) -> None:
    device = emulated()
    xp = device.xp
    write = make(device, "out[threadIdx.x] = 1;")
    read = make(device, "out[threadIdx.x] = x[threadIdx.x];", "const float* x, float* out")
    x, y = xp.empty(64, np.float32), xp.empty(64, np.float32)
    first, second, event = device.stream(), device.stream(), device.event()
    with first:
        write((1,), (64,), (x,))
    with second, pytest.raises(EmulatorError, match=r"kernel=k: stream .* reads an array of 256"):
        read((1,), (64,), (x, y))
    event.record(first)
    second.wait_event(event)
    with second:
        read((1,), (64,), (x, y))
    with first, pytest.raises(EmulatorError, match=r"kernel=k: stream .* writes an array"):
        write((1,), (64,), (x,))
    with first, pytest.raises(EmulatorError, match="get: stream"):
        y.get()
    second.synchronize()
    with first:
        write((1,), (64,), (x,))
        device.gemm(y.reshape(8, 8), y.reshape(8, 8), x.reshape(8, 8))
    with second, pytest.raises(EmulatorError, match="gemm"):
        device.gemm(x.reshape(8, 8), y.reshape(8, 8), xp.zeros((8, 8), np.float32))


def test_the_default_stream_waits_for_those_that_are_not_apart() -> None:
    device = emulated()
    x = device.xp.zeros(4, np.float32)
    with device.xp.cuda.Stream() as stream:
        x += 1
    assert x.sum() == 4
    with stream:
        x += 1
    with device.stream(), pytest.raises(EmulatorError):
        x += 1


def test_memory_that_is_freed_while_it_is_used(make: Make) -> None:
    device = emulated()
    xp = device.xp
    x = xp.zeros(64, np.float32)
    device.synchronize()
    with device.stream() as stream:
        x += 1
    del x
    xp.empty(65, np.float32)  # too much for the memory that was freed
    with pytest.raises(EmulatorError, match="freed while stream"):
        xp.empty(64, np.float32)
    stream.synchronize()
    xp.empty(64, np.float32)


def test_copies_to_the_host_arrive_late() -> None:
    device = emulated()
    x = device.xp.asarray(np.arange(5, dtype=np.float32))
    host = device.pinned(5)
    stream, event = device.stream(), device.event()
    device.synchronize()
    x.get(stream=stream, out=host, blocking=False)
    event.record(stream)
    device.stream().synchronize()
    assert np.isnan(host).all()
    event.synchronize()
    np.testing.assert_array_equal(host, np.arange(5))


def test_pinned_memory_is_left_alone_while_it_is_copied() -> None:
    device = emulated()
    host = device.pinned((2, 3))
    host[...] = 1
    x = device.xp.empty((2, 3), np.float32)
    x.set(host)
    host[0, 0] = 2
    with pytest.raises(EmulatorError, match="pinned memory was changed"):
        device.synchronize()
    pageable = np.ones((2, 3), np.float32)
    x.set(pageable)
    pageable[0] = 3
    device.synchronize()
    assert x.sum() == 6


def test_events_that_were_not_recorded_mean_nothing() -> None:
    device = emulated()
    event = device.event()
    event.synchronize()
    device.stream().wait_event(event)
    assert event.done
    assert streams.current() is device.xp.cuda.Stream.null


def test_host_and_device_do_not_mix() -> None:
    xp = emulated().xp
    x = xp.zeros(3, np.float32)
    host = np.ones(3, np.float32)
    for mix in (
        lambda: x + host,
        lambda: host + x,
        lambda: x.__setitem__(slice(None), host),
        lambda: xp.concatenate([x, host]),
        lambda: np.concatenate([x, x]),
        lambda: np.add(host, x, out=host),
    ):
        with pytest.raises(TypeError):
            mix()
    x[...] = 2
    x += np.float32(1)
    assert (type(x + 1), type(x.sum()), float(x.sum())) == (xp.ndarray, xp.ndarray, 9.0)
    assert type(x.get()) is np.ndarray
    with pytest.raises(AttributeError, match="does the package need it"):
        xp.no_such_function  # noqa: B018


def test_the_pool_has_a_limit() -> None:
    device = emulated()
    pool = device.xp.get_default_memory_pool()
    before = device.free_memory()
    pool.set_limit(size=pool.used_bytes() + 1000)
    try:
        assert device.free_memory() == 1000
        kept = device.xp.empty(200, np.float32)
        with pytest.raises(device.out_of_memory):
            device.xp.empty(200, np.float32)
        assert device.free_memory() == 200
        del kept
        assert device.free_memory() == 1000
    finally:
        pool.set_limit(size=0)
    assert device.free_memory() == before


def public_names(value: Any, prefix: str = "") -> Iterator[str]:
    """Names of a module of the stand-in and of what is in it."""
    names = vars(value)
    for name in sorted(names if isinstance(value, SimpleNamespace) else value.__all__):
        yield prefix + name
        if isinstance(names[name], SimpleNamespace):
            yield from public_names(names[name], f"{prefix}{name}.")


def test_cupy_has_what_the_stand_in_has() -> None:
    cupy = pytest.importorskip("cupy", reason="needs CuPy, but no card")
    # As `get_device` does; until then CuPy 13 does not have it.
    pytest.importorskip("cupy.cuda.cufft", reason="needs the libraries of CUDA")
    standin = emulated().xp
    absent = []
    for path in public_names(standin):
        there: Any = cupy
        for name in path.split("."):
            there = getattr(there, name, None)
        if there is None:
            absent.append(path)
    assert not absent
    for name in ("Stream", "Event"):
        real = set(dir(getattr(cupy.cuda, name)))
        ours = {n for n in vars(getattr(standin.cuda, name)) if not n.startswith("_")}
        assert ours - {"advance"} <= real
    ours = {name for name in vars(standin.ndarray) if not name.startswith("_")}
    assert ours <= set(dir(cupy.ndarray))
