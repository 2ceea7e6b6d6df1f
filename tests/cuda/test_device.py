"""What a card offers: kernels, products, memory; and what is said where there is none."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from helpers.emulated import emulated

from umx_np.cuda import compiling
from umx_np.cuda.device import Device, get_device
from umx_np.errors import ConfigError, DeviceError, ShapeError

SCALE = """#include "common.cuh"
#ifndef FACTOR
#define FACTOR 2
#endif
// Not a kernel: extern "C" __global__ void commented(int n) {}
extern "C" __global__ void __launch_bounds__(64) scale(const float* x, float* out, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = FACTOR * x[i];
}
extern "C" __global__ void nothing(const float*) {}
"""


# ------------------------------------------------------------------ sources


def test_sources_are_put_together(write_source: Callable[[str], str]) -> None:
    inner = write_source("#pragma once\nint inner;\n")
    name = write_source(f'int a;\n#include "{inner}"\nint b;\n#include "{inner}"\nint c;\n')
    text = compiling.read_source(name)
    assert text.count("int inner;") == 1
    assert "#include" not in text
    assert "#pragma once" not in text
    # The line after each inclusion says where it is.
    for line, variable in ((1, "a"), (3, "b"), (5, "c")):
        before = text.split(f"int {variable};")[0].splitlines()
        place = max(i for i, row in enumerate(before) if row.endswith(f'"{name}"'))
        assert int(before[place].split()[1]) + len(before) - place - 1 == line


def test_kernels_of_a_source() -> None:
    text = SCALE + (
        'extern "C" __global__ void\n'
        "__launch_bounds__(WARPS * (16 + 16), 1) more(float* x, int n)\n{ if (n) { x[0] = 1; } }\n"
        'extern "C" void not_a_kernel(int n) {}\n__device__ void helper(int n) {}\n'
    )
    found = compiling.kernels(text)
    assert list(found) == ["scale", "nothing", "more"]
    assert found["scale"] == "64"
    assert found["more"] == "WARPS * (16 + 16)"


def test_every_source_can_be_read() -> None:
    for file in compiling.SOURCES.glob("*.cu"):
        text = compiling.read_source(file.name)
        assert compiling.kernels(text), file
        assert '#include "' not in text


# ------------------------------------------------------------------ kernels


def test_a_kernel(any_device: Device, write_source: Callable[[str], str]) -> None:
    source = write_source(SCALE)
    xp = any_device.xp
    x = np.arange(100, dtype=np.float32)
    for defines, factor in (({}, 2), ({"FACTOR": 3}, 3), ({"FACTOR": 0.5}, 0.5)):
        kernel = any_device.kernel(source, "scale", defines=defines)
        out = xp.empty(100, np.float32)
        kernel((2,), (64,), (xp.asarray(x), out, np.int32(100)))
        np.testing.assert_array_equal(out.get(), factor * x)
    assert any_device.kernel(source, "scale", defines={"FACTOR": 0.5}) is kernel
    assert kernel.registers > 0
    assert (kernel.local_bytes, kernel.static_shared) == (0, 0)
    assert 64 <= kernel.max_threads <= 1024
    assert kernel.max_active_blocks(64) >= any_device.multiprocessors
    assert kernel.max_active_blocks(64, any_device.shared_memory_per_block) >= 1
    assert "scale" in repr(kernel)


def test_a_kernel_without_arrays(any_device: Device, write_source: Callable[[str], str]) -> None:
    any_device.kernel(write_source(SCALE), "nothing")((1,), (1,), (None,))
    any_device.synchronize()


@pytest.mark.parametrize("bad", [3, 3.0, True, [1.0], np.ones(3, np.float32)], ids=repr)
def test_arguments_without_a_type(
    any_device: Device, write_source: Callable[[str], str], bad: Any
) -> None:
    kernel = any_device.kernel(write_source(SCALE), "scale")
    x = any_device.xp.zeros(3, np.float32)
    with pytest.raises(TypeError, match=r"kernel=scale: argument 2 is of type"):
        kernel((1,), (64,), (x, x, bad))


def test_launches_that_cannot_be(any_device: Device, write_source: Callable[[str], str]) -> None:
    kernel = any_device.kernel(write_source(SCALE), "scale")
    x = any_device.xp.zeros(3, np.float32)
    args = (x, any_device.xp.zeros(3, np.float32), np.int32(3))
    with pytest.raises(
        DeviceError, match=r"kernel=scale cannot be launched with .*block=\(2048,\)"
    ):
        kernel((1,), (2048,), args)
    too_much = any_device.shared_memory_per_block + 1
    with pytest.raises(DeviceError, match=f"shared={too_much}"):
        kernel((1,), (64,), args, shared=too_much)
    too_many = kernel.max_active_blocks(64) + 1
    with pytest.raises(DeviceError, match="cooperative=True"):
        kernel((too_many,), (64,), args, cooperative=True)
    kernel((1,), (64,), args, shared=any_device.shared_memory_per_block)
    any_device.synchronize()


def test_a_source_with_an_error(any_device: Device, write_source: Callable[[str], str]) -> None:
    broken = SCALE.replace("FACTOR * x[i]", "FACTOR * y[i]")
    with pytest.raises(DeviceError, match=r"kernel=scale of .*does not compile:[\s\S]*made0\.cu"):
        any_device.kernel(write_source(broken), "scale")
    with pytest.raises(DeviceError, match=r"kernel=absent of .* cannot be loaded"):
        any_device.kernel(write_source(SCALE), "absent")


def test_kernels_are_compiled_once(write_source: Callable[[str], str]) -> None:
    device = emulated()
    source = write_source(SCALE)
    kernels = []
    threads = [
        threading.Thread(target=lambda: kernels.append(device.kernel(source, "scale")))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(kernels) == 4
    assert len(set(map(id, kernels))) == 1


# ------------------------------------------------------------------ products

BITS = {"float32": 24, "tf32": 11, "bf16": 8}


def fresh(device: Device, shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, Any]:
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return values, device.xp.asarray(values)


def close(got: np.ndarray, expected: np.ndarray, math: str = "float32") -> None:
    assert got.shape == expected.shape
    error = np.linalg.norm(got - expected) / np.linalg.norm(expected)
    assert error < 4 * 2.0 ** -BITS[math], error


@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("sizes", [(5, 3, 7), (1, 1, 1), (1, 6, 4), (6, 1, 1), (33, 17, 40)])
def test_gemm(
    any_device: Device, sizes: tuple[int, int, int], trans_a: bool, trans_b: bool
) -> None:
    m, n, k = sizes
    a, device_a = fresh(any_device, (k, m) if trans_a else (m, k), 1)
    b, device_b = fresh(any_device, (n, k) if trans_b else (k, n), 2)
    product = (a.T if trans_a else a) @ (b.T if trans_b else b)
    out = any_device.xp.empty((m, n), np.float32)
    any_device.gemm(device_a, device_b, out, trans_a=trans_a, trans_b=trans_b)
    close(out.get(), product)
    any_device.gemm(device_a, device_b, out, trans_a=trans_a, trans_b=trans_b, accumulate=True)
    close(out.get(), 2 * product)


@pytest.mark.parametrize("trans_b", [False, True])
@pytest.mark.parametrize("trans_a", [False, True])
def test_gemm_of_views(any_device: Device, trans_a: bool, trans_b: bool) -> None:
    a, device_a = fresh(any_device, (20, 30), 1)
    b, device_b = fresh(any_device, (21, 31), 2)
    _, device_out = fresh(any_device, (22, 32), 3)
    before = device_out.get()
    part_a = (slice(3, 10), slice(5, 9)) if trans_a else (slice(3, 7), slice(5, 12))
    part_b = (slice(2, 8), slice(1, 8)) if trans_b else (slice(2, 9), slice(1, 7))
    part = (slice(4, 8), slice(10, 16))
    a, b = a[part_a], b[part_b]
    any_device.gemm(
        device_a[part_a], device_b[part_b], device_out[part], trans_a=trans_a, trans_b=trans_b
    )
    got = device_out.get()
    close(got[part], (a.T if trans_a else a) @ (b.T if trans_b else b))
    got[part] = before[part]
    np.testing.assert_array_equal(got, before)


def test_gemm_of_batches(any_device: Device) -> None:
    xp = any_device.xp
    a, device_a = fresh(any_device, (4, 5, 6), 1)
    b, device_b = fresh(any_device, (4, 7, 6), 2)
    out = xp.empty((4, 5, 7), np.float32)
    any_device.gemm(device_a, device_b, out, trans_b=True)
    close(out.get(), a @ b.transpose(0, 2, 1))
    # One matrix for all.
    any_device.gemm(device_a[2], device_b, out, trans_b=True)
    close(out.get(), a[2] @ b.transpose(0, 2, 1))
    any_device.gemm(device_a, device_b[1], out, trans_b=True)
    close(out.get(), a @ b[1].T)
    # A batch inside of rows: matrices that interleave.
    wide, device_wide = fresh(any_device, (5, 24), 3)
    split = device_wide.reshape(5, 4, 6).transpose(1, 0, 2)
    any_device.gemm(split, device_b, out, trans_b=True)
    close(out.get(), wide.reshape(5, 4, 6).transpose(1, 0, 2) @ b.transpose(0, 2, 1))
    # Frames that overlap.
    signal, device_signal = fresh(any_device, (5, 12), 4)
    strided = xp.lib.stride_tricks.as_strided
    frames = strided(device_signal, (4, 5, 6), (8, 48, 4))
    any_device.gemm(frames, device_b, out, trans_b=True)
    overlapping = np.stack([signal[:, 2 * i : 2 * i + 6] for i in range(4)])
    close(out.get(), overlapping @ b.transpose(0, 2, 1))


def test_gemm_of_nothing(any_device: Device) -> None:
    xp = any_device.xp
    empty = xp.empty((0, 3), np.float32)
    any_device.gemm(empty, xp.zeros((3, 2), np.float32), xp.empty((0, 2), np.float32))
    out = xp.zeros((3, 2), np.float32)
    out += 5
    no_sum = xp.empty((0, 2), np.float32)
    any_device.gemm(empty, no_sum, out, trans_a=True, accumulate=True)
    np.testing.assert_array_equal(out.get(), np.full((3, 2), 5))
    any_device.gemm(empty, no_sum, out, trans_a=True)
    np.testing.assert_array_equal(out.get(), np.zeros((3, 2)))
    batch = xp.empty((0, 3, 3), np.float32)
    any_device.gemm(batch, batch, batch.copy())


def test_gemm_of_what_does_not_fit(any_device: Device) -> None:
    xp = any_device.xp
    a, b, out = (xp.zeros(shape, np.float32) for shape in ((2, 3), (3, 4), (2, 4)))
    for wrong in (
        (a, b, xp.zeros((2, 5), np.float32)),
        (a, a, out),
        (a, b.T, out),
        (a, b.T.copy().T, out),
        (a, b.astype(np.float64), out),
        (xp.zeros((2, 2, 3), np.float32), b, out),
        (a, xp.lib.stride_tricks.as_strided(b, (3, 4), (8, 4)), out),
        (a, b, xp.lib.stride_tricks.as_strided(out, (2, 2, 4), (0, 16, 4))),
        (a[0], b, out),
    ):
        with pytest.raises(ShapeError):
            any_device.gemm(*wrong)


@pytest.mark.parametrize("math", BITS)
def test_math(any_device: Device, math: str) -> None:
    if any_device.compute_capability < (8, 0) and math != "float32":
        with pytest.raises(DeviceError, match=r"needs compute capability 8\.0"):
            any_device.check_math(math)
        return
    a, device_a = fresh(any_device, (64, 96), 1)
    b, device_b = fresh(any_device, (96, 80), 2)
    exact = a.astype(np.float64) @ b
    out = any_device.xp.empty((64, 80), np.float32)

    def error() -> float:
        return float(np.linalg.norm(out.get() - exact) / np.linalg.norm(exact))

    any_device.gemm(device_a, device_b, out, math=math)
    bound = 2.0 ** -BITS[math]
    assert error() < 2 * bound
    # It does round: otherwise the mode would be of no use.
    assert math == "float32" or error() > bound / 8
    any_device.gemm(device_a, device_b, out)
    assert error() < 1e-6


def test_math_that_there_is_not() -> None:
    device = emulated()
    with pytest.raises(ConfigError, match="math='fp8' must be one of 'float32', 'tf32', 'bf16'"):
        device.check_math("fp8")
    device.compute_capability = (7, 5)
    with pytest.raises(DeviceError, match=r"math='bf16' needs compute capability 8\.0"):
        device.check_math("bf16")
    device.check_math("float32")


# ------------------------------------------------------------------ memory


def test_pinned_memory_and_streams(any_device: Device) -> None:
    host, back = any_device.pinned((3, 5)), any_device.pinned((3, 5))
    assert (host.dtype, host.shape) == (np.float32, (3, 5))
    assert any_device.pinned(4, np.int16).shape == (4,)
    assert any_device.pinned((0, 2)).size == 0
    host[...] = np.arange(15).reshape(3, 5)
    stream, event = any_device.stream(), any_device.event()
    with stream:
        x = any_device.xp.empty((3, 5), np.float32)
        x.set(host, stream=stream)
        x *= 2
        x.get(stream=stream, out=back, blocking=False)
        event.record(stream)
    event.synchronize()
    np.testing.assert_array_equal(back, 2 * np.arange(15).reshape(3, 5))
    any_device.synchronize()


def test_what_a_card_is(any_device: Device) -> None:
    assert any_device.name
    assert any_device.compute_capability >= (5, 0)
    assert any_device.multiprocessors > 0
    assert 48 * 1024 <= any_device.shared_memory_per_block < 1 << 20
    assert 0 < any_device.free_memory() <= any_device.total_memory
    assert any_device.cuda_version >= 11000
    assert any_device.name in repr(any_device)
    assert issubclass(any_device.out_of_memory, MemoryError)
    with any_device.active(), any_device.active():
        pass


@pytest.mark.gpu
def test_one_object_per_card() -> None:
    assert get_device(0) is get_device(0)


# ------------------------------------------------------------------ without a card


class FakeRuntimeError(RuntimeError):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def fake_cupy(count: Any = 1, version: str = "13.3.0", nvrtc: Any = None) -> SimpleNamespace:
    def asked(answer: Any) -> Callable[[], Any]:
        def ask() -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        return ask

    runtime = SimpleNamespace(CUDARuntimeError=FakeRuntimeError, getDeviceCount=asked(count))
    cuda = SimpleNamespace(runtime=runtime, nvrtc=SimpleNamespace(getVersion=asked(nvrtc)))
    return SimpleNamespace(__version__=version, cuda=cuda)


@pytest.mark.parametrize(
    ("capability", "cuda_version", "message"),
    [
        ((6, 1), 12040, r"A card has compute capability 6\.1; CUDA 12 needs 7\.0 here"),
        ((7, 0), 12040, None),
        ((7, 0), 13000, r"compute capability 7\.0; CUDA 13 needs 7\.5 here, use device='cpu'"),
        ((7, 5), 13000, None),
    ],
)
def test_cards_that_are_too_old(
    monkeypatch: pytest.MonkeyPatch,
    capability: tuple[int, int],
    cuda_version: int,
    message: str | None,
) -> None:
    card = SimpleNamespace(name="A card", compute_capability=capability, cuda_version=cuda_version)
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(1))
    monkeypatch.setitem(sys.modules, "cupy.cuda", SimpleNamespace(cufft=None))
    libraries = SimpleNamespace(cublas=None)
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs", libraries)
    monkeypatch.setattr("umx_np.cuda.device.Device", lambda cupy, index: card)
    get_device.cache_clear()
    try:
        if message is None:
            assert get_device(0) is card
        else:
            with pytest.raises(DeviceError, match=message):
                get_device(0)
    finally:
        get_device.cache_clear()


@pytest.mark.parametrize(
    ("cupy", "index", "message"),
    [
        (None, 0, r"CuPy cannot be imported .*; install 'umx-np\[cuda12\]' or 'umx-np\[cuda13\]'"),
        (fake_cupy(version="12.3.0"), 0, r"CuPy 12\.3\.0 is too old"),
        (
            fake_cupy(FakeRuntimeError(35, "driver version is insufficient")),
            0,
            r"CUDA does not run \(driver version is insufficient\); install NVIDIA's driver",
        ),
        (fake_cupy(FakeRuntimeError(100, "no device")), 0, "there is no CUDA device"),
        (fake_cupy(0), 0, "there is no CUDA device"),
        (fake_cupy(2), 2, "index=2 must be less than 2"),
        (fake_cupy(2), -1, "index=-1 must be"),
        (
            fake_cupy(1, nvrtc=RuntimeError("libnvrtc.so.12")),
            0,
            r"a library of CUDA is missing \(libnvrtc\.so\.12\); install .*cupy-cuda12x\[ctk\]",
        ),
        (fake_cupy(1), 0, "a library of CUDA is missing"),
    ],
)  # fmt: skip
def test_reasons(monkeypatch: pytest.MonkeyPatch, cupy: Any, index: int, message: str) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    for name in ("cupy_backends.cuda.libs", "cupy.cuda"):
        monkeypatch.setitem(sys.modules, name, None)
    get_device.cache_clear()
    try:
        with pytest.raises(DeviceError, match=message):
            get_device(index)
    finally:
        get_device.cache_clear()
