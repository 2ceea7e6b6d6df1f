"""Every entry of the extensions with right and wrong arguments: refused or done, never a crash."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import kernel_calls
from helpers.kernel_calls import LEVELLED, STFT

from umx_np._kernels import cpu
from umx_np._kernels import stft as stft_kernels

TESTS = Path(__file__).resolve().parents[1]


def in_a_process(*arguments: str) -> str:
    """Run `kernel_calls` apart, so that a crash is a failure and not the end of the tests."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", "helpers.kernel_calls", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
    return done.stdout


def test_every_argument_wrong_in_every_way():
    printed = in_a_process("--rounds", "3", "--share", "1", "--seed", "3")
    counts = {line[:24].strip(): int(line[24:]) for line in printed.splitlines()}
    names = [make.__name__.removesuffix("_call") for make in (*STFT, *LEVELLED)]
    assert all(counts[f"{name}, right"] >= 3 and counts[f"{name}, wrong"] > 50 for name in names)


@pytest.mark.long
def test_many_random_calls():
    """An hour, or as many seconds as ``UMX_NP_TEST_SECONDS`` says; see also tests/sanitize.py."""
    in_a_process("--seconds", os.environ.get("UMX_NP_TEST_SECONDS", "3600"), "--seed", "11")


def test_another_dtype_is_not_read_as_if_it_were_complex64():
    # A quarter of the bytes: the last bins would be read from behind the array.
    spectrum = np.zeros((1, 1, 4), np.float16)
    for dtype in (np.float16, np.float32, np.int16, np.complex128):
        with pytest.raises(ValueError, match="dtype"):
            stft_kernels.magnitude(spectrum.astype(dtype), np.zeros((1, 1, 4), np.float32), False)


def test_sizes_whose_product_is_too_large():
    window, out = np.ones(4), np.zeros((1, 3, 4))
    for n_hop in (2**62, 2**63 - 1):
        with pytest.raises(ValueError, match="do not fit"):
            stft_kernels.frame(np.zeros((1, 10)), window, out, n_hop)
        with pytest.raises(ValueError, match="do not fit"):
            stft_kernels.overlap_add(out, window, np.zeros((1, 10)), n_hop)
    kernels = cpu.Kernels("portable")
    for hidden in (-1, 0, 2**40, 2**63 - 1):
        with pytest.raises(ValueError, match="hidden="):
            kernels.padded_size(hidden)
        with pytest.raises(ValueError, match="hidden="):
            kernels.pack_gates(np.zeros((4, 1), np.float32), hidden)
        with pytest.raises(ValueError, match="hidden="):
            kernels.unpack_gates(np.zeros((4, 1), np.float32), hidden)
    # 2^24 targets times 2^31 levels: the bytes of their statistics are counted in 64 bits.
    mags = np.zeros((2**22, 1, 1, 1), np.float32)
    common = {"bin_start": 0, "bin_stop": 1, "max_abs": 1.0, "eps": 1e-10}
    with pytest.raises(ValueError, match="too many"):
        kernels.wiener(
            np.zeros((1, 1, 1), np.complex64),
            mags,
            np.zeros((2**22, 1, 1, 1), np.complex64),
            iterations=2**31 - 2,
            **common,
        )


def test_packing_checks_what_it_is_given(kernels):
    with pytest.raises(ValueError, match=r"\(n, k\) is needed"):
        kernels.pack_linear(np.zeros(4, np.float32))
    packed = kernels.pack_linear(np.ones((5, 3), np.float32))
    for n in (-1, 0, 1000, 2**63 - 1):
        with pytest.raises(ValueError, match="not those of"):
            kernels.unpack_linear(packed, n)
    with pytest.raises(ValueError, match="float32 of 3 dimensions"):
        kernels.unpack_linear(packed[0], 5)
    with pytest.raises(ValueError, match="4 a unit"):
        kernels.pack_gates(np.zeros((9, 2), np.float32), 2)
    with pytest.raises(ValueError, match="not those of hidden=2"):
        kernels.unpack_gates(np.zeros((9, 2), np.float32), 2)
    with pytest.raises(ValueError, match="weight_hh"):
        kernels.pack_recurrent(np.zeros(8, np.float32))
    with pytest.raises(ValueError, match="float32 of 3 dimensions"):
        kernels.unpack_recurrent(np.zeros((2, 2), np.float32))


def test_numbers_that_are_none_and_sizes_of_nothing():
    """Right calls with NaN, infinity, denormal numbers, and without frames, are part of these."""
    assert kernel_calls.fuzz(seed=5, rounds=10, share=0.0).total() >= 70
