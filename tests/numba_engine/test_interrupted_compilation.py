"""Ctrl-C while Numba compiles."""

from __future__ import annotations

import signal
import threading

import pytest

compiling = pytest.importorskip("umx_np.numba_engine.compiling")


def _kernel():
    pass


@pytest.mark.parametrize("fails", [False, True])
def test_an_interruption_waits_for_the_end_of_the_compilation(monkeypatch, fails):
    done = []

    def njit(signatures, **options):
        def compile_it(kernel):
            signal.raise_signal(signal.SIGINT)
            done.append(kernel)
            if fails:
                raise TypeError("no such types")
            return kernel

        return compile_it

    monkeypatch.setattr(compiling.numba, "njit", njit)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        compiling.compiled(_kernel, [])
    assert done == [_kernel]
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_compile_as_ever(monkeypatch):
    monkeypatch.setattr(compiling.numba, "njit", lambda signatures, **options: lambda kernel: 7)
    results = []
    thread = threading.Thread(target=lambda: results.append(compiling.compiled(_kernel, [])))
    thread.start()
    thread.join()
    assert results == [7]
