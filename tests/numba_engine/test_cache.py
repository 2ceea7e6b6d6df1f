"""Where compiled kernels are kept, and what happens where they cannot be."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

numba = pytest.importorskip("numba", reason="needs the extra 'train'")

from umx_np.numba_engine import compiling  # noqa: E402

TYPES = [(numba.float64,)]

IMPORTS = """
import os
import numba
import numpy as np
from umx_np.numba_engine.updates import UpdateKernels
numba.njit([(numba.float64,)])(lambda x: x)  # imports what compiling needs
"""
STEP = """
p, g, m, v = np.ones((4, 8), np.float32)
scalars = (1.0, 0.0, 0.1, 0.9, 0.1, 0.1, 1.0, 1e-8)
UpdateKernels(np.dtype(np.float32)).adam(p, g, m, v, scalars)
print("updated", float(p[0]) < 1.0)
"""

# All kernels of training steps, also the one that other processors multiply with.
EVERY_KERNEL = """
import numpy as np
from umx_np.numba_engine import compiling

kernels, compiled = [], compiling.compiled
def kept(*arguments, **options):
    kernels.append(compiled(*arguments, **options))
    return kernels[-1]
compiling.compiled = kept

from umx_np.numba_engine.gemm import gemm_kernel, has_pairs
from umx_np.numba_engine.spectra import magnitude_kernel
from umx_np.config import ModelConfig
from umx_np.nn import TrainableNetwork
from umx_np.optim import Adam
from umx_np.testing import random_state

config = ModelConfig(nb_bins=17, hidden_size=8)
network = TrainableNetwork(config, random_state(config), backend="numba", threads=2)
x = np.ones((5, 3, 2, 17), np.float32)
y, cache = network.forward(x, rng=np.random.default_rng(0))
grads = network.backward(y, cache)
Adam(network.parameters, 1e-3, backend="numba").step(grads)
magnitude_kernel(256, np.dtype(np.float32))
gemm_kernel(np.dtype(np.float32))
if has_pairs():
    gemm_kernel(np.dtype(np.float32), True)
hits = sum(sum(kernel.stats.cache_hits.values()) for kernel in kernels)
misses = sum(sum(kernel.stats.cache_misses.values()) for kernel in kernels)
print(len(kernels), hits, misses)
"""


def _double(x):
    return 2.0 * x


def test_no_place_for_a_cache(monkeypatch, caplog):
    real = numba.njit

    def njit(*args, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function '_double': no locator available")
        return real(*args, **options)

    monkeypatch.setattr(compiling.numba, "njit", njit)
    with caplog.at_level(logging.WARNING):
        assert compiling.compiled(_double, TYPES)(4.0) == 8.0
    assert "cannot be cached" in caplog.text


def test_full_disk(monkeypatch, caplog):
    real = numba.njit

    def njit(*args, cache=False, **options):
        if cache:
            raise OSError(28, "No space left on device")
        return real(*args, **options)

    monkeypatch.setattr(compiling.numba, "njit", njit)
    with caplog.at_level(logging.WARNING):
        assert compiling.compiled(_double, TYPES)(4.0) == 8.0
    assert "No space left" in caplog.text


def test_other_errors_are_raised(monkeypatch):
    def njit(*args, **options):
        raise RuntimeError("something else")

    monkeypatch.setattr(compiling.numba, "njit", njit)
    with pytest.raises(RuntimeError, match="something else"):
        compiling.compiled(_double, TYPES)


def test_cache_folder_that_is_a_file(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("")
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(blocked / "cache")}
    run = subprocess.run(
        [sys.executable, "-c", IMPORTS + STEP],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.strip() == "updated True", run.stderr


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become another user"
)
def test_reader_without_any_writable_folder():
    """As in a container whose user owns nothing."""
    for folder in (Path(sys.prefix), *Path(sys.prefix).parents):
        if folder.stat().st_mode & 0o005 != 0o005:
            pytest.skip(f"{folder} is closed to other users, who could not even import NumPy")
    code = f"{IMPORTS}\nos.setgid(65534); os.setuid(65534)\n{STEP}"
    environment = {**os.environ, "HOME": "/nonexistent", "XDG_CACHE_HOME": "/nonexistent"}
    environment.pop("NUMBA_CACHE_DIR", None)
    run = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert run.stdout.strip() == "updated True", run.stderr
    assert "cannot be cached" in run.stderr


@pytest.mark.slow
def test_a_second_process_compiles_nothing(tmp_path):
    def run():
        done = subprocess.run(
            [sys.executable, "-c", EVERY_KERNEL],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return [int(number) for number in done.stdout.split()]

    nb_kernels, hits, misses = run()
    files = sorted(tmp_path.rglob("*.nbc"))
    assert nb_kernels > 10
    assert (hits, misses) == (0, nb_kernels)
    assert len(files) == nb_kernels
    assert run() == [nb_kernels, nb_kernels, 0]
    assert sorted(tmp_path.rglob("*.nbc")) == files


def test_a_kernel_that_would_never_be_found_again_is_refused():
    inner = numba.njit(_double)

    def outer(x):
        return inner(x)

    with pytest.raises(TypeError, match="kernel=outer closes over inner"):
        compiling.compiled(outer, TYPES)


def test_build_number_follows_the_sources(monkeypatch, tmp_path):
    first = compiling.build_number()
    (tmp_path / "kernel.py").write_text("pass")
    monkeypatch.setattr(compiling, "__file__", str(tmp_path / "compiling.py"))
    assert compiling.build_number.__wrapped__() != first
    assert Path(compiling.__file__).parent == tmp_path


def _make_multiply(factor, build):
    def multiply(x):
        return factor * x + 0.0 * build

    return multiply


def test_variants_of_a_kernel_do_not_share_an_index():
    """Processes that compile different ones at the same time would mix them up."""

    def index_of(factor, types, build=1):
        return compiling.compiled(
            _make_multiply(factor, build), types
        )._cache._cache_file._index_name

    other = [(numba.float32,)]
    names = {index_of(2, TYPES), index_of(3, TYPES), index_of(2, other), index_of(3, other)}
    assert len(names) == 4
    assert index_of(2, TYPES) in names
    # Those of another build replace what they find.
    assert index_of(2, TYPES, build=2) == index_of(2, TYPES)


def test_numba_is_imported_only_when_asked_for():
    code = (
        "import sys, umx_np, umx_np.nn, umx_np.optim, umx_np.backends.training\n"
        "from umx_np.config import ModelConfig\n"
        "from umx_np.testing import random_state\n"
        "c = ModelConfig(nb_bins=9, hidden_size=4)\n"
        "umx_np.nn.TrainableNetwork(c, random_state(c), backend='reference')\n"
        "assert 'numba' not in sys.modules\n"
        "umx_np.nn.TrainableNetwork(c, random_state(c))\n"
        "assert 'numba' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
