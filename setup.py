"""Build of the compiled extensions in src_ext/; all metadata is in pyproject.toml."""

import os
import re
import shutil
import sys
import sysconfig
import tomllib
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

# One wheel for all versions from this one on. A Python without the GIL has no stable ABI yet.
OLDEST = (3, 11)
LIMITED = sysconfig.get_config_var("Py_GIL_DISABLED") in (None, 0)

KERNELS = "src_ext/kernels"

link = []
if sys.platform == "win32":
    # clang-cl, see below; by itself it passes no options of Clang on.
    flags = ["/O2", "/clang:-fno-math-errno", "/clang:-ffp-contract=fast"]
else:
    if sys.platform == "linux":
        link = ["-Wl,--strip-all"]
    # Only the relaxations that vectorised sqrt, select and multiply-add need; NaN and infinity
    # keep their meaning, and sums are not reordered.
    flags = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast"]

extensions = [
    Extension(
        "umx_np._kernels.calls",
        ["src_ext/calls.pyx"],
        depends=["src_ext/guards.pxi"],
        extra_link_args=link,
    ),
    Extension(
        "umx_np._kernels.stft",
        ["src_ext/stft.pyx"],
        depends=["src_ext/checks.pxi"],
        extra_compile_args=flags,
        extra_link_args=link,
    ),
    Extension(
        "umx_np._kernels.cpu",
        [
            "src_ext/cpu.pyx",
            f"{KERNELS}/dispatch.c",
            f"{KERNELS}/isa_portable.c",
            f"{KERNELS}/isa_dotprod.c",
            f"{KERNELS}/isa_v3.c",
            f"{KERNELS}/isa_v3_vnni.c",
            f"{KERNELS}/isa_v4.c",
            f"{KERNELS}/isa_v4_vnni.c",
            f"{KERNELS}/isa_v4_bf16.c",
        ],
        include_dirs=[KERNELS],
        depends=[
            "src_ext/checks.pxi",
            "src_ext/arrays.pxi",
            "src_ext/int8.pxi",
            "src_ext/kernels.pxi",
        ]
        + [
            f"{KERNELS}/{name}.h"
            for name in (
                "kernels",
                "vec",
                "gemm_body",
                "bf16_body",
                "int8_body",
                "int8_dot",
                "lstm_body",
                "wiener_body",
                "wiener_gradient_body",
                "level_body",
            )
        ],
        extra_compile_args=flags,
        extra_link_args=link,
    ),
]


def readme() -> str:
    """Return README.md with absolute links: PyPI has no other files."""
    root = Path(__file__).parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    source = project["urls"]["Source"]
    raw = source.replace("https://github.com/", "https://raw.githubusercontent.com/") + "/main/"
    text = (root / "README.md").read_text(encoding="utf-8")
    text = re.sub(r"(!\[[^\]]*\]\()(?!https?:)", rf"\g<1>{raw}", text)
    # As a picture and not as text, which GitHub sends without this.
    text = re.sub(r"(!\[[^\]]*\]\([^)]*\.svg)\)", r"\g<1>?sanitize=true)", text)
    return re.sub(r"((?<!!)\[[^\]]*\]\()(?!https?:|#)", rf"\g<1>{source}/blob/main/", text)


class BuildExt(build_ext):
    """Compile on all cores, and with Clang on Windows: Visual C++ would make scalar kernels."""

    def finalize_options(self):
        super().finalize_options()
        self.parallel = self.parallel or os.cpu_count()

    def build_extensions(self):
        if self.compiler.compiler_type == "msvc":
            clang = shutil.which("clang-cl")
            if clang is None:
                raise SystemExit(
                    "clang-cl is not on the PATH; install LLVM, which Visual Studio offers as "
                    "'C++ Clang tools for Windows'"
                )
            self.compiler.initialize()
            self.compiler.cc = clang
        super().build_extensions()


class BuildPy(build_py):
    """Put the example song beside the page that offers it."""

    def run(self):
        super().run()
        if not self.editable_mode:
            target = Path(self.build_lib, "umx_np", "serve", "example.ogg")
            self.copy_file("examples/song.ogg", str(target))


if LIMITED:
    for extension in extensions:
        extension.py_limited_api = True
        version = f"0x{OLDEST[0]:02x}{OLDEST[1]:02x}0000"
        extension.define_macros = [("Py_LIMITED_API", version)]

setup(
    long_description=readme(),
    long_description_content_type="text/markdown",
    cmdclass={"build_ext": BuildExt, "build_py": BuildPy},
    options={"bdist_wheel": {"py_limited_api": f"cp{OLDEST[0]}{OLDEST[1]}"}} if LIMITED else {},
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
    ),
)
