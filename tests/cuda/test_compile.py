"""Every kernel compiles for every architecture, without spilling registers. Needs no card."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from helpers import nvrtc

from umx_np.cuda.compiling import SOURCES, kernels, options, read_source

pytestmark = pytest.mark.nvrtc

NAMES = sorted(file.name for file in SOURCES.glob("*.cu"))
# From the oldest that CuPy 13 supports to the newest; one for each kind of machine code.
ARCHITECTURES = (70, 75, 80, 86, 89, 90, 100, 120)


@pytest.fixture(params=nvrtc.libraries() or [None], ids=lambda path: path and path.name)
def compiler(request: pytest.FixtureRequest) -> nvrtc.Nvrtc:
    if request.param is None:
        pytest.skip("needs NVRTC: pip install nvidia-cuda-nvrtc-cu12")
    return nvrtc.nvrtc(request.param)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", NAMES)
def test_compiles_without_spills(name: str, architecture: int, compiler: nvrtc.Nvrtc) -> None:
    header = nvrtc.read_header(name)
    if architecture < header.first_architecture:
        pytest.skip(f"compiles from sm_{header.first_architecture} on")
    if architecture not in compiler.architectures():
        pytest.skip("not known to this NVRTC")
    source = read_source(name)

    def compiled(variant: dict[str, str]) -> dict[str, nvrtc.Usage]:
        return compiler.compile(source, architecture, options(variant))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        usages = list(pool.map(compiled, header.variants))
    for variant, usage in zip(header.variants, usages, strict=True):
        assert sorted(usage) == sorted(kernels(source))
        spilled = {
            kernel: used
            for kernel, used in usage.items()
            if used.spilled_bytes and kernel not in header.spills
        }
        assert not spilled, variant


def test_sources_are_package_data() -> None:
    assert NAMES
    patterns = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert '"cuda/sources/*.cu"' in patterns
    assert '"cuda/sources/*.cuh"' in patterns


# Functions that no kernel calls are not assembled, so here is one that calls them all.
COOPERATIVE = """#include "cooperative.cuh"
extern "C" __global__ void all(unsigned* counter, double* out) {
    unsigned generation = 0;
    grid_barrier(counter, gridDim.x, &generation);
    out[0] = warp_sum(out[threadIdx.x]);
}
"""


def test_what_kernels_share(compiler: nvrtc.Nvrtc, write_source: Callable[[str], str]) -> None:
    source = read_source(write_source(COOPERATIVE))
    for architecture in set(ARCHITECTURES) & set(compiler.architectures()):
        assert list(compiler.compile(source, architecture, options({}))) == ["all"]


def test_spills_are_seen(compiler: nvrtc.Nvrtc) -> None:
    many = "".join(f"float v{i} = x[{i}] * k;" for i in range(300))
    total = " + ".join(f"v{i} * x[k + {i}]" for i in range(300))
    again = " + ".join(f"v{i}" for i in range(300))
    source = (
        'extern "C" __global__ void __launch_bounds__(1024) greedy(float* x, int k) {'
        f"{many} __syncthreads(); x[0] = {total}; __syncthreads(); x[1] = {again}; }}"
    )
    assert compiler.compile(source, 90, options({}))["greedy"].spilled_bytes > 0


def test_errors_name_file_and_line(compiler: nvrtc.Nvrtc) -> None:
    source = '#line 7 "wrong.cu"\nextern "C" __global__ void wrong() { nothing(); }'
    with pytest.raises(nvrtc.CompileError, match=r"wrong\.cu\(7\)"):
        compiler.compile(source, 90, options({}))


def test_header(write_source: Callable[[str], str]) -> None:
    name = write_source(
        "// variants: A=1,B=2; A=3\n// variants: A=4\n// from: sm_80\n// spills: one, two\n"
    )
    header = nvrtc.read_header(name)
    assert header.variants == ({"A": "1", "B": "2"}, {"A": "3"}, {"A": "4"})
    assert header.first_architecture == 80
    assert header.spills == ("one", "two")
    assert nvrtc.read_header(write_source("")).variants == ({},)
