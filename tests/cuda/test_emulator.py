"""The emulator finds what is wrong: each test has a kernel with one mistake, and one without."""

from __future__ import annotations

import platform
import re

import numpy as np
import pytest
from helpers.emulated import Make, emulated, run
from helpers.emulator import launching
from helpers.emulator.streams import EmulatorError

from umx_np.cuda.device import Device
from umx_np.errors import DeviceError

# ------------------------------------------------------------------ what is allowed


def test_names_of_cuda(emulated_device: Device, make: Make) -> None:
    kernel = make(
        emulated_device,
        """
        const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
        const unsigned thread =
            threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
        const unsigned nb_threads = blockDim.x * blockDim.y * blockDim.z;
        out[block * nb_threads + thread] = 1000.0f * block + thread;
        """,
    )
    out = emulated_device.xp.empty(2 * 3 * 4 * 30, np.float32)
    kernel((2, 3, 4), (5, 3, 2), (out,))
    expected = 1000.0 * np.arange(24)[:, None] + np.arange(30)
    np.testing.assert_array_equal(out.get(), expected.ravel())


def test_shuffles(emulated_device: Device, make: Make) -> None:
    body = """
        const int i = threadIdx.x;
        out[i] = __shfl_sync(UMX_FULL_WARP, float(i), 3, 8);
        out[64 + i] = __shfl_xor_sync(UMX_FULL_WARP, double(i), 16);
        out[128 + i] = __shfl_down_sync(UMX_FULL_WARP, i, 5);
        out[192 + i] = __shfl_up_sync(UMX_FULL_WARP, i, 5);
        out[256 + i] = warp_sum(float(i));
    """
    out = emulated_device.xp.empty((5, 64), np.float32)
    make(emulated_device, body)((1,), (64,), (out,))
    lane, warp = np.arange(64) % 32, np.arange(64) // 32 * 32
    got = out.get()
    np.testing.assert_array_equal(got[0], warp + lane // 8 * 8 + 3)
    np.testing.assert_array_equal(got[1], warp + (lane ^ 16))
    np.testing.assert_array_equal(got[2], warp + np.where(lane + 5 < 32, lane + 5, lane))
    np.testing.assert_array_equal(got[3], warp + np.where(lane >= 5, lane - 5, lane))
    np.testing.assert_array_equal(got[4], 32 * warp + 31 * 16)


def test_atomics_and_types(emulated_device: Device, make: Make) -> None:
    kernel = make(
        emulated_device,
        "atomicAdd(sum, x[threadIdx.x]); atomicAdd(count, 1u); if (n == 5) atomicAdd(f, scale);",
        "const double* x, double* sum, unsigned* count, float* f, long long n, float scale",
    )
    xp = emulated_device.xp
    x = np.arange(64.0)
    total, count, f = xp.zeros(1), xp.zeros(1, np.uint32), xp.zeros(1, np.float32)
    kernel((1,), (64,), (xp.asarray(x), total, count, f, np.int64(5), np.float32(0.5)))
    assert (total.item(), count.item(), f.item()) == (x.sum(), 64, 32.0)


def test_a_grid_that_waits_for_itself(emulated_device: Device, make: Make) -> None:
    body = """
        unsigned generation = 0;
        const int size = gridDim.x * blockDim.x, i = blockIdx.x * blockDim.x + threadIdx.x;
        out[i] = i;
        for (int t = 0; t < 5; ++t) {
            grid_barrier(counter, gridDim.x, &generation);
            const float next = out[(i + 1) % size];
            grid_barrier(counter, gridDim.x, &generation);
            out[i] = next;
        }
    """
    kernel = make(
        emulated_device,
        body,
        "float* out, unsigned* counter",
        includes='#include "cooperative.cuh"',
    )
    xp = emulated_device.xp
    out = xp.empty(6 * 32, np.float32)
    kernel((6,), (32,), (out, xp.zeros(1, np.uint32)), cooperative=True)
    np.testing.assert_array_equal(out.get(), (np.arange(192) + 5) % 192)
    # Block after block, the first one waits for ever.
    with pytest.raises(EmulatorError, match=r"no thread can go on:\n.*thread 0 in grid_barrier"):
        kernel((6,), (32,), (out, xp.zeros(1, np.uint32)))


HANDOVER = """
    const int i = threadIdx.x;
    if (blockIdx.x == 0) {
        out[i] = 1.0f;
        __threadfence();
        __syncthreads();
        if (i == 0) *flag = 1;
    } else {
        if (i == 0) while (*flag != %d) umx_emulated::pause();
        __syncthreads();
        out[blockDim.x + i] = 1.0f + out[i];
    }
"""


def test_loops_that_wait(emulated_device: Device, make: Make) -> None:
    xp = emulated_device.xp
    how = {"parameters": "float* out, u64* flag"}
    out = xp.empty(128, np.float32)
    kernel = make(emulated_device, HANDOVER % 1, **how)
    kernel((2,), (64,), (out, xp.zeros(1, np.uint64)), cooperative=True)
    np.testing.assert_array_equal(out.get(), np.repeat([1.0, 2.0], 64))


def test_a_loop_that_waits_in_vain(make: Make) -> None:
    device = emulated()
    xp = device.xp
    how = {"parameters": "float* out, u64* flag"}
    kernel = make(device, HANDOVER % 2, **how)
    args = (xp.empty(128, np.float32), xp.zeros(1, np.uint64))
    with pytest.raises(EmulatorError, match=r"block \(1, 0, 0\): thread 0 in a loop that waits;"):
        kernel((2,), (64,), args, cooperative=True)


# ------------------------------------------------------------------ races

NEIGHBOUR = """
    UMX_SHARED(buffer);
    float* shared = reinterpret_cast<float*>(buffer);
    float value = threadIdx.x;
    for (int t = 0; t < 3; ++t) {
        shared[threadIdx.x] = value;
        %s
        value = shared[(threadIdx.x + 1) %% blockDim.x];
        %s
    }
    out[threadIdx.x] = value;
"""
SYNC = "__syncthreads();"
ROTATED = (np.arange(64) + 3.0) % 64


@pytest.mark.parametrize("order", launching.ORDERS)
def test_the_order_does_not_matter_without_races(make: Make, order: str) -> None:
    kernel = make(emulated(order, 3), NEIGHBOUR % (SYNC, SYNC))
    np.testing.assert_array_equal(run(kernel, shared=256), ROTATED)


@pytest.mark.parametrize("barriers", [("", SYNC), (SYNC, "")], ids=["first", "second"])
def test_a_missing_barrier_shows_in_some_order(make: Make, barriers: tuple[str, str]) -> None:
    wrong = []
    for order in launching.ORDERS:
        got = run(make(emulated(order, 3), NEIGHBOUR % barriers), shared=256)
        wrong.append(not np.array_equal(got, ROTATED))
    # The shuffled order alone finds it, which is why tests always run in it too.
    assert wrong[launching.ORDERS.index("shuffled")]


def test_a_race_between_blocks_shows(make: Make) -> None:
    body = "out[threadIdx.x] = blockIdx.x;"
    ascending = run(make(emulated("ascending"), body), 8)
    descending = run(make(emulated("descending"), body), 8)
    assert (ascending[0], descending[0]) == (7, 0)


def test_shuffling_is_reproducible(make: Make) -> None:
    body = (
        "for (int i = 0; i < 4; ++i) { __syncthreads(); out[atomicAdd(next, 1u)] = threadIdx.x; }"
    )
    got = []
    for seed in (1, 1, 2):
        device = emulated("shuffled", seed)
        out = device.xp.empty(256, np.float32)
        make(device, body, "float* out, unsigned* next")(
            (1,), (64,), (out, device.xp.zeros(1, np.uint32))
        )
        got.append(out.get())
    np.testing.assert_array_equal(got[0], got[1])
    assert not np.array_equal(got[0], got[2])


# ------------------------------------------------------------------ barriers


def test_a_barrier_that_some_threads_never_reach(emulated_device: Device, make: Make) -> None:
    kernel = make(emulated_device, "if (threadIdx.x >= 40) return;\n__syncthreads();\nout[0] = 1;")
    expected = (
        r"kernel=k .*no thread can go on:\n  block \(0, 0, 0\): "
        r"threads 0-39 at __syncthreads \(made\d.cu:5\); threads 40-63 returned"
    )
    with pytest.raises(EmulatorError, match=expected):
        run(kernel)


def test_a_barrier_in_two_places(emulated_device: Device, make: Make) -> None:
    body = "if (threadIdx.x < 32)\n__syncthreads();\nelse\n__syncthreads();\nout[threadIdx.x] = 1;"
    expected = r"reaches __syncthreads at made\d.cu:\d, but thread .* waits at made\d.cu:\d"
    with pytest.raises(EmulatorError, match=expected):
        run(make(emulated_device, body))


def test_a_shuffle_without_all_lanes(emulated_device: Device, make: Make) -> None:
    body = "float x = 1; if (threadIdx.x % 2) x = warp_sum(x); out[threadIdx.x] = x;"
    with pytest.raises(
        EmulatorError, match=r"at a barrier or shuffle of a warp \(common.cuh:\d+\)"
    ):
        run(make(emulated_device, body))
    body = "out[threadIdx.x] = __shfl_sync(0x0000ffffu, 1.0f, 0);"
    with pytest.raises(EmulatorError, match=r"mask of a warp is 0xffff instead of all lanes"):
        run(make(emulated_device, body))


def test_a_kernel_without_end(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launching.Settings, "seconds", 0.2)
    body = "volatile float* x = out; x[0] = 0; while (x[0] == 0) {}"
    with pytest.raises(EmulatorError, match=r"runs for more than 0\.2 s; now thread \(0, 0, 0\)"):
        run(make(emulated(), body))


# ------------------------------------------------------------------ memory


def test_what_is_not_written_shows(emulated_device: Device, make: Make) -> None:
    got = run(make(emulated_device, "if (threadIdx.x % 2) out[threadIdx.x] = 1;"))
    np.testing.assert_array_equal(np.isnan(got), np.arange(64) % 2 == 0)
    body = "UMX_SHARED(buffer); out[threadIdx.x] = reinterpret_cast<float*>(buffer)[threadIdx.x];"
    assert np.isnan(run(make(emulated_device, body), shared=256)).all()
    # A block finds nothing of the one before it.
    body = """
        UMX_SHARED(buffer);
        float* shared = reinterpret_cast<float*>(buffer);
        out[blockIdx.x * blockDim.x + threadIdx.x] = shared[threadIdx.x];
        shared[threadIdx.x] = 1;
    """
    assert np.isnan(run(make(emulated_device, body), 3, shared=256)).all()


@pytest.mark.parametrize(
    ("access", "message"),
    [
        ("out[64] = 1;", r"touches byte 256 of an array of 256 bytes, at made\d.cu:5"),
        ("out[0] = out[64];", r"touches byte 256 of an array of 256 bytes"),
        ("out[-1024] = 1;", r"touches byte -4096 of an array of 256 bytes"),
        ("out[-1] = 1;", r"writes outside of an array of 256 bytes"),
        ("shared[16] = 1;", r"touches byte 64 of the shared memory of block \(0, 0, 0\)"),
        ("out[0] = shared[-1024];", r"touches byte -4096 of the shared memory"),
        ("shared[-1] = 1;", r"block \(0, 0, 0\) writes outside of its shared memory of 64 bytes"),
        ("*(float4*)(out + 1) = make_float4(0, 0, 0, 0);", r"that is not aligned to its type"),
        pytest.param(
            "int n = threadIdx.x; out[0] = 5 / n;",
            r"thread \(0, 0, 0\) .* divides by zero",
            marks=pytest.mark.skipif(platform.machine() != "x86_64", reason="not trapped there"),
        ),
        ("float* p = 0; *p = 1;", r"touches address .*nowhere near an array"),
    ],
)  # fmt: skip
def test_accesses_outside(emulated_device: Device, make: Make, access: str, message: str) -> None:
    declare = "UMX_SHARED(buffer); volatile float* shared = reinterpret_cast<float*>(buffer);"
    kernel = make(emulated_device, f"{declare} (void)shared;\n{access}", before="")
    with pytest.raises(EmulatorError, match=message):
        run(kernel, shared=64)
    # And it goes on as if nothing had been.
    kernel = make(emulated_device, "out[threadIdx.x] = 1;", "float* out ")
    assert run(kernel).sum() == 64


DEEP = """
    struct Deep {
        static float down(int n) {
            volatile float x[64];
            x[n % 64] = n;
            return n ? down(n - 1) + x[n % 64] : x[0];
        }
    };
"""


def test_a_stack_that_overflows(emulated_device: Device, make: Make) -> None:
    body = "out[threadIdx.x] = Deep::down(threadIdx.x * 1000);"
    kernel = make(emulated_device, body, includes=DEEP)
    with pytest.raises(EmulatorError, match="touches its stack beyond its end"):
        run(kernel)


# ------------------------------------------------------------------ arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.float32(1),), "1 arguments for 2 parameters"),
        ((np.int32(1), np.int64(1)), "argument 0 is int32 int32, not pointer to f32"),
        ((None, np.int64(1)), "argument 1 is int64 int64, not i32"),
        ((None, np.uint32(1)), "argument 1 is uint32 uint32, not i32"),
        ((None, np.float32(1)), "argument 1 is float32 float32, not i32"),
        ((None, None), "argument 1 is uint64 uint64, not i32"),
    ],
)
def test_arguments_of_another_type(make: Make, arguments: tuple, message: str) -> None:
    kernel = make(emulated(), "", "float* out, int n")
    with pytest.raises(EmulatorError, match=re.escape(message)):
        kernel((1,), (1,), arguments)


def test_null_pointers(make: Make) -> None:
    device = emulated()
    kernel = make(device, "out[0] = x == nullptr && n == 7;", "const float* x, int n, float* out")
    out = device.xp.empty(1, np.float32)
    kernel((1,), (1,), (None, np.int32(7), out))
    assert out.item() == 1
    # CuPy hands the driver something else for None.
    with pytest.raises(EmulatorError, match="argument 0 is NoneType, not pointer to f32"):
        kernel._function((1,), (1,), (None, np.int32(7), out))


def test_arrays_of_another_type(make: Make) -> None:
    device = emulated()
    kernel = make(device, "", "const float* x")
    kernel((1,), (1,), (device.xp.zeros(2, np.complex64),))
    with pytest.raises(EmulatorError, match="argument 0 is ndarray float64, not pointer to f32"):
        kernel((1,), (1,), (device.xp.zeros(2),))
    with pytest.raises(TypeError, match="argument 0 is of type ndarray"):
        kernel((1,), (1,), (np.zeros(2, np.float32),))


# ------------------------------------------------------------------ launches


def test_launches_that_a_card_refuses(make: Make) -> None:
    device = emulated()
    kernel = make(device, "", before="__launch_bounds__(LIMIT * 2, 1)", defines={"LIMIT": 48})
    assert kernel.max_threads == 96
    with pytest.raises(DeviceError, match=r"cannot be launched with .*block=\(128,\)"):
        run(kernel, 1, 128)
    with pytest.raises(DeviceError, match="invalid argument"):
        run(kernel, shared=device.shared_memory_per_block + 1)
    run(kernel, shared=device.shared_memory_per_block)
    with pytest.raises(DeviceError, match="TOO_LARGE"):
        run(kernel, kernel.max_active_blocks(64) + 1, cooperative=True)
