"""Build the extensions with AddressSanitizer and UBSan, and run what reaches their pointers.

``python tests/sanitize.py`` takes some minutes, needs GCC or Clang on Linux, and leaves nothing
behind: a copy of the sources is built in a temporary folder. There run, on every instruction-set
level that this processor has, the tests of the kernels, the golden files and the streaming tests,
then random calls of every entry (``tests/helpers/kernel_calls.py``). What a sanitizer finds first
ends the process that did it.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1"
_COPIED = ("umx_np", "src_ext", "tests", "recipes", "benchmarks", "examples", "docs")
_FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE")
_BUILT = shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "cpu.c", "stft.c")
_CONTRACT = ("", "_network", "_wiener", "_wiener_gradient")
_TESTS = (
    "tests/kernels",
    *(f"tests/backends/test_contract{part}.py" for part in _CONTRACT),
    "tests/dsp/test_magnitudes_backward.py",
    "tests/dsp/test_stft.py",
    # The emulator has fibers and guarded memory of its own.
    "-k",
    "not emulated",
)
_TESTS_OF_A_LEVEL = ("tests/backends/test_golden.py", "tests/engines/test_streaming.py")


def _library(name: str) -> str:
    compiler = os.environ.get("CC", "gcc")
    found = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True)
    return found.stdout.strip()


def _run(title: str, folder: Path, *arguments: str, **environment: str) -> bool:
    """Run Python in the copy; print how it ended, and its last lines if it did not end well."""
    begin = time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines = done.stdout.splitlines()
    last = next((line for line in reversed(lines) if line.strip()), "")
    seconds = time.monotonic() - begin
    print(f"{title:40s} status {done.returncode}, {seconds:5.0f} s: {last}", flush=True)
    if done.returncode:
        print("\n".join(lines[-60:]), flush=True)
    return not done.returncode


def main() -> int:
    """Build and run; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=120.0, help="of random calls")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only-calls", action="store_true", help="leave the tests out")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="umx-np-sanitize-") as temporary:
        folder = Path(temporary)
        for name in _COPIED:
            shutil.copytree(ROOT / name, folder / name, ignore=_BUILT)
        for name in _FILES:
            shutil.copy(ROOT / name, folder / name)
        # Checks of every access at full optimisation take the compiler many minutes.
        setup = (folder / "setup.py").read_text()
        (folder / "setup.py").write_text(setup.replace('"-O3"', '"-O1"'))
        build = ("setup.py", "-q", "build_ext", "--inplace", "-j", str(os.cpu_count() or 1))
        if not _run("build", folder, *build, CFLAGS=_FLAGS, LDFLAGS=_FLAGS):
            return 1
        sanitized = {
            "LD_PRELOAD": _library("libasan.so"),
            "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:abort_on_error=0",
            "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
            # Python's own allocator would hide the borders of small blocks.
            "PYTHONMALLOC": "malloc",
            "PYTHONPATH": str(folder / "tests"),
        }
        code = "from umx_np._kernels import cpu; print(cpu.__file__, *cpu.levels().items())"
        good = _run("levels", folder, "-c", code, **sanitized)
        calls = ("-m", "helpers.kernel_calls", "--seconds", str(options.seconds))
        good &= _run("random calls", folder, *calls, "--seed", str(options.seed), **sanitized)
        if options.only_calls:
            return int(not good)
        pytest = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=0")
        good &= _run("tests of the kernels", folder, *pytest, *_TESTS, **sanitized)
        code = "from umx_np._kernels import cpu; print(*(n for n, r in cpu.levels().items() if r))"
        found = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        )
        for level in found.stdout.split():
            title = f"golden files and streaming, {level}"
            level_environment = {**sanitized, "UMX_NP_ISA": level}
            good &= _run(title, folder, *pytest, *_TESTS_OF_A_LEVEL, **level_environment)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
