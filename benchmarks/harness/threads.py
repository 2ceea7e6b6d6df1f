"""One number of threads for everything that computes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Hold BLAS, OpenMP and torch, where they are loaded, to some threads.

    umx_np and ONNX Runtime take the number as an argument and are not touched.
    """
    import sys

    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=threads):
        torch = sys.modules.get("torch")
        before = torch.get_num_threads() if torch else 0
        if torch:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            if torch:
                torch.set_num_threads(before)


def child_environment(threads: int) -> dict[str, str]:
    """Environment of a child process: its threads, and the same packages that are imported here.

    Parameters
    ----------
    threads : int
        For OpenMP and every BLAS.

    Returns
    -------
    dict of str to str
    """
    import umx_np

    environment = dict(os.environ)
    environment.update(dict.fromkeys(_VARIABLES, str(threads)))
    # The umx_np that was found here first, then this folder's parent for `benchmarks`.
    folders = [str(Path(umx_np.__file__).resolve().parents[1]), str(ROOT)]
    folders += [path for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    environment["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(folders))
    return environment
