"""Build of the compiled extensions in src_ext/; all metadata is in pyproject.toml."""

import sys

from Cython.Build import cythonize
from setuptools import Extension, setup

KERNELS = "src_ext/kernels"

if sys.platform == "win32":
    flags = ["/O2"]
else:
    # Only the relaxations that vectorised sqrt, select and multiply-add need; NaN and infinity
    # keep their meaning, and sums are not reordered.
    flags = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]

extensions = [
    Extension("umx_np._kernels.calls", ["src_ext/calls.pyx"]),
    Extension(
        "umx_np._kernels.stft",
        ["src_ext/stft.pyx"],
        depends=["src_ext/checks.pxi"],
        extra_compile_args=flags,
    ),
    Extension(
        "umx_np._kernels.cpu",
        [
            "src_ext/cpu.pyx",
            f"{KERNELS}/dispatch.c",
            f"{KERNELS}/isa_portable.c",
            f"{KERNELS}/isa_v3.c",
            f"{KERNELS}/isa_v4.c",
            f"{KERNELS}/isa_v4_bf16.c",
        ],
        include_dirs=[KERNELS],
        depends=["src_ext/checks.pxi", "src_ext/arrays.pxi", "src_ext/kernels.pxi"]
        + [
            f"{KERNELS}/{name}.h"
            for name in (
                "kernels",
                "vec",
                "gemm_body",
                "bf16_body",
                "lstm_body",
                "wiener_body",
                "wiener_gradient_body",
                "level_body",
            )
        ],
        extra_compile_args=flags,
    ),
]

setup(
    ext_modules=cythonize(
        extensions,
        compiler_directives={
            "language_level": "3",
            "boundscheck": False,
            "wraparound": False,
            "cdivision": True,
            # Not "freethreading_compatible": no Python without the GIL has run the tests yet
            # (tests/support/test_threads.py); one that imports this package turns its GIL on.
        },
    )
)
